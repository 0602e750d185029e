// Real peers on loopback, in one process. What needs a process to die or freeze is in test/cluster.

import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { TLSSocket } from 'node:tls';
import { LevelDatastore } from 'datastore-level';
import {
  freePorts,
  startPeers,
  stopPeers,
  testIdentities,
  testMember,
  testMembership,
  untilConnected,
  untilPeers,
} from '../../test/support/peers.ts';
import { utf8 } from '../core/bytes.ts';
import { day } from '../core/clock.ts';
import { isHoldfastError } from '../core/errors.ts';
import { type NodePeer, type PeerDatastore, startPeer } from './peer.ts';

const timeout = 30_000;
const host = '127.0.0.1';

test('peers call each other, on both lanes and in both directions', { timeout }, async () => {
  const peers = await startPeers(3);
  for (const peer of peers)
    peer.rpc.handle('who', async ({ head }, { peer: caller }) => ({ head: [peer.name, caller, head] }));
  for (const from of peers) {
    for (const to of peers.filter((each) => each !== from)) {
      for (const lane of ['control', 'bulk'] as const) {
        const { head } = await from.rpc.call(to.name, 'who', { head: lane }, { lane });
        assert.deepEqual(head, [to.name, from.name, lane]);
      }
    }
  }
  await stopPeers(peers);
});

test('a small call is one write there and one back', { timeout }, async (t) => {
  const [a, b] = await startPeers(2);
  assert.ok(a !== undefined && b !== undefined);
  t.after(() => stopPeers([a, b]));
  b.rpc.handle('echo', async (message) => message);
  const call = (): Promise<unknown> => a.rpc.call(b.name, 'echo', { head: 1, body: utf8('small') });
  await call();
  // One of either is one record, and one system call.
  const sockets = Socket.prototype as Required<Socket>;
  const [one, several] = [t.mock.method(sockets, '_write'), t.mock.method(sockets, '_writev')];
  for (let n = 0; n < 100; n++) await call();
  const all = [...one.mock.calls, ...several.mock.calls];
  const writes = all.filter(({ this: socket }) => socket instanceof TLSSocket).length;
  assert.equal(writes, all.length); // nothing else has a socket here
  assert.ok(writes >= 200 && writes < 250, `${writes} writes for 100 calls`); // heartbeats are among them
});

test('a stranger can neither connect nor be reached', { timeout }, async () => {
  const [a, b] = await startPeers(2);
  assert.ok(a !== undefined && b !== undefined);
  let isCalled = false;
  a.rpc.handle('secret', async () => {
    isCalled = true;
    return { head: null };
  });
  const [identity] = testIdentities(1, 99);
  assert.ok(identity !== undefined);
  // The stranger believes in a membership with all three; the others do not.
  const members = [...a.membership().members, testMember(identity.name, 9)];
  const stranger = await startPeer({
    identity,
    membership: testMembership(members),
    listen: { host, port: 0 },
  });
  const { multiaddr } = await import('@multiformats/multiaddr');
  // libp2p may report success before the other side hangs up after the handshake; no call gets through either way.
  await stranger.libp2p.dial(multiaddr(a.addrs()[0])).catch(() => undefined);
  await assert.rejects(stranger.rpc.call(a.name, 'secret', { head: 0 }), { code: 'PEER_UNREACHABLE' });
  await assert.rejects(a.libp2p.dial(multiaddr(stranger.addrs()[0])), { name: 'DialDeniedError' });
  await assert.rejects(a.rpc.call(stranger.name, 'secret', { head: 0 }), { code: 'PEER_UNREACHABLE' });
  assert.equal(await a.libp2p.peerStore.has(stranger.libp2p.peerId), false);
  assert.deepEqual([stranger.connected(), a.connected(), isCalled], [[], [b.name], false]);
  await stopPeers([a, b, stranger]);
});

test('a member that is removed is cut off at once; one that is added is dialled', { timeout }, async () => {
  const [a, b, c] = await startPeers(3);
  assert.ok(a !== undefined && b !== undefined && c !== undefined);
  const all = a.membership().members;
  const fewer = testMembership(
    all.filter(({ peer }) => peer !== c.name),
    2,
  );
  for (const peer of [a, b]) peer.updateMembership(fewer);
  await untilPeers(c, () => c.connected().length === 0);
  assert.deepEqual([a.connected(), b.connected()], [[b.name], [a.name]]);
  assert.throws(() => a.updateMembership(testMembership(all, 1)), { code: 'RECORD_INVALID' });
  for (const peer of [a, b, c]) peer.updateMembership(testMembership(all, 3));
  await Promise.all([a, b, c].map((peer) => untilConnected(peer, 2)));
  await stopPeers([a, b, c]);
});

