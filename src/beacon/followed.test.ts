// Two views elsewhere, and one log after another in force at the place they follow.

import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { namedLog } from '../../test/support/named-log.ts';
import { HoldfastError } from '../core/errors.ts';
import { FollowedLog } from './followed.ts';
import { lineageOf, parseLineage } from './lineage.ts';
import type { BeaconLog, LogLineage } from './log.ts';
import { MemoryLog } from './memory.ts';
import { RemoteLog } from './remote.ts';
import { serveBeacon } from './serve.ts';
import { BeaconView } from './view.ts';
import { MemoryKv } from './view-memory.ts';

const first = lineageOf('11'.repeat(16));
const second = lineageOf('22'.repeat(16), first);
const third = lineageOf('33'.repeat(16), second);
const stranger = lineageOf('44'.repeat(16));

test('a log rebuilt in the place of another is noticed by every view, not only by the one that asked', async (t) => {
  const place = new Place(t);
  place.putInForce(await logOf('a', 'b', 'c'), first);
  const followers = [await place.follower(), await place.follower()];
  for (const { view } of followers) await view.waitFor(3, t.signal);
  place.putInForce(await logOf('b', 'a'), second);
  for (const each of followers) {
    assert.deepEqual(await each.replaced, second);
    assert.equal(each.view.position().revision, 3, 'it keeps what it has');
    assert.equal(each.followed, first.id);
  }
});

test('one that was away for two rebuilds finds its log among the ancestors', async (t) => {
  const place = new Place(t);
  place.putInForce(await logOf('a'), first);
  const follower = await place.follower();
  await follower.view.waitFor(1, t.signal);
  place.putInForce(await logOf('c', 'b', 'a'), third);
  assert.deepEqual(await follower.replaced, third);
});

test('a log restored with its history is followed on, by its new id', async (t) => {
  const place = new Place(t);
  place.putInForce(await logOf('a', 'b'), first);
  const follower = await place.follower();
  await follower.view.waitFor(2, t.signal);
  place.putInForce(await logOf('a', 'b', 'c'), second);
  await follower.view.waitFor(3, t.signal);
  assert.equal(follower.followed, second.id);
  assert.equal(follower.isReplaced, false);
});

test('a log of another history that names nobody is looked at too: who made it may have lost the names', async (t) => {
  const place = new Place(t);
  for (const [entries, known] of [
    [['x', 'y', 'z'], first.id],
    [['x'], first.id],
    [['x', 'y', 'z'], undefined],
  ] as const) {
    place.putInForce(await logOf('a', 'b'), first);
    const follower = await place.follower();
    await follower.view.waitFor(2, t.signal);
    follower.followed = known;
    place.putInForce(await logOf(...entries), stranger);
    assert.deepEqual(await follower.replaced, stranger);
    assert.equal(follower.followed, known);
  }
});

test('a log that says our id, or none, and tells another history is not looked at', async (t) => {
  const place = new Place(t);
  place.putInForce(await logOf('a', 'b'), first);
  const follower = await place.follower();
  await follower.view.waitFor(2, t.signal);
  for (const lineage of [undefined, first]) {
    place.putInForce(await logOf('x', 'y', 'z'), lineage);
    await follower.untilReason(/another history/, t.signal);
    place.putInForce(await logOf('a', 'b'), first);
    await follower.untilState('following', t.signal);
  }
  assert.equal(follower.isReplaced, false);
});

test('the beginning of our history is looked at only where it says that it replaces ours', async (t) => {
  const place = new Place(t);
  place.putInForce(await logOf('a', 'b'), first);
  const follower = await place.follower();
  await follower.view.waitFor(2, t.signal);
  for (const entries of [[], ['a']]) {
    place.putInForce(await logOf(...entries), stranger);
    await follower.untilReason(new RegExp(`ends at revision ${entries.length};`), t.signal);
  }
  assert.equal(follower.followed, first.id);
  follower.followed = undefined;
  place.putInForce(await logOf(), second);
  await follower.untilReason(/ends at revision 0;/, t.signal);
  assert.equal(follower.isReplaced, false);
  follower.followed = first.id;
  place.putInForce(await logOf('a'), second);
  assert.deepEqual(await follower.replaced, second);
});

