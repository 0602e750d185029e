import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Loopback } from '../../test/support/loopback-rpc.ts';
import { namedLog } from '../../test/support/named-log.ts';
import { beaconLogSuite, entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { putAppend, someAddress, someId, someManifest } from '../../test/suites/beacon-records.ts';
import { HoldfastError } from '../core/errors.ts';
import { expectNone } from './log.ts';
import { MemoryLog } from './memory.ts';
import { RemoteLog } from './remote.ts';
import { serveBeacon } from './serve.ts';
import { BeaconView } from './view.ts';
import { checkAppend } from './check-append.ts';
import { MemoryKv } from './view-memory.ts';

const peer = 'steward';

beaconLogSuite('remote', async () => {
  const rpc = new Loopback();
  const served = new MemoryLog();
  serveBeacon(rpc, served, { idleMs: 5 });
  const log = new RemoteLog(rpc, () => peer);
  return {
    log,
    [Symbol.asyncDispose]: async () => {
      await log[Symbol.asyncDispose]();
      await served[Symbol.asyncDispose]();
    },
  };
});

for (const lost of ['question', 'answer'] as const) {
  it(`sends an append again whose ${lost} was lost, and it takes effect once`, async () => {
    const rpc = new Loopback();
    await using served = new MemoryLog();
    serveBeacon(rpc, served);
    await using log = new RemoteLog(rpc, () => peer, { pauseMs: 1 });
    rpc.lose = [lost, lost];
    const entry = await log.append(someAppend('addr/a', { expected: expectNone }));
    assert.equal(entry.revision, 1);
    assert.equal((await entriesOf(served)).length, 1);
  });
}

it('sends an append again whose answer was lost, though it is in its own way by then', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  await using view = await BeaconView.open(new MemoryKv());
  serveBeacon(rpc, served, {
    // As a steward does; what was appended is in its view before the append comes again.
    check: async (append) => {
      const { revision } = view.position();
      await view.apply(await entriesOf(served, revision + 1));
      await checkAppend(view, append);
    },
    recall: (id) => served.recall(id),
  });
  await using log = new RemoteLog(rpc, () => peer, { pauseMs: 1 });
  const append = putAppend(someManifest(someAddress('again')), someId('bk'), expectNone);
  rpc.lose = ['answer', 'answer'];
  assert.equal((await log.append(append)).revision, 1);
  assert.equal((await entriesOf(served)).length, 1);
  await assert.rejects(log.append(append), { code: 'VERSION_CONFLICT' }); // another id: somebody else
});

it('gives up after its time and says that the outcome is unknown', async () => {
  const rpc = new Loopback();
  await using log = new RemoteLog(rpc, () => peer, { pauseMs: 1, retryMs: 5 });
  rpc.lose = Array.from({ length: 100 }, () => 'question' as const);
  await assert.rejects(log.append(someAppend('addr/a')), {
    code: 'BEACON_UNAVAILABLE',
    message: /may have taken effect/,
  });
});

it('refuses who may not append, and what the check refuses', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  serveBeacon(rpc, served, {
    mayAppend: (name) => name === 'door',
    check: async ({ subject }) => {
      if (subject === 'bad') throw new HoldfastError('RECORD_INVALID', 'no');
    },
  });
  await using log = new RemoteLog(rpc, () => peer);
  await assert.rejects(log.append(someAppend('addr/a')), { code: 'FORBIDDEN' });
  rpc.caller = 'door';
  await assert.rejects(log.append(someAppend('bad')), { code: 'RECORD_INVALID' });
  await log.append(someAppend('addr/a'));
});

it('notices entries that do not follow the ones before', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  serveBeacon(rpc, served);
  await using log = new RemoteLog(rpc, () => peer);
  const big = { records: [{ key: 'k', bytes: new Uint8Array(60_000) }] };
  for (let count = 0; count < 12; count++) await served.append(someAppend('a', big));
  assert.equal((await entriesOf(log)).length, 12);
  let page = 0;
  rpc.tamper = (message) =>
    page++ === 1 ? { ...message, head: { ...Object(message.head), chain: new Uint8Array(32) } } : message;
  await assert.rejects(entriesOf(log), { code: 'RECORD_CORRUPT' });
});

it('says that it lives while nothing happens, and ends with its reader', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  serveBeacon(rpc, served, { idleMs: 1 });
  let pages = 0;
  for await (const { head } of rpc.stream(peer, 'beacon.watch', { head: { from: 1 } })) {
    assert.deepEqual(head, { revision: 0, chain: new Uint8Array(32), sizes: [] });
    if (++pages === 3) break;
  }
});

it('says which log it is, when the log knows', async () => {
  const rpc = new Loopback();
  await using served = new MemoryLog();
  const lineage = { id: 'ab'.repeat(16), replaces: ['cd'.repeat(16)] };
  serveBeacon(rpc, namedLog(served, lineage));
  await using log = new RemoteLog(rpc, () => peer);
  assert.deepEqual((await log.head()).lineage, lineage);
  serveBeacon(rpc, served);
  assert.equal('lineage' in (await log.head()), false);
});
