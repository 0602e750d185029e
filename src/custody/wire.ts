// What custodians say about themselves over RPC, beside requests, orders and the audit log.
//
//   custody.hello  {}         → CustodianHello: who it is, and the keys that dealings are sealed to
//   custody.status {}         → CustodianStatus
//   custody.unwrap {} + bytes → {} + bytes of the sealed answer
//   custody.order  {} + bytes → {}

import { fieldsOf } from '../envelope/fields.ts';
import { isMap } from '../core/shape.ts';
import { HoldfastError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { type ShareKey, shareKeys, type ShareStatus } from './share-state.ts';
import type { SealingSource } from './sealing-key.ts';

export interface CustodianHello {
  readonly v: 1;
  readonly name: string;
  /** Name of its audit log, and of it as a witness. */
  readonly log: string;
  /** Ed25519 public key of its identity. */
  readonly sigPk: Uint8Array;
  /** Ristretto255 point: its long-term key in key generations. */
  readonly dkgPk: Uint8Array;
  /** X25519 public key that dealings of its epoch are sealed to. */
  readonly prekey: Uint8Array;
  readonly prekeyEpoch: number;
}

export interface HeldShare {
  readonly cg: string;
  readonly kekVer: number;
  readonly gen: number;
  readonly key: ShareKey;
  readonly status: ShareStatus;
  readonly index: number;
  readonly t: number;
  readonly n: number;
}

export interface CustodianStatus {
  readonly v: 1;
  readonly name: string;
  readonly beat: number;
  /** Why time is not known, or null. */
  readonly timeLost: string | null;
  readonly sealingSource: SealingSource;
  readonly shares: readonly HeldShare[];
  /** Groups that are sealed here. */
  readonly sealed: readonly string[];
  readonly audit: {
    readonly entries: number;
    /** Entries that others vouched for, and who did. */
    readonly cosigned: number;
    readonly witnesses: readonly string[];
  };
  /** Requests that wait, and keys given in this bar. */
  readonly waiting: number;
  readonly givenInBar: number;
  /** What an operator should do something about, in words. */
  readonly warnings: readonly string[];
}

/** True when a custodian says that it holds its shares of both keys of a version, in the present generation. */
export function holdsVersion(
  shares: readonly HeldShare[],
  { cg, ver, shareGen }: Pick<TdecKek, 'cg' | 'ver' | 'shareGen'>,
): boolean {
  const held = shares.filter(
    (each) => each.cg === cg && each.kekVer === ver && each.gen === shareGen && each.status === 'active',
  );
  return shareKeys.every((key) => held.some((each) => each.key === key));
}

const helloNames = ['v', 'name', 'log', 'sigPk', 'dkgPk', 'prekey', 'prekeyEpoch'];

/** Reads the answer to custody.hello. Throws RECORD_INVALID naming the field. */
export function parseHello(head: unknown): CustodianHello {
  const fields = fieldsOf(head, 'hello', helloNames);
  return {
    v: fields.oneOf('v', [1]),
    name: fields.text('name', 64),
    log: fields.text('log', 256),
    sigPk: fields.bytes('sigPk', 32),
    dkgPk: fields.bytes('dkgPk', 32),
    prekey: fields.bytes('prekey', 32),
    prekeyEpoch: fields.integer('prekeyEpoch', 0),
  };
}

/** Reads the answer to custody.status, for showing: of a member, over an authenticated connection. Throws RECORD_INVALID. */
export function parseStatus(head: unknown): CustodianStatus {
  if (isStatus(head)) return head;
  throw new HoldfastError('RECORD_INVALID', 'a custodian answered with another kind of status');
}

function isStatus(value: unknown): value is CustodianStatus {
  return (
    isMap(value) &&
    value['v'] === 1 &&
    typeof value['name'] === 'string' &&
    typeof value['beat'] === 'number' &&
    Array.isArray(value['shares']) &&
    Array.isArray(value['sealed']) &&
    Array.isArray(value['warnings']) &&
    isMap(value['audit'])
  );
}
