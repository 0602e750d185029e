import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import {
  putAppend,
  someAddress,
  someId,
  someManifest,
  withFalseSignature,
} from '../../test/suites/beacon-records.ts';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { namedLog } from '../../test/support/named-log.ts';
import { lineageOf } from '../beacon/lineage.ts';
import type { Append, BeaconLog, LogLineage } from '../beacon/log.ts';
import { MemoryLog } from '../beacon/memory.ts';
import { RemoteLog } from '../beacon/remote.ts';
import { rowKey } from '../beacon/rows.ts';
import { serveBeacon } from '../beacon/serve.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { DoorView } from './door-view.ts';

const first = lineageOf('11'.repeat(16));
const second = lineageOf('22'.repeat(16), first);
const third = lineageOf('33'.repeat(16), second);
/** A log that was made where nobody knew of ours any more. */
const stranger = lineageOf('44'.repeat(16));

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
  const door = await steward.door(dir);
  await door.copy.view.waitFor(2, t.signal);
  await door.stop();
  // The copy was moved, the new id not yet written.
  await writeFile(join(dir, 'view-log'), JSON.stringify({ follows: first.id, next: second.id }));
  for (let start = 0; start < 2; start++) {
    const { copy, stop } = await steward.door(dir);
    assert.equal(copy.view.position().revision, 2, 'it is there, and not moved once more');
    await stop();
  }
  assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log']);
  // Only the copy before was moved.
  await rename(join(dir, 'view'), join(dir, `view.next-${second.id}`));
  await mkdir(join(dir, `view.replaced-${first.id}`));
  await writeFile(join(dir, 'view-log'), JSON.stringify({ follows: first.id, next: second.id }));
  const { copy, stop } = await steward.door(dir);
  assert.equal(copy.view.position().revision, 2);
  await stop();
  assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log', `view.replaced-${first.id}`]);
});

test('without its note the copy is kept, and followed on where its chain goes on', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const steward = new Steward();
  await steward.putInForce(['a', 'b'], first);
  const dir = await steward.leftDirectory(t, 2);
  await writeFile(join(dir, 'view-log'), '{"follows": "1');
  const after = await steward.door(dir);
  assert.equal(after.copy.view.position().revision, 2);
  await steward.append('c');
  await after.copy.view.waitFor(3, t.signal);
  await after.stop();
});

