// The coordinator of ceremonies in the steward's process: custodians over RPC, the registry in its own Beacon.

import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Tempo } from '../backbeat/tempo.ts';
import { policyFrom } from '../beacon/entitled.ts';
import { decodeCbor, encodeCbor, type Block } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcMessage } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import type { CoordinatorPorts, FiledAs, NewestKek, Say } from '../custody/coordinator.ts';
import { Coordinator, type OrderResult } from '../custody/coordinator-run.ts';
import { groupNameOf } from '../custody/group-name.ts';
import { CustodyFeed } from '../custody/feed.ts';
import type { BeatNow } from '../custody/freshness.ts';
import { random } from '../custody/random.ts';
import { RotationCoordinator, type RotationPorts } from '../custody/rotation-coordinator.ts';
import { parseStatus } from '../custody/wire.ts';
import { readBase } from '../custody/ceremony.ts';
import { errnoOf, fileError } from '../files/whole.ts';
import { layoutPaths } from '../local/layout.ts';
import { createExchange, type Exchange } from '../node/exchange.ts';
import { custodianKeysOf, publicKeyOfPeer } from '../node/identity.ts';
import { hasRole, memberOf } from '../node/membership.ts';
import { loadEd25519 } from '../threshold/ed25519-sodium.ts';
import { loadRistretto } from '../threshold/group-sodium.ts';
import type { BeaconHost } from './beacon-host.ts';
import { onceUp } from './coming-up.ts';
import { type Member, peersWithRole, systemClock } from './member.ts';
import { rankedNodes } from './node-blocks.ts';
import { BeaconRotationRegistry } from './rotation-registry.ts';

/** A step is arithmetic of some milliseconds and a few flushed writes. */
const stepMs = 10 * second;
/** While the first key is made nothing else can be done, so a start waits for it, and not for ever. */
const firstKeyMs = 15 * second;
const retryMs = 200;
/** A process takes so long to start, to connect, and to answer. */
const comesUpMs = 10 * second;
/** Custody's records are few and everything depends on them. */
const recordCopies = 5;
const visibleMs = 10 * second;

export class CustodyCoordinator implements AsyncDisposable {
  readonly #member: Member;
  readonly #beacon: BeaconHost;
  readonly #tempo: Tempo;
  /** One steward at a time: another one may coordinate now. */
  readonly #isMine: () => boolean;
  readonly #exchange: Exchange;
  readonly #ports: CoordinatorPorts;
  /** Of the group of now: another one may come into its place. */
  #coordinator: Coordinator;
  #rotation: RotationCoordinator;
  #rotateOrder: Uint8Array | undefined;
  #feed: Promise<CustodyFeed> | undefined;
  readonly #stop = new AbortController();
  #work: Promise<unknown> = Promise.resolve();
  #unsubscribe: () => void = () => undefined;
  #initialised = false;

