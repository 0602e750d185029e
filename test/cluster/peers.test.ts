// Peers in processes of their own: what happens when they are killed or frozen.

import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startPeer } from '../../src/node/peer.ts';
import {
  freePorts,
  startPeers,
  stopPeers,
  testIdentities,
  testMember,
  testMembership,
  untilConnected,
  untilPeers,
} from '../support/peers.ts';

const timeout = 60_000;

interface Child {
  readonly process: ChildProcess;
  readonly name: string;
  connected: number;
  /** Other members whose addresses are on its disk. */
  stored: number;
}

async function startChild(dir: string, port: number): Promise<Child> {
  await mkdir(dir, { recursive: true });
  const path = join(import.meta.dirname, '../support/peer.child.ts');
  const child = fork(path, [dir, String(port)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
  const [{ name }] = await once(child, 'message');
  const started: Child = { process: child, name: String(name), connected: 0, stored: 0 };
  child.on('message', (message: { connected?: number; stored?: number }) => {
    started.stored = message.stored ?? started.stored;
    started.connected = message.connected ?? started.connected;
  });
  return started;
}

async function untilChild(child: Child, count: number): Promise<void> {
  while (child.connected < count) await once(child.process, 'message');
}

async function untilStored(child: Child, count: number): Promise<void> {
  while (child.stored < count) await once(child.process, 'message');
}

async function kill(child: Child): Promise<void> {
  const gone = once(child.process, 'exit');
  child.process.kill('SIGKILL');
  await gone;
}

test('after kill -9 of all, they find each other again without any address, under the same names', {
  timeout,
}, async (context) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-peers-'));
  context.after(() => rm(root, { recursive: true }));
  const ports = await freePorts(3);
  const start = (): Promise<Child[]> =>
    Promise.all(ports.map((port, index) => startChild(join(root, String(index)), port)));
  const first = await start();
  context.after(() => first.map(({ process }) => process.kill('SIGKILL')));
  const members = first.map(({ name }, index) => ({ name, addrs: [`/ip4/127.0.0.1/tcp/${ports[index]}`] }));
  for (const { process } of first) process.send({ members });
  await Promise.all(first.map((child) => untilChild(child, 2)));
  await Promise.all(first.map((child) => untilStored(child, 2)));
  await Promise.all(first.map(kill));

  const second = await start();
  context.after(() => second.map(({ process }) => process.kill('SIGKILL')));
  assert.deepEqual(
    second.map(({ name }) => name),
    first.map(({ name }) => name),
  );
  for (const { process } of second)
    process.send({ members: members.map(({ name }) => ({ name, addrs: [] })) });
  await Promise.all(second.map((child) => untilChild(child, 2)));
  await Promise.all(second.map(kill));
});

test('a frozen peer costs its own calls their time limit, others nothing; it is down, then up again', {
  timeout,
}, async (context) => {
  const root = await mkdtemp(join(tmpdir(), 'holdfast-peers-'));
  context.after(() => rm(root, { recursive: true }));
  const ports = await freePorts(3);
  const children = await Promise.all(
    [0, 1].map((index) => startChild(join(root, String(index)), ports[index] ?? 0)),
  );
  context.after(() => children.map(({ process }) => process.kill('SIGKILL')));
  const [identity] = testIdentities(1);
  const [frozen, healthy] = children;
  assert.ok(identity !== undefined && frozen !== undefined && healthy !== undefined);
  const members = [...children.map(({ name }) => name), identity.name].map((name, index) => ({
    name,
    addrs: [`/ip4/127.0.0.1/tcp/${ports[index]}`],
  }));
  for (const { process } of children) process.send({ members });
  const peer = await startPeer({
    identity,
    membership: testMembership(members.map(({ name, addrs }, index) => testMember(name, index, addrs))),
    listen: { host: '127.0.0.1', port: ports[2] ?? 0 },
    heartbeatMs: 250,
    silenceMsMax: 1500,
  });
  await untilConnected(peer, 2);
  await untilChild(healthy, 2);

  frozen.process.kill('SIGSTOP');
  const started = performance.now();
  const late = assert.rejects(peer.rpc.call(frozen.name, 'echo', { head: 0 }, { timeoutMs: 500 }), {
    code: 'TIMEOUT',
  });
  let slowestMs = 0;
  for (let n = 0; n < 200; n++) {
    const before = performance.now();
    await peer.rpc.call(healthy.name, 'echo', { head: n });
    slowestMs = Math.max(slowestMs, performance.now() - before);
  }
  await late;
  assert.ok(performance.now() - started < 1500, 'the call to the frozen peer ended in its time');
  assert.ok(slowestMs < 500, `a call to the healthy peer took ${slowestMs} ms`);

  await untilPeers(peer, () => !peer.connected().includes(frozen.name));
  await assert.rejects(peer.rpc.call(frozen.name, 'echo', { head: 0 }), { code: 'PEER_UNREACHABLE' });
  assert.equal((await peer.rpc.call(healthy.name, 'echo', { head: 1 })).head, 1);
  frozen.process.kill('SIGCONT');
  await untilConnected(peer, 2);
  assert.equal((await peer.rpc.call(frozen.name, 'echo', { head: 2 })).head, 2);
  await peer[Symbol.asyncDispose]();
  await Promise.all(children.map(kill));
});

test('nobody but us judges connections: libp2p would open a stream on each of them every ten seconds, and cut healthy ones', {
  timeout,
}, async (context) => {
  const [a, b] = await startPeers(2);
  assert.ok(a !== undefined && b !== undefined);
  context.after(() => stopPeers([a, b]));
  let closed = 0;
  for (const { libp2p } of [a, b]) libp2p.addEventListener('connection:close', () => void (closed += 1));
  // What load does now and then: the other side refuses the one more ping stream.
  let pings = 0;
  for (const { libp2p } of [a, b]) {
    await libp2p.unhandle('/ipfs/ping/1.0.0');
    await libp2p.handle('/ipfs/ping/1.0.0', (stream) => {
      pings++;
      stream.abort(new Error('too many streams'));
    });
  }
  await new Promise((resolve) => setTimeout(resolve, 11_000));
  b.rpc.handle('echo', async (message) => message);
  assert.equal((await a.rpc.call(b.name, 'echo', { head: 1 })).head, 1);
  assert.deepEqual([pings, closed], [0, 0]);
});
