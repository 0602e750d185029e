// Custody as a door sees it: the group's records from its own view of the registry, requests carried to custodians,
// what they say of themselves, and a provider of its own for when it seals.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { CustodianInfo, CustodyLogAnswer, CustodyStatus, HealthCheck, KekInfo } from '../api/types.ts';
import type { BeaconLog } from '../beacon/log.ts';
import type { CustodyCursor, CustodyPage } from '../beacon/queries.ts';
import type { BeaconView } from '../beacon/view.ts';
import { hour, second } from '../core/clock.ts';
import { sameBytes } from '../core/bytes.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { Canary } from '../custody/canary.ts';
import { groupNameOf } from '../custody/group-name.ts';
import type { CustodyDirectory } from '../custody/directory.ts';
import { CustodyFeed } from '../custody/feed.ts';
import { sharedHostWarning } from '../custody/hosts.ts';
import { refreshBars } from '../custody/policy.ts';
import type { PolicyBody } from '../custody/policy.ts';
import { random } from '../custody/random.ts';
import { ReceiptFile } from '../custody/receipts.ts';
import { parseRevocation } from '../custody/revocation.ts';
import { misconductText, TdecProvider } from '../custody/tdec.ts';
import { type CustodianStatus, parseStatus } from '../custody/wire.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { fileError, isThere, readIfThere, writeWhole } from '../files/whole.ts';
import { readCapability } from '../local/grants.ts';
import { keyCopies } from '../flows/rewrap.ts';
import type { DoorPorts } from '../http/door-ports.ts';
import type { DoorConfig } from '../local/layout.ts';
import { openRecord } from '../manifest/record.ts';
import { custodianKeysOf } from '../node/identity.ts';
import type { Member as MemberEntry } from '../node/membership.ts';
import { marginOf, stateOf, weakestOf } from './custodian-state.ts';
import type { DoorBlocks } from './door-blocks.ts';
import { Erasures } from './erasures.ts';
import { type Member, peersWithRole, systemClock } from './member.ts';

/** A custodian that works answers within a few milliseconds; one that takes this long is not there. */
const unwrapMs = 5 * second;
const askMs = 2 * second;
/** Longest silence of a ceremony: each step of it waits ten seconds for a custodian that hangs. */
const orderMs = 60 * second;
/** How old a status may be that is shown among others. */
const statusMs = 3 * second;
/** How often the first key is looked for, which is made within a second or two of a first start. */
const lookMs = 100;
/** A canary key is asked back once in so many beats: a bar. */
const canaryBeats = 60;

/** Keys that a rotation has still to move are counted up to here: one page of the registry. */
const leftMax = 1000;

export interface DoorCustodyPorts {
  readonly member: Member;
  readonly config: DoorConfig;
  readonly view: BeaconView;
  readonly log: Pick<BeaconLog, 'append'>;
  readonly blocks: Pick<DoorBlocks, 'storeRecord'>;
  readonly beatIndex: () => number;
  /** Resolves once reads here see the revision. */
  readonly visible: (revision: number) => Promise<void>;
}

export class DoorCustody implements Readonly<NonNullable<DoorPorts['custody']>> {
  readonly provider: TdecProvider;
  readonly #ports: DoorCustodyPorts;
  readonly #feed: CustodyFeed;
  readonly #erasures: Erasures;
  readonly #canary: Canary;
  #ordered = false;
  #trouble = '';
  #status: CustodyStatus | undefined;
  #statusMs = 0;

