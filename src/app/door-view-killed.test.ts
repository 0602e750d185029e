// A door that is killed while it takes a steward's rows: whenever that is, none of them are followed that were not all
// there, and started again it comes to the rows that folding gives.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { before, it, after, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import type { KvRow } from '../beacon/kv.ts';
import { LevelLog } from '../beacon/level.ts';
import type { Append } from '../beacon/log.ts';
import { BeaconView } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';

/** Enough for a door to ask for rows at all, and that these are more than what is walked without a thread: 4 MiB. */
const entriesCount = 4_200;
const bytesMin = 6 * 1024 * 1024;
const bk = someId('bk');

let directory = '';
let folded: KvRow[] = [];

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'holdfast-killed-'));
  await using log = await LevelLog.open(join(directory, 'log'));
  for (let from = 0; from < entriesCount; from += 420)
    await Promise.all(Array.from({ length: 420 }, (_, at) => log.append(someEntry(from + at))));
  await using view = await BeaconView.open(await LevelKv.open(join(directory, 'steward')));
  await view.apply(await Array.fromAsync(log.read(1)));
  folded = await Array.fromAsync(view.rows());
  const pages = await Array.fromAsync(view.snapshot());
  await writeFile(join(directory, 'pages'), pages);
  assert((await stat(join(directory, 'pages'))).size > bytesMin, 'too few rows for a thread');
});

after(() => rm(directory, { recursive: true, force: true }));

for (const [when, haltAfter] of [
  ['before a thread walks them', 6],
  ['while a thread walks them', 18],
] as const)
  it(`comes to the same rows after it was killed ${when}`, async (t) => {
    const door = await Door.create(t);
    const child = door.start(haltAfter);
    assert.equal(await nextLine(child), `${haltAfter} pages`);
    if (haltAfter > 16) await door.untilSomeAreWritten(t.signal);
    await killed(child);
    assert((await readdir(door.view)).includes('db.next'), 'half of a copy is there');
    await door.checkNothingIsFollowed();
    await door.checkStartedAgain();
  });

for (const [when, ms] of [
  ['at once', 0],
  ['a little', 100],
] as const)
  it(`comes to the same rows after it was killed ${when} after the last page`, async (t) => {
    const door = await Door.create(t);
    const child = door.start(-1);
    assert.equal(await nextLine(child), 'all pages');
    await delay(ms);
    await killed(child);
    await door.checkStartedAgain();
  });

it('folds the log when it was killed over two copies', async (t) => {
  const door = await Door.create(t);
  for (let time = 0; time < 2; time++) {
    const child = door.start(18);
    assert.equal(await nextLine(child), '18 pages');
    await killed(child);
    await door.checkNothingIsFollowed();
  }
  await door.checkStartedAgain('folded');
  assert.deepEqual(
    (await readdir(join(door.view, '..'))).filter((name) => name.startsWith('view.')),
    [],
  );
});

it('takes the rows when nobody kills it', async (t) => {
  const door = await Door.create(t);
  const child = door.start(-1);
  assert.equal(await nextLine(child), 'all pages');
  assert.equal(await nextLine(child), 'copied');
  await once(child, 'exit');
  await door.checkRows();
});

/** The branch key comes with every object until it is registered. */
function someEntry(index: number): Append {
  const append = putAppend(someManifest(someAddress(`k/${index}`)), bk);
  return index === 0 ? append : { ...append, records: append.records.slice(0, 2) };
}

class Door {
  readonly #dataDir: string;
  readonly #log: string;
  readonly #t: TestContext;

  private constructor(t: TestContext, dataDir: string, log: string) {
    this.#t = t;
    this.#dataDir = dataDir;
    this.#log = log;
  }

  static async create(t: TestContext): Promise<Door> {
    const dataDir = await mkdtemp(join(directory, 'door-'));
    const log = join(dataDir, 'steward-log');
    await cp(join(directory, 'log'), log, { recursive: true });
    return new Door(t, dataDir, log);
  }

  get view(): string {
    return join(this.#dataDir, 'view');
  }

  start(haltAfter: number): ChildProcess {
    const path = fileURLToPath(new URL('./door-view.child.ts', import.meta.url));
    const args = [path, this.#dataDir, this.#log, join(directory, 'pages'), String(haltAfter)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    this.#t.after(() => child.kill('SIGKILL'));
    return child;
  }

  /** Until tables of the copy are on the disk. */
  async untilSomeAreWritten(signal: AbortSignal): Promise<void> {
    const next = join(this.view, 'db.next');
    for (;;) {
      const names = await readdir(next);
      const sizes = await Promise.all(names.map(async (name) => (await stat(join(next, name))).size));
      if (sizes.some((size) => size > 0)) return;
      await delay(5, undefined, { signal });
    }
  }

  /** Looks at what is on the disk as any other program would. */
  async checkNothingIsFollowed(): Promise<void> {
    const left = join(this.#dataDir, 'left');
    await rm(left, { recursive: true, force: true });
    await cp(this.view, left, { recursive: true });
    await assert.rejects(async () => BeaconView.open(await LevelKv.open(left)), {
      code: 'RECORD_CORRUPT',
      message: /which was not finished/,
    });
    await using kv = await LevelKv.open(left);
    const rows = await Array.fromAsync(kv.range({ from: '', to: '\u{10ffff}' }));
    assert.deepEqual(
      rows.map(([key]) => key),
      ['sig'],
      'no row of the copy is there',
    );
  }

  /** `how`: by another copy, or by folding. */
  async checkStartedAgain(how: 'copied' | 'folded' = 'copied'): Promise<void> {
    const again = this.start(-1);
    const lines = await Array.fromAsync(createInterface({ input: again.stdout ?? assert.fail() }));
    assert.equal(lines.at(-1), how);
    await this.checkRows();
  }

  async checkRows(): Promise<void> {
    assert(!(await readdir(this.view)).includes('db.next'), 'what was left of the copy is gone');
    await using view = await BeaconView.open(await LevelKv.open(this.view));
    assert.equal(view.position().revision, entriesCount);
    assert.deepEqual(await Array.fromAsync(view.rows()), folded);
  }
}

async function nextLine({ stdout }: ChildProcess): Promise<string> {
  const [text] = await once(stdout?.setEncoding('utf8') ?? assert.fail(), 'data');
  return String(text).trimEnd();
}

async function killed(child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  assert.deepEqual(await exited, [null, 'SIGKILL']);
}
