// What a coordinator does and when: orders as they come, and by itself what is due. One ceremony at a time.
//
//   the key is missing and the operator has ordered it       → init, unless the registry has lost it
//   custodians are locked on a record that is not filed      → agreed on, signed and filed (coordinate-ballot.ts)
//   a custodian lacks what the present record says it has    → shown the record again; repaired
//   shares of a version are older than the group's bars      → refresh, the oldest first
//   a rotation was begun, or is due by the policy            → its next steps (rotation-plan.ts)
//
// A silent pulse brings no beats, so nothing is due; reading needs none of this.

import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { second } from '../core/clock.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { BarLength } from './bar-length.ts';
import { isRefreshed } from './ceremony-plan.ts';
import { coordinateDealing } from './coordinate-dealing.ts';
import { coordinateInit } from './coordinate-init.ts';
import { coordinatePolicy, type PolicyResult } from './coordinate-policy.ts';
import { coordinateRepair, repairAll, type RepairResult } from './coordinate-repair.ts';
import { finishBegun } from './coordinate-place.ts';
import { coordinateSuccession } from './coordinate-succession.ts';
import { type CeremonyResult, type CoordinatorPorts, type Say } from './coordinator.ts';
import { type CustodyOrder, openOrder } from './order.ts';
import { refreshBars } from './policy.ts';
import { type RotationStep, stepText } from './rotation-plan.ts';
import { inPlaceOf } from './succession.ts';

/** What an order came to. */
export type OrderResult = CeremonyResult | RepairResult | SealResult | RotateResult | PolicyResult;

/** A rotation goes on by itself: what was done at once, and what is waited for. */
export interface RotateResult {
  readonly ceremony: 'rotate';
  readonly cg: string;
  readonly steps: readonly string[];
  readonly next: string;
}

/** The rotation that a coordinator carries beside the ceremonies (rotation-coordinator.ts). */
export interface RotationDriver {
  /** Remembers a signed order to rotate until it is followed. */
  give(order: Uint8Array): void;
  advance(): Promise<RotationStep>;
}

/** Who was sealed or unsealed. */
export interface SealResult {
  readonly ceremony: 'seal' | 'unseal';
  readonly cg: string;
  /** Names of the custodians that obeyed. */
  readonly obeyed: readonly string[];
  /** Why the others did not, in words. */
  readonly failed: readonly string[];
}

/** A beat as far as it matters here. */
export interface BeatHeard {
  readonly beat: number;
  /** From the frame: bars are counted by it. */
  readonly downbeat: boolean;
}

/** Custodians are looked after once in so many beats; a stale one is no danger to the others. */
const careBeats = 10;
/** After a failure: as long as it takes a custodian to start again. Also the shortest time between two by itself. */
const pauseMs = 15 * second;

export class Coordinator {
  readonly cg: string;
  readonly #ports: CoordinatorPorts;
  readonly #rotation: RotationDriver | undefined;
  #turn: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  readonly #bar = new BarLength();
  #beats = 0;
  #resumeMs = Number.NEGATIVE_INFINITY;
  #trouble: string | undefined;
  #isLost = false;

  constructor(ports: CoordinatorPorts, cg: string, rotation?: RotationDriver) {
    this.#ports = ports;
    this.#rotation = rotation;
    this.cg = cg;
  }

  /** Why what was due last could not be done, in words. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** True when the key was registered once and is not any more: waiting for custodians does not help. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** As the downbeats show it. */
  get beatsPerBar(): number {
    return this.#bar.beats;
  }

  /** Carries out a signed order. Whether it may be given is for each custodian to say. Throws as the ceremonies do. */
  command(message: Uint8Array, say: Say): Promise<OrderResult> {
    const { order } = openOrder(message);
    const ended = inPlaceOf(order)?.cg;
    if (ended === this.cg) return this.#alone(() => coordinateSuccession(this.#ports, message, say));
    if (order.cg !== this.cg)
      throw new HoldfastError('ARGUMENT_INVALID', `the order is for ${order.cg}, this is ${this.cg}`);
    // Sealing waits for nobody.
    if (order.op === 'seal' || order.op === 'unseal') return this.#seal(order.op, order, message, say);
    return this.#alone(() => this.#carryOut(order, message, say));
  }

