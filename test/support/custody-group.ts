// A whole custody group in one process: a key made by the distributed key generation, custodians as they are in
// production over it, and ways to make them fail. The group's signing key is a plain Ed25519 key here, which is what
// its FROST signatures verify as.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HoldfastError } from '../../src/core/errors.ts';
import { sha256, type Signer } from '../../src/core/hash.ts';
import { AuditLog } from '../../src/custody/audit-log.ts';
import { birthPreimage } from '../../src/custody/birth.ts';
import { CustodyBooks } from '../../src/custody/books.ts';
import { signCapability } from '../../src/custody/capability.ts';
import { type CertificateBody, certificatePreimage } from '../../src/custody/certificate.ts';
import { Custodian, setSealed } from '../../src/custody/custodian.ts';
import { defaultPolicy, fullCapability } from '../../src/custody/default-policy.ts';
import { CustodyDirectory, type CustodyRecordBytes } from '../../src/custody/directory.ts';
import { beatAt } from '../../src/custody/freshness.ts';
import type { PolicyBody } from '../../src/custody/policy.ts';
import { createSealingKeyFile } from '../../src/custody/sealing-key.ts';
import type { SuccessionTerms } from '../../src/custody/succession.ts';
import { ShareStore } from '../../src/custody/share-store.ts';
import { TdecProvider, type TdecOptions } from '../../src/custody/tdec.ts';
import type { TdecKek, UnsignedKek } from '../../src/envelope/kek.ts';
import type { KekBody } from '../../src/envelope/records.ts';
import { signRecord, type SignedRecord } from '../../src/manifest/record.ts';
import { ristrettoSuite } from '../../src/threshold/dkg-suite.ts';
import type { HashGroup } from '../../src/threshold/group.ts';
import { loadRistretto } from '../../src/threshold/group-sodium.ts';
import { bytes64, kekRecord, nextKek, signedKek, someSigner } from './custody-records.ts';
import { generate, newMembers, refreshed, type World } from './custody-world.ts';
import { Fuse, PowerCutDisk } from './power-cut-disk.ts';
import { random, the } from './threshold.ts';

export interface TestGroupOptions {
  readonly cg?: string;
  readonly t?: number;
  readonly n?: number;
  readonly policy?: Partial<PolicyBody>;
}

/** One custodian and what is wrong with it. */
export class TestCustodian {
  readonly i: number;
  readonly name: string;
  readonly peer: string;
  readonly signer: Signer;
  readonly #terms: SuccessionTerms;
  readonly shares: ShareStore;
  readonly log: AuditLog;
  books: CustodyBooks;
  readonly custodian: Custodian;
  /** Answers as if it were not there. */
  isDown = false;
  /** Answers only when its caller gives up. */
  hangs = false;
  /** What it does to its answers. */
  answers: (request: Uint8Array) => Promise<Uint8Array>;
  askedCount = 0;

  /** Reads on in the registry when a request shows that there is more. */
  catchUp: () => Promise<void> = async () => undefined;

  constructor(i: number, group: TestGroup, shares: ShareStore, log: AuditLog) {
    this.i = i;
    this.name = `custodian-${i}`;
    this.peer = `${group.cg}-peer-${i}`;
    this.signer = someSigner(`${group.cg} custodian ${i}`);
    this.#terms = group.terms;
    this.shares = shares;
    this.log = log;
    this.books = new CustodyBooks(shares, group.terms);
    const books = (): CustodyBooks => this.books;
    this.custodian = new Custodian({
      shares,
      log,
      get books() {
        return books();
      },
      signer: this.signer,
      group: async () => group.ristretto,
      random,
      beat: () => group.now(),
      now: () => 1_700_000_000_000,
      breathe: async () => undefined,
      catchUp: async () => this.catchUp(),
    });
    this.answers = (request) => this.custodian.unwrap(request);
  }

