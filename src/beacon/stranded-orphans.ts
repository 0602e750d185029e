// What may become of valid records that no registry holds.
//
// A record may be adopted when it continues what is registered: the next version of its chain, naming the current one
// as `prev`, or following such a one. Of several such lines the longest is taken, then the older, then the smaller
// CID, as a rebuild would. An object must be complete besides: its envelope registered or found, its blocks held. Keys
// follow what they open: adopted for an object that is registered or adopted, left beside one that is left, else
// garbage. Two things are never adopted: a removal, because nobody was told that it is done, and records of custody,
// which ceremonies alone file. What lost a race may be collected; what only a rebuild could take in is left.

import { CID } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { parseLabel } from '../envelope/label.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import { indexBlocks, segmentsOf } from '../manifest/segments.ts';
import { parseInstant } from '../ucxl/temporal.ts';
import type { StrandedRows } from './stranded-rows.ts';
import { type AnyBody, openRegistryRecord } from './records.ts';
import { partNumber } from './rows.ts';
import type { BeaconView } from './view.ts';

export interface OrphanPorts {
  readonly rows: StrandedRows;
  readonly view: BeaconView;
  /** Throws when no node gives it. */
  readonly load: (cid: CID) => Promise<Uint8Array>;
}

export interface Orphan {
  readonly chain: string;
  readonly version: number;
  readonly cid: CID;
  /** Kinds in the order in which they are adopted: keys before what they open. */
  readonly order: number;
  readonly fate: 'adopt' | 'collect' | 'leave';
  /** Why, in words. */
  readonly reason: string;
}

interface Candidate {
  readonly version: number;
  readonly cid: CID;
  readonly prev: CID | null;
  readonly at: number;
  readonly body: AnyBody;
}

/** In this order they are adopted: keys before what they open. They are judged the other way round. */
const kinds = ['kek/', 'pol/', 'rev/', 'cert/', 'bk/', 'env/', 'addr/'];
/** Orphans of one chain that are looked at: they are held in memory together. */
const chainOrphansMax = 4096;

export async function* judgeOrphans(ports: OrphanPorts): AsyncGenerator<Orphan> {
  for (const [order, prefix] of [...kinds.entries()].toReversed()) {
    for await (const [chain, candidates] of chainsOf(ports.rows, prefix)) {
      for (const judged of await judgeChain(ports, chain, candidates)) yield { ...judged, chain, order };
    }
    await ports.rows.flush(); // the next kind asks for what this one needs
  }
}

async function* chainsOf(rows: StrandedRows, prefix: string): AsyncGenerator<[string, Candidate[]]> {
  let chain = '';
  let candidates: Candidate[] = [];
  for await (const { parts, value } of rows.orphans(prefix)) {
    const [name = '', version, cid = ''] = parts;
    if (name !== chain && candidates.length > 0) yield [chain, candidates];
    if (name !== chain) candidates = [];
    chain = name;
    if (candidates.length >= chainOrphansMax) continue;
    const { body } = openRegistryRecord(value);
    const at = body.kind === 'manifest' ? (parseInstant(body.generated_at) ?? 0) : 0;
    candidates.push({ version: partNumber(version), cid: CID.parse(cid), prev: body.prev, at, body });
  }
  if (candidates.length > 0) yield [chain, candidates];
}

type Judged = Omit<Orphan, 'chain' | 'order'>;
type Fate = Pick<Judged, 'fate' | 'reason'>;

async function judgeChain(
  ports: OrphanPorts,
  chain: string,
  candidates: readonly Candidate[],
): Promise<Judged[]> {
  const head = await ports.view.chainVersion(chain);
  const line = longestLine(candidates, head?.version ?? 0, head?.cid ?? null);
  const judged: Judged[] = [];
  let broken: Fate | undefined;
  for (const candidate of candidates) {
    const { version, cid } = candidate;
    const inLine = line.has(candidate);
    const fate = inLine
      ? (broken ?? (await fateInLine(ports, candidate)))
      : await besideTheLine(ports, chain, candidate, head?.version ?? 0);
    if (inLine && fate.fate !== 'adopt')
      broken ??= { fate: fate.fate, reason: `version ${version}, which comes first, cannot be adopted` };
    await need(ports, candidate, fate.fate);
    judged.push({ version, cid, ...fate });
  }
  return judged;
}

/** What a record that is adopted or left needs is adopted or left with it. */
async function need({ rows, load }: OrphanPorts, { body }: Candidate, fate: Fate['fate']): Promise<void> {
  if (fate === 'collect') return;
  const mark = (what: string): Promise<void> => rows.add('q', [what, fate], '');
  if (body.kind === 'envelope' && body.mode === 'branch') await mark(`bk/${toHex(body.bkId)}`);
  if (body.kind === 'branch-key')
    for (const { label } of body.wraps) await mark(`kek/${parseLabel(label).cg}`);
  if (body.kind !== 'manifest' || body.encryption === null || body.cid === null) return;
  await mark(`env/${toHex(body.encryption.objId)}`);
  const blocks = segmentsOf(body.encryption.ctLen) === 1 ? [body.cid] : indexBlocks(body.cid, load);
  try {
    for await (const cid of blocks) {
      await rows.add('p', [cid.toString()], '');
      if (fate === 'leave' && (await rows.isHeld(cid))) await rows.add('a', ['lease', cid.toString()], '');
    }
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error; // what lies under a lost index cannot be told from garbage
  }
}

