// A process whose blank view follows another one's log, as that of a new door does, and says what it took until it had
// everything: `node beacon-taker.child.ts VIEW COUNT PORT PORT-OF-THE-OTHER`.

import { once } from 'node:events';
import { RemoteLog } from '../src/beacon/remote.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { keepPassingMemorySmall } from '../src/local/passing-memory.ts';
import { untilConnected } from '../test/support/peers.ts';
import { pairedPeer, type Usage, usage } from './beacon-pair.ts';

/** What came of it. */
export interface Taken {
  readonly tookMs: number;
  /** Processor time. */
  readonly used: Usage;
  /** Peak of what was resident, mapped tables among it. */
  readonly residentMiB: number;
  /** The rows were taken; else the log was folded. */
  readonly isCopied: boolean;
}

const [viewPath = '', count = '', port = '', otherPort = ''] = process.argv.slice(2);
keepPassingMemorySmall();
const { peer, other } = await pairedPeer(1, [Number(otherPort), Number(port)]);
await untilConnected(peer, 1);
const view = await BeaconView.open(await LevelKv.open(viewPath), { signatures: 'after', snapshotFrom: 1 });
process.send?.('ready');
await once(process, 'message');
const before = usage();
const begun = performance.now();
const stop = new AbortController();
const following = view.follow(new RemoteLog(peer.rpc, () => other), stop.signal);
await view.waitFor(Number(count), AbortSignal.timeout(3_600_000));
const taken: Taken = {
  tookMs: performance.now() - begun,
  used: usage(before),
  residentMiB: Math.round(process.resourceUsage().maxRSS / 1024),
  isCopied: view.isCopied,
};
process.send?.(taken);
await once(process, 'message');
stop.abort();
await following;
await view[Symbol.asyncDispose]();
await peer[Symbol.asyncDispose]();
process.disconnect?.();
