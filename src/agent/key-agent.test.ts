import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { TestGroup } from '../../test/support/custody-group.ts';
import { someSigner } from '../../test/support/custody-records.ts';
import { address, MemoryWorld, putOptions } from '../../test/support/memory-world.ts';
import { random } from '../../test/support/threshold.ts';
import { toHex, utf8 } from '../core/bytes.ts';
import type { Signer } from '../core/hash.ts';
import { AuditLog } from '../custody/audit-log.ts';
import { parseLeaf } from '../custody/audit-leaf.ts';
import { type CapabilityLink, signCapability } from '../custody/capability.ts';
import { defaultPolicy, fullCapability } from '../custody/default-policy.ts';
import { BranchKeys } from '../custody/keyring.ts';
import { openObjectKey, type ObjectKeyRequest, signKeyRequest } from '../custody/object-key.ts';
import { Revocations } from '../custody/revocation.ts';
import { openObject } from '../flows/get.ts';
import { putObject } from '../flows/put.ts';
import { openManifest, signManifest } from '../manifest/manifest.ts';
import { encodeAad, parseAad } from '../envelope/aad.ts';
import { generateKeyPair } from '../threshold/hpke.ts';
import { canonicalKey } from '../ucxl/address.ts';
import { KeyAgent } from './key-agent.ts';

