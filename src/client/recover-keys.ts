// Getting keys back by the offline recovery key, into a provider that is there: what is left when a custody group or
// a token is lost. Two authorities order it over exactly these keys, and an alarm is kept before the first is opened
// (custody/recovery.ts). Content, manifests and the keys themselves stay.

import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { legsOf } from '../custody/legs.ts';
import { isUnder } from '../custody/migrate.ts';
import { signOrder } from '../custody/order.ts';
import type { KekProvider, KeyWrapper } from '../custody/provider.ts';
import { type RecoveryUse, recoverKeys, recoveryArgs } from '../custody/recovery.ts';
import { parseLabel } from '../envelope/label.ts';
import type { RandomBytes } from '../envelope/primitives.ts';
import { objectKeyBody, parseBranchKey, parseEnvelope } from '../envelope/records.ts';
import type { FiledKey, KeyRegistry } from './key-registry.ts';

/** Every key that was sealed to recovery key `kid`, in the order of the registry; only those of `ids` when given. */
export async function keysSealedTo(
  registry: KeyRegistry,
  kid: string,
  ids?: readonly string[],
): Promise<readonly FiledKey[]> {
  const wanted = ids === undefined ? undefined : new Set(ids);
  const found: FiledKey[] = [];
  let cursor: string | undefined;
  do {
    const { keys, next } = await registry.page(cursor, 256);
    const sealed = keys.filter(({ body }) =>
      body.wraps.some((wrap) => wrap.t === 'recovery' && wrap.kid === kid),
    );
    found.push(...sealed.filter(({ body }) => wanted?.has(toHex(body.bkId)) !== false));
    cursor = next;
  } while (cursor !== undefined);
  return found;
}

export interface RecoveryOrder {
  readonly cg: string;
  readonly kid: string;
  readonly reason: string;
  readonly beat: number;
  /** Beats for which it is good. */
  readonly lifeBeats: number;
}

/** One authority's order to open exactly `keys`. */
export function recoveryOrder(
  keys: readonly FiledKey[],
  { cg, kid, reason, beat, lifeBeats }: RecoveryOrder,
  signer: Signer,
  random: RandomBytes,
): Uint8Array {
  const records = keys.map(({ body }) => body);
  const args = recoveryArgs(records, kid, reason);
  const exp = beat + lifeBeats;
  return signOrder(
    { v: 1, cg, op: 'recover', args, nonce: random(32), beat, exp, by: signer.publicKey },
    signer,
  );
}

export interface RecoveryMove extends Omit<RecoveryUse, 'records'> {
  readonly registry: KeyRegistry;
  readonly keys: readonly FiledKey[];
  readonly to: KekProvider & KeyWrapper;
}

export interface RecoveryReport {
  readonly recovered: number;
  /** Were under the new provider already. */
  readonly untouched: number;
  readonly failures: readonly { readonly bkId: string; readonly message: string }[];
}

/**
 * Opens `keys` and wraps each by the new provider, beside the wraps that it has.
 * Throws as `recoverKeys`, and what the door and a provider that fails altogether throw.
 */
export async function recoverTo(move: RecoveryMove): Promise<RecoveryReport> {
  const { registry, keys, to, ...use } = move;
  const opened = await recoverKeys({ ...use, records: keys.map(({ body }) => body) });
  let [recovered, untouched] = [0, 0];
  const failures: { bkId: string; message: string }[] = [];
  try {
    for (const [index, key] of keys.entries()) {
      const answer = opened[index];
      const bkId = toHex(key.body.bkId);
      if (legsOf(key.body).some((wrap) => isUnder(to, wrap))) untouched++;
      else if (answer?.ok !== true) failures.push({ bkId, message: answer?.error.message ?? 'no answer' });
      else if ((await rewrapped(registry, to, key, answer.branchKey)) === 'stored') recovered++;
      else failures.push({ bkId, message: 'somebody else changed it meanwhile' });
    }
  } finally {
    for (const answer of opened) if (answer.ok) answer.branchKey.fill(0);
  }
  return { recovered, untouched, failures };
}

async function rewrapped(
  registry: KeyRegistry,
  to: KekProvider & KeyWrapper,
  { cid, body, envelope }: FiledKey,
  branchKey: Uint8Array,
): Promise<'stored' | 'conflict'> {
  const [first] = body.wraps;
  if (first === undefined) throw new HoldfastError('RECORD_INVALID', 'a key without wraps');
  const { bkId, bkVer, project, cls, writer, window, policy } = parseLabel(first.label);
  const made = await to.wrapKey({ bkId, bkVer, project, cls, writer, window, policy }, branchKey);
  // Of a key made of parts the parts are lost: what was recovered is the key itself, whole.
  const recovery = body.wraps.filter(({ t }) => t === 'recovery');
  const wraps = body.combiner === 'all' ? [...made, ...recovery] : [...body.wraps, ...made];
  const combiner = 'any' as const;
  if (envelope === undefined) {
    const newer = parseBranchKey({ ...body, combiner, wraps, bkVer: body.bkVer + 1, prev: cid });
    return registry.replace(to, [newer], body);
  }
  const key = { ...envelope.key, combiner, wraps };
  const newer = parseEnvelope({ ...envelope, envVer: envelope.envVer + 1, prev: cid, key });
  return registry.replace(to, [newer], objectKeyBody(envelope));
}
