// The registry from nothing but the record blocks found in the block stores.
//
// Blocks come in any order, twice, or damaged. They are sorted on disk (a scratch Kv), then each chain of
// versions is walked from its start. Where two blocks claim the same version (the loser of a race leaves its
// block behind), the one that the longest chain goes through wins, then the older, then the smaller CID: everybody
// rebuilds the same. Versions that nobody has are reported and written down as missing; later ones are kept.

import { CID } from '../core/block.ts';
import { mapInOrder } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import { parseInstant } from '../ucxl/temporal.ts';
import { missingVersionsMax, rebuildPrefix } from './fold.ts';
import { type Kv, prefixRange } from './kv.ts';
import { type Append, type BeaconLog, expectAny } from './log.ts';
import { type OpenedRecord, openRegistryRecord, recordKey, registryRecordOrUndefined } from './records.ts';
import { partNumber, rowKey } from './rows.ts';

export interface RebuildReport {
  /** Blocks looked at. */
  readonly blocks: number;
  /** Blocks that are no valid record. */
  readonly invalid: number;
  /** Records put into the log. */
  readonly records: number;
  /** Records not chosen, because another one claims the same version. First 1,000. */
  readonly forks: readonly { readonly chain: string; readonly version: number; readonly cid: CID }[];
  /** Versions that some later version proves and no block holds. First 1,000. */
  readonly missing: readonly { readonly chain: string; readonly version: number }[];
}

export interface RebuildPorts {
  /** Every block that may be a record: `isRecordBytes` of the manifest room sorts out most others. */
  readonly blocks: AsyncIterable<Uint8Array>;
  /** Where the registry is rebuilt. Must be empty, and durable. */
  readonly log: BeaconLog;
  /** Room to sort in: all records go through it. Must be empty; the caller removes it afterwards. */
  readonly scratch: Kv;
  readonly signal?: AbortSignal;
}

/** Throws VERSION_CONFLICT when the log is not empty, or somebody else appended meanwhile. */
export async function rebuildBeacon(ports: RebuildPorts): Promise<RebuildReport> {
  const { revision } = await ports.log.head();
  if (revision > 0) throw notEmpty(revision);
  const { blocks, invalid } = await sortInto(ports.scratch, ports.blocks, ports.signal);
  const report = { blocks, invalid, records: 0, forks: [], missing: [] } satisfies RebuildReport;
  const found = new Findings();
  const together = withBirths(orderedRecords(ports.scratch, found), ports.scratch);
  const appended = mapInOrder(together, appendsUnderWay, async (records) => {
    ports.signal?.throwIfAborted();
    await ports.log.append(appendOf(records));
    return records.length;
  });
  let [entries, records] = [0, 0];
  for await (const count of appended) {
    entries++;
    records += count;
  }
  if ((await ports.log.head()).revision !== entries)
    throw new HoldfastError('VERSION_CONFLICT', 'somebody else rebuilds the Beacon into the same log');
  return { ...report, records, forks: found.forks, missing: found.missing };
}

/** Appends under way at once: they share syncs, and take effect in the order of the calls. */
const appendsUnderWay = 64;
const listedMax = 1000;
const sortedPerWrite = 256;
/** Keys before what they open: an object is never registered without its envelope when that was found. */
const kindsInOrder = ['kek/', 'pol/', 'rev/', 'cert/', 'bk/', 'env/', 'addr/'];

class Findings {
  readonly forks: { chain: string; version: number; cid: CID }[] = [];
  readonly missing: { chain: string; version: number }[] = [];

  addFork(record: Candidate): void {
    const { chainId: chain, version, cid } = record;
    if (this.forks.length < listedMax) this.forks.push({ chain, version, cid });
  }

  addMissing(chain: string, from: number, to: number): void {
    for (let version = from; version < to && this.missing.length < listedMax; version++) {
      this.missing.push({ chain, version });
    }
  }
}

