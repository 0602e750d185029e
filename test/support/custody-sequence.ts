// A custody group through whatever may happen to it, step by step: ceremonies, rotations, losses and time, each cut
// somewhere. Afterwards all that must hold is looked at (custody-invariants.ts).

import assert from 'node:assert/strict';
import { day } from '../../src/core/clock.ts';
import { describeError, isHoldfastError } from '../../src/core/errors.ts';
import { headsOf, isBehind } from '../../src/custody/ballot.ts';
import type { Coordinator } from '../../src/custody/coordinator-run.ts';
import { type CeremonyWorld, cg, type CustodianSite, type Kill, Killed } from './ceremony-world.ts';
import { CustodyInvariants, holdersOf, isServing } from './custody-invariants.ts';
import { Dice } from './dice.ts';
import { PluggedDisks } from './plugged-disks.ts';
import type { PowerCutDisk, Survival } from './power-cut-disk.ts';
import { Life, RotationWorld } from './rotation-world.ts';

export const deeds = [
  'write',
  'refresh',
  'reshare',
  'evict',
  'rotate',
  'repair',
  'lose',
  'set back',
  'pass',
] as const;
export type Deed = (typeof deeds)[number];

/** `at`: which of the places that it comes to. */
export type Cut =
  | { readonly what: 'coordinator dies'; readonly at: number }
  | { readonly what: keyof typeof lucks; readonly whose: number; readonly at: number }
  | { readonly what: 'disk goes'; readonly whose: number; readonly at: number; readonly left: Survival }
  /** Custodian `whose` is shown nothing of the registry that is new in this step. */
  | { readonly what: 'nothing is shown'; readonly whose: number }
  /** Another steward comes in between, and does `deed` before the next call of the first. */
  | { readonly what: 'another comes'; readonly at: number; readonly deed: Deed; readonly seed: number };

export const lucks = {
  'custodian dies': 'kill',
  'custodian restarts': 'restart',
  'message is lost': 'lose',
} as const satisfies Readonly<Record<string, ReturnType<Kill>>>;

export interface Step {
  readonly deed: Deed;
  /** Decides what the deed leaves open. */
  readonly seed: number;
  readonly cuts: readonly Cut[];
  /** Whoever died stays away after it, where the others suffice. */
  readonly staysAway: boolean;
}

export interface Group {
  readonly t: number;
  readonly n: number;
}

const quiet = (): void => undefined;
/** Custodians of the cluster: one more than the largest group. */
const count = 6;
const membersMax = 5;
/** How long all that was begun takes at most, with a key that is given up in between. */
const settleBeatsMax = 260;
const longBeats = 150;

export class CustodySequence implements AsyncDisposable {
  readonly world: RotationWorld;
  /** What became of each deed, for whoever looks for the reason of a failure. */
  readonly told: string[] = [];
  readonly #disks: PluggedDisks;
  readonly #invariants: CustodyInvariants;
  #life = new Life();
  #steward: Coordinator;
  /** Disks as they were on an earlier day. */
  readonly #copies = new Map<string, PowerCutDisk>();

  private constructor(world: RotationWorld, disks: PluggedDisks) {
    this.world = world;
    this.#disks = disks;
    this.#invariants = new CustodyInvariants(world);
    this.#steward = world.steward(this.#life);
    this.#custodians.isDiskOut = (name) => disks.isOut(name);
  }

  static async begin(dir: string, { t, n }: Group): Promise<CustodySequence> {
    const disks = new PluggedDisks();
    const world = await RotationWorld.start(dir, t, n, { count, disk: (_, name) => disks.open(name) });
    world.pageItems = 2;
    const sequence = new CustodySequence(world, disks);
    await world.write(2);
    await world.writeRestricted();
    return sequence;
  }

