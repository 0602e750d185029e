// The custodian role: shares of the keys, sealed at rest, an audit log, and nothing else.

import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { Activation } from '../custody/activation.ts';
import { entryOf } from '../custody/audit-leaf.ts';
import { AuditLog } from '../custody/audit-log.ts';
import { CeremonyDesk } from '../custody/ceremony-desk.ts';
import { CeremonySteps, serveCeremonies } from '../custody/ceremony-steps.ts';
import type { NoteKey } from '../custody/checkpoint.ts';
import { Cosigning, type WitnessPeer } from '../custody/cosigning.ts';
import { type Disk, openFolder } from '../custody/disk.ts';
import { CustodyBooks } from '../custody/books.ts';
import type { BeatNow } from '../custody/freshness.ts';
import { Custodian, isSealed } from '../custody/custodian.ts';
import { CustodianOrders } from '../custody/custodian-orders.ts';
import { sharedHostWarning } from '../custody/hosts.ts';
import { policyProtocol } from '../custody/policy-signing.ts';
import { random } from '../custody/random.ts';
import { keepVersions, rotationProtocols } from '../custody/rotation-custodian.ts';
import { destroyWaits } from '../custody/rotation-marks.ts';
import { openShareStore, Resealing } from '../custody/open-shares.ts';
import { describeSealing, type SealingPlaces } from '../custody/sealing-key.ts';
import { serveCustodian } from '../custody/serve.ts';
import { serveAudit } from '../custody/serve-audit.ts';
import { ShareStore } from '../custody/share-store.ts';
import type { CustodianHello, CustodianStatus } from '../custody/wire.ts';
import { Witness } from '../custody/witness.ts';
import { serveHostCommands } from '../local/host-commands.ts';
import { mustExist, type ProcessConfig } from '../local/layout.ts';
import { custodianKeysOf, publicKeyOfPeer } from '../node/identity.ts';
import { memberOf } from '../node/membership.ts';
import type { DataDir } from '../node/stores.ts';
import { loadEd25519 } from '../threshold/ed25519-sodium.ts';
import { loadRistretto } from '../threshold/group-sodium.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { custodianCommands } from './custodian-host.ts';
import { CustodianTempo } from './custodian-tempo.ts';
import { CustodyFollower } from './custody-follower.ts';
import type { RunningRole } from './daemon.ts';
import { type Member, peersWithRole, type RoleOptions, startMember, systemClock } from './member.ts';

/** Name in the share store of the highest beat heard; it is written once in so many beats. */
const beatMark = 'beat';
const beatMarkEvery = 60;
/** When that was, and how fast beats came at the quickest, in tenths of a beat a minute. */
const beatTimeMark = 'beat/at';
const tempoMark = 'beat/tempo';
/** Who may speak to custodians; requests and orders are signed by who makes them, whoever carries them. */
const callers = ['custodian', 'steward', 'door', 'operator'];

