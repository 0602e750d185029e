// A Beacon view that begins with the rows of another process's view, over libp2p between the two.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { daemonCommand } from '../src/local/child.ts';
import { type NodePeer, startPeer } from '../src/node/peer.ts';
import { freePorts, testIdentities, testMember, testMembership } from '../test/support/peers.ts';
import type { Taken } from './beacon-taker.child.ts';

/** Processor time of a process, and of its main thread. */
export interface Usage {
  readonly all: NodeJS.CpuUsage;
  readonly main: NodeJS.CpuUsage;
}

/** Of this process, since `before` or its beginning. */
export function usage(before?: Usage): Usage {
  return { all: process.cpuUsage(before?.all), main: process.threadCpuUsage(before?.main) };
}

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
  const ports = (await freePorts(2)).map(String);
  const giver = child('beacon-giver', [log, view, ...ports]);
  const given = await answerOf<Usage>(giver);
  const taker = child('beacon-taker', [copied, String(count), ...ports.toReversed()]);
  try {
    await answerOf<'ready'>(taker);
    taker.send('begin');
    const taken = await answerOf<Taken>(taker);
    giver.send('usage');
    report(taken, given, await answerOf<Usage>(giver), count);
    taker.send('end');
    await once(taker, 'exit');
  } finally {
    for (const each of [giver, taker]) each.kill('SIGKILL');
  }
}

/** With the flags that a process of a cluster has. */
function child(name: string, args: readonly string[]): ChildProcess {
  const execArgv = daemonCommand('').filter((word) => word.startsWith('--'));
  return fork(join(import.meta.dirname, `${name}.child.ts`), args, { execArgv });
}

async function answerOf<Answer>(asked: ChildProcess): Promise<Answer> {
  const ended = once(asked, 'exit').then((): never => {
    throw new Error('a process of the benchmark ended');
  });
  const [answer] = await Promise.race([once(asked, 'message'), ended]);
  return answer;
}

function report(
  { tookMs, used, residentMiB, isCopied }: Taken,
  given: Usage,
  after: Usage,
  count: number,
): void {
  if (!isCopied) throw new Error('the rows were not taken: the log was folded instead');
  const micros = ({ user, system }: NodeJS.CpuUsage): string => ((user + system) / count).toFixed(1);
  const [all, main] = [minus(after.all, given.all), minus(after.main, given.main)];
  console.log(
    `blank view, by a snapshot of another process: ${count} entries in ${(tookMs / 1000).toFixed(1)} s; processor time ` +
      `of each entry ${micros(used.all)} µs where it is taken (${micros(used.main)} on the main thread), ` +
      `${micros(all)} µs where it is given (${micros(main)}); resident where it is taken ${residentMiB} MiB at most`,
  );
}

function minus(a: NodeJS.CpuUsage, b: NodeJS.CpuUsage): NodeJS.CpuUsage {
  return { user: a.user - b.user, system: a.system - b.system };
}
