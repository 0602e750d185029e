// Rotation as whoever carries it does it: reads what the registry says, does the next step, and files what came of it.
// It decides nothing that the custodians do not decide too, and holds nothing that the registry does not say again.

import type { CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { ceremonyMessageBytesMax, unwrapItemsMax } from '../core/limits.ts';
import type { Signer } from '../core/hash.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { type KekBody, parseKek } from '../envelope/records.ts';
import type { RecordBody, SignedRecord } from '../manifest/record.ts';
import type { RandomBytes } from '../threshold/group.ts';
import { agreedRecords } from './agreed-records.ts';
import { electorateOf, type Seats, type Vote } from './ballot.ts';
import type { CustodyGroups } from './ceremony.ts';
import { type Agreed, agreeOn, readVoteOf, settlePlace, type Voter } from './coordinate-ballot.ts';
import { placeOf } from './coordinate-place.ts';
import type { Answers, FiledKek } from './coordinator.ts';
import type { BeatNow } from './freshness.ts';
import { openOrder } from './order.ts';
import type { Proposal } from './proposal.ts';
import { readConcluded } from './rotation-keygen.ts';
import { type PageKit, type StoredWraps, SwitchRun } from './rotation-pages.ts';
import {
  activateBeatOf,
  changedKeks,
  type KeyChange,
  orderedVersion,
  planRotation,
  type RotationStep,
  type RotationView,
  secretRotationsOk,
  stepText,
} from './rotation-plan.ts';
import type { Signatory } from './rotation-signing.ts';

/** The registry, as far as a rotation needs it. */
export interface RotationRegistry {
  /** The newest record of each version of the group's key, oldest version first. */
  versions(): Promise<readonly FiledKek[]>;
  /** Of the newest policy; 0 where there is none. */
  rotateEveryBars(): Promise<number>;
  /** The newest certificate about a version, of whatever kind; `rotationBeat`: of the newest page of a rotation. */
  lastCertificate(
    ver: number,
  ): Promise<{ readonly cid: CID; readonly n: number; readonly rotationBeat: number } | undefined>;
  /** Current records with a wrap under that version, up to `limit` behind `after`, in an order that stays. */
  wrapsUnder(
    ver: number,
    limit: number,
    after?: string,
  ): Promise<{ readonly items: readonly StoredWraps[]; readonly next?: string }>;
  /** Files records together; false when somebody else was first with one of them. On the disk when it resolves. */
  append(records: readonly SignedRecord<RecordBody>[], signal: AbortSignal): Promise<boolean>;
}

export interface RotationPorts {
  readonly cg: string;
  readonly registry: RotationRegistry;
  /** Takes a step to a custodian (ceremony-steps.ts) and brings its answer. */
  readonly step: (
    peer: PeerName,
    where: { readonly session: Uint8Array; readonly protocol: string; readonly step: string },
    payload: unknown,
    signal: AbortSignal,
  ) => Promise<unknown>;
  /** Shows a signed KEK record to a custodian; true when its shares are active there. */
  readonly activate: (peer: PeerName, record: Uint8Array, signal: AbortSignal) => Promise<boolean>;
  readonly nameOf: (peer: PeerName) => string;
  /** Who files the records. */
  readonly signer: Signer;
  readonly groups: () => Promise<CustodyGroups>;
  readonly random: RandomBytes;
  readonly beat: () => BeatNow;
  readonly beatsPerBar: () => number;
  /** RFC 3339, UTC. */
  readonly instant: () => string;
  /** The signed order to rotate that was given last; undefined for none. */
  readonly order: () => Uint8Array | undefined;
  /** Keys in one page, 1…256. Default 256: each page costs a certificate and a signature of the group. */
  readonly pageItems?: number;
}

export class RotationCoordinator {
  readonly #ports: RotationPorts;
  #busy = false;
  #problem = '';
  #last: RotationStep = { step: 'idle', why: 'nothing was looked at yet' };
  #view: RotationView | undefined;

  constructor(ports: RotationPorts) {
    this.#ports = ports;
  }

  /**
   * Does what is to be done next, once, and says what it was; `idle` and `wait` when there is nothing to do now. What
   * was begun and not finished, by whomever, goes on. One at a time: a second call meanwhile does nothing.
   *
   * @throws KEY_UNAVAILABLE (too few custodians), FORBIDDEN (they refuse), VERSION_CONFLICT (somebody else did it),
   * and what the registry throws. The next call tries again.
   */
  async advance(signal: AbortSignal): Promise<RotationStep> {
    if (this.#busy) return { step: 'wait', why: 'a step is under way' };
    this.#busy = true;
    try {
      const versions = await this.#ports.registry.versions();
      const view = await this.#look(versions);
      this.#view = view;
      const step = planRotation(view);
      this.#last = step;
      const held = await this.#do(step, versions, signal);
      if (held !== undefined) this.#last = { step: 'wait', why: held };
      if (this.#last.step !== 'wait') this.#problem = '';
      return this.#last;
    } catch (error) {
      if (!signal.aborted) this.#problem = describeError(error);
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  /** What is done or waited for now, as the last look found it. */
  get next(): string {
    return stepText(this.#last);
  }

  /** What went wrong the last time, or ''. */
  get problem(): string {
    return this.#problem;
  }

  /** The field `secret_rotations_ok` of a BarReport: as it stands after the last `advance`. */
  rotationsOk(): boolean {
    return (
      this.#view === undefined || secretRotationsOk({ ...this.#view, now: this.#ports.beat() }, this.#problem)
    );
  }

  async #look(versions: readonly FiledKek[]): Promise<RotationView> {
    const { registry, beat, beatsPerBar, order } = this.#ports;
    const keks = versions.map(({ kek }) => kek);
    const active = keks.findLast(({ state }) => state === 'active');
    const used = new Set<number>();
    for (const { ver, state } of keks)
      if (
        (state === 'decrypt-only' || state === 'retired') &&
        (await registry.wrapsUnder(ver, 1)).items.length > 0
      )
        used.add(ver);
    const given = order();
    const last = active === undefined ? undefined : await registry.lastCertificate(active.ver);
    return {
      keks,
      now: beat(),
      beatsPerBar: beatsPerBar(),
      rotateEveryBars: await registry.rotateEveryBars(),
      orderedVer: given === undefined ? 0 : orderedVersion(openOrder(given).order),
      lastPageBeat: last?.rotationBeat ?? 0,
      isUsed: (ver) => used.has(ver),
    };
  }

  /** Resolves with what the custodians wait for, when they do. */
  async #do(
    step: RotationStep,
    versions: readonly FiledKek[],
    signal: AbortSignal,
  ): Promise<string | undefined> {
    if (step.step === 'make') await this.#make(versions, of(versions, step.fromVer), step.cause, signal);
    else if (step.step === 'switch')
      await this.#switch(of(versions, step.fromVer), of(versions, step.toVer), signal);
    else if (step.step === 'idle' || step.step === 'wait') await this.#remind(versions, signal);
    else return this.#change(step.step, step.ver, versions, signal);
    return undefined;
  }

  /** Until a new key is used, all its custodians must have taken up their shares: one that was away then is told again. */
  async #remind(versions: readonly FiledKek[], signal: AbortSignal): Promise<void> {
    const coming = versions.find(({ kek }) => kek.state === 'pre-active');
    if (coming !== undefined) await this.#activate(coming.kek, coming.bytes, signal);
  }

  async #make(
    versions: readonly FiledKek[],
    base: FiledKek,
    cause: 'order' | 'schedule',
    signal: AbortSignal,
  ): Promise<void> {
    const attempt = await this.#clear(versions, signal);
    if (attempt === undefined) return;
    const { random, beat, beatsPerBar, instant, order } = this.#ports;
    const members = this.#session(base.kek, 'rotate', signal);
    const begin = {
      attempt: random(32),
      base: base.bytes,
      order: cause === 'order' ? (order() ?? null) : null,
    };
    const hellos = await everyone(members, 'hello', begin, 'hello');
    const messages = await everyone(members, 'deal', { hellos }, 'message');
    const sigs = await everyone(members, 'receive', { messages }, 'sig');
    const when = { createdAt: instant(), activateBeat: activateBeatOf(beat().beat, beatsPerBar()) };
    const concluded = await votesOf(members, 'conclude', { sigs, ...when }, readConcluded);
    const [first] = concluded.given.values();
    if (first === undefined) throw noVotes('conclude', concluded.missing);
    const {
      prev: _,
      writer: __,
      kind: ___,
      v: ____,
      frostSig: _____,
      ...kek
    } = this.#bodyOf({
      ...first.kek,
      frostSig: new Uint8Array(64),
    });
    const given = new Map([...concluded.given].map(([i, { vote }]) => [i, readVoteOf(vote)]));
    const proposal = { keks: [kek], certificates: [] };
    await this.#agree(versions, members, attempt, proposal, { ...concluded, given }, signal);
  }

  async #activate(kek: Pick<TdecKek, 'custodians'>, record: Uint8Array, signal: AbortSignal): Promise<void> {
    await Promise.allSettled(kek.custodians.map(({ peer }) => this.#ports.activate(peer, record, signal)));
  }

  async #change(
    change: KeyChange,
    ver: number,
    versions: readonly FiledKek[],
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const place = placeOf(versions);
    const attempt = await this.#clear(versions, signal);
    if (attempt === undefined) return undefined;
    if (change === 'activate') await this.#remind(versions, signal);
    const { cg } = this.#ports;
    const { quorum } = electorateOf(place.active, place.heads, 0);
    const there = await greeted(this.#session(place.active, 'change', signal), { cg, change, ver }, quorum);
    if (typeof there === 'string') return there;
    const keks = changedKeks(
      change,
      ver,
      versions.map(({ kek }) => kek),
    );
    const voted = await votesOf(there, 'propose', {}, readVoteOf);
    await this.#agree(versions, there, attempt, { keks, certificates: [] }, voted, signal);
    return undefined;
  }

  /** Finishes or ends what others have begun; the attempt that is free, or undefined when the registry has gone on. */
  async #clear(versions: readonly FiledKek[], signal: AbortSignal): Promise<number | undefined> {
    const { frost } = await this.#ports.groups();
    const place = placeOf(versions);
    const voters = this.#session(place.active, 'ballot', signal);
    const settled = await settlePlace(frost, place, voters, { order: null, onlyLocked: false });
    if (settled === undefined || 'attempt' in settled) return settled?.attempt;
    await this.#fileAgreed(versions, settled.agreed, signal);
    return undefined;
  }

  async #agree(
    versions: readonly FiledKek[],
    members: readonly Voter[],
    attempt: number,
    proposal: Proposal,
    voted: Answers<Vote>,
    signal: AbortSignal,
  ): Promise<void> {
    const { frost } = await this.#ports.groups();
    const place = placeOf(versions);
    const agreed = await agreeOn(frost, place, members, attempt, proposal, voted);
    await this.#fileAgreed(versions, agreed, signal);
  }

  async #fileAgreed(versions: readonly FiledKek[], agreed: Agreed, signal: AbortSignal): Promise<void> {
    const { registry, signer } = this.#ports;
    const records = await agreedRecords(signer, agreed, {
      kek: (ver) => versions.find(({ kek }) => kek.ver === ver)?.cid,
      certificate: (ver) => registry.lastCertificate(ver),
    });
    await this.#file(
      records.map(({ record }) => record),
      signal,
    );
    for (const [at, kek] of agreed.proposal.keks.entries())
      await this.#activate(kek, records[at]?.record.block.bytes ?? new Uint8Array(0), signal);
  }

  async #switch(from: FiledKek, to: FiledKek, signal: AbortSignal): Promise<void> {
    const { cg, registry, signer, beat, groups, pageItems = unwrapItemsMax } = this.#ports;
    const kit: PageKit = {
      cg,
      registry,
      signer,
      beat: () => beat().beat,
      groups: await groups(),
      from: from.kek,
      to: to.kek,
      pageItems,
      members: this.#session(unionOf(from.kek, to.kek), 'switch', signal),
    };
    await new SwitchRun(kit).run(signal);
  }

  /** A session with each custodian of `kek`. */
  #session(kek: Pick<Seats, 'custodians'>, protocol: string, signal: AbortSignal): Voter[] {
    const session = this.#ports.random(32);
    return kek.custodians.map(({ i, peer }) => ({
      i,
      name: this.#ports.nameOf(peer),
      ask: (step, payload) => this.#ports.step(peer, { session, protocol, step }, payload, signal),
    }));
  }

  #bodyOf(fields: Readonly<Record<string, unknown>>): KekBody & TdecKek {
    const writer = this.#ports.signer.publicKey;
    const body = parseKek({ ...fields, kind: 'kek', v: 1, writer, prev: null });
    if (body.provider === 'tdec') return body;
    throw new HoldfastError('RECORD_INVALID', 'kek: a record of a custody group expected');
  }

  async #file(records: readonly SignedRecord<RecordBody>[], signal: AbortSignal): Promise<void> {
    if (await this.#ports.registry.append(records, signal)) return;
    throw new HoldfastError('VERSION_CONFLICT', 'somebody else was first with this step of the rotation');
  }
}

