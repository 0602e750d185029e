// What a ceremony is to do, read out of the order for it. Both halves read it alike.

import type { CID } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { custodiansMax, custodyOrderBytesMax } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { KekCustodian, TdecKek, UnsignedKek } from '../envelope/kek.ts';
import { openRecord } from '../manifest/record.ts';
import type { KeySet } from '../threshold/key-set.ts';
import { quorumOf } from './ballot.ts';
import type { Both, Hello, Participant } from './ceremony.ts';
import type { CustodyOrder } from './order.ts';
import { parsePolicy } from './policy.ts';
import { type InPlaceOf, readInPlaceOf } from './succession.ts';

const nameBytesMax = 64;

/** A custodian as an order names it. */
export interface Seat {
  readonly peer: PeerName;
  /** Organisational unit. */
  readonly org: string;
}

export interface InitPlan {
  readonly t: number;
  readonly seats: readonly Seat[];
  /** The record of version 1 of the policy. */
  readonly policy: Uint8Array;
  readonly policyRoot: CID;
  readonly refreshEveryBars: number;
  /** The group that ends with this one; undefined for a first one. */
  readonly inPlaceOf: InPlaceOf | undefined;
}

/** `args` of an order to begin a group. `development`: allows groups that one loss or one thief ends. */
export interface InitArgs {
  readonly ver: 1;
  readonly t: number;
  readonly members: readonly Seat[];
  readonly policy: Uint8Array;
  readonly refreshEveryBars: number;
  readonly development: boolean;
  readonly inPlaceOf?: InPlaceOf;
}

/** `args` of an order to refresh, to reshare, or to reshare without somebody. The generation makes it good for one time. */
export interface DealArgs {
  readonly ver: number;
  readonly gen: number;
  readonly t: number;
  readonly members: readonly Seat[];
  /** The group's signing key: for those who join it. */
  readonly frostPk: Uint8Array;
  readonly development: boolean;
}

/** Reads an order to begin a group. Throws RECORD_INVALID, ARGUMENT_INVALID for a group that must not be. */
export function initPlan(order: CustodyOrder): InitPlan {
  const names = ['ver', 't', 'members', 'policy', 'refreshEveryBars', 'development'];
  const isSuccessor = order.args['inPlaceOf'] !== undefined;
  const fields = fieldsOf(order.args, 'order.args', isSuccessor ? [...names, 'inPlaceOf'] : names);
  fields.oneOf('ver', [1]);
  const seats = readSeats(fields.list('members', custodiansMax));
  const t = fields.integer('t', 2, custodiansMax);
  requireSound(t, seats.length, fields.boolean('development'));
  const bytes = fields.bytesUpTo('policy', custodyOrderBytesMax);
  const { cid, body } = openRecord(bytes);
  const policy = parsePolicy(body);
  if (policy.cg !== order.cg || policy.ver !== 1)
    return fields.refuse('policy', 'version 1 of the policy of this group expected');
  return {
    t,
    seats,
    policy: bytes,
    policyRoot: cid,
    refreshEveryBars: fields.integer('refreshEveryBars', 0),
    inPlaceOf: isSuccessor ? readInPlaceOf(fields, order.cg) : undefined,
  };
}

/** A dealing of the present shares to the same or other members. */
export interface DealingPlan {
  readonly kind: 'refresh' | 'reshare';
  readonly t: number;
  readonly seats: readonly Seat[];
  /** The present members, then those who join, or who vote about a version that they have no shares of. */
  readonly participants: readonly Participant[];
}

/**
 * What `order` asks of the version `kek` of the key of a group, whose custodians of the version `active` decide; without
 * an order a refresh. `keyOf`: Ed25519 key of a custodian. Throws RECORD_INVALID, ARGUMENT_INVALID, VERSION_CONFLICT for
 * an order about another generation, or a version whose shares do not move on.
 */
export function dealingPlan(
  { kek, active }: { readonly kek: TdecKek; readonly active: TdecKek },
  order: CustodyOrder | undefined,
  keyOf: (peer: PeerName) => Uint8Array,
): DealingPlan {
  if (!isRefreshed(kek))
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `version ${kek.ver} of the key is ${kek.state}: its shares stay`,
    );
  const present = kek.custodians.map(({ peer, sigPk }) => ({ peer, sigPk }));
  const isPresent = ({ peer }: Seat | Participant): boolean => present.some((each) => each.peer === peer);
  const refresh = (): DealingPlan => {
    const voting = active.custodians.filter((each) => !isPresent(each));
    const participants = [...present, ...voting.map(({ peer, sigPk }) => ({ peer, sigPk }))];
    return { kind: 'refresh', t: kek.t, seats: kek.custodians.map(seatOf), participants };
  };
  if (order === undefined) return refresh();
  const args = readDealArgs(order);
  if (args.ver !== kek.ver || args.gen !== kek.shareGen)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `the order is for generation ${args.gen} of key ${args.ver}; the group is at generation ${kek.shareGen} of key ${kek.ver}`,
      { details: { current: kek.shareGen } },
    );
  if (order.op === 'refresh') return refresh();
  if (kek !== active)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `version ${kek.ver} of the key is ${kek.state}: its members stay`,
    );
  requireSound(args.t, args.members.length, args.development);
  const joining = args.members.filter((each) => !isPresent(each));
  const participants = [...present, ...joining.map(({ peer }) => ({ peer, sigPk: keyOf(peer) }))];
  return { kind: 'reshare', t: args.t, seats: args.members, participants };
}

