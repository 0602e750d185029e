// The custody group of a cluster as somebody sees it who asks its custodians: believed link by link, from the operator.
//
//   operator's membership ─▶ birth certificate ─▶ frostPk ─▶ KEK records, policies, rotation certificates
//
// Whoever hands the records out is not believed for that. What was believed once is pinned: the group's signing key
// and how many records of each chain there were. A registry that has fewer was set back, and then nothing is believed
// until it has caught up; one that tells of another key is refused for good.

import type { CID } from '../core/block.ts';
import { keyOfHex, toHex } from '../core/bytes.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import type { KekFields, TdecKek } from '../envelope/kek.ts';
import { parseKek } from '../envelope/records.ts';
import { openRecord } from '../manifest/record.ts';
import { birthProblem } from './birth.ts';
import { CustodyBook } from './book.ts';
import { type BirthCertificate, parseCertificate, type RotationCertificate } from './certificate.ts';
import type { DirectoryPin } from './directory-pin.ts';
import { type Over, overBy } from './over.ts';
import type { PolicyBody } from './policy.ts';
import type { PolicyHead } from './policy-change.ts';
import type { Revocations } from './revocation.ts';
import { type Succession, successionOf, Successions } from './succession.ts';

/** Shares of a version of the key that whoever had them is to erase. */
export interface OverShares {
  readonly version: number;
  readonly peer: PeerName;
  /** The last generation of which it had some. */
  readonly gen: number;
  readonly why: Over;
}

export interface DirectoryOptions {
  readonly cg: string;
  /** What an earlier process saw. */
  readonly pin?: DirectoryPin | undefined;
  /** Custodians that the operator's membership names, with their Ed25519 keys. */
  readonly custodians: () => ReadonlyMap<PeerName, Uint8Array>;
  /** Ed25519 key of the operator, who alone can put another group in the place of one. */
  readonly operator: Uint8Array;
}

/** A record of custody as the registry gives it: its chain and its bytes. */
export interface CustodyRecordBytes {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export class CustodyDirectory {
  readonly cg: string;
  readonly #options: DirectoryOptions;
  readonly #book: CustodyBook;
  readonly #marks = new Map<string, number>();
  readonly #last = new Map<string, CID>();
  readonly #switched = new Map<number, number>();
  /** Everybody who ever had shares of a version, and the last generation of them. */
  readonly #holders = new Map<number, Map<PeerName, number>>();
  #first: TdecKek | undefined;
  #birth: BirthCertificate | undefined;
  readonly #successions: Successions;
  #isBorn = false;
  #bornProblem: string | undefined;
  #problem: string | undefined = unread;

  constructor(options: DirectoryOptions) {
    const { cg, pin } = options;
    this.cg = cg;
    this.#options = options;
    const pinned = pin?.cg === cg ? keyOfHex(pin.frostPk) : undefined;
    this.#book = new CustodyBook(cg, pinned);
    this.#successions = new Successions(options);
  }

  /** Takes one record, in the order of the registry. One that is no good is remembered as the problem; never throws for it. */
  take({ key, bytes }: CustodyRecordBytes): void {
    this.#successions.take({ key, bytes });
    try {
      const taken = this.#book.take(bytes);
      // A revocation of somebody without authority counts for nothing, and still stands in its chain.
      if (taken !== 'taken' && !(taken === 'ignored' && key.startsWith(`rev/${this.cg}/`))) return;
      const chain = chainOf(key);
      this.#marks.set(chain, (this.#marks.get(chain) ?? 0) + 1);
      this.#note(chain, bytes);
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
      // Everybody may file a first policy; what is not the group's own does it no harm.
      if (isForeign(key, this.cg)) return;
      this.#problem = describeError(error);
    }
  }

