// How whoever carries a rotation collects a signature of the group: commitments of enough custodians, their shares,
// and the whole. A custodian that fails or sends a wrong share is left out, and the others begin again.

import { describeError, HoldfastError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { aggregate, type FrostMessage } from '../threshold/frost.ts';
import type { Group } from '../threshold/group.ts';
import { isKeySet, type KeySet } from '../threshold/key-set.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { readCommitted } from './rotation-keygen.ts';

/** One custodian in a session: takes a step and gives its answer. */
export interface Signatory {
  readonly name: string;
  readonly ask: (step: string, payload: Readonly<Record<string, unknown>>) => Promise<unknown>;
}

/** What a record says of the key that signs. */
type SigningKeys = Pick<TdecKek, 't' | 'n' | 'frostPk' | 'frostYi'>;

/**
 * The group's signatures under `messages`, in order.
 * @param kek whose generation of the signing key signs
 * @param extra goes with each step beside what the step itself needs
 * @throws HoldfastError KEY_UNAVAILABLE naming who failed and why, when fewer than `t` are left
 */
export async function groupSignatures(
  group: Group,
  kek: SigningKeys,
  signatories: readonly Signatory[],
  messages: readonly Uint8Array[],
  extra: Readonly<Record<string, unknown>> = {},
): Promise<readonly Uint8Array[]> {
  const failed = new Map<Signatory, string>();
  for (;;) {
    const there = signatories.filter((each) => !failed.has(each));
    if (there.length < kek.t) throw tooFew(kek, failed);
    const done = await tryOnce(group, kek, there, messages, extra, failed);
    if (done !== undefined) return done;
  }
}

async function tryOnce(
  group: Group,
  kek: SigningKeys,
  there: readonly Signatory[],
  messages: readonly Uint8Array[],
  extra: Readonly<Record<string, unknown>>,
  failed: Map<Signatory, string>,
): Promise<readonly Uint8Array[] | undefined> {
  // One more than needed would be another round trip's worth of work: who fails is replaced in the next attempt.
  const chosen = there.slice(0, kek.t);
  const committed = await all(chosen, failed, async (each) => ({
    each,
    ...readCommitted(await each.ask('commit', extra), messages.length),
  }));
  if (committed === undefined) return undefined;
  const keys = signingKeys(
    group,
    kek,
    committed.map(({ C }) => C),
  );
  const commitments = messages.map((_, at) =>
    committed.map(({ i, commitments: own }) => ({ index: i, bytes: own[at] ?? new Uint8Array(0) })),
  );
  const shares = await all(chosen, failed, async (each) =>
    fieldsOf(await each.ask('sign', { ...extra, commitments }), 'sign', ['shares']).bytesList(
      'shares',
      32,
      messages.length,
      messages.length,
    ),
  );
  if (shares === undefined) return undefined;
  const signatures: Uint8Array[] = [];
  for (const [at, message] of messages.entries()) {
    const rows = committed.map(({ i }, place): FrostMessage => {
      return { index: i, bytes: shares[place]?.[at] ?? new Uint8Array(0) };
    });
    const outcome = aggregate(group, keys, commitments[at] ?? [], message, rows);
    if (outcome.ok) {
      signatures.push(outcome.value);
      continue;
    }
    for (const { culprit, reason } of outcome.faults) {
      const found = committed.find(({ i }) => i === culprit)?.each ?? chosen[0];
      if (found !== undefined) failed.set(found, `signed falsely (${reason})`);
    }
    return undefined;
  }
  return signatures;
}

/** All answers, or undefined when somebody gave none; who, is in `failed`. */
async function all<T>(
  asked: readonly Signatory[],
  failed: Map<Signatory, string>,
  ask: (each: Signatory) => Promise<T>,
): Promise<readonly T[] | undefined> {
  const done = await Promise.allSettled(asked.map((each) => ask(each)));
  for (const [at, outcome] of done.entries()) {
    const each = asked[at];
    if (outcome.status === 'rejected' && each !== undefined) failed.set(each, describeError(outcome.reason));
  }
  const answers = done.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  return answers.length === asked.length ? answers : undefined;
}

/** The signed verification shares leave one polynomial only, so whoever says it, it is the right one. */
function signingKeys(group: Group, kek: SigningKeys, said: readonly (readonly Uint8Array[])[]): KeySet {
  const { t, n, frostPk: Y, frostYi: Yi } = kek;
  for (const C of said) {
    const keys = { t, n, Y, C, Yi };
    if (isKeySet(group, keys)) return keys;
  }
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    'no custodian has shares of the signing key as the record tells it',
  );
}

function tooFew({ t }: SigningKeys, failed: ReadonlyMap<Signatory, string>): HoldfastError {
  const why = [...failed].map(([{ name }, reason]) => `${name}: ${reason}`).join(', ');
  return new HoldfastError(
    'KEY_UNAVAILABLE',
    `fewer than ${t} custodians sign: ${why === '' ? 'too few are there' : why}`,
  );
}
