// A drill: do the shares in the safe open what they are kept for? For each version of the key that opens wraps a
// canary is made, every export is tried alone in a process of its own (cold-share.ts), and t partials are combined.
// No two shares meet, and nothing but canaries is opened.

import { sameBytes, toHex } from '../core/bytes.ts';
import { describeError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { encodeLabel } from '../envelope/label.ts';
import { commitmentOf, matchesCommitment } from '../envelope/wrap.ts';
import { verifyDleq } from '../threshold/dleq.ts';
import type { HashGroup, RandomBytes } from '../threshold/group.ts';
import { branchKeyOf, combine, encrypt, type Partial } from '../threshold/tdh2.ts';
import {
  coldContext,
  type ColdOpening,
  type ColdPartials,
  type ColdTask,
  type OpenedColdShare,
} from './cold-share.ts';
import { canaryProject } from './scope.ts';
import { readShareHead, type ShareAge, shareAge, type ShareHead } from './share-export.ts';

/** An export and where it was found. */
export interface FoundExport {
  /** For people: a file. */
  readonly from: string;
  readonly message: Uint8Array;
}

/** Opens one export in a process of its own, which ends when it is disposed of. Throws what is wrong with the export. */
export type OpenExport = (found: FoundExport, opening: ColdOpening) => Promise<OpenedColdShare>;

export interface DrilledExport {
  readonly from: string;
  /** Name of the custodian; its key in hex where it has no seat now. */
  readonly custodian: string;
  readonly version: number;
  readonly generation: number;
  readonly age: ShareAge;
  /** Opened, fits the group's record, gave a partial decryption with a proof. */
  readonly good: boolean;
  /** What was wrong and what would be right; else that all is well. */
  readonly text: string;
}

export interface DrilledVersion {
  readonly version: number;
  readonly state: string;
  /** The present generation. */
  readonly generation: number;
  readonly needed: number;
  readonly opened: boolean;
  readonly text: string;
  readonly exports: readonly DrilledExport[];
}

export interface DrillReport {
  readonly group: string;
  readonly versions: readonly DrilledVersion[];
  /** Exports that are of no version that opens wraps. */
  readonly others: readonly DrilledExport[];
}

export interface DrillOptions {
  readonly cg: string;
  /** Versions that open wraps, as the group has signed them. */
  readonly versions: readonly TdecKek[];
  readonly exports: readonly FoundExport[];
  /** Name of a custodian by its peer id. */
  readonly nameOf: (peer: string) => string;
  /** Opens one export in a process of its own. Throws what is wrong with it. */
  readonly open: OpenExport;
  /** Default: libsodium's ristretto255. */
  readonly group?: () => Promise<HashGroup>;
  readonly random: RandomBytes;
  readonly beat: number;
}

/** Never throws for what is wrong with an export: the report says it. Throws RECORD_INVALID for a file that is none. */
export async function drill(options: DrillOptions): Promise<DrillReport> {
  const { cg, versions, exports } = options;
  const group = await groupOf(options);
  const heads = exports.map((found) => ({ found, head: readShareHead(found.message) }));
  const known = new Set(versions.map(({ ver }) => ver));
  const isOurs = ({ head }: { readonly head: ShareHead }): boolean =>
    head.cg === cg && known.has(head.kekVer);
  const drilled: DrilledVersion[] = [];
  for (const kek of versions)
    drilled.push(
      await drillVersion(
        { ...options, group },
        kek,
        heads.filter((each) => isOurs(each) && each.head.kekVer === kek.ver),
      ),
    );
  const others = heads
    .filter((each) => !isOurs(each))
    .map(({ found, head }) => ({
      ...aboutExport(found, head, undefined, options),
      age: 'stale' as const,
      text:
        head.cg === cg
          ? `version ${head.kekVer} of the key opens nothing any more, or not yet: destroy it, or keep it for later`
          : `it is of group ${head.cg}; this is ${cg}`,
    }));
  return { group: cg, versions: drilled, others };
}

/** 0: all opened and every export is good. 1: all opened, some exports are to be made anew. 5: not opened. */
export function drillExit({ versions, others }: DrillReport): 0 | 1 | 5 {
  if (versions.length === 0 || versions.some(({ opened }) => !opened)) return 5;
  const all = [...others, ...versions.flatMap(({ exports }) => exports)];
  return all.every(({ good }) => good) ? 0 : 1;
}

export async function groupOf({ group }: Pick<DrillOptions, 'group'>): Promise<HashGroup> {
  if (group !== undefined) return group();
  const { loadRistretto } = await import('../threshold/group-sodium.ts');
  return loadRistretto();
}

/** With the group at hand. */
type Drill = Omit<DrillOptions, 'group'> & { readonly group: HashGroup };

interface HeadedExport {
  readonly found: FoundExport;
  readonly head: ShareHead;
}

async function drillVersion(
  options: Drill,
  kek: TdecKek,
  exports: readonly HeadedExport[],
): Promise<DrilledVersion> {
  const canary = hatch(options, kek);
  const partials: Partial[] = [];
  const drilled: DrilledExport[] = [];
  for (const { found, head } of exports) {
    const about = aboutExport(found, head, kek, options);
    const problem =
      misfit(head, kek, partials) ?? (await tryOne(options, kek, canary, found, head, partials));
    drilled.push({ ...about, good: problem === undefined, text: problem ?? 'opened, and fits the record' });
  }
  const { ver: version, state, shareGen: generation, t: needed } = kek;
  const opened = partials.length >= needed && combined(options.group, canary, partials.slice(0, needed));
  return { version, state, generation, needed, opened, text: verdict(), exports: drilled };

  function verdict(): string {
    if (opened)
      return `${needed} of ${partials.length} good exports opened a canary, and it matched its commitment`;
    if (partials.length >= needed) return 'the canary that came back is another one than was sealed';
    const rest = needed - partials.length;
    return `${partials.length} good exports, and ${needed} are needed: have ${rest} more custodians take out their shares of generation ${generation} (\`holdfast custody export NAME\`)`;
  }
}

interface Canary {
  readonly drill: Uint8Array;
  readonly label: Uint8Array;
  readonly wrap: ReturnType<typeof encrypt>['wrap'];
  readonly bkId: Uint8Array;
  readonly commit: Uint8Array;
}

function hatch({ group, random, beat }: Drill, { cg, ver, Y, policyRoot }: TdecKek): Canary {
  const bkId = random(16);
  const scope = {
    project: canaryProject,
    cls: 'internal',
    writer: random(32),
    window: [beat, beat],
  } as const;
  const label = encodeLabel({ v: 1, cg, kekVer: ver, ...scope, bkId, bkVer: 1, policy: policyRoot });
  const { wrap, element } = encrypt(group, Y, label, random);
  const branchKey = branchKeyOf(element, bkId, 1);
  const commit = commitmentOf(branchKey);
  element.fill(0);
  branchKey.fill(0);
  return { drill: random(32), label, wrap, bkId, commit };
}

/** Why an export cannot serve, and what would be right; undefined when it may. */
export function misfit(
  head: ShareHead,
  kek: TdecKek,
  used: readonly Pick<Partial, 'index'>[],
): string | undefined {
  const { shareGen: now, custodians } = kek;
  const again = `have it taken out again (\`holdfast custody export NAME\` at that custodian), and destroy this one`;
  switch (shareAge(head.shareGen, now)) {
    case 'ahead':
      return `generation ${head.shareGen} is newer than ${now}, the newest that the registry shows: is this the right cluster?`;
    case 'behind':
    case 'stale':
      return `generation ${head.shareGen} is past: the group is at ${now}, and shares of two generations do not fit together; ${again}`;
    default:
  }
  const seat = custodians.find(({ sigPk }) => sameBytes(sigPk, head.by));
  if (seat === undefined || seat.i !== head.i) return `who made it holds no share ${head.i} of this key now`;
  return used.some(({ index }) => index === head.i)
    ? 'the share of this custodian is here already'
    : undefined;
}

/** Adds its partial to `partials`, or says what is wrong. */
async function tryOne(
  options: Drill,
  kek: TdecKek,
  { drill: nonce, label, wrap }: Canary,
  found: FoundExport,
  { i, by }: ShareHead,
  partials: Partial[],
): Promise<string | undefined> {
  const { message } = found;
  const task = { nonce, items: [{ label, wrap }] };
  let cold: ColdPartials;
  try {
    await using share = await options.open(found, { purpose: 'drill', message, by, Y: kek.Y });
    cold = await share.use(task);
  } catch (error) {
    return describeError(error);
  }
  const problem = falsehood(options.group, kek, i, task, cold);
  const [D] = cold.D;
  if (problem === undefined && D !== undefined) partials.push({ index: i, D });
  return problem;
}

/** Why what came back is not of the share `i` that the group has signed for; undefined when it is. */
export function falsehood(
  group: HashGroup,
  kek: TdecKek,
  i: number,
  task: ColdTask,
  { D, proof, frost }: ColdPartials,
): string | undefined {
  const C = task.items.map(({ wrap }) => wrap.U);
  const [B, signing] = [kek.Yi[i - 1], kek.frostYi[i - 1]];
  const statement = { context: coldContext(task), B: B ?? kek.Y, C, D };
  if (D.length !== C.length || !verifyDleq(group, statement, proof))
    return 'its share is not the one that the group has signed a verification share for';
  return signing === undefined || !sameBytes(signing, frost)
    ? 'its share of the signing key is not the one that the group has signed a verification share for'
    : undefined;
}

function combined(group: HashGroup, { wrap, bkId, commit }: Canary, partials: readonly Partial[]): boolean {
  const element = combine(group, wrap.V, partials);
  const branchKey = branchKeyOf(element, bkId, 1);
  const fits = matchesCommitment(branchKey, commit);
  element.fill(0);
  branchKey.fill(0);
  return fits;
}

function aboutExport(
  { from }: FoundExport,
  { by, kekVer, shareGen }: ShareHead,
  kek: TdecKek | undefined,
  { nameOf }: Pick<DrillOptions, 'nameOf'>,
): Omit<DrilledExport, 'text'> {
  const seat = kek?.custodians.find(({ sigPk }) => sameBytes(sigPk, by));
  return {
    from,
    custodian: seat === undefined ? toHex(by) : nameOf(seat.peer),
    version: kekVer,
    generation: shareGen,
    age: kek === undefined ? 'stale' : shareAge(shareGen, kek.shareGen),
    good: false,
  };
}
