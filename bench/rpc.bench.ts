// Calls per second and bytes per second of the RPC between two processes, beside raw TCP in the same run.
//
//   node bench/rpc.bench.ts [seconds per measurement, default 3]

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startPeer } from '../src/node/peer.ts';
import {
  freePorts,
  testIdentities,
  testMember,
  testMembership,
  untilConnected,
} from '../test/support/peers.ts';

const measureMs = Number(process.argv[2] ?? 3) * 1000;
const blockBytes = 262_144;
const support = join(import.meta.dirname, '../test/support');

/** Keeps `width` operations running for the measuring time; operations per second and our CPU per operation. */
async function rate(
  width: number,
  operation: () => Promise<unknown>,
): Promise<{ perSecond: number; cpuMicros: number }> {
  const cpu = process.cpuUsage();
  const started = performance.now();
  let count = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() - started < measureMs) {
      await operation();
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  const { user, system } = process.cpuUsage(cpu);
  return { perSecond: (count * 1000) / (performance.now() - started), cpuMicros: (user + system) / count };
}

/** Requests on one socket, answered in order. */
function rawClient(port: number): { ask(answerBytes: number): Promise<void>; end(): void } {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  const waiting: { left: number; resolve: () => void }[] = [];
  socket.on('data', (chunk) => {
    let length = chunk.length;
    for (let first = waiting[0]; first !== undefined && length > 0; first = waiting[0]) {
      const taken = Math.min(first.left, length);
      first.left -= taken;
      length -= taken;
      if (first.left > 0) break;
      waiting.shift();
      first.resolve();
    }
  });
  return {
    ask: (answerBytes) =>
      new Promise((resolve) => {
        const request = Buffer.alloc(200);
        request.writeUInt32BE(answerBytes);
        waiting.push({ left: answerBytes, resolve });
        socket.write(request);
      }),
    end: () => socket.destroy(),
  };
}

function show(
  what: string,
  { perSecond, cpuMicros }: { perSecond: number; cpuMicros: number },
  bytes = 0,
): void {
  const speed =
    bytes === 0 ? `${Math.round(perSecond)} calls/s` : `${Math.round((perSecond * bytes) / 1e6)} MB/s`;
  process.stdout.write(
    `${what.padEnd(44)}${speed.padStart(16)}${`${Math.round(cpuMicros)} µs CPU each`.padStart(22)}\n`,
  );
}

const dir = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
const [port = 0, ownPort = 0] = await freePorts(2);
const [identity] = testIdentities(1);
if (identity === undefined) throw new Error('no identity');

const raw = fork(join(support, 'raw-tcp.child.ts'));
const [{ port: rawPort }] = await once(raw, 'message');
const other = fork(join(support, 'peer.child.ts'), [dir, String(port)]);
const [{ name }] = await once(other, 'message');
const members = [
  { name: String(name), addrs: [`/ip4/127.0.0.1/tcp/${port}`] },
  { name: identity.name, addrs: [`/ip4/127.0.0.1/tcp/${ownPort}`] },
];
other.send({ members });
const membership = testMembership(
  members.map((member, index) => testMember(member.name, index, member.addrs)),
);
const peer = await startPeer({ identity, membership, listen: { host: '127.0.0.1', port: ownPort } });
await untilConnected(peer, 1);

const body = new Uint8Array(200);
const tcp = rawClient(rawPort);
const call = (): Promise<unknown> => peer.rpc.call(name, 'echo', { head: null, body });
const fetch = (): Promise<unknown> => peer.rpc.call(name, 'bytes', { head: null }, { lane: 'bulk' });
for (const width of [1, 32, 1000]) {
  show(`200 B echo, ${width} in flight, rpc`, await rate(width, call));
  show(`200 B echo, ${width} in flight, raw TCP`, await rate(width, () => tcp.ask(200)));
}
for (const width of [1, 8]) {
  show(`256 KiB answers, ${width} in flight, rpc`, await rate(width, fetch), blockBytes);
  show(
    `256 KiB answers, ${width} in flight, raw TCP`,
    await rate(width, () => tcp.ask(blockBytes)),
    blockBytes,
  );
}

tcp.end();
await peer[Symbol.asyncDispose]();
for (const child of [raw, other]) child.kill('SIGKILL');
await rm(dir, { recursive: true });
