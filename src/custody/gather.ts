// Asking several for the same thing and being content with the quickest: t at once, one more for each that fails, and
// for those that take long as many again. Who answered quickly before is asked first.

import { servedItsPurpose } from '../core/concurrency.ts';
import type { PeerName } from '../core/rpc.ts';

export interface GatherPorts<T> {
  /** In the order in which they are to be asked. */
  readonly candidates: readonly T[];
  /** How many more answers are needed now; 0 ends it. */
  wanted(): number;
  /** Asks one and takes its answer. Never rejects. */
  ask(candidate: T, signal: AbortSignal): Promise<void>;
  /** After this long without an answer others are asked as well, ms. */
  readonly hedgeMs: number;
  /** How many of the first candidates may well be dead: as many more are asked at once. Default 0. */
  readonly doubtful?: number;
  /** Rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Asks until nothing more is wanted or everybody has been asked and has answered. Aborts what is left over. */
export async function gather<T>(ports: GatherPorts<T>): Promise<void> {
  const { candidates, hedgeMs, signal } = ports;
  const enough = new AbortController();
  const stop = signal === undefined ? enough.signal : AbortSignal.any([signal, enough.signal]);
  const bell = new Bell();
  const onAbort = (): void => bell.ring();
  signal?.addEventListener('abort', onAbort);
  let next = 0;
  let underway = 0;
  /** Those that were waited for long enough: others were asked in their place. */
  let slow = ports.doubtful ?? 0;
  try {
    for (;;) {
      signal?.throwIfAborted();
      const wanted = ports.wanted();
      if (wanted === 0) return;
      for (; underway - slow < wanted && next < candidates.length; next++) {
        const candidate = candidates[next];
        if (candidate === undefined) continue;
        underway++;
        void ports.ask(candidate, stop).then(() => {
          underway--;
          slow = Math.min(slow, underway);
          bell.ring();
        });
      }
      if (underway === 0) return;
      if ((await bell.next(next < candidates.length ? hedgeMs : undefined)) === 'late') slow = underway;
    }
  } finally {
    signal?.removeEventListener('abort', onAbort);
    enough.abort(servedItsPurpose);
  }
}

/** Waits for a bell that may have rung already. */
class Bell {
  #rung = false;
  #wake: () => void = () => undefined;

  ring(): void {
    this.#rung = true;
    this.#wake();
  }

  async next(patienceMs: number | undefined): Promise<'answered' | 'late'> {
    if (!this.#rung) {
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        if (patienceMs !== undefined) timer = setTimeout(resolve, patienceMs);
      });
      clearTimeout(timer);
    }
    const outcome = this.#rung ? 'answered' : 'late';
    this.#rung = false;
    return outcome;
  }
}

interface Speed {
  /** Moving average of how long its answers took, ms. */
  ms: number;
  failedAtMs: number | undefined;
}

/** Weight of the newest measurement. */
const newest = 0.3;
/** One that failed is left alone for this long, ms; then it is asked beside those that are quick. */
const restMs = 15_000;

/** Who is quick. One for each custodian: bounded by their number. */
export class Speeds {
  readonly #speeds = new Map<PeerName, Speed>();

  answered(peer: PeerName, ms: number): void {
    const known = this.#speeds.get(peer);
    this.#speeds.set(peer, {
      ms: known === undefined ? ms : (1 - newest) * known.ms + newest * ms,
      failedAtMs: undefined,
    });
  }

  failed(peer: PeerName, nowMs: number): void {
    this.#speeds.set(peer, { ms: this.#speeds.get(peer)?.ms ?? 0, failedAtMs: nowMs });
  }

  /** Moving average, ms; undefined when it has never answered. */
  of(peer: PeerName): number | undefined {
    const ms = this.#speeds.get(peer)?.ms;
    return ms === 0 ? undefined : ms;
  }

  /** Quickest first, those that failed lately last; those never asked count as quick, so that they are tried. */
  order<T extends { readonly peer: PeerName }>(peers: readonly T[], nowMs: number): T[] {
    const rank = ({ peer }: T): number => {
      const speed = this.#speeds.get(peer);
      if (speed === undefined) return 0;
      return speed.failedAtMs !== undefined && nowMs - speed.failedAtMs < restMs ? Infinity : speed.ms;
    };
    return peers
      .map((peer) => ({ peer, at: rank(peer) }))
      .toSorted((a, b) => (a.at === b.at ? 0 : a.at - b.at))
      .map(({ peer }) => peer);
  }

  /** How many of the first `count` failed the last time and are tried again: as many more should be asked at once. */
  doubtful(peers: readonly { readonly peer: PeerName }[], count: number): number {
    return peers.slice(0, count).filter(({ peer }) => this.#speeds.get(peer)?.failedAtMs !== undefined)
      .length;
  }
}
