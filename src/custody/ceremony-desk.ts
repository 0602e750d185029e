// What the custodian halves of all ceremonies share: what is here of the group, its prekeys, who may ask, and a note
// in the audit log for everything that touches a share.

import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { sameBytes } from '../core/bytes.ts';
import type { PeerName } from '../core/rpc.ts';
import type { KekCustodian, TdecKek } from '../envelope/kek.ts';
import { openRecord } from '../manifest/record.ts';
import type { RandomBytes } from '../threshold/group.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import type { KeySet } from '../threshold/key-set.ts';
import { type AuditOp, entryOf } from './audit-leaf.ts';
import type { AuditLog } from './audit-log.ts';
import { birthProblem } from './birth.ts';
import type { CustodyBooks } from './books.ts';
import { type BaseKek, type Both, type CustodyGroups, type Hello, readBase } from './ceremony.ts';
import { parseCertificate, verifyCertificate } from './certificate.ts';
import type { CustodianOrders } from './custodian-orders.ts';
import { endedText } from './ended.ts';
import type { BeatNow } from './freshness.ts';
import type { OpenedOrder, OrderOp } from './order.ts';
import type { ShareEntry, ShareFacts, ShareKey, ShareRef } from './share-state.ts';
import type { ShareStore } from './share-store.ts';

export interface CeremonyPorts {
  readonly shares: ShareStore;
  readonly log: AuditLog;
  readonly books: CustodyBooks;
  readonly orders: Pick<CustodianOrders, 'admit'>;
  /** Reads what is new among the registry's records of custody. */
  readonly follow: () => Promise<void>;
  /** The custodian's identity. */
  readonly signer: Signer;
  readonly peer: PeerName;
  /** Ed25519 key of the operator of the cluster. */
  readonly operator: Uint8Array;
  readonly groups: () => Promise<CustodyGroups>;
  readonly random: RandomBytes;
  readonly beat: () => BeatNow;
  /** Beats in a bar. */
  readonly beatsPerBar: () => number;
  /** Wall clock, milliseconds since 1970. */
  readonly now: () => number;
  /** Ed25519 key of a custodian of this cluster. Throws FORBIDDEN for a peer that is none. */
  readonly custodianKey: (peer: PeerName) => Uint8Array;
  /** All custodians that the operator's membership names, with their Ed25519 keys. */
  readonly custodians: () => ReadonlyMap<PeerName, Uint8Array>;
}

/** One custodian's part in one session, from its first answer on. */
export interface Session {
  /** Custody group: one session at a time. */
  readonly cg: string;
  /** Answer to the first step. */
  readonly begun: unknown;
  /** The further steps: from what the coordinator brings to what goes back. */
  readonly steps: Readonly<Record<string, (payload: unknown) => Promise<unknown>>>;
  /** Forgets all secrets of the session. */
  close(): void;
}

/** Both shares of one generation as they lie here. */
export interface OwnShares {
  readonly kek: ShareEntry;
  readonly frost: ShareEntry;
}

export class CeremonyDesk {
  readonly ports: CeremonyPorts;
  /** Wall clock of the last time that we signed a next generation. */
  refreshedAtMs = Number.NEGATIVE_INFINITY;

  constructor(ports: CeremonyPorts) {
    this.ports = ports;
  }