  private constructor(ports: DoorCustodyPorts, feed: CustodyFeed, erasures: Erasures) {
    const { member, config } = ports;
    const { signer } = member.identity;
    const receipts = new ReceiptFile(join(member.config.dataDir, 'custody-receipts'));
    this.#ports = ports;
    this.#feed = feed;
    this.#erasures = erasures;
    this.provider = new TdecProvider({
      source: feed,
      transport: {
        ask: (peer, request, signal) => this.#ask(peer, request, signal),
        nameOf: (peer) => this.#custodians().find((each) => each.peer === peer)?.name ?? peer,
      },
      signer,
      chain: () => readCapability(config.capabilityPath),
      random,
      clock: systemClock,
      beat: async () => ports.beatIndex(),
      onOpened: ({ peers, ...opened }) =>
        receipts.append({
          ...opened,
          custodians: peers.map((peer) => `${member.config.cluster}/${this.#nameOf(peer)}`),
          at: systemClock.now(),
        }),
      onMisconduct: (evidence) => console.error(misconductText(evidence, this.#nameOf(evidence.peer))),
    });
    this.#canary = new Canary({
      provider: this.provider,
      requester: signer.publicKey,
      random,
      beat: ports.beatIndex,
      everyBeats: canaryBeats,
      now: () => systemClock.monotonic(),
    });
  }

  /** Reads what is remembered of the group. Throws RECORD_INVALID when that is damaged. */
  static async open(ports: DoorCustodyPorts): Promise<DoorCustody> {
    const { member, view } = ports;
    const path = join(member.config.dataDir, 'custody-pin.json');
    const feed = await CustodyFeed.open({
      cg: groupNameOf(member.config.cluster),
      operator: member.config.operator,
      custodians: () => custodianKeysOf(member.peer.membership()),
      read: (since) => view.custodyRecords(since),
      pins: { load: () => readIfThere(path), save: (text) => writeWhole(path, text, 0o600) },
    });
    const erasures = await Erasures.open(join(member.config.dataDir, 'custody-erased.json'));
    const custody = new DoorCustody(ports, feed, erasures);
    await custody.follow();
    custody.#lookForKey();
    return custody;
  }

  /** The group of now: another one may come into its place. */
  get group(): string {
    return this.#feed.directory().cg;
  }

