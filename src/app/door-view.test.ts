import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { namedLog } from '../../test/support/named-log.ts';
import { lineageOf } from '../beacon/lineage.ts';
import type { LogLineage } from '../beacon/log.ts';
import { MemoryLog } from '../beacon/memory.ts';
import { RemoteLog } from '../beacon/remote.ts';
import { serveBeacon } from '../beacon/serve.ts';
import { DoorView } from './door-view.ts';

const first = lineageOf('11'.repeat(16));
const second = lineageOf('22'.repeat(16), first);

test('after a rebuild every door sets its copy aside and folds the new log, whichever asked for it', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const steward = new Steward();
  await steward.putInForce(['a', 'b', 'c'], first);
  const dirs = [await directory(t), await directory(t)];
  const doors = await Promise.all(dirs.map((dir) => steward.door(dir)));
  await Promise.all(doors.map(({ copy }) => copy.view.waitFor(3, t.signal)));
  await steward.putInForce(['c', 'a'], second);
  for (const [at, { copy, stop }] of doors.entries()) {
    await copy.replaced;
    assert.equal(
      (await Array.fromAsync(copy.view.entriesSince(1))).length,
      3,
      'until it starts again it answers from what it has',
    );
    await stop();
    const again = await steward.door(dirs[at] ?? '');
    await again.copy.view.waitFor(2, t.signal);
    await again.stop();
    assert.deepEqual((await readdir(dirs[at] ?? '')).sort(), [
      'view',
      'view-log',
      `view.replaced-${first.id}`,
    ]);
  }
});

test('killed in the middle of setting aside, it goes on at the next start', async (t) => {
  const steward = new Steward();
  await steward.putInForce(['c', 'a'], second);
  const dir = await directory(t);
  // The copy was moved, the new id not yet written.
  await writeFile(join(dir, 'view-log'), JSON.stringify({ follows: first.id, next: second.id }));
  for (let start = 0; start < 2; start++) {
    const { copy, stop } = await steward.door(dir);
    await copy.view.waitFor(2, t.signal);
    await stop();
  }
  assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log']);
});

test('without its note the copy is kept, and followed on where its chain goes on', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const steward = new Steward();
  await steward.putInForce(['a', 'b'], first);
  const dir = await directory(t);
  const before = await steward.door(dir);
  await before.copy.view.waitFor(2, t.signal);
  await before.stop();
  await writeFile(join(dir, 'view-log'), '{"follows": "1');
  const after = await steward.door(dir);
  assert.equal(after.copy.view.position().revision, 2);
  await steward.append('c');
  await after.copy.view.waitFor(3, t.signal);
  await after.stop();
});

async function directory(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-door-view-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

/** Serves one log after another, as a steward does that is started again in between. */
class Steward {
  readonly #rpc = new Loopback();
  #log: MemoryLog | undefined;

  async putInForce(subjects: readonly string[], lineage: LogLineage): Promise<void> {
    const before = this.#log;
    this.#log = new MemoryLog();
    for (const subject of subjects) await this.append(subject);
    serveBeacon(this.#rpc, namedLog(this.#log, lineage), { idleMs: 5 });
    await before?.[Symbol.asyncDispose]();
  }

  async append(subject: string): Promise<void> {
    await this.#log?.append(someAppend(subject));
  }

  async door(dir: string): Promise<{ readonly copy: DoorView; readonly stop: () => Promise<void> }> {
    const copy = await DoorView.open(dir);
    const log = new RemoteLog(this.#rpc, () => 'steward');
    const ended = new AbortController();
    const following = copy.view.follow(copy.over(log), ended.signal);
    return {
      copy,
      stop: async () => {
        ended.abort();
        await log[Symbol.asyncDispose]();
        await following;
        await copy[Symbol.asyncDispose]();
      },
    };
  }
}
