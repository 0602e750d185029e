// Custodians in one process with real share stores and audit logs, and a coordinator and registry to cut at any step.

import { randomBytes } from 'node:crypto';
import { mkdtemp, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { type CID, decodeCbor, encodeCbor } from '../../src/core/block.ts';
import { HoldfastError, isHoldfastError } from '../../src/core/errors.ts';
import { signerFromSeed, type Signer } from '../../src/core/hash.ts';
import { Activation } from '../../src/custody/activation.ts';
import { AuditLog } from '../../src/custody/audit-log.ts';
import { CustodyBook } from '../../src/custody/book.ts';
import { CustodyBooks } from '../../src/custody/books.ts';
import { readBase } from '../../src/custody/ceremony.ts';
import { CeremonyDesk } from '../../src/custody/ceremony-desk.ts';
import { CeremonySteps } from '../../src/custody/ceremony-steps.ts';
import type { CoordinatorPorts, FiledAs } from '../../src/custody/coordinator.ts';
import { Coordinator } from '../../src/custody/coordinator-run.ts';
import { Custodian } from '../../src/custody/custodian.ts';
import { CustodianOrders } from '../../src/custody/custodian-orders.ts';
import { defaultPolicy } from '../../src/custody/default-policy.ts';
import { type Disk, openFolder } from '../../src/custody/disk.ts';
import { beatAt } from '../../src/custody/freshness.ts';
import { type OrderOp, signOrder } from '../../src/custody/order.ts';
import { policyProtocol } from '../../src/custody/policy-signing.ts';
import { keepVersions, rotationProtocols } from '../../src/custody/rotation-custodian.ts';
import { createSealingKeyFile } from '../../src/custody/sealing-key.ts';
import { ShareStore } from '../../src/custody/share-store.ts';
import type { CustodianStatus } from '../../src/custody/wire.ts';
import type { TdecKek } from '../../src/envelope/kek.ts';
import { openRecord, signRecord } from '../../src/manifest/record.ts';
import { loadEd25519 } from '../../src/threshold/ed25519-sodium.ts';
import type { Scalar } from '../../src/threshold/group.ts';
import { loadRistretto } from '../../src/threshold/group-sodium.ts';
import { generateKeyPair } from '../../src/threshold/hpke.ts';

export const cg = 'cg-test';
export const random = (size: number): Uint8Array => new Uint8Array(randomBytes(size));
const ristretto = await loadRistretto();
export const groups = { kek: ristretto, frost: await loadEd25519() };

/**
 * Where a process is killed (`restart`: and comes back at once), or a message to a custodian lost: `before` or after
 * (`after`) a custodian has taken a step, or at the registry. The step `log in S` is a write to the audit log in step S;
 * killed before it, half of the write is on the disk.
 */
export type Kill = (at: {
  readonly who: string;
  /** What the step belongs to: steps of the same name are in several. */
  readonly protocol: string;
  readonly step: string;
  readonly when: 'before' | 'after';
}) => 'go' | 'kill' | 'restart' | 'lose';

/** A record in its place in the registry. */
interface Filed {
  readonly key: string;
  readonly bytes: Uint8Array;
}

/** What a custodian's share store writes to. */
type Disks = (folder: Disk, name: string) => Disk;

/** One custodian: what is on its disk outlives the process. */
export class CustodianSite {
  readonly name: string;
  readonly peer: string;
  readonly signer: Signer = signerFromSeed(random(32));
  /** What it is shown of the registry: a steward may keep back the newest records. */
  registry: () => readonly Filed[];
  /** What it is at, for whoever cuts it: `start`, a chore, or a step with its protocol. */
  doing = { protocol: 'start', step: 'start' };
  readonly #world: CeremonyWorld;
  #running: Running | undefined;
  #dir = '';
  #born = false;

  constructor(world: CeremonyWorld, index: number) {
    this.#world = world;
    this.registry = () => world.log;
    this.name = `custodian-${index}`;
    this.peer = `peer-${index}`;
  }

  get running(): Running {
    if (this.#running === undefined) throw new HoldfastError('PEER_UNREACHABLE', `${this.name} is down`);
    return this.#running;
  }

  get isUp(): boolean {
    return this.#running !== undefined;
  }

  async start(): Promise<void> {
    const create = !this.#born;
    // A first start that was cut is gone on with.
    if (this.#dir === '') {
      this.#dir = await mkdtemp(join(this.#world.dir, `${this.name}-`));
      await createSealingKeyFile(join(this.#dir, 'sealing.key'));
    }
    const disk = this.#world.disk(await openFolder(join(this.#dir, 'shares')), this.name);
    const sealing = { source: 'key-file', path: join(this.#dir, 'sealing.key') } as const;
    const shares = await ShareStore.open({ shares: disk, keys: disk, sealing, owner: this.peer, create });
    if (create) await makeKeys(shares);
    const log = await AuditLog.open({
      path: join(this.#dir, 'audit'),
      origin: `local/${this.name}`,
      signer: this.signer,
      create,
    });
    this.#watch(log);
    this.#born = true;
    const world = this.#world;
    const books = new CustodyBooks(shares, {
      operator: world.operator.publicKey,
      custodians: () => world.members(),
    });
    const ports = {
      shares,
      log,
      books,
      signer: this.signer,
      peer: this.peer,
      operator: world.operator.publicKey,
      groups: async () => groups,
      random,
      beat: () => beatAt({ beat: world.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 }),
      beatsPerBar: () => 10,
      now: () => world.nowMs,
      custodianKey: (peer: string) => world.keyOf(peer),
      custodians: () => world.members(),
    };
    const orders = new CustodianOrders({ ...ports, operator: world.operator.publicKey, executors: [] });
    let read = 0;
    let groupsRead = '';
    const follow = async (): Promise<void> => {
      // As a follower does: with another group to look for, reading begins anew.
      if (books.groups().join() !== groupsRead) {
        books.restart();
        read = 0;
      }
      groupsRead = books.groups().join();
      if (groupsRead === '') return;
      const log = this.registry();
      while (read < log.length) books.take(log[read++] ?? { key: '', bytes: random(0) });
      await books.comparedAt(world.beat);
      await activation.wake();
    };
    const desk = new CeremonyDesk({ ...ports, orders, follow });
    const custodian = new Custodian({
      ...ports,
      group: async () => ristretto,
      breathe: async () => undefined,
      catchUp: () => follow().catch(() => undefined),
    });
    const duties = { lastUse: (group: string, ver: number) => custodian.lastUse(group, ver) };
    const steps = new CeremonySteps(desk, { ...rotationProtocols(duties), ...policyProtocol });
    const activation = new Activation(desk);
    this.#running = { shares, log, books, steps, activation, orders, custodian, desk, follow };
    if (shares.shares().some(({ status }) => status !== 'staged')) await follow();
  }

  /** Begins something that writes to the disk. */
  at(protocol: string, step: string): void {
    this.doing = { protocol, step };
  }

  /** Kills it in the middle of a write to the audit log, and after it. */
  #watch(log: AuditLog): void {
    const append = log.append.bind(log);
    log.append = async (entry) => {
      const { protocol, step } = this.doing;
      const at = { who: this.name, protocol, step: `log in ${step}` };
      const isTorn = this.#world.kill({ ...at, when: 'before' }) === 'kill';
      const files = ['log', 'index'].map((name) => join(this.#dir, 'audit', name));
      const sizes = isTorn ? await Promise.all(files.map(async (path) => (await stat(path)).size)) : [];
      const logged = await append(entry);
      if (!isTorn && this.#world.kill({ ...at, when: 'after' }) !== 'kill') return logged;
      await this.kill();
      // The index is written behind the log, so of an entry that was cut off it knows nothing.
      const [before = 0, index = 0] = sizes;
      const [path = '', indexPath = ''] = files;
      if (isTorn) {
        await truncate(path, Math.floor((before + (await stat(path)).size) / 2));
        await truncate(indexPath, index);
      }
      throw new HoldfastError('PEER_UNREACHABLE', `${this.name} was killed`);
    };
  }

  /** As kill -9: memory is gone. */
  async kill(): Promise<void> {
    const running = this.#running;
    this.#running = undefined;
    running?.steps.close();
    await running?.log[Symbol.asyncDispose]();
  }

  /** Loses all that it stored. */
  async wipe(): Promise<void> {
    await this.kill();
    this.#born = false;
    this.#dir = '';
  }
}

interface Running {
  readonly shares: ShareStore;
  readonly log: AuditLog;
  readonly books: CustodyBooks;
  readonly steps: CeremonySteps;
  readonly activation: Activation;
  readonly orders: CustodianOrders;
  readonly custodian: Custodian;
  readonly desk: CeremonyDesk;
  /** Reads on in the registry. */
  readonly follow: () => Promise<void>;
}

export class CeremonyWorld implements AsyncDisposable {
  readonly dir: string;
  readonly operator = signerFromSeed(random(32));
  readonly steward = signerFromSeed(random(32));
  readonly sites: CustodianSite[] = [];
  /** The registry. */
  readonly log: Filed[] = [];
  beat = 100;
  nowMs = 1_700_000_000_000;
  kill: Kill = () => 'go';
  disk: Disks;
  /** True from the moment on in which a custodian's disk is gone. */
  isDiskOut: (name: string) => boolean = () => false;
  /** True: the custodian is gone with its disk. */
  isPowerCut = false;
  /** Puts records that were found to be next into the registry: where there is a Beacon, it does (rotation-world.ts). */
  append: (subject: string, records: readonly Filed[]) => Promise<void> = async (_, records) =>
    void this.log.push(...records);
  readonly #book = new CustodyBook(cg);
  readonly #read = new WeakMap<Filed, ReturnType<typeof readBase>>();
  #taken = 0;
  #replaced = 0;

  private constructor(dir: string, disk: Disks) {
    this.dir = dir;
    this.disk = disk;
  }

  static async start(dir: string, n: number, disk: Disks = (folder) => folder): Promise<CeremonyWorld> {
    const world = new CeremonyWorld(dir, disk);
    for (let at = 1; at <= n; at++) world.sites.push(new CustodianSite(world, at));
    for (const site of world.sites) await site.start();
    return world;
  }

  /** The first `n` of `count` custodians have made the key, and all know it. */
  static async made(
    dir: string,
    t: number,
    n: number,
    { count = n, disk }: { readonly count?: number; readonly disk?: Disks | undefined } = {},
  ): Promise<CeremonyWorld> {
    const world = await CeremonyWorld.start(dir, count, disk);
    await world.coordinator().command(world.initOrder(t, n), () => undefined);
    await world.tellAll();
    return world;
  }

  /** Custodians of the operator's membership. */
  members(): ReadonlyMap<string, Uint8Array> {
    return new Map(this.sites.map((site) => [site.peer, site.signer.publicKey]));
  }

  keyOf(peer: string): Uint8Array {
    const site = this.sites.find((each) => each.peer === peer);
    if (site === undefined) throw new HoldfastError('FORBIDDEN', `${peer} is no custodian`);
    return site.signer.publicKey;
  }

  site(peer: string): CustodianSite {
    const found = this.sites.find((each) => each.peer === peer);
    if (found === undefined) throw new HoldfastError('PEER_UNREACHABLE', peer);
    return found;
  }

  coordinator(group = cg): Coordinator {
    return new Coordinator(this.ports(), group);
  }

  /** Custodians that are lost for good, and as many others in the operator's membership in their place. */
  async replace(peers: readonly string[]): Promise<void> {
    for (const peer of peers) await this.site(peer).kill();
    const kept = this.sites.filter(({ peer }) => !peers.includes(peer));
    const next = this.sites.length + this.#replaced + 1;
    const others = peers.map((_, at) => new CustodianSite(this, next + at));
    this.#replaced += peers.length;
    this.sites.splice(0, this.sites.length, ...kept, ...others);
    for (const site of others) await site.start();
  }

  async tellAll(): Promise<void> {
    for (const { running } of this.sites.filter((each) => each.isUp)) await running.follow();
  }

  /** What a beat brings to those that are up. */
  async beatAll(): Promise<void> {
    for (const site of this.sites.filter((each) => each.isUp)) await this.#chores(site);
  }

  /** As the role does: what fails is tried again with the next beat. */
  async #chores(site: CustodianSite): Promise<void> {
    const { follow, activation, desk, custodian } = site.running;
    const chores: readonly [string, () => Promise<void>][] = [
      ['follow', follow],
      ['settle', () => activation.settle(this.nowMs)],
      ['keep', () => keepVersions(desk, (group, ver) => custodian.lastUse(group, ver))],
    ];
    for (const [name, work] of chores) {
      if (!site.isUp) return;
      site.at('beat', name);
      await this.#powered(site, work).catch((error: unknown) => {
        if (!isHoldfastError(error)) throw error;
      });
    }
  }

  /** Starts again whoever is down, and again when it was cut in that. */
  async revive(): Promise<void> {
    for (const site of this.sites) while (!site.isUp) await this.#start(site);
  }

  /** Starts it; it stays down where its disk is gone, or goes in that. */
  async #start(site: CustodianSite): Promise<void> {
    site.at('start', 'start');
    await this.#powered(site, () => site.start()).catch((error: unknown) => {
      if (!this.isDiskOut(site.name)) throw error;
    });
  }

  order(op: OrderOp, args: Record<string, unknown>, signer: Signer = this.operator, group = cg): Uint8Array {
    const { beat } = this;
    const common = {
      v: 1,
      cg: group,
      nonce: random(32),
      beat,
      exp: beat + 60,
      by: signer.publicKey,
    } as const;
    return signOrder({ ...common, op, args }, signer);
  }

  initOrder(t: number, n: number): Uint8Array {
    const writer = this.operator.publicKey;
    const policy = defaultPolicy({ cg, family: random(16), writer, authorities: [writer] });
    return this.order('init', {
      ver: 1,
      t,
      members: this.seats(n),
      policy: signRecord(policy, this.operator).block.bytes,
      refreshEveryBars: 8,
      development: false,
    });
  }

  /** An order to deal anew from the present generation. */
  dealOrder(
    op: 'refresh' | 'reshare' | 'evict',
    t: number,
    members: readonly { peer: string; org: string }[],
  ) {
    const kek = this.kek();
    return this.order(op, {
      ver: kek.ver,
      gen: kek.shareGen,
      t,
      members,
      frostPk: kek.frostPk,
      development: false,
    });
  }

  seats(n: number): { peer: string; org: string }[] {
    return this.sites.slice(0, n).map(({ peer, name }) => ({ peer, org: name }));
  }

  /** The newest record of the version that is in use. */
  filedKek(group = cg): { cid: CID; bytes: Uint8Array; kek: TdecKek } | undefined {
    return this.versions(group).findLast(({ kek: { state } }) => state === 'active');
  }

  /** The newest record of every version, oldest version first. */
  versions(group = cg): { cid: CID; bytes: Uint8Array; kek: TdecKek }[] {
    const newest = new Map(
      this.log.filter(({ key }) => key.startsWith(`kek/${group}/`)).map((each) => [each.key, each]),
    );
    return [...newest.values()].map((filed) => {
      const base = this.#read.get(filed) ?? readBase(filed.bytes);
      this.#read.set(filed, base);
      return { ...base, bytes: filed.bytes };
    });
  }

  kek(group = cg): TdecKek {
    const found = this.filedKek(group);
    if (found === undefined) throw new TypeError('no key yet');
    return found.kek;
  }

  /** The registry's records, judged by somebody who trusts nobody: each once, because the log only grows. */
  book(): CustodyBook {
    for (const { bytes } of this.log.slice(this.#taken)) {
      this.#book.take(bytes);
      this.#taken++;
    }
    return this.#book;
  }

  #bookOf(group: string): CustodyBook {
    if (group === cg) return this.book();
    const book = new CustodyBook(group);
    for (const { bytes } of this.log) book.take(bytes);
    return book;
  }

  /** The private key, put together by the shares of these custodians in a generation. A test may; nobody else does. */
  async secretOf(
    sites: readonly CustodianSite[],
    gen: number,
    key: 'kek' | 'frost' = 'kek',
    kekVer = 1,
  ): Promise<Scalar> {
    const opened = await Promise.all(
      sites.map(({ running }) => running.shares.openShare({ cg, kekVer, gen }, key)),
    );
    return interpolated(
      key,
      opened.map(({ entry, secret }) => ({ index: entry.index, secret })),
    );
  }

  ports(): CoordinatorPorts {
    return {
      custodians: {
        step: async (peer, at, payload) => {
          const site = this.site(peer);
          await this.#cut(site, at, 'before');
          encodeCbor(at); // as it travels: nothing but what a step is named by
          const copied = decodeCbor(encodeCbor(payload), 'payload');
          const { steps } = site.running;
          site.at(at.protocol, at.step);
          const answer = await this.#powered(site, () =>
            steps.step(at.session, at.protocol, at.step, copied),
          );
          await this.#cut(site, at, 'after');
          return decodeCbor(encodeCbor(answer), 'answer');
        },
        activate: async (peer, record) => {
          const site = this.site(peer);
          const at = { protocol: 'activate', step: 'activate' };
          await this.#cut(site, at, 'before');
          const { activation } = site.running;
          site.at(at.protocol, at.step);
          const active = await this.#powered(site, () => activation.take(record));
          await this.#cut(site, at, 'after');
          return active;
        },
        order: async (peer, order) => {
          await this.site(peer).running.orders.obey(order);
        },
        status: async (peer) => statusOf(this.site(peer)),
        all: () => this.sites.map(({ peer }) => peer),
        nameOf: (peer) => this.sites.find((each) => each.peer === peer)?.name ?? peer,
        keyOf: (peer) => this.keyOf(peer),
      },
      registry: {
        kek: async (group) => {
          const found = this.filedKek(group);
          return found && { ...found, revision: this.log.length };
        },
        versions: async (group) =>
          this.versions(group).map((each) => ({ ...each, revision: this.log.length })),
        policy: async (root) => this.book().policy(root),
        birth: async (group) => {
          const kek = this.log.find(({ key }) => key.startsWith(`kek/${group}/`))?.bytes;
          const certificate = this.log.find(({ key }) => key.startsWith(`cert/${group}/`))?.bytes;
          return kek && certificate && { kek, certificate };
        },
        lastCertificate: async (group, ver) => {
          const last = this.log.findLast(({ key }) => key.startsWith(`cert/${group}/${ver}/`));
          if (last === undefined) return undefined;
          const { cid, body } = openRecord(last.bytes);
          return { cid, n: Number(Reflect.get(body, 'n')) };
        },
        dealtBeat: async (group, ver) => this.#bookOf(group).dealtBeat(ver),
        file: async (subject, expected, records) => this.#file(subject, expected, records),
      },
      signer: this.steward,
      groups: async () => groups,
      random,
      now: () => this.nowMs,
      beat: () => this.beat,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const site of this.sites) await site.kill();
  }

  async #file(subject: string, expected: number, records: readonly FiledAs[]): Promise<void> {
    const at = { protocol: 'registry', step: 'append' };
    this.#cutCoordinator(at, 'before');
    const current = this.log.some(({ key }) => key === subject) ? this.log.length : 0;
    if (current !== expected) throw new HoldfastError('VERSION_CONFLICT', 'another one was quicker');
    await this.append(
      subject,
      records.map(({ key, record }) => ({ key, bytes: record.block.bytes })),
    );
    this.book(); // throws for what nobody would believe
    this.#cutCoordinator(at, 'after');
  }

  /** Does something at a custodian, which is gone with the power of its disk. */
  async #powered<T>(site: CustodianSite, work: () => Promise<T>): Promise<T> {
    const done = await Promise.allSettled([work()]);
    if (this.isPowerCut && this.isDiskOut(site.name)) {
      await site.kill();
      throw new HoldfastError('PEER_UNREACHABLE', `${site.name} has no power`);
    }
    if (done[0].status === 'rejected') throw done[0].reason;
    return done[0].value;
  }

  async #cut(site: CustodianSite, { protocol, step }: Step, when: 'before' | 'after'): Promise<void> {
    this.#cutCoordinator({ protocol, step: `${step} of ${site.name}` }, when);
    const luck = this.kill({ who: site.name, protocol, step, when });
    if (luck === 'go') return;
    if (luck !== 'lose') await site.kill();
    if (luck === 'restart') await this.#start(site);
    throw new HoldfastError('PEER_UNREACHABLE', `${site.name} does not answer`);
  }

  #cutCoordinator({ protocol, step }: Step, when: 'before' | 'after'): void {
    if (this.kill({ who: 'coordinator', protocol, step, when }) === 'kill') throw new Killed();
  }
}

