// A group of custodians with a registry of keys under its own, readers and writers of them, and a rotation to cut at
// any step. The registry is a Beacon's view over its log, both in memory.

import assert from 'node:assert/strict';
import { BeaconRotationRegistry } from '../../src/app/rotation-registry.ts';
import { type Append, expectAny } from '../../src/beacon/log.ts';
import { MemoryLog } from '../../src/beacon/memory.ts';
import { openRegistryRecord, recordKey } from '../../src/beacon/records.ts';
import { MemoryKv } from '../../src/beacon/view-memory.ts';
import { BeaconView } from '../../src/beacon/view.ts';
import { checkAppend } from '../../src/beacon/check-append.ts';
import { toHex } from '../../src/core/bytes.ts';
import { minute } from '../../src/core/clock.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import { type Signer, signerFromSeed } from '../../src/core/hash.ts';
import { signCapability } from '../../src/custody/capability.ts';
import { fullCapability } from '../../src/custody/default-policy.ts';
import type { CoordinatorPorts } from '../../src/custody/coordinator.ts';
import { Coordinator } from '../../src/custody/coordinator-run.ts';
import { CustodyDirectory } from '../../src/custody/directory.ts';
import type { Disk } from '../../src/custody/disk.ts';
import { beatAt } from '../../src/custody/freshness.ts';
import type { Unwrapped } from '../../src/custody/provider.ts';
import { RotationCoordinator, type RotationPorts } from '../../src/custody/rotation-coordinator.ts';
import { TdecProvider } from '../../src/custody/tdec.ts';
import {
  type BranchKeyBody,
  type DirectEnvelope,
  objectKeyBody,
  parseBranchKey,
  parseEnvelope,
} from '../../src/envelope/records.ts';
import { commitmentOf } from '../../src/envelope/wrap.ts';
import { signRecord } from '../../src/manifest/record.ts';
import { CeremonyWorld, cg, groups, Killed, random } from './ceremony-world.ts';

/** A key that must stay what it is, whatever becomes of its wraps. */
export interface KnownKey {
  readonly kind: 'branch-key' | 'envelope';
  readonly id: Uint8Array;
  readonly key: Uint8Array;
}

/** The life of a coordinator's process: it ends where it is killed. */
export class Life {
  isOver = false;
  /** What happens before each of its calls. */
  meanwhile: () => Promise<void> = async () => undefined;
  readonly signal = new AbortController().signal;

  async live<T>(work: () => Promise<T>): Promise<T> {
    await this.meanwhile();
    if (this.isOver) throw new Killed();
    try {
      return await work();
    } catch (error) {
      this.isOver ||= error instanceof Killed;
      throw error;
    }
  }
}

interface MortalPorts extends CoordinatorPorts {
  readonly life: Life;
}

export class RotationWorld implements AsyncDisposable {
  readonly custodians: CeremonyWorld;
  readonly view: BeaconView;
  readonly log = new MemoryLog();
  readonly writer: Signer = signerFromSeed(random(32));
  readonly known: KnownKey[] = [];
  readonly provider: TdecProvider;
  order: Uint8Array | undefined;
  rotateEveryBars = 0;
  lost: string | undefined;
  pageItems = 4;
  /** Custodians that readers do not reach. */
  away: ReadonlySet<string> = new Set();
  /** Who answers readers otherwise than a custodian does, by its peer. */
  liars: ReadonlyMap<string, (request: Uint8Array) => Uint8Array> = new Map();
  /** Reads that gave the key, and those that did not. */
  reads = 0;
  #directory: CustodyDirectory;
  readonly #capability: Uint8Array;

