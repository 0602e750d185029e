// The Beacon log: an append-only, hash-chained sequence of appends with compare-and-set per subject.
//
// Everything the registry knows is a fold of this log (fold.ts), so an engine has to do only four things:
// put appends in one order, keep them, hand them back, and refuse a writer whose picture of a subject is old.
//
//     chain 0 = 32 zero bytes
//     chain n = SHA-256(domain ‖ chain n−1 ‖ n as 8 bytes ‖ payload n)
//
// The payload is the canonical DAG-CBOR of the append. The chain covers those very bytes; they are carried
// along in the entry, so nobody who checks the chain has to encode anything again. Two logs with the same
// chain at the same revision hold the same history: that one comparison is how a view notices a log that
// lost or rewrote what it had acknowledged.

import { concat, sameBytes, toHex, uint64, utf8 } from '../core/bytes.ts';
import { decodeCbor, encodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { appendBytesMax, appendRecordsMax, recordBytesMax, subjectBytesMax } from '../core/limits.ts';

/** `expected` of an append that takes any state of its subject. */
export const expectAny = -1;
/** `expected` of an append to a subject that nobody has appended to. */
export const expectNone = 0;
/** Length of an append id. */
export const appendIdBytes = 16;

export interface LogRecord {
  /**
   * `addr/<canonical address>`, `env/<objId>`, `bk/<bkId>`, `kek/<group>/<version>`, `pol/<family>/<version>`,
   * `rev/<group>/<number>` or `cert/<group>/<version of the key>/<number>`; ids in hex.
   */
  readonly key: string;
  /** The signed record block's bytes. */
  readonly bytes: Uint8Array;
}

export interface Append {
  /** What compare-and-set guards, e.g. `addr/<canonical address>`. */
  readonly subject: string;
  /** Revision of the subject's last append; 0 = there is none; −1 = any. */
  readonly expected: number;
  /** 1…16 records that enter the registry together or not at all. */
  readonly records: readonly LogRecord[];
  /** When the writer made it, milliseconds since 1970. */
  readonly at: number;
  /**
   * 16 random bytes naming this append, for a writer that may have to send it twice: an append whose id
   * the engine has seen lately is answered with the entry it made the first time.
   */
  readonly id?: Uint8Array;
}

export interface LogPosition {
  /** Revision of the last entry; 0 for an empty log. */
  readonly revision: number;
  /** Chain hash at that revision, 32 bytes. */
  readonly chain: Uint8Array;
}

/** Which log it is (lineage.ts). */
export interface LogLineage {
  /** 16 random bytes, in hex. */
  readonly id: string;
  /** Logs in whose place it was put, newest first. */
  readonly replaces: readonly string[];
}

/** Where a log ends, and which log it is; a log from before there were ids does not say. */
export interface LogHead extends LogPosition {
  readonly lineage?: LogLineage;
}

export interface LogEntry extends Append, LogPosition {
  /** The exact bytes that the chain covers. */
  readonly payload: Uint8Array;
}

export interface BeaconLog extends AsyncDisposable {
  /**
   * Resolves when the entry is durable. Calls take effect in the order in which they were made.
   * Throws VERSION_CONFLICT (details: expected, current) when the subject moved on, ARGUMENT_INVALID for a
   * malformed append, TOO_LARGE beyond the limits, DISK_FULL or BEACON_UNAVAILABLE when the engine cannot
   * write: then it is unknown whether the append took effect, and sending it again with the same id is safe.
   */
  append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry>;
  /** Entries from revision `from` (inclusive; the first is 1) to the head of now. Throws RECORD_CORRUPT. */
  read(from: number, options?: { readonly signal?: AbortSignal }): AsyncIterable<LogEntry>;
  /** As `read`, then follows new entries until `signal` aborts, which ends the iteration without an error. */
  watch(from: number, options: { readonly signal: AbortSignal }): AsyncIterable<LogEntry>;
  head(): Promise<LogHead>;
  /**
   * The rows of a view that whoever keeps the log has folded, in pages (snapshot.ts), for a newcomer to begin with and
   * to prove afterwards. Absent where there is no such view; throws NOT_FOUND where the other end has none to give.
   */
  snapshot?(options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>;
}

/** A log that whoever judges appends before they reach it can ask what it has taken already. */
export interface RecallingLog extends BeaconLog {
  /** The entry that an append with this id made; undefined when it made none, or so long ago that nobody sends it again. */
  recall(id: Uint8Array): Promise<LogEntry | undefined>;
}

/** What a log that keeps its own files says about itself. */
export interface LogHealth {
  readonly state: 'ready' | 'read-only';
  /** Why it does not write; empty when ready. */
  readonly reason: string;
}

export const emptyPosition: LogPosition = { revision: 0, chain: new Uint8Array(32) };

const chainDomain = utf8('holdfast/beacon-log/v1\n');

/** Chain hash of the entry that follows `previous` with this payload. */
export function nextChain(previous: LogPosition, payload: Uint8Array): Uint8Array {
  // Fixed-length parts in front, so no two inputs share bytes.
  return sha256(concat(chainDomain, previous.chain, uint64(previous.revision + 1), payload));
}

/** True when `longer`, which reaches at least as far, holds the history up to `position`. */
export async function holds(longer: Pick<BeaconLog, 'read'>, position: LogPosition): Promise<boolean> {
  if (position.revision === 0) return true;
  for await (const { revision, chain } of longer.read(position.revision))
    return revision === position.revision && sameBytes(chain, position.chain);
  return false;
}

/** The entry that `append` becomes right after `previous`. `payload` spares encoding it again. */
export function nextEntry(
  previous: LogPosition,
  append: Append,
  payload: Uint8Array = encodeAppend(append),
): LogEntry {
  return { ...append, revision: previous.revision + 1, chain: nextChain(previous, payload), payload };
}

/** Canonical bytes of a well-formed append. Throws ARGUMENT_INVALID or TOO_LARGE for another. */
export function encodeAppend(append: Append): Uint8Array {
  checkAppendShape(append);
  const payload = encodeCbor({
    at: append.at,
    expected: append.expected,
    id: append.id ?? null,
    records: append.records.map(({ key, bytes }) => ({ bytes, key })),
    subject: append.subject,
  });
  if (payload.length > appendBytesMax) throw tooLarge(`an append of ${payload.length} B`, appendBytesMax);
  return payload;
}

/** The append in `payload`. Throws RECORD_INVALID when it is not one. */
export function decodeAppend(payload: Uint8Array): Append {
  const value = decodeCbor(payload, 'append');
  try {
    const append = appendOf(value);
    checkAppendShape(append);
    return append;
  } catch (cause) {
    throw new HoldfastError('RECORD_INVALID', 'not an append', { cause });
  }
}

/** The entry at `revision` from its stored parts. Throws RECORD_INVALID; the chain is the caller's to check. */
export function decodeEntry(revision: number, chain: Uint8Array, payload: Uint8Array): LogEntry {
  return { ...decodeAppend(payload), revision, chain, payload };
}

/** The refusal that every engine gives to a writer whose picture of the subject is old. */
export function versionConflict(subject: string, expected: number, current: number): HoldfastError {
  return new HoldfastError(
    'VERSION_CONFLICT',
    `${subject}: expected revision ${expected}, but its last append is at ${current}`,
    { details: { subject, expected, current } },
  );
}

/** True when a subject whose last append is at `current` takes an append that expects `expected`. */
export function expectationHolds(expected: number, current: number): boolean {
  return expected === expectAny || expected === current;
}

/** An append id as a map key. */
export function appendIdText(id: Uint8Array): string {
  return toHex(id);
}

function checkAppendShape(append: Append): void {
  const { subject, expected, records, at, id } = append;
  if (subject.length === 0) throw invalid('an append needs a subject');
  if (utf8(subject).length > subjectBytesMax) throw tooLarge('an append subject', subjectBytesMax);
  if (!Number.isSafeInteger(expected) || expected < expectAny) throw invalid(`expected revision ${expected}`);
  if (!Number.isSafeInteger(at) || at < 0) throw invalid(`append time ${at}: milliseconds since 1970`);
  if (id !== undefined && id.length !== appendIdBytes)
    throw invalid(`an append id has ${appendIdBytes} bytes`);
  if (records.length === 0 || records.length > appendRecordsMax) {
    throw invalid(`an append holds 1…${appendRecordsMax} records, not ${records.length}`);
  }
  for (const record of records) checkRecordShape(record);
}

function checkRecordShape({ key, bytes }: LogRecord): void {
  if (key.length === 0) throw invalid('a record needs a key');
  if (utf8(key).length > subjectBytesMax) throw tooLarge('a record key', subjectBytesMax);
  if (bytes.length === 0) throw invalid(`${key}: a record needs bytes`);
  if (bytes.length > recordBytesMax) throw tooLarge(`${key}: a record of ${bytes.length} B`, recordBytesMax);
}

function appendOf(value: unknown): Append {
  const { at, expected, id, records, subject } = fieldsOf(value, 5);
  if (typeof subject !== 'string' || typeof expected !== 'number' || typeof at !== 'number') {
    throw invalid('subject, expected or at has the wrong type');
  }
  if (!Array.isArray(records)) throw invalid('records is no list');
  const append = { subject, expected, records: records.map(recordOf), at };
  if (id === null) return append;
  if (!(id instanceof Uint8Array)) throw invalid('id is neither bytes nor null');
  return { ...append, id };
}

function recordOf(value: unknown): LogRecord {
  const { bytes, key } = fieldsOf(value, 2);
  if (typeof key !== 'string' || !(bytes instanceof Uint8Array)) throw invalid('a record is {key, bytes}');
  return { key, bytes };
}

function fieldsOf(value: unknown, count: number): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid('a map is expected');
  if (Object.keys(value).length !== count) throw invalid(`a map of ${count} fields is expected`);
  return { ...value };
}

function invalid(message: string): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', message);
}

function tooLarge(what: string, bytesMax: number): HoldfastError {
  return new HoldfastError('TOO_LARGE', `${what} exceeds ${bytesMax} B`, {
    details: { sizeBytesMax: bytesMax },
  });
}