test("a view that has seen nothing follows whatever is in force; one of before there were ids learns its log's", async (t) => {
  const place = new Place(t);
  place.putInForce(await logOf('a'), undefined);
  const old = await place.follower();
  await old.view.waitFor(1, t.signal);
  assert.equal(old.followed, undefined);
  place.putInForce(await logOf('a', 'b'), second);
  await old.view.waitFor(2, t.signal);
  assert.equal(old.followed, second.id);
  const empty = await place.follower();
  await empty.view.waitFor(2, t.signal);
  assert.equal(empty.followed, second.id);
});

test('a log that is there and damaged is told from one that does not answer yet', async (t) => {
  const place = new Place(t);
  const unreachable = new HoldfastError('PEER_UNREACHABLE', 'starting');
  const damaged = new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is damaged');
  place.refuse(unreachable);
  const follower = await place.follower();
  await follower.untilReason(/starting/, t.signal);
  assert.equal(follower.log?.isRefused, false);
  place.refuse(damaged);
  await follower.untilReason(/damaged/, t.signal);
  assert.equal(follower.log?.isRefused, true);
  place.putInForce(await logOf('a'), first);
  await follower.view.waitFor(1, t.signal);
  assert.equal(follower.log?.isRefused, false);
});

test('lineages name their ancestors, newest first, and no more than can be carried', () => {
  assert.deepEqual(third.replaces, [second.id, first.id]);
  let last: LogLineage = first;
  for (let count = 0; count < 200; count++) last = lineageOf(count.toString(16).padStart(32, '0'), last);
  assert.deepEqual(parseLineage(last), last);
  for (const wrong of [
    undefined,
    {},
    { id: 'x', replaces: [] },
    { id: first.id, replaces: ['x'] },
    { id: first.id },
  ])
    assert.equal(parseLineage(wrong), undefined);
});

async function logOf(...subjects: string[]): Promise<MemoryLog> {
  const log = new MemoryLog();
  for (const subject of subjects) await log.append(someAppend(subject));
  return log;
}

/** Where a log is served, and served instead of another after a restart. */
class Place {
  readonly #t: TestContext;
  readonly #rpc = new Loopback();
  #served: BeaconLog | undefined;

  constructor(t: TestContext) {
    this.#t = t;
  }

  putInForce(log: MemoryLog, lineage: LogLineage | undefined): void {
    serveBeacon(this.#rpc, namedLog(log, lineage), { idleMs: 5 });
    void this.#served?.[Symbol.asyncDispose](); // ends the watches of the one before
    this.#served = log;
  }

  refuse(error: HoldfastError): void {
    this.#rpc.handle('beacon.head', async () => {
      throw error;
    });
  }

  async follower(): Promise<Follower> {
    const log = new RemoteLog(this.#rpc, () => 'steward', { timeoutMs: 1000 });
    const view = await BeaconView.open(new MemoryKv(), { retryMsMax: 20 });
    const stop = new AbortController();
    const follower = new Follower(view);
    const following = view.follow(follower.logOver(log), stop.signal);
    this.#t.after(async () => {
      stop.abort();
      await log[Symbol.asyncDispose]();
      await following;
      await view[Symbol.asyncDispose]();
    });
    return follower;
  }
}

class Follower {
  readonly view: BeaconView;
  readonly replaced: Promise<LogLineage>;
  #replace: (by: LogLineage) => void = () => undefined;
  log: FollowedLog | undefined;
  followed: string | undefined;
  isReplaced = false;

  constructor(view: BeaconView) {
    this.view = view;
    this.replaced = new Promise((resolve) => {
      this.#replace = resolve;
    });
  }

  logOver(log: RemoteLog): FollowedLog {
    this.log = new FollowedLog(log, {
      position: () => this.view.position(),
      read: (from, options) => this.view.entriesSince(from, options),
      followed: () => this.followed,
      onFollowed: async (id) => {
        this.followed = id;
      },
      onReplaced: async (by) => {
        this.isReplaced = true;
        this.#replace(by);
      },
    });
    return this.log;
  }

  async untilReason(reason: RegExp, signal: AbortSignal): Promise<void> {
    while (!reason.test(this.view.health().reason)) await sleep(5, undefined, { signal });
  }

  async untilState(state: string, signal: AbortSignal): Promise<void> {
    while (this.view.health().state !== state) await sleep(5, undefined, { signal });
  }
}
