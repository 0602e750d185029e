import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type FakeTransit, startFakeTransit } from '../../test/support/fake-transit.ts';
import { makeSoftTokens, softTokenSkip, type SoftTokens } from '../../test/support/soft-token.ts';
import { makeKey, readRequest, someScope, unwrapped } from '../../test/suites/key-provider.ts';
import { random } from '../../test/support/threshold.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { openDevFile } from './dev-file.ts';
import type { KekProvider } from './provider.ts';
import { ProviderSet } from './provider-set.ts';

const clock = { now: Date.now, monotonic: () => performance.now() };
let folder = '';
let path = '';
let transit: FakeTransit;
let tokens: SoftTokens | undefined;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-provider-set-'));
  path = join(folder, 'provider.json');
  transit = await startFakeTransit();
  transit.roleCreates = true;
  if (softTokenSkip === undefined) tokens = await makeSoftTokens(['set']);
});
after(async () => {
  await transit[Symbol.asyncDispose]();
  await tokens?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function configure(fields: object, mode = 0o600): Promise<void> {
  await writeFile(path, JSON.stringify({ format: 'holdfast-key-providers', version: 1, ...fields }));
  await chmod(path, mode);
}

const vault = () => ({
  type: 'transit',
  address: transit.url,
  key: 'set',
  auth: { method: 'approle', roleId: transit.roleId, secretIdFile: transit.secretIdFile },
});
const hsm = () => ({
  type: 'pkcs11',
  module: tokens?.modulePath ?? '',
  token: 'set',
  key: 'keys',
  pinFile: tokens?.pinFile ?? '',
});

async function keyFile(): Promise<KekProvider> {
  const name = `file-${Math.random().toString(36).slice(2)}.json`;
  return openDevFile({ path: join(folder, name), clock, create: true, environment: 'test' });
}

async function openSet(
  file: KekProvider | undefined,
  recovery: () => 'none' | 'any' | undefined = () => undefined,
): Promise<ProviderSet> {
  const common = { path, clock, custodians: undefined, custodiansMake: () => false };
  return ProviderSet.open({ ...common, file, recovery });
}

describe('the key providers of a cluster', () => {
  it('are those of the cluster alone where nothing is configured', async () => {
    await rm(path, { force: true });
    await using set = await openSet(await keyFile());
    assert.deepEqual([set.kind, set.names, set.isConfigured], ['dev-file', ['file'], false]);
    assert.deepEqual(set.making, { combiner: 'one', names: ['file'] });
  });

  it('find a key file that was made later, and keep it', async () => {
    await rm(path, { force: true });
    let made: KekProvider | undefined;
    let looks = 0;
    const common = {
      path,
      clock,
      custodians: undefined,
      custodiansMake: () => true,
      recovery: () => undefined,
    };
    await using set = await ProviderSet.open({
      ...common,
      file: undefined,
      lateFile: async () => {
        looks++;
        return made;
      },
    });
    await set.reload();
    assert.deepEqual(set.names, []);
    made = await keyFile();
    await set.reload();
    assert.deepEqual([set.names, set.named('file')], [['file'], made]);
    const before = looks;
    await set.reload();
    assert.equal(looks, before);
  });

  it('a new configuration changes who makes keys; each key is read by whoever wrapped it', async () => {
    await configure({ providers: { vault: vault() } });
    await using set = await openSet(await keyFile());
    await set.makeKeyOf('vault');
    const old = await makeKey(set);
    assert.deepEqual(
      old.body.wraps.map(({ t }) => t),
      ['dev'],
    );
    await configure({ providers: { vault: vault() }, make: 'vault' });
    await set.reload();
    const young = await makeKey(set);
    assert.deepEqual(
      young.body.wraps.map(({ t }) => t),
      ['transit'],
    );
    assert.deepEqual([set.kind, set.kek().cg, set.groups], ['transit', 'vault', ['vault', 'dev']]);
    assert.match(set.describe().text, /"file" are read there until/);
    const answers = await set.unwrap([old.body, young.body, old.body], readRequest);
    assert.deepEqual(
      answers.map((answer) => answer.ok && answer.branchKey),
      [old.branchKey, young.branchKey, old.branchKey],
    );
  });

  it('one that is away refuses its own keys, keeps nobody from the others, and is back by itself', async () => {
    await configure({ providers: { vault: vault() }, make: 'vault' });
    const file = await keyFile();
    await using set = await openSet(file);
    const [old, young] = [await makeKey(file), await makeKey(set)];
    transit.sealed = true;
    await using again = await openSet(file);
    assert.equal((await again.health()).ok, false);
    const [fromFile, fromVault] = await again.unwrap([old.body, young.body], readRequest);
    assert.deepEqual(fromFile?.ok === true && fromFile.branchKey, old.branchKey);
    assert.ok(fromVault?.ok === false);
    assert.equal(fromVault.error.code, 'KEY_UNAVAILABLE');
    transit.sealed = false;
    assert.deepEqual(await unwrapped(set, young.body), young.branchKey);
  });

  it('a change that is no good leaves all as it was and shows in the health', async () => {
    await configure({ providers: { vault: vault() }, make: 'vault' });
    await using set = await openSet(undefined);
    const made = await makeKey(set);
    await configure({ providers: {}, make: 'vault' });
    await set.reload();
    assert.deepEqual(await unwrapped(set, made.body), made.branchKey);
    const { ok, text } = await set.health();
    assert.deepEqual([ok, /as they were: .*make: .*expected/.test(text)], [false, true]);
    await configure({ providers: { vault: vault() }, make: 'vault' });
    await set.reload();
    assert.equal((await set.health()).ok, true);
  });

  it('others may not read or write the configuration', async () => {
    await configure({}, 0o644);
    await assert.rejects(openSet(undefined), {
      code: 'FILE_UNREADABLE',
      message: /provider\.json.*644; set it to 600/,
    });
    await configure({}, 0o620);
    await assert.rejects(openSet(undefined), { code: 'FILE_UNREADABLE' });
  });

  it('nobody else makes keys for a maker that is not there', async () => {
    await configure({ make: 'custodians' });
    await using set = await openSet(await keyFile());
    assert.throws(() => set.kek(), { code: 'KEY_UNAVAILABLE', message: /"custodians".*no custodians/ });
    await configure({ providers: { vault: vault() }, make: { any: ['vault', 'file'] } });
    await using pair = await openSet(undefined);
    assert.throws(() => pair.maker(), {
      code: 'KEY_UNAVAILABLE',
      message: /"file".*no development key file/,
    });
  });

  it('seals to the recovery key where the policy allows it', async () => {
    const { publicKey } = generateKeyPair(random);
    await configure({ recovery: { publicKey: Buffer.from(publicKey).toString('hex') } });
    let policy: 'none' | 'any' | undefined = 'any';
    await using set = await openSet(await keyFile(), () => policy);
    assert.deepEqual(
      (await makeKey(set)).body.wraps.map(({ t }) => t),
      ['dev', 'recovery'],
    );
    policy = 'none';
    assert.deepEqual(
      (await makeKey(set)).body.wraps.map(({ t }) => t),
      ['dev'],
    );
    policy = undefined;
    assert.deepEqual(
      (await makeKey(set)).body.wraps.map(({ t }) => t),
      ['dev', 'recovery'],
    );
    assert.match(set.describe().text, /recovery key [0-9a-f]{32}/);
  });

  it('a token and a server together, any or all', { skip: softTokenSkip ?? false }, async () => {
    const providers = { vault: vault(), hsm: hsm() };
    await configure({ providers, make: { any: ['hsm', 'vault'] } });
    await using set = await openSet(await keyFile());
    await set.makeKeyOf('hsm');
    const either = await makeKey(set);
    assert.deepEqual(
      either.body.wraps.map(({ t }) => t),
      ['pkcs11', 'transit'],
    );
    await configure({ providers, make: { all: ['vault', 'hsm'] } });
    await set.reload();
    const both = await makeKey(set, someScope());
    assert.equal(both.body.combiner, 'all');
    // Who makes keys now does not matter for what was made before.
    await configure({ providers, make: 'file' });
    await set.reload();
    assert.deepEqual(await unwrapped(set, either.body), either.branchKey);
    assert.deepEqual(await unwrapped(set, both.body), both.branchKey);
    await configure({ providers: { vault: vault() } });
    await set.reload();
    assert.deepEqual(await unwrapped(set, either.body), either.branchKey);
    await assert.rejects(unwrapped(set, both.body), {
      code: 'KEY_UNAVAILABLE',
      message: /all of .*pkcs11 \(hsm\)/,
    });
  });
});