/** What each answers to a step, all of them. Throws what the first that fails does. */
async function everyone(
  members: readonly Signatory[],
  step: string,
  payload: Readonly<Record<string, unknown>>,
  field: string,
): Promise<readonly Uint8Array[]> {
  const done = await Promise.allSettled(members.map(({ ask }) => ask(step, payload)));
  return done.map((outcome, at) => {
    if (outcome.status === 'fulfilled')
      return fieldsOf(outcome.value, step, [field]).bytesUpTo(field, ceremonyMessageBytesMax);
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `all ${members.length} custodians make a new key together; ${members[at]?.name ?? '?'}: ${describeError(outcome.reason)}`,
      { cause: outcome.reason },
    );
  });
}

/** What each answers to a step, by its index, and why others do not. */
async function votesOf<T>(
  members: readonly Voter[],
  step: string,
  payload: Readonly<Record<string, unknown>>,
  read: (answer: unknown) => T,
): Promise<Answers<T>> {
  const given = new Map<number, T>();
  const missing = new Map<number, string>();
  await Promise.all(
    members.map(async ({ i, name, ask }) => {
      try {
        given.set(i, read(await ask(step, payload)));
      } catch (error) {
        missing.set(i, `${name}: ${describeError(error)}`);
      }
    }),
  );
  return { given, missing };
}

