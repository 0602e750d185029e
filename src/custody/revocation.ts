// What is withdrawn before its time: keys of people and services, and single links of capabilities.
//
// One list per custody group, only ever longer: each record adds, none takes back. A record counts when its
// writer is an authority of the newest policy; any other is filed and ignored. Whoever decides must have looked
// lately, or refuses: a withheld list must not be worth more than two beats.

import { toHex } from '../core/bytes.ts';
import { revocationsMax, revokedPerRecordMax } from '../core/limits.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { readGroup } from '../envelope/label.ts';
import { type RecordBody, signRecord } from '../manifest/record.ts';
import { readCustodyHead } from './record-head.ts';

export interface Revoked {
  /** `key`: nothing it signs counts any more. `capability`: one link, and every chain through it. */
  readonly what: 'key' | 'capability';
  /** Ed25519 public key, or `capabilityId` of the link: 32 bytes. */
  readonly id: Uint8Array;
}

export interface RevocationBody extends RecordBody {
  readonly kind: 'revocation';
  readonly cg: string;
  /** From 1. */
  readonly n: number;
  /** Beat at which it was made. */
  readonly beat: number;
  readonly revoked: readonly Revoked[];
}

const names = ['kind', 'v', 'writer', 'prev', 'cg', 'n', 'beat', 'revoked'];

/** Checks the body of a revocation record. Throws RECORD_INVALID naming the field. */
export function parseRevocation(body: unknown): RevocationBody {
  const fields = fieldsOf(body, 'revocation', names);
  const list = fields.list('revoked', revokedPerRecordMax);
  if (list.length === 0) fields.refuse('revoked', 'at least one expected');
  return {
    ...readCustodyHead(fields, 'revocation'),
    cg: readGroup(fields, 'cg'),
    n: fields.integer('n', 1),
    beat: fields.integer('beat', 0),
    revoked: list.map(readRevoked),
  };
}

/** The record of a revocation, signed by an authority: what is filed. Throws RECORD_INVALID for one that nobody could read. */
export function signRevocation(
  { cg, n, prev, beat, revoked }: Pick<RevocationBody, 'cg' | 'n' | 'prev' | 'beat' | 'revoked'>,
  authority: Signer,
): Uint8Array {
  const head = { kind: 'revocation', v: 1, writer: authority.publicKey, prev } as const;
  return signRecord(parseRevocation({ ...head, cg, n, beat, revoked }), authority).block.bytes;
}

function readRevoked(value: unknown, index: number): Revoked {
  const fields = fieldsOf(value, `revocation.revoked[${index}]`, ['what', 'id']);
  return { what: fields.oneOf('what', ['key', 'capability']), id: fields.bytes('id', 32) };
}

/** What is revoked in one group, and how fresh that knowledge is. A value: `withRecord` and `asOf` give new ones. */
export class Revocations {
  static readonly none = new Revocations(new Set(), undefined);
  readonly #ids: ReadonlySet<string>;
  /** Beat at which the list was last compared with the Beacon; undefined: never. */
  readonly checkedBeat: number | undefined;

  private constructor(ids: ReadonlySet<string>, checkedBeat: number | undefined) {
    this.#ids = ids;
    this.checkedBeat = checkedBeat;
  }

  /** With all that `record` revokes. Throws TOO_LARGE beyond `revocationsMax`: then rotate, and begin a new group. */
  withRecord(record: RevocationBody): Revocations {
    const ids = new Set([...this.#ids, ...record.revoked.map(idOf)]);
    if (ids.size > revocationsMax)
      throw new HoldfastError('TOO_LARGE', `group ${record.cg} has more than ${revocationsMax} revocations`);
    return new Revocations(ids, this.checkedBeat);
  }

  /** The same list, compared with the Beacon at `beat`. Knowledge does not grow older by asking. */
  asOf(beat: number): Revocations {
    return new Revocations(this.#ids, Math.max(beat, this.checkedBeat ?? 0));
  }

  /** True when it was compared within `windowBeats` before `beat`. */
  isFresh(beat: number, windowBeats: number): boolean {
    return this.checkedBeat !== undefined && this.checkedBeat + windowBeats >= beat;
  }

  has(revoked: Revoked): boolean {
    return this.#ids.has(idOf(revoked));
  }

  /** Keys that are revoked, Ed25519, in the order in which they were. */
  keys(): readonly Uint8Array[] {
    return [...this.#ids].flatMap((id) =>
      id.startsWith(keyPrefix) ? new Uint8Array(Buffer.from(id.slice(keyPrefix.length), 'hex')) : [],
    );
  }
}

const keyPrefix = 'key/';

function idOf({ what, id }: Revoked): string {
  return `${what}/${toHex(id)}`;
}
