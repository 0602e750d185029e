// What custodians are told to do with their group. The coordinator carries orders and executes nothing by itself:
// each custodian checks the signature, that it is for its group, that it is for now, and that it is new.

import type { Signer } from '../core/hash.ts';
import { sameBytes } from '../core/bytes.ts';
import { sha512 } from '../core/hash.ts';
import { custodyOrderBytesMax } from '../core/limits.ts';
import { isMap } from '../core/shape.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import { type BeatNow, datedProblem } from './freshness.ts';
import { refusal, type Refusal } from './refusal.ts';
import type { ReplaySet } from './replay.ts';
import type { Revocations } from './revocation.ts';
import { readSignedMap, signMap, verifyMessage } from './signed-map.ts';

export const orderOps = [
  'init',
  'refresh',
  'reshare',
  'repair',
  'evict',
  'rotate',
  'seal',
  'unseal',
  'policy',
  'revoke',
  'recover',
] as const;
export type OrderOp = (typeof orderOps)[number];

export interface CustodyOrder {
  readonly v: 1;
  readonly cg: string;
  readonly op: OrderOp;
  /** What the operation needs; read by whoever executes it. */
  readonly args: Readonly<Record<string, unknown>>;
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
  readonly beat: number;
  /** Last beat at which it may be begun. */
  readonly exp: number;
  /** Ed25519 key of who orders. */
  readonly by: Uint8Array;
}

/** An order whose form and signature are proven. */
export interface OpenedOrder {
  readonly order: CustodyOrder;
  /** SHA-512 that names it: 64 bytes. */
  readonly hash: Uint8Array;
}

/** What an order is held against. */
export interface OrderTerms {
  readonly cg: string;
  /** The operator of the cluster, and the authorities of the newest policy once there is one. */
  readonly authorities: readonly Uint8Array[];
  readonly now: BeatNow;
  /** Longest life of an order, and how far it may be dated ahead, beats. */
  readonly windowBeats: number;
  /** Nonces of orders that were taken, kept over restarts by the caller. */
  readonly nonces: ReplaySet;
  readonly revocations: Revocations;
}

const domain = 'CHORUS-SLURP-ORDER-v1';
const names = ['v', 'cg', 'op', 'args', 'nonce', 'beat', 'exp', 'by'];

/** Signs an order; `by` must be the signer's key. Throws RECORD_INVALID for one that nobody could read. */
export function signOrder(order: CustodyOrder, signer: Signer): Uint8Array {
  const message = signMap(domain, parseOrder(order), signer);
  openOrder(message);
  return message;
}

/** Reads an order and verifies its signature. Whether it may be given is for `checkOrder`. Throws RECORD_INVALID. */
export function openOrder(message: Uint8Array): OpenedOrder {
  const signed = readSignedMap(message, 'order', custodyOrderBytesMax);
  const order = parseOrder(signed.body);
  verifyMessage(domain, 'order', signed, order.by);
  return { order, hash: sha512(signed.bytes) };
}

/**
 * Why an order is not followed, or undefined: then its nonce is remembered, and the caller makes that last before
 * it begins. Sealing is followed whatever the clock says: it only ever takes away.
 */
export function checkOrder({ order }: OpenedOrder, terms: OrderTerms): Refusal | undefined {
  const { cg, authorities, now, windowBeats, nonces, revocations } = terms;
  if (order.cg !== cg) return refusal('group', `the order is for custody group ${order.cg}, this is ${cg}`);
  if (!authorities.some((key) => sameBytes(key, order.by)))
    return refusal('capability', 'who signed the order is neither operator nor authority of the policy');
  if (revocations.has({ what: 'key', id: order.by }))
    return refusal('revoked', 'the key that signed the order was revoked');
  if (order.op !== 'seal') {
    if (now.lost !== undefined) return refusal('clock', now.lost);
    const dated = datedProblem(order, now.beat, windowBeats);
    if (dated !== undefined) return refusal('stale', `the order is ${dated}`);
  }
  const known = nonces.look(order.nonce, now.beat);
  if (known === 'seen') return refusal('replayed', 'this order was given before');
  if (known === 'full') return refusal('overloaded', 'too many orders in a short while');
  // A seal is taken whatever its date, so its nonce must never be forgotten.
  nonces.remember(order.nonce, order.op === 'seal' ? Number.MAX_SAFE_INTEGER : order.exp);
  return undefined;
}

function parseOrder(value: unknown): CustodyOrder {
  const fields = fieldsOf(value, 'order', names);
  const beat = fields.integer('beat', 0);
  const args = fields.any('args');
  if (!isMap(args)) return fields.refuse('args', 'a map expected');
  return {
    v: fields.oneOf('v', [1]),
    cg: readGroup(fields, 'cg'),
    op: fields.oneOf('op', orderOps),
    args,
    nonce: fields.bytes('nonce', 32),
    beat,
    exp: fields.integer('exp', beat),
    by: fields.bytes('by', 32),
  };
}