function noVotes(step: string, missing: ReadonlyMap<number, string>): HoldfastError {
  return new HoldfastError(
    'KEY_UNAVAILABLE',
    `nobody does the step ${step}: ${[...missing.values()].join('; ')}`,
  );
}

/** Those that take part; or, when that takes only time, until when as many wait as are needed. Throws KEY_UNAVAILABLE when they are fewer than `needed`. */
async function greeted(
  members: readonly Voter[],
  payload: Readonly<Record<string, unknown>>,
  needed: number,
): Promise<readonly Voter[] | string> {
  const { given: begun, missing } = await votesOf(members, 'hello', payload, earlyOf);
  const there = members.filter(({ i }) => begun.has(i) && begun.get(i) === undefined);
  if (there.length >= needed) return there;
  // They say the same but for the instant, which sorts as text.
  const early = [...begun.values()].filter((why) => why !== undefined).toSorted();
  const last = early[needed - there.length - 1];
  if (last !== undefined) return last;
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `${there.length} of ${needed} custodians take part; ${[...missing.values()].join(', ')}`,
  );
}

/** Why a custodian waits with a change that it does not refuse. */
function earlyOf(begun: unknown): string | undefined {
  const fields = fieldsOf(begun, 'change.hello', ['early']);
  return fields.any('early') === null ? undefined : fields.text('early', 200);
}

function of(versions: readonly FiledKek[], ver: number): FiledKek {
  const found = versions.find(({ kek }) => kek.ver === ver);
  if (found !== undefined) return found;
  throw new HoldfastError('NOT_FOUND', `version ${ver} of the key is not in the registry`);
}

/** Custodians of both versions: after a reshare between them some belong to one only. */
function unionOf(from: TdecKek, to: TdecKek): Pick<TdecKek, 'custodians'> {
  const joined = to.custodians.filter(
    ({ sigPk }) => !from.custodians.some((each) => sameBytes(each.sigPk, sigPk)),
  );
  return { custodians: [...from.custodians, ...joined] };
}
