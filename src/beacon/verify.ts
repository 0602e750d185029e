// `beacon verify`: do log, view and blocks agree?
//
// The log is read whole, which checks every checksum and the chain; it is folded anew into scratch; the scratch
// and the view, as it was when this began, are then compared row by row; the key records of what must be kept are looked
// up in the view, and every record and content root among the blocks. Writers go on meanwhile.

import type { CID } from '../core/block.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { type Kv, type KvRow, startedRows } from './kv.ts';
import type { BeaconLog, LogEntry, LogPosition } from './log.ts';
import type { RegistryCounts } from './queries.ts';
import { BeaconView } from './view.ts';
import { compareKeys } from './view-memory.ts';

export interface VerifyPorts {
  /** The log to trust. Absent: the view is checked against its own copy of the log. */
  readonly log?: BeaconLog;
  readonly view: BeaconView;
  /** An empty Kv for the second fold; the caller closes and removes it. */
  readonly scratch: Kv;
  /** Whether a block is held anywhere. Absent: blocks are not looked up. */
  readonly hasBlock?: (cid: CID) => Promise<boolean>;
  readonly onProgress?: (entries: number) => void;
  readonly signal?: AbortSignal;
}

export interface VerifyReport {
  readonly ok: boolean;
  readonly revision: number;
  /** Hex. */
  readonly chain: string;
  readonly counts: RegistryCounts;
  readonly rows: number;
  readonly blocks: number;
  /** What is wrong, in words; the first 1,000. */
  readonly problems: readonly string[];
}

/** Never throws for what it looks for: that is in the report. */
export async function verifyBeacon(ports: VerifyPorts): Promise<VerifyReport> {
  const problems = new Problems();
  const { position: target, counts, rows: present } = await momentOf(ports.view);
  await using again = await BeaconView.open(borrowed(ports.scratch));
  await refold(again, ports, target, problems);
  const { revision, chain } = again.position();
  if (revision !== target.revision || !sameBytes(chain, target.chain)) {
    problems.add(
      `the log leads to revision ${revision} (${toHex(chain)}), the view stands at ${target.revision} (${toHex(target.chain)})`,
    );
  }
  const rows = await compareRows(present, again.rows(), problems);
  await checkKeys(ports, problems);
  const blocks = await checkBlocks(ports, problems);
  return {
    ok: problems.list.length === 0,
    revision,
    chain: toHex(chain),
    counts,
    rows,
    blocks,
    problems: problems.list,
  };
}

export class Problems {
  readonly list: string[] = [];

  add(problem: string): void {
    if (this.list.length < 1000) this.list.push(problem);
  }
}

/** Where the view stands, and its rows of that moment, whatever is folded in while they are read. */
async function momentOf(view: BeaconView) {
  return view.standingStill(async () => {
    const { first, rows } = startedRows(view.rows());
    await first.catch(() => undefined); // the comparison meets it
    return { position: view.position(), counts: view.counts(), rows };
  });
}