  /** True when the group has its key. */
  async initialised(): Promise<boolean> {
    return (await this.#ports.registry.kek(this.cg)) !== undefined;
  }

  /** Makes the group's key as soon as all custodians answer; never rejects. True when it is there. */
  async initialise(order: Uint8Array, say: Say): Promise<boolean> {
    return this.#alone(async () => {
      try {
        if (!(await this.initialised())) {
          await this.#requireNew();
          const { t, n, tookMs } = await coordinateInit(this.#ports, order, say);
          say(
            `custody group ${this.cg} has a key that ${t} of ${n} custodians can use, made in ${tookMs} ms`,
          );
        }
        this.#trouble = undefined;
        return true;
      } catch (error) {
        this.#trouble = `custody init: ${describeError(error)}`;
        return false;
      }
    });
  }

  /**
   * A share that was in force proves that the record of the key was filed. By itself nobody files it a second time: it
   * would be signed anew, and so be another record than the one that views and storage nodes hold: the registry has to
   * be brought back. An order that the operator gives now (`custody init`) is carried to the custodians all the same.
   */
  async #requireNew(): Promise<void> {
    const { custodians } = this.#ports;
    const asked = await Promise.all(
      custodians.all().map(async (peer) => {
        try {
          const { shares } = await custodians.status(peer);
          const held = shares.some(({ cg, status }) => cg === this.cg && status !== 'staged');
          return held ? custodians.nameOf(peer) : undefined;
        } catch {
          return undefined; // it does not answer: the ceremony needs it, and says so
        }
      }),
    );
    const holders = asked.filter((name) => name !== undefined);
    this.#isLost = holders.length > 0;
    if (!this.#isLost) return;
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `the registry has lost the key of custody group ${this.cg}, of which ${holders.join(', ')} hold shares; bring the registry back: holdfast beacon import FILE, or holdfast beacon rebuild`,
    );
  }

  /** What is due at this beat; never rejects. Beats that come while something is under way are only counted. */
  async onBeat({ beat, downbeat }: BeatHeard, say: Say): Promise<void> {
    if (downbeat) this.#bar.begin(beat);
    this.#beats++;
    if (this.#waiting > 0 || this.#ports.now() < this.#resumeMs) return;
    await this.#alone(() => this.#care(beat, say));
  }

  async #care(beat: number, say: Say): Promise<void> {
    try {
      const filed = await this.#ports.registry.kek(this.cg);
      if (filed === undefined) return;
      const refreshed = await this.#refresh(filed.kek, beat, say);
      if (refreshed === 'done') this.#resumeMs = this.#ports.now() + pauseMs;
      // What cannot be refreshed now may want to be mended first. Neither that nor refreshes that are due all the time keep
      // anything else from going on.
      if (this.#beats % careBeats === 0 || refreshed !== undefined) await this.#mend(say);
      await this.#turnOver(say);
      if (refreshed !== undefined && refreshed !== 'done') throw refreshed;
      this.#trouble = undefined;
    } catch (error) {
      this.#resumeMs = this.#ports.now() + pauseMs;
      this.#trouble = describeError(error);
      say(`custody: ${this.#trouble}`);
    }
  }

  /** Refreshes one version that is due: `done`, or why none of them could be; undefined when none is. */
  async #refresh(active: TdecKek, beat: number, say: Say): Promise<'done' | Error | undefined> {
    let problem: Error | undefined;
    for (const ver of await this.#due(active, beat)) {
      try {
        await coordinateDealing(this.#ports, this.cg, { ver }, say);
        return 'done';
      } catch (error) {
        if (!isHoldfastError(error)) throw error;
        problem ??= error;
      }
    }
    return problem;
  }

  /**
   * Versions whose shares are too old, the oldest shares first. Counted from when they were dealt, whatever became of the
   * version since; a downbeat that was missed is caught up with any later beat.
   */
  async #due(active: TdecKek, beat: number): Promise<readonly number[]> {
    const { registry } = this.#ports;
    const bars = refreshBars(active, await registry.policy(active.policyRoot));
    if (bars === 0) return [];
    const due: { readonly ver: number; readonly dealt: number }[] = [];
    for (const { kek } of await registry.versions(this.cg)) {
      if (!isRefreshed(kek)) continue;
      const said = (await registry.dealtBeat(this.cg, kek.ver)) ?? kek.activateBeat;
      // A date that lies ahead is none.
      const dealt = said > beat + this.#bar.beats ? 0 : said;
      if (beat >= dealt + bars * this.#bar.beats) due.push({ ver: kek.ver, dealt });
    }
    return due.toSorted((a, b) => a.dealt - b.dealt).map(({ ver }) => ver);
  }

  /** What was begun and not finished, and what custodians lack of any version. */
  async #mend(say: Say): Promise<void> {
    try {
      if (await finishBegun(this.#ports, this.cg, say)) return;
    } catch (error) {
      // Fewer than a quorum answer: those that do can be helped all the same.
      if (!isHoldfastError(error, 'KEY_UNAVAILABLE')) throw error;
    }
    await repairAll(this.#ports, this.cg, say);
  }

  /** The steps of a rotation that are due now. */
  async #turnOver(say: Say): Promise<{ readonly steps: readonly string[]; readonly next: string }> {
    const steps: string[] = [];
    if (this.#rotation === undefined) return { steps, next: 'no rotation is carried here' };
    for (;;) {
      const step = await this.#rotation.advance();
      if (step.step === 'wait' || step.step === 'idle') return { steps, next: step.why };
      steps.push(stepText(step));
      say(stepText(step));
    }
  }

  async #carryOut(order: CustodyOrder, message: Uint8Array, say: Say): Promise<OrderResult> {
    switch (order.op) {
      case 'init':
        return coordinateInit(this.#ports, message, say);
      case 'refresh':
      case 'reshare':
      case 'evict':
        return coordinateDealing(this.#ports, this.cg, { order: message }, say);
      case 'repair':
        return coordinateRepair(this.#ports, this.cg, lostOf(order), say);
      case 'policy':
        return coordinatePolicy(this.#ports, this.cg, message, say);
      case 'rotate':
        this.#rotation?.give(message);
        return { ceremony: 'rotate', cg: this.cg, ...(await this.#turnOver(say)) };
      default:
        throw new HoldfastError('ARGUMENT_INVALID', `${order.op} is not carried out by the coordinator`);
    }
  }

  async #seal(
    ceremony: 'seal' | 'unseal',
    order: CustodyOrder,
    message: Uint8Array,
    say: Say,
  ): Promise<SealResult> {
    const { custodians } = this.#ports;
    const only = order.args['only'];
    const peers = custodians.all().filter((peer) => !Array.isArray(only) || only.includes(peer));
    say(`telling ${peers.length} custodians to ${ceremony}`);
    const done = await Promise.all(
      peers.map(async (peer) => {
        const name = custodians.nameOf(peer);
        try {
          await custodians.order(peer, message);
          return { name, why: undefined };
        } catch (error) {
          return { name, why: `${name}: ${describeError(error)}` };
        }
      }),
    );
    return {
      ceremony,
      cg: this.cg,
      obeyed: done.filter(({ why }) => why === undefined).map(({ name }) => name),
      failed: done.flatMap(({ why }) => why ?? []),
    };
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    this.#waiting++;
    const done = this.#turn.then(work).finally(() => {
      this.#waiting--;
    });
    this.#turn = done.catch(() => undefined); // its caller has the error
    return done;
  }
}

function lostOf({ args }: CustodyOrder): number {
  const { member } = args;
  if (typeof member === 'number' && Number.isSafeInteger(member) && member > 0) return member;
  throw new HoldfastError('ARGUMENT_INVALID', 'args.member: the index of a custodian expected');
}
