// What records and block transfer must keep doing, on real
// libp2p over loopback. What is slow or broken in the stock parts must not come back.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { identify } from '@libp2p/identify';
import { type KadDHT, kadDHT, passthroughMapper } from '@libp2p/kad-dht';
import { peerIdFromString } from '@libp2p/peer-id';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { tls } from '@libp2p/tls';
import { yamux } from '@libp2p/yamux';
import { createLibp2p } from 'libp2p';
import { type CID, rawBlock } from '../../src/core/block.ts';
import { utf8 } from '../../src/core/bytes.ts';
import { hour } from '../../src/core/clock.ts';
import { sha256 } from '../../src/core/hash.ts';
import { type Identity, identityFromSeed } from '../../src/node/identity.ts';
import { dealRecords, type RecordHolder } from '../../src/node/provider-announce.ts';
import { compareDistance } from '../../src/node/provider-closest.ts';
import { kadInternals, peerMultihash } from '../../src/node/provider-kad.ts';
import { kadKey } from '../../src/node/provider-store.ts';
import {
  type ClusterNode,
  clusterName,
  identityOf,
  memberFor,
  startCluster,
} from '../helpers/dht-cluster.ts';
import { freePort, type NodeProcess, startNodeProcess } from '../helpers/dht-processes.ts';

/** A keeper that waits for lanes gives a connection up after 3 to 5 s. */
const acceptanceMs = 5000;

function blockOf(text: string) {
  return rawBlock(utf8(text));
}

async function putAndAnnounce({ blocks, node }: ClusterNode, text: string): Promise<CID> {
  const { cid, bytes } = blockOf(text);
  await blocks.put(cid, bytes);
  await node.providers.add([cid]);
  await node.providers.settled();
  return cid;
}

function three<T>(list: readonly T[]): [T, T, T] {
  const [a, b, c] = list;
  if (a === undefined || b === undefined || c === undefined) throw new RangeError('three expected');
  return [a, b, c];
}

/** Providers as a stock search finds them: peer and text addresses. */
async function searchStock(dht: KadDHT, cid: CID): Promise<Map<string, string[]>> {
  const found = new Map<string, string[]>();
  for await (const event of dht.findProviders(cid, { signal: AbortSignal.timeout(5000) })) {
    if (event.name !== 'PROVIDER') continue;
    for (const { id, multiaddrs } of event.providers) found.set(id.toString(), multiaddrs.map(String));
  }
  return found;
}

function routingTableSize(dht: KadDHT): number {
  return Number(Reflect.get(Object(Reflect.get(dht, 'routingTable')), 'size'));
}

/** A peer with nothing of ours: libp2p and kad-dht as they come, on the cluster's protocol. */
async function stockPeer(identity: Identity) {
  const libp2p = await createLibp2p({
    privateKey: identity.privateKey,
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [tls()],
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    services: {
      identify: identify(),
      ping: ping(),
      dht: kadDHT({
        protocol: `/holdfast/${clusterName}/kad/1.0.0`,
        clientMode: false,
        peerInfoMapper: passthroughMapper,
        initialQuerySelfInterval: 100,
      }),
    },
  });
  return { libp2p, dht: libp2p.services.dht, [Symbol.asyncDispose]: async () => libp2p.stop() };
}

test('an expired record is not served, by our protocol or the standard one', async () => {
  await using cluster = await startCluster({ names: ['exp-1', 'exp-2', 'exp-3'] });
  const [a, b, c] = three(cluster.nodes);
  const cid = await putAndAnnounce(a, 'expires');
  assert.deepEqual(
    (await b.node.providers.find(cid)).map(({ peer }) => peer),
    [a.peer.name],
  );
  b.clock.offsetMs = c.clock.offsetMs = 47 * hour;
  assert.deepEqual(
    (await b.node.providers.find(cid)).map(({ peer }) => peer),
    [a.peer.name],
  );
  // The provider itself knows what it has; the others must not tell of it any more.
  b.clock.offsetMs = c.clock.offsetMs = 48 * hour + 1000;
  const head = { digest: cid.multihash.digest };
  assert.deepEqual((await b.peer.rpc.call(c.peer.name, 'provide.find', { head })).head, { providers: [] });
  await a.node[Symbol.asyncDispose]();
  const stock = await searchStock(b.peer.dht, cid);
  assert.deepEqual(
    [...stock.keys()].filter((peer) => peer !== a.peer.name),
    [],
  );
});

test('5,000 simultaneous wants from one peer all arrive', async () => {
  await using cluster = await startCluster({ names: ['want-1', 'want-2'] });
  const [a, b] = cluster.nodes;
  assert.ok(a !== undefined && b !== undefined);
  const blocks = Array.from({ length: 5000 }, (_, i) => blockOf(`wanted ${i} ${'x'.repeat(1000)}`));
  await Promise.all(blocks.map(({ cid, bytes }) => a.blocks.put(cid, bytes)));
  const found = await Promise.all(blocks.map(({ cid }) => b.node.exchange.fetchBlock(cid, [a.peer.name])));
  assert.equal(found.filter((each) => each !== undefined).length, 5000);
  const { windowPeakBytes, windowUsedBytes } = b.node.exchange.status();
  assert.ok(windowPeakBytes <= 64 * 1024 * 1024 && windowUsedBytes === 0);
});

