// Small blocks on their way into a segment: those that come while one append is under way share the next.
//
//   append ─ queue ─ one write and flush for a group (block-segments.ts) ─ inventory ─ all of the group are told
//
// The next group is flushed while the index still takes in the last one.

import { blockBytesMax } from '../core/limits.ts';
import type { BlockInventory } from './block-inventory.ts';
import type { BlockEntry, BlockKey } from './block-key.ts';
import { type FramePlace, type FrameRecord, frameHeadBytes, type Segments } from './block-segments.ts';

/** A block that is to be written, and whoever waits for it. */
interface Waiting extends FrameRecord {
  /** Where it was, for a frame that is moved. */
  readonly from?: BlockEntry;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Frames written with one flush. */
const groupBytesMax = 4 * blockBytesMax;

export class FrameWriter {
  readonly #segments: Segments;
  readonly #inventory: Pick<BlockInventory, 'commit'>;
  readonly #groupBytes: number;
  readonly #queue: Waiting[] = [];
  #appending: Promise<void> | undefined;

  /** @param segmentBytes where segments are closed: a group is not larger by more than one block */
  constructor(segments: Segments, inventory: Pick<BlockInventory, 'commit'>, segmentBytes: number) {
    this.#segments = segments;
    this.#inventory = inventory;
    this.#groupBytes = Math.min(groupBytesMax, segmentBytes);
  }

  /**
   * Writes a block, durable and in the inventory when it resolves. With `from` it is no new block but one that lay
   * there. Throws what the disk says.
   */
  async append(key: BlockKey, bytes: Uint8Array, from?: BlockEntry): Promise<void> {
    const done = new Promise<void>((resolve, reject) => {
      this.#queue.push({ key, bytes, resolve, reject, ...(from === undefined ? {} : { from }) });
    });
    this.#appending ??= this.#appendAll();
    return done;
  }

  /** Resolves when nothing waits to be appended. */
  async settled(): Promise<void> {
    await this.#appending;
  }

  async #appendAll(): Promise<void> {
    await Promise.resolve(); // those who write in this turn join the first group
    while (this.#queue.length > 0) {
      const group = this.#takeGroup();
      try {
        this.#commit(group, await this.#segments.append(group));
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    this.#appending = undefined;
  }

  #takeGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const put of this.#queue) {
      if (bytes >= this.#groupBytes) break;
      bytes += put.bytes.length;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  /** Index writes follow each other in the order of the appends, so the tail only moves forward. */
  #commit(group: readonly Waiting[], places: readonly FramePlace[]): void {
    const changes = group.map((frame, at) => changeOf(frame, places[at]));
    const last = changes.at(-1)?.entry;
    if (last === undefined) return;
    const tail = { segment: last.segment, offset: last.offset + frameHeadBytes + last.sizeBytes };
    this.#inventory.commit(changes, { tail }).then(
      () => group.forEach(({ resolve }) => resolve()),
      (error: unknown) => group.forEach(({ reject }) => reject(error)),
    );
  }
}

type FrameEntry = BlockEntry & { readonly kind: 'segment' };

type FrameChange =
  | { readonly op: 'add'; readonly key: BlockKey; readonly entry: FrameEntry }
  | { readonly op: 'move'; readonly key: BlockKey; readonly from: BlockEntry; readonly entry: FrameEntry };

function changeOf({ key, bytes, from }: Waiting, place: FramePlace | undefined): FrameChange {
  if (place === undefined) throw new RangeError('changeOf: a frame without its place');
  const entry: FrameEntry = { kind: 'segment', sizeBytes: bytes.length, ...place };
  return from === undefined ? { op: 'add', key, entry } : { op: 'move', key, from, entry };
}