  /** As after a start: nothing of the registry is read. */
  forget(): void {
    this.books = new CustodyBooks(this.shares, this.#terms);
  }
}

export class TestGroup implements AsyncDisposable {
  readonly cg: string;
  readonly ristretto: HashGroup;
  readonly groupSigner: Signer;
  readonly authority: Signer;
  readonly requester: Signer;
  readonly capability: Uint8Array;
  custodians: readonly TestCustodian[] = [];
  world: World;
  records: CustodyRecordBytes[] = [];
  beat = 100;
  reloads = 0;
  readonly #kek: SignedRecord<KekBody>[] = [];
  readonly #dir: string;
  readonly #policy: SignedRecord<PolicyBody>;
  #directory: CustodyDirectory;

  private constructor(dir: string, ristretto: HashGroup, world: World, options: TestGroupOptions) {
    this.cg = options.cg ?? 'cg-test';
    this.#dir = dir;
    this.ristretto = ristretto;
    this.world = world;
    this.groupSigner = someSigner(`${this.cg} group`);
    this.authority = someSigner(`${this.cg} authority`);
    this.requester = someSigner(`${this.cg} requester`);
    const full = fullCapability({
      cg: this.cg,
      iss: this.authority.publicKey,
      aud: this.requester.publicKey,
      nbf: 0,
      exp: 1_000_000,
    });
    this.capability = signCapability({ ...full, max: 1_000_000 }, this.authority);
    const family = sha256(new TextEncoder().encode(this.cg)).slice(0, 16);
    const base = defaultPolicy({
      cg: this.cg,
      family,
      writer: this.authority.publicKey,
      authorities: [this.authority.publicKey],
    });
    this.#policy = signRecord({ ...base, ...options.policy }, this.authority);
    this.#directory = this.newDirectory();
  }