export async function startCustodianRole(
  config: ProcessConfig,
  options: RoleOptions = {},
): Promise<RunningRole> {
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'client', options));
  const { resealing, shares } = await openShares(member);
  await makeKeys(shares);
  const log = stack.use(await openLog(member));
  const process = stack.use(await CustodianProcess.start(member, shares, log, resealing));
  const host = {
    resealing,
    shares,
    log,
    books: process.books,
    peer: member.peer.name,
    signer: member.identity.signer,
    beat: () => process.beat(),
    now: () => systemClock.now(),
  };
  stack.use(await serveHostCommands(member.dir.path, config.name, custodianCommands(host)));
  console.error(describeSealing(resealing.sealing));
  const owned = stack.move();
  return {
    info: { peer: member.peer.name, sealing: shares.source, ...process.facts() },
    ended: new Promise(() => undefined),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Opens the share store, or makes it on the first start of this custodian. */
async function openShares({
  config,
  dir,
}: Member): Promise<{ readonly resealing: Resealing; readonly shares: ShareStore }> {
  const places = placesOf(config);
  const create = !dir.isBorn('shares');
  const disk = await openStore(dir, 'shares');
  const opened = await openShareStore({ shares: disk, keys: disk, owner: config.peer, create }, places);
  await dir.markBorn('shares');
  return { shares: opened.shares, resealing: new Resealing(opened, places) };
}

function placesOf({ custodian, name }: ProcessConfig): SealingPlaces {
  if (custodian === undefined)
    throw new HoldfastError('ARGUMENT_INVALID', `${name} is not configured as a custodian`);
  const { passphrasePath, sealingKeyPath: keyPath } = custodian;
  return { credentialsDir: process.env['CREDENTIALS_DIRECTORY'], passphrasePath, keyPath };
}

/** The keys that a ceremony asks for before there is any share: one for life, one for the first dealings. */
async function makeKeys(shares: ShareStore): Promise<void> {
  const has = (kind: 'dkg' | 'prekey'): boolean => shares.keyPairs().some((pair) => pair.kind === kind);
  if (!has('dkg')) {
    const group = await loadRistretto();
    const secret = group.scalar.random(random);
    await shares.addKeyPair({ kind: 'dkg', epoch: 0, publicKey: group.base(secret) }, secret);
    secret.fill(0);
  }
  if (!has('prekey')) {
    const { publicKey, secretKey } = generateKeyPair(random);
    await shares.addKeyPair({ kind: 'prekey', epoch: 0, publicKey }, secretKey);
    secretKey.fill(0);
  }
}

async function openLog({ config, dir, identity }: Member): Promise<AuditLog> {
  const log = await AuditLog.open({
    path: dir.storePath('audit'),
    origin: logName(config.cluster, config.name),
    signer: identity.signer,
    create: !dir.isBorn('audit'),
  });
  await dir.markBorn('audit');
  return log;
}

/** The directory of a store; one that was there before and is gone is damage, whatever it held. */
async function openStore(dir: DataDir, name: string): Promise<Disk> {
  const path = dir.storePath(name);
  if (dir.isBorn(name)) await mustExist(path);
  return openFolder(path);
}

/** Name of the log of a custodian, and of it as a witness of others. */
function logName(cluster: string, custodian: string): string {
  return `${cluster}/${custodian}`;
}

/** The parts of a custodian, joined: it answers, hears the beat, and once a beat does what is due. */
class CustodianProcess implements AsyncDisposable {
  readonly #member: Member;
  readonly #shares: ShareStore;
  readonly #log: AuditLog;
  readonly #resealing: Resealing;
  readonly #tempo: CustodianTempo;
  readonly #books: CustodyBooks;
  readonly #follower: CustodyFollower;
  readonly #cosigning: Cosigning;
  readonly #custodian: Custodian;
  readonly #orders: CustodianOrders;
  readonly #desk: CeremonyDesk;
  readonly #steps: CeremonySteps;
  readonly #activation: Activation;
  readonly #stop = new AbortController();
  #chores: Promise<void> = Promise.resolve();
  #reading: Promise<void> = Promise.resolve();
  #catching: Promise<void> | undefined;
  #busy = false;
  /** Chores that failed in the last round, in words. */
  #troubles: readonly string[] = [];

  private constructor(member: Member, shares: ShareStore, log: AuditLog, resealing: Resealing) {
    this.#member = member;
    this.#shares = shares;
    this.#log = log;
    this.#resealing = resealing;
    const memory = {
      beat: shares.mark(beatMark),
      atMs: shares.mark(beatTimeMark),
      bpm: shares.mark(tempoMark) / 10,
    };
    this.#tempo = new CustodianTempo(systemClock, memory, member.config.settings.beatMs);
    this.#books = new CustodyBooks(shares, {
      operator: member.config.operator,
      custodians: () => custodianKeysOf(member.peer.membership()),
    });
    this.#follower = new CustodyFollower(member.peer.rpc, this.#books);
    this.#cosigning = new Cosigning(log, member.peer.rpc);
    const ports = {
      shares,
      log,
      books: this.#books,
      signer: member.identity.signer,
      group: loadRistretto,
      random,
      beat: () => this.#tempo.now(),
      now: () => systemClock.now(),
      breathe: () => new Promise<void>((resolve) => setImmediate(resolve)),
    };
    this.#custodian = new Custodian({ ...ports, catchUp: () => this.#catchUp() });
    const { operator } = member.config;
    this.#orders = new CustodianOrders({ ...ports, peer: member.peer.name, operator, executors: [] });
    const desk = new CeremonyDesk({
      ...ports,
      orders: this.#orders,
      follow: () => this.#follow(),
      peer: member.peer.name,
      operator,
      groups: async () => ({ kek: await loadRistretto(), frost: await loadEd25519() }),
      beatsPerBar: () => this.#tempo.beatsPerBar,
      custodianKey: (peer) => this.#logOf(peer).publicKey,
      custodians: () => custodianKeysOf(member.peer.membership()),
    });
    this.#desk = desk;
    this.#steps = new CeremonySteps(desk, {
      ...rotationProtocols({
        lastUse: (cg, kekVer) => this.#custodian.lastUse(cg, kekVer),
        waits: { ...destroyWaits, orderedMs: member.config.settings.retiredMs },
      }),
      ...policyProtocol,
    });
    this.#activation = new Activation(desk);
  }

  static async start(
    member: Member,
    shares: ShareStore,
    log: AuditLog,
    resealing: Resealing,
  ): Promise<CustodianProcess> {
    const custodian = new CustodianProcess(member, shares, log, resealing);
    await custodian.#noteStart();
    await custodian.#serve();
    return custodian;
  }

  /** As this custodian counts it. */
  beat(): BeatNow {
    return this.#tempo.now();
  }

  /** What the registry has said of the groups. */
  get books(): CustodyBooks {
    return this.#books;
  }

  /** For the status of the process. */
  facts() {
    return { auditEntries: this.#log.size, shares: this.#active().length };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#steps.close();
    await this.#chores;
  }

  async #serve(): Promise<void> {
    const { config, dir, identity, peer } = this.#member;
    const disk = await openStore(dir, 'witness');
    await dir.markBorn('witness');
    const witness = new Witness({
      disk,
      name: logName(config.cluster, config.name),
      signer: identity.signer,
      now: () => systemClock.now(),
    });
    serveAudit(peer.rpc, {
      log: this.#log,
      witness,
      cosigned: () => this.#cosigning.last?.note,
      allowReader: (from) => this.#allow(from, callers),
      logOf: (from) => this.#logOf(from),
    });
    serveCustodian(peer.rpc, {
      custodian: this.#custodian,
      orders: this.#orders,
      hello: () => this.#hello(),
      status: () => this.#status(),
      allow: (from) => this.#allow(from, callers),
    });
    serveCeremonies(peer.rpc, {
      steps: this.#steps,
      activation: this.#activation,
      allow: (from) => this.#allow(from, ['steward']),
      changed: () => this.#onBeat(), // requests are judged by the records, so they are read at once
    });
    peer.rpc.handle('custodian.beat', async ({ head }, { peer: from }) => {
      this.#allow(from, ['steward']);
      if (this.#tempo.hear(fieldOf(head, 'beat'))) this.#onBeat();
      return { head: {} };
    });
  }

  #hello(): CustodianHello {
    const { config, identity } = this.#member;
    const pairs = this.#shares.keyPairs();
    const dkg = pairs.find(({ kind }) => kind === 'dkg');
    const prekey = pairs.filter(({ kind }) => kind === 'prekey').toSorted((a, b) => b.epoch - a.epoch)[0];
    if (dkg === undefined || prekey === undefined)
      throw new HoldfastError('KEY_UNAVAILABLE', `${config.name} has no keys for ceremonies`);
    return {
      v: 1,
      name: config.name,
      log: this.#log.origin,
      sigPk: identity.signer.publicKey,
      dkgPk: dkg.publicKey,
      prekey: prekey.publicKey,
      prekeyEpoch: prekey.epoch,
    };
  }

  #status(): CustodianStatus {
    const { beat, lost } = this.#tempo.now();
    const cosigned = this.#cosigning.last;
    const shares = this.#shares.shares();
    return {
      v: 1,
      name: this.#member.config.name,
      beat,
      timeLost: lost ?? null,
      sealingSource: this.#shares.source,
      shares: shares.map(({ cg, kekVer, gen, key, status, index, t, n }) => {
        return { cg, kekVer, gen, key, status, index, t, n };
      }),
      sealed: this.#books.groups().filter((cg) => isSealed(this.#shares, cg)),
      audit: {
        entries: this.#log.size,
        cosigned: cosigned?.size ?? 0,
        witnesses: cosigned?.witnesses ?? [],
      },
      waiting: this.#custodian.waiting,
      givenInBar: this.#custodian.given.items,
      warnings: this.#warnings(),
    };
  }

  #warnings(): string[] {
    const groups = this.#books.groups();
    return [
      ...groups.flatMap((cg) => {
        const kek = this.#books.book(cg)?.kek();
        if (kek === undefined) return [];
        const holders = this.#member.peer
          .membership()
          .members.filter(({ peer }) => kek.custodians.some((custodian) => custodian.peer === peer));
        return [sharedHostWarning(holders, kek.t)];
      }),
      ...groups.map((cg) => this.#books.problem(cg)),
      ...Object.entries(this.#cosigning.last?.refused ?? {}).map(
        ([name, why]) => `${name} does not vouch for this log: ${why}`,
      ),
      this.#resealing.sealing.source === 'key-file' ? describeSealing(this.#resealing.sealing) : undefined,
      this.#log.failure === undefined
        ? undefined
        : `the audit log takes no entries, so nothing is opened: ${describeError(this.#log.failure)}`,
      ...this.#troubles,
    ].filter((warning) => warning !== undefined);
  }

  /** A start is an event like any other: shares become usable by it. */
  async #noteStart(): Promise<void> {
    const beat = this.#shares.mark(beatMark);
    await this.#log.append(entryOf({ op: 'start', beat, at: systemClock.now() }));
  }

  /** What a beat brings. One round at a time: a slow one skips beats, it does not pile up. */
  #onBeat(): void {
    if (this.#busy || this.#stop.signal.aborted) return;
    this.#busy = true;
    this.#chores = this.#round().finally(() => {
      this.#busy = false;
    });
  }

  /** Never rejects: what failed is told once and in the status, and tried again with the next beat. */
  async #round(): Promise<void> {
    const { beat } = this.#tempo.now();
    this.#steps.closeIdle(systemClock.now());
    const done = await Promise.allSettled([
      this.#keepBeat(beat),
      this.#follow(),
      this.#haveCosigned(),
      this.#activation.settle(systemClock.monotonic()),
      keepVersions(this.#desk, (cg, kekVer) => this.#custodian.lastUse(cg, kekVer)),
    ]);
    if (this.#stop.signal.aborted) return;
    const troubles = done.flatMap((chore) =>
      chore.status === 'rejected' ? [describeError(chore.reason)] : [],
    );
    for (const trouble of troubles) if (!this.#troubles.includes(trouble)) console.error(trouble);
    this.#troubles = troubles;
  }

  /** One reader at a time: the records are taken in their order. */
  #follow(): Promise<void> {
    const done = this.#reading.then(() => this.#followRecords());
    this.#reading = done.catch(() => undefined); // its caller has the error
    return done;
  }

  /** For any number of requests at once. Never rejects: the next beat says what is wrong. */
  #catchUp(): Promise<void> {
    this.#catching ??= this.#follow()
      .catch(() => undefined)
      .finally(() => {
        this.#catching = undefined;
      });
    return this.#catching;
  }

  async #followRecords(): Promise<void> {
    const { beat } = this.#tempo.now();
    const { peer } = this.#member;
    const up = new Set(peer.connected());
    const stewards = peersWithRole(peer.membership(), 'steward');
    const steward = stewards.find((each) => up.has(each)) ?? stewards[0];
    if (steward === undefined || this.#books.groups().length === 0) return;
    await this.#follower.follow(steward, beat, this.#stop.signal);
    await this.#activation.wake();
  }

  async #keepBeat(beat: number): Promise<void> {
    if (beat < this.#shares.mark(beatMark) + beatMarkEvery) return;
    const { atMs, bpm } = this.#tempo.memory();
    // A clock that goes back leaves the later time: it only allows fewer beats.
    for (const [mark, value] of [
      [beatTimeMark, Math.floor(atMs)],
      [tempoMark, Math.ceil(bpm * 10)],
      [beatMark, beat],
    ] as const)
      await this.#shares.raise(mark, Math.max(value, this.#shares.mark(mark)));
  }

  async #haveCosigned(): Promise<void> {
    const witnesses = this.#witnesses();
    if (!this.#cosigning.isDue(witnesses.length)) return;
    const { note } = await this.#cosigning.gather(witnesses, this.#stop.signal);
    await this.#log.keepCheckpoint(note);
  }

  #active() {
    return this.#shares.shares().filter(({ status }) => status === 'active');
  }

  /** The other custodians that are connected now. */
  #witnesses(): WitnessPeer[] {
    const { peer } = this.#member;
    const up = new Set(peer.connected());
    return peersWithRole(peer.membership(), 'custodian')
      .filter((other) => other !== peer.name && up.has(other))
      .map((other) => ({ peer: other, key: this.#logOf(other) }));
  }

  #logOf(peer: PeerName): NoteKey {
    const { name } = this.#allow(peer, ['custodian']);
    return { name: logName(this.#member.config.cluster, name), publicKey: publicKeyOfPeer(peer) };
  }

  #allow(peer: PeerName, roles: readonly string[]) {
    const found = memberOf(this.#member.peer.membership(), peer);
    if (found?.roles.some((role) => roles.includes(role)) === true) return found;
    throw new HoldfastError('FORBIDDEN', `${peer} is no ${roles.join(', ')} of this cluster`);
  }
}
