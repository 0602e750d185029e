// Makes index, files and segments agree after a crash, a full disk, or the loss of the index.
//
// What was acknowledged is on the disk, whatever the index remembers: a complete file under its final name,
// or a frame in a segment. So bytes without an entry are taken in (when they verify), entries without
// bytes are dropped, and only what a deletion named is unlinked.

import { sameBytes } from '../core/bytes.ts';
import { sha256 } from '../core/hash.ts';
import { blockBytesMax } from '../core/limits.ts';
import type { BlockFiles } from './block-files.ts';
import { shardsCount } from './block-files.ts';
import type { BlockIndex, IndexChange } from './block-index.ts';
import { type BlockEntry, type BlockKey, keyText } from './block-key.ts';
import { frameHeadBytes, type Segments } from './block-segments.ts';

export interface RecoveryReport {
  /** Blocks found on the disk that the index did not know. */
  readonly adopted: number;
  /** Entries dropped because their bytes are gone. */
  readonly lost: number;
  /** Bytes that verify as no block: half-written or damaged. */
  readonly damaged: number;
}

interface Parts {
  readonly index: BlockIndex;
  readonly files: BlockFiles;
  readonly segments: Segments;
}

/**
 * Reconciles; durable when it resolves. With `trustNames` a complete file is taken in by its name and size without
 * reading it: for a lost index, where reading everything would take hours. Reads and scrub still verify.
 */
export async function recover(parts: Parts, options: { trustNames: boolean }): Promise<RecoveryReport> {
  const { index, files } = parts;
  await files.clearTemporaries();
  await bury(index, files);
  const report = { adopted: 0, lost: 0, damaged: 0 };
  for (let shard = 0; shard < shardsCount; shard++)
    await recoverShard(parts, shard, options.trustNames, report);
  await recoverSegments(parts, report);
  await index.sync();
  return report;
}

type Report = { -readonly [field in keyof RecoveryReport]: number };

async function bury(index: BlockIndex, files: BlockFiles): Promise<void> {
  for (const key of await index.deleted()) {
    const entry = await index.get(key);
    if (entry?.kind !== 'file') await files.remove(key);
    await index.commit([{ op: 'buried', key }]);
  }
}

/** Compares the entries of one shard with its files, and the segment entries in its range with the segments. */
async function recoverShard(parts: Parts, shard: number, trustNames: boolean, report: Report): Promise<void> {
  const { index, files, segments } = parts;
  const unknown = new Map((await files.listShard(shard)).map((key) => [keyText(key), key]));
  const changes: IndexChange[] = [];
  for await (const [key, entry] of index.entries(...shardRange(shard))) {
    const present = entry.kind === 'file' ? unknown.delete(keyText(key)) : isInside(segments, entry);
    if (!present) changes.push({ op: 'remove', key, entry });
  }
  report.lost += changes.length;
  for (const key of unknown.values()) {
    if ((await index.get(key)) !== undefined) {
      await files.remove(key); // it lies in a segment too
      continue;
    }
    const entry = await adoptableFile(files, key, trustNames);
    if (entry !== undefined) changes.push({ op: 'add', key, entry });
    else {
      report.damaged++;
      await files.quarantine(key);
    }
  }
  report.adopted += changes.filter(({ op }) => op === 'add').length;
  if (changes.length > 0) await index.commit(changes);
}

/** Bounds of a shard for `entries`: after the largest key below it, before the smallest key above it. */
function shardRange(shard: number): [BlockKey | undefined, BlockKey | undefined] {
  const first = (of: number): BlockKey => Uint8Array.of(of << 2);
  return [shard === 0 ? undefined : first(shard), shard === shardsCount - 1 ? undefined : first(shard + 1)];
}

function isInside(segments: Segments, entry: BlockEntry & { kind: 'segment' }): boolean {
  const size = segments.sizes.get(entry.segment) ?? 0;
  return entry.offset + frameHeadBytes + entry.sizeBytes <= size;
}

async function adoptableFile(
  files: BlockFiles,
  key: BlockKey,
  trustName: boolean,
): Promise<BlockEntry | undefined> {
  const sizeBytes = await files.sizeOf(key);
  if (sizeBytes > blockBytesMax) return undefined;
  if (!trustName && !isDigestOf(key, await files.read(key, sizeBytes))) return undefined;
  return { kind: 'file', sizeBytes };
}

/** Takes in the frames after the place up to which the segments are indexed. */
async function recoverSegments({ index, segments }: Parts, report: Report): Promise<void> {
  const start = index.tail;
  for (const segment of [...segments.sizes.keys()].sort((a, b) => a - b)) {
    if (segment < start.segment) continue;
    const adds = new Map<string, IndexChange>();
    let tail = { segment, offset: segment === start.segment ? start.offset : 0 };
    for await (const { key, bytes, offset, end } of segments.scan(segment, tail.offset)) {
      tail = { segment, offset: end };
      if (!isDigestOf(key, bytes)) report.damaged++;
      else if ((await index.get(key)) === undefined) {
        const entry: BlockEntry = { kind: 'segment', sizeBytes: bytes.length, segment, offset };
        adds.set(keyText(key), { op: 'add', key, entry });
      }
      if (adds.size < commitChanges) continue;
      report.adopted += adds.size;
      await index.commit([...adds.values()], { tail });
      adds.clear();
    }
    report.adopted += adds.size;
    await index.commit([...adds.values()], { tail });
  }
}

/** Frames per index write: the write is negligible from here on. */
const commitChanges = 500;

export function isDigestOf(key: BlockKey, bytes: Uint8Array): boolean {
  return sameBytes(key.subarray(0, 32), sha256(bytes));
}