  static async create(options: TestGroupOptions = {}): Promise<TestGroup> {
    const { t = 3, n = 5 } = options;
    const dir = await mkdtemp(join(tmpdir(), 'holdfast-group-'));
    const ristretto = await loadRistretto();
    const world = generate(ristrettoSuite(ristretto), t, newMembers(n));
    const group = new TestGroup(dir, ristretto, world, options);
    await createSealingKeyFile(join(dir, 'sealing.key'));
    const custodians: TestCustodian[] = [];
    for (let i = 1; i <= n; i++) custodians.push(await group.#newCustodian(i));
    group.custodians = custodians;
    const first = kekRecord(signedKek(group.#firstKek(), group.groupSigner));
    group.#kek.push(first);
    for (const each of custodians) await group.#give(each);
    group.file(`pol/${Buffer.from(group.#policy.body.family).toString('hex')}/1`, group.#policy);
    group.file(`kek/${group.cg}/1`, first);
    group.file(`cert/${group.cg}/1/1`, group.birth(custodians));
    await group.tellCustodians();
    await group.reload();
    return group;
  }

  /** The newest KEK record. */
  get kek(): TdecKek {
    const { body } = the(this.#kek.at(-1));
    if (body.provider !== 'tdec') throw new TypeError('a threshold group expected');
    return body;
  }

  /** The group as whoever asks knows it. */
  get known(): CustodyDirectory {
    return this.#directory;
  }

  now() {
    return beatAt({ beat: this.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 60 });
  }

  file(key: string, record: SignedRecord<unknown>): void {
    this.records.push({ key, bytes: record.block.bytes });
  }

  /** The certificate of the group's birth, signed by `signers`. */
  birth(signers: readonly TestCustodian[]): SignedRecord<unknown> {
    const { body } = the(this.#kek[0]);
    if (body.provider !== 'tdec') throw new TypeError('a threshold group expected');
    const attestations = signers.map(({ i, signer }) => ({ i, sig: signer.sign(birthPreimage(body)) }));
    const unsigned = {
      kind: 'certificate',
      v: 1,
      prev: null,
      cg: this.cg,
      ver: 1,
      n: 1,
      beat: this.beat,
      what: 'birth',
      attestations,
    } as const;
    const frostSig = this.groupSigner.sign(certificatePreimage(unsigned));
    return signRecord({ ...unsigned, writer: this.authority.publicKey, frostSig }, this.authority);
  }

  /** Whom readers of the records trust: here the authority is the operator as well. */
  get terms(): SuccessionTerms {
    const custodians = () =>
      new Map(this.custodians.map(({ peer, signer }) => [peer, signer.publicKey] as const));
    return { operator: this.authority.publicKey, custodians };
  }

  newDirectory(options: Partial<ConstructorParameters<typeof CustodyDirectory>[0]> = {}): CustodyDirectory {
    return new CustodyDirectory({ cg: this.cg, ...this.terms, ...options });
  }

  async reload(): Promise<void> {
    this.reloads++;
    const directory = this.newDirectory();
    for (const record of this.records) directory.take(record);
    directory.settle();
    this.#directory = directory;
  }

  async tellCustodians(): Promise<void> {
    for (const { books } of this.custodians) {
      books.restart();
      for (const record of this.records) books.take(record);
      await books.comparedAt(this.beat);
    }
  }

  /** New shares of the same key, dealt by the first t; custodians forget the old ones when `forget`. */
  async refresh(forget = true): Promise<void> {
    const dealers = Array.from({ length: this.world.keys.t }, (_, at) => at + 1);
    this.world = refreshed(this.world, dealers);
    const { C, Yi } = this.world.keys;
    const frostYi = Yi.map((_, at) => sha256(new TextEncoder().encode(`frost ${this.world.gen} ${at}`)));
    const { body } = the(this.#kek.at(-1));
    if (body.provider !== 'tdec') throw new TypeError('a threshold group expected');
    const custodians = body.custodians.map((each) => ({ ...each, prekey: random(32), prekeyEpoch: 2 }));
    const changed = nextKek(the(this.#kek.at(-1)), { shareGen: this.world.gen, C, Yi, frostYi, custodians });
    const next = resigned(changed, this.groupSigner, the(this.#kek.at(-1)));
    this.#kek.push(next);
    for (const each of this.custodians) {
      await this.#give(each);
      if (forget) await each.shares.erase({ cg: this.cg, kekVer: 1, gen: this.world.gen - 1 });
    }
    this.file(`kek/${this.cg}/1`, next);
    await this.tellCustodians();
  }

  /** Version 2 of the key, active. For a test it is the same secret, so that wraps of one are wraps of the other. */
  async secondVersion(): Promise<void> {
    const unsigned: UnsignedKek = { ...this.#firstKek(), ver: 2, state: 'pre-active', shareGen: 1 };
    const { C, Yi } = this.world.keys;
    const pre = kekRecord(signedKek({ ...unsigned, C, Yi, frostYi: Yi }, this.groupSigner));
    const active = resigned(nextKek(pre, { state: 'active' }), this.groupSigner, pre);
    for (const each of this.custodians) await this.#give(each, { kekVer: 2, gen: 1 });
    this.file(`kek/${this.cg}/2`, pre);
    this.file(`kek/${this.cg}/2`, active);
    await this.tellCustodians();
    await this.reload();
  }

  /** What the group attests of one page of a rotation to version 2. */
  rotation(
    root: Uint8Array,
    count: number,
    signer: Signer = this.groupSigner,
  ): SignedRecord<CertificateBody> {
    const unsigned = {
      kind: 'certificate',
      v: 1,
      prev: null,
      cg: this.cg,
      ver: 2,
      n: 1,
      beat: this.beat,
      what: 'rotation',
      fromVer: 1,
      count,
      root,
      contributions: [1, 2, 3].map((i) => ({ i, digest: random(32) })),
    } as const;
    const frostSig = signer.sign(certificatePreimage(unsigned));
    return signRecord({ ...unsigned, writer: this.authority.publicKey, frostSig }, this.authority);
  }

  async seal(i: number): Promise<void> {
    await setSealed(the(this.custodians[i - 1]).shares, this.cg, true);
  }

  provider(options: Partial<TdecOptions> = {}): TdecProvider {
    return new TdecProvider({
      source: { directory: () => this.#directory, reload: () => this.reload() },
      transport: {
        ask: (peer, request, signal) => this.#carry(peer, request, signal),
        nameOf: (peer) => this.custodians.find((each) => each.peer === peer)?.name ?? peer,
      },
      signer: this.requester,
      chain: async () => [this.capability],
      group: async () => this.ristretto,
      random,
      clock: { monotonic: () => performance.now() },
      ...options,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { log } of this.custodians) await log[Symbol.asyncDispose]();
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #carry(peer: string, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const found = this.custodians.find((each) => each.peer === peer);
    if (found === undefined || found.isDown)
      throw new HoldfastError('PEER_UNREACHABLE', `${peer} is not there`);
    found.askedCount++;
    if (found.hangs) await sleep(60_000, undefined, { signal });
    return found.answers(request);
  }

  async #newCustodian(i: number): Promise<TestCustodian> {
    const disk = new PowerCutDisk('shares', new Fuse());
    const sealing = { source: 'key-file', path: join(this.#dir, 'sealing.key') } as const;
    const owner = `${this.cg}/custodian-${i}`;
    const shares = await ShareStore.open({ shares: disk, keys: disk, sealing, owner, create: true });
    const path = await mkdtemp(join(this.#dir, 'log-'));
    const signer = someSigner(`${this.cg} custodian ${i}`);
    const log = await AuditLog.open({ path, origin: owner, signer, create: true });
    return new TestCustodian(i, this, shares, log);
  }

  async #give({ i, shares }: TestCustodian, place = { kekVer: 1, gen: this.world.gen }): Promise<void> {
    const { t, n, Y, C, Yi } = this.world.keys;
    const facts = { index: i, t, n, publicKey: Y, commitments: C, verificationShares: Yi };
    const ref = { cg: this.cg, ...place };
    const secret = Uint8Array.from(the(this.world.shares[i - 1]));
    await shares.stage(ref, 'kek', { facts, secret, beat: this.beat });
    const frost = { ...facts, publicKey: this.groupSigner.publicKey };
    await shares.stage(ref, 'frost', { facts: frost, secret: random(32), beat: this.beat });
    await shares.activate(ref, { beat: this.beat, certificate: random(32) });
  }

  #firstKek(): UnsignedKek {
    const { t, n, Y, C, Yi } = this.world.keys;
    return {
      provider: 'tdec',
      suite: 'tdh2-r255-1',
      cg: this.cg,
      ver: 1,
      state: 'active',
      createdAt: '2026-11-22T19:00:00Z',
      seq: 1,
      t,
      n,
      Y,
      C,
      shareGen: 1,
      Yi,
      custodians: this.custodians.map(({ i, peer, signer }) => ({
        i,
        org: `unit ${i}`,
        peer,
        sigPk: signer.publicKey,
        dkgPk: random(32),
        prekey: random(32),
        prekeyEpoch: 1,
      })),
      dkgCert: bytes64(`dkg ${this.cg}`),
      frostPk: this.groupSigner.publicKey,
      frostYi: Yi,
      activateBeat: 0,
      retireBeat: null,
      refreshEveryBars: 8,
      policyRoot: this.#policy.cid,
    };
  }
}

/** The same record, signed by the key of this group. */
function resigned(
  record: SignedRecord<KekBody>,
  signer: Signer,
  before: SignedRecord<KekBody>,
): SignedRecord<KekBody> {
  const { body } = record;
  if (body.provider !== 'tdec') throw new TypeError('a threshold group expected');
  const { kind: _, v: __, writer: ___, prev: ____, frostSig: _____, ...fields } = body;
  return kekRecord(signedKek(fields, signer), before.cid);
}