async function refold(
  again: BeaconView,
  { log, view, signal, onProgress }: VerifyPorts,
  target: LogPosition,
  problems: Problems,
): Promise<void> {
  const options = signal === undefined ? {} : { signal };
  const entries = log === undefined ? view.entriesSince(1, options) : log.read(1, options);
  try {
    for await (const group of upTo(entries, target.revision)) {
      await again.apply(group);
      onProgress?.(again.position().revision);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (!isHoldfastError(error)) throw error;
    problems.add(`the log after revision ${again.position().revision}: ${error.message}`);
  }
}

/** Entries up to `last` in groups that share one write. */
async function* upTo(entries: AsyncIterable<LogEntry>, last: number): AsyncGenerator<LogEntry[]> {
  let group: LogEntry[] = [];
  for await (const entry of entries) {
    if (entry.revision > last) break;
    group.push(entry);
    if (group.length < 256) continue;
    yield group;
    group = [];
  }
  if (group.length > 0) yield group;
}

/** Walks both in key order. Returns how many rows the view has. */
export async function compareRows(
  actual: AsyncIterable<KvRow>,
  expected: AsyncIterable<KvRow>,
  problems: Problems,
): Promise<number> {
  await using left = new Cursor(actual);
  await using right = new Cursor(expected);
  let count = 0;
  try {
    await left.step();
    await right.step();
    while (left.row !== undefined || right.row !== undefined) {
      const order = orderOf(left.row, right.row);
      if (order < 0) problems.add(`row ${shown(left.row)} should not be there`);
      else if (order > 0) problems.add(`row ${shown(right.row)} is missing`);
      else if (!sameValue(left.row, right.row)) problems.add(`row ${shown(left.row)} differs`);
      if (order <= 0) {
        count++;
        await left.step();
      }
      if (order >= 0) await right.step();
    }
  } catch (error) {
    if (!isHoldfastError(error)) throw error;
    problems.add(`the view after ${count} rows: ${error.message}`);
  }
  return count;
}

class Cursor implements AsyncDisposable {
  readonly #rows: AsyncIterator<KvRow>;
  row: KvRow | undefined;

  constructor(rows: AsyncIterable<KvRow>) {
    this.#rows = rows[Symbol.asyncIterator]();
  }

  async step(): Promise<void> {
    const result = await this.#rows.next();
    this.row = result.done === true ? undefined : result.value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#rows.return?.();
  }
}

function orderOf(left: KvRow | undefined, right: KvRow | undefined): number {
  if (left === undefined) return 1;
  return right === undefined ? -1 : compareKeys(left[0], right[0]);
}

function sameValue(left: KvRow | undefined, right: KvRow | undefined): boolean {
  return left !== undefined && right !== undefined && sameBytes(left[1], right[1]);
}

function shown(row: KvRow | undefined): string {
  return JSON.stringify(row?.[0].replaceAll('\0', ' ').slice(0, 200) ?? '');
}

/** What must be kept must be openable: its envelope is registered, and the branch key that the envelope names. */
async function checkKeys({ view, signal }: VerifyPorts, problems: Problems): Promise<void> {
  try {
    for await (const entry of view.catalogue(signal === undefined ? {} : { signal })) {
      const { encryption } = entry.manifest;
      if (!entry.retained || encryption === null) continue;
      const problem = await keyProblem(view, encryption.objId);
      if (problem !== undefined) problems.add(`${entry.address} version ${entry.version}: ${problem}`);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (!isHoldfastError(error)) throw error;
    problems.add(`the key records: ${error.message}`);
  }
}

async function keyProblem(view: BeaconView, objId: Uint8Array): Promise<string | undefined> {
  const envelope = await view.envelope(objId);
  if (envelope === undefined) return 'its envelope is not registered';
  const { body } = envelope.record;
  if (body.mode !== 'branch' || (await view.branchKey(body.bkId, body.bkVer)) !== undefined) return undefined;
  return `branch key ${toHex(body.bkId)} version ${body.bkVer} is not registered`;
}

async function checkBlocks({ view, hasBlock, signal }: VerifyPorts, problems: Problems): Promise<number> {
  if (hasBlock === undefined) return 0;
  let count = 0;
  try {
    for await (const entry of view.catalogue(signal === undefined ? {} : { signal })) {
      const content = entry.retained && entry.manifest.cid !== null ? [entry.manifest.cid] : [];
      for (const cid of [...entry.records, ...content]) {
        count++;
        if (!(await hasBlock(cid)))
          problems.add(`${entry.address} version ${entry.version}: no node holds ${cid.toString()}`);
      }
    }
    for await (const cid of view.custodyBlocks()) {
      count++;
      if (!(await hasBlock(cid))) problems.add(`custody's records: no node holds ${cid.toString()}`);
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (!isHoldfastError(error)) throw error;
    problems.add(`the catalogue: ${error.message}`);
  }
  return count;
}

/** `kv` without its end: the scratch belongs to the caller. */
function borrowed(kv: Kv): Kv {
  return {
    get: (key) => kv.get(key),
    getMany: (keys) => kv.getMany(keys),
    range: (range) => kv.range(range),
    write: (changes) => kv.write(changes),
    [Symbol.asyncDispose]: async () => undefined,
  };
}