type Step = Pick<Parameters<Kill>[0], 'protocol' | 'step'>;

/** The end of the coordinator's process. */
export class Killed extends Error {}

function statusOf({ name, running }: CustodianSite): CustodianStatus {
  const held = running.shares.shares();
  return {
    v: 1,
    name,
    beat: 0,
    timeLost: null,
    sealingSource: 'key-file',
    shares: held.map(({ cg: group, kekVer, gen, key, status, index, t, n }) => {
      return { cg: group, kekVer, gen, key, status, index, t, n };
    }),
    sealed: [],
    audit: { entries: running.log.size, cosigned: 0, witnesses: [] },
    waiting: 0,
    givenInBar: 0,
    warnings: [],
  };
}

async function makeKeys(shares: ShareStore): Promise<void> {
  const has = (kind: 'dkg' | 'prekey'): boolean => shares.keyPairs().some((pair) => pair.kind === kind);
  const secret = ristretto.scalar.random(random);
  if (!has('dkg'))
    await shares.addKeyPair({ kind: 'dkg', epoch: 0, publicKey: ristretto.base(secret) }, secret);
  const { publicKey, secretKey } = generateKeyPair(random);
  if (!has('prekey')) await shares.addKeyPair({ kind: 'prekey', epoch: 0, publicKey }, secretKey);
}

/** What these shares are of, if they are of one polynomial and enough. */
export function interpolated(
  key: 'kek' | 'frost',
  shares: readonly { readonly index: number; readonly secret: Scalar }[],
): Scalar {
  const { scalar } = groups[key];
  return shares.reduce((sum, { index, secret }) => {
    const weight = shares.reduce((product, other) => {
      if (other.index === index) return product;
      const distance = scalar.sub(scalar.fromInt(other.index), scalar.fromInt(index));
      return scalar.mul(product, scalar.mul(scalar.fromInt(other.index), scalar.inv(distance)));
    }, scalar.fromInt(1));
    return scalar.add(sum, scalar.mul(weight, secret));
  }, scalar.fromInt(0));
}