  private constructor(custodians: CeremonyWorld, view: BeaconView) {
    this.custodians = custodians;
    this.view = view;
    this.#directory = this.#newDirectory();
    const { operator } = custodians;
    const terms = { cg, iss: operator.publicKey, aud: this.writer.publicKey, nbf: 0, exp: 10_000_000 };
    this.#capability = signCapability({ ...fullCapability(terms), max: 1_000_000 }, operator);
    this.provider = new TdecProvider({
      source: {
        directory: () => this.#directory,
        reload: async () => {
          this.#directory = this.#newDirectory();
        },
      },
      transport: {
        ask: async (peer, request) => {
          if (this.away.has(peer)) throw new HoldfastError('PEER_UNREACHABLE', `${peer} is away`);
          const lie = this.liars.get(peer);
          if (lie !== undefined) return lie(request);
          const site = custodians.site(peer);
          const { custodian } = site.running;
          site.at('read', 'read');
          return custodian.unwrap(request);
        },
        nameOf: (peer) => custodians.site(peer).name,
      },
      signer: this.writer,
      chain: async () => [this.#capability],
      group: async () => groups.kek,
      random,
      clock: { monotonic: () => performance.now() },
    });
  }

  static async start(
    dir: string,
    t: number,
    n: number,
    options: { readonly count?: number; readonly disk?: (folder: Disk, name: string) => Disk } = {},
  ): Promise<RotationWorld> {
    const custodians = await CeremonyWorld.made(dir, t, n, options);
    const world = new RotationWorld(custodians, await BeaconView.open(new MemoryKv()));
    custodians.append = async (subject, records) => {
      const { length } = custodians.log;
      const expected = await world.view.subjectRevision(subject);
      if (custodians.log.length !== length)
        throw new HoldfastError('VERSION_CONFLICT', 'another one was quicker');
      await world.#append({ subject, expected, records, at: custodians.nowMs });
    };
    await world.#append({
      subject: 'init',
      expected: expectAny,
      records: custodians.log.map(({ key, bytes }) => ({ key, bytes })),
      at: 0,
    });
    await world.reload();
    return world;
  }

  async reload(): Promise<void> {
    this.#directory = this.#newDirectory();
  }

  get beat(): number {
    return this.custodians.beat;
  }

  /** Time goes on, a minute a beat: custodians read the registry once a beat and erase what is destroyed. */
  async pass(beats: number): Promise<void> {
    this.custodians.beat += beats;
    this.custodians.nowMs += beats * minute;
    await this.custodians.beatAll();
  }

  /** A writer makes branch keys, as it does when it seals. */
  async write(count: number): Promise<void> {
    for (let made = 0; made < count; made++) {
      const [id, beat] = [random(16), this.beat];
      const scope = {
        project: 'chorus',
        cls: 'internal',
        writer: this.writer.publicKey,
        window: [beat, beat + 9],
      } as const;
      const { branchKey, wraps, combiner } = await this.provider.createKey({
        ...scope,
        bkId: id,
        bkVer: 1,
        policy: null,
      });
      const head = { kind: 'branch-key', v: 1, writer: this.writer.publicKey, prev: null } as const;
      const commit = commitmentOf(branchKey);
      await this.#register(
        parseBranchKey({ ...head, bkId: id, bkVer: 1, scope, maxWraps: 16, commit, combiner, wraps }),
      );
      this.known.push({ kind: 'branch-key', id, key: branchKey });
    }
  }

  /** An object with a key of its own. */
  async writeRestricted(): Promise<void> {
    const [objId, beat] = [random(16), this.beat];
    const scope = {
      project: 'chorus',
      cls: 'restricted',
      writer: this.writer.publicKey,
      window: [beat, beat],
    } as const;
    const made = await this.provider.createKey({ ...scope, bkId: objId, bkVer: 1, policy: null });
    const { policyRoot } = this.provider.kek();
    const { branchKey, wraps, combiner } = made;
    const head = {
      kind: 'envelope',
      v: 1,
      writer: this.writer.publicKey,
      prev: null,
      envVer: 1,
      beat,
    } as const;
    const key = { bkVer: 1, scope, commit: commitmentOf(branchKey), combiner, wraps };
    const rest = { wrap: random(60), policy: policyRoot, cls: 'restricted', mode: 'direct', key } as const;
    const body = parseEnvelope({ ...head, objId, ...rest });
    assert(body.mode === 'direct');
    await this.#register(body);
    this.known.push({ kind: 'envelope', id: objId, key: branchKey });
  }

  /** Every one of these keys comes back, by the newest record of it. */
  async readAll(keys: readonly KnownKey[] = this.known): Promise<void> {
    for (const [at, answer] of (await this.read(keys)).entries()) {
      if (!answer.ok) throw answer.error;
      assert.equal(toHex(answer.branchKey), toHex(keys[at]?.key ?? random(1)));
      this.reads++;
    }
  }

  async read(keys: readonly KnownKey[]): Promise<readonly Unwrapped[]> {
    const records = await Promise.all(keys.map((each) => this.record(each)));
    const { beat } = this;
    return this.provider.unwrap(records, { purpose: 'read', requester: this.writer.publicKey, beat });
  }

  async record({ kind, id }: KnownKey): Promise<BranchKeyBody> {
    if (kind === 'branch-key') {
      const found = await this.view.branchKey(id);
      assert(found !== undefined);
      return found.record.body;
    }
    const body = (await this.view.envelope(id))?.record.body;
    assert(body?.mode === 'direct');
    return objectKeyBody(body satisfies DirectEnvelope);
  }

  async states(): Promise<string[]> {
    return (await this.registry().versions()).map(({ kek }) => kek.state);
  }

  rotateOrder(ver: number): Uint8Array {
    return this.custodians.order('rotate', { ver });
  }

  registry(dead: () => boolean = () => false): BeaconRotationRegistry {
    return new BeaconRotationRegistry({
      cg,
      view: () => this.view,
      store: async () => undefined,
      append: async (append) => {
        const kind = append.subject.split('/')[0] ?? '';
        this.#cut(kind, 'before', dead);
        const entry = await this.#append(append);
        this.#cut(kind, 'after', dead);
        return entry;
      },
      policyOf: async () => ({ rotateEveryBars: this.rotateEveryBars }),
      now: () => this.custodians.nowMs,
      random,
    });
  }

  /** A coordinator of rotations that lives until it is killed. */
  coordinator(): RotationCoordinator {
    return this.#rotation(this.#mortal(new Life()), () => this.order);
  }

  /** A steward, which carries ceremonies and rotations until it is killed; a rotation that it was ordered to, it forgets then. */
  steward(life = new Life()): Coordinator {
    const ports = this.#mortal(life);
    let order: Uint8Array | undefined;
    const rotation = this.#rotation(ports, () => order);
    return new Coordinator(ports, cg, {
      give: (given) => {
        order = given;
      },
      advance: () => rotation.advance(life.signal),
    });
  }

  #rotation(ports: MortalPorts, order: () => Uint8Array | undefined): RotationCoordinator {
    const { custodians, signer, life } = ports;
    const options: RotationPorts = {
      cg,
      registry: this.registry(() => life.isOver),
      step: (peer, at, payload) => custodians.step(peer, at, payload),
      activate: (peer, record) => custodians.activate(peer, record),
      nameOf: (peer) => custodians.nameOf(peer),
      signer,
      groups: async () => groups,
      random,
      beat: () => ({ ...this.#now(), lost: this.lost }),
      beatsPerBar: () => 10,
      instant: () => '2026-11-22T23:00:00Z',
      order,
      pageItems: this.pageItems,
    };
    return new RotationCoordinator(options);
  }

  /** What a coordinator reaches as long as it lives. */
  #mortal(life: Life): MortalPorts {
    const ports = this.custodians.ports();
    const { custodians, registry } = ports;
    return {
      ...ports,
      life,
      custodians: {
        ...custodians,
        step: (peer, at, payload) => life.live(() => custodians.step(peer, at, payload)),
        activate: (peer, record) => life.live(() => custodians.activate(peer, record)),
      },
      registry: {
        ...registry,
        file: (subject, expected, records) => life.live(() => registry.file(subject, expected, records)),
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.custodians[Symbol.asyncDispose]();
    await this.view[Symbol.asyncDispose]();
  }

  #now() {
    return beatAt({ beat: this.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 });
  }

  /** `kind`: of the records that are appended. */
  #cut(kind: string, when: 'before' | 'after', dead: () => boolean): void {
    const at = { who: 'coordinator', protocol: kind, step: 'append', when };
    if (dead() || this.custodians.kill(at) === 'kill') throw new Killed();
  }

  async #register(body: BranchKeyBody | DirectEnvelope): Promise<void> {
    const { block } = signRecord(body, this.writer);
    const key = recordKey(openRegistryRecord(block.bytes).body);
    await this.#append({ subject: key, expected: 0, records: [{ key, bytes: block.bytes }], at: 0 });
  }

  async #append(append: Append): Promise<{ readonly revision: number }> {
    await checkAppend(this.view, append);
    const entry = await this.log.append(append);
    await this.view.apply([entry]);
    if (append.subject === 'init') return entry;
    for (const { key, bytes } of append.records)
      if (/^(?:kek|cert|pol|rev)\//.test(key)) this.custodians.log.push({ key, bytes });
    return entry;
  }

  /** The group as whoever reads its records now believes it. */
  directory(): CustodyDirectory {
    return this.#newDirectory();
  }

  #newDirectory(): CustodyDirectory {
    const keys = this.custodians.members();
    const operator = this.custodians.operator.publicKey;
    const directory = new CustodyDirectory({ cg, operator, custodians: () => keys });
    for (const record of this.custodians.log) directory.take(record);
    directory.settle();
    return directory;
  }
}