/**
 * Versions whose shares are refreshed: from their first use on until nobody has a share any more. One that is `retired`
 * opens nothing, but its shares do, together with a wrap that somebody kept.
 */
export function isRefreshed({ state }: Pick<TdecKek, 'state'>): boolean {
  return state === 'active' || state === 'decrypt-only' || state === 'retired';
}

function seatOf({ peer, org }: Seat): Seat {
  return { peer, org };
}

/**
 * Throws VERSION_CONFLICT for a reshare while another version of the key comes or goes: its shares would stay with the
 * members of now, who could go on opening what is under it. Where more are left out than a rotation can do without,
 * waiting would be for ever: then it may be.
 */
export function requireSettled(
  { kind, seats }: Pick<DealingPlan, 'kind' | 'seats'>,
  keks: readonly Pick<TdecKek, 'ver' | 'state'>[],
  active: Pick<TdecKek, 't' | 'n' | 'custodians'>,
): void {
  const moving = keks.find(({ state }) => state === 'pre-active' || state === 'decrypt-only');
  if (kind === 'refresh' || moving === undefined) return;
  const { t, n, custodians } = active;
  const leftOut = custodians.filter(({ peer }) => !seats.some((seat) => seat.peer === peer)).length;
  if (leftOut > n - quorumOf(t, n)) return;
  throw new HoldfastError(
    'VERSION_CONFLICT',
    `version ${moving.ver} of the key is ${moving.state} and would stay with the present members: ` +
      'wait until the rotation is over, custody status says how far it is',
    { details: { current: moving.ver } },
  );
}

/** The signing key of the group that an order is about. */
export function readDealArgs(order: CustodyOrder): DealArgs {
  const names = ['ver', 'gen', 't', 'members', 'frostPk', 'development'];
  const fields = fieldsOf(order.args, 'order.args', names);
  return {
    ver: fields.integer('ver', 1),
    gen: fields.integer('gen', 1),
    t: fields.integer('t', 2, custodiansMax),
    members: readSeats(fields.list('members', custodiansMax)),
    frostPk: fields.bytes('frostPk', 32),
    development: fields.boolean('development'),
  };
}

function readSeats(list: readonly unknown[]): readonly Seat[] {
  const seats = list.map((value, index) => {
    const fields = fieldsOf(value, `order.args.members[${index}]`, ['peer', 'org']);
    return { peer: fields.text('peer', nameBytesMax), org: fields.text('org', nameBytesMax) };
  });
  if (new Set(seats.map(({ peer }) => peer)).size !== seats.length)
    throw new HoldfastError('ARGUMENT_INVALID', 'a custodian is named twice');
  return seats;
}

/** A group that loses its key with one custodian, or gives it away with one, is a toy. */
function requireSound(t: number, n: number, development: boolean): void {
  if (t < 2 || t > n)
    throw new HoldfastError('ARGUMENT_INVALID', `threshold ${t} of ${n}: 2 ≤ t ≤ n expected`);
  if (!development && (n < 3 || t === n))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${t} of ${n} custodians: at least 3, and fewer needed than there are, because one that is lost would end the key; only for development`,
    );
}

/** The KEK record that follows a dealing. */
export function kekAfterDealing(
  before: UnsignedKek,
  plan: DealingPlan,
  hellos: ReadonlyMap<number, Hello>,
  keys: Both<KeySet>,
): UnsignedKek {
  return {
    ...before,
    seq: before.seq + 1,
    t: plan.t,
    n: plan.seats.length,
    C: keys.kek.C,
    Yi: keys.kek.Yi,
    frostYi: keys.frost.Yi,
    shareGen: before.shareGen + 1,
    custodians: plan.seats.map((seat, at) => seated(before, plan, hellos, seat, at + 1)),
  };
}

function seated(
  before: UnsignedKek,
  { participants }: DealingPlan,
  hellos: ReadonlyMap<number, Hello>,
  { peer, org }: Seat,
  i: number,
): KekCustodian {
  const place = participants.findIndex((each) => each.peer === peer);
  const hello = hellos.get(place + 1);
  const known = before.custodians.find((each) => each.peer === peer);
  const sigPk = participants[place]?.sigPk;
  if (hello !== undefined && sigPk !== undefined) {
    const { dkgPk, nextPrekey: prekey, nextEpoch: prekeyEpoch } = hello;
    return { i, org, peer, sigPk, dkgPk, prekey, prekeyEpoch };
  }
  if (known !== undefined) return { ...known, i, org };
  throw new HoldfastError('KEY_UNAVAILABLE', `${peer} is to join the group and does not answer`);
}

/** Where what is dealt to a seat is sealed to: what it says itself, else what the present record says. */
export function recipientsOf(
  kek: TdecKek,
  { seats, participants }: DealingPlan,
  hellos: ReadonlyMap<number, Hello>,
): { readonly sigPk: Uint8Array; readonly prekey: Uint8Array }[] {
  return seats.map(({ peer }) => {
    const place = participants.findIndex((each) => each.peer === peer);
    const sigPk = participants[place]?.sigPk;
    const prekey = hellos.get(place + 1)?.prekey ?? kek.custodians.find((each) => each.peer === peer)?.prekey;
    if (sigPk !== undefined && prekey !== undefined) return { sigPk, prekey };
    throw new HoldfastError('KEY_UNAVAILABLE', `${peer} is to join the group and does not answer`);
  });
}
