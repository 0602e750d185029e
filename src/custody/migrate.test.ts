import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeKey, readRequest, someScope, unwrapped } from '../../test/suites/key-provider.ts';
import { type CID, cborBlock } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { combineAll } from './combine-all.ts';
import { openDevFile } from './dev-file.ts';
import {
  type MigratePorts,
  migratePage,
  type Migration,
  type MigrationState,
  newMigration,
} from './migrate.ts';
import { type KekProvider, type KeyWrapper, type UnwrapRequest, wrapsGivenKeys } from './provider.ts';
import { withRecovery } from './recovery.ts';
import { generateKeyPair } from '../threshold/hpke.ts';

const writer = fresh(32);
const request: UnwrapRequest = { ...readRequest, purpose: 'rewrap' };
let folder = '';
let filesCount = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-migrate-'));
});
after(() => rm(folder, { recursive: true, force: true }));

test('moves every key, page by page, and each is readable all the time', async () => {
  const { from, to, registry, keys } = await world(10);
  const seen: (string | undefined)[] = [];
  let state = newMigration;
  while (!state.done) {
    state = await migratePage(migration(from, to, 'add'), registry, state);
    seen.push(state.cursor);
    for (const { bkId, branchKey } of keys)
      assert.deepEqual(
        await unwrapped(from, registry.newest(bkId)),
        branchKey,
        'the old provider still reads',
      );
  }
  assert.equal(seen.length, 4);
  assert.deepEqual([state.moved, state.untouched, state.failed], [10, 0, 0]);
  for (const { bkId, branchKey } of keys) {
    const body = registry.newest(bkId);
    assert.equal(body.bkVer, 2);
    assert.equal(body.prev?.toString(), registry.cids(bkId)[0]?.toString());
    assert.deepEqual(await unwrapped(to, body), branchKey);
  }
  const dropped = await run(migration(from, to, 'drop'), registry);
  assert.equal(dropped.moved, 10);
  for (const { bkId, branchKey } of keys) {
    const body = registry.newest(bkId);
    assert.equal(body.wraps.length, 1);
    assert.deepEqual(await unwrapped(to, body), branchKey);
  }
});

test('done twice changes nothing', async () => {
  const { from, to, registry } = await world(5);
  await run(migration(from, to, 'add'), registry);
  const stored = registry.storedCount;
  const again = await run(migration(from, to, 'add'), registry);
  assert.deepEqual([again.moved, again.untouched, registry.storedCount], [0, 5, stored]);
});

test('goes on after a crash at any step, with nothing lost and nothing done twice', async () => {
  for (let crashAt = 1; crashAt <= 5; crashAt++) {
    const { from, to, registry, keys } = await world(5);
    registry.crashAtStore = crashAt;
    await assert.rejects(run(migration(from, to, 'add'), registry), /power cut/);
    registry.crashAtStore = 0;
    const state = await run(migration(from, to, 'add'), registry, registry.kept);
    assert.equal(state.failed, 0);
    for (const { bkId, branchKey } of keys) {
      assert.equal(registry.cids(bkId).length, 2, 'one newer record each');
      assert.deepEqual(await unwrapped(to, registry.newest(bkId)), branchKey);
    }
  }
});

test('leaves to the next run what somebody else changed meanwhile', async () => {
  const { from, to, registry } = await world(3);
  registry.conflicts = 1;
  const first = await run(migration(from, to, 'add'), registry);
  assert.deepEqual([first.moved, first.conflicts], [2, 1]);
  const second = await run(migration(from, to, 'add'), registry);
  assert.deepEqual([second.moved, second.untouched], [1, 2]);
});

test('names the keys that it could not move and moves the others', async () => {
  const { from, to, registry, keys } = await world(4);
  const [bad] = keys;
  assert(bad !== undefined);
  registry.damage(bad.bkId);
  const state = await run(migration(from, to, 'add'), registry);
  assert.deepEqual([state.moved, state.failed], [3, 1]);
  assert.equal(state.failures[0]?.bkId, toHex(bad.bkId));
  assert.equal(state.failures[0].code, 'DECRYPT_FAILED');
});

test('stores nothing that the old provider made up', async () => {
  const { from, to, registry } = await world(2);
  const liar: KekProvider = {
    ...delegate(from),
    unwrap: async (records) => records.map(() => ({ ok: true, branchKey: fresh(32) })),
  };
  const state = await run(migration(liar, to, 'add'), registry);
  assert.deepEqual([state.moved, state.failed], [0, 2]);
});

test('drops no wrap before the new provider has given the key back', async () => {
  const { from, to, registry, keys } = await world(3);
  await run(migration(from, to, 'add'), registry);
  const mute: KekProvider & KeyWrapper = {
    ...delegate(to),
    unwrap: async (records) =>
      records.map(() => ({ ok: false, error: new HoldfastError('KEY_UNAVAILABLE', 'not now') })),
  };
  const state = await run({ ...migration(from, to, 'drop'), to: mute }, registry);
  assert.deepEqual([state.moved, state.failed], [0, 3]);
  for (const { bkId, branchKey } of keys)
    assert.deepEqual(await unwrapped(from, registry.newest(bkId)), branchKey);
});

test('a provider that fails altogether stops the page', async () => {
  const { from, to, registry } = await world(3);
  const away = { ...delegate(to), wrapKey: () => Promise.reject(new HoldfastError('TIMEOUT', 'away')) };
  await assert.rejects(run({ ...migration(from, to, 'add'), to: away }, registry), (error) =>
    isHoldfastError(error, 'TIMEOUT'),
  );
  assert.equal(registry.storedCount, 0);
});

