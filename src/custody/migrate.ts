// Moving branch keys from one provider to another, page by page, while everybody goes on reading.
//
//   1 add    unwrap by the old provider ─▶ match with the commitment ─▶ wrap by the new one ─▶ a newer record
//            with the wraps of both: readers of either provider are served
//   2 drop   when no record lacks the new wrap and no reader needs the old one: a newer record without the old
//            wraps, after the new provider has given the key back
//
// The key itself stays, so no envelope and no content changes. It is in the clear for a moment in the process that
// does this. That is what tells it from a blind switch between two versions of a threshold key, where nobody sees it.
//
// The new provider must be able to wrap a given key. Threshold custody is not: its keys come out of random group
// elements. Moving *to* it means new branch keys, and the DEKs under the old ones wrapped anew: rotation, not this.
//
// Idempotent by branch key and key version: a record that has a wrap under the new key is left alone, so a page can
// be done again after a crash. Compare-and-set decides between two who do it at once.

import type { CID } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import type { ErrorCode } from '../core/errors.ts';
import { HoldfastError } from '../core/errors.ts';
import { sameSecret } from '../core/hash.ts';
import { unwrapItemsMax } from '../core/limits.ts';
import { parseLabel } from '../envelope/label.ts';
import { type BkWrap, type BranchKeyBody, parseBranchKey } from '../envelope/records.ts';
import { matched } from './combined.ts';
import { legsOf } from './legs.ts';
import type { KekProvider, KeyWrapper, NewKeyScope, Unwrapped, UnwrapRequest } from './provider.ts';

/** The newest record of a live branch key. */
export interface StoredKey {
  readonly cid: CID;
  readonly body: BranchKeyBody;
}

export interface MigratePorts {
  /** Up to `limit` live keys after `cursor`, in an order that stays; `next` undefined at the end. */
  page(
    cursor: string | undefined,
    limit: number,
  ): Promise<{ keys: readonly StoredKey[]; next: string | undefined }>;
  /** Signs `body` and puts it in the place of `replaces`, unless somebody else was first. On disk when it resolves. */
  store(body: BranchKeyBody, replaces: CID): Promise<'stored' | 'conflict'>;
  /** Keeps where to go on after a restart. Called when everything before it is stored. */
  progress(state: MigrationState): Promise<void>;
}

export interface Migration {
  readonly from: KekProvider;
  readonly to: KekProvider & KeyWrapper;
  readonly step: 'add' | 'drop';
  /** With purpose `rewrap`. */
  readonly request: UnwrapRequest;
  /** Ed25519 key of who signs the new records. */
  readonly writer: Uint8Array;
  /** Keys at a time, 1…256. Default 64. */
  readonly pageKeys?: number;
}

/** How far it is. Starts with `newMigration`. */
export interface MigrationState {
  readonly cursor: string | undefined;
  readonly done: boolean;
  readonly moved: number;
  /** Were as wanted already, or never under the old provider. */
  readonly untouched: number;
  /** Somebody else changed them meanwhile: another run takes them up. */
  readonly conflicts: number;
  readonly failed: number;
  /** The first of the failures. */
  readonly failures: readonly MigrationFailure[];
}

export interface MigrationFailure {
  readonly bkId: string;
  readonly code: ErrorCode;
  readonly message: string;
}

const failuresKept = 100;

export const newMigration: MigrationState = {
  cursor: undefined,
  done: false,
  moved: 0,
  untouched: 0,
  conflicts: 0,
  failed: 0,
  failures: [],
};

/**
 * Does one page and returns the state after it, which is kept by then. A key that fails is counted and left as it
 * is; only when a provider fails altogether does the page: KEY_UNAVAILABLE, FORBIDDEN, TIMEOUT.
 */
export async function migratePage(
  migration: Migration,
  ports: MigratePorts,
  state: MigrationState,
): Promise<MigrationState> {
  const limit = Math.min(migration.pageKeys ?? 64, unwrapItemsMax);
  const { keys, next } = await ports.page(state.cursor, limit);
  const due = keys.filter(({ body }) => isDue(migration, body));
  const outcomes =
    due.length === 0 ? [] : await (migration.step === 'add' ? add : drop)(migration, ports, due);
  const failures = outcomes.filter((outcome) => typeof outcome === 'object');
  const after: MigrationState = {
    cursor: next,
    done: next === undefined,
    moved: state.moved + outcomes.filter((outcome) => outcome === 'stored').length,
    untouched: state.untouched + keys.length - due.length,
    conflicts: state.conflicts + outcomes.filter((outcome) => outcome === 'conflict').length,
    failed: state.failed + failures.length,
    failures: [...state.failures, ...failures].slice(0, failuresKept),
  };
  await ports.progress(after);
  return after;
}

type Outcome = 'stored' | 'conflict' | MigrationFailure;

function isDue({ from, to, step }: Migration, body: BranchKeyBody): boolean {
  const hasOld = legsOf(body).some((wrap) => isUnder(from, wrap));
  const hasNew = legsOf(body).some((wrap) => isUnder(to, wrap));
  return hasOld && (step === 'add' ? !hasNew : hasNew);
}