  /** While the key is being made, a beat is long to wait for who wants to put something. */
  #lookForKey(): void {
    if (!this.makes || this.#feed.directory().initialised) return;
    const again = (): void => void this.follow().then(() => this.#lookForKey());
    setTimeout(again, lookMs).unref();
  }

  /** True once the custodians make the keys here: an order to make the group's key was given, or it has one. */
  get makes(): boolean {
    const directory = this.#feed.directory();
    return this.#ordered || directory.initialised || directory.count(`kek/${this.group}/1`) > 0;
  }

  /** What the newest policy says of recovery keys; undefined where there is none. */
  recovery(): PolicyBody['recovery'] | undefined {
    return this.#feed.directory().policy()?.recovery;
  }

  /** True when this door has leave to ask. */
  async mayAsk(): Promise<boolean> {
    return (await readCapability(this.#ports.config.capabilityPath)).length > 0;
  }

  /** Reads on in the registry; with every beat. Never rejects: what failed is said in the health. */
  async follow(): Promise<void> {
    try {
      this.#ordered ||= await isThere(this.#ports.config.initOrderPath);
      await this.#feed.reload();
      this.#trouble = '';
    } catch (error) {
      this.#trouble = `the records of custody cannot be read: ${describeError(error)}`;
    }
  }

  records(since: CustodyCursor): Promise<CustodyPage> {
    return this.#ports.view.custodyRecords(since);
  }

  async membership(): Promise<string> {
    const { membershipPath } = this.#ports.member.config;
    try {
      return await readFile(membershipPath, 'utf8');
    } catch (cause) {
      throw fileError(membershipPath, 'cannot be read', cause);
    }
  }

  async relay(peer: PeerName, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    if (this.#custodians().some((each) => each.peer === peer)) return this.#ask(peer, request, signal);
    throw new HoldfastError('FORBIDDEN', `${peer.slice(0, 80)} is no custodian of this cluster`);
  }

  async file(bytes: Uint8Array): Promise<number> {
    const record = openRecord(bytes);
    const { cg, n, writer } = parseRevocation(record.body);
    const authorities = this.#feed.directory().policy()?.authorities ?? [];
    if (cg !== this.group || !authorities.some((key) => sameBytes(key, writer)))
      throw new HoldfastError(
        'FORBIDDEN',
        `a revocation for ${this.group} by an authority of its policy expected`,
      );
    await this.#ports.blocks.storeRecord(record.block, keyCopies);
    const key = `rev/${cg}/${n}`;
    const append = { subject: key, expected: 0, records: [{ key, bytes }], at: systemClock.now() };
    const { revision } = await this.#ports.log.append(append);
    await this.#ports.visible(revision);
    await this.follow();
    return revision;
  }

  /** The steward that coordinates custody carries it out; the others refuse at once. */
  async *order(order: Uint8Array, signal: AbortSignal): AsyncGenerator {
    const { peer } = this.#ports.member;
    let failure: unknown = new HoldfastError('PEER_UNREACHABLE', 'the membership names no steward');
    for (const steward of peersWithRole(peer.membership(), 'steward')) {
      let begun = false;
      const message = { head: {}, body: order };
      try {
        const options = { signal, timeoutMs: orderMs };
        for await (const { head } of peer.rpc.stream(steward, 'custody.command', message, options)) {
          begun = true;
          yield head;
        }
        return await this.follow();
      } catch (error) {
        const isAnother =
          isHoldfastError(error, 'BEACON_UNAVAILABLE') || isHoldfastError(error, 'PEER_UNREACHABLE');
        if (begun || !isAnother) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  async log(name: string, from: number, count: number, signal: AbortSignal): Promise<CustodyLogAnswer> {
    const found = this.#custodians().find((each) => each.name === name);
    if (found === undefined)
      throw new HoldfastError('NOT_FOUND', `no custodian ${JSON.stringify(name.slice(0, 80))}`);
    const { rpc } = this.#ports.member.peer;
    const options = { timeoutMs: askMs, signal };
    const checkpoint = await rpc.call(found.peer, 'custody.checkpoint', { head: {} }, options);
    const [note, cosigned] = [fieldOf(checkpoint.head, 'note'), fieldOf(checkpoint.head, 'cosigned')];
    const page = await rpc.call(found.peer, 'custody.leaves', { head: { from, count } }, options);
    const leaves = split(page.body, fieldOf(page.head, 'sizes'));
    if (typeof note !== 'string') throw new HoldfastError('RECORD_INVALID', `${name} gave no checkpoint`);
    return {
      custodian: found.name,
      peer: found.peer,
      note,
      cosigned: typeof cosigned === 'string' ? cosigned : null,
      leaves: leaves.map((leaf) => Buffer.from(leaf).toString('base64')),
    };
  }

  async status(): Promise<CustodyStatus> {
    const directory = this.#feed.directory();
    const active = directory.initialised ? directory.active() : undefined;
    const keks = directory.initialised ? directory.versions() : [];
    const said = new Map<PeerName, CustodianStatus>();
    const custodians = await Promise.all(
      this.#custodians().map((each) => this.#infoOf(each, active, keks, said)),
    );
    const alive = custodians.filter(({ holds }) => active !== undefined && holds.includes(active.ver)).length;
    const versions = await Promise.all(keks.map((kek) => this.#versionInfo(kek, custodians)));
    const { next, trouble } = await this.#progress();
    const shared = active === undefined ? undefined : sharedHostWarning(this.#holders(active), active.t);
    const canary = active === undefined ? undefined : await this.#canary.check();
    return {
      group: this.group,
      serves: this.makes ? 'tdec' : 'dev-file',
      servesText: this.makes
        ? this.provider.describe().text
        : 'A development key file makes the keys: the custodians have not been told to make one together.',
      problem: directory.problem ?? (this.#trouble === '' ? null : this.#trouble),
      key: active === undefined ? null : this.#keyInfo(active),
      versions,
      custodians,
      alive,
      margin: active === undefined ? null : (weakestOf(versions)?.margin ?? null),
      next,
      trouble,
      inPlaceOf: endedOf(directory),
      unerased: (await this.#erasures.unconfirmed(directory, said))
        .map(({ peer, version, text }) => ({ custodian: this.#nameOf(peer), version, text }))
        .toSorted((a, b) => a.custodian.localeCompare(b.custodian, 'en', { numeric: true })),
      canary: canary === undefined ? null : { ok: canary.ok, text: canary.text, beat: canary.beat },
      misconduct: this.provider.misconduct.map((each) => misconductText(each, this.#nameOf(each.peer))),
      warnings: shared === undefined ? [] : [shared],
      beat: this.#ports.beatIndex(),
    };
  }

  /** As `status`, of a moment ago: for those who look every second. */
  async lately(): Promise<CustodyStatus> {
    const nowMs = systemClock.monotonic();
    const ageMs = nowMs - this.#statusMs;
    if (this.#status !== undefined && ageMs <= statusMs) return this.#status;
    this.#statusMs = nowMs;
    const asked = this.status().then((status) => (this.#status = status));
    // Who looks every second need not wait for a custodian that is silent.
    if (this.#status === undefined || ageMs > 5 * statusMs) return asked;
    asked.catch((error: unknown) => console.error(`custody status: ${describeError(error)}`));
    return this.#status;
  }

  /** Whether branch keys come back: tried, not guessed. */
  async check(): Promise<HealthCheck> {
    const name = 'custody.unwrap';
    const directory = this.#feed.directory();
    if (this.#trouble !== '') return { name, status: 'degraded', text: this.#trouble };
    if (!this.makes)
      return { name, status: 'ok', text: 'a development key file makes the keys: nothing to unwrap yet' };
    if (!directory.initialised) {
      const text = directory.problem ?? `custody group ${this.group} has not made its key yet`;
      return { name, status: 'degraded', text };
    }
    if (!(await this.mayAsk()))
      return {
        name,
        status: 'degraded',
        text: 'this door has no leave to ask custodians: nothing was tried',
      };
    const { ok, text } = await this.#canary.check();
    const { margin, versions } = await this.lately();
    if (margin !== null && margin < 0) return { name, status: 'failed', text: tooFewText(versions) };
    const worries = [
      ...(this.provider.misconduct.length > 0 ? ['a custodian was caught lying'] : []),
      ...(margin === 0 ? ['one more failure and nothing can be opened'] : []),
    ];
    const status = worries.length === 0 ? 'ok' : 'degraded';
    return { name, status: ok ? status : 'failed', text: [text, ...worries].join('; ') };
  }

  #keyInfo(kek: TdecKek): NonNullable<CustodyStatus['key']> {
    const ageMs = Math.max(0, systemClock.now() - Date.parse(kek.createdAt));
    return {
      version: kek.ver,
      t: kek.t,
      n: kek.n,
      shareGen: kek.shareGen,
      createdAt: kek.createdAt,
      ageHours: Math.round((1000 * ageMs) / hour) / 1000,
      ageBeats: Math.max(0, this.#ports.beatIndex() - kek.activateBeat),
      refreshEveryBars: refreshBars(kek, this.#feed.directory().policy()),
      policyVersion: this.#feed.directory().policy()?.ver ?? null,
    };
  }

  async #versionInfo(kek: TdecKek, custodians: readonly CustodianInfo[]): Promise<KekInfo> {
    const { cg, ver, state, shareGen, createdAt, activateBeat } = kek;
    const switched = this.#feed.directory().switched(ver);
    const left =
      state === 'decrypt-only'
        ? (await this.#ports.view.wrappedUnder(cg, ver, { limit: leftMax })).items.length
        : null;
    const about = { version: ver, state, shareGen, createdAt, activateBeat, switched, left };
    return { ...about, ...marginOf(kek, custodians) };
  }

  /** As the steward says that coordinates custody; the others refuse. Nulls when none does. */
  async #progress(): Promise<Pick<CustodyStatus, 'next' | 'trouble'>> {
    const { peer } = this.#ports.member;
    const asked = peersWithRole(peer.membership(), 'steward').map((steward) =>
      peer.rpc.call(steward, 'custody.progress', { head: {} }, { timeoutMs: askMs }),
    );
    try {
      const { head } = await Promise.any(asked);
      const [next, trouble] = [fieldOf(head, 'next'), fieldOf(head, 'trouble')];
      return {
        next: typeof next === 'string' ? next : null,
        trouble: typeof trouble === 'string' ? trouble : null,
      };
    } catch {
      return { next: null, trouble: null }; // what a steward is missing for, the rest of the status says
    }
  }

  async #infoOf(
    entry: MemberEntry,
    active: TdecKek | undefined,
    versions: readonly TdecKek[],
    heard: Map<PeerName, CustodianStatus>,
  ): Promise<CustodianInfo> {
    const { name, peer } = entry;
    const seat = active?.custodians.find((each) => each.peer === peer);
    const place = {
      name,
      peer,
      org: seat?.org ?? '',
      index: seat?.i ?? null,
      latencyMs: this.provider.latencyMs(peer) ?? null,
    };
    const nothing = { shareGen: null, holds: [], auditEntries: null, auditCosigned: null, warnings: [] };
    try {
      const options = { timeoutMs: askMs };
      const { head } = await this.#ports.member.peer.rpc.call(peer, 'custody.status', { head: {} }, options);
      const said = parseStatus(head);
      heard.set(peer, said);
      const { entries: auditEntries, cosigned: auditCosigned } = said.audit;
      const { warnings } = said;
      const state = stateOf(said, peer, this.group, { active, versions });
      return { ...place, ...state, auditEntries, auditCosigned, warnings };
    } catch (error) {
      return { ...place, ...nothing, state: 'unreachable', text: describeError(error) };
    }
  }

  async #ask(peer: PeerName, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const options = { timeoutMs: unwrapMs, signal };
    const { rpc } = this.#ports.member.peer;
    return (await rpc.call(peer, 'custody.unwrap', { head: {}, body: request }, options)).body;
  }

  #holders(kek: TdecKek): readonly MemberEntry[] {
    return this.#custodians().filter(({ peer }) => kek.custodians.some((each) => each.peer === peer));
  }

  #nameOf(peer: PeerName): string {
    return this.#custodians().find((each) => each.peer === peer)?.name ?? peer;
  }

  #custodians(): readonly MemberEntry[] {
    const { members } = this.#ports.member.peer.membership();
    return members.filter(({ roles }) => roles.includes('custodian'));
  }
}

function endedOf({ inPlaceOf }: CustodyDirectory): CustodyStatus['inPlaceOf'] {
  return inPlaceOf === undefined
    ? null
    : { group: inPlaceOf.of, reason: inPlaceOf.reason, beat: inPlaceOf.beat };
}

/** Of the version that is the nearest to being closed. */
function tooFewText(versions: readonly KekInfo[]): string {
  const weakest = weakestOf(versions);
  const [holders, margin] = [weakest?.holders ?? 0, weakest?.margin ?? 0];
  const what = weakest?.state === 'active' ? 'are ready' : `hold shares of version ${weakest?.version}`;
  return `${holders} custodians ${what}, ${holders - margin} are needed`;
}

/** Cuts `body` into parts of `sizes`, which must be positive and use it up: then there are no more parts than bytes. */
function split(body: Uint8Array, sizes: unknown): Uint8Array[] {
  const refused = () => new HoldfastError('RECORD_INVALID', 'leaves of an audit log expected');
  if (!Array.isArray(sizes)) throw refused();
  let offset = 0;
  const parts = sizes.map((size: unknown) => {
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 1 || offset + size > body.length)
      throw refused();
    return body.subarray(offset, (offset += size));
  });
  if (offset !== body.length) throw refused();
  return parts;
}
