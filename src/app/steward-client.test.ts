import assert from 'node:assert/strict';
import { test } from 'node:test';
import { second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName, RpcMessage } from '../core/rpc.ts';
import type { Member } from '../node/membership.ts';
import { notHost } from './log-host.ts';
import { StewardClient } from './steward-client.ts';

test('who is not connected, or has not answered, is asked last', async () => {
  const rig = new Rig();
  assert.deepEqual(rig.client.inOrder(), ['p-1', 'p-2']);
  rig.up.delete('p-1');
  assert.deepEqual(rig.client.inOrder(), ['p-2', 'p-1']);
  rig.up.add('p-1');
  rig.silent.set('p-1', 'TIMEOUT');
  assert.deepEqual(await rig.client.call('steward.status', {}), { from: 'p-2' });
  rig.silent.clear();
  assert.deepEqual(rig.client.inOrder(), ['p-2', 'p-1']);
  rig.at += 10 * second;
  assert.deepEqual(rig.client.inOrder(), ['p-1', 'p-2']);
});

test('what failed for want of a connection is forgiven with the connection', async () => {
  const rig = new Rig();
  rig.up.delete('p-1');
  rig.silent.set('p-1', 'PEER_UNREACHABLE');
  await assert.rejects(rig.client.rpc.call('p-1', 'steward.status', { head: {} }));
  rig.silent.clear();
  rig.up.add('p-1');
  assert.deepEqual(rig.client.inOrder(), ['p-1', 'p-2']);
});

test('the host of the log is waited for as long as an append is tried, and no longer', async () => {
  const rig = new Rig();
  rig.silent.set('p-1', 'PEER_UNREACHABLE');
  const append = () => rig.client.rpc.call('p-2', 'beacon.append', { head: {} });
  await assert.rejects(append(), (error) => isHoldfastError(error, 'PEER_UNREACHABLE'));
  rig.at += 15 * second;
  await assert.rejects(append(), (error) => isHoldfastError(error, 'PEER_UNREACHABLE'));
  rig.at += 1;
  await assert.rejects(append(), (error) => isHoldfastError(error, 'BEACON_UNAVAILABLE'));
  rig.silent.clear();
  assert.deepEqual((await append()).head, { from: 'p-1' });
  rig.silent.set('p-1', 'PEER_UNREACHABLE');
  await assert.rejects(append(), (error) => isHoldfastError(error, 'PEER_UNREACHABLE'));
});

/** Two stewards, of which the first keeps the log. */
class Rig {
  at = 1000;
  readonly up = new Set<PeerName>(['p-1', 'p-2']);
  readonly silent = new Map<PeerName, 'TIMEOUT' | 'PEER_UNREACHABLE'>();
  readonly client = new StewardClient(
    {
      membership: () => ({
        v: 1,
        cluster: 'test',
        version: 1,
        members: [memberNamed('1'), memberNamed('2')],
      }),
      connected: () => [...this.up],
      rpc: {
        call: (peer, method) => this.#answer(peer, method),
        stream: () => assert.fail('nothing streams here'),
        handle: () => undefined,
        handleStream: () => undefined,
      },
    },
    { now: () => this.at, monotonic: () => this.at },
  );

  async #answer(peer: PeerName, method: string): Promise<Required<RpcMessage>> {
    const silence = this.silent.get(peer);
    if (silence !== undefined) throw new HoldfastError(silence, `${peer} is silent`);
    if (method.startsWith('beacon.') && peer !== 'p-1') throw notHost({ peer: 'p-1', name: 'steward' });
    return { head: { from: peer }, body: new Uint8Array() };
  }
}

function memberNamed(number: string): Member {
  return { name: number, peer: `p-${number}`, roles: ['steward'], zone: 'a', host: number, addrs: [] };
}
