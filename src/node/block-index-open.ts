// Opening the index of the blocks so that it may be believed, and closing it so that the next open can.
//
//   open ─ load ─┬─ in good order, and as it was closed ───────────────────────┬─ index
//                ├─ not closed, or not as it is now ─ recover (block-recovery.ts) ┤
//                └─ damaged ─ set aside ─ a new one ─ recover ─────────────────┘
//
// LevelDB drops the damaged end of its log without a word, and is then exactly as it was a while before it was closed.
// So what the index held at the end also stands in a file beside it.

import { readFile } from 'node:fs/promises';
import { sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { describeError, isHoldfastError } from '../core/errors.ts';
import { isAbsent, isDiskFull, writeFileDurably } from './block-disk.ts';
import type { BlockFiles } from './block-files.ts';
import { BlockIndex } from './block-index.ts';
import type { BlockSettings } from './block-options.ts';
import { recover } from './block-recovery.ts';
import type { Segments } from './block-segments.ts';
import { type DataDir, discardLevel, type LevelStore, openLevel } from './stores.ts';

/** Where the index lies, and the bytes that it speaks of. */
export interface IndexParts {
  readonly dir: DataDir;
  readonly files: BlockFiles;
  readonly segments: Segments;
  readonly settings: BlockSettings;
}

const indexName = 'block-index';

/**
 * Opens the index and the list of segments, rebuilding the index if it is damaged. Looks for what it missed unless it
 * was closed in good order; with `recover` in any case. Throws DISK_FULL, DATA_DIR_DAMAGED, or what the disk says.
 */
export async function openIndex(
  parts: IndexParts,
  force: 'as-found' | 'recover' = 'as-found',
): Promise<BlockIndex> {
  const { dir, settings } = parts;
  const store = await openLevel(dir, indexName, {
    rebuildable: true,
    writeBufferSize: settings.indexBufferBytes,
  });
  const index = new BlockIndex(store);
  try {
    await reconcile(index, store, parts, force);
    return index;
  } catch (error) {
    await index.abandon();
    if (!isIndexDamage(error)) throw error;
    settings.onEvent({ type: 'index-rebuilt', reason: describeError(error) });
    await discardIndex(dir);
    return openIndex(parts);
  }
}

async function reconcile(
  index: BlockIndex,
  store: LevelStore,
  { dir, files, segments, settings }: IndexParts,
  force: 'as-found' | 'recover',
): Promise<void> {
  await index.load();
  await segments.open(index.tail.segment);
  const rebuild = store.condition === 'rebuild';
  if (rebuild) settings.onEvent({ type: 'index-rebuilt', reason: describeError(store.damage) });
  const settled = store.condition === 'clean' && (await isAsClosed(dir, index));
  if (settled && force === 'as-found') return;
  const report = await recover({ index, files, segments }, { trustNames: rebuild });
  if (Object.values(report).some((count) => count > 0)) settings.onEvent({ type: 'recovered', report });
}

/** Closes the index. When its totals cannot be written, the next open looks for forgotten blocks: slower, and right. */
export async function closeIndex(index: BlockIndex, { dir, settings }: IndexParts): Promise<void> {
  if (index.broken === undefined) {
    try {
      await index.sync();
      await writeFileDurably(closingTotalsPath(dir), closingTotals(index));
    } catch (error) {
      settings.onEvent({ type: 'background-failed', what: 'closing', error });
    }
  }
  await index.close();
}

/** Declares a closed index damaged: the next `openIndex` sets it aside and begins anew. */
export async function discardIndex(dir: DataDir): Promise<void> {
  await discardLevel(dir, indexName);
}

/** True when the index contradicts itself, as opposed to a disk that refuses. */
export function isIndexDamage(error: unknown): boolean {
  if (isDiskFull(error)) return false;
  return isHoldfastError(error, 'RECORD_CORRUPT') || /Corruption|checksum/i.test(describeError(error));
}

async function isAsClosed(dir: DataDir, index: BlockIndex): Promise<boolean> {
  try {
    return sameBytes(await readFile(closingTotalsPath(dir)), closingTotals(index));
  } catch (error) {
    if (isAbsent(error)) return false;
    throw error;
  }
}

function closingTotals(index: BlockIndex): Uint8Array {
  const { count, sum } = index.totals;
  return utf8(`${count} ${toHex(sum)} ${index.tail.segment} ${index.tail.offset}\n`);
}

function closingTotalsPath(dir: DataDir): string {
  return `${dir.storePath(indexName)}.totals`;
}
