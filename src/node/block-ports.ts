// What a node's block store promises to the rest of the node: the port, and what goes in and out of it.
//
// Exchange, scrub and storage node know this and nothing of files, segments or LevelDB; the store itself is in
// blockstore.ts. Only types: whoever needs the promise loads no disk.

import type { CID } from '../core/block.ts';

/** Blocks of one node. Only supported CIDs (core/block.ts); never more than `blockBytesMax` per block. */
export interface BlockStore extends AsyncDisposable {
  /**
   * Stores a block. It is on disk, synced, when this resolves.
   * Throws BLOCK_CORRUPT when the bytes do not hash to `cid`, TOO_LARGE above `blockBytesMax`,
   * ARGUMENT_INVALID for a CID of another kind, DISK_FULL while the store is read-only.
   */
  put(cid: CID, bytes: Uint8Array): Promise<'stored' | 'present'>;
  /**
   * The bytes, checked against `cid` on this very read; undefined when absent or damaged. A damaged block
   * is moved to quarantine and told to the journal as `corrupt`. Throws FILE_UNREADABLE when the
   * machine (not the block) is at fault, e.g. out of file handles.
   */
  get(cid: CID): Promise<Uint8Array | undefined>;
  has(cid: CID): Promise<boolean>;
  /** Size of a stored block, undefined when absent. */
  stat(cid: CID): Promise<{ readonly sizeBytes: number } | undefined>;
  /** True when it was there. Durable when this resolves. DISK_FULL when even that cannot be written now. */
  delete(cid: CID): Promise<boolean>;
  /** CIDs in order of their digest (then codec), after `after`, at most `limit` (default 4,096). */
  list(after?: CID, limit?: number): Promise<CID[]>;
  /** Like list, with sizes. */
  listSizes(after?: CID, limit?: number): Promise<StoredBlock[]>;
  usage(): BlockUsage;
  readonly changes: BlockJournal;
  digest(): BlockDigest;
  /**
   * Reads and hashes stored blocks for about `budgetBytes`, going on where the last step (of this or an
   * earlier process) ended. Walks in a circle, so what was checked longest ago comes next. `done` is
   * true when this step reached the end of a round. The caller paces.
   */
  scrubStep(budgetBytes: number): Promise<ScrubStep>;
}

export interface StoredBlock {
  readonly cid: CID;
  readonly sizeBytes: number;
}

export interface BlockUsage {
  readonly blocks: number;
  /** Sum of block sizes, without overhead. */
  readonly bytes: number;
  /** Free bytes of the file system, at most about a second old. */
  readonly freeBytes: number;
  readonly state: 'ready' | 'read-only';
  /** Why it is read-only, for the operator. */
  readonly reason?: string;
}

export interface BlockChange {
  readonly seq: number;
  readonly cid: CID;
  /** `corrupt`: it was there, damage was found, it is there no more. */
  readonly op: 'add' | 'del' | 'corrupt';
  readonly sizeBytes: number;
}

/** What changed lately, for a steward that keeps an inventory. Bounded; a new epoch at each open and recovery. */
export interface BlockJournal {
  readonly epoch: string;
  /** Sequence number of the newest change of this epoch; 0 = none yet. */
  readonly seq: number;
  /** Changes after `seq`, oldest first, at most `limit`; 'reset' when they are no longer (or never were) known: list again. */
  since(seq: number, limit?: number): { readonly changes: readonly BlockChange[] } | 'reset';
}

/** Two stores with the same digest hold the same CIDs. */
export interface BlockDigest {
  readonly count: number;
  /** Sum of the sha-256 digests of all stored CIDs modulo 2^256, 32 bytes big-endian. */
  readonly sum: Uint8Array;
}

export interface ScrubStep {
  readonly checked: number;
  readonly checkedBytes: number;
  readonly corrupt: readonly CID[];
  /** Where the next step goes on: hex of digest and codec, '' = from the beginning. */
  readonly cursor: string;
  readonly done: boolean;
}

/** The store on this machine's disk: a BlockStore that can also be told to return space now. */
export interface DiskBlockStore extends BlockStore {
  /** Rewrites segments that are mostly dead and removes them. Runs by itself after deletions. */
  compact(): Promise<void>;
}
