// How much room is left on the disk: what the file system said lately, less what was written since.

import { statfs } from 'node:fs/promises';
import { second } from '../core/clock.ts';
import type { BlockSettings } from './block-options.ts';

/** How old a figure of free space may be. */
const spaceAgeMsMax = 1 * second;

export class FreeSpace {
  readonly #settings: Pick<BlockSettings, 'path' | 'onEvent'>;
  #bytes = 0;
  #askedAt = 0;
  #refreshing: Promise<void> | undefined;

  constructor(settings: Pick<BlockSettings, 'path' | 'onEvent'>) {
    this.#settings = settings;
  }

  /** Free bytes as far as is known; below zero when more was taken than there seemed to be. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Counts `sizeBytes` as written until the file system is asked again. */
  take(sizeBytes: number): void {
    this.#bytes -= sizeBytes;
  }

  /** Counts `sizeBytes` as given back. */
  give(sizeBytes: number): void {
    this.#bytes += sizeBytes;
  }

  /** Asks the file system. Throws what it says. */
  async refresh(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#settings.path);
    this.#bytes = bavail * bsize;
    this.#askedAt = performance.now();
  }

  /** Asks the file system if the figure is old, once for all who want to know; a failure leaves the old figure. */
  async refreshIfOld(): Promise<void> {
    if (performance.now() - this.#askedAt < spaceAgeMsMax) return;
    this.#refreshing ??= this.refresh()
      .catch((error: unknown) => this.#settings.onEvent({ type: 'background-failed', what: 'statfs', error }))
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  /** Resolves when nobody is asking the file system in the background. */
  async settled(): Promise<void> {
    await this.#refreshing;
  }
}
