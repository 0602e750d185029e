import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { rawBlock } from '../core/block.ts';
import { uint32, utf8 } from '../core/bytes.ts';
import { hour } from '../core/clock.ts';
import { regionOf } from './provider-schedule.ts';
import { openProviderStore, type ProviderStore, type ProviderStoreOptions } from './provider-store.ts';
import { openDataDir } from './stores.ts';

const start = 1_800_000_000_000;
const owner = { node: 'node-1', peer: 'peer-1', cluster: 'test' };
const addr = Uint8Array.of(4, 127, 0, 0, 1, 6, 0, 80);

/** A store in a directory of its own with a clock that the test turns. */
async function withStore(
  options: Partial<ProviderStoreOptions>,
  work: (store: ProviderStore, clock: { at: number }, reopen: () => Promise<ProviderStore>) => Promise<void>,
): Promise<void> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-providers-'));
  const clock = { at: start };
  const time = { now: () => clock.at, monotonic: () => clock.at };
  const dir = await openDataDir(path, owner);
  let store = await openProviderStore(dir, { clock: time, ...options });
  try {
    await work(store, clock, async () => {
      await store[Symbol.asyncDispose]();
      store = await openProviderStore(dir, { clock: time, ...options });
      return store;
    });
  } finally {
    await store[Symbol.asyncDispose]();
    await dir[Symbol.asyncDispose]();
    await rm(path, { recursive: true });
  }
}

function block(seed: number) {
  return rawBlock(utf8(`block ${seed}`));
}

function digest(seed: number): Uint8Array {
  return block(seed).cid.multihash.digest;
}

test('a record is served with its addresses to the end of its validity, and not a millisecond longer', () =>
  withStore({}, async (store, clock) => {
    await store.add('alice', [addr], [digest(1)]);
    clock.at += 48 * hour - 1;
    assert.deepEqual(
      (await store.find(digest(1))).map(({ peer, addrs }) => ({
        peer,
        addrs: addrs.map((each) => [...each]),
      })),
      [{ peer: 'alice', addrs: [[...addr]] }],
    );
    clock.at += 1;
    assert.deepEqual(await store.find(digest(1)), []);
    assert.equal(store.counts().records, 1, 'no sweep has run: it is the read that refuses');
  }));

test('a record from a clock far ahead is not served for ever', () =>
  withStore({}, async (store, clock) => {
    clock.at += 1000 * hour;
    await store.add('alice', [addr], [digest(1)]);
    clock.at = start;
    assert.deepEqual(await store.find(digest(1)), []);
  }));

test('renewing gives a new lease, and the sweep leaves what was renewed', () =>
  withStore({}, async (store, clock) => {
    await store.add('alice', [addr], [digest(1), digest(2)]);
    clock.at += 40 * hour;
    await store.add('alice', [addr], [digest(1)]);
    clock.at += 20 * hour;
    assert.deepEqual(await store.sweepStep(), { removed: 1, done: true });
    assert.equal((await store.find(digest(1))).length, 1);
    assert.equal(store.counts().records, 1);
  }));

test('the sweep works in bounded steps, and a provider without records goes with its addresses', () =>
  withStore({}, async (store, clock) => {
    const digests = Array.from({ length: 100 }, (_, i) => digest(i));
    await store.add('alice', [addr], digests);
    clock.at += 50 * hour;
    const steps = [];
    do steps.push(await store.sweepStep(30));
    while (steps.at(-1)?.done === false);
    assert.deepEqual(
      steps.map(({ removed }) => removed),
      [30, 30, 30, 10],
    );
    assert.deepEqual([store.counts().records, store.counts().providers], [0, 0]);
    assert.equal(store.addrsOf('alice'), undefined);
  }));

test('quotas: a provider over its records, and one provider too many, are refused and counted', () =>
  withStore({ recordsPerProviderMax: 3, providersMax: 1 }, async (store) => {
    assert.equal(await store.add('alice', [addr], [1, 2, 3, 4].map(digest)), 3);
    assert.equal(await store.add('alice', [addr], [1, 2, 3].map(digest)), 3, 'renewing needs no room');
    assert.equal(await store.add('bob', [addr], [digest(1)]), 0);
    assert.equal(store.counts().refusedCount, 2);
  }));

test('withdrawn records are gone, twice the same record counts once', () =>
  withStore({}, async (store) => {
    await store.add('alice', [addr], [digest(1), digest(1), digest(2)]);
    assert.equal(store.counts().records, 2);
    assert.equal(await store.remove('alice', [digest(1), digest(1), digest(9)]), 1);
    assert.equal(await store.remove('bob', [digest(2)]), 0);
    assert.deepEqual([(await store.find(digest(1))).length, (await store.find(digest(2))).length], [0, 1]);
  }));

