// When a custodian goes over to the next generation of its shares, and when it erases what is past.
//
// What is staged becomes active only under a KEK record that the group has signed, that names exactly these shares.
// The generation before stays usable for a bar, and never for less than a wall-clock floor: readers hold requests for
// it, and a fast pulse must not take it away from them. Then it is erased, with the prekeys that it came by. Who is
// no member any more erases everything, what was sealed to its prekeys too: at once, if it was not running when that
// came about, because then nobody holds a request for it.

import { preimage, sha256 } from '../core/hash.ts';
import { sameBytes } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { kekPreimage, type TdecKek } from '../envelope/kek.ts';
import { headsOf, isBehind, withShown } from './ballot.ts';
import type { CeremonyDesk } from './ceremony-desk.ts';
import { whyOver } from './over.ts';
import { versionsOf } from './rotation-marks.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import type { ShareEntry, ShareRef } from './share-state.ts';

const overlapMs = 2 * minute;

/** What is to be erased, and since when this process has known. */
interface Leaving {
  readonly beat: number;
  readonly atMs: number;
}

export class Activation {
  readonly #desk: CeremonyDesk;
  readonly #leaving = new Map<string, Leaving>();
  /** Shares that were here at the start, until the registry has said something of their version. */
  readonly #unlooked: Set<string>;

  constructor(desk: CeremonyDesk) {
    this.#desk = desk;
    this.#unlooked = new Set(desk.ports.shares.shares().map(({ id }) => id));
  }

  /**
   * Looks at a signed record: activates what is staged for it. True when the shares of its generation are active now.
   * Throws RECORD_INVALID, FORBIDDEN for a record that is not the group's, and what the share store throws.
   */
  async take(bytes: Uint8Array): Promise<boolean> {
    const staged = this.#stagedPk(bytes);
    return activateStaged(this.#desk, this.#desk.base(bytes, staged).kek, bytes);
  }

  /** Activates what the registry says, and erases what is past its time; called once a beat. `nowMs`: a reading of a monotonic clock. */
  async settle(nowMs: number): Promise<void> {
    const { shares, beat, books } = this.#desk.ports;
    const now = beat();
    if (now.lost !== undefined) return;
    await this.#takeFollowed();
    const past = new Set<string>();
    for (const entry of shares.shares()) {
      const kek = books.book(entry.cg)?.kek(entry.kekVer);
      const erase = this.#isLeft(entry) ? () => this.#leave(entry) : this.#whatToErase(entry, kek);
      if (erase === undefined) continue;
      past.add(entry.id);
      const since = this.#leaving.get(entry.id) ?? { beat: now.beat, atMs: nowMs };
      this.#leaving.set(entry.id, since);
      const isOver =
        now.beat >= since.beat + this.#desk.ports.beatsPerBar() && nowMs >= since.atMs + overlapMs;
      if (isOver) await erase();
    }
    for (const id of this.#leaving.keys()) if (!past.has(id)) this.#leaving.delete(id);
  }

  /**
   * Called when the registry was read, before anything is answered by it. Shares that were here at the start, of a
   * generation that this custodian is no member of any more, are erased at once; later calls do nothing.
   */
  async wake(): Promise<void> {
    const { shares, books } = this.#desk.ports;
    for (const entry of shares.shares()) {
      if (!this.#unlooked.has(entry.id) || books.book(entry.cg)?.kek(entry.kekVer) === undefined) continue;
      if (this.#isLeft(entry)) await this.#leave(entry);
      this.#unlooked.delete(entry.id);
    }
  }

  #isLeft(entry: ShareEntry): boolean {
    const { books, peer } = this.#desk.ports;
    return whyOver(books, peer, entry) === 'left';
  }

  /** A record that was followed in the registry is as good as one that was shown. */
  async #takeFollowed(): Promise<void> {
    const { shares, books } = this.#desk.ports;
    const staged = shares.shares().filter(({ status, key }) => status === 'staged' && key === 'kek');
    for (const { cg, kekVer, gen } of staged) {
      const kek = books.book(cg)?.kek(kekVer);
      if (kek?.shareGen === gen) await activateStaged(this.#desk, kek);
    }
  }

  #whatToErase(entry: ShareEntry, kek: TdecKek | undefined): (() => Promise<void>) | undefined {
    const { shares } = this.#desk.ports;
    const ref: ShareRef = { cg: entry.cg, kekVer: entry.kekVer, gen: entry.gen };
    if (entry.status === 'staged' && this.#isPromised(entry, kek)) return undefined;
    if (entry.status === 'active') return undefined;
    return async () => {
      // Never what a new attempt has staged in its place while we waited for the disk.
      await shares.erase(ref, entry.id);
      if (kek !== undefined) await this.#erasePrekeys(kek);
    };
  }

  /** Written down, then the prekeys, then the shares: cut anywhere, it is found again and done again. */
  async #leave({ cg, kekVer, gen }: ShareEntry): Promise<void> {
    const { shares } = this.#desk.ports;
    // The shares of the other key went with those that were looked at before.
    if (!shares.shares().some((each) => each.cg === cg && each.kekVer === kekVer && each.gen === gen)) return;
    await this.#desk.note('erase', { cg, kekVer, shareGen: gen }, 'no member of the group any more');
    await this.#renewPrekeys();
    await shares.leave({ cg, kekVer });
  }

  /** What dealers sealed to the old ones would give the shares back, to whoever kept it. */
  async #renewPrekeys(): Promise<void> {
    const { shares, books, random } = this.#desk.ports;
    const isMember = books
      .groups()
      .flatMap((cg) => versionsOf(books.book(cg)))
      .some((kek) => kek.state !== 'destroyed' && this.#desk.seat(kek) !== undefined);
    if (isMember) return;
    const epoch = Math.max(0, ...shares.keyPairs().map((pair) => pair.epoch)) + 1;
    const { publicKey, secretKey } = generateKeyPair(random);
    try {
      await shares.addKeyPair({ kind: 'prekey', epoch, publicKey }, secretKey);
    } finally {
      secretKey.fill(0);
    }
    await shares.erasePrekeysBefore(epoch);
  }

  /** While others may still count on it: until the registry shows another record in the place it was dealt for. */
  #isPromised({ cg, gen }: ShareEntry, kek: TdecKek | undefined): boolean {
    const { shares, books } = this.#desk.ports;
    const ballot = shares.ballot(cg);
    if (ballot === undefined || ballot.stored === null) return false;
    const book = books.book(cg);
    if (book === undefined || books.problem(cg) !== undefined) return true;
    if (kek !== undefined && kek.shareGen >= gen) return false;
    return !isBehind(ballot.heads, headsOf(versionsOf(book)));
  }

  /** Prekeys before the one that the present record names have nothing to receive any more. */
  async #erasePrekeys(kek: TdecKek): Promise<void> {
    const { shares } = this.#desk.ports;
    const named = this.#desk.seat(kek)?.prekey;
    const pair = shares
      .keyPairs()
      .find(({ kind, publicKey }) => kind === 'prekey' && named !== undefined && sameBytes(publicKey, named));
    if (pair !== undefined) await shares.erasePrekeysBefore(pair.epoch);
  }

