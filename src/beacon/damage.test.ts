// Flipped bits, lost files, full disks and killed processes: whatever happens to the files, nothing wrong is served.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { it } from 'node:test';
import { collect, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { filledLog, filledView } from '../../test/suites/beacon-filled.ts';
import { LevelLog } from './level.ts';
import { LevelKv } from './view-level.ts';

for (const kind of ['log', 'view'] as const) {
  it(`detects flipped bits anywhere in the files of a ${kind}`, async (t) => {
    const directory = await temporary(t);
    const good = join(directory, 'good');
    await (kind === 'log' ? filledLog(good) : filledView(good));
    const outcomes = await flipEverywhere(kind, good, join(directory, 'bad'));
    assert.deepEqual(outcomes.wrong, []);
    assert.equal(outcomes.fine + outcomes.detected + outcomes.aborted, flips);
    assert(outcomes.detected > flips / 3, `only ${outcomes.detected} of ${flips} flips detected`);
  });
}

it('does not replace a lost log or view by an empty one', async (t) => {
  const directory = await temporary(t);
  const log = join(directory, 'log');
  const view = join(directory, 'view');
  await filledLog(log);
  await filledView(view);
  for (const path of [log, view]) await rm(join(path, 'db', 'CURRENT'));
  await assert.rejects(LevelLog.open(log), { code: 'DATA_DIR_DAMAGED' });
  await rm(join(view, 'db'), { recursive: true });
  await assert.rejects(LevelKv.open(view), { code: 'DATA_DIR_DAMAGED' });
});

it('notices that the tail of the log is gone', async (t) => {
  const directory = await temporary(t);
  const path = join(directory, 'log');
  const copy = join(directory, 'copy');
  await filledLog(path);
  await cp(path, copy, { recursive: true });
  {
    await using log = await LevelLog.open(path);
    await log.append(someAppend('addr/later'));
  }
  // What was acknowledged is only in the mark any more: an older state of the database is under it.
  await rm(join(path, 'db'), { recursive: true });
  await cp(join(copy, 'db'), join(path, 'db'), { recursive: true });
  await assert.rejects(LevelLog.open(path), { code: 'RECORD_CORRUPT', message: /had acknowledged 31/ });
});

it('refuses a directory of another kind, of a newer layout, or in use', async (t) => {
  const directory = await temporary(t);
  {
    await using _open = await LevelLog.open(directory);
    await assert.rejects(LevelLog.open(directory), { code: 'DATA_DIR_LOCKED' });
  }
  await assert.rejects(LevelKv.open(directory), { code: 'DATA_DIR_FOREIGN' });
  await writeFile(
    join(directory, 'born.json'),
    JSON.stringify({ format: 'holdfast/beacon-log', version: 2 }),
  );
  await assert.rejects(LevelLog.open(directory), { code: 'DATA_DIR_NEWER' });
});

it('keeps every acknowledged append when its process is killed', async (t) => {
  const directory = await temporary(t);
  let acknowledged = 0;
  for (let round = 0; round < 3; round++) {
    acknowledged = await killedAppending(join(directory, 'log'), acknowledged + 150);
    await using log = await LevelLog.open(join(directory, 'log'));
    const entries = await collect(log.read(1));
    assert(entries.length >= acknowledged, `${entries.length} entries, ${acknowledged} acknowledged`);
    acknowledged = entries.length;
  }
});

/** Appends in another process until `goal` is acknowledged, then kills it. Returns the last acknowledged revision. */
async function killedAppending(path: string, goal: number): Promise<number> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'append.child.ts'), path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let last = 0;
  for await (const line of createInterface({ input: child.stdout })) {
    last = Math.max(last, Number(line));
    if (last >= goal) child.kill('SIGKILL');
  }
  assert(last >= goal, `the child ended at revision ${last}`);
  return last;
}

const flips = 120;

interface Outcomes {
  fine: number;
  detected: number;
  /** LevelDB's own assertions end the process for some flips: loud, and nothing is served. */
  aborted: number;
  readonly wrong: string[];
}

/** Runs the flips in another process, and goes on in a new one where LevelDB aborted it. */
async function flipEverywhere(kind: 'log' | 'view', good: string, bad: string): Promise<Outcomes> {
  const outcomes: Outcomes = { fine: 0, detected: 0, aborted: 0, wrong: [] };
  for (let next = 0; next < flips; next++) {
    const script = join(import.meta.dirname, 'damage.child.ts');
    const args = [script, kind, good, bad, String(next), String(flips)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    const exited = once(child, 'exit');
    for await (const line of createInterface({ input: child.stdout })) {
      next++;
      if (line === 'fine') outcomes.fine++;
      else if (line === 'detected') outcomes.detected++;
      else outcomes.wrong.push(line);
    }
    const [code, signal]: unknown[] = await exited;
    if (signal === 'SIGABRT' || signal === 'SIGSEGV') outcomes.aborted++;
    else if (code !== 0) outcomes.wrong.push(`the child ended with ${String(code)}`);
  }
  return outcomes;
}

async function temporary(t: { after: (fn: () => Promise<void>) => void }): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'holdfast-damage-'));
  t.after(() => rm(directory, { recursive: true }));
  return directory;
}
