// A steward beside the one that keeps the log on its own disk: it follows that log over RPC into a view of its own, and
// divides the healing with it. It takes no appends: with that disk they stop. On JetStream every steward is a host.

import { RemoteLog } from '../beacon/remote.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { type PeerName, refuseMethods } from '../core/rpc.ts';
import type { Catalogue } from '../steward/catalogue.ts';
import type { BeaconReport } from '../steward/status.ts';
import { serveCopy } from './beacon-copies.ts';
import { notHost } from './log-host.ts';
import { DoorView } from './door-view.ts';
import { ViewCatalogue } from './catalogue.ts';
import { type Member, systemClock } from './member.ts';
import type { ViewRoots } from './view-roots.ts';

export class BeaconFollower implements AsyncDisposable {
  readonly #view: DoorView;
  readonly #log: RemoteLog;
  readonly #host: string;
  readonly #stop = new AbortController();
  readonly #roots: ViewRoots;
  #following: Promise<void> = Promise.resolve();

  private constructor(view: DoorView, log: RemoteLog, host: string) {
    this.#view = view;
    this.#log = log;
    this.#host = host;
    this.#roots = view.roots(this.#stop.signal);
  }

  /** `host`: the steward that keeps the log. Throws what opening the view throws. */
  static async open(
    { config, peer }: Pick<Member, 'config' | 'peer'>,
    host: { readonly peer: PeerName; readonly name: string },
  ): Promise<BeaconFollower> {
    const view = await DoorView.open(config.dataDir);
    const follower = new BeaconFollower(view, new RemoteLog(peer.rpc, () => host.peer), host.name);
    const { signal } = follower.#stop;
    follower.#following = view.view.follow(view.over(follower.#log, signal), signal);
    refuseMethods(peer.rpc, ofTheHost, () => notHost(host));
    serveCopy(peer, follower.view, follower.#roots);
    return follower;
  }

  get view(): DoorView['view'] {
    return this.#view.view;
  }

  /** For comparing its view with others. */
  get roots(): ViewRoots {
    return this.#roots;
  }

  /** Resolves once another log has been put in force: the process is to start again on it. */
  get replaced(): Promise<void> {
    return this.#view.replaced;
  }

  catalogue(): Catalogue {
    return new ViewCatalogue(this.view, systemClock);
  }

  text(): string {
    return `follows the log of ${this.#host}`;
  }

  report(): BeaconReport {
    const { state, reason } = this.view.health();
    const isWell = state === 'following';
    return {
      engine: 'leveldb',
      text: `the log of ${this.#host}, which alone takes appends`,
      state: isWell ? 'ready' : 'waiting',
      reason,
      durable: true,
      problems: [],
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#log[Symbol.asyncDispose]();
    await this.#following;
    await this.#view[Symbol.asyncDispose]();
  }
}

/** What only the host of the log answers. */
const ofTheHost = {
  calls: [
    'beacon.head',
    'beacon.append',
    'beacon.custody',
    'beacon.verify',
    'beacon.importBegin',
    'beacon.import',
    'beacon.importEnd',
  ],
  streams: [
    'beacon.read',
    'beacon.watch',
    'beacon.snapshot',
    'beacon.rebuild',
    'beacon.reseed',
    'beacon.migrate',
    'custody.command',
  ],
};

/** Takes beats from the steward whose Pulse leads where there is no NATS. */
export function hearBeats(
  { peer }: Pick<Member, 'peer'>,
  host: PeerName,
  hear: (beat: unknown) => void,
): void {
  peer.rpc.handle('steward.beat', async ({ head }, { peer: from }) => {
    if (from !== host) throw new HoldfastError('FORBIDDEN', `${from} does not lead the Pulse`);
    try {
      hear(head);
    } catch (cause) {
      throw new HoldfastError('RECORD_INVALID', `no beat: ${describeError(cause)}`, { cause });
    }
    return { head: {} };
  });
}
