import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KadDHT } from '@libp2p/kad-dht';
import { peerIdFromString } from '@libp2p/peer-id';
import { rawBlock } from '../core/block.ts';
import { utf8 } from '../core/bytes.ts';
import { identityFromSeed } from './identity.ts';
import { startPeer } from './peer.ts';
import {
  binaryAddrs,
  kadInternals,
  type KadPbMessage,
  type KadRecords,
  mergeIntoKad,
} from './provider-kad.ts';
import { multihash } from './provider-store.ts';

const block = rawBlock(utf8('announced'));
const key = multihash(block.cid.multihash.digest);
const addrs = binaryAddrs(['/ip4/127.0.0.1/tcp/4001']);
const nobody: KadRecords = {
  lookup: async () => [],
  add: async () => undefined,
  addOwn: async () => undefined,
  removeOwn: async () => undefined,
};

/** A peer with a DHT of the version that is installed; the other members never come. */
async function alone(work: (dht: KadDHT) => Promise<void>): Promise<void> {
  const identity = identityFromSeed(new Uint8Array(32).fill(1));
  const peers = [identity.name, (await stranger(2)).name, (await stranger(3)).name];
  const rest = { roles: ['node'] as const, zone: 'z', host: 'h', addrs: [] };
  const members = peers.map((peer, i) => ({ name: `node-${i}`, peer, ...rest }));
  const membership = { v: 1, cluster: 'test', version: 1, members } as const;
  await using peer = await startPeer({ identity, membership, listen: { host: '127.0.0.1', port: 0 } });
  await work(peer.dht);
}

async function stranger(seed: number) {
  const { name } = identityFromSeed(new Uint8Array(32).fill(seed));
  return { name, id: peerIdFromString(name) };
}

function ask(dht: KadDHT): Promise<KadPbMessage | undefined> {
  const kad = kadInternals(dht);
  const message = { type: 'GET_PROVIDERS', key, closer: [], providers: [] };
  return kad.rpc.handlers.GET_PROVIDERS.handle(kad.components.peerId, message);
}

test('the installed kad-dht is built as we know it', () => alone(async (dht) => void kadInternals(dht)));

test('a kad-dht that is built in another way is refused by the name of the part', () =>
  alone(async (dht) => {
    const kad = kadInternals(dht);
    Reflect.deleteProperty(kad.rpc.handlers, 'ADD_PROVIDER');
    assert.throws(() => kadInternals(dht), /rpc\.handlers\.ADD_PROVIDER\.handle/);
  }));

test('handlers that look elsewhere for providers are refused: replacing would not reach them', () =>
  alone(async (dht) => {
    Reflect.set(kadInternals(dht), 'providers', Object.create(Reflect.get(dht, 'providers')));
    assert.throws(() => kadInternals(dht), /GET_PROVIDERS\.providers/);
  }));

test('stock kad-dht: one provider unknown to the peer store fails the whole answer (the trap)', () =>
  alone(async (dht) => {
    const { id } = await stranger(2);
    await kadInternals(dht).providers.addProvider(block.cid, id);
    await assert.rejects(ask(dht), { name: 'NotFoundError' });
  }));

test('ours: providers unknown to the peer store are answered with their addresses', () =>
  alone(async (dht) => {
    const [a, b] = [await stranger(2), await stranger(3)];
    mergeIntoKad(dht, { ...nobody, lookup: async () => [a, b].map(({ name }) => ({ peer: name, addrs })) });
    const answer = await ask(dht);
    assert.deepEqual(
      answer?.providers.map((each) => [Buffer.from(each.id), each.multiaddrs]),
      [a, b].map(({ id }) => [Buffer.from(id.toMultihash().bytes), addrs]),
    );
  }));

test("the DHT's own search finds the addresses too, whatever the peer store forgot", () =>
  alone(async (dht) => {
    const { name, id } = await stranger(2);
    mergeIntoKad(dht, { ...nobody, lookup: async () => [{ peer: name, addrs }] });
    for await (const event of dht.findProviders(block.cid)) {
      if (event.name !== 'PROVIDER') continue;
      assert.deepEqual(
        event.providers.map((each) => [each.id.toString(), each.multiaddrs.map(String)]),
        [[id.toString(), ['/ip4/127.0.0.1/tcp/4001']]],
      );
      return;
    }
    assert.fail('no provider came');
  }));

test('an ADD_PROVIDER is taken from its provider only, with good addresses only', () =>
  alone(async (dht) => {
    const taken: unknown[] = [];
    mergeIntoKad(dht, { ...nobody, add: async (...args) => void taken.push(args) });
    const [sender, other] = [await stranger(2), await stranger(3)];
    const kad = kadInternals(dht);
    const provider = (peer: typeof sender, multiaddrs: Uint8Array[]) => ({
      id: peer.id.toMultihash().bytes,
      multiaddrs,
    });
    const message = (...providers: ReturnType<typeof provider>[]) => ({
      type: 'ADD_PROVIDER',
      key,
      closer: [],
      providers,
    });
    const handle = (each: KadPbMessage) => kad.rpc.handlers.ADD_PROVIDER.handle(sender.id, each);
    await handle(message(provider(other, addrs)));
    await handle(message(provider(sender, [])));
    await handle(message(provider(sender, [Uint8Array.of(0xff, 0xff, 0xff)])));
    assert.deepEqual(taken, []);
    await handle(message(provider(sender, [Uint8Array.of(0xff, 0xff, 0xff), ...addrs])));
    assert.deepEqual(taken, [[sender.name, addrs, Uint8Array.from(block.cid.multihash.digest)]]);
  }));

test("the DHT's own provide() and cancel reach our own records", () =>
  alone(async (dht) => {
    const done: string[] = [];
    mergeIntoKad(dht, {
      ...nobody,
      addOwn: async (cid) => void done.push(`add ${cid.toString()}`),
      removeOwn: async (cid) => void done.push(`remove ${cid.toString()}`),
    });
    const kad = kadInternals(dht);
    await kad.providers.addProvider(block.cid, kad.components.peerId);
    await dht.cancelReprovide(block.cid);
    assert.deepEqual(done, [`add ${block.cid.toString()}`, `remove ${block.cid.toString()}`]);
  }));