describe('a log in the place of ours', () => {
  const bk = someId('bk');
  const [a, b, c] = ['a', 'b', 'c'].map((name) => putAppend(someManifest(someAddress(name)), bk)) as [
    Append,
    Append,
    Append,
  ];
  const other = putAppend(someManifest(someAddress('b'), { salt: 'other' }), bk);

  /** A door that follows the first log, of two records. */
  async function followed(t: TestContext) {
    const steward = new Steward();
    await steward.putInForce([a, b], first);
    const dir = await directory(t);
    const door = await steward.door(dir);
    await door.copy.view.waitFor(2, t.signal);
    return { steward, dir, door };
  }

  for (const [name, entries, reason, lineage] of [
    ['lacks a record', [a, c], /version 1 of addr\/.*\/b is not in it/, second],
    ['has another one in its place', [a, other, c], /version 1 of addr\/.*\/b is another one in it/, second],
    ['is empty', [], /is not in it/, second],
    [
      'names nobody and lacks a record',
      [c, a],
      /log 4{32} .* version 1 of addr\/.*\/b is not in it/,
      stranger,
    ],
  ] as const)
    test(`is not followed when it ${name}, and nothing of ours is given up`, async (t) => {
      t.mock.method(console, 'error', () => undefined);
      const { steward, dir, door } = await followed(t);
      let isReplaced = false;
      void door.copy.replaced.then(() => (isReplaced = true));
      await steward.putInForce(entries, lineage);
      await untilDiverged(door.copy, reason, t.signal);
      const { watches } = steward;
      await assert.rejects(door.followed.head(), { code: 'BEACON_UNAVAILABLE', message: reason });
      await steward.append('more');
      await assert.rejects(door.followed.head(), { code: 'BEACON_UNAVAILABLE', message: reason });
      assert.equal(steward.watches, watches, 'what has not grown, or only just, is not folded again');
      assert.equal((await door.copy.view.head(someAddress('b')))?.version, 1);
      assert.equal(isReplaced, false);
      await door.stop();
      // Started again it thinks the same, and follows one that holds everything, in whatever order.
      await steward.putInForce(entries, lineage);
      const again = await steward.door(dir);
      await untilDiverged(again.copy, reason, t.signal);
      await again.stop();
      await steward.putInForce([c, b, a], third);
      const then = await steward.door(dir);
      await then.copy.replaced;
      await then.stop();
      const last = await steward.door(dir);
      assert.equal(last.copy.view.position().revision, 3, 'what was folded to compare is not folded again');
      await last.stop();
      assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log', `view.replaced-${first.id}`]);
    });

  test('is followed when a person accepts it by its id, and our copy stays for good', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const { steward, dir, door } = await followed(t);
    await assert.rejects(door.copy.accept(second.id), { code: 'VERSION_CONFLICT' }, 'nothing waits yet');
    await steward.putInForce([a, c], second);
    await untilDiverged(door.copy, /b is not in it/, t.signal);
    await assert.rejects(door.copy.accept(third.id), { code: 'VERSION_CONFLICT' }, 'another one waits');
    await door.copy.accept(second.id);
    await door.copy.replaced;
    await door.stop();
    for (const [entries, lineage] of [
      [[a, c], second],
      [[c, a], third],
    ] as const) {
      await steward.putInForce(entries, lineage);
      const next = await steward.door(dir);
      await next.copy.view.waitFor(2, t.signal);
      assert.equal(await next.copy.view.head(someAddress('b')), undefined);
      if (lineage === third) await next.copy.replaced;
      await next.stop();
    }
    const last = await steward.door(dir);
    await last.stop();
    assert.deepEqual((await readdir(dir)).sort(), [
      'view',
      'view-log',
      `view.left-${first.id}`,
      `view.replaced-${second.id}`,
    ]);
  });

  test('is followed when it holds everything, though it names nobody and other logs came in between', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const { steward, dir, door } = await followed(t);
    await steward.putInForce([], stranger); // a steward that has just lost its disk
    await untilDiverged(door.copy, /ends at revision 0;/, t.signal);
    assert.equal(door.copy.refused, undefined, 'nobody is offered an empty registry');
    await steward.append(c);
    await untilDiverged(door.copy, /version 1 of addr.* is not in it/, t.signal);
    assert.equal(door.copy.refused, stranger.id);
    const rebuilt = lineageOf('55'.repeat(16), stranger);
    await steward.putInForce([c, b, a], rebuilt);
    await door.copy.replaced;
    await assert.rejects(door.copy.accept(stranger.id), { code: 'VERSION_CONFLICT' }, 'it is not there now');
    await door.stop();
    const again = await steward.door(dir);
    await again.copy.view.waitFor(3, t.signal);
    await again.stop();
    assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log', `view.replaced-${first.id}`]);
  });

  test('waits for nobody any more once ours is back', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const { steward, door } = await followed(t);
    await steward.putInForce([c], stranger);
    await untilDiverged(door.copy, /is not in it/, t.signal);
    await steward.putInForce([a, b], first);
    while (door.copy.view.health().state !== 'following') await sleep(5, undefined, { signal: t.signal });
    assert.equal(door.copy.refused, undefined);
    await assert.rejects(door.copy.accept(stranger.id), { code: 'VERSION_CONFLICT' });
    await door.stop();
  });

  test('is folded from its start when an earlier look left what it does not tell', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const { steward, dir, door } = await followed(t);
    await steward.putInForce([a, c], stranger);
    await untilDiverged(door.copy, /b is not in it/, t.signal);
    await door.stop();
    await steward.putInForce([b, a], stranger);
    const again = await steward.door(dir);
    await again.copy.replaced;
    await again.stop();
    const last = await steward.door(dir);
    await last.copy.view.waitFor(2, t.signal);
    assert.equal((await last.copy.view.head(someAddress('b')))?.version, 1);
    await last.stop();
  });

  test('is accepted again where that was done before, and each copy stays', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const steward = new Steward();
    const dir = await directory(t);
    for (const [entries, lineage] of [
      [[a], first],
      [[b], stranger],
      [[a], first],
      [[b], stranger],
    ] as const) {
      await steward.putInForce(entries, lineage);
      const door = await steward.door(dir);
      if (door.copy.view.position().revision > 0) {
        await untilDiverged(door.copy, /is not in it/, t.signal);
        await door.copy.accept(lineage.id);
      } else await door.copy.view.waitFor(1, t.signal);
      await door.stop();
    }
    const last = await steward.door(dir);
    assert.equal((await last.copy.view.head(someAddress('b')))?.version, 1);
    await last.stop();
    assert.deepEqual((await readdir(dir)).sort(), [
      'view',
      'view-log',
      `view.left-${first.id}`,
      `view.left-${first.id}.2`,
      `view.left-${stranger.id}`,
    ]);
  });

  test('brings nothing false with it when it is accepted', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const { steward, dir, door } = await followed(t);
    await steward.putInForce([a, withFalseSignature(b)], second);
    await untilDiverged(door.copy, /b is not in it/, t.signal);
    await door.copy.accept(second.id);
    await door.stop();
    const next = await steward.door(dir);
    await next.copy.view.waitFor(2, t.signal);
    assert.equal(await next.copy.view.head(someAddress('b')), undefined);
    assert.equal((await next.copy.view.head(someAddress('a')))?.version, 1);
    assert.equal(next.copy.view.health().state === 'damaged', false);
    await next.stop();
  });

  test('leaves one copy of the past behind, however often that happens', async (t) => {
    t.mock.method(console, 'error', () => undefined);
    const steward = new Steward();
    const dir = await directory(t);
    await steward.putInForce([a], first);
    for (const [entries, lineage] of [
      [[b, a], second],
      [[c, b, a], third],
    ] as const) {
      const door = await steward.door(dir);
      await door.copy.view.waitFor(1, t.signal);
      await steward.putInForce(entries, lineage);
      await door.copy.replaced;
      await door.stop();
    }
    const door = await steward.door(dir);
    await door.copy.view.waitFor(3, t.signal);
    await door.stop();
    assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log', `view.replaced-${second.id}`]);
  });
});