test('100,000 records are announced again in bounded time, and the receiver has them', async (t) => {
  await using cluster = await startCluster({ names: ['many-1', 'many-2'] });
  const [a, b] = cluster.nodes;
  assert.ok(a !== undefined && b !== undefined);
  await a.node.reconciled;
  const cids = Array.from({ length: 100_000 }, (_, i) => blockOf(`refreshed ${i}`).cid);
  for (let from = 0; from < cids.length; from += 4096) await a.records.addOwn(cids.slice(from, from + 4096));
  const begun = performance.now();
  a.node.providers.beat(1);
  await a.node.providers.settled();
  const seconds = (performance.now() - begun) / 1000;
  t.diagnostic(`${Math.round(cids.length / seconds)} CIDs/s to one holder, ${seconds.toFixed(1)} s`);
  assert.equal(b.records.counts().records, cids.length);
  assert.ok(seconds < 40, `${seconds} s`);
});

test('peer ids that share a prefix: every key is on exactly its min(k, N−1) closest', async () => {
  await using cluster = await startCluster({
    names: ['skew-1', 'skew-2', 'skew-3', 'skew-4'],
    identities: (name) => skewedIdentity(name, 6),
  });
  const [a, ...others] = cluster.nodes;
  assert.ok(a !== undefined);
  const cids = Array.from({ length: 300 }, (_, i) => blockOf(`skewed ${i}`).cid);
  await a.node.reconciled;
  await a.node.providers.add(cids);
  await a.node.providers.settled();
  for (const { records } of others) {
    for (const cid of cids) {
      assert.deepEqual(
        (await records.find(cid.multihash.digest)).map(({ peer }) => peer),
        [a.peer.name],
      );
    }
  }
  // More members than k: dealt by the same function, compared with sorting all of them by whole distances.
  const holders = await Promise.all(
    Array.from({ length: 25 }, async (_, i): Promise<RecordHolder> => {
      const { name } = await skewedIdentity(`holder ${i}`, i < 20 ? 8 : 0);
      return { peer: name, lane: 'batch', key: sha256(peerMultihash(name)) };
    }),
  );
  const records = cids.map((cid) => {
    const digest = cid.multihash.digest;
    return { cid, digest, key: kadKey(digest), announcedAt: 0 };
  });
  const { shares } = dealRecords(holders, records, 10);
  for (const record of records) {
    const dealt = holders.filter((holder) => shares.get(holder)?.includes(record) === true);
    const closest = holders.toSorted((x, y) => compareDistance(record.key, x.key, y.key)).slice(0, 10);
    assert.deepEqual(new Set(dealt), new Set(closest));
  }
});

/** What is scaled: 40 hours pass on the wall clock of the whole process, libp2p included, and not outside of it. */
test('an outage longer than a peer store remembers by itself: members and providers keep their addresses', async (t) => {
  await using cluster = await startCluster({ names: ['age-1', 'age-2', 'age-3'] });
  const [a, b, c] = three(cluster.nodes);
  const cid = await putAndAnnounce(a, 'remembered');
  await a.node[Symbol.asyncDispose]();
  await a.peer[Symbol.asyncDispose]();
  const now = Date.now;
  t.mock.method(Date, 'now', () => now() + 40 * hour);
  const gone = peerIdFromString(a.peer.name);
  // Stock ages are an hour for addresses and six for peers: what is kept here is kept because it was set so.
  assert.ok((await b.peer.libp2p.peerStore.get(gone)).addresses.length > 0, 'a member can still be dialled');
  // Nor do records lean on it.
  await b.peer.libp2p.peerStore.delete(gone);
  await c.peer.libp2p.peerStore.delete(gone);
  const [found] = await c.node.providers.find(cid);
  assert.deepEqual([found?.peer, (found?.addrs.length ?? 0) > 0], [a.peer.name, true]);
  const stock = await searchStock(c.peer.dht, cid);
  assert.ok((stock.get(a.peer.name)?.length ?? 0) > 0, 'the standard protocol tells addresses as well');
});

