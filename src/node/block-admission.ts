// Whether a block may be written now: room enough, and a disk that takes writes.
//
//   open ── no room left, or a write failed ──▶ read-only ── probe: room, and a write that works ──▶ open
//                                                 ▲   │
//                                                 └───┘ every probeMs
//
// A write that fails for want of space or by a fault of the disk refuses all later ones: what a failed flush has left
// nobody can know, and a store that tries on would lose what it acknowledges. Reads are not asked.

import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { isDiskFull, isMachineFault, writeSynced } from './block-disk.ts';
import type { BlockSettings } from './block-options.ts';
import type { FreeSpace } from './block-space.ts';

/** What may have to be mended before writes can be taken again. */
export interface Mendable {
  /** True when it takes no writes: then a new reason is news. */
  isBroken(): boolean;
  /** Mends it if it has to be; called when the disk takes writes. Throws when that failed: it is tried again. */
  mend(): Promise<void>;
}

/** What it wants to know of the room on the disk. */
export type Room = Pick<FreeSpace, 'bytes' | 'take' | 'refresh' | 'refreshIfOld'>;

/** Why writes are refused. */
export interface Refusal {
  readonly reason: string;
  readonly error?: unknown;
}

/** Writing resumes when this many times the reserve are free: not to flutter at the edge. */
const resumeFactor = 1.25;
/** What is written to see whether the disk takes writes. */
const probeBytes = 64 * 1024;

export class Admission {
  readonly #space: Room;
  readonly #mendable: Mendable;
  readonly #settings: BlockSettings;
  #refusal: Refusal | undefined;
  #timer: NodeJS.Timeout | undefined;
  #probing: Promise<void> | undefined;
  #isClosed = false;

  constructor(space: Room, mendable: Mendable, settings: BlockSettings) {
    this.#space = space;
    this.#mendable = mendable;
    this.#settings = settings;
  }

  /** Why writes are refused, undefined while they are not. */
  get refusal(): Refusal | undefined {
    return this.#refusal;
  }

  /** Throws DISK_FULL when writes are refused or `sizeBytes` more would touch the reserve. */
  async admit(sizeBytes: number): Promise<void> {
    await this.#space.refreshIfOld();
    this.#space.take(sizeBytes);
    const { reserveBytes } = this.#settings;
    if (this.#refusal === undefined && this.#space.bytes < reserveBytes) {
      await this.#space.refresh(); // the running figure ignores what others freed
      if (this.#space.bytes - sizeBytes < reserveBytes)
        this.refuse(`less than ${reserveBytes} bytes of space are left`);
    }
    if (this.#refusal !== undefined) throw this.#diskFull();
  }

  /** Turns a failed write into the read-only state; returns what the caller is told: FILE_UNREADABLE or DISK_FULL. */
  failed(error: unknown): HoldfastError {
    if (isHoldfastError(error)) return error;
    if (isMachineFault(error))
      return new HoldfastError('FILE_UNREADABLE', 'a block cannot be written', { cause: error });
    this.refuse(
      isDiskFull(error) ? 'no space left on the disk' : `the disk failed: ${describeError(error)}`,
      error,
    );
    return this.#diskFull();
  }

  /** open → read-only. The first reason stands, except beside something that is broken: that must be told too. */
  refuse(reason: string, error?: unknown): void {
    if (this.#refusal === undefined || this.#mendable.isBroken()) {
      this.#refusal = error === undefined ? { reason } : { reason, error };
      this.#settings.onEvent({ type: 'read-only', ...this.#refusal });
    }
    this.#probeLater();
  }

  /** Probes no more; resolves when a probe that was under way has ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#probing;
  }

  #diskFull(): HoldfastError {
    const reason = this.#refusal?.reason ?? 'closing';
    return new HoldfastError('DISK_FULL', `the block store is read-only: ${reason}`, {
      cause: this.#refusal?.error,
      details: { reason },
    });
  }

  #probeLater(): void {
    if (this.#isClosed || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#probing ??= this.#probe().finally(() => {
        this.#probing = undefined;
        if (this.#refusal !== undefined) this.#probeLater();
      });
    }, this.#settings.probeMs);
    this.#timer.unref();
  }

  /** read-only → open, when the disk takes writes again; the index is mended first, so that deletions work. */
  async #probe(): Promise<void> {
    try {
      await this.#space.refresh();
      const { reserveBytes, indexBufferBytes, path } = this.#settings;
      if (this.#space.bytes < Math.min(2 * indexBufferBytes, Math.max(reserveBytes, 4096))) return;
      await tryWriting(join(path, 'tmp', 'probe'));
      await this.#mendable.mend();
      if (this.#space.bytes < reserveBytes * resumeFactor) return;
      this.#refusal = undefined;
      this.#settings.onEvent({ type: 'ready' });
    } catch (error) {
      this.#settings.onEvent({ type: 'background-failed', what: 'leaving the read-only state', error });
    }
  }
}

async function tryWriting(path: string): Promise<void> {
  try {
    await writeSynced(path, new Uint8Array(probeBytes));
    await rename(path, `${path}.done`);
  } finally {
    await rm(path, { force: true });
    await rm(`${path}.done`, { force: true });
  }
}
