// The fold: what one log entry does to the rows of a view. Pure, and the only place that decides it.
//
// Every record belongs to a chain of versions. An entry is taken whole when each of its records either is the
// next version of its chain, naming the one before as `prev`, or is already there; otherwise it is skipped whole,
// with a row that says why. All views of one log therefore agree, down to the byte, on what is in the registry
// and on what is not.
//
// An entry whose subject starts with `rebuild/` comes from `beacon rebuild`, which has only the blocks that
// survived: there a chain may begin late or leave versions out, and these are written down as missing. It can
// only ever go forward, so it brings nothing old back.

import { asBuffer, toHex } from '../core/bytes.ts';
import type { CID } from '../core/block.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import type { BranchKeyBody, EnvelopeBody } from '../envelope/records.ts';
import { parseInstant } from '../ucxl/temporal.ts';
import { custodyProblem, custodyReads, groupKeyRow, isForCustodians, wrappedUnder } from './custody-chain.ts';
import type { KvChanges } from './kv.ts';
import { type Append, emptyPosition, type LogEntry } from './log.ts';
import type { RegistryCounts } from './queries.ts';
import { type OpenedRecord, openRecords, trustedBody } from './records.ts';
import {
  decodeHead,
  emptyCounts,
  encodeEntryRow,
  encodePointer,
  encodeRevision,
  encodeState,
  encodeText,
  type Head,
  type Pointer,
  positionKey,
  rowKey,
  type ViewState,
} from './rows.ts';

/** An entry with its signatures verified. `records` is a text when one of them is no good. */
export interface PreparedEntry {
  readonly entry: LogEntry;
  readonly records: readonly OpenedRecord[] | string;
  /** Rows that `foldEntry` reads. */
  readonly reads: readonly string[];
}

/** Reads a row as it was before this entry. */
export type ReadRow = (key: string) => Uint8Array | undefined;

/** Why an entry is skipped. `version`: it lost to another writer; `record`: it is no good by itself. */
export interface Rejection {
  readonly cause: 'version' | 'record';
  readonly reason: string;
  /** For `version`: what the chain's current version is. */
  readonly current?: number;
}

export interface Folded {
  /** All rows that change, the position row not among them. */
  readonly rows: KvChanges;
  readonly state: ViewState;
  readonly rejection?: Rejection;
}

export const emptyState: ViewState = { position: emptyPosition, counts: emptyCounts };

/** Subjects of appends that may leave versions out. */
export const rebuildPrefix = 'rebuild/';
/** Longest run of versions that a rebuild may leave out: each gets a row. */
export const missingVersionsMax = 4096;

/** Opens the records of an entry and says which rows its fold needs. The expensive half, with `open`: signatures. */
export function prepareEntry(entry: LogEntry, open?: (bytes: Uint8Array) => OpenedRecord): PreparedEntry {
  const records = openRecords(entry, open);
  if (typeof records === 'string') return { entry, records, reads: [] };
  return { entry, records, reads: records.flatMap(readsOf) };
}

/** What `prepared` changes. `read` must know the rows that it named. */
export function foldEntry(prepared: PreparedEntry, before: ViewState, read: ReadRow): Folded {
  const { entry, records } = prepared;
  const always = alwaysRows(entry);
  const fold = new EntryFold(entry, before.counts, read);
  const rejection: Rejection | undefined =
    typeof records === 'string' ? { cause: 'record', reason: records } : fold.applyAll(records);
  const counted =
    rejection === undefined ? fold.counts : { ...before.counts, rejected: before.counts.rejected + 1 };
  const state = {
    position: { revision: entry.revision, chain: entry.chain },
    counts: { ...counted, entries: counted.entries + 1 },
  };
  if (rejection === undefined) return { rows: new Map([...fold.rows, ...always]), state };
  always.set(rowKey('rejt', entry.revision), encodeText(rejection.reason));
  return { rows: always, state, rejection };
}

/** The row that makes a group of folded entries take effect. */
export function stateRow(state: ViewState): readonly [string, Uint8Array] {
  return [positionKey, encodeState(state)];
}

/** True when versions may be left out. */
function mayLeaveOut(append: Append): boolean {
  return append.subject.startsWith(rebuildPrefix);
}

function alwaysRows(entry: LogEntry): Map<string, Uint8Array | null> {
  return new Map([
    [rowKey('log', entry.revision), encodeEntryRow(entry)],
    [rowKey('sub', entry.subject), encodeRevision(entry.revision)],
  ]);
}

function readsOf(record: OpenedRecord): string[] {
  const { chainId, version, body } = record;
  return [rowKey('head', chainId), rowKey('vers', chainId, version), ...custodyReads(body)];
}

/** The rows and counts of one entry while its records are applied one after the other. */
class EntryFold {
  readonly rows = new Map<string, Uint8Array | null>();
  counts: RegistryCounts;
  readonly #entry: LogEntry;
  readonly #read: ReadRow;

