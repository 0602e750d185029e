// A Beacon view that begins with the rows of another process's view, over libp2p between the two.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { RemoteLog } from '../src/beacon/remote.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { type NodePeer, startPeer } from '../src/node/peer.ts';
import {
  freePorts,
  testIdentities,
  testMember,
  testMembership,
  untilConnected,
} from '../test/support/peers.ts';
import type { Usage } from './beacon-giver.child.ts';
import { seconds } from './measure.ts';

/** Peer number `index` of two that know each other, and the name of the other one. */
export async function pairedPeer(
  index: 0 | 1,
  ports: readonly [number, number],
): Promise<{ readonly peer: NodePeer; readonly other: string }> {
  const identities = testIdentities(2);
  const membership = testMembership(
    identities.map(({ name }, at) => testMember(name, at, [`/ip4/127.0.0.1/tcp/${ports[at]}`])),
  );
  const [identity, other] = index === 0 ? identities : identities.toReversed();
  if (identity === undefined || other === undefined) throw new Error('two identities');
  const peer = await startPeer({ identity, membership, listen: { host: '127.0.0.1', port: ports[index] } });
  return { peer, other: other.name };
}

/** `log` and `view`: directories of `count` entries, which nobody has open. The copy goes to `copied`. */
export async function benchCopy(log: string, view: string, copied: string, count: number): Promise<void> {
  const [giverPort = 0, takerPort = 0] = await freePorts(2);
  const path = join(import.meta.dirname, 'beacon-giver.child.ts');
  const giver = fork(path, [log, view, String(giverPort), String(takerPort)]);
  const { peer, other } = await pairedPeer(1, [giverPort, takerPort]);
  try {
    await once(giver, 'message');
    await untilConnected(peer, 1);
    await using taker = await BeaconView.open(await LevelKv.open(copied), {
      signatures: 'after',
      snapshotFrom: 1,
    });
    await benchTaker(taker, new RemoteLog(peer.rpc, () => other), giver, count);
  } finally {
    giver.kill('SIGKILL');
    await peer[Symbol.asyncDispose]();
  }
}

async function benchTaker(
  view: BeaconView,
  log: RemoteLog,
  giver: ChildProcess,
  count: number,
): Promise<void> {
  const given = await usageOf(giver);
  const all = process.cpuUsage();
  const main = process.threadCpuUsage();
  const begun = performance.now();
  const stop = new AbortController();
  const following = view.follow(log, stop.signal);
  await view.waitFor(count, AbortSignal.timeout(3_600_000));
  const took = seconds(begun);
  const micros = ({ user, system }: NodeJS.CpuUsage): string => ((user + system) / count).toFixed(1);
  const mine = [process.cpuUsage(all), process.threadCpuUsage(main)].map(micros);
  const after = await usageOf(giver);
  const theirs = [minus(after.all, given.all), minus(after.main, given.main)].map(micros);
  if (!view.isCopied) throw new Error('the rows were not taken: the log was folded instead');
  console.log(
    `blank view, by a snapshot of another process: ${count} entries in ${took} s; processor time of each entry ` +
      `${mine[0]} µs where it is taken (${mine[1]} on the main thread), ${theirs[0]} µs where it is given ` +
      `(${theirs[1]})`,
  );
  stop.abort();
  await following;
}

async function usageOf(giver: ChildProcess): Promise<Usage> {
  giver.send('usage');
  const [usage] = await once(giver, 'message');
  return usage as Usage;
}

function minus(a: NodeJS.CpuUsage, b: NodeJS.CpuUsage): NodeJS.CpuUsage {
  return { user: a.user - b.user, system: a.system - b.system };
}
