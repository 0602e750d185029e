// Reading every block again, slowly: how much is due, and the loop that does it.
//
// Two rates, whichever is faster: a whole pass in the configured period, by the wall clock, and a number
// of blocks at each beat, so that a small store is not proven once a day only. What a step leaves undone
// (a busy disk) is owed to the next, up to a bound: after a night of sleep the disk is not flooded.

import type { CID } from '../core/block.ts';
import { day, second } from '../core/clock.ts';
import type { Clock } from '../core/clock.ts';
import type { BlockStore } from './block-ports.ts';

export interface ScrubOptions {
  /** Time for one pass over all blocks, ms. Default one day. */
  readonly periodMs?: number;
  /** Blocks checked at each beat at least. Default 4; 0 = by the period alone. */
  readonly blocksPerBeat?: number;
  /** Pause between two looks at the clock, ms. Default 1,000. */
  readonly tickMs?: number;
}

export interface ScrubStatus {
  readonly checkedCount: number;
  readonly checkedBytes: number;
  readonly corruptCount: number;
  readonly passesCount: number;
  /** End of the last whole pass of this process, ms since 1970. */
  readonly passEndedAt: number | null;
  /** Why the last step failed; null when it did not. */
  readonly trouble: string | null;
}

/** A pass in this period keeps a flipped bit unseen for a day at most. */
const periodMsDefault = day;
const blocksPerBeatDefault = 4;

/** Most that one step reads, bytes: some 50 ms of a disk. */
export const stepBytesMax = 16 * 1024 * 1024;

/**
 * Bytes owed after `elapsedMs` more, when `owedBytes` were owed before.
 * @returns at most `stepBytesMax`: what is missed beyond that is not caught up
 */
export function scrubOwed(
  owedBytes: number,
  totalBytes: number,
  elapsedMs: number,
  periodMs: number,
): number {
  const share = (totalBytes * Math.max(0, elapsedMs)) / periodMs;
  return Math.min(stepBytesMax, owedBytes + share);
}

/** The scrub of one store. `step` and `beat` may be called at any time: they run one after the other. */
export class Scrubber {
  readonly #store: Pick<BlockStore, 'scrubStep' | 'usage'>;
  readonly #clock: Clock;
  readonly #options: ScrubOptions;
  readonly #onCorrupt: (cids: readonly CID[]) => Promise<void>;
  #turn: Promise<unknown> = Promise.resolve();
  #steppedAt: number;
  #owedBytes = 0;
  #sinceBeatCount = 0;
  #status: ScrubStatus = {
    checkedCount: 0,
    checkedBytes: 0,
    corruptCount: 0,
    passesCount: 0,
    passEndedAt: null,
    trouble: null,
  };

  /** @param onCorrupt told of blocks that were found damaged, which the store has already put aside */
  constructor(
    store: Pick<BlockStore, 'scrubStep' | 'usage'>,
    clock: Clock,
    options: ScrubOptions,
    onCorrupt: (cids: readonly CID[]) => Promise<void>,
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#options = options;
    this.#onCorrupt = onCorrupt;
    this.#steppedAt = clock.monotonic();
  }

  get tickMs(): number {
    return this.#options.tickMs ?? second;
  }

  status(): ScrubStatus {
    return this.#status;
  }

  /** Reads what the wall clock says is due. */
  step(): Promise<void> {
    return this.#exclusive(async () => {
      const now = this.#clock.monotonic();
      const total = this.#store.usage().bytes;
      this.#owedBytes = scrubOwed(
        this.#owedBytes,
        total,
        now - this.#steppedAt,
        this.#options.periodMs ?? periodMsDefault,
      );
      this.#steppedAt = now;
      if (total === 0) return;
      // Small debts wait: a step reads whole blocks.
      if (this.#owedBytes >= Math.min(averageBytes(this.#store), stepBytesMax))
        await this.#read(this.#owedBytes);
    });
  }

  /** A beat has come: reads on until enough blocks were checked since the last one. */
  beat(): Promise<void> {
    return this.#exclusive(async () => {
      const wanted = Math.min(
        this.#options.blocksPerBeat ?? blocksPerBeatDefault,
        this.#store.usage().blocks,
      );
      for (let steps = 0; this.#sinceBeatCount < wanted && steps < wanted; steps++) {
        await this.#read(averageBytes(this.#store) * (wanted - this.#sinceBeatCount));
      }
      this.#sinceBeatCount = 0;
    });
  }

  async #read(budgetBytes: number): Promise<void> {
    const step = await this.#store.scrubStep(Math.ceil(budgetBytes));
    const last = this.#status;
    this.#owedBytes = Math.max(0, this.#owedBytes - step.checkedBytes);
    this.#sinceBeatCount += step.checked;
    this.#status = {
      checkedCount: last.checkedCount + step.checked,
      checkedBytes: last.checkedBytes + step.checkedBytes,
      corruptCount: last.corruptCount + step.corrupt.length,
      passesCount: last.passesCount + (step.done ? 1 : 0),
      passEndedAt: step.done ? this.#clock.now() : last.passEndedAt,
      trouble: null,
    };
    if (step.corrupt.length > 0) await this.#onCorrupt(step.corrupt);
  }

  #exclusive(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(work).catch((error: unknown) => {
      this.#status = {
        ...this.#status,
        trouble: error instanceof Error ? error.message : 'failed without a reason',
      };
    });
    this.#turn = turn;
    return turn;
  }
}

function averageBytes(store: Pick<BlockStore, 'usage'>): number {
  const { blocks, bytes } = store.usage();
  return blocks === 0 ? 0 : bytes / blocks;
}
