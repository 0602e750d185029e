// Who is doing what in a block store: operations that can be counted, held back and waited for, and turns per block.

import { HoldfastError } from '../core/errors.ts';
import { type BlockKey, keyText } from './block-key.ts';

/** All operations of one store. */
export class Operations {
  /** Set while somebody works alone: everything else waits for it. */
  #alone: Promise<void> | undefined;
  #underway = 0;
  #onIdle: (() => void) | undefined;
  #isClosed = false;

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Runs an operation; waits while somebody works alone. Throws INTERNAL after `close`. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    while (this.#alone !== undefined) await this.#alone;
    if (this.#isClosed) throw new HoldfastError('INTERNAL', 'the block store is closed');
    this.#underway++;
    try {
      return await work();
    } finally {
      this.#underway--;
      if (this.#underway === 0) this.#onIdle?.();
    }
  }

  /** Runs `work` when no operation is under way, and lets none begin meanwhile. One call at a time. */
  async alone(work: () => Promise<void>): Promise<void> {
    const over = Promise.withResolvers<void>();
    this.#alone = over.promise;
    try {
      await this.settled();
      await work();
    } finally {
      this.#alone = undefined;
      over.resolve();
    }
  }

  /** From now on none begins. */
  close(): void {
    this.#isClosed = true;
  }

  /** Resolves when none is under way. One waits at a time. */
  async settled(): Promise<void> {
    if (this.#underway > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }
}

/** One at a time per block, in the order they came; different blocks do not wait for each other. */
export class BlockTurns {
  readonly #last = new Map<string, Promise<unknown>>();

  /** Runs `work` when those before it on the same block have ended, well or not. Must not be called from within one. */
  async take<T>(key: BlockKey, work: () => Promise<T>): Promise<T> {
    const text = keyText(key);
    const before = this.#last.get(text);
    const mine = before === undefined ? work() : before.then(work, work);
    this.#last.set(text, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(text) === mine) this.#last.delete(text);
    }
  }
}