test('an unmodified kad-dht peer on the allow-list announces and resolves, both ways', async () => {
  await using cluster = await startCluster({ names: ['std-1', 'std-2'], node: { tickMs: 100 } });
  const [a, b] = cluster.nodes;
  assert.ok(a !== undefined && b !== undefined);
  const identity = identityOf('stranger');
  await using stock = await stockPeer(identity);
  const listen = stock.libp2p.getMultiaddrs().map((addr) => addr.toString().split('/p2p/')[0] ?? '');
  let closed = 0;
  const count = (): void => void (closed += 1);
  stock.libp2p.addEventListener('connection:close', count);
  for (const { libp2p } of [a.peer, b.peer]) {
    libp2p.addEventListener('connection:close', ({ detail }) => {
      if (detail.remotePeer.equals(stock.libp2p.peerId)) count();
    });
  }
  // From here on it is the keepers' to reach it, and to be content with a connection that has no lanes.
  cluster.addMembers(memberFor(identity, 'standard', [], listen));
  const watchUntil = performance.now() + 3 * acceptanceMs;
  while (routingTableSize(stock.dht) < 2) await setTimeout(20);

  // Its own announcement, by its own walk, lands with us.
  const theirs = blockOf('theirs').cid;
  for await (const _ of stock.dht.provide(theirs, { signal: AbortSignal.timeout(5000) }));
  while ((await a.node.providers.find(theirs)).length === 0) await setTimeout(20);
  assert.deepEqual(
    (await a.node.providers.find(theirs)).map(({ peer }) => peer),
    [identity.name],
  );

  // Ours reaches its own store by ADD_PROVIDER, and it finds us with addresses.
  const ours = await putAndAnnounce(a, 'ours');
  const kept = await kadInternals(stock.dht).providers.getProviders(ours);
  assert.deepEqual(kept.map(String), [a.peer.name]);
  // Without its own copy it must be told by us.
  await kadInternals(stock.dht).providers.removeProvider(ours, peerIdFromString(a.peer.name));
  const found = await searchStock(stock.dht, ours);
  assert.ok((found.get(a.peer.name)?.length ?? 0) > 0);

  // Long enough for each keeper to have given up on lanes several times, if it waited for any.
  await setTimeout(Math.max(0, watchUntil - performance.now()));
  assert.equal(closed, 0, 'connections were closed');
  assert.equal(stock.libp2p.getPeers().length, 2);
  assert.deepEqual([a.peer.connected(), b.peer.connected()], [[b.peer.name], [a.peer.name]]);
  await assert.rejects(a.peer.rpc.call(identity.name, 'provide.find', { head: {} }), {
    code: 'PEER_UNREACHABLE',
  });
  // A connection that is lost is made again, though nobody announced anything.
  const back = once(a.peer.libp2p, 'connection:open');
  for (const connection of stock.libp2p.getConnections(a.peer.libp2p.peerId))
    connection.abort(new Error('cable'));
  await back;
});

test('kill -9 of all and a restart without bootstrap: records survive; a frozen node keeps finds under 1 s', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-kill-'));
  const names = ['kill-1', 'kill-2', 'kill-3'];
  const ports = await Promise.all(names.map(freePort));
  const identities = names.map(identityOf);
  const members = names.map((name, i) =>
    memberFor(identities[i] ?? assert.fail(), name, ['node'], [`/ip4/127.0.0.1/tcp/${ports[i]}`]),
  );
  const membership = { v: 1, cluster: clusterName, version: 1, members } as const;
  const startAll = () =>
    Promise.all(names.map((name, i) => startNodeProcess(join(root, name), name, ports[i] ?? 0, membership)));
  let running: NodeProcess[] = [];
  try {
    running = await startAll();
    await Promise.all(running.map(connected));
    let [a, b, c] = three(running);
    const cids: string[] = [];
    for (let i = 0; i < 20; i++) cids.push(String(await a.ask({ do: 'put', text: `survives ${i}` })));
    await a.ask({ do: 'settle' });
    await Promise.all(running.map((each) => each.kill()));

    running = await startAll();
    [a, b, c] = three(running);
    await Promise.all(running.map(connected));
    for (const cid of cids) assert.deepEqual(await b.ask({ do: 'held', cid }), [identities[0]?.name]);

    // Frozen: connected for a while still, silent at once. Asked by a node that does not know the answer.
    c.process.kill('SIGSTOP');
    const unknown = blockOf('nobody has this').cid.toString();
    const times: number[] = [];
    for (const cid of [...cids, ...Array.from({ length: 10 }, () => unknown)]) {
      const begun = performance.now();
      await b.ask({ do: 'find', cid });
      times.push(performance.now() - begun);
    }
    const worst = Math.max(...times);
    t.diagnostic(`worst find with one of three frozen: ${Math.round(worst)} ms`);
    assert.ok(worst < 1000, `${worst} ms`);
  } finally {
    await Promise.all(running.map((each) => each.kill()));
    await rm(root, { recursive: true, force: true });
  }
});

async function connected(each: NodeProcess): Promise<void> {
  while ((await each.ask({ do: 'connected' })) !== 2) await setTimeout(20);
}

/** An identity whose place in the key space begins with `bits` zero bits. */
async function skewedIdentity(name: string, bits: number): Promise<Identity> {
  for (let i = 0; ; i++) {
    const identity = identityFromSeed(sha256(utf8(`${name} ${i}`)));
    const head = sha256(peerMultihash(identity.name))[0] ?? 0;
    if (head >> (8 - bits) === 0) return identity;
  }
}
