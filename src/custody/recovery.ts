// The recovery key of an organisation: an X25519 key whose secret half lies offline, in a safe or in parts on paper.
//
// With the policy's consent every new branch key is also sealed to it (HPKE, RFC 9180), which shows in the key's
// record. Without it, a custody group that lost too many custodians has lost everything for ever; with it, whoever
// has the offline key can read everything. So opening takes two authorities, each with an order of their own over
// exactly these keys, and an alarm that is raised, and kept, before the first key is opened.

import { encodeCbor } from '../core/block.ts';
import { sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { encodeLabel, labelDigest } from '../envelope/label.ts';
import type { RandomBytes } from '../envelope/primitives.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import type { RecoveryWrap } from '../envelope/wraps.ts';
import { generateKeyPair, type HpkeKeyPair, openWith, sealTo } from '../threshold/hpke.ts';
import { matched } from './combined.ts';
import { datedProblem } from './freshness.ts';
import { refusedKey } from './legs.ts';
import { type CustodyOrder, openOrder } from './order.ts';
import {
  type KekProvider,
  type KeyWrapper,
  type NewKeyScope,
  renewsWraps,
  type Unwrapped,
  wrapsGivenKeys,
} from './provider.ts';

export interface RecoveryOptions {
  /** X25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** What the newest policy says for these keys: `any` seals them, `none` does not. */
  readonly policy: (scope: NewKeyScope) => 'none' | 'any';
  readonly random: RandomBytes;
}

/** What is told to whoever must know, before anything is opened. */
export interface RecoveryAlarm {
  readonly cg: string;
  readonly kid: string;
  readonly keysCount: number;
  readonly reason: string;
  /** Ed25519 keys of the authorities that ordered it. */
  readonly by: readonly Uint8Array[];
  readonly beat: number;
}

export interface RecoveryUse {
  readonly records: readonly BranchKeyBody[];
  /** The offline key; the caller zeroes it. */
  readonly secretKey: Uint8Array;
  /** Signed orders with operation `recover` and the arguments of `recoveryArgs`, from two authorities at least. */
  readonly orders: readonly Uint8Array[];
  readonly authorities: readonly Uint8Array[];
  readonly cg: string;
  readonly reason: string;
  readonly beat: number;
  /** Longest life of an order, beats. Default 240. */
  readonly windowBeats?: number;
  /** Must keep the alarm for good before it resolves. When it fails, nothing is opened. */
  readonly alarm: (alarm: RecoveryAlarm) => Promise<void>;
}

const ordersNeeded = 2;
const reasonBytesMax = 512;
const hpkeInfo = preimage('CHORUS-SLURP-RECOVERY-v1');

/** Names a recovery key: 32 hex digits. */
export function recoveryKid(publicKey: Uint8Array): string {
  return toHex(sha512(preimage('CHORUS-SLURP-RECOVERY-KID-v1', publicKey)).subarray(0, 16));
}

/** A new recovery key. Its secret half is written down offline and zeroed. */
export function newRecoveryKey(random: RandomBytes): HpkeKeyPair & { readonly kid: string } {
  const pair = generateKeyPair(random);
  return { ...pair, kid: recoveryKid(pair.publicKey) };
}

/**
 * `provider`, adding a recovery wrap to what it makes where the policy wants one. What the provider can do beside
 * making and opening keys, it still can. Throws ARGUMENT_INVALID when `publicKey` is no X25519 key.
 */
export function withRecovery(provider: KekProvider, options: RecoveryOptions): KekProvider {
  sealTo(options.publicKey, hpkeInfo, hpkeInfo, new Uint8Array(32), options.random); // throws for a bad key
  const recovery = (scope: NewKeyScope, branchKey: Uint8Array): readonly BkWrap[] => {
    const { cg, ver: kekVer } = provider.kek();
    return options.policy(scope) === 'none' ? [] : [seal(options, { ...scope, cg, kekVer }, branchKey)];
  };
  const extended: KekProvider & Partial<KeyWrapper> = {
    id: provider.id,
    kind: provider.kind,
    createKey: async (scope) => {
      const made = await provider.createKey(scope);
      return { ...made, wraps: [...made.wraps, ...recovery(scope, made.branchKey)] };
    },
    unwrap: (records, request) => provider.unwrap(records, request),
    describe: () => withNote(provider, options.publicKey),
    health: () => provider.health(),
    kek: () => provider.kek(),
    [Symbol.asyncDispose]: () => provider[Symbol.asyncDispose](),
    ...(wrapsGivenKeys(provider)
      ? {
          wrapKey: async (scope: NewKeyScope, branchKey: Uint8Array) => [
            ...(await provider.wrapKey(scope, branchKey)),
            ...recovery(scope, branchKey),
          ],
        }
      : {}),
    ...(renewsWraps(provider) ? { renew: provider.renew.bind(provider) } : {}),
  };
  return extended;
}

/** What both orders must say in `args`: which keys, of which versions, and why. */
export function recoveryArgs(
  records: readonly BranchKeyBody[],
  kid: string,
  reason: string,
): Readonly<Record<string, unknown>> {
  const keys = records.flatMap(({ bkId, commit }) => [bkId, commit]);
  return {
    kid,
    reason,
    keysCount: records.length,
    keys: sha512(preimage('CHORUS-SLURP-RECOVERY-v1', ...keys)),
  };
}

/**
 * Opens the recovery wraps of `records`, in order; the caller zeroes the keys.
 *
 * @throws FORBIDDEN when two valid orders of different authorities are not there, ARGUMENT_INVALID for the reason,
 *   RECORD_INVALID for an order that is none, and what the alarm throws
 */
export async function recoverKeys(use: RecoveryUse): Promise<readonly Unwrapped[]> {
  const { records, cg, reason, beat } = use;
  if (reason.trim() === '' || Buffer.byteLength(reason) > reasonBytesMax)
    throw new HoldfastError('ARGUMENT_INVALID', `a recovery needs a reason of 1 to ${reasonBytesMax} bytes`);
  const kid = recoveryKid(publicKeyOf(use.secretKey));
  const by = authoritiesOf(use, encodeCbor(recoveryArgs(records, kid, reason)));
  await use.alarm({ cg, kid, keysCount: records.length, reason, by, beat });
  return records.map((record) => open(record, kid, use.secretKey));
}

/** The authorities that ordered exactly this. Throws FORBIDDEN when they are too few, with what is wrong with each order. */
function authoritiesOf(use: RecoveryUse, args: Uint8Array): readonly Uint8Array[] {
  const found = new Map<string, Uint8Array>();
  const problems: string[] = [];
  for (const message of use.orders) {
    const { order } = openOrder(message);
    const problem = problemOf(order, use, args);
    if (problem === undefined) found.set(toHex(order.by), order.by);
    else problems.push(`the order of ${toHex(order.by).slice(0, 12)} ${problem}`);
  }
  if (found.size >= ordersNeeded) return [...found.values()];
  const said = [`${found.size} of ${ordersNeeded} authorities ordered this recovery`, ...problems].join('; ');
  throw new HoldfastError('FORBIDDEN', said, { details: { valid: found.size, needed: ordersNeeded } });
}

function problemOf(order: CustodyOrder, use: RecoveryUse, args: Uint8Array): string | undefined {
  if (order.op !== 'recover') return `is one to ${order.op}`;
  if (order.cg !== use.cg) return `is for custody group ${order.cg}`;
  if (!use.authorities.some((key) => sameBytes(key, order.by))) return 'is not of an authority';
  if (!sameBytes(encodeCbor(order.args), args)) return 'is for other keys or another reason';
  const dated = datedProblem(order, use.beat, use.windowBeats ?? 240);
  return dated === undefined ? undefined : `is ${dated}`;
}

function open(record: BranchKeyBody, kid: string, secretKey: Uint8Array): Unwrapped {
  const wrap = record.wraps.find((wrap): wrap is RecoveryWrap => wrap.t === 'recovery' && wrap.kid === kid);
  if (wrap === undefined)
    return refusedKey(record, 'KEY_UNAVAILABLE', `it was not sealed to recovery key ${kid}`);
  try {
    const branchKey = openWith(secretKey, wrap.enc, hpkeInfo, aadOf(wrap.label, kid), wrap.ct);
    return matched(record, { ok: true, branchKey });
  } catch (cause) {
    return refusedKey(record, 'DECRYPT_FAILED', 'its recovery wrap or label was changed', cause);
  }
}

function seal(
  { publicKey, random }: RecoveryOptions,
  label: NewKeyScope & { readonly cg: string; readonly kekVer: number },
  branchKey: Uint8Array,
): RecoveryWrap {
  const bytes = encodeLabel({ v: 1, ...label });
  const kid = recoveryKid(publicKey);
  const { enc, ct } = sealTo(publicKey, hpkeInfo, aadOf(bytes, kid), branchKey, random);
  return { t: 'recovery', kid, label: bytes, enc, ct };
}

function aadOf(label: Uint8Array, kid: string): Uint8Array {
  return labelDigest(label, utf8(kid));
}

/** HPKE needs the public key of the offline secret only to name it: the pair is made again from the same 32 bytes. */
function publicKeyOf(secretKey: Uint8Array): Uint8Array {
  return generateKeyPair(() => new Uint8Array(secretKey)).publicKey;
}

function withNote(provider: KekProvider, publicKey: Uint8Array): ReturnType<KekProvider['describe']> {
  const description = provider.describe();
  const note =
    `Where the policy allows it, every key is also sealed to recovery key ${recoveryKid(publicKey)}, ` +
    'which is kept offline: whoever has it reads everything, and without it what custody loses is lost.';
  return { ...description, text: `${description.text} ${note}` };
}
