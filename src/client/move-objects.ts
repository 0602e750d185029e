// Moving objects to a provider that cannot wrap a given key: threshold custody, whose keys come out of random group
// elements. Each old branch key gets a successor, and the content keys under it are wrapped anew under that one.
//
//   old branch key ─▶ content key ─▶ new branch key: a newer envelope        manifests, content and their CIDs stay
//
// Readers are served all the time: the old branch key stays where it is, and an envelope names the one it is under.
// An object is moved or it is not; what a crash leaves is found by the next run.

import { toHex } from '../core/bytes.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { matched } from '../custody/combined.ts';
import { isUnder, type MigrationState, newMigration } from '../custody/migrate.ts';
import type { KekProvider, UnwrapRequest } from '../custody/provider.ts';
import { random } from '../custody/random.ts';
import { headerTagOf } from '../envelope/floe.ts';
import { loadGcm } from '../envelope/gcm.ts';
import {
  type BranchKeyBody,
  type EnvelopeBody,
  keyOfEnvelope,
  parseBranchKey,
  parseEnvelope,
  policyOfKey,
} from '../envelope/records.ts';
import { commitmentOf, unwrapDek, WrappingKey, wrapDek } from '../envelope/wrap.ts';
import type { FiledKey, FiledObject, KeyRegistry } from './key-registry.ts';

export interface ObjectMove {
  readonly registry: KeyRegistry;
  /** Gives the old keys: any of them. */
  readonly reader: KekProvider;
  readonly from: readonly KekProvider[];
  readonly to: KekProvider;
  /** With purpose `rewrap`. */
  readonly request: UnwrapRequest;
  /** Told of each object. Must not throw. */
  readonly onMoved?: () => void;
}

const pageKeys = 64;
const failuresKept = 100;

/** Goes once through all keys. Throws what the door throws; what a provider refuses is in the state it resolves with. */
export async function moveObjects(move: ObjectMove): Promise<MigrationState> {
  await loadGcm();
  let state: MigrationState = newMigration;
  do {
    const { keys, next } = await move.registry.page(state.cursor, pageKeys);
    for (const key of keys) state = await moveKey(move, key, state);
    state = { ...state, cursor: next, done: next === undefined };
  } while (!state.done);
  return state;
}

async function moveKey(move: ObjectMove, key: FiledKey, state: MigrationState): Promise<MigrationState> {
  const isOld = key.body.wraps.some(
    (wrap) => wrap.t !== 'recovery' && move.from.some((provider) => isUnder(provider, wrap)),
  );
  if (!isOld) return { ...state, untouched: state.untouched + 1 };
  let [moved, conflicts] = [state.moved, state.conflicts];
  const [first, ...rest] = await objectsOf(move, key);
  if (first === undefined) return { ...state, untouched: state.untouched + 1 };
  try {
    using old = await oldKey(move, key.body);
    using young = await youngKey(move, key, first);
    for (const object of [first, ...rest]) {
      const outcome = await moveObject(move, object, old, young);
      if (outcome === 'stored') moved++;
      else conflicts++;
      move.onMoved?.();
    }
    return { ...state, moved, conflicts };
  } catch (error) {
    move.request.signal?.throwIfAborted();
    if (!(error instanceof HoldfastError)) throw error;
    const failure = { bkId: toHex(key.body.bkId), code: error.code, message: describeError(error) };
    const failures = [...state.failures, failure].slice(0, failuresKept);
    return { ...state, moved, conflicts, failed: state.failed + 1, failures };
  }
}

async function objectsOf({ registry }: ObjectMove, { body }: FiledKey): Promise<readonly FiledObject[]> {
  const objects: FiledObject[] = [];
  for await (const object of registry.objects(body.bkId)) objects.push(object);
  return objects;
}

async function oldKey({ reader, request }: ObjectMove, body: BranchKeyBody): Promise<WrappingKey> {
  const [given] = await reader.unwrap([body], request);
  const answer = given && matched(body, given);
  if (answer?.ok !== true) throw answer?.error ?? new HoldfastError('KEY_UNAVAILABLE', 'no answer');
  try {
    return new WrappingKey(answer.branchKey, body.bkId);
  } finally {
    answer.branchKey.fill(0);
  }
}

/** A new branch key, and whether it is filed: it is with the first object under it. */
class YoungKey implements Disposable {
  readonly key: WrappingKey;
  readonly body: BranchKeyBody;
  isFiled = false;

  constructor(key: WrappingKey, body: BranchKeyBody) {
    this.key = key;
    this.body = body;
  }

  [Symbol.dispose](): void {
    this.key[Symbol.dispose]();
  }
}

/** Of the same scope. The key of one object keeps its id and gets the version of the envelope that first has it. */
async function youngKey(
  { to }: ObjectMove,
  { body: old, envelope }: FiledKey,
  { manifest }: FiledObject,
): Promise<YoungKey> {
  if (manifest.encryption === null) throw new HoldfastError('RECORD_INVALID', 'an object without encryption');
  const bkId = envelope === undefined ? random(old.bkId.length) : old.bkId;
  const bkVer = envelope === undefined ? 1 : envelope.envVer + 1;
  const made = await to.createKey({ ...old.scope, bkId, bkVer, policy: policyOfKey(old) });
  try {
    const { wraps, combiner } = made;
    const { kind, v, writer, scope, maxWraps } = old;
    const head = { kind, v, writer, prev: null, bkId, bkVer, scope, maxWraps };
    const body = parseBranchKey({ ...head, commit: commitmentOf(made.branchKey), combiner, wraps });
    return new YoungKey(new WrappingKey(made.branchKey, bkId), body);
  } finally {
    made.branchKey.fill(0);
  }
}

async function moveObject(
  { registry, to, request }: ObjectMove,
  { cid, envelope, manifest }: FiledObject,
  old: WrappingKey,
  young: YoungKey,
): Promise<'stored' | 'conflict'> {
  const { encryption } = manifest;
  if (encryption === null) throw new HoldfastError('RECORD_INVALID', 'an object without encryption');
  const { objId } = envelope;
  const bound = { objId, headerTag: headerTagOf(encryption.hdr) };
  const dek = unwrapDek(old, envelope.wrap, {
    ...bound,
    ...keyOfEnvelope(envelope),
    policy: envelope.policy,
  });
  const { bkId, bkVer } = young.body;
  const policy = policyOfKey(young.body);
  try {
    const wrap = wrapDek(young.key, dek, { ...bound, bkId, bkVer, policy }, random);
    const newer = newerEnvelope(envelope, young.body, { prev: cid, wrap, policy, beat: request.beat });
    const bodies = envelope.mode === 'branch' && !young.isFiled ? [young.body, newer] : [newer];
    const outcome = await registry.replace(to, bodies, envelope);
    if (outcome === 'stored') young.isFiled = true;
    return outcome;
  } finally {
    dek.fill(0);
  }
}

function newerEnvelope(
  envelope: EnvelopeBody,
  { bkId, bkVer, scope, commit, combiner, wraps }: BranchKeyBody,
  fields: Pick<EnvelopeBody, 'prev' | 'wrap' | 'policy' | 'beat'>,
): EnvelopeBody {
  const common = { ...envelope, ...fields, envVer: envelope.envVer + 1 };
  return envelope.mode === 'branch'
    ? parseEnvelope({ ...common, bkId, bkVer })
    : parseEnvelope({ ...common, key: { bkVer, scope, commit, combiner, wraps } });
}