test('storage nodes and custodians never connect; both do with a door', { timeout }, async () => {
  const identities = testIdentities(4);
  const ports = await freePorts(4);
  const roles = ['node', 'node', 'custodian', 'door'] as const;
  const documentOf = (version: number, roleOf: (index: number) => (typeof roles)[number] | undefined) =>
    testMembership(
      identities.map(({ name }, index) => ({
        ...testMember(name, index, [`/ip4/${host}/tcp/${ports[index]}`]),
        roles: [roleOf(index) ?? 'node'],
      })),
      version,
    );
  const membership = documentOf(1, (index) => roles[index]);
  const peers = await Promise.all(
    identities.map((identity, index) =>
      startPeer({ identity, membership, listen: { host, port: ports[index] ?? 0 } }),
    ),
  );
  const [node, other, custodian, door] = peers;
  assert.ok(node && other && custodian && door);
  await Promise.all([untilConnected(door, 3), untilConnected(node, 2), untilConnected(other, 2)]);
  await untilConnected(custodian, 1);
  assert.deepEqual([custodian.connected(), node.connected().length], [[door.name], 2]);
  const { multiaddr } = await import('@multiformats/multiaddr');
  await assert.rejects(custodian.libp2p.dial(multiaddr(node.addrs()[0])), { name: 'DialDeniedError' });
  await assert.rejects(node.libp2p.dial(multiaddr(custodian.addrs()[0])), { name: 'DialDeniedError' });

  // A role that is given and taken again.
  for (const peer of peers) peer.updateMembership(documentOf(2, () => 'node'));
  await Promise.all(peers.map((peer) => untilConnected(peer, 3)));
  for (const peer of peers) peer.updateMembership(documentOf(3, (index) => roles[index]));
  await untilPeers(custodian, () => custodian.connected().length === 1);
  assert.equal(custodian.libp2p.getConnections(node.libp2p.peerId).length, 0);
  await stopPeers(peers);
});

test('two connections to one peer become one, and calls go on', { timeout }, async () => {
  const [a, b] = await startPeers(2);
  assert.ok(a !== undefined && b !== undefined);
  b.rpc.handle('echo', async (message) => message);
  a.rpc.handle('echo', async (message) => message);
  const { multiaddr } = await import('@multiformats/multiaddr');
  const states: string[] = [];
  for (const peer of [a, b]) peer.onPeer(({ state }) => states.push(state));
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    await from.libp2p.dial(multiaddr(to.addrs()[0]), { force: true }).catch(() => undefined);
    await untilOneConnection(from);
    await untilOneConnection(to);
    assert.equal((await from.rpc.call(to.name, 'echo', { head: 1 })).head, 1);
  }
  assert.deepEqual(states, [], 'nobody went down');
  await stopPeers([a, b]);
});

test('a lost connection rejects calls in flight at once and comes back by itself', { timeout }, async () => {
  const [a, b] = await startPeers(2);
  assert.ok(a !== undefined && b !== undefined);
  b.rpc.handle(
    'never',
    (_message, { signal }) =>
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('gone')))),
  );
  const call = a.rpc.call(b.name, 'never', { head: 0 }, { timeoutMs: 60_000 });
  const started = performance.now();
  setImmediate(() => a.libp2p.getConnections()[0]?.abort(new Error('cable')));
  await assert.rejects(call, { code: 'PEER_UNREACHABLE' });
  assert.ok(performance.now() - started < 1000);
  await Promise.all([untilConnected(a, 1), untilConnected(b, 1)]);
  await stopPeers([a, b]);
});

test('a member that comes late is found; a taken port is named', { timeout }, async () => {
  const [early, late] = testIdentities(2);
  const [earlyPort, latePort] = await freePorts(2);
  assert.ok(early !== undefined && late !== undefined && earlyPort !== undefined && latePort !== undefined);
  // Only the late one's address is known, so the early one must keep dialling.
  const membership = testMembership([
    testMember(early.name, 1),
    testMember(late.name, 2, [`/ip4/${host}/tcp/${latePort}`]),
  ]);
  const a = await startPeer({
    identity: early,
    membership,
    listen: { host, port: earlyPort },
    dialPauseMsMax: 200,
  });
  await untilKnocked(latePort, 3);
  const b = await startPeer({ identity: late, membership, listen: { host, port: latePort } });
  await untilConnected(a, 1);
  await assert.rejects(
    startPeer({ identity: late, membership, listen: { host, port: earlyPort } }),
    (error) => isHoldfastError(error, 'PORT_IN_USE') && error.details['port'] === earlyPort,
  );
  await stopPeers([a, b]);
});