  constructor(entry: LogEntry, counts: RegistryCounts, read: ReadRow) {
    this.#entry = entry;
    this.counts = counts;
    this.#read = read;
  }

  applyAll(records: readonly OpenedRecord[]): Rejection | undefined {
    for (const [index, record] of records.entries()) {
      const rejection = this.#apply(record, index);
      if (rejection !== undefined) return rejection;
    }
    return undefined;
  }

  #apply(record: OpenedRecord, index: number): Rejection | undefined {
    if (this.#isThere(record)) return undefined;
    const current = this.#head(record.chainId);
    const rejection = this.#judge(record, current) ?? this.#judgeCustody(record, current);
    if (rejection !== undefined) return rejection;
    this.#addMissing(record, current);
    if (record.body.kind === 'manifest') this.#addManifest(record, record.body, index, current);
    else this.#addKeyRecord(record, index, current);
    return undefined;
  }

  /** Branch keys come along with every object until their writer knows that they are registered. */
  #isThere(record: OpenedRecord): boolean {
    const row = this.#row(rowKey('vers', record.chainId, record.version));
    return row !== undefined && decodeHead(row).cid?.equals(record.cid) === true;
  }

  #judge(record: OpenedRecord, current: Head | undefined): Rejection | undefined {
    const { chainId, version, body } = record;
    const next = (current?.version ?? 0) + 1;
    if (mayLeaveOut(this.#entry) && version > next) {
      if (version - next <= missingVersionsMax) return undefined;
      return { cause: 'record', reason: `${chainId}: leaves out more than ${missingVersionsMax} versions` };
    }
    if (version !== next)
      return versionRejection(chainId, current, `version ${version} given, ${next} is next`);
    if (sameLink(body.prev, current?.cid ?? null)) return undefined;
    return versionRejection(
      chainId,
      current,
      `follows ${textOf(body.prev)}, but ${textOf(current?.cid)} is current`,
    );
  }

  #judgeCustody({ chainId, version, body }: OpenedRecord, current: Head | undefined): Rejection | undefined {
    const before = current === undefined ? undefined : trustedBody(current.bytes);
    const gap = version !== (current?.version ?? 0) + 1;
    const problem = custodyProblem(body, before, (key) => this.#row(key), gap);
    return problem === undefined ? undefined : { cause: 'record', reason: `${chainId}: ${problem}` };
  }

  #addMissing(record: OpenedRecord, current: Head | undefined): void {
    const first = (current?.version ?? 0) + 1;
    for (let version = first; version < record.version; version++) {
      const pointer = { version, revision: this.#entry.revision, index: 0, at: current?.at ?? 0 };
      const row = encodePointer({ ...pointer, type: 'missing', keptFrom: current?.keptFrom ?? 1, cid: null });
      this.rows.set(rowKey('vers', record.chainId, version), row);
      this.#count({ missing: 1 });
    }
  }

  #addManifest(record: OpenedRecord, body: ManifestBody, index: number, current: Head | undefined): void {
    const { ucxl_address: address, context_version: version } = body;
    const at = Math.max(parseInstant(body.generated_at) ?? 0, current?.at ?? -Infinity);
    const keptFrom = body.type === 'tombstone' ? version + 1 : (current?.keptFrom ?? 1);
    this.#addVersion(record, { version, at, type: body.type, keptFrom, index });
    this.#addUse(record.cid, 'manifest', address, version);
    if (body.cid !== null) this.#addUse(body.cid, 'content', address, version);
    if (body.encryption !== null) this.#set(rowKey('objt', toHex(body.encryption.objId), address, version));
    this.#set(rowKey('wrtr', toHex(body.writer), address, version));
    this.#moveCurrent(body, current);
    this.#count({ versions: 1 });
  }

  /** Indexes that hold the current version only: the old one leaves, the new one enters. */
  #moveCurrent(body: ManifestBody, current: Head | undefined): void {
    const { ucxl_address: address } = body;
    const previous = current === undefined ? undefined : trustedBody(current.bytes);
    if (previous?.kind === 'manifest') {
      for (const tag of previous.compliance_tags) this.rows.set(rowKey('tag', tag, address), null);
      this.#count(
        previous.type === 'tombstone' ? { removed: -1 } : { addresses: -1, sizeBytes: -previous.size },
      );
    }
    if (body.type === 'tombstone') {
      this.rows.set(pathKey(address), null);
      this.#count({ removed: 1 });
      return;
    }
    this.#set(pathKey(address));
    for (const tag of body.compliance_tags) this.#set(rowKey('tag', tag, address));
    this.#count({ addresses: 1, sizeBytes: body.size });
  }

  #addKeyRecord(record: OpenedRecord, index: number, current: Head | undefined): void {
    const { version, kind, body, chainId } = record;
    this.#addVersion(record, { version, at: this.#entry.at, type: 'object', keptFrom: 1, index });
    this.#addUse(record.cid, kind, chainId.slice(chainId.indexOf('/') + 1), version);
    if (body.kind === 'envelope') this.#moveEnvelope(body, current);
    if (body.kind === 'envelope' || body.kind === 'branch-key') this.#moveWraps(chainId, body, current);
    if (body.kind === 'kek' && body.provider === 'tdec')
      this.rows.set(groupKeyRow(body.cg), new Uint8Array(body.frostPk));
    if (isForCustodians(body)) this.#set(rowKey('cust', this.#entry.revision, index));
    if (kind === 'policy' || kind === 'revocation' || kind === 'certificate') this.#count({ custody: 1 });
    if (current !== undefined) return;
    if (kind === 'envelope') this.#count({ envelopes: 1 });
    if (kind === 'branch-key') this.#count({ branchKeys: 1 });
    if (kind === 'kek') this.#count({ keks: 1 });
  }

  #moveEnvelope(body: EnvelopeBody, current: Head | undefined): void {
    const objId = toHex(body.objId);
    const previous = current === undefined ? undefined : trustedBody(current.bytes);
    if (previous?.kind === 'envelope' && previous.mode === 'branch')
      this.rows.set(rowKey('bkob', toHex(previous.bkId), objId), null);
    if (body.mode === 'branch') this.#set(rowKey('bkob', toHex(body.bkId), objId));
  }

  /** Which versions of a custody group's key the current record needs: what a rotation goes by. */
  #moveWraps(chainId: string, body: EnvelopeBody | BranchKeyBody, current: Head | undefined): void {
    const previous = current === undefined ? undefined : trustedBody(current.bytes);
    if (previous?.kind === 'envelope' || previous?.kind === 'branch-key')
      for (const version of wrappedUnder(previous)) this.rows.set(rowKey('wrap', version, chainId), null);
    for (const version of wrappedUnder(body)) this.#set(rowKey('wrap', version, chainId));
  }

  #addVersion(
    { chainId, cid, bytes }: OpenedRecord,
    place: Pick<Pointer, 'version' | 'at' | 'type' | 'keptFrom' | 'index'>,
  ): void {
    const pointer = { ...place, revision: this.#entry.revision, cid };
    this.rows.set(rowKey('vers', chainId, place.version), encodePointer(pointer));
    this.rows.set(rowKey('head', chainId), encodePointer(pointer, bytes));
  }

  #addUse(cid: CID, as: string, id: string, version: number): void {
    this.#set(rowKey('cid', cid.toString(), as, id, version));
  }

  #set(key: string): void {
    this.rows.set(key, new Uint8Array());
  }

  #head(chainId: string): Head | undefined {
    const row = this.#row(rowKey('head', chainId));
    return row === undefined ? undefined : decodeHead(row);
  }

  #row(key: string): Uint8Array | undefined {
    const own = this.rows.get(key);
    return own === undefined ? this.#read(key) : (own ?? undefined);
  }

  #count(change: Partial<RegistryCounts>): void {
    const add = (name: keyof RegistryCounts): number => this.counts[name] + (change[name] ?? 0);
    this.counts = {
      entries: add('entries'),
      rejected: add('rejected'),
      addresses: add('addresses'),
      removed: add('removed'),
      versions: add('versions'),
      sizeBytes: add('sizeBytes'),
      envelopes: add('envelopes'),
      branchKeys: add('branchKeys'),
      keks: add('keks'),
      custody: add('custody'),
      missing: add('missing'),
    };
  }
}

/** `path␀project␀task␀path␀agent␀role` of a canonical address. */
function pathKey(address: string): string {
  const [, agent = '', role = '', project = '', task = '', path = ''] = keyShape.exec(address) ?? [];
  return rowKey('path', project, task, path, agent, role);
}

/** The canonical address that a path key stands for. */
export function addressOfPathKey(key: string): string {
  const [, project, task, path, agent, role] = key.split('\0');
  return `ucxl://${agent}:${role}@${project}:${task}/*^/${path}`;
}

const keyShape = /^ucxl:\/\/([^:]+):([^@]+)@([^:]+):([^/]+)\/\*\^\/(.*)$/su;

function versionRejection(chainId: string, current: Head | undefined, problem: string): Rejection {
  return { cause: 'version', reason: `${chainId}: ${problem}`, current: current?.version ?? 0 };
}

function textOf(cid: CID | null | undefined): string {
  return cid?.toString() ?? 'nothing';
}

function sameLink(a: CID | null, b: CID | null): boolean {
  if (a === null || b === null) return a === b;
  return asBuffer(a.bytes).equals(b.bytes);
}