/** Those that follow the registered head one after the other. Candidates come with rising versions. */
function longestLine(
  candidates: readonly Candidate[],
  headVersion: number,
  headCid: CID | null,
): ReadonlySet<Candidate> {
  const linked = new Map<string, Candidate>();
  for (const candidate of candidates) {
    const { version, prev, cid } = candidate;
    const isNext = version === headVersion + 1 && (prev === null ? headCid === null : headCid?.equals(prev));
    const follows = prev !== null && linked.get(prev.toString())?.version === version - 1;
    if (isNext === true || follows) linked.set(cid.toString(), candidate);
  }
  const [tip] = [...linked.values()].toSorted(
    (a, b) => b.version - a.version || a.at - b.at || (a.cid.toString() < b.cid.toString() ? -1 : 1),
  );
  const line = new Set<Candidate>();
  for (let at = tip; at !== undefined; at = at.prev === null ? undefined : linked.get(at.prev.toString()))
    line.add(at);
  return line;
}

async function besideTheLine(
  { view }: OrphanPorts,
  chain: string,
  { version }: Candidate,
  headVersion: number,
): Promise<Fate> {
  if (version > headVersion + 1)
    return { fate: 'leave', reason: `version ${version - 1} that it should follow is not there` };
  if (version === headVersion + 1)
    return { fate: 'leave', reason: `it does not follow version ${headVersion}, or another one does` };
  const there = await view.chainVersion(chain, version);
  if (there?.type === 'missing')
    return {
      fate: 'leave',
      reason: `version ${version} is written down as missing; \`holdfast beacon rebuild\` takes it in`,
    };
  return { fate: 'collect', reason: `another record is registered as version ${version}: this one lost` };
}

/** Of one that is the next of its chain. */
async function fateInLine(ports: OrphanPorts, { body }: Candidate): Promise<Fate> {
  if (body.kind === 'manifest') {
    const problem = await manifestProblem(ports, body);
    return problem === '' ? adopted : { fate: 'leave', reason: problem };
  }
  if (body.kind === 'envelope')
    return fateOfKey(ports, `env/${toHex(body.objId)}`, async () => {
      const { uses } = await ports.view.wrappedObject(body.objId);
      return uses.length > 0;
    });
  if (body.kind === 'branch-key')
    return fateOfKey(ports, `bk/${toHex(body.bkId)}`, async () => {
      const { items } = await ports.view.objectsOfBranchKey(body.bkId, { limit: 1 });
      return items.length > 0;
    });
  if (body.kind === 'kek' && body.provider !== 'tdec')
    return fateOfKey(ports, `kek/${body.cg}`, async () => (await ports.view.kek(body.cg)) !== undefined);
  return {
    fate: 'leave',
    reason: 'records of custody are filed by ceremonies; a rebuild takes in what is lost',
  };
}

const adopted: Fate = { fate: 'adopt', reason: 'valid, complete and not registered' };

async function fateOfKey(
  { rows }: OrphanPorts,
  what: string,
  isRegistered: () => Promise<boolean>,
): Promise<Fate> {
  if ((await isRegistered()) || (await rows.get('q', what, 'adopt')) !== undefined) return adopted;
  if ((await rows.get('q', what, 'leave')) !== undefined)
    return { fate: 'leave', reason: 'it belongs to an object that cannot be adopted' };
  return { fate: 'collect', reason: 'nothing that is registered, or could be, needs it' };
}

async function manifestProblem(ports: OrphanPorts, { encryption, cid }: ManifestBody): Promise<string> {
  if (encryption === null || cid === null)
    return 'a removal that was never registered was told to nobody as done';
  const { objId, ctLen } = encryption;
  const chain = `env/${toHex(objId)}`;
  if ((await ports.view.envelope(objId)) === undefined && !(await ports.rows.isOrphan(chain)))
    return `its envelope ${toHex(objId)} is neither registered nor found`;
  return contentProblem(ports, cid, segmentsOf(ctLen));
}

/** Why its content is not all there, else ''. */
async function contentProblem({ rows, load }: OrphanPorts, root: CID, segments: number): Promise<string> {
  const blocks = segments === 1 ? [root] : indexBlocks(root, load);
  try {
    for await (const cid of blocks)
      if (!(await rows.isHeld(cid))) return `no node holds its block ${cid.toString()}`;
  } catch (error) {
    if (error instanceof HoldfastError) return `its index cannot be read: ${describeError(error)}`;
    throw error;
  }
  return '';
}
