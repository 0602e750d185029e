// What holds of a custody group at every moment, whatever was done to it and whoever has just died:
//
// - Any t members that hold the current generation open every key; one fewer does not, also not together with all
//   others, with a share of another generation or version, or with all that was ever stolen.
// - The public key of a version stays, and that of the group. Wraps change by pages of a rotation only.
// - A store goes forward, and holds one share of a kind.

import assert from 'node:assert/strict';
import { encodeCbor } from '../../src/core/block.ts';
import { listsWrap } from '../../src/custody/certificate.ts';
import type { CustodyBook } from '../../src/custody/book.ts';
import type { ShareEntry } from '../../src/custody/share-state.ts';
import type { TdecKek } from '../../src/envelope/kek.ts';
import type { BranchKeyBody } from '../../src/envelope/records.ts';
import { concat, toHex } from '../../src/core/bytes.ts';
import { cg, type CustodianSite } from './ceremony-world.ts';
import type { Dice } from './dice.ts';
import { answerWith, MobileThief } from './mobile-thief.ts';
import type { KnownKey, RotationWorld } from './rotation-world.ts';

export class CustodyInvariants {
  readonly #world: RotationWorld;
  readonly #thief = new MobileThief();
  /** Y of each version, in hex. */
  readonly #publicKeys = new Map<number, string>();
  /** The generation that each sharing of a version's key is, and of the signing key beside it. */
  readonly #sharings = new Map<string, string>();
  readonly #wraps = new Map<string, BranchKeyBody>();
  /** Highest generation that each store has used, by custodian, version and key. */
  readonly #generations = new Map<string, number>();

  constructor(world: RotationWorld) {
    this.#world = world;
  }

