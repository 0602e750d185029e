import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { testMember } from '../../test/support/peers.ts';
import type { PeerName } from '../core/rpc.ts';
import type { Membership } from '../node/membership.ts';
import { nodesToAsk } from './record-blocks.ts';

const members = ['p1', 'p2', 'p3'].map((peer, index) => testMember(peer, index));
const membership: Membership = { v: 1, cluster: 'c', version: 1, members };
const { signal } = new AbortController();
const impatientMs = 50;

function peer(up: readonly PeerName[]) {
  return { membership: () => membership, connected: () => [...up] };
}

test('asks every storage node, also those that connect a moment later', async () => {
  const up: PeerName[] = ['p1'];
  const asked = nodesToAsk(peer(up), [], signal);
  await delay(20);
  up.push('p3', 'p2');
  assert.deepEqual(await asked, ['p1', 'p2', 'p3']);
});

test('is refused while one of them cannot be asked, with what to do', async () => {
  await assert.rejects(nodesToAsk(peer(['p1', 'p3']), [], signal, impatientMs), {
    code: 'PEER_UNREACHABLE',
    message: /^node-1 cannot be asked.* holdfast beacon rebuild --without node-1$/,
  });
  await assert.rejects(nodesToAsk(peer(['p3']), ['node-0'], signal, impatientMs), {
    message: /^node-1 cannot be asked.* --without node-0,node-1$/,
  });
});

test('leaves out those that a person has named, and only them', async () => {
  assert.deepEqual(await nodesToAsk(peer(['p1', 'p3']), ['node-1'], signal, impatientMs), ['p1', 'p3']);
  await assert.rejects(nodesToAsk(peer(['p1', 'p2', 'p3']), ['node-9'], signal, impatientMs), {
    code: 'ARGUMENT_INVALID',
    message: /no storage node is called node-9; there are node-0, node-1, node-2/,
  });
  await assert.rejects(nodesToAsk(peer(['p1']), ['node-0', 'node-1', 'node-2'], signal, impatientMs), {
    code: 'ARGUMENT_INVALID',
  });
});