test('a copy with a false record is given up, and folded again with every signature checked first', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const bk = someId('bk');
  const appends = ['a', 'b', 'c'].map((name) => putAppend(someManifest(someAddress(name)), bk));
  const forged = appends.map((append, index) => (index === 1 ? withFalseSignature(append) : append));
  const steward = new Steward();
  await steward.putInForce(forged, first);
  const dir = await directory(t);
  const door = await steward.door(dir);
  await door.copy.replaced;
  await assert.rejects(door.copy.view.head(someAddress('a')), { code: 'RECORD_CORRUPT' });
  await door.stop();
  for (let start = 0; start < 2; start++) {
    const again = await steward.door(dir);
    await again.copy.view.waitFor(3, t.signal);
    assert.equal(await again.copy.view.head(someAddress('b')), undefined);
    assert.equal((await again.copy.view.head(someAddress('c')))?.version, 1);
    await again.stop();
  }
  assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log', 'view.damaged']);
  assert.match(await readFile(join(dir, 'view-log'), 'utf8'), /"checked":true/);
});

test('a view with a row that its log does not give is given up once it has to prove itself, and folded again', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const steward = new Steward();
  const bk = someId('bk');
  await steward.putInForce(
    ['a', 'b'].map((name) => putAppend(someManifest(someAddress(name)), bk)),
    first,
  );
  const dir = await directory(t);
  const sound = await steward.door(dir);
  await sound.copy.view.waitFor(2, t.signal);
  sound.prove();
  await sound.stop();
  const tags = rowKey('tag', 'sec-high', someAddress('a'));
  {
    await using kv = await LevelKv.open(join(dir, 'view'));
    await kv.write(new Map([[tags, new Uint8Array()]]));
  }
  const door = await steward.door(dir);
  await door.copy.view.waitFor(2, t.signal);
  assert.equal((await door.copy.view.tagged('sec-high')).items.length, 1, 'nothing else notices it');
  door.prove();
  await door.copy.replaced;
  await assert.rejects(door.copy.view.head(someAddress('a')), { code: 'RECORD_CORRUPT' });
  await door.stop();
  const again = await steward.door(dir);
  await again.copy.view.waitFor(2, t.signal);
  assert.deepEqual((await again.copy.view.tagged('sec-high')).items, []);
  await again.stop();
});

