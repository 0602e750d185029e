// What can be set for a block store, and what it tells an operator.

import { statfs } from 'node:fs/promises';
import type { CID } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { RecoveryReport } from './block-recovery.ts';

export interface BlockStoreOptions {
  /** Blocks of at least this many bytes get a file of their own. Default 65,536. */
  readonly fileBytesMin?: number;
  /** A segment is closed when it reaches this many bytes. Default 64 MiB. */
  readonly segmentBytes?: number;
  /** Free bytes below which writes are refused, so that deleting still works. Default 64 MiB, at most 5 % of the disk. */
  readonly reserveBytes?: number;
  /** Milliseconds between attempts to leave the read-only state. Default 1,000. */
  readonly probeMs?: number;
  /** Changes the journal remembers. Default 65,536: an hour of 18 changes per second. */
  readonly journalChanges?: number;
  /** Bytes the index gathers before it writes a table. Default 4 MiB. */
  readonly indexBufferBytes?: number;
  /** Told about what an operator should know; must not throw. */
  readonly onEvent?: (event: BlockStoreEvent) => void;
}

export type BlockStoreEvent =
  | { readonly type: 'read-only'; readonly reason: string; readonly error?: unknown }
  | { readonly type: 'ready' }
  | { readonly type: 'corrupt'; readonly cid: CID; readonly reason: string }
  | { readonly type: 'index-rebuilt'; readonly reason: string }
  | { readonly type: 'recovered'; readonly report: RecoveryReport }
  | { readonly type: 'compacted'; readonly segments: number; readonly freedBytes: number }
  | { readonly type: 'background-failed'; readonly what: string; readonly error: unknown };

/** Options with their defaults, and the directory of the blocks. */
export type BlockSettings = Required<BlockStoreOptions> & { readonly path: string };

/** Fills in defaults, some by the size of the disk under `path`. Throws DATA_DIR_DAMAGED when `path` is gone. */
export async function settleOptions(options: BlockStoreOptions, path: string): Promise<BlockSettings> {
  const disk = await statfs(path).catch((cause: unknown) => {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is gone`, { cause });
  });
  return {
    fileBytesMin: options.fileBytesMin ?? 64 * 1024,
    segmentBytes: options.segmentBytes ?? 64 * 1024 * 1024,
    reserveBytes: options.reserveBytes ?? Math.min(64 * 1024 * 1024, (disk.blocks * disk.bsize) / 20),
    probeMs: options.probeMs ?? 1 * second,
    journalChanges: options.journalChanges ?? 65_536,
    indexBufferBytes: options.indexBufferBytes ?? 4 * 1024 * 1024,
    onEvent: options.onEvent ?? (() => undefined),
    path,
  };
}
