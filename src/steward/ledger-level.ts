// The ledger's memory over a restart. A cache: whatever is damaged or missing here is asked of the nodes again.
//
//   'b' ‖ codec ‖ digest (32)  →  check (8) ‖ size (4) ‖ { node (1) ‖ proven at, seconds (4) }…
//   'n' ‖ node (1)             →  check (8) ‖ DAG-CBOR { peer, epoch, seq }
//
// `check` is the start of SHA-256 over key and value. A node's position in its journal is written only in
// a batch after which no change of the ledger waits, and LevelDB keeps the order of batches: the position
// on disk is never ahead of the blocks on disk. Nothing is synced; a crash costs a little re-reading.

import { ClassicLevel } from 'classic-level';
import { CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { concat, sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { rowsOf } from '../core/row-pages.ts';
import type { PeerName } from '../core/rpc.ts';
import type { Ledger } from './ledger.ts';

/** How far a node's journal has been read. */
export interface JournalPosition {
  readonly epoch: string;
  readonly seq: number;
}

/** Port of the steward. */
export interface LedgerStore {
  /** Fills an empty ledger. Positions of nodes whose blocks could not all be read are left out: they are listed again. */
  load(ledger: Ledger, now: number): Promise<ReadonlyMap<PeerName, JournalPosition>>;
  /** Writes what changed since the last call, a bounded part of it; `positions` with the last part. */
  save(ledger: Ledger, positions: ReadonlyMap<PeerName, JournalPosition>): Promise<void>;
}

type Batch = (
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array }
)[];

const saveBlocksMax = 20_000;
const checkBytes = 8;
const tagBlock = 0x62;
const tagNode = 0x6e;

export class LevelLedgerStore implements LedgerStore, AsyncDisposable {
  readonly #db: ClassicLevel<Uint8Array, Uint8Array>;
  #positions = '';

  private constructor(db: ClassicLevel<Uint8Array, Uint8Array>) {
    this.#db = db;
  }

  /** Opens or creates it. One that LevelDB cannot open any more is removed and begun anew: it is a cache. */
  static async open(path: string): Promise<LevelLedgerStore> {
    try {
      return new LevelLedgerStore(await openLevel(path));
    } catch (cause) {
      if (isLocked(cause)) throw new HoldfastError('DATA_DIR_LOCKED', `${path} is in use`, { cause });
      await ClassicLevel.destroy(path);
      return new LevelLedgerStore(await openLevel(path));
    }
  }

  async load(ledger: Ledger, now: number): Promise<ReadonlyMap<PeerName, JournalPosition>> {
    const positions = new Map<PeerName, JournalPosition>();
    let whole = true;
    for await (const [key, value] of this.#rows(tagNode)) {
      const entry = parseNode(opened(key, value));
      if (entry === undefined || ledger.node(entry.peer) !== key[1]) {
        await this.#db.clear();
        return new Map();
      }
      if (entry.position !== undefined) positions.set(entry.peer, entry.position);
    }
    for await (const [key, value] of this.#rows(tagBlock)) {
      whole = loadBlock(ledger, key, opened(key, value), now) && whole;
    }
    ledger.takeTouched(Number.MAX_SAFE_INTEGER);
    return whole ? positions : new Map();
  }

  async save(ledger: Ledger, positions: ReadonlyMap<PeerName, JournalPosition>): Promise<void> {
    const { slots, removed } = ledger.takeTouched(saveBlocksMax);
    const batch: Batch = [];
    for (const key of removed) batch.push({ type: 'del', key: concat(Uint8Array.of(tagBlock), key) });
    for (const slot of slots) {
      const key = concat(Uint8Array.of(tagBlock), ledger.key(slot));
      batch.push({ type: 'put', key, value: sealed(key, formatBlock(ledger, slot)) });
    }
    if (ledger.touchedCount === 0) this.#addPositions(batch, ledger, positions);
    if (batch.length > 0) await this.#db.batch(batch);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db.close();
  }

  #rows(tag: number): AsyncGenerator<[Uint8Array, Uint8Array]> {
    return rowsOf(this.#db.iterator({ gte: Uint8Array.of(tag), lt: Uint8Array.of(tag + 1) }));
  }

  #addPositions(batch: Batch, ledger: Ledger, positions: ReadonlyMap<PeerName, JournalPosition>): void {
    const text = JSON.stringify([ledger.nodes, [...positions]]);
    if (text === this.#positions) return;
    this.#positions = text;
    for (const [node, peer] of ledger.nodes.entries()) {
      const key = Uint8Array.of(tagNode, node);
      const { epoch, seq } = positions.get(peer) ?? { epoch: null, seq: 0 };
      batch.push({ type: 'put', key, value: sealed(key, encodeCbor({ peer, epoch, seq })) });
    }
  }
}

async function openLevel(path: string): Promise<ClassicLevel<Uint8Array, Uint8Array>> {
  const db = new ClassicLevel<Uint8Array, Uint8Array>(path, { keyEncoding: 'view', valueEncoding: 'view' });
  await db.open();
  return db;
}

function isLocked(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return cause instanceof Error && 'code' in cause && cause.code === 'LEVEL_LOCKED';
}

function sealed(key: Uint8Array, value: Uint8Array): Uint8Array {
  return concat(sha256(concat(key, value)).subarray(0, checkBytes), value);
}

/** The value without its check, undefined when that does not fit. */
function opened(key: Uint8Array, value: Uint8Array): Uint8Array | undefined {
  const rest = value.subarray(checkBytes);
  const check = sha256(concat(key, rest)).subarray(0, checkBytes);
  return sameBytes(check, value.subarray(0, checkBytes)) ? rest : undefined;
}

function formatBlock(ledger: Ledger, slot: number): Uint8Array {
  const holders = ledger.holders(slot).filter((holder) => !holder.bad);
  const out = new Uint8Array(4 + 5 * holders.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, ledger.sizeBytes(slot));
  for (const [at, { node, provenAt }] of holders.entries()) {
    view.setUint8(4 + 5 * at, node);
    view.setUint32(5 + 5 * at, provenAt / 1000);
  }
  return out;
}

/** False when the entry cannot be believed. */
function loadBlock(ledger: Ledger, key: Uint8Array, value: Uint8Array | undefined, now: number): boolean {
  if (value === undefined || key.length !== 34 || value.length % 5 !== 4) return false;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const cid = CID.decode(concat(Uint8Array.of(1, key[1] ?? 0, 0x12, 0x20), key.subarray(2)));
  for (let at = 4; at < value.length; at += 5) {
    const node = view.getUint8(at);
    if (node >= ledger.nodes.length) return false;
    const slot = ledger.hold(cid, node, view.getUint32(0), now);
    ledger.prove(slot, node, view.getUint32(at + 1) * 1000);
  }
  return true;
}

function parseNode(
  value: Uint8Array | undefined,
): { peer: PeerName; position: JournalPosition | undefined } | undefined {
  if (value === undefined) return undefined;
  const fields = decodeCbor(value, 'ledger node');
  if (typeof fields !== 'object' || fields === null || !('peer' in fields) || !('epoch' in fields))
    return undefined;
  const { peer, epoch } = fields;
  const seq = 'seq' in fields ? fields.seq : undefined;
  if (typeof peer !== 'string' || typeof seq !== 'number') return undefined;
  return { peer, position: typeof epoch === 'string' ? { epoch, seq } : undefined };
}
