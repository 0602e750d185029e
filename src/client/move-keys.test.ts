// Objects put by one provider are moved to another, real ones, through the checks of the door, and read meanwhile.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { TestGroup } from '../../test/support/custody-group.ts';
import { startFakeTransit } from '../../test/support/fake-transit.ts';
import { address, MemoryWorld, putOptions } from '../../test/support/memory-world.ts';
import { makeSoftTokens, softTokenSkip, type SoftTokens } from '../../test/support/soft-token.ts';
import { sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { type Signer, signerFromSeed } from '../core/hash.ts';
import { unwrapByWrap } from '../custody/by-wrap.ts';
import { openDevFile } from '../custody/dev-file.ts';
import { BranchKeys } from '../custody/keyring.ts';
import { openPkcs11 } from '../custody/pkcs11.ts';
import { type KekProvider, type UnwrapRequest, wrapsGivenKeys } from '../custody/provider.ts';
import { newRecoveryKey, withRecovery } from '../custody/recovery.ts';
import { openTransit } from '../custody/transit.ts';
import {
  type BranchKeyBody,
  branchKeyStepProblem,
  type EnvelopeBody,
  envelopeStepProblem,
  parseBranchKey,
  parseEnvelope,
  parseKeyRecord,
} from '../envelope/records.ts';
import { openObject } from '../flows/get.ts';
import { putObject } from '../flows/put.ts';
import { type RewrapPorts, rewrapKeys } from '../flows/rewrap.ts';
import { openManifest } from '../manifest/manifest.ts';
import { openRecord, signRecord } from '../manifest/record.ts';
import { canonicalKey } from '../ucxl/address.ts';
import { KeyRegistry, type KeyRegistryOptions } from './key-registry.ts';
import { keysSealedTo, recoverTo, recoveryOrder } from './recover-keys.ts';
import { countKeys, type KeptMove, type KeyMove, moveKeys } from './move-keys.ts';

const clock = { now: Date.now, monotonic: () => performance.now() };
const operator = signerFromSeed(new Uint8Array(32).fill(9));
const stranger = signerFromSeed(new Uint8Array(32).fill(8));
let folder = '';
let tokens: SoftTokens | undefined;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-move-keys-'));
  if (softTokenSkip === undefined) tokens = await makeSoftTokens(['move']);
});
after(async () => {
  await tokens?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** A registry in memory behind the door's checks. */
class World {
  readonly memory = new MemoryWorld();
  readonly #old: KekProvider;
  readonly #all: readonly KekProvider[];
  /** Addresses with their plaintext. */
  readonly texts = new Map<string, string>();
  reads = 0;

  constructor(old: KekProvider, young: KekProvider) {
    this.#old = old;
    this.#all = [old, young];
  }

  get writer(): Signer {
    return this.memory.signer;
  }

  async put(path: string, cls: 'internal' | 'restricted' = 'internal', provider = this.#old): Promise<void> {
    await using keys = new BranchKeys({ provider, writer: this.writer.publicKey, random: bytes });
    const { memory } = this;
    const ports = {
      ...memory.put,
      kek: provider.kek(),
      writerKey: (scope: Parameters<typeof keys.current>[0]) => keys.current(scope),
    };
    const where = address(path);
    await putObject(ports, where, [utf8(`text of ${path}`)], { ...putOptions, cls });
    this.texts.set(canonicalKey(where), `text of ${path}`);
  }

  /** Reads every object with no key open. */
  async readAll(providers = this.#all): Promise<void> {
    const provider = { ...readerOf(providers) };
    for (const [key, text] of this.texts) {
      await using keys = new BranchKeys({ provider, writer: this.writer.publicKey, random: bytes });
      const ports = {
        ...this.memory.get,
        readerKey: (body: BranchKeyBody) => keys.open(body, requestOf(this)),
      };
      const manifest = this.memory.versions(key).at(-1);
      assert.ok(manifest !== undefined);
      const { encryption } = openManifest(manifest).body;
      const envelope = this.#newest(`env/${toHex(encryption?.objId ?? new Uint8Array())}`);
      assert.ok(envelope !== undefined);
      const body = parseEnvelope(openRecord(envelope).body);
      const branchKey = body.mode === 'branch' ? this.#newest(`bk/${toHex(body.bkId)}`) : undefined;
      const records = { manifest, envelope, ...(branchKey === undefined ? {} : { branchKey }) };
      const opened = await openObject(ports, records, { signal: new AbortController().signal });
      const parts: Uint8Array[] = [];
      for await (const part of opened.bytes) parts.push(part);
      assert.equal(Buffer.concat(parts).toString(), text);
      this.reads++;
    }
  }

  readonly door: KeyRegistryOptions['door'] = {
    wrappedKeys: async (cursor, limit) => {
      const chains = [...new Set(this.memory.log.flatMap(({ records }) => records.map(({ key }) => key)))];
      const wrapped = chains
        .filter((key) => key.startsWith('bk/') || (key.startsWith('env/') && this.#isDirect(key)))
        .toSorted()
        .filter((key) => cursor === undefined || key > cursor);
      const page = wrapped.slice(0, limit);
      const last = page.at(-1);
      const next = wrapped.length > limit && last !== undefined ? { next: last } : {};
      return { records: page.map((key) => base64(this.#newest(key))), opens: null, ...next };
    },
    keyObjects: async (id) => {
      const items = [...this.texts.keys()].flatMap((key) => {
        const manifest = this.memory.versions(key).at(-1);
        assert.ok(manifest !== undefined);
        const objId = openManifest(manifest).body.encryption?.objId ?? new Uint8Array();
        const envelope = this.#newest(`env/${toHex(objId)}`);
        assert.ok(envelope !== undefined);
        const body = parseEnvelope(openRecord(envelope).body);
        const isUnder = toHex(body.mode === 'branch' ? body.bkId : body.objId) === id;
        return isUnder ? [{ envelope: base64(envelope), manifest: base64(manifest) }] : [];
      });
      return { items };
    },
    rewrapKeys: async (records) => {
      await this.file(records.map((block) => block.bytes));
    },
  };

  file(records: readonly Uint8Array[]): Promise<number> {
    return rewrapKeys(this.#ports, records);
  }

  readonly #ports: RewrapPorts = {
    operator: operator.publicKey,
    branchKey: async (bkId) => this.#current(`bk/${toHex(bkId)}`, parseBranchKey),
    envelope: async (objId) => this.#current(`env/${toHex(objId)}`, parseEnvelope),
    knowsKek: async (group, version) => this.#newest(`kek/${group}/${version}`) !== undefined,
    storeRecord: (block, policy) => this.memory.register.storeRecord(block, policy),
    append: async (subject, records) => {
      for (const { key, bytes: given } of records) {
        const problem = stepProblem(this.#newest(key), given);
        if (problem !== undefined) throw new HoldfastError('RECORD_INVALID', problem);
      }
      return this.memory.log.push({ subject, records });
    },
  };

  record(prefix: 'bk/' | 'env/'): Uint8Array {
    const key = this.memory.log
      .flatMap(({ records }) => records)
      .find((each) => each.key.startsWith(prefix))?.key;
    const newest = this.#newest(key ?? '');
    assert.ok(newest !== undefined);
    return newest;
  }

  #isDirect(key: string): boolean {
    const newest = this.#newest(key);
    return newest !== undefined && parseEnvelope(openRecord(newest).body).mode === 'direct';
  }

  #newest(key: string): Uint8Array | undefined {
    return this.memory.records(key).at(-1);
  }

  #current<Body extends BranchKeyBody | EnvelopeBody>(key: string, parse: (body: unknown) => Body) {
    const newest = this.#newest(key);
    if (newest === undefined) return undefined;
    const { cid, body } = openRecord(newest);
    return { version: this.memory.records(key).length, cid, body: parse(body) };
  }
}

function stepProblem(before: Uint8Array | undefined, after: Uint8Array): string | undefined {
  if (before === undefined) return undefined;
  const [a, b] = [parseKeyRecord(openRecord(before).body), parseKeyRecord(openRecord(after).body)];
  if (a.kind === 'envelope' && b.kind === 'envelope') return envelopeStepProblem(a, b);
  return a.kind === 'branch-key' && b.kind === 'branch-key' ? branchKeyStepProblem(a, b) : undefined;
}

function readerOf(providers: readonly KekProvider[]): KekProvider {
  const [first] = providers;
  assert.ok(first !== undefined);
  return {
    id: 'all of the test',
    kind: first.kind,
    createKey: (scope) => first.createKey(scope),
    unwrap: (records, asked) => unwrapByWrap(providers, records, asked),
    describe: () => first.describe(),
    health: () => first.health(),
    kek: () => first.kek(),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

function requestOf({ writer }: World): UnwrapRequest {
  return { purpose: 'read', requester: writer.publicKey, beat: 100 };
}

function registryOf(world: World): KeyRegistry {
  return new KeyRegistry({ door: world.door, signers: [world.writer, operator] });
}

function moveOf(world: World, from: KekProvider, to: KekProvider, more: Partial<KeyMove> = {}): KeyMove {
  return {
    registry: registryOf(world),
    from: [{ name: 'old', provider: from }],
    to: { name: 'new', provider: to },
    keep: false,
    request: async () => ({ ...requestOf(world), purpose: 'rewrap' }),
    ...more,
  };
}

async function devFile(name: string): Promise<KekProvider> {
  const path = join(folder, `${name}-${toHex(bytes(4))}.json`);
  return openDevFile({ path, clock, create: true, environment: 'test', group: name });
}

async function fill(world: World): Promise<void> {
  for (const path of ['a', 'b', 'c']) await world.put(path);
  for (const path of ['secret', 'secret too']) await world.put(path, 'restricted');
}

/** Moves while everything is read again and again; each read must succeed. */
async function movedWhileRead(world: World, move: KeyMove) {
  const done = new AbortController();
  const moving = moveKeys(move).finally(() => done.abort());
  moving.catch(() => undefined); // awaited below
  do {
    await world.readAll();
    await setImmediate(); // reading in memory alone would leave a provider over HTTP no turn
  } while (!done.signal.aborted);
  return moving;
}

const kinds: readonly {
  readonly name: string;
  readonly skip: string | undefined;
  readonly open: (stack: AsyncDisposableStack) => Promise<KekProvider>;
}[] = [
  { name: 'another key file', skip: undefined, open: () => devFile('two') },
  {
    name: 'a Transit engine',
    skip: undefined,
    open: async (stack) => {
      const server = stack.use(await startFakeTransit());
      server.roleCreates = true;
      const { url, roleId, secretIdFile } = server;
      const auth = { method: 'approle', roleId, secretIdFile } as const;
      return openTransit({ url, auth, key: 'move', group: 'vault', clock, create: true });
    },
  },
  {
    name: 'a token',
    skip: softTokenSkip,
    open: async () => {
      const { modulePath = '', pinFile = '' } = tokens ?? {};
      return openPkcs11({
        modulePath,
        pinFile,
        token: 'move',
        key: 'keys',
        group: 'hsm',
        clock,
        create: true,
      });
    },
  },
];

for (const { name, skip, open } of kinds)
  describe(`from a key file to ${name} and back`, { skip: skip ?? false }, () => {
    it('everything is read all the time, and by the new one alone at the end', async () => {
      await using stack = new AsyncDisposableStack();
      const [old, young] = [await devFile('one'), stack.use(await open(stack))];
      const world = new World(old, young);
      await fill(world);
      const providers = [
        { name: 'old', provider: old },
        { name: 'new', provider: young },
      ];
      const before = await countKeys(registryOf(world), providers);
      assert.deepEqual(before, { total: 5, under: { old: 5, new: 0 }, elsewhere: 0 });
      const there = await movedWhileRead(world, moveOf(world, old, young));
      assert.deepEqual(there, { moved: 5, dropped: 5, failed: 0, failures: [] });
      await world.readAll([young]);
      assert.deepEqual((await countKeys(registryOf(world), providers)).under, { old: 0, new: 5 });
      const back = await movedWhileRead(world, moveOf(world, young, old));
      assert.deepEqual([back.moved, back.dropped, back.failed], [5, 5, 0]);
      await world.readAll([old]);
    });
  });

describe('a move', () => {
  it('to custodians puts objects under new keys that only these give back', async () => {
    await using group = await TestGroup.create();
    const [old, custodians] = [await devFile('dev'), group.provider()];
    const world = new World(old, custodians);
    await fill(world);
    const report = await movedWhileRead(world, moveOf(world, old, custodians));
    assert.deepEqual([report.moved, report.failed], [5, 0]);
    await world.readAll([custodians]);
    const again = await moveKeys(moveOf(world, old, custodians));
    assert.deepEqual([again.moved, again.failed], [0, 0]);
    await world.put('later', 'internal');
    assert.equal((await moveKeys(moveOf(world, old, custodians))).moved, 1);
  });

  it('goes on where it stopped', async () => {
    const [old, young] = [await devFile('one'), await devFile('two')];
    const world = new World(old, young);
    await fill(world);
    let kept: KeptMove | undefined;
    const progress = {
      load: async () => kept,
      save: async (now: KeptMove) => {
        kept = now;
      },
      clear: async () => {
        kept = undefined;
      },
    };
    let left = 2;
    const rewrap = world.door.rewrapKeys.bind(world.door);
    const door = {
      ...world.door,
      rewrapKeys: async (records: Parameters<typeof rewrap>[0]) => {
        if (left-- <= 0) throw new HoldfastError('PEER_UNREACHABLE', 'power cut');
        await rewrap(records);
      },
    };
    const registry = new KeyRegistry({ door, signers: [world.writer] });
    await assert.rejects(moveKeys(moveOf(world, old, young, { registry, progress })), {
      code: 'PEER_UNREACHABLE',
    });
    await world.readAll();
    left = Infinity;
    const report = await moveKeys(moveOf(world, old, young, { registry, progress }));
    assert.deepEqual([report.moved, report.dropped, report.failed, kept], [3, 5, 0, undefined]);
    await world.readAll([young]);
  });

  it('keeps the old wraps when it is told to', async () => {
    const [old, young] = [await devFile('one'), await devFile('two')];
    const world = new World(old, young);
    await fill(world);
    const report = await moveKeys(moveOf(world, old, young, { keep: true }));
    assert.deepEqual([report.moved, report.dropped], [5, 0]);
    await world.readAll([old]);
    await world.readAll([young]);
  });
});

describe('a recovery', () => {
  it('brings keys to another provider, by the orders of two authorities and after an alarm', async () => {
    const { secretKey, publicKey, kid } = newRecoveryKey(bytes);
    const options = { publicKey, policy: (): 'any' => 'any', random: bytes } as const;
    const [lost, young] = [withRecovery(await devFile('one'), options), await devFile('two')];
    assert.ok(wrapsGivenKeys(young));
    const world = new World(lost, young);
    await fill(world);
    const registry = registryOf(world);
    const keys = await keysSealedTo(registry, kid);
    assert.equal(keys.length, 5);
    const asked = { cg: 'cg-test', kid, reason: 'the token burnt', beat: 100, lifeBeats: 50 };
    const orders = [operator, stranger].map((signer) => recoveryOrder(keys, asked, signer, bytes));
    const alarms: string[] = [];
    const move = {
      registry,
      keys,
      to: young,
      secretKey,
      orders,
      authorities: [operator.publicKey, stranger.publicKey],
      cg: 'cg-test',
      reason: 'the token burnt',
      beat: 120,
      alarm: async ({ reason }: { readonly reason: string }) => {
        alarms.push(reason);
      },
    };
    await assert.rejects(recoverTo({ ...move, orders: orders.slice(1) }), { code: 'FORBIDDEN' });
    await assert.rejects(recoverTo({ ...move, keys: keys.slice(1) }), { code: 'FORBIDDEN' });
    assert.deepEqual(alarms, []);
    await assert.rejects(world.readAll([young]), { code: 'KEY_UNAVAILABLE' });
    assert.deepEqual(await recoverTo(move), { recovered: 5, untouched: 0, failures: [] });
    assert.deepEqual(alarms, ['the token burnt']);
    await world.readAll([young]);
    assert.equal((await recoverTo({ ...move, keys: await keysSealedTo(registry, kid) })).untouched, 5);
  });
});

describe('the door files no newer record', () => {
  async function stored(): Promise<{ world: World; key: BranchKeyBody; envelope: EnvelopeBody }> {
    const old = await devFile('one');
    const world = new World(old, old);
    await world.put('a');
    const [key, envelope] = [openRecord(world.record('bk/')), openRecord(world.record('env/'))];
    return {
      world,
      key: { ...parseBranchKey(key.body), bkVer: 2, prev: key.cid },
      envelope: { ...parseEnvelope(envelope.body), envVer: 2, prev: envelope.cid },
    };
  }

  function signed(body: BranchKeyBody | EnvelopeBody, signer: Signer): Uint8Array {
    return signRecord({ ...body, writer: signer.publicKey }, signer).block.bytes;
  }

  it('but of its writer or the operator', async () => {
    const { world, key, envelope } = await stored();
    for (const body of [key, envelope])
      await assert.rejects(world.file([signed(body, stranger)]), { code: 'FORBIDDEN' });
    assert.ok((await world.file([signed(key, world.writer)])) > 0);
    assert.ok((await world.file([signed(envelope, operator)])) > 0);
  });

  it('that commits to another key', async () => {
    const { world, key } = await stored();
    const other = { ...key, commit: bytes(32) };
    await assert.rejects(world.file([signed(other, world.writer)]), {
      code: 'RECORD_INVALID',
      message: /commit to the same key/,
    });
  });

  it('that does not follow the newest', async () => {
    const { world, key, envelope } = await stored();
    const skipping = [
      { ...key, bkVer: 3 },
      { ...key, prev: openRecord(world.record('env/')).cid },
      { ...envelope, envVer: 3 },
      { ...envelope, prev: null },
    ];
    for (const body of skipping)
      await assert.rejects(world.file([signed(body, world.writer)]), { code: 'VERSION_CONFLICT' });
    await world.file([signed(key, world.writer)]);
    await assert.rejects(world.file([signed(key, world.writer)]), { code: 'VERSION_CONFLICT' });
  });

  it('of what is not there, or of another kind', async () => {
    const { world, key, envelope } = await stored();
    const unknownKey = { ...key, wraps: key.wraps, bkId: bytes(16) };
    await assert.rejects(world.file([signed(unknownKey, world.writer)]), { code: 'RECORD_INVALID' });
    const unknownObject = { ...envelope, objId: bytes(16) };
    await assert.rejects(world.file([signed(unknownObject, world.writer)]), { code: 'RECORD_INVALID' });
    const manifest = world.memory.versions([...world.texts.keys()][0] ?? '').at(-1);
    assert.ok(manifest !== undefined);
    await assert.rejects(world.file([manifest]), { code: 'RECORD_INVALID' });
    await assert.rejects(world.file([]), { code: 'RECORD_INVALID' });
    const many = Array.from({ length: 17 }, () => signed(key, world.writer));
    await assert.rejects(world.file(many), { code: 'RECORD_INVALID', message: /1 to 16/ });
    assert.equal(sameBytes(openRecord(world.record('bk/')).body.writer, world.writer.publicKey), true);
  });
});

function bytes(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

function base64(record: Uint8Array | undefined): string {
  return Buffer.from(record ?? new Uint8Array()).toString('base64');
}