test('a dial that hangs is given up and tried again; one under way when the peer stops is aborted', {
  timeout,
}, async () => {
  const [self, hanging] = testIdentities(2);
  assert.ok(self !== undefined && hanging !== undefined);
  // Takes connections and never says a word, as a frozen process does.
  const sockets = new Set<Socket>();
  const arrived = new EventEmitter();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).resume(); // unread, it would not notice that the other side left
    socket.on('close', () => {
      sockets.delete(socket);
      arrived.emit('left');
    });
    arrived.emit('came');
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  const [port] = await freePorts(1);
  const rejections: unknown[] = [];
  const onRejection = (reason: unknown): void => void rejections.push(reason);
  process.on('unhandledRejection', onRejection);
  const first = once(arrived, 'came');
  const peer = await startPeer({
    identity: self,
    membership: testMembership([
      testMember(self.name, 1),
      testMember(hanging.name, 2, [`/ip4/${host}/tcp/${address.port}`]),
    ]),
    listen: { host, port: port ?? 0 },
    dialPauseMsMax: 200,
  });
  await first;
  await once(arrived, 'came'); // the first attempt was given up: nothing else makes it dial again
  const leaving = sockets.size > 0 ? once(arrived, 'left') : Promise.resolve();
  await peer[Symbol.asyncDispose]();
  await leaving;
  while (sockets.size > 0) await once(arrived, 'left');
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', onRejection);
  assert.deepEqual(rejections, []);
  assert.deepEqual(peer.connected(), []);
  await new Promise((resolve) => server.close(resolve));
});

test('the tap sees every frame in the clear, on both sides', { timeout }, async () => {
  const seen: Record<string, Buffer[]> = { sent: [], received: [] };
  const [a, b] = await startPeers(2, (index) =>
    index === 0 ? { tap: (direction, _peer, frame) => seen[direction]?.push(Buffer.from(frame)) } : {},
  );
  assert.ok(a !== undefined && b !== undefined);
  b.rpc.handle('echo', async () => ({ head: 'the answer' }));
  await a.rpc.call(b.name, 'echo', { head: 'the question', body: utf8('the body') });
  const sent = Buffer.concat(seen['sent'] ?? []).toString('latin1');
  assert.ok(sent.includes('the question') && sent.includes('the body'));
  assert.ok(Buffer.concat(seen['received'] ?? []).includes('the answer'));
  await stopPeers([a, b]);
});

/**
 * What is scaled: the outage. The clock is set 30 days on between the two lives, and nobody waits. libp2p by itself
 * forgets addresses after one hour and peers after six. With HOLDFAST_OUTAGE_S the peers are really away for so many
 * seconds (21,900 is longer than both) and no clock is touched.
 */
const outageMs = 1000 * Number(process.env['HOLDFAST_OUTAGE_S'] ?? 0);

test('after an outage longer than libp2p remembers peers, they meet again without any address', {
  timeout: timeout + outageMs,
}, async (context) => {
  const identities = testIdentities(3);
  const ports = await freePorts(3);
  const stores = await Promise.all(identities.map(() => openStore(context)));
  const start = (addressed: boolean): Promise<NodePeer[]> => {
    const members = identities.map(({ name }, index) =>
      testMember(name, index, addressed ? [`/ip4/${host}/tcp/${ports[index]}`] : []),
    );
    return Promise.all(
      identities.map((identity, index) =>
        startPeer({
          identity,
          membership: testMembership(members),
          listen: { host, port: ports[index] ?? 0 },
          ...(stores[index] === undefined ? {} : { datastore: stores[index] }),
        }),
      ),
    );
  };
  const before = await start(true);
  await Promise.all(before.map((peer) => untilConnected(peer, 2)));
  await Promise.all(before.map((peer) => untilStored(peer, 2)));
  await stopPeers(before);
  if (outageMs > 0) await new Promise((resolve) => setTimeout(resolve, outageMs));
  else context.mock.timers.enable({ apis: ['Date'], now: Date.now() + 30 * day });
  const after = await start(false);
  await Promise.all(after.map((peer) => untilConnected(peer, 2)));
  assert.deepEqual(
    after.map(({ name }) => name),
    before.map(({ name }) => name),
  );
  await stopPeers(after);
});

/** Listens on `port` and hangs up, until somebody came `count` times. */
async function untilKnocked(port: number, count: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let knocks = 0;
  const server = createServer((socket) => {
    socket.destroy();
    knocks += 1;
    if (knocks === count) resolve();
  });
  server.listen(port, host);
  await promise;
  await new Promise((closed) => server.close(closed));
}

async function openStore(context: TestContext): Promise<PeerDatastore> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-peer-'));
  const store = new LevelDatastore(dir);
  await store.open();
  context.after(async () => {
    await store.close();
    await rm(dir, { recursive: true });
  });
  return store;
}

/** Identify has told the addresses of `count` others. */
async function untilStored(peer: NodePeer, count: number): Promise<void> {
  for (;;) {
    const others = (await peer.libp2p.peerStore.all()).filter(({ id }) => !id.equals(peer.libp2p.peerId));
    if (others.filter(({ addresses }) => addresses.length > 0).length >= count) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function untilOneConnection(peer: NodePeer): Promise<void> {
  while (peer.libp2p.getConnections().filter(({ status }) => status === 'open').length !== 1) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