async function sortInto(
  scratch: Kv,
  blocks: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<{ readonly blocks: number; readonly invalid: number }> {
  const counts = { blocks: 0, invalid: 0 };
  let batch = new Map<string, Uint8Array>();
  for await (const bytes of blocks) {
    signal?.throwIfAborted();
    counts.blocks++;
    const record = registryRecordOrUndefined(bytes);
    if (record === undefined) counts.invalid++;
    else batch.set(rowKey(record.chainId, record.version, record.cid.toString()), bytes);
    if (batch.size < sortedPerWrite) continue;
    await scratch.write(batch);
    batch = new Map();
  }
  await scratch.write(batch);
  return counts;
}

/** What is needed of a record to choose: its bytes stay on disk. */
interface Candidate {
  readonly chainId: string;
  readonly version: number;
  readonly cid: CID;
  readonly prev: CID | null;
  readonly at: number;
}

async function* orderedRecords(scratch: Kv, found: Findings): AsyncGenerator<OpenedRecord> {
  for (const kind of kindsInOrder) {
    for await (const chain of chainsOf(scratch, kind)) {
      for (const { chainId, version, cid } of chooseVersions(chain, found)) {
        const bytes = await scratch.get(rowKey(chainId, version, cid.toString()));
        if (bytes !== undefined) yield openRegistryRecord(bytes);
      }
    }
  }
}

/**
 * The same records, those that belong into one entry together: the first key of a custody group comes with the
 * certificate of its birth, or no registry would take it (entitled.ts) when this log is moved there.
 */
async function* withBirths(
  records: AsyncIterable<OpenedRecord>,
  scratch: Kv,
): AsyncGenerator<readonly [OpenedRecord, ...OpenedRecord[]]> {
  const brought = new Set<string>();
  for await (const record of records) {
    if (brought.has(record.cid.toString())) continue;
    const { body } = record;
    const isFirst = body.kind === 'kek' && body.provider === 'tdec' && body.ver === 1 && body.seq === 1;
    const birth = isFirst ? await birthOf(body.cg, scratch) : undefined;
    if (birth !== undefined) brought.add(birth.cid.toString());
    yield birth === undefined ? [record] : [record, birth];
  }
}

/** The first certificate about the first version of a group's key, where one was found. */
async function birthOf(cg: string, scratch: Kv): Promise<OpenedRecord | undefined> {
  for await (const chain of chainsOf(scratch, `cert/${cg}/1\0`)) {
    const [first] = chooseVersions(chain, new Findings());
    if (first?.version !== 1) return undefined;
    const bytes = await scratch.get(rowKey(first.chainId, first.version, first.cid.toString()));
    return bytes === undefined ? undefined : openRegistryRecord(bytes);
  }
  return undefined;
}

/** The candidates of one chain after the other, versions ascending. */
async function* chainsOf(scratch: Kv, kind: string): AsyncGenerator<Candidate[]> {
  let chain: Candidate[] = [];
  for await (const [key, bytes] of scratch.range(prefixRange(kind))) {
    const candidate = candidateOf(key, bytes);
    if (chain[0] !== undefined && chain[0].chainId !== candidate.chainId) {
      yield chain;
      chain = [];
    }
    chain.push(candidate);
  }
  if (chain.length > 0) yield chain;
}

function candidateOf(key: string, bytes: Uint8Array): Candidate {
  const [chainId = '', version, cid = ''] = key.split('\0');
  const { body } = openRegistryRecord(bytes);
  const at = body.kind === 'manifest' ? (parseInstant(body.generated_at) ?? 0) : 0;
  return { chainId, version: partNumber(version), cid: CID.parse(cid), prev: body.prev, at };
}

/** One candidate per version, backwards from the end that the longest unbroken chain leads to. */
function chooseVersions(chain: readonly Candidate[], found: Findings): Candidate[] {
  const lengths = chainLengths(chain);
  const byLength = (candidate: Candidate): number => lengths.get(candidate.cid.toString()) ?? 0;
  const chosen: Candidate[] = [];
  for (const rivals of byVersion(chain).toReversed()) {
    const wanted = chosen.at(-1);
    const linked = rivals.find(({ cid }) => wanted?.prev?.equals(cid) === true);
    const best = linked ?? bestOf(rivals, byLength);
    // A later version that follows another one than these: what it followed is lost, and these lost the race.
    if (
      wanted !== undefined &&
      linked === undefined &&
      best !== undefined &&
      wanted.version === best.version + 1
    ) {
      for (const rival of rivals) found.addFork(rival);
      continue;
    }
    if (best !== undefined) chosen.push(best);
    for (const rival of rivals) if (rival !== best) found.addFork(rival);
  }
  const ascending = chosen.toReversed();
  let next = 1;
  for (const { chainId, version } of ascending) {
    found.addMissing(chainId, next, version);
    next = version + 1;
  }
  return ascending.length > 0 && largestGap(ascending) <= missingVersionsMax ? ascending : [];
}

function largestGap(ascending: readonly Candidate[]): number {
  return Math.max(
    ...ascending.map(({ version }, index) => version - (ascending[index - 1]?.version ?? 0) - 1),
  );
}

/** How many versions lead to each candidate without a break, itself included. */
function chainLengths(chain: readonly Candidate[]): ReadonlyMap<string, number> {
  const lengths = new Map<string, number>();
  for (const { cid, prev } of chain) {
    lengths.set(cid.toString(), 1 + (prev === null ? 0 : (lengths.get(prev.toString()) ?? 0)));
  }
  return lengths;
}

function byVersion(chain: readonly Candidate[]): Candidate[][] {
  const groups: Candidate[][] = [];
  for (const candidate of chain) {
    const last = groups.at(-1);
    if (last?.[0]?.version === candidate.version) last.push(candidate);
    else groups.push([candidate]);
  }
  return groups;
}

function bestOf(
  rivals: readonly Candidate[],
  lengthOf: (candidate: Candidate) => number,
): Candidate | undefined {
  const order = (a: Candidate, b: Candidate): number =>
    lengthOf(b) - lengthOf(a) || a.at - b.at || (a.cid.toString() < b.cid.toString() ? -1 : 1);
  return rivals.toSorted(order)[0];
}

function appendOf([first, ...more]: readonly [OpenedRecord, ...OpenedRecord[]]): Append {
  const { body } = first;
  const at = body.kind === 'manifest' ? Math.max(0, parseInstant(body.generated_at) ?? 0) : 0;
  const records = [first, ...more].map((record) => ({ key: recordKey(record.body), bytes: record.bytes }));
  return { subject: `${rebuildPrefix}${recordKey(body)}`, expected: expectAny, records, at };
}

function notEmpty(revision: number): HoldfastError {
  return new HoldfastError(
    'VERSION_CONFLICT',
    `the log to rebuild into holds ${revision} entries: an empty one is needed`,
    {
      details: { subject: 'log', expected: 0, current: revision },
    },
  );
}