test('a copy of an earlier edition is set aside and fetched again, from a log that holds all of it', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const steward = new Steward();
  await steward.putInForce(['a', 'b', 'c'], first);
  const dir = await steward.leftDirectory(t, 3);
  await makeEarlier(join(dir, 'view'));
  // The same id, and less than was seen.
  await steward.putInForce(['a', 'b'], first);
  const behind = await steward.door(dir);
  await untilDiverged(
    behind.copy,
    /ends at revision 2, does not hold what was seen here up to revision 3/,
    t.signal,
  );
  assert.equal(behind.copy.view.position().revision, 0);
  await behind.stop();
  // It is remembered over a start, and until that is there again.
  await steward.putInForce(['a', 'b', 'c', 'd'], first);
  const again = await steward.door(dir);
  await again.copy.view.waitFor(4, t.signal);
  await again.stop();
  assert.deepEqual((await readdir(dir)).sort(), ['view', 'view-log', 'view.earlier']);
});

test('a log of another history in the place of what was seen in an earlier edition is a person’s to accept', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const steward = new Steward();
  await steward.putInForce(['a', 'b'], first);
  const dir = await steward.leftDirectory(t, 2);
  await makeEarlier(join(dir, 'view'));
  await steward.putInForce(['x', 'y', 'z'], stranger);
  const other = await steward.door(dir);
  await untilDiverged(other.copy, /does not hold what was seen here/, t.signal);
  assert.equal(other.copy.refused, stranger.id);
  await other.copy.accept(stranger.id);
  await other.copy.replaced;
  await other.stop();
  const accepted = await steward.door(dir);
  await accepted.copy.view.waitFor(3, t.signal);
  await accepted.stop();
});

/** As the program before this one would have left it. */
async function makeEarlier(view: string): Promise<void> {
  const mark = JSON.parse(await readFile(join(view, 'born.json'), 'utf8')) as object;
  await writeFile(join(view, 'born.json'), JSON.stringify({ ...mark, version: 0 }));
}

async function untilDiverged(copy: DoorView, reason: RegExp, signal: AbortSignal): Promise<void> {
  const isSo = ({ state, reason: said } = copy.view.health()): boolean =>
    state === 'diverged' && reason.test(said);
  while (!isSo()) await sleep(5, undefined, { signal });
}

async function directory(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-door-view-'));
  t.after(() => rm(dir, { recursive: true }));
  return dir;
}

/** Serves one log after another, as a steward does that is started again in between. */
class Steward {
  /** How often somebody began to follow a log. */
  watches = 0;
  readonly #rpc = new Loopback();
  #log: MemoryLog | undefined;

  async putInForce(entries: readonly (string | Append)[], lineage: LogLineage): Promise<void> {
    const before = this.#log;
    this.#log = new MemoryLog();
    for (const entry of entries) await this.append(entry);
    const named = namedLog(this.#log, lineage);
    const watch: BeaconLog['watch'] = (from, options) => {
      this.watches++;
      return named.watch(from, options);
    };
    serveBeacon(this.#rpc, { ...named, watch }, { idleMs: 5 });
    await before?.[Symbol.asyncDispose]();
  }

  async append(entry: string | Append): Promise<void> {
    await this.#log?.append(typeof entry === 'string' ? someAppend(entry) : entry);
  }

  /** The directory of a door that has followed up to `revision` and was stopped. */
  async leftDirectory(t: TestContext, revision: number): Promise<string> {
    const dir = await directory(t);
    const door = await this.door(dir);
    await door.copy.view.waitFor(revision, t.signal);
    await door.stop();
    return dir;
  }

  async door(dir: string) {
    const copy = await DoorView.open(dir);
    const log = new RemoteLog(this.#rpc, () => 'steward');
    const ended = new AbortController();
    const followed = copy.over(log, ended.signal);
    const following = copy.view.follow(followed, ended.signal);
    const roots = copy.roots(ended.signal);
    return {
      copy,
      followed,
      prove: () => roots.prove(),
      stop: async () => {
        ended.abort();
        await log[Symbol.asyncDispose]();
        await following;
        await copy[Symbol.asyncDispose]();
      },
    };
  }
}
