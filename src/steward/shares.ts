// Who looks after what when several stewards run: a pure function of what the storage nodes hold.
//
// The 256 slices of the key space (first byte of a block's digest) go to the members of an *epoch* by rendezvous
// hashing, so a change of one member moves only that one's shares. Epochs are ordered, and a node holds the highest one
// it was ever given, durably: it refuses orders under a lower one. An epoch is in force once a majority of the nodes
// hold it. A steward acts for a slice while
//
//   a round that it began less than `leaseMs` ago found its epoch on a majority of the nodes, and
//   it has known for `takeoverMs`, which is longer, that this epoch is in force.
//
// Two majorities share a node, and no node goes back. So when a second steward begins to act under a later epoch, the
// last round in which a first one found the earlier epoch began more than `leaseMs` before, and the first has stopped.
// Each counts on its own monotonic clock; no clock is compared with another one. On the small side of a partition no
// round succeeds and nobody acts.

import { second } from '../core/clock.ts';
import { compareEpochs, type Epoch, epochText } from '../core/epoch.ts';
import type { PeerName } from '../core/rpc.ts';

export interface ShareTiming {
  /** How long a steward acts after a round began that confirmed its epoch, ms. */
  readonly leaseMs: number;
  /** How long it waits once it knows that a new epoch is in force, ms. More than `leaseMs` by what clocks may drift. */
  readonly takeoverMs: number;
  /** A steward that no node has heard for this long is left out of the next epoch, ms. */
  readonly silentMs: number;
  /** How long another epoch must be due before a steward proposes it, ms, times its rank. */
  readonly settleMs: number;
  /** From one round to the next, ms. */
  readonly roundMs: number;
}

export const defaultShareTiming: ShareTiming = {
  leaseMs: 6 * second,
  takeoverMs: 6.5 * second,
  silentMs: 5 * second,
  settleMs: 1.5 * second,
  roundMs: 1 * second,
};

/** What one node says. */
export interface NodeEpoch {
  readonly held: Epoch | undefined;
  /** Stewards that have called it, and how long ago, ms. */
  readonly heard: readonly { readonly peer: PeerName; readonly agoMs: number }[];
}

export interface ShareRound {
  /** Monotonic, ms: before the first call, and after the last answer. */
  readonly startedAt: number;
  readonly endedAt: number;
  readonly answers: readonly NodeEpoch[];
  /** Storage nodes and stewards of the membership. */
  readonly nodesCount: number;
  readonly stewards: readonly PeerName[];
}

/** What a steward knows of the division of work. A value: `afterRound` returns the next one. */
export interface ShareState {
  readonly self: PeerName;
  /** The newest epoch that was seen in force, and since when that is known. */
  readonly epoch: Epoch | undefined;
  readonly inForceAt: number;
  /** When the last round began that found it on a majority. */
  readonly confirmedAt: number;
  /** The highest epoch seen anywhere. */
  readonly highest: Epoch | undefined;
  /** When each steward was last heard by a node, on this clock. */
  readonly heardAt: ReadonlyMap<PeerName, number>;
  /** Since when another epoch is due, which a majority of the nodes could take; undefined while none is. */
  readonly differsAt: number | undefined;
  /** True when the membership names no other steward: then nobody is there to be kept apart from. */
  readonly isSole: boolean;
}

export function startShares(self: PeerName, stewards: readonly PeerName[]): ShareState {
  return {
    self,
    epoch: undefined,
    inForceAt: 0,
    confirmedAt: Number.NEGATIVE_INFINITY,
    highest: undefined,
    heardAt: new Map(),
    differsAt: undefined,
    isSole: isSole(self, stewards),
  };
}

/** Takes a round of answers in. */
export function afterRound(before: ShareState, round: ShareRound, timing: ShareTiming): ShareState {
  const { answers, startedAt, endedAt } = round;
  const highest = [before.highest, ...answers.map(({ held }) => held)].reduce((a, b) =>
    compareEpochs(a, b) < 0 ? b : a,
  );
  const inForce = inForceIn(round);
  const isNewer = compareEpochs(before.epoch, inForce) < 0;
  const state = {
    ...before,
    highest,
    isSole: isSole(before.self, round.stewards),
    heardAt: heardIn(before, round),
    ...(isNewer ? { epoch: inForce, inForceAt: endedAt } : {}),
    ...(inForce !== undefined && compareEpochs(before.epoch, inForce) <= 0 ? { confirmedAt: startedAt } : {}),
  };
  // Proposals that crossed may leave no epoch with a majority: then one more is due, whoever is there.
  const isUnconfirmed = endedAt - state.confirmedAt >= timing.leaseMs;
  const isOther = String(present(state, endedAt, timing)) !== String(state.epoch?.members ?? []);
  const isDue = (isUnconfirmed || isOther) && answers.length > round.nodesCount / 2;
  return { ...state, differsAt: isDue ? (before.differsAt ?? endedAt) : undefined };
}

/**
 * The epoch that this steward should propose to the nodes now; undefined for none. The first of those who are there
 * is quickest, so that they do not outbid each other for long.
 */
export function proposal(state: ShareState, now: number, timing: ShareTiming): Epoch | undefined {
  const { self, differsAt, highest, isSole: sole } = state;
  // Alone, and the nodes have never heard of epochs: orders need no token.
  if (differsAt === undefined || (sole && highest === undefined)) return undefined;
  const members = present(state, now, timing);
  const rank = members.indexOf(self) + 1;
  if (now - differsAt < timing.settleMs * rank) return undefined;
  return { n: (highest?.n ?? 0) + 1, by: self, members };
}

/** True when this steward may give orders about blocks of a slice, at a moment of its monotonic clock. */
export function mayAct(
  state: ShareState,
  owner: PeerName | undefined,
  now: number,
  timing: ShareTiming,
): boolean {
  if (state.isSole) return true;
  const { epoch, confirmedAt, inForceAt, self } = state;
  if (epoch === undefined || owner !== self) return false;
  return now - confirmedAt < timing.leaseMs && now - inForceAt >= timing.takeoverMs;
}

/** Stewards of the membership that a node has heard lately, sorted; this one always. */
function present(
  { self, heardAt }: Pick<ShareState, 'self' | 'heardAt'>,
  now: number,
  { silentMs }: ShareTiming,
): PeerName[] {
  const others = [...heardAt].filter(([peer, at]) => peer !== self && now - at < silentMs);
  return [self, ...others.map(([peer]) => peer)].toSorted();
}

/** The epoch that a majority of all nodes hold in this round. */
function inForceIn({ answers, nodesCount }: ShareRound): Epoch | undefined {
  const counts = new Map<string, number>();
  for (const { held } of answers) {
    if (held === undefined) continue;
    const count = (counts.get(epochText(held)) ?? 0) + 1;
    counts.set(epochText(held), count);
    if (count > nodesCount / 2) return held;
  }
  return undefined;
}

function heardIn(before: ShareState, { answers, startedAt, stewards }: ShareRound): Map<PeerName, number> {
  const heardAt = new Map([...before.heardAt].filter(([peer]) => stewards.includes(peer)));
  for (const { heard } of answers)
    for (const { peer, agoMs } of heard)
      if (stewards.includes(peer))
        heardAt.set(peer, Math.max(heardAt.get(peer) ?? Number.NEGATIVE_INFINITY, startedAt - agoMs));
  return heardAt;
}

function isSole(self: PeerName, stewards: readonly PeerName[]): boolean {
  return stewards.every((peer) => peer === self);
}
