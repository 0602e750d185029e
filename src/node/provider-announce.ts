// Telling the right peers: own records out, in batches, most urgent first.
//
// One chunk at a time: its records are dealt to their closest members, each member gets frames of 1,024
// digests, a few in flight, and answers each when it has written it. A member that does not answer costs
// one time-out and is then left alone until it is up again; what it misses is not tracked record by record
// but as one fact, "not in step", and made good by one pass over the own records when it returns. The same
// pass serves a member that is new. So an outage of any length, ours or theirs, ends in the same state.

import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';
import { closest, type Placed } from './provider-closest.ts';
import type { OwnRecord } from './provider-store.ts';

/** A member that holds provider records. */
export interface RecordHolder extends Placed {
  readonly peer: PeerName;
  /** `batch`: our own node. `standard`: an unmodified kad-dht peer. */
  readonly lane: 'batch' | 'standard';
}

export interface AnnouncePorts {
  readonly rpc: RpcClient;
  /** Members other than this node that hold records. */
  holders(): readonly RecordHolder[];
  /** True when it makes sense to send to the peer now. */
  reachable(holder: RecordHolder): boolean;
  /** Binary multiaddrs of this node. */
  addrs(): readonly Uint8Array[];
  /** Sends by the standard lane; resolves to how many of `digests`, from the first, are known to be handled. */
  standard(
    peer: PeerName,
    digests: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<{ taken: number; error?: unknown }>;
}

export interface AnnounceResult {
  /** Records that at least one holder took, or that have nobody to hold them. */
  readonly announced: readonly OwnRecord[];
  /** Holders that did not take everything that was theirs, and why. */
  readonly missed: ReadonlyMap<PeerName, string>;
  /** Copies of records that were taken. */
  readonly copiesCount: number;
}

/** Digests in one frame of the batch lane: 32 KiB, one LevelDB batch at the receiver. */
export const frameCount = 1024;
/** Frames on their way to one peer. Two would hide the round trip; more hides the receiver's write too. */
const framesInFlight = 4;
/** Longest wait for the answer to one frame, or to one window of the standard lane, ms. */
const frameMs = 3000;
const standardMs = 30_000;

/** Announces `records` to the `k` closest holders of each. Never throws for a peer: it is in `missed`. */
export async function announce(
  ports: AnnouncePorts,
  records: readonly OwnRecord[],
  k: number,
  signal: AbortSignal,
): Promise<AnnounceResult> {
  const deal = dealRecords(ports.holders(), records, k);
  const took = new Set<OwnRecord>(deal.unheld);
  const missed = new Map<PeerName, string>();
  let copiesCount = 0;
  await Promise.all(
    [...deal.shares].map(async ([holder, share]) => {
      const { taken, error } = await sendShare(ports, holder, share, signal);
      for (const record of taken) took.add(record);
      copiesCount += taken.length;
      if (error !== undefined) missed.set(holder.peer, error);
    }),
  );
  return { announced: records.filter((record) => took.has(record)), missed, copiesCount };
}

/** Announces to one holder those of `records` that are its to hold. Resolves to the reason when it missed any. */
export async function announceTo(
  ports: AnnouncePorts,
  holder: RecordHolder,
  records: readonly OwnRecord[],
  k: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const all = ports.holders();
  const share = records.filter((record) =>
    closest(record.key, all, k).some(({ peer }) => peer === holder.peer),
  );
  return (await sendShare(ports, holder, share, signal)).error;
}

/** Tells the holders of `digests` that this node has them no longer. Who misses it serves them until they expire. */
export async function withdraw(
  ports: AnnouncePorts,
  records: readonly { readonly key: Uint8Array; readonly digest: Uint8Array }[],
  k: number,
  signal: AbortSignal,
): Promise<void> {
  const batchHolders = ports.holders().filter(({ lane }) => lane === 'batch');
  const shares = new Map<RecordHolder, Uint8Array[]>();
  for (const record of records) {
    for (const holder of closest(record.key, batchHolders, k)) pushTo(shares, holder, record.digest);
  }
  await Promise.allSettled(
    [...shares]
      .filter(([holder]) => ports.reachable(holder))
      .flatMap(([holder, digests]) =>
        framesOf(digests).map((frame) =>
          ports.rpc.call(
            holder.peer,
            'provide.withdraw',
            { head: {}, body: concat(...frame) },
            { signal, timeoutMs: frameMs },
          ),
        ),
      ),
  );
}

/** Who gets what: every record at its `k` closest holders, or all of them when there are fewer. */
export function dealRecords(
  holders: readonly RecordHolder[],
  records: readonly OwnRecord[],
  k: number,
): { readonly shares: ReadonlyMap<RecordHolder, OwnRecord[]>; readonly unheld: readonly OwnRecord[] } {
  const shares = new Map<RecordHolder, OwnRecord[]>();
  if (holders.length === 0) return { shares, unheld: records };
  for (const record of records) {
    for (const holder of holders.length <= k ? holders : closest(record.key, holders, k)) {
      pushTo(shares, holder, record);
    }
  }
  return { shares, unheld: [] };
}

interface Sent {
  readonly taken: readonly OwnRecord[];
  readonly error?: string;
}

async function sendShare(
  ports: AnnouncePorts,
  holder: RecordHolder,
  share: readonly OwnRecord[],
  signal: AbortSignal,
): Promise<Sent> {
  if (share.length === 0) return { taken: [] };
  if (!ports.reachable(holder)) return { taken: [], error: 'not reachable' };
  if (holder.lane === 'batch') return sendBatch(ports, holder.peer, share, signal);
  const limit = AbortSignal.any([signal, AbortSignal.timeout(standardMs)]);
  const { taken, error } = await ports.standard(
    holder.peer,
    share.map(({ digest }) => digest),
    limit,
  );
  return { taken: share.slice(0, taken), ...(error === undefined ? {} : { error: reasonOf(error) }) };
}

async function sendBatch(
  ports: AnnouncePorts,
  peer: PeerName,
  share: readonly OwnRecord[],
  signal: AbortSignal,
): Promise<Sent> {
  const queue = framesOf(share);
  const taken: OwnRecord[] = [];
  let error: string | undefined;
  const sender = async () => {
    for (let frame = queue.shift(); frame !== undefined && error === undefined; frame = queue.shift()) {
      try {
        await sendFrame(ports, peer, frame, signal);
        taken.push(...frame);
      } catch (cause) {
        error = reasonOf(cause);
      }
    }
  };
  await Promise.all(Array.from({ length: framesInFlight }, sender));
  return { taken, ...(error === undefined ? {} : { error }) };
}

async function sendFrame(
  ports: AnnouncePorts,
  peer: PeerName,
  frame: readonly OwnRecord[],
  signal: AbortSignal,
): Promise<void> {
  const message = { head: { addrs: [...ports.addrs()] }, body: concat(...frame.map(({ digest }) => digest)) };
  const answer = await ports.rpc.call(peer, 'provide.batch', message, { signal, timeoutMs: frameMs });
  const head = answer.head;
  const stored: unknown = typeof head === 'object' && head !== null ? Reflect.get(head, 'stored') : undefined;
  if (stored !== frame.length) {
    throw new HoldfastError(
      'PEER_REFUSED',
      `${peer} took ${String(stored)} of ${frame.length} records: its quota`,
    );
  }
}

function framesOf<T>(items: readonly T[]): T[][] {
  const frames: T[][] = [];
  for (let from = 0; from < items.length; from += frameCount)
    frames.push(items.slice(from, from + frameCount));
  return frames;
}

function pushTo<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : 'failed without a reason';
}