  /** Does one step, and looks at what is left of it. */
  async take({ deed, seed, cuts, staysAway }: Step): Promise<void> {
    const dice = new Dice(seed);
    if (this.#life.isOver) this.#newSteward();
    this.#arm(cuts);
    try {
      await this.#do(deed, dice);
      this.told.push(deed);
    } catch (error) {
      this.told.push(`${deed}: ${describeError(error)}`);
      if (!(error instanceof Killed)) requireExpected(error);
    } finally {
      this.#disarm();
    }
    if (!staysAway || !(await this.#canGoOn())) await this.#reviveAll();
    await this.world.pass(0);
    await this.#invariants.check(dice);
    if (dice.below(3) === 0) this.#keepCopies();
  }

  /** With everybody there the group comes to rest, and then does all that it is asked to. */
  async settle(seed: number): Promise<void> {
    const dice = new Dice(seed);
    await this.#reviveAll();
    this.#newSteward();
    for (let beats = 0; !this.#isAtRest(false); beats++) {
      assert.ok(beats < settleBeatsMax, `no rest: ${this.#standing()}`);
      // Who has not seen the order that an old version goes by waits a day for somebody to notice it.
      if (beats === longBeats) this.#custodians.nowMs += day;
      await this.#pass(1);
    }
    await this.#invariants.check(dice);
    await this.#refresh();
    for (let beats = 0; !this.#isAtRest(true); beats++) {
      assert.ok(beats < 40, `no rest: ${this.#standing()}`);
      await this.#pass(1);
    }
    await this.#invariants.check(dice);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.world[Symbol.asyncDispose]();
  }

  get #custodians(): CeremonyWorld {
    return this.world.custodians;
  }

  async #do(deed: Deed, dice: Dice): Promise<void> {
    switch (deed) {
      case 'write':
        return dice.below(2) === 0 ? this.world.write(1) : this.world.writeRestricted();
      case 'refresh':
        return this.#order(this.#custodians.dealOrder('refresh', this.#custodians.kek().t, this.#members()));
      case 'reshare':
        return this.#reshare(dice);
      case 'evict':
        return this.#evict(dice);
      case 'rotate':
        return this.#order(this.world.rotateOrder(this.#custodians.kek().ver));
      case 'repair':
        return this.#repair(dice);
      case 'lose':
        return this.#replaceDisk(dice, () => undefined);
      case 'set back':
        return this.#replaceDisk(dice, ({ name }) => this.#copies.get(name));
      case 'pass':
        return this.#pass(dice.one([1, 3, 12, 30]) ?? 1);
    }
  }

  /** Once more where something else was finished in its place. */
  async #refresh(): Promise<void> {
    const { shareGen } = this.#custodians.kek();
    const order = () => this.#custodians.dealOrder('refresh', this.#custodians.kek().t, this.#members());
    await this.#order(order()).catch(async (error: unknown) => {
      if (!isHoldfastError(error, 'VERSION_CONFLICT')) throw error;
      await this.#order(order());
    });
    assert.ok(this.#custodians.kek().shareGen > shareGen, 'another generation');
  }

  async #order(order: Uint8Array): Promise<void> {
    await this.#steward.command(order, quiet);
  }

  async #reshare(dice: Dice): Promise<void> {
    const n = 3 + dice.below(membersMax - 2);
    const members = dice.shuffled(this.#custodians.seats(count)).slice(0, n);
    const t = 2 + dice.below(Math.min(2, n - 2));
    await this.#order(this.#custodians.dealOrder('reshare', t, members));
  }

  async #evict(dice: Dice): Promise<void> {
    const { t, n } = this.#custodians.kek();
    if (n <= 3) return;
    const members = dice.shuffled(this.#members()).slice(1);
    await this.#order(this.#custodians.dealOrder('evict', Math.min(t, n - 2), members));
  }

  async #repair(dice: Dice): Promise<void> {
    if (this.#lacking().length === 0) await this.#replaceDisk(dice, () => undefined);
    const { ver, shareGen } = this.#custodians.kek();
    for (const member of this.#lacking())
      await this.#order(this.#custodians.order('repair', { ver, gen: shareGen, member }));
  }

  /** Indices of members that do not hold what the record says they do. */
  #lacking(): number[] {
    const kek = this.#custodians.kek();
    const holders = holdersOf(this.world, kek).map(({ peer }) => peer);
    return kek.custodians.filter(({ peer }) => !holders.includes(peer)).map(({ i }) => i);
  }

  #members(): { peer: string; org: string }[] {
    return this.#custodians.kek().custodians.map(({ peer, org }) => ({ peer, org }));
  }

  /** Time goes on, beat by beat, with what each brings. */
  async #pass(beats: number): Promise<void> {
    for (let at = 0; at < beats; at++) {
      if (this.#life.isOver) this.#newSteward();
      await this.world.pass(1);
      const { beat } = this.world;
      await this.#steward.onBeat({ beat, downbeat: beat % 10 === 0 }, quiet);
    }
  }

  #newSteward(): void {
    this.#life = new Life();
    this.#steward = this.world.steward(this.#life);
  }

  // Losses

  /** Another disk under a custodian that the group can do without: an empty one, or one of an earlier day. */
  async #replaceDisk(dice: Dice, copyOf: (site: CustodianSite) => PowerCutDisk | undefined): Promise<void> {
    await this.#reviveAll();
    await this.world.pass(0);
    const spare = this.#custodians.sites.filter((site) => this.#isSpare(site));
    const site = dice.one(spare);
    if (site === undefined) return;
    const copy = copyOf(site);
    if (copy === undefined) await site.wipe();
    else await site.kill();
    this.#disks.replace(site.name, copy);
    this.#copies.delete(site.name);
    this.#invariants.forget(site);
    await this.#custodians.revive();
  }

  /**
   * Others hold enough of every version that opens, and nobody counts on what it has voted: whoever forgets its votes is
   * false, and of those a small group can have none.
   */
  #isSpare(site: CustodianSite): boolean {
    const keks = this.#custodians.versions().map(({ kek }) => kek);
    const heads = headsOf(keks);
    const isVoting = this.#custodians.sites.some(({ running }) => {
      const ballot = running.shares.ballot(cg);
      if (ballot === undefined || isBehind(ballot.heads, heads)) return false;
      return (
        ballot.round > 1 || [ballot.stored, ballot.prepared, ballot.locked].some((each) => each !== null)
      );
    });
    return (
      !isVoting &&
      keks
        .filter(isServing)
        .every((kek) => holdersOf(this.world, kek).filter((each) => each !== site).length >= kek.t)
    );
  }

  #keepCopies(): void {
    for (const { name, isUp } of this.#custodians.sites) {
      const copy = this.#disks.copy(name);
      if (isUp && copy !== undefined && !this.#disks.isOut(name)) this.#copies.set(name, copy);
    }
  }

  // Cuts

  #arm(cuts: readonly Cut[]): void {
    const custodians = this.#custodians;
    const kills: Kill[] = [];
    for (const cut of cuts) {
      const site = 'whose' in cut ? custodians.sites[cut.whose % count] : undefined;
      let places = 0;
      if (cut.what === 'nothing is shown') {
        const shown = [...custodians.log];
        if (site !== undefined) site.registry = () => shown;
      } else if (cut.what === 'disk goes') {
        this.#disks.survival = cut.left;
        // What was written and is not lost is also what a disk has that goes away under a process which goes on.
        custodians.isPowerCut = cut.left !== 'everything';
        this.#disks.cut = (name) => name === site?.name && places++ === cut.at;
      } else if (cut.what === 'another comes')
        this.#life.meanwhile = async () => {
          if (places++ === cut.at) await this.#overtake(cut.deed, cut.seed);
        };
      else {
        const [victim, luck] =
          cut.what === 'coordinator dies' ? ['coordinator', 'kill' as const] : [site?.name, lucks[cut.what]];
        kills.push(({ who }) => (who === victim && places++ === cut.at ? luck : 'go'));
      }
    }
    custodians.kill = (at) => kills.map((kill) => kill(at)).find((luck) => luck !== 'go') ?? 'go';
  }

  #disarm(): void {
    const { sites, log } = this.#custodians;
    this.#custodians.kill = () => 'go';
    this.#disks.cut = () => false;
    for (const site of sites) site.registry = () => log;
    this.#life.meanwhile = async () => undefined;
  }

  /** The first one goes on afterwards, and knows nothing of it. */
  async #overtake(deed: Deed, seed: number): Promise<void> {
    const [life, steward] = [this.#life, this.#steward];
    this.#newSteward();
    try {
      await this.#do(deed, new Dice(seed));
    } catch (error) {
      if (!(error instanceof Killed)) requireExpected(error);
    } finally {
      [this.#life, this.#steward] = [life, steward];
    }
  }

  /** Those that are left hold enough of every version that opens. */
  async #canGoOn(): Promise<boolean> {
    await this.world.pass(0);
    const isWhole = ({ name }: CustodianSite): boolean => !this.#disks.isOut(name);
    return this.#custodians
      .versions()
      .filter(({ kek }) => isServing(kek))
      .every(({ kek }) => holdersOf(this.world, kek).filter(isWhole).length >= kek.t);
  }

  async #reviveAll(): Promise<void> {
    for (const site of this.#custodians.sites) if (this.#disks.isOut(site.name)) await site.kill();
    await this.#custodians.revive();
  }

  // Rest

  /** One version is left, its members hold it and nobody holds anything else; `strictly`: not even what nothing came of. */
  #isAtRest(strictly: boolean): boolean {
    const keks = this.#custodians.versions().map(({ kek }) => kek);
    if (keks.filter(({ state }) => state !== 'destroyed').length !== 1) return false;
    const { ver, shareGen, custodians } = this.#custodians.kek();
    return this.#custodians.sites.every((site) => {
      const held = site.running.shares
        .shares()
        .filter(({ status }) => strictly || status !== 'staged')
        .map(({ kekVer, gen, key, status }) => `${kekVer}/${gen} ${key} ${status}`)
        .toSorted();
      const isMember = custodians.some(({ peer }) => peer === site.peer);
      const due = isMember ? ['frost', 'kek'].map((key) => `${ver}/${shareGen} ${key} active`) : [];
      return held.join() === due.join();
    });
  }

  #standing(): string {
    const keks = this.#custodians.versions().map(({ kek }) => {
      const members = kek.custodians.map(({ peer }) => peer).join(' ');
      return `version ${kek.ver} ${kek.state}, generation ${kek.shareGen}, ${kek.t} of ${members}`;
    });
    const held = this.#custodians.sites.map(({ name, running }) => {
      const shares = running.shares.shares();
      return `${name}: ${shares.map(({ kekVer, gen, key, status }) => `${kekVer}/${gen} ${key} ${status}`).join(', ')}`;
    });
    return [...keks, ...held, this.#steward.trouble ?? ''].join('\n');
  }
}

/** What was cut fails with something that names the world's doing, never a fault of ours. */
function requireExpected(error: unknown): void {
  assert.ok(isHoldfastError(error) && error.code !== 'INTERNAL', String(error));
}