const signal = new AbortController().signal;
const agentSigner = someSigner('agent');
const reader = someSigner('reader');
const cg = 'cg-test';
let dir = '';
let group: TestGroup;
let world: MemoryWorld;
let log: AuditLog;
let keys: BranchKeys;
let agent: KeyAgent;
let revocations = Revocations.none;
/** The group of now. */
let present = cg;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-agent-'));
  const authority = someSigner(`${cg} authority`);
  const base = defaultPolicy({
    cg,
    family: random(16),
    writer: authority.publicKey,
    authorities: [authority.publicKey],
  });
  const internal = { ...base.classes.internal, keyAgentOnly: true };
  group = await TestGroup.create({
    cg,
    policy: { keyAgents: [agentSigner.publicKey], classes: { ...base.classes, internal } },
  });
  world = new MemoryWorld();
  const writing = group.provider();
  const writer = new BranchKeys({ provider: writing, writer: world.signer.publicKey, random });
  const ports = {
    ...world.put,
    writerKey: (scope: Parameters<BranchKeys['current']>[0]) => writer.current(scope),
    kek: writing.kek(),
  };
  for (const name of ['docs/plan.md', 'docs/more.md', 'payroll/list.md'])
    await putObject(ports, address(name), [utf8(`what ${name} says`)], putOptions);
  log = await AuditLog.open({ path: dir, origin: 'test/agent', signer: agentSigner, create: true });
  keys = new BranchKeys({
    provider: group.provider({
      signer: agentSigner,
      chain: async () => [capability({ aud: agentSigner.publicKey })],
    }),
    writer: agentSigner.publicKey,
    random,
    windowBeats: 60,
    openMax: 4,
  });
  agent = new KeyAgent({
    signer: agentSigner,
    log,
    keys,
    rules: async () => ({ cg: present, policy: group.known.policy(), revocations, now: group.now() }),
    records: async (key) => world.recordsOf(key),
    now: () => 1_700_000_000_000,
  });
});
after(async () => {
  await keys[Symbol.asyncDispose]();
  await log[Symbol.asyncDispose]();
  await group[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

function capability(changes: Partial<CapabilityLink>, signer: Signer = group.authority): Uint8Array {
  const full = fullCapability({ cg, iss: signer.publicKey, aud: reader.publicKey, nbf: 0, exp: 1e6 });
  return signCapability({ ...full, ...changes }, signer);
}

const docs = (): Uint8Array =>
  capability({ scope: { project: 'holdfast', cls: 'internal', prefix: 'docs/' } });

interface Asked {
  readonly message: Uint8Array;
  readonly hash: Uint8Array;
  readonly secretKey: Uint8Array;
}

function ask(
  path: string,
  chain: readonly Uint8Array[],
  changes: Partial<ObjectKeyRequest> = {},
  by = reader,
): Asked {
  const key = canonicalKey(address(path));
  const { publicKey, secretKey } = generateKeyPair(random);
  const { cid } = openManifest(world.recordsOf(key).manifest);
  const request: ObjectKeyRequest = {
    v: 1,
    reqId: random(32),
    cg,
    agent: agentSigner.publicKey,
    address: key,
    version: 1,
    manifest: cid,
    beat: group.beat,
    exp: group.beat + 2,
    chain,
    epk: publicKey,
    by: by.publicKey,
    ...changes,
  };
  return { ...signKeyRequest(request, by), secretKey };
}

async function read(path: string, asked: Asked): Promise<string> {
  const dek = openObjectKey(await agent.release(asked.message, signal), asked.secretKey, {
    hash: asked.hash,
    agent: agentSigner.publicKey,
  });
  const ports = { ...world.get, contentKey: async () => dek };
  const opened = await openObject(ports, world.recordsOf(canonicalKey(address(path))), { signal });
  const parts: Uint8Array[] = [];
  for await (const part of opened.bytes) parts.push(part);
  return Buffer.concat(parts).toString();
}

async function lastLeaf() {
  const [leaf] = await log.leaves(log.size - 1, 1);
  assert.ok(leaf);
  return parseLeaf(leaf);
}

describe('a key agent', () => {
  test('gives the key of exactly the object that the capability is for, and writes it down', async () => {
    assert.equal(await read('docs/plan.md', ask('docs/plan.md', [docs()])), 'what docs/plan.md says');
    const leaf = await lastLeaf();
    assert.deepEqual(
      [leaf.op, leaf.decision, toHex(leaf.requester)],
      ['release', 'granted', toHex(reader.publicKey)],
    );
    assert.match(leaf.reason, /version 1 of ucxl:\/\/ann:writer@holdfast:flows\/.*docs\/plan\.md/);
    // The key of one object does not open another one, under the same branch key.
    const one = ask('docs/plan.md', [docs()]);
    await assert.rejects(read('docs/more.md', one), { code: 'DECRYPT_FAILED' });
    assert.equal(keys.held.reading, 1);
  });

  test('refuses other paths, and everybody whose capability does not reach', async () => {
    const refused: readonly (readonly [string, Asked, RegExp])[] = [
      ['another path', ask('payroll/list.md', [docs()]), /for paths under docs\//],
      ['no capability', ask('docs/plan.md', []), /brings no capability/],
      ['of somebody else', ask('docs/plan.md', [docs()], {}, someSigner('thief')), /not at who asks/],
      [
        'by no authority',
        ask('docs/plan.md', [capability({ iss: someSigner('x').publicKey }, someSigner('x'))]),
        /no authority/,
      ],
      [
        'another project',
        ask('docs/plan.md', [capability({ scope: { project: 'other', cls: 'internal', prefix: '' } })]),
        /for project other/,
      ],
      [
        'a lower class',
        ask('docs/plan.md', [capability({ scope: { project: '*', cls: 'public', prefix: '' } })]),
        /reaches up to public/,
      ],
      ['not to read', ask('docs/plan.md', [capability({ ops: ['write'] })]), /not read/],
      ['ended', ask('docs/plan.md', [capability({ exp: 5 })]), /ended with beat 5/],
      ['another agent', ask('docs/plan.md', [docs()], { agent: random(32) }), /another key agent/],
      ['another group', ask('docs/plan.md', [docs()], { cg: 'cg-other' }), /serves cg-test/],
      ['of yesterday', ask('docs/plan.md', [docs()], { beat: 1, exp: 3 }), /ended with beat 3/],
    ];
    for (const [what, asked, message] of refused) {
      const before = log.size;
      await assert.rejects(agent.release(asked.message, signal), { code: 'FORBIDDEN', message }, what);
      assert.equal(log.size, before + 1, what);
      assert.equal((await lastLeaf()).decision, 'refused', what);
    }
  });

  test('answers a request once, and one that names another manifest not at all', async () => {
    const once = ask('docs/plan.md', [docs()]);
    await agent.release(once.message, signal);
    await assert.rejects(agent.release(once.message, signal), {
      code: 'FORBIDDEN',
      message: /answered before/,
    });
    const { manifest } = world.recordsOf(canonicalKey(address('payroll/list.md')));
    const swapped = ask('docs/plan.md', [docs()], { manifest: openManifest(manifest).cid });
    await assert.rejects(agent.release(swapped.message, signal), { code: 'RECORD_INVALID' });
    const flipped = new Uint8Array(once.message);
    flipped[40] = (flipped[40] ?? 0) ^ 1;
    await assert.rejects(agent.release(flipped, signal), { code: 'RECORD_INVALID' });
  });

  test('a registry that shows another object under the address gains nothing', async () => {
    const real = world.recordsOf.bind(world);
    const other = real(canonicalKey(address('payroll/list.md')));
    const plan = real(canonicalKey(address('docs/plan.md')));
    const asked = ask('docs/plan.md', [docs()]);
    world.recordsOf = () => ({
      ...plan,
      ...(other.envelope === undefined ? {} : { envelope: other.envelope }),
    });
    await assert.rejects(agent.release(asked.message, signal), { code: 'DECRYPT_FAILED' });
    world.recordsOf = real;
  });

  test('who forges a manifest, so that it names an allowed path over the key of another object, gains nothing', async () => {
    const real = world.recordsOf.bind(world);
    const payroll = real(canonicalKey(address('payroll/list.md')));
    const { body } = openManifest(payroll.manifest);
    const { encryption, cid: root, size, media, cls, replication } = body;
    assert.ok(encryption && root);
    const { objId, hdr, ctLen, kek_policy: kekPolicy } = encryption;
    const where = address('docs/evil.md');
    const aad = encodeAad({ ...parseAad(encryption.aad), ucxl: canonicalKey(where) });
    const content = { type: 'object', root, size, media, objId, hdr, aad, ctLen, kekPolicy } as const;
    const forged = signManifest(
      { address: where, version: 1, prev: null, generatedBy: 'x', generatedAt: 0, replication, cls, content },
      someSigner('thief'),
    );
    world.recordsOf = () => ({ ...payroll, manifest: forged.block.bytes });
    const asked = ask('docs/evil.md', [docs()]);
    await assert.rejects(agent.release(asked.message, signal), { code: 'DECRYPT_FAILED' });
    world.recordsOf = real;
  });

  test('heeds budget, revocation, the bar, and the end of what it holds', async () => {
    const poor = capability({ scope: { project: '*', cls: 'internal', prefix: '' }, max: 1 });
    const spender = someSigner('spender');
    const own = capability({ aud: spender.publicKey, max: 1 });
    await agent.release(ask('docs/plan.md', [own], {}, spender).message, signal);
    await assert.rejects(agent.release(ask('docs/more.md', [own], {}, spender).message, signal), {
      code: 'FORBIDDEN',
    });
    revocations = Revocations.none.withRecord({
      kind: 'revocation',
      v: 1,
      writer: group.authority.publicKey,
      prev: null,
      cg,
      n: 1,
      beat: 1,
      revoked: [{ what: 'key', id: reader.publicKey }],
    });
    await assert.rejects(agent.release(ask('docs/plan.md', [poor]).message, signal), {
      message: /was revoked/,
    });
    revocations = Revocations.none;
    assert.equal(keys.held.reading, 1);
    keys.expire(group.beat + 59);
    assert.equal(keys.held.reading, 1);
    keys.expire(group.beat + 60);
    assert.equal(keys.held.reading, 0);
  });

  test('who may not have the branch key does not get it from the custodians either', async () => {
    const direct = new BranchKeys({
      provider: group.provider({ signer: reader, chain: async () => [capability({})] }),
      writer: reader.publicKey,
      random,
    });
    const { branchKey } = world.recordsOf(canonicalKey(address('docs/plan.md')));
    assert.ok(branchKey);
    const ports = {
      ...world.get,
      readerKey: (body: Parameters<BranchKeys['open']>[0]) =>
        direct.open(body, { purpose: 'read' as const, requester: reader.publicKey, beat: group.beat }),
    };
    await assert.rejects(
      openObject(ports, world.recordsOf(canonicalKey(address('docs/plan.md'))), { signal }),
      {
        code: 'FORBIDDEN',
        message: /given to key agents only/,
      },
    );
  });

  test('has nothing open any more that another group gave, once one is in its place', async () => {
    await read('docs/plan.md', ask('docs/plan.md', [docs()]));
    assert.equal(keys.held.reading, 1);
    await read('docs/plan.md', ask('docs/plan.md', [docs()]));
    assert.equal(keys.held.reading, 1);
    present = 'cg-test.2';
    const asked = ask('docs/plan.md', [docs()]);
    const message = /for custody group cg-test, this agent serves cg-test\.2/;
    await assert.rejects(agent.release(asked.message, signal), { code: 'FORBIDDEN', message });
    assert.equal(keys.held.reading, 0);
    present = cg;
  });

  test('gives nothing that it cannot write down', async () => {
    await log[Symbol.asyncDispose]();
    await assert.rejects(agent.release(ask('docs/plan.md', [docs()]).message, signal), {
      code: 'KEY_UNAVAILABLE',
    });
  });
});