  /** Of a group that is only being made, its key is the staged one. */
  #stagedPk(bytes: Uint8Array): Uint8Array | undefined {
    const cg = this.#desk.groupOf(bytes);
    if (this.#desk.frostPkOf(cg) !== undefined) return undefined;
    return this.#desk.ports.shares
      .shares()
      .find((each) => each.cg === cg && each.key === 'frost' && each.status === 'staged')?.publicKey;
  }
}

/**
 * Activates what is staged for a record that the group has signed. True when the shares of its generation are active
 * now. `shown`: the record, from somebody who may keep it from the registry: it is kept here until that has it.
 */
export async function activateStaged(desk: CeremonyDesk, kek: TdecKek, shown?: Uint8Array): Promise<boolean> {
  if (desk.own(kek) !== undefined) return true;
  const ref = { cg: kek.cg, kekVer: kek.ver, gen: kek.shareGen };
  if (!isStaged(desk, ref, kek)) return false;
  const isFiled = (desk.ports.books.book(kek.cg)?.kek(kek.ver)?.seq ?? 0) >= kek.seq;
  if (shown !== undefined && !isFiled && desk.ports.shares.ballot(kek.cg) !== undefined)
    await desk.ports.shares.vote(kek.cg, (ballot) => withShown(ballot, shown));
  const op = kek.shareGen === 1 ? 'init' : 'refresh';
  await desk.note(op, { cg: kek.cg, kekVer: kek.ver, shareGen: kek.shareGen }, 'active');
  const { beat } = desk.ports.beat();
  await desk.ports.shares.activate(ref, { beat, certificate: certificateOf(kek) });
  return desk.own(kek) !== undefined;
}

function isStaged(desk: CeremonyDesk, ref: ShareRef, kek: TdecKek): boolean {
  const of = (key: 'kek' | 'frost') =>
    desk.ports.shares
      .shares()
      .find(
        (each) =>
          each.status === 'staged' &&
          each.key === key &&
          each.cg === ref.cg &&
          each.kekVer === ref.kekVer &&
          each.gen === ref.gen,
      );
  const same = (a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean =>
    a.length === b.length && a.every((point, at) => sameBytes(point, b[at] ?? new Uint8Array(0)));
  const own = of('kek');
  const frost = of('frost');
  return (
    own !== undefined &&
    frost !== undefined &&
    desk.seat(kek)?.i === own.index &&
    sameBytes(own.publicKey, kek.Y) &&
    sameBytes(frost.publicKey, kek.frostPk) &&
    same(own.verificationShares, kek.Yi) &&
    same(frost.verificationShares, kek.frostYi)
  );
}

/** What entitles shares to be active: the signed record. */
export function certificateOf(kek: TdecKek): Uint8Array {
  return sha256(preimage('CHORUS-SLURP-ACTIVE-v1', kekPreimage(kek)));
}