  private constructor(member: Member, beacon: BeaconHost, tempo: Tempo, isMine: () => boolean) {
    this.#isMine = isMine;
    this.#member = member;
    this.#beacon = beacon;
    this.#tempo = tempo;
    this.#exchange = createExchange(member.peer.rpc);
    this.#ports = this.#newPorts();
    [this.#coordinator, this.#rotation] = this.#coordinating(groupNameOf(member.config.cluster));
  }

  #coordinating(cg: string): [Coordinator, RotationCoordinator] {
    const rotation = new RotationCoordinator(this.#rotationPorts(cg, this.#ports));
    const coordinator = new Coordinator(this.#ports, cg, {
      give: (order) => {
        this.#rotateOrder = order;
      },
      advance: () => rotation.advance(this.#stop.signal),
    });
    return [coordinator, rotation];
  }

  /** Goes over to the group that has come into the place of the one before, as the registry says it. */
  async #adopt(): Promise<void> {
    const { cg } = (await this.#records()).directory();
    if (cg === this.#coordinator.cg || this.#stop.signal.aborted) return;
    this.#rotateOrder = undefined; // it was about the other one
    [this.#coordinator, this.#rotation] = this.#coordinating(cg);
    say(`custody group ${cg} is in the place of the one before`);
  }

  /** Serves orders, and does what is due with every beat, while `isMine` says that it is this steward's to do. */
  static start(
    member: Member,
    beacon: BeaconHost,
    tempo: Tempo,
    isMine: () => boolean = () => true,
  ): CustodyCoordinator {
    const coordinator = new CustodyCoordinator(member, beacon, tempo, isMine);
    coordinator.#serve();
    coordinator.#unsubscribe = tempo.onBeat((beat) => {
      // A beat that nobody sent is no reason to move: without a pulse the shares stay as they are.
      if (beat.source === 'pulse')
        coordinator.#background(coordinator.#onBeat(beat.frame.beat_index, beat.downbeat));
    });
    return coordinator;
  }

  /**
   * Makes the first key where the operator has ordered one. Resolves when it is there, or without it: after a while, and
   * at once where the registry has lost it.
   */
  async begin(): Promise<void> {
    const deadline = systemClock.monotonic() + firstKeyMs;
    while (!this.#stop.signal.aborted) {
      if (await this.#initialise()) return;
      if (this.#coordinator.isLost || systemClock.monotonic() > deadline) {
        console.error(
          `${this.#coordinator.trouble ?? 'the first key is not made yet'}; trying again with the beats`,
        );
        return;
      }
      await delay(retryMs);
    }
  }

  /** The field `secret_rotations_ok` of a BarReport, as it stands now. */
  rotationsOk(): boolean {
    return this.#rotation.rotationsOk();
  }

  /** Why what was due last did not succeed, for people. */
  get trouble(): string | undefined {
    return this.#coordinator.trouble;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#unsubscribe();
    await this.#work;
  }

  /** True when there is nothing to make. */
  async #initialise(): Promise<boolean> {
    const { view } = this.#beacon;
    if (this.#initialised || view === undefined) return true;
    if (await this.#coordinator.initialised()) this.#initialised = true;
    else {
      const { state, revision, logRevision } = view.health();
      if (state !== 'following' || revision !== logRevision) return false; // what is not read yet may bring it
      const order = await this.#initOrder();
      if (order === undefined) return true;
      if (this.#areThere()) this.#initialised = await this.#coordinator.initialise(order, say);
    }
    return this.#initialised;
  }

  /** All custodians, and nodes enough for the records. */
  #areThere(): boolean {
    const { peer } = this.#member;
    const up = new Set(peer.connected());
    const nodes = peersWithRole(peer.membership(), 'node');
    return (
      peersWithRole(peer.membership(), 'custodian').every((each) => up.has(each)) &&
      nodes.filter((each) => up.has(each)).length >= Math.min(2, nodes.length)
    );
  }

  async #onBeat(beat: number, downbeat: boolean): Promise<void> {
    if (this.#beacon.view === undefined || this.#stop.signal.aborted || !this.#isMine()) return;
    try {
      if (!(await this.#initialise())) return;
      await this.#adopt();
      await this.#coordinator.onBeat({ beat, downbeat }, say);
    } catch (error) {
      console.error(`custody: ${describeError(error)}`);
    }
  }

  async #initOrder(): Promise<Uint8Array | undefined> {
    const path = layoutPaths(this.#member.config.dir).custodyInitOrder;
    try {
      return new Uint8Array(await readFile(path));
    } catch (cause) {
      if (errnoOf(cause) === 'ENOENT') return undefined;
      throw fileError(path, 'cannot be read', cause);
    }
  }

  #serve(): void {
    const own = this.#member.peer;
    own.rpc.handle('custody.progress', async (_, { peer }) => {
      this.#requireMine(hasRole(own.membership(), peer, 'door'));
      return { head: { next: this.#rotation.next, trouble: this.#coordinator.trouble ?? null } };
    });
    own.rpc.handleStream('custody.command', ({ body }, { peer }) =>
      this.#command(hasRole(own.membership(), peer, 'door'), new Uint8Array(body)),
    );
  }

  /** Orders are signed by who gives them; the door only carries them. */
  async *#command(allowed: boolean, order: Uint8Array): AsyncGenerator<RpcMessage> {
    this.#requireMine(allowed);
    const said: string[] = [];
    let wake = (): void => undefined;
    let isDone = false;
    const done = this.#carryOut(order, (text) => {
      said.push(text);
      wake();
    });
    const ended = done.then(
      () => undefined,
      () => undefined,
    );
    this.#background(ended);
    void ended.then(() => {
      isDone = true;
      wake();
    });
    for (;;) {
      const text = said.shift();
      if (text !== undefined) yield { head: { progress: text } };
      else if (isDone) break;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
    yield { head: { result: { ...(await done) } } };
  }

  async #carryOut(order: Uint8Array, tell: Say): Promise<OrderResult> {
    await this.#adopt();
    const result = await this.#coordinator.command(order, tell);
    if (result.ceremony === 'init') await this.#adopt();
    return result;
  }

  #requireMine(allowed: boolean): void {
    if (!allowed)
      throw new HoldfastError('FORBIDDEN', 'only a door may pass on orders, and ask how far they are');
    if (!this.#isMine())
      throw new HoldfastError('BEACON_UNAVAILABLE', 'another steward coordinates custody now, or soon will');
  }

  #background(work: Promise<unknown>): void {
    this.#work = Promise.allSettled([this.#work, work]);
  }

  #newPorts(): CoordinatorPorts {
    const { peer, identity } = this.#member;
    const { rpc } = peer;
    const options = (): { timeoutMs: number; signal: AbortSignal } => ({
      timeoutMs: stepMs,
      signal: this.#stop.signal,
    });
    return {
      custodians: {
        step: async (to, at, payload) => {
          const message = { head: at, body: encodeCbor(payload) };
          const call = () => rpc.call(to, 'custody.step', message, options());
          // A key is made by all, so whoever is being started again is waited for; other ceremonies go on without it.
          const { body } = await (isFirstWord(at) ? this.#onceUp(to, call) : call());
          return decodeCbor(body, 'step');
        },
        activate: async (to, body) => {
          const { head } = await rpc.call(to, 'custody.activate', { head: {}, body }, options());
          return fieldOf(head, 'active') === true;
        },
        order: async (to, body) => {
          await this.#onceUp(to, () => rpc.call(to, 'custody.order', { head: {}, body }, options()));
        },
        status: async (to) =>
          parseStatus((await rpc.call(to, 'custody.status', { head: {} }, options())).head),
        all: () => peersWithRole(peer.membership(), 'custodian'),
        nameOf: (each) => memberOf(peer.membership(), each)?.name ?? each,
        keyOf: (each) => this.#keyOf(each),
      },
      registry: {
        kek: (cg) => this.#kek(cg),
        versions: (cg) => this.#versions(cg),
        policy: async (root) => (root === null ? undefined : policyFrom(this.#view(), root)),
        birth: (cg) => this.#birth(cg),
        lastCertificate: async (cg, ver) => {
          const found = await this.#view().certificate(cg, ver);
          return found && { n: found.version, cid: found.record.cid };
        },
        dealtBeat: async (cg, ver) => {
          const directory = (await this.#records()).directory();
          return directory.cg === cg ? directory.dealtBeat(ver) : undefined;
        },
        file: (subject, expected, records) => this.#file(subject, expected, records),
      },
      signer: identity.signer,
      groups: async () => ({ kek: await loadRistretto(), frost: await loadEd25519() }),
      random,
      now: () => systemClock.now(),
      beat: () => this.#tempo.current().beat?.frame.beat_index ?? 0,
    };
  }

  #rotationPorts(cg: string, { custodians, signer, groups }: CoordinatorPorts): RotationPorts {
    return {
      cg,
      registry: new BeaconRotationRegistry({
        cg,
        view: () => this.#view(),
        store: async (records) => {
          await Promise.all(records.map(({ block }) => this.#store(block)));
        },
        append: (append, signal) => this.#beacon.append(append, { signal }),
        policyOf: (root) => policyFrom(this.#view(), root),
        now: () => systemClock.now(),
        random,
      }),
      step: (peer, at, payload) => custodians.step(peer, at, payload),
      activate: (peer, record) => custodians.activate(peer, record),
      nameOf: (peer) => custodians.nameOf(peer),
      signer,
      groups,
      random,
      beat: () => this.#beatNow(),
      beatsPerBar: () => this.#coordinator.beatsPerBar,
      instant: () => new Date(systemClock.now()).toISOString(),
      order: () => this.#rotateOrder,
    };
  }

  /** Whoever is being started is to be told as well. */
  #onceUp<T>(custodian: PeerName, call: () => Promise<T>): Promise<T> {
    const ports = {
      isConnected: () => this.#member.peer.connected().includes(custodian),
      now: () => systemClock.monotonic(),
      pause: () => delay(retryMs, undefined, { signal: this.#stop.signal }),
    };
    return onceUp(ports, comesUpMs, call);
  }

  /** Without a pulse nobody knows the time, and nothing rotates. */
  #beatNow(): BeatNow {
    const { beat } = this.#tempo.current();
    const index = beat?.frame.beat_index ?? 0;
    const lost = beat?.source === 'pulse' ? undefined : 'the pulse is silent';
    return { beat: index, bar: Math.floor(index / this.#coordinator.beatsPerBar), silentBeats: 0, lost };
  }

  #keyOf(peer: PeerName): Uint8Array {
    if (hasRole(this.#member.peer.membership(), peer, 'custodian')) return publicKeyOfPeer(peer);
    throw new HoldfastError('FORBIDDEN', `${peer} is no custodian of this cluster`);
  }

  async #kek(cg: string): Promise<NewestKek | undefined> {
    const found = (await this.#view().kek(cg))?.record.body;
    return found?.provider === 'tdec' ? this.#version(cg, found.ver) : undefined;
  }

  async #versions(cg: string): Promise<readonly NewestKek[]> {
    const found: NewestKek[] = [];
    for (let ver = 1; ; ver++) {
      const filed = await this.#version(cg, ver);
      if (filed === undefined) return found;
      found.push(filed);
    }
  }

  async #version(cg: string, ver: number): Promise<NewestKek | undefined> {
    const view = this.#view();
    // In this order: what comes in between makes the append fail, never the record wrong.
    const revision = await view.subjectRevision(`kek/${cg}/${ver}`);
    const newest = await view.kek(cg, ver);
    if (newest === undefined || newest.record.body.provider !== 'tdec') return undefined;
    const { bytes } = newest.record.block;
    return { ...readBase(bytes), bytes, revision };
  }

  async #birth(cg: string) {
    const view = this.#view();
    const certificate = await view.certificate(cg, 1, 1);
    const { records } = await view.custodyRecords({ revision: 0, index: 0 });
    const kek = records.find(({ key }) => key === `kek/${cg}/1`);
    return kek && certificate && { kek: kek.bytes, certificate: certificate.record.block.bytes };
  }

  /** Out of all records of the group, read on from where it stopped. It goes by its own registry and remembers nothing else. */
  async #records(): Promise<CustodyFeed> {
    this.#feed ??= CustodyFeed.open({
      cg: groupNameOf(this.#member.config.cluster),
      operator: this.#member.config.operator,
      custodians: () => custodianKeysOf(this.#member.peer.membership()),
      read: (since) => this.#view().custodyRecords(since),
      pins: { load: async () => undefined, save: async () => undefined },
    });
    const feed = await this.#feed;
    await feed.reload(this.#stop.signal);
    return feed;
  }

  /** Blocks first: a record that is registered is on nodes already. */
  async #file(subject: string, expected: number, records: readonly FiledAs[]): Promise<void> {
    await Promise.all(records.map(({ record }) => this.#store(record.block)));
    const { revision } = await this.#beacon.append({
      subject,
      expected,
      records: records.map(({ key, record }) => ({ key, bytes: record.block.bytes })),
      at: systemClock.now(),
      id: random(16),
    });
    await this.#view().waitFor(revision, AbortSignal.timeout(visibleMs));
  }

  async #store(block: Block): Promise<void> {
    const { peer } = this.#member;
    const done = await Promise.allSettled(
      rankedNodes(peer, block.cid)
        .slice(0, recordCopies)
        .map((node) => this.#exchange.pushBlock(node.peer, block, {})),
    );
    const copies = done.filter(({ status }) => status === 'fulfilled').length;
    if (copies >= Math.min(2, peersWithRole(peer.membership(), 'node').length)) return;
    throw new HoldfastError(
      'QUORUM_UNAVAILABLE',
      `a record of custody is on ${copies} nodes; it is filed when two have it`,
      { cause: done.find((each) => each.status === 'rejected')?.reason },
    );
  }

  #view() {
    const { view } = this.#beacon;
    if (view !== undefined) return view;
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is damaged');
  }
}

/** With which a custodian begins its part in making the first key of a group. */
function isFirstWord({ protocol, step }: { readonly protocol: string; readonly step: string }): boolean {
  return step === 'hello' && (protocol === 'init' || protocol === 'birth');
}

function say(text: string): void {
  console.error(`custody: ${text}`);
}