test('everything survives closing: records, counts, addresses, own records and who is in step', () =>
  withStore({}, async (store, clock, reopen) => {
    await store.add('alice', [addr], [digest(1), digest(2)]);
    await store.addOwn([block(3).cid, block(4).cid]);
    await store.announced(await store.ownByAge(0, 1, 1));
    await store.setSynced('alice', true);
    const again = await reopen();
    assert.deepEqual(again.counts(), { own: 2, records: 2, providers: 1, corruptCount: 0, refusedCount: 0 });
    assert.equal((await again.find(digest(1)))[0]?.addrs.length, 1);
    assert.equal((await again.ownByAge(0, 1, 10)).length, 1);
    assert.equal((await again.ownByAge(0, clock.at + 1, 10)).length, 2);
    assert.deepEqual(await again.syncedPeers(), ['alice']);
  }));

test('own records come by age, and again only when announced', () =>
  withStore({}, async (store, clock) => {
    await store.addOwn([block(1).cid, block(2).cid]);
    assert.equal(await store.addOwn([block(1).cid]), 0, 'known already');
    await store.announced(await store.ownByAge(0, 1, 1));
    clock.at += hour;
    const [never, once] = await store.ownByAge(0, clock.at, 10);
    assert.deepEqual([never?.announcedAt, once?.announcedAt], [0, start]);
    clock.at = start - hour;
    assert.equal((await store.ownByAge(clock.at + 1, Number.POSITIVE_INFINITY, 10)).length, 1);
    assert.equal(await store.removeOwn([block(1).cid, block(2).cid, block(3).cid]), 2);
    assert.deepEqual(await store.ownByAge(0, clock.at + 9 * hour, 10), []);
  }));

test('a record removed while it was being announced stays removed', () =>
  withStore({}, async (store, clock) => {
    await store.addOwn([block(1).cid]);
    const taken = await store.ownByAge(0, 1, 1);
    await store.removeOwn([block(1).cid]);
    await store.announced(taken);
    assert.deepEqual(await store.ownByAge(0, clock.at + 1, 1), []);
  }));

test('the regions together are all own records, each once', () =>
  withStore({}, async (store) => {
    const cids = Array.from({ length: 300 }, (_, i) => block(i).cid);
    await store.addOwn(cids);
    const seen: string[] = [];
    for (let region = 0; region < 1024; region++) {
      for await (const page of store.ownInRegion(region)) {
        for (const own of page) {
          assert.equal(regionOf(own.key), region);
          seen.push(own.cid.toString());
        }
      }
    }
    assert.deepEqual(seen.sort(), cids.map(String).sort());
  }));

test('a flipped bit in a record is not served, is counted, and heals with the next announcement', async () => {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-providers-'));
  try {
    const clock = { now: () => start, monotonic: () => start };
    await using dir = await openDataDir(path, owner);
    {
      await using store = await openProviderStore(dir, { clock });
      await store.add('alice', [addr], [digest(1)]);
      await store.addOwn([block(2).cid]);
    }
    await flipRecords(dir.storePath('providers'));
    await using store = await openProviderStore(dir, { clock });
    assert.deepEqual(await store.find(digest(1)), []);
    assert.deepEqual(await store.ownByAge(0, 1, 9), []);
    assert.equal(store.counts().corruptCount, 2);
    await store.add('alice', [addr], [digest(1)]);
    assert.equal(await store.addOwn([block(2).cid]), 1);
    assert.equal((await store.find(digest(1))).length, 1);
    assert.equal((await store.ownByAge(0, 1, 9)).length, 1);
  } finally {
    await rm(path, { recursive: true });
  }
});

/** Turns one bit in every value of the records, own and others'. */
async function flipRecords(path: string): Promise<void> {
  const { ClassicLevel } = await import('classic-level');
  const level = new ClassicLevel<Uint8Array, Uint8Array>(path, {
    keyEncoding: 'view',
    valueEncoding: 'view',
  });
  for await (const [key, value] of level.iterator()) {
    if (key[0] !== 0x72 && key[0] !== 0x6f) continue;
    await level.put(
      key,
      Uint8Array.from(value, (byte, i) => (i === 1 ? byte ^ 1 : byte)),
    );
  }
  await level.close();
}

test('forgetting a provider leaves the others', () =>
  withStore({}, async (store) => {
    const many = Array.from({ length: 2000 }, (_, i) => digest(i));
    await store.add('alice', [addr], many);
    await store.add('bob', [addr], [digest(1)]);
    assert.equal(await store.forget('alice'), 2000);
    assert.deepEqual(
      (await store.find(digest(1))).map(({ peer }) => peer),
      ['bob'],
    );
    assert.equal(store.counts().records, 1);
  }));

test('digests that differ in their last byte do not mix', () =>
  withStore({}, async (store) => {
    const a = Uint8Array.from([...new Uint8Array(28), ...uint32(1)]);
    const b = Uint8Array.from([...new Uint8Array(28), ...uint32(2)]);
    await store.add('alice', [addr], [a]);
    await store.add('bob', [addr], [b]);
    assert.deepEqual(
      (await store.find(a)).map(({ peer }) => peer),
      ['alice'],
    );
  }));
