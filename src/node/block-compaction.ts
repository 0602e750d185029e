// Returning the room of deleted small blocks: segments that are mostly dead are read, what lives in them is written
// again at the end, and then they are removed.
//
// It is safe at any moment: a frame is moved like any other write, and a segment goes only when the index, flushed,
// refers to nothing in it. When the disk is nearly full it waits, because it must write before it can free.

import type { BlockContents } from './block-contents.ts';
import type { BlockInventory } from './block-inventory.ts';
import type { BlockSettings } from './block-options.ts';
import type { Segments } from './block-segments.ts';
import type { FreeSpace } from './block-space.ts';
import type { Operations } from './block-turns.ts';

/** A segment is worth rewriting when less than this part of it lives. */
const liveShareMin = 0.5;
/** More small closed segments than this are joined. */
const smallSegmentsMax = 16;
/** A closed segment is small below this part of the size at which segments are closed. */
const smallShare = 1 / 8;
/** Frames moved at once. */
const movesMax = 64;

/** What is compacted, and what that takes; all of it belongs to one store. */
export interface CompactionParts {
  readonly inventory: BlockInventory;
  readonly contents: BlockContents;
  readonly segments: Segments;
  readonly space: FreeSpace;
  readonly operations: Operations;
  readonly settings: BlockSettings;
}

export class Compaction {
  readonly #parts: CompactionParts;
  #running: Promise<void> | undefined;

  constructor(parts: CompactionParts) {
    this.#parts = parts;
  }

  /** Rewrites segments that are mostly dead and removes them; joins a run that is under way. Throws DISK_FULL, FILE_UNREADABLE. */
  async run(): Promise<void> {
    return this.#parts.operations.run(() => (this.#running ??= this.#runOnce()));
  }

  /** Runs in the background when it is worth it. A failure is told as an event. */
  runSoon(): void {
    const { operations, settings } = this.#parts;
    if (this.#running !== undefined || operations.isClosed || this.#worthRewriting().size === 0) return;
    void this.run().catch((error: unknown) =>
      settings.onEvent({ type: 'background-failed', what: 'compaction', error }),
    );
  }

  async #runOnce(): Promise<void> {
    try {
      const chosen = this.#worthRewriting();
      if (chosen.size === 0 || !(await this.#hasRoom(chosen))) return;
      await this.#moveOut(chosen);
      await this.#removeEmpty(chosen);
    } finally {
      this.#running = undefined;
    }
  }

  #worthRewriting(): Set<number> {
    const { segments, inventory, settings } = this.#parts;
    const closed = [...segments.sizes].filter(([id]) => id !== segments.activeId);
    const small = closed.filter(([, size]) => size < settings.segmentBytes * smallShare);
    const chosen = new Set(small.length > smallSegmentsMax ? small.map(([id]) => id) : []);
    for (const [id, size] of closed) if (inventory.liveBytes(id) <= size * liveShareMin) chosen.add(id);
    return chosen;
  }

  /** What lives may be written into half of the reserve: the other half is left for the index. */
  async #hasRoom(chosen: ReadonlySet<number>): Promise<boolean> {
    const { inventory, space, settings } = this.#parts;
    const needed = [...chosen].reduce((sum, id) => sum + inventory.liveBytes(id), 0);
    await space.refresh();
    return needed === 0 || needed + settings.reserveBytes / 2 <= space.bytes;
  }

  async #moveOut(chosen: ReadonlySet<number>): Promise<void> {
    const { inventory, contents, operations } = this.#parts;
    const moving: Promise<void>[] = [];
    for await (const [key, entry] of inventory.entries()) {
      if (operations.isClosed) break;
      if (entry.kind !== 'segment' || !chosen.has(entry.segment)) continue;
      const move = contents.move(key, entry);
      move.catch(() => undefined); // thrown below, with its batch
      moving.push(move);
      if (moving.length >= movesMax) await Promise.all(moving.splice(0));
    }
    await Promise.all(moving);
  }

  async #removeEmpty(chosen: ReadonlySet<number>): Promise<void> {
    const { inventory, segments, settings } = this.#parts;
    await inventory.sync(); // no crash may bring back an index that points into a removed segment
    let freedBytes = 0;
    let removed = 0;
    for (const id of chosen) {
      const size = segments.sizes.get(id) ?? 0;
      if (inventory.liveBytes(id) > 0) continue;
      await segments.remove(id);
      freedBytes += size;
      removed++;
    }
    settings.onEvent({ type: 'compacted', segments: removed, freedBytes });
  }
}