  /**
   * The present record, which must be of the group that this custodian belongs to, or that `frostPk` of an order
   * names, and not older than what it has.
   */
  base(bytes: Uint8Array, frostPk?: Uint8Array): BaseKek {
    const base = readBase(bytes);
    const { cg, ver, shareGen, seq, frostPk: given } = base.kek;
    this.requireStanding(cg);
    const pinned = this.#entries(cg, ver, 'frost')[0]?.publicKey ?? this.frostPkOf(cg) ?? frostPk;
    if (pinned === undefined || !sameBytes(pinned, given) || (frostPk && !sameBytes(frostPk, given)))
      throw new HoldfastError('FORBIDDEN', `the record is not signed by group ${cg} as it is known here`);
    const known = this.ports.books.book(cg)?.kek(ver);
    const held = Math.max(0, ...this.#entries(cg, ver, 'kek').map(({ gen }) => gen));
    if (shareGen < held || seq < (known?.seq ?? 0))
      throw new HoldfastError('VERSION_CONFLICT', `a newer record of key ${ver} of ${cg} is known here`);
    return base;
  }

  /** Throws FORBIDDEN for a group in whose place another one is. */
  requireStanding(cg: string): void {
    const ended = endedText(this.ports, cg);
    if (ended !== undefined) throw new HoldfastError('FORBIDDEN', ended);
  }

  /** The group that a KEK record is about. Throws RECORD_INVALID. */
  groupOf(bytes: Uint8Array): string {
    return readBase(bytes).kek.cg;
  }

  /**
   * The signing key of a group as its birth proves it, for a custodian that has lost all it knew: the first record,
   * and the certificate in which all who made it, more than half of the custodians of this cluster, signed for it.
   */
  anchor(first: Uint8Array, certificate: Uint8Array): Uint8Array {
    const { kek } = readBase(first);
    const birth = parseCertificate(openRecord(certificate).body);
    const problem =
      birth.what !== 'birth' || !verifyCertificate(birth, kek.frostPk)
        ? 'its certificate is not one of birth, or not signed by it'
        : birthProblem(kek, birth, this.ports.custodians());
    if (problem === undefined) return kek.frostPk;
    throw new HoldfastError('FORBIDDEN', `group ${kek.cg} is not believed: ${problem}`);
  }

  /** True when both shares can be opened: files may be damaged. */
  async areReadable({ kek, frost }: OwnShares): Promise<boolean> {
    try {
      for (const { cg, kekVer, gen, key } of [kek, frost])
        (await this.ports.shares.openShare({ cg, kekVer, gen }, key)).secret.fill(0);
      return true;
    } catch (error) {
      if (isHoldfastError(error, 'RECORD_CORRUPT')) return false;
      throw error;
    }
  }

  /** The group's signing key as a share of any version says it. */
  frostPkOf(cg: string): Uint8Array | undefined {
    return this.ports.shares
      .shares()
      .find((each) => each.cg === cg && each.key === 'frost' && each.status !== 'staged')?.publicKey;
  }

  /** Our active shares of exactly this record's generation; undefined when one is missing. */
  own({ cg, ver, shareGen, Y, Yi, frostPk, frostYi }: TdecKek): OwnShares | undefined {
    const of = (key: ShareKey): ShareEntry | undefined =>
      this.#entries(cg, ver, key).find(({ status, gen }) => status === 'active' && gen === shareGen);
    const kek = of('kek');
    const frost = of('frost');
    if (kek === undefined || frost === undefined) return undefined;
    const fits = (entry: ShareEntry, publicKey: Uint8Array, shares: readonly Uint8Array[]): boolean =>
      sameBytes(entry.publicKey, publicKey) &&
      sameBytes(entry.verificationShares[entry.index - 1] ?? publicKey, shares[entry.index - 1] ?? Y);
    return fits(kek, Y, Yi) && fits(frost, frostPk, frostYi) ? { kek, frost } : undefined;
  }

  /** Where this custodian stands in the record. */
  seat<C extends Pick<KekCustodian, 'peer'>>(kek: { readonly custodians: readonly C[] }): C | undefined {
    return kek.custodians.find(({ peer }) => peer === this.ports.peer);
  }

  /** Our hello. Makes the prekey of the next epoch, durably, unless an earlier attempt has. */
  async hello(
    present: TdecKek | undefined,
    own: OwnShares | undefined,
    frostDkgPk: Uint8Array | null,
  ): Promise<Hello> {
    const { random } = this.ports;
    const { current, next } = await this.#prekeys(present);
    const dkg = this.ports.shares.keyPairs().find(({ kind }) => kind === 'dkg');
    if (dkg === undefined)
      throw new HoldfastError('KEY_UNAVAILABLE', 'this custodian has no keys for ceremonies');
    return {
      nonce: random(32),
      dkgPk: dkg.publicKey,
      frostDkgPk,
      prekey: current.publicKey,
      prekeyEpoch: current.epoch,
      nextPrekey: next.publicKey,
      nextEpoch: next.epoch,
      gen: own?.kek.gen ?? 0,
      frostC: own?.frost.commitments ?? [],
    };
  }

  /** The secret of the prekey with this public part; the caller zeroes it. */
  async openPrekey(publicKey: Uint8Array): Promise<Uint8Array> {
    const pair = this.ports.shares
      .keyPairs()
      .find((each) => each.kind === 'prekey' && sameBytes(each.publicKey, publicKey));
    if (pair === undefined) throw new HoldfastError('KEY_UNAVAILABLE', 'that prekey was erased here');
    return this.ports.shares.openKeyPair('prekey', pair.epoch);
  }

  /** An order of who may give one, for now. Throws RECORD_INVALID, FORBIDDEN. */
  order(message: Uint8Array, cg: string, ops: readonly OrderOp[]): OpenedOrder {
    const opened = this.ports.orders.admit(message);
    const { order } = opened;
    if (order.cg === cg && ops.includes(order.op)) return opened;
    throw new HoldfastError('FORBIDDEN', `an order to ${ops.join(' or ')} group ${cg} expected`);
  }

  /** Puts verified shares by for the generation of `ref`; on the disk when it resolves. The shares stay the caller's. */
  async stage(ref: ShareRef, index: number, keys: Both<KeySet>, secrets: Both<Uint8Array>): Promise<void> {
    const { beat } = this.ports.beat();
    for (const key of ['kek', 'frost'] as const)
      await this.ports.shares.stage(ref, key, {
        facts: factsOf(index, keys[key]),
        secret: secrets[key],
        beat,
      });
  }

  /** Writes down what is done with the shares, before it is. Throws KEY_UNAVAILABLE: then it is not done. */
  async note(
    op: AuditOp,
    about: { readonly cg: string; readonly kekVer: number; readonly shareGen: number },
    reason: string,
    order?: OpenedOrder,
  ): Promise<void> {
    const { beat, now, log } = this.ports;
    const by = order === undefined ? {} : { reqHash: order.hash, requester: order.order.by };
    const said = { ...about, ...by, purpose: 'ceremony', reason };
    try {
      await log.append(entryOf({ op, beat: beat().beat, at: now(), ...said }));
    } catch (cause) {
      throw new HoldfastError('KEY_UNAVAILABLE', 'no ceremony goes on that is not written down', { cause });
    }
  }

  #entries(cg: string, kekVer: number, key: ShareKey): ShareEntry[] {
    return this.ports.shares
      .shares()
      .filter(
        (each) => each.cg === cg && each.kekVer === kekVer && each.key === key && each.status !== 'staged',
      );
  }

