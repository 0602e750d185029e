import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { RpcClient, RpcMessage } from '../core/rpc.ts';
import { notHost, throughHost } from './log-host.ts';

const host = { peer: 'p-host', name: 'steward' };

test('what only the host of the log answers goes on to it', async () => {
  const asked: string[] = [];
  const rpc = throughHost(
    rpcOf(async (peer) => {
      asked.push(peer);
      if (peer !== host.peer) throw notHost(host);
      return { head: { from: peer }, body: new Uint8Array() };
    }),
    { mayHost: isSteward, isGone: () => false },
  );
  assert.deepEqual((await rpc.call('p-other', 'beacon.append', { head: {} })).head, { from: 'p-host' });
  assert.deepEqual(asked, ['p-other', 'p-host']);
  const items: unknown[] = [];
  for await (const { head } of rpc.stream('p-other', 'beacon.watch', { head: {} })) items.push(head);
  assert.deepEqual(items, [{ from: 'p-host' }]);
});

test('a host that does not answer is named, with the code of the failure, so that it is tried again', async () => {
  const rpc = throughHost(
    rpcOf(async (peer) => {
      throw peer === host.peer ? new HoldfastError('TIMEOUT', 'no answer') : notHost(host);
    }),
    { mayHost: isSteward, isGone: () => false },
  );
  const named = (error: unknown): boolean =>
    isHoldfastError(error, 'TIMEOUT') && /steward, which does not answer/.test(error.message);
  await assert.rejects(rpc.call('p-other', 'beacon.append', { head: {} }), named);
  await assert.rejects(
    rpc.stream('p-other', 'beacon.watch', { head: {} })[Symbol.asyncIterator]().next(),
    named,
  );
});

test('a host that is gone is not to be tried again', async () => {
  const rpc = throughHost(
    rpcOf(async (peer) => {
      throw peer === host.peer ? new HoldfastError('PEER_UNREACHABLE', 'not connected') : notHost(host);
    }),
    { mayHost: isSteward, isGone: (peer) => peer === host.peer },
  );
  await assert.rejects(rpc.call('p-other', 'beacon.append', { head: {} }), (error) =>
    isHoldfastError(error, 'BEACON_UNAVAILABLE'),
  );
});

test('other refusals stand: by the host itself, of a peer that is no steward, for another reason', async () => {
  const refusals: [string, HoldfastError][] = [
    ['p-host', notHost(host)],
    ['p-other', notHost({ peer: 'p-stranger', name: 'steward' })],
    ['p-other', new HoldfastError('BEACON_UNAVAILABLE', 'the disk is full')],
    [
      'p-other',
      new HoldfastError('VERSION_CONFLICT', 'stale', { details: { host: 'p-host', name: 'steward' } }),
    ],
  ];
  for (const [peer, refusal] of refusals) {
    let asked = 0;
    const rpc = throughHost(
      rpcOf(async () => {
        asked++;
        throw refusal;
      }),
      { mayHost: isSteward, isGone: () => false },
    );
    await assert.rejects(rpc.call(peer, 'beacon.append', { head: {} }), (error) => error === refusal);
    assert.equal(asked, 1);
  }
});

test('a stream that was begun is not begun again elsewhere', async () => {
  const rpc = throughHost(
    {
      call: () => Promise.reject(new Error('not here')),
      stream: async function* (peer) {
        yield { head: peer, body: new Uint8Array() };
        throw notHost(host);
      },
    },
    { mayHost: isSteward, isGone: () => false },
  );
  const items = rpc.stream('p-other', 'beacon.watch', { head: {} })[Symbol.asyncIterator]();
  assert.equal((await items.next()).value?.head, 'p-other');
  await assert.rejects(items.next(), (error) => isHoldfastError(error, 'BEACON_UNAVAILABLE'));
});

// Helpers

function isSteward(peer: string): boolean {
  return peer === 'p-host' || peer === 'p-other';
}

function rpcOf(call: (peer: string) => Promise<Required<RpcMessage>>): RpcClient {
  return {
    call: (peer) => call(peer),
    stream: async function* (peer) {
      yield await call(peer);
    },
  };
}