test('moves one part of a key that takes all, and the key stays', async () => {
  const [one, two, three] = [await devFile('one'), await devFile('two'), await devFile('three')];
  const registry = new Registry();
  const { branchKey, body } = await makeKey(combineAll([one, two]));
  registry.put(body);
  const state = await run(migration(two, three, 'add'), registry);
  assert.equal(state.moved, 1);
  const after = registry.newest(body.bkId);
  assert.equal(after.wraps.length, 2);
  assert.deepEqual(await unwrapped(combineAll([one, three]), after), branchKey);
});

test('keeps one recovery wrap', async () => {
  const { publicKey } = generateKeyPair(fresh);
  const options = { publicKey, policy: (): 'any' => 'any', random: fresh } as const;
  const from = withRecovery(await devFile('old'), options);
  const to = withRecovery(await devFile('new'), options);
  assert(wrapsGivenKeys(to));
  const registry = new Registry();
  const { body } = await makeKey(from);
  registry.put(body);
  await run(migration(from, to, 'add'), registry);
  await run(migration(from, to, 'drop'), registry);
  const kinds = registry.newest(body.bkId).wraps.map(({ t }) => t);
  assert.deepEqual(kinds, ['dev', 'recovery']);
});

/** The newest records in memory, with the ways in which a real registry fails. */
class Registry implements MigratePorts {
  readonly #chains = new Map<string, { cid: CID; body: BranchKeyBody }[]>();
  storedCount = 0;
  conflicts = 0;
  crashAtStore = 0;
  kept: MigrationState = newMigration;

  put(body: BranchKeyBody): void {
    this.#chains.set(toHex(body.bkId), [{ cid: cidFor(body), body }]);
  }

  newest(bkId: Uint8Array): BranchKeyBody {
    const last = this.#chains.get(toHex(bkId))?.at(-1);
    assert(last !== undefined);
    return last.body;
  }

  cids(bkId: Uint8Array): CID[] {
    return (this.#chains.get(toHex(bkId)) ?? []).map(({ cid }) => cid);
  }

  damage(bkId: Uint8Array): void {
    const body = this.newest(bkId);
    const wraps = body.wraps.map((wrap) => (wrap.t === 'dev' ? { ...wrap, ct: fresh(48) } : wrap));
    this.put({ ...body, wraps });
  }

  async page(cursor: string | undefined, limit: number): ReturnType<MigratePorts['page']> {
    const ids = [...this.#chains.keys()].sort().filter((id) => cursor === undefined || id > cursor);
    const keys = ids.slice(0, limit).flatMap((id) => this.#chains.get(id)?.at(-1) ?? []);
    return { keys, next: ids.length > limit ? ids[limit - 1] : undefined };
  }

  async store(body: BranchKeyBody, replaces: CID): Promise<'stored' | 'conflict'> {
    const chain = this.#chains.get(toHex(body.bkId));
    if (chain?.at(-1)?.cid.toString() !== replaces.toString() || this.conflicts-- > 0) return 'conflict';
    this.storedCount++;
    if (this.storedCount === this.crashAtStore) throw new Error('power cut before');
    chain.push({ cid: cidFor(body), body });
    return 'stored';
  }

  async progress(state: MigrationState): Promise<void> {
    this.kept = state;
  }
}

interface World {
  readonly from: KekProvider;
  readonly to: KekProvider & KeyWrapper;
  readonly registry: Registry;
  readonly keys: readonly { readonly bkId: Uint8Array; readonly branchKey: Uint8Array }[];
}

async function world(keysCount: number): Promise<World> {
  const from = await devFile('old');
  const to = await devFile('new');
  const registry = new Registry();
  const keys = [];
  for (let count = 0; count < keysCount; count++) {
    const { branchKey, body } = await makeKey(from, someScope());
    registry.put(body);
    keys.push({ bkId: body.bkId, branchKey });
  }
  return { from, to, registry, keys };
}

function migration(from: KekProvider, to: KekProvider, step: Migration['step']): Migration {
  assert(wrapsGivenKeys(to));
  return { from, to, step, request, writer, pageKeys: 3 };
}

async function run(
  how: Migration,
  registry: Registry,
  from: MigrationState = newMigration,
): Promise<MigrationState> {
  let state = { ...from, done: false };
  while (!state.done) state = await migratePage(how, registry, state);
  return state;
}

async function devFile(group: string): Promise<KekProvider & KeyWrapper> {
  const clock = { now: () => 1000, monotonic: () => 0 };
  const path = join(folder, `key-${filesCount++}.json`);
  const provider = await openDevFile({ path, clock, create: true, environment: 'test', group });
  assert(wrapsGivenKeys(provider));
  return provider;
}

function delegate(provider: KekProvider): KekProvider & KeyWrapper {
  assert(wrapsGivenKeys(provider));
  return {
    id: provider.id,
    kind: provider.kind,
    createKey: (scope) => provider.createKey(scope),
    wrapKey: (scope, branchKey) => provider.wrapKey(scope, branchKey),
    unwrap: (records, asked) => provider.unwrap(records, asked),
    describe: () => provider.describe(),
    health: () => provider.health(),
    kek: () => provider.kek(),
    [Symbol.asyncDispose]: () => provider[Symbol.asyncDispose](),
  };
}

function cidFor(body: BranchKeyBody): CID {
  return cborBlock(body).cid;
}

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}
