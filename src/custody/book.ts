// What one custodian, or anybody who trusts no registry, holds to be true of a custody group: the newest records
// of its keys, policy, revocations and certificates, each believed for its own signatures.
//
// A record counts when it continues what is known: the next of its chain, naming the one before, allowed by the
// rules of its kind, signed by the group's own key. An older one, or another one in the place of one that is known, is
// refused and says so: a registry that hands those out was set back, or lies. The group's key is pinned: given from
// outside (a custodian took part in making it), or taken from the first KEK record.

import type { CID } from '../core/block.ts';
import { concat, sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { policyFamiliesMax } from '../core/limits.ts';
import { kekFirstProblem, kekStepProblem, type TdecKek, verifyKek } from '../envelope/kek.ts';
import { type KekBody, parseKek } from '../envelope/records.ts';
import { openRecord, type RecordBody, type SignedRecord } from '../manifest/record.ts';
import {
  type CertificateBody,
  parseCertificate,
  type RotationCertificate,
  verifyCertificate,
} from './certificate.ts';
import { parsePolicy, type PolicyBody, verifyPolicy } from './policy.ts';
import type { PolicyHead } from './policy-change.ts';
import { parseRevocation, Revocations } from './revocation.ts';
import { policiesTakenOver } from './succession.ts';

/** `taken`: it is news. `known`: it was there. `ignored`: it is of another group, or of no consequence. */
export type Taken = 'taken' | 'known' | 'ignored';

/** Where a chain of records stands: number of its newest one, and the CID of that. */
export interface ChainPin {
  readonly number: number;
  readonly cid: Uint8Array;
}

/** Chains by their key in the registry. */
export type ChainPins = Readonly<Record<string, ChainPin>>;

interface Last<Body> {
  readonly body: Body;
  readonly cid: CID;
  /** Number in its chain. */
  readonly number: number;
}

type TdecKekBody = KekBody & TdecKek;

export class CustodyBook {
  readonly cg: string;
  readonly #pins: ChainPins;
  #frostPk: Uint8Array | undefined;
  readonly #keks = new Map<number, Last<TdecKekBody>>();
  readonly #families = new Map<string, Last<PolicyBody>>();
  /** First versions, by family. */
  readonly #roots = new Map<string, CID>();
  readonly #certificates = new Map<string, CertificateBody>();
  readonly #lastCertificate = new Map<number, Last<CertificateBody>>();
  /** Beat at which the shares of a version were dealt. */
  readonly #dealt = new Map<number, number>();
  #takenOver: readonly CID[] = [];
  #lastRevocation: Last<RecordBody> | undefined;
  #revocations = Revocations.none;

  /**
   * @param frostPk the group's signing key where it is known; else that of the first KEK record is taken
   * @param pins where the chains stood before: another record in such a place is refused
   */
  constructor(cg: string, frostPk?: Uint8Array, pins: ChainPins = {}) {
    this.cg = cg;
    this.#pins = pins;
    this.#frostPk = frostPk;
  }

  /**
   * Takes one record, as `beacon.custody` gives them, in its order.
   * Throws RECORD_INVALID for one that is no good, that goes back, or that contradicts what is known.
   */
  take(bytes: Uint8Array): Taken {
    const record = openRecord(bytes);
    const { kind } = record.body;
    if (kind === 'kek') return this.#takeKek(record);
    if (kind === 'policy') return this.#takePolicy(record);
    if (kind === 'revocation') return this.#takeRevocation(record);
    if (kind === 'certificate') return this.#takeCertificate(record);
    return 'ignored';
  }

  /** Says that all there was at `beat` has been taken. */
  comparedAt(beat: number): void {
    this.#revocations = this.#revocations.asOf(beat);
  }

  /** The group's signing key, once it is known. */
  get frostPk(): Uint8Array | undefined {
    return this.#frostPk;
  }

  /** The newest record of that version of the key; without `version` of the highest active one. */
  kek(version?: number): TdecKek | undefined {
    if (version !== undefined) return this.#keks.get(version)?.body;
    const falling = [...this.#keks.values()].map(({ body }) => body).toSorted((a, b) => b.ver - a.ver);
    return falling.find(({ state }) => state === 'active') ?? falling[0];
  }

  /** The newest version of the policy family that begins with `root`. */
  policy(root: CID | null): PolicyBody | undefined {
    if (root === null) return undefined;
    const family = [...this.#roots].find(([, cid]) => sameBytes(cid.bytes, root.bytes))?.[0];
    return family === undefined ? undefined : this.#families.get(family)?.body;
  }

  /** The newest version of the group's own policy, with the CID of its record. */
  policyHead(): PolicyHead | undefined {
    const root = this.kek()?.policyRoot ?? null;
    const family = [...this.#roots].find(([, cid]) => root !== null && sameBytes(cid.bytes, root.bytes))?.[0];
    return family === undefined ? undefined : this.#families.get(family);
  }

  /** Policies of groups before this one, by their first versions: what is bound to them is judged by this group's own. */
  get takenOver(): readonly CID[] {
    return this.#takenOver;
  }

  get revocations(): Revocations {
    return this.#revocations;
  }

  /** A rotation certificate by the CID of its record. */
  certificate(cid: CID): RotationCertificate | undefined {
    const found = this.#certificates.get(cid.toString());
    return found?.what === 'rotation' ? found : undefined;
  }

  /** Where every chain of the group stands now, and that of the policy family that its key names. */
  positions(): ReadonlyMap<string, ChainPin> {
    const found = new Map<string, ChainPin>();
    const add = (chain: string, last: Last<unknown> | undefined): void => {
      if (last !== undefined) found.set(chain, { number: last.number, cid: last.cid.bytes });
    };
    for (const [ver, last] of this.#keks) add(`kek/${this.cg}/${ver}`, last);
    for (const [ver, last] of this.#lastCertificate) add(`cert/${this.cg}/${ver}`, last);
    add(`rev/${this.cg}`, this.#lastRevocation);
    const { policyRoot = null } = this.kek() ?? {};
    const family = policyRoot === null ? undefined : this.policy(policyRoot)?.family;
    if (family !== undefined) add(`pol/${toHex(family)}`, this.#families.get(toHex(family)));
    return found;
  }

  /** The newest certificate about a version of the key. */
  lastCertificate(version: number): { readonly n: number; readonly cid: CID } | undefined {
    const last = this.#lastCertificate.get(version);
    return last && { n: last.number, cid: last.cid };
  }

  /**
   * Beat at which the shares of a version were dealt, of its two keys the older: shares of the signing key are not made
   * with a new version, they are the same that an earlier one has. Undefined when no certificate says it. The group has
   * signed it, so whoever has read as far says the same.
   */
  dealtBeat(version: number): number | undefined {
    return this.#dealt.get(version);
  }

  #takeKek(record: SignedRecord<RecordBody>): Taken {
    const body = parseKek(record.body);
    if (body.cg !== this.cg || body.provider !== 'tdec') return 'ignored';
    const pinned = this.#frostPk ?? body.frostPk;
    if (!sameBytes(pinned, body.frostPk) || !verifyKek(body)) throw unsigned(this.cg);
    const last = this.#keks.get(body.ver);
    const next = { body, cid: record.cid, number: body.seq };
    if (this.#continues(`kek/${body.cg}/${body.ver}`, last, next) === 'known') return 'known';
    const problem = last === undefined ? kekFirstProblem(body) : kekStepProblem(last.body, body);
    if (problem !== undefined) throw refused(`kek/${body.cg}/${body.ver}: ${problem}`);
    this.#frostPk = pinned;
    if (last === undefined) this.#noteCopied(body);
    this.#keks.set(body.ver, next);
    return 'taken';
  }

  /** A new version goes on with the shares of the signing key that are there, as old as they are. */
  #noteCopied({ ver, frostYi }: TdecKekBody): void {
    const points = concat(...frostYi);
    const from = [...this.#keks.values()].find(({ body }) => sameBytes(concat(...body.frostYi), points));
    const beat = from && this.#dealt.get(from.body.ver);
    if (beat !== undefined) this.#dealt.set(ver, beat);
  }

  #takePolicy(record: SignedRecord<RecordBody>): Taken {
    const body = parsePolicy(record.body);
    if (body.cg !== this.cg) return 'ignored';
    const family = toHex(body.family);
    const last = this.#families.get(family);
    // Anybody may file a first version. It counts when a KEK record names it, so room is kept for some.
    if (last === undefined && this.#families.size >= policyFamiliesMax) return 'ignored';
    const next = { body, cid: record.cid, number: body.ver };
    if (this.#continues(`pol/${family}`, last, next) === 'known') return 'known';
    const signed = body.ver === 1 || (this.#frostPk !== undefined && verifyPolicy(body, this.#frostPk));
    if (!signed) throw unsigned(this.cg);
    if (body.ver === 1) this.#roots.set(family, record.cid);
    this.#families.set(family, next);
    return 'taken';
  }

  #takeRevocation(record: SignedRecord<RecordBody>): Taken {
    const body = parseRevocation(record.body);
    if (body.cg !== this.cg) return 'ignored';
    const next = { body, cid: record.cid, number: body.n };
    if (this.#continues(`rev/${body.cg}`, this.#lastRevocation, next) === 'known') return 'known';
    this.#lastRevocation = next;
    const authorities = this.policy(this.kek()?.policyRoot ?? null)?.authorities ?? [];
    if (!authorities.some((key) => sameBytes(key, body.writer))) return 'ignored';
    this.#revocations = this.#revocations.withRecord(body);
    return 'taken';
  }

  #takeCertificate(record: SignedRecord<RecordBody>): Taken {
    const body = parseCertificate(record.body);
    if (body.cg !== this.cg) return 'ignored';
    const last = this.#lastCertificate.get(body.ver);
    const next = { body, cid: record.cid, number: body.n };
    if (this.#continues(`cert/${body.cg}/${body.ver}`, last, next) === 'known') return 'known';
    if (this.#frostPk === undefined || !verifyCertificate(body, this.#frostPk)) throw unsigned(this.cg);
    this.#lastCertificate.set(body.ver, next);
    if (body.what === 'rotation') this.#certificates.set(record.cid.toString(), body);
    else this.#dealt.set(body.ver, body.beat);
    if (body.what === 'birth') this.#takenOver = policiesTakenOver(body);
    return 'taken';
  }

  /** `next` when it follows `last`, `known` when it is `last` again. Throws for anything older or other. */
  #continues<Body extends RecordBody>(
    chain: string,
    last: Last<Body> | undefined,
    next: Last<Body>,
  ): 'next' | 'known' {
    if (last !== undefined && sameBytes(last.cid.bytes, next.cid.bytes)) return 'known';
    const expected = (last?.number ?? 0) + 1;
    const pin = this.#pins[chain];
    const isOther = pin?.number === next.number && !sameBytes(pin.cid, next.cid.bytes);
    if (next.number < expected || isOther)
      throw refused(
        isOther
          ? `${chain}: number ${next.number} is another record than it was: the registry was set back, or lies`
          : `${chain}: number ${next.number} after ${expected - 1}: the registry was set back, or lies`,
      );
    if (next.number > expected) throw refused(`${chain}: number ${next.number} given, ${expected} is next`);
    const { prev } = next.body;
    const follows =
      last === undefined ? prev === null : prev !== null && sameBytes(prev.bytes, last.cid.bytes);
    if (!follows) throw refused(`${chain}: number ${next.number} does not follow the one that is known`);
    return 'next';
  }
}

function unsigned(cg: string): HoldfastError {
  return refused(`a record of custody group ${cg} without the signature of the group`);
}

function refused(message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', message);
}