async function add(migration: Migration, ports: MigratePorts, due: readonly StoredKey[]): Promise<Outcome[]> {
  const { from, request } = migration;
  const asked = due.map(({ body }) => (body.combiner === 'all' ? partOf(body, from) : body));
  const answers = await from.unwrap(asked, request);
  try {
    const outcomes: Outcome[] = [];
    for (const [index, { cid, body }] of due.entries()) {
      const answer = checked(body, answers[index]);
      const wraps = answer.ok ? await moved(migration, body, answer.branchKey) : answer.error;
      outcomes.push(
        wraps instanceof HoldfastError
          ? failureOf(body, wraps)
          : await ports.store(successor(migration, cid, body, wraps), cid),
      );
    }
    return outcomes;
  } finally {
    for (const answer of answers) if (answer.ok) answer.branchKey.fill(0);
  }
}

/**
 * The wraps with the new provider's added. Of a key made of all its wraps the old provider's part is replaced at
 * once, because there is no room beside it; so the new one must give it back first.
 */
async function moved(
  { from, to, request }: Migration,
  body: BranchKeyBody,
  secret: Uint8Array,
): Promise<readonly BkWrap[] | HoldfastError> {
  const wraps = await to.wrapKey(scopeOf(body), secret);
  if (body.combiner === 'any') return [...body.wraps, ...wraps];
  const [part] = legsOf({ ...body, wraps });
  const [again] = part === undefined ? [] : await to.unwrap([{ ...body, wraps: [part] }], request);
  const same = again?.ok === true && sameSecret(again.branchKey, secret);
  if (again?.ok === true) again.branchKey.fill(0);
  if (part === undefined || !same)
    return new HoldfastError('KEY_UNAVAILABLE', `${to.id} does not give back what it wrapped`);
  return body.wraps.map((wrap) => (wrap.t !== 'recovery' && isUnder(from, wrap) ? part : wrap));
}

/** No wrap goes before the new provider has given the key back. */
async function drop(
  migration: Migration,
  ports: MigratePorts,
  due: readonly StoredKey[],
): Promise<Outcome[]> {
  const { from, to, request } = migration;
  const answers = await to.unwrap(
    due.map(({ body }) => body),
    request,
  );
  const outcomes: Outcome[] = [];
  for (const [index, { cid, body }] of due.entries()) {
    const answer = checked(body, answers[index]);
    if (!answer.ok) {
      outcomes.push(failureOf(body, answer.error));
      continue;
    }
    answer.branchKey.fill(0);
    const left = body.wraps.filter((wrap) => wrap.t === 'recovery' || !isUnder(from, wrap));
    outcomes.push(await ports.store(successor(migration, cid, body, left), cid));
  }
  return outcomes;
}

/** A part has no commitment of its own; it authenticated, and what is stored is proven against it. */
function checked(body: BranchKeyBody, answer: Unwrapped | undefined): Unwrapped {
  if (answer === undefined)
    return { ok: false, error: new HoldfastError('KEY_UNAVAILABLE', 'the provider gave no answer') };
  return body.combiner === 'all' ? answer : matched(body, answer);
}

function partOf(body: BranchKeyBody, provider: KekProvider): BranchKeyBody {
  return {
    ...body,
    wraps: legsOf(body)
      .filter((wrap) => isUnder(provider, wrap))
      .slice(0, 1),
  };
}

/** True for a wrap that was made under the provider's key. */
export function isUnder(provider: KekProvider, wrap: BkWrap): boolean {
  const { cg, ver } = provider.kek();
  const label = parseLabel(wrap.label);
  return label.cg === cg && label.kekVer === ver;
}

/** What the wraps say together. */
function scopeOf(body: BranchKeyBody): NewKeyScope {
  const [first] = body.wraps;
  if (first === undefined) throw new HoldfastError('RECORD_INVALID', 'a branch key without wraps');
  const { bkId, bkVer, project, cls, writer, window, policy } = parseLabel(first.label);
  return { bkId, bkVer, project, cls, writer, window, policy };
}

function successor(
  { writer }: Migration,
  prev: CID,
  body: BranchKeyBody,
  wraps: readonly BkWrap[],
): BranchKeyBody {
  return parseBranchKey({ ...body, writer, bkVer: body.bkVer + 1, prev, wraps: withoutTwins(wraps) });
}

/** Of recovery wraps to the same key the last one suffices. */
function withoutTwins(wraps: readonly BkWrap[]): readonly BkWrap[] {
  const isLater = (wrap: BkWrap, index: number): boolean =>
    wraps.some(
      (other, at) => at > index && other.t === 'recovery' && wrap.t === 'recovery' && other.kid === wrap.kid,
    );
  return wraps.filter((wrap, index) => !isLater(wrap, index));
}

function failureOf(body: BranchKeyBody, { code, message }: HoldfastError): MigrationFailure {
  return { bkId: toHex(body.bkId), code, message };
}