  /** Says that everything the registry has was taken: decides whether it is believed. */
  settle(): void {
    const { pin, custodians } = this.#options;
    if (this.#problem === unread) this.#problem = undefined;
    if (this.#problem !== undefined) return;
    const lost = Object.entries(pin?.cg === this.cg ? pin.marks : {}).find(
      ([key, count]) => (this.#marks.get(key) ?? 0) < count,
    );
    if (lost !== undefined) {
      const [key, count] = lost;
      this.#problem = `the registry has ${this.#marks.get(key) ?? 0} records of ${key} and had ${count}: it was set back`;
      return;
    }
    if (this.#book.frostPk === undefined || this.#first === undefined) return;
    // Checked once, here or by who pinned it: that those who made the key left the membership since says nothing of it.
    if (pin?.cg === this.cg || this.#isBorn) return;
    this.#bornProblem =
      this.#birth === undefined
        ? 'there is no certificate of its birth'
        : birthProblem(this.#first, this.#birth, custodians());
    this.#isBorn = this.#bornProblem === undefined;
  }

  /** The group that has come into the place of this one; undefined while it stands. Said of one that is not believed, too. */
  get endedBy(): Succession | undefined {
    return this.#successions.of(this.cg);
  }

  /** Policies of groups before this one that it has taken over, by their first versions. */
  get takenOver(): readonly CID[] {
    return this.#book.takenOver;
  }

  /** The group in whose place this one is; undefined for the first one of a cluster. */
  get inPlaceOf(): Succession | undefined {
    return this.#birth === undefined ? undefined : successionOf(this.#birth, this.#options.operator);
  }

  /** Why nothing of this group is believed, in words. */
  get problem(): string | undefined {
    const problem = this.#problem ?? this.#bornProblem;
    return problem === undefined ? undefined : `custody group ${this.cg} is not believed: ${problem}`;
  }

  /** True when there is a group to be believed. */
  get initialised(): boolean {
    return this.problem === undefined && this.#first !== undefined;
  }

  /** The key to wrap under; undefined while there is none. Throws KEY_UNAVAILABLE when the group is not believed. */
  active(): TdecKek | undefined {
    const kek = this.#believed().kek();
    return kek?.state === 'active' ? kek : undefined;
  }

  /** The newest record of a version; undefined when there is none. Throws KEY_UNAVAILABLE when the group is not believed. */
  kek(version: number): TdecKek | undefined {
    return this.#believed().kek(version);
  }

  /** The policy that the active key names, in its newest version. */
  policy(): PolicyBody | undefined {
    return this.#book.policy(this.#book.kek()?.policyRoot ?? null);
  }

  /** The same with the CID of its record. */
  policyHead(): PolicyHead | undefined {
    return this.#believed().policyHead();
  }

  /** A rotation certificate by the CID of its record. */
  certificate(cid: CID): RotationCertificate | undefined {
    return this.#book.certificate(cid);
  }

  /** What authorities have withdrawn, as far as the records were read. */
  revocations(): Revocations {
    return this.#believed().revocations;
  }

  /** How many records of a chain (`rev/<group>`, `cert/<group>/<version>`) there are: the number of the newest one. */
  count(chain: string): number {
    return this.#marks.get(chain) ?? 0;
  }

  /** The newest record of a chain. */
  last(chain: string): CID | undefined {
    return this.#last.get(chain);
  }

  /** Branch keys that rotations brought under a version of the key. */
  switched(version: number): number {
    return this.#switched.get(version) ?? 0;
  }

  /** True when `peer` has, or once had, shares of that version of the key: it may have kept them. */
  hasHeld(version: number, peer: PeerName): boolean {
    return this.#holders.get(version)?.has(peer) === true;
  }

  /** Shares that are to be erased by now, of everybody who ever had them. */
  over(): readonly OverShares[] {
    return this.versions().flatMap((kek) =>
      [...(this.#holders.get(kek.ver) ?? [])].flatMap(([peer, gen]) => {
        const why = overBy(kek, peer, { gen, status: 'active' });
        return why === undefined ? [] : [{ version: kek.ver, peer, gen, why }];
      }),
    );
  }

  /** Every version of the key that there is a record of, the newest record of each, oldest first. */
  versions(): readonly TdecKek[] {
    const book = this.#believed();
    const highest = Math.max(0, ...[...this.#marks.keys()].map((chain) => versionOf(chain, this.cg)));
    return Array.from({ length: highest }, (_, at) => book.kek(at + 1)).filter((kek) => kek !== undefined);
  }

  /** Beat at which the shares of a version were dealt, as its records say (`CustodyBook.dealtBeat`). */
  dealtBeat(version: number): number | undefined {
    return this.#book.dealtBeat(version);
  }

  /** What to remember; undefined while nothing is believed. */
  pin(): DirectoryPin | undefined {
    const { frostPk } = this.#book;
    if (!this.initialised || frostPk === undefined) return undefined;
    const family = this.policy()?.family;
    const own = family === undefined ? '' : `pol/${toHex(family)}`;
    const marks = [...this.#marks].filter(([chain]) => !chain.startsWith('pol/') || chain === own);
    const ended = this.#options.pin?.ended;
    const pin = { v: 1, cg: this.cg, frostPk: toHex(frostPk), marks: Object.fromEntries(marks) } as const;
    return ended === undefined ? pin : { ...pin, ended };
  }

  #believed(): CustodyBook {
    if (this.problem !== undefined) throw new HoldfastError('KEY_UNAVAILABLE', this.problem);
    return this.#book;
  }

  #note(chain: string, bytes: Uint8Array): void {
    const { body, cid } = openRecord(bytes);
    this.#last.set(chain, cid);
    if (body.kind === 'kek') {
      const kek: KekFields = parseKek(body);
      if (kek.provider === 'tdec' && kek.ver === 1 && kek.seq === 1) this.#first = kek;
      if (kek.provider === 'tdec') {
        const holders = this.#holders.get(kek.ver) ?? new Map<PeerName, number>();
        for (const { peer } of kek.custodians) holders.set(peer, kek.shareGen);
        this.#holders.set(kek.ver, holders);
      }
    }
    if (body.kind !== 'certificate') return;
    const certificate = parseCertificate(body);
    if (certificate.what === 'birth') this.#birth = certificate;
    if (certificate.what === 'rotation')
      this.#switched.set(certificate.ver, this.switched(certificate.ver) + certificate.count);
  }
}

/** The version that a chain of KEK records is about; 0 for another chain. */
function versionOf(chain: string, cg: string): number {
  const prefix = `kek/${cg}/`;
  return chain.startsWith(prefix) ? Number(chain.slice(prefix.length)) : 0;
}

const unread = 'its records have not been read yet';

/** All records of a key version have one key; those of other chains end with their number. */
function chainOf(key: string): string {
  return key.startsWith('kek/') ? key : key.slice(0, key.lastIndexOf('/'));
}

/** Chains that others may write to or that are another group's. */
function isForeign(key: string, cg: string): boolean {
  const [kind, group] = key.split('/');
  return kind === 'pol' || group !== cg;
}
