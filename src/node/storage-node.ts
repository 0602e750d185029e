// A storage node: blocks on a disk, records in the DHT, obedience to stewards. Joins the parts of this folder.

import type { CID } from '../core/block.ts';
import type { Clock } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { beatIndex } from './block-request.ts';
import { serveBlocks } from './block-service.ts';
import type { BlockStore, BlockUsage } from './block-ports.ts';
import type { StewardEpochs } from './epochs.ts';
import { createExchange, type Exchange, type ExchangeOptions, type ExchangeStatus } from './exchange.ts';
import type { ProviderPeer, Providers, ProvidersStatus } from './providers.ts';
import { startProviders } from './providers.ts';
import type { ProviderStore } from './provider-store.ts';
import { Scrubber, type ScrubOptions, type ScrubStatus } from './scrub.ts';

export interface StorageNodeOptions {
  /** Started; disposed by the caller after this node. */
  readonly peer: ProviderPeer;
  /** Opened; closed by the caller after this node. */
  readonly blockstore: BlockStore;
  readonly providerStore: ProviderStore;
  /** Where the node keeps which stewards it obeys. */
  readonly epochs: StewardEpochs;
  readonly clock: Clock;
  readonly scrub?: ScrubOptions;
  readonly exchange?: ExchangeOptions;
  /** Length of a beat, ms, for spreading refreshes. Default one minute. */
  readonly beatMs?: number;
  /** How often overdue leases are looked for, ms. Default 30,000. */
  readonly tickMs?: number;
  readonly onEvent?: (event: StorageEvent) => void;
}

/** What an operator may want to know. A listener must not throw. */
export type StorageEvent =
  | { readonly kind: 'block-corrupt'; readonly cids: readonly CID[] }
  | { readonly kind: 'wrong-bytes'; readonly cid: CID; readonly peer: PeerName }
  | { readonly kind: 'announce-missed'; readonly peer: PeerName; readonly reason: string }
  | { readonly kind: 'reconciled'; readonly added: number; readonly removed: number }
  | { readonly kind: 'reconcile-failed'; readonly error: unknown };

export interface StorageNodeStatus {
  readonly name: PeerName;
  readonly connectedCount: number;
  readonly usage: BlockUsage;
  readonly scrub: ScrubStatus;
  readonly providers: ProvidersStatus;
  readonly exchange: ExchangeStatus;
  /** Last beat that a steward brought; null = none yet. */
  readonly beat: { readonly index: number; readonly at: number } | null;
}

export interface StorageNode extends AsyncDisposable {
  readonly name: PeerName;
  readonly providers: Providers;
  readonly exchange: Exchange;
  /** Resolves when own records and stored blocks were compared once and agree. */
  readonly reconciled: Promise<void>;
  status(): Promise<StorageNodeStatus>;
}

/** Registers all `block.*`, `node.*` and `provide.*` methods on the peer and begins to serve, announce and scrub. */
export async function startStorageNode(options: StorageNodeOptions): Promise<StorageNode> {
  const { peer, blockstore, clock } = options;
  const tell = (event: StorageEvent) => options.onEvent?.(event);
  const exchange = createExchange(peer.rpc, {
    ...options.exchange,
    onWrongBytes: (event) => tell({ kind: 'wrong-bytes', ...event }),
  });
  const providers = await startProviders({
    peer,
    store: options.providerStore,
    clock,
    ...(options.beatMs === undefined ? {} : { beatMs: options.beatMs }),
    ...(options.tickMs === undefined ? {} : { tickMs: options.tickMs }),
    onMissed: (event) => tell({ kind: 'announce-missed', ...event }),
  });
  const scrubber = new Scrubber(blockstore, clock, options.scrub ?? {}, async (cids) => {
    tell({ kind: 'block-corrupt', cids });
    await providers.remove(cids);
  });

  let beat: StorageNodeStatus['beat'] = null;
  let scrubbing: Promise<void> = Promise.resolve();
  const onBeat = (frame: unknown) => {
    const index = beatIndex(frame);
    if (index === undefined || isOld(index, beat?.index)) return;
    beat = { index, at: clock.now() };
    providers.beat(index);
    scrubbing = scrubber.beat();
  };
  serveBlocks({
    self: peer.name,
    rpc: peer.rpc,
    membership: () => peer.membership(),
    store: blockstore,
    exchange,
    providers,
    scrubber,
    epochs: options.epochs,
    onBeat,
  });

  const stop = new AbortController();
  const timer = setInterval(() => {
    scrubbing = scrubber.step();
  }, scrubber.tickMs);
  timer.unref();
  const reconciled = reconcile(options, providers, stop.signal).then(
    (outcome) => tell({ kind: 'reconciled', ...outcome }),
    (error: unknown) => {
      if (!stop.signal.aborted) tell({ kind: 'reconcile-failed', error });
    },
  );

  return {
    name: peer.name,
    providers,
    exchange,
    reconciled,
    status: async () => ({
      name: peer.name,
      connectedCount: peer.connected().length,
      usage: blockstore.usage(),
      scrub: scrubber.status(),
      providers: await providers.status(),
      exchange: exchange.status(),
      beat,
    }),
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      stop.abort(new HoldfastError('PEER_UNREACHABLE', 'this node is stopping'));
      await reconciled;
      await scrubbing;
      await providers[Symbol.asyncDispose]();
    },
  };
}

/** Several stewards bring the same beats, one a little later than the other. */
const lateBeatsMax = 8;

/** A beat that came already. One far behind the last is no late one: the count has begun anew. */
function isOld(index: number, last: number | undefined): boolean {
  return last !== undefined && index <= last && last - index < lateBeatsMax;
}

/** Pages through both sides once: a crash, a restored disk or a lost record store may have parted them. */
async function reconcile(
  { blockstore, providerStore }: StorageNodeOptions,
  providers: Providers,
  signal: AbortSignal,
): Promise<{ added: number; removed: number }> {
  const before = providerStore.counts().own;
  let after: CID | undefined;
  for (;;) {
    signal.throwIfAborted();
    const page = await blockstore.list(after, reconcilePageCount);
    await providers.add(page);
    after = page.at(-1);
    if (page.length < reconcilePageCount || after === undefined) break;
  }
  const added = providerStore.counts().own - before;
  let removed = 0;
  for await (const page of providerStore.allOwn()) {
    signal.throwIfAborted();
    const gone: CID[] = [];
    for (const { cid } of page) if (!(await blockstore.has(cid))) gone.push(cid);
    if (gone.length > 0) await providers.remove(gone);
    removed += gone.length;
  }
  return { added, removed };
}

const reconcilePageCount = 4096;