  /** The prekey that the record names, or the newest where it names none that is here; and the one after it. */
  async #prekeys(kek: TdecKek | undefined) {
    const { shares, random } = this.ports;
    const rising = () =>
      shares
        .keyPairs()
        .filter(({ kind }) => kind === 'prekey')
        .toSorted((a, b) => a.epoch - b.epoch);
    const named = kek === undefined ? undefined : this.seat(kek)?.prekey;
    const current =
      rising().find(({ publicKey }) => named !== undefined && sameBytes(publicKey, named)) ?? rising().at(-1);
    if (current === undefined)
      throw new HoldfastError('KEY_UNAVAILABLE', 'this custodian has no keys for ceremonies');
    if (kek === undefined) return { current, next: current }; // nothing is sealed to it before the group is there
    const there = rising().find(({ epoch }) => epoch > current.epoch);
    if (there !== undefined) return { current, next: there };
    const { publicKey, secretKey } = generateKeyPair(random);
    const next = { kind: 'prekey', epoch: current.epoch + 1, publicKey } as const;
    await shares.addKeyPair(next, secretKey);
    secretKey.fill(0);
    return { current, next };
  }
}

export function factsOf(index: number, { t, n, Y, C, Yi }: KeySet): ShareFacts {
  return { index, t, n, publicKey: Y, commitments: C, verificationShares: Yi };
}