  /** `dice` choose who is asked. */
  async check(dice: Dice): Promise<void> {
    const { custodians } = this.#world;
    await this.#world.reload();
    this.#checkPublicKeys();
    await this.#checkWraps();
    this.#checkStores();
    await this.#thief.steal(custodians.sites, dice);
    const keks = custodians.versions().map(({ kek }) => kek);
    this.#thief.requirePoor(
      { kek: keks.map(({ Y }) => Y), frost: keks.slice(0, 1).map(({ frostPk }) => frostPk) },
      dice,
    );
    for (const kek of keks.filter(isServing)) await this.#checkReads(kek, dice);
  }

  /** A store that was lost, or set back to an earlier day, begins anew. */
  forget({ name }: CustodianSite): void {
    for (const key of this.#generations.keys()) if (key.startsWith(`${name} `)) this.#generations.delete(key);
  }

  #checkPublicKeys(): void {
    for (const { kek } of this.#world.custodians.versions()) {
      const known = this.#publicKeys.get(kek.ver);
      const now = toHex(kek.Y);
      if (known === undefined)
        assert.ok(![...this.#publicKeys.values()].includes(now), `version ${kek.ver} has a key of its own`);
      else assert.equal(now, known, `public key of version ${kek.ver}`);
      this.#publicKeys.set(kek.ver, now);
      assert.equal(toHex(kek.frostPk), toHex(this.#world.custodians.kek().frostPk));
      // Whoever stole from one generation has nothing of the next.
      for (const points of [kek.C, kek.frostYi]) {
        const sharing = `${kek.ver} ${toHex(concat(...points))}`;
        const gen = `generation ${kek.shareGen}`;
        assert.equal(this.#sharings.get(sharing) ?? gen, gen, 'shares change with every generation');
        this.#sharings.set(sharing, gen);
      }
    }
  }

  async #checkWraps(): Promise<void> {
    const book = this.#world.custodians.book();
    for (const known of this.#world.known) {
      const id = toHex(known.id);
      const now = await this.#world.record(known);
      const before = this.#wraps.get(id);
      this.#wraps.set(id, now);
      if (before === undefined) continue;
      assert.equal(toHex(now.commit), toHex(before.commit), `commitment of ${id}`);
      const had = new Set(before.wraps.map((wrap) => toHex(encodeCbor(wrap))));
      for (const wrap of now.wraps)
        assert.ok(had.has(toHex(encodeCbor(wrap))) || isFromPage(book, now, wrap), `a wrap of ${id}`);
      assert.equal(now.wraps.length, before.wraps.length);
    }
  }

  #checkStores(): void {
    const filed = new Map(this.#world.custodians.versions().map(({ kek }) => [kek.ver, kek]));
    for (const { name, running } of this.#world.custodians.sites.filter(({ isUp }) => isUp)) {
      const rank = ({ status }: ShareEntry): number => ['active', 'staged', 'previous'].indexOf(status);
      const shares = running.shares.shares().toSorted((a, b) => rank(a) - rank(b));
      const places = shares.map(({ kekVer, key, status }) => `${kekVer} ${key} ${status}`);
      assert.equal(new Set(places).size, places.length, `${name}: one share of a kind: ${places.join()}`);
      const versions = new Set(shares.map(({ kekVer }) => kekVer));
      assert.ok(versions.size <= 3, `${name} holds versions ${[...versions].join()}`);
      for (const { kekVer, key, gen, status } of shares) {
        const place = `${name} ${kekVer} ${key}`;
        const highest = this.#generations.get(place) ?? 0;
        const present = filed.get(kekVer)?.shareGen ?? 0;
        if (status === 'active') {
          assert.ok(gen >= highest, `${place}: generation ${gen} after ${highest}`);
          assert.ok(gen <= present, `${place}: generation ${gen} is in use, ${present} is registered`);
          this.#generations.set(place, gen);
        } else if (status === 'staged')
          assert.ok(gen > highest, `${place}: generation ${gen} is staged after ${highest}`);
        else assert.ok(gen < highest, `${place}: generation ${gen} is past, now is ${highest}`);
      }
    }
  }

  async #checkReads(kek: TdecKek, dice: Dice): Promise<void> {
    const world = this.#world;
    const keys: KnownKey[] = [];
    for (const known of world.known)
      if ((await world.record(known)).wraps.some((wrap) => 'kekVer' in wrap && wrap.kekVer === kek.ver))
        keys.push(known);
    const { custodians } = world;
    // Without its disk a custodian cannot write down how far it has read, and gives nothing any more.
    const holders = holdersOf(world, kek).filter(({ name }) => !custodians.isDiskOut(name));
    if (custodians.sites.every(({ isUp, name }) => isUp && !custodians.isDiskOut(name)))
      assert.ok(holders.length >= kek.t, `${holders.length} of ${kek.t} hold version ${kek.ver}`);
    if (keys.length === 0 || holders.length < kek.t) return;
    // One that is being repaired may have the one share, and lack that of the signing key still.
    const others = custodians.sites.filter((site) => !holders.includes(site) && hasKekShare(site, kek));
    const order = dice.shuffled(holders);
    try {
      world.away = peersOf([...order.slice(kek.t), ...others]);
      await world.readAll(keys);
      world.away = peersOf([...order.slice(kek.t - 1), ...others]);
      await this.#requireClosed(keys, kek, 'with one fewer');
      world.away = peersOf([...order.slice(kek.t), ...others]);
      await this.#lie(kek, keys, order, dice);
    } finally {
      world.away = new Set();
      world.liars = new Map();
    }
  }

  /** One that is needed has only what was stolen, of another generation or version. */
  async #lie(
    kek: TdecKek,
    keys: readonly KnownKey[],
    order: readonly CustodianSite[],
    dice: Dice,
  ): Promise<void> {
    const { custodians } = this.#world;
    const stale = dice.one(this.#thief.otherThan(toHex(concat(...kek.C))));
    const seat = kek.custodians.find(({ peer }) => peer === order[kek.t - 1]?.peer);
    if (stale === undefined || seat === undefined) return;
    this.#world.liars = new Map([[seat.peer, answerWith(custodians, seat, stale)]]);
    const what = `with a share of ${stale.kekVer}/${stale.gen} among those of ${kek.ver}/${kek.shareGen}`;
    await this.#requireClosed(keys, kek, what);
  }

  async #requireClosed(keys: readonly KnownKey[], kek: TdecKek, how: string): Promise<void> {
    for (const answer of await this.#world.read(keys)) {
      assert.ok(!answer.ok, `a key of version ${kek.ver} opened ${how}`);
      assert.equal(answer.error.code, 'KEY_UNAVAILABLE', answer.error.message);
    }
  }
}

/** Versions that open wraps. */
export function isServing({ state }: TdecKek): boolean {
  return state === 'active' || state === 'decrypt-only';
}

/** Those that answer for a version, in its present generation. */
export function holdersOf(world: RotationWorld, kek: TdecKek): CustodianSite[] {
  return world.custodians.sites.filter((site) => site.isUp && site.running.desk.own(kek) !== undefined);
}

function hasKekShare(site: CustodianSite, { ver, shareGen }: TdecKek): boolean {
  return (
    site.isUp &&
    site.running.shares
      .shares()
      .some(
        ({ key, kekVer, gen, status }) =>
          key === 'kek' && kekVer === ver && gen === shareGen && status !== 'staged',
      )
  );
}

function peersOf(sites: readonly CustodianSite[]): ReadonlySet<string> {
  return new Set(sites.map(({ peer }) => peer));
}

function isFromPage(
  book: CustodyBook,
  { bkId }: BranchKeyBody,
  wrap: BranchKeyBody['wraps'][number],
): boolean {
  if (wrap.t !== 'tdec-ks' || wrap.cg !== cg) return false;
  const certificate = book.certificate(wrap.cert);
  return certificate !== undefined && certificate.ver === wrap.kekVer && listsWrap(certificate, bkId, wrap);
}
