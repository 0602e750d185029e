// What must not be in anybody's memory. This test can do what nobody else can: it has the sealing keys of all
// custodians of a cluster, so it adds the private key up, and opens the branch keys with it. Then it reads the memory
// of every process of the cluster, and its files, logs, arguments and environments, and looks for them.
//
// A door that seals may hold the wrapping key of a branch key that is open. Nobody may hold the private key.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { toHex } from '../../src/core/bytes.ts';
import { preimage } from '../../src/core/hash.ts';
import { openFolder } from '../../src/custody/disk.ts';
import type { ShareEntry, ShareKey } from '../../src/custody/share-state.ts';
import { ShareStore } from '../../src/custody/share-store.ts';
import { headerTagOf } from '../../src/envelope/floe.ts';
import { hkdfExpand, importKey } from '../../src/envelope/primitives.ts';
import { keyOfEnvelope, parseBranchKey, parseEnvelope } from '../../src/envelope/records.ts';
import { matchesCommitment, unwrapDek, WrappingKey } from '../../src/envelope/wrap.ts';
import { layoutPaths, readLayout } from '../../src/local/layout.ts';
import type { ProcessState } from '../../src/local/control-types.ts';
import { readCar } from '../../src/manifest/car.ts';
import { openManifest } from '../../src/manifest/manifest.ts';
import { openRecord } from '../../src/manifest/record.ts';
import type { Group, Scalar } from '../../src/threshold/group.ts';
import { loadEd25519 } from '../../src/threshold/ed25519-sodium.ts';
import { loadRistretto } from '../../src/threshold/group-sodium.ts';
import { lagrange } from '../../src/threshold/polynomial.ts';
import { branchKeyOf, combine } from '../../src/threshold/tdh2.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import {
  cannotRead,
  formsOf,
  type Found,
  type Needle,
  searchBytes,
  searchProcess,
} from '../support/process-memory.ts';
import { the } from '../support/threshold.ts';

const custodians = [1, 2, 3, 4, 5].map((i) => `custodian-${i}`);
const groups = { kek: await loadRistretto(), frost: await loadEd25519() };
const content = randomBytes(40_000);
let cluster: TestCluster;
const { ok, fed } = commandLine(() => cluster);
let skip: string | undefined;

before(async () => {
  cluster = await TestCluster.start({ nodes: 2, zones: 2, custodians: 5, settings: { beatMs: 500 } });
  skip = await cannotRead(await cluster.pid('custodian-1'));
});
after(() => cluster[Symbol.asyncDispose]());

/** One generation of a version of the KEK and of the signing key, as all custodians hold it together. */
interface Generation {
  readonly ver: number;
  readonly gen: number;
  readonly t: number;
  readonly shares: Readonly<Record<ShareKey, readonly Scalar[]>>;
  /** The private keys. */
  readonly x: Readonly<Record<ShareKey, Scalar>>;
}

/** Opens copies of the share stores of all custodians. The signing key is one for all versions. */
async function readShares(ver: number): Promise<Generation> {
  const { dir } = cluster;
  const { file } = await readLayout(dir);
  const opened = await Promise.all(
    custodians.map(async (name) => {
      const copy = await mkdtemp(join(tmpdir(), 'holdfast-shares-'));
      try {
        await cp(join(layoutPaths(dir).data(name), 'stores', 'shares'), copy, { recursive: true });
        const disk = await openFolder(copy);
        const sealing = { source: 'key-file', path: layoutPaths(dir).sealingKey(name) } as const;
        const owner = the(file.processes.find((each) => each.name === name)).peer;
        const store = await ShareStore.open({ shares: disk, keys: disk, sealing, owner, create: false });
        const active = (key: ShareKey, kekVer: number) =>
          the(
            store
              .shares()
              .find((each) => each.status === 'active' && each.key === key && each.kekVer === kekVer),
          );
        const secret = async (entry: ShareEntry) => (await store.openShare(entry, entry.key)).secret;
        const { gen, t } = active('kek', ver);
        return { gen, t, kek: await secret(active('kek', ver)), frost: await secret(active('frost', 1)) };
      } finally {
        await rm(copy, { recursive: true, force: true });
      }
    }),
  );
  const { gen, t } = the(opened[0]);
  assert.ok(
    opened.every((each) => each.gen === gen),
    'all of one generation',
  );
  const shares = { kek: opened.map(({ kek }) => kek), frost: opened.map(({ frost }) => frost) };
  return {
    ver,
    gen,
    t,
    shares,
    x: { kek: added('kek', shares.kek, t), frost: added('frost', shares.frost, t) },
  };
}

function added(key: ShareKey, shares: readonly Scalar[], t: number): Scalar {
  const group: Group = groups[key];
  const quorum = Array.from({ length: t }, (_, at) => at + 1);
  return quorum
    .map((i) => group.scalar.mul(lagrange(group, quorum, i), the(shares[i - 1])))
    .reduce((sum, part) => group.scalar.add(sum, part));
}

/** Tries until all custodians are at one generation of at least `gen`. */
async function sharesFrom(gen: number, ver = 1): Promise<Generation> {
  const deadline = AbortSignal.timeout(90_000);
  for (;;) {
    const found = await readShares(ver).catch((error: unknown) => error);
    if (!(found instanceof Error) && (found as Generation).gen >= gen) return found as Generation;
    assert.ok(!deadline.aborted, `no generation ${gen} of version ${ver}: ${String(found)}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** The keys of one object, by the private key; undefined while it has no wrap under that version. */
async function keysOf(address: string, { ver, x: { kek: x } }: Generation) {
  const response = await cluster.fetch(`/ucxi/v1/records?address=${encodeURIComponent(address)}`);
  assert.ok(response.body !== null && response.status === 200, `${response.status}`);
  const [manifest, envelope, record] = await Array.fromAsync(readCar(response.body));
  const { encryption } = openManifest(the(manifest).bytes).body;
  assert.ok(encryption !== null);
  const body = parseEnvelope(openRecord(the(envelope).bytes).body);
  const branch = parseBranchKey(openRecord(the(record).bytes).body);
  const wrap = branch.wraps.find((each) => 'kekVer' in each && each.kekVer === ver);
  if (wrap?.t !== 'tdec' && wrap?.t !== 'tdec-ks') return undefined;
  const element = combine(groups.kek, wrap.V, [{ index: 1, D: groups.kek.mul(x, wrap.U) }]);
  const { bkId, bkVer } = keyOfEnvelope(body);
  const branchKey = branchKeyOf(element, bkId, bkVer);
  assert.ok(
    matchesCommitment(branchKey, branch.commit),
    'the private key that was added up is the right one',
  );
  const wrapping = hkdfExpand('sha512', importKey(branchKey), preimage('CHORUS-SLURP-WK-v1', bkId), 32);
  const { objId, policy } = body;
  const binding = { objId, headerTag: headerTagOf(encryption.hdr), bkId, bkVer, policy };
  const dek = unwrapDek(new WrappingKey(branchKey, bkId), body.wrap, binding);
  return { element, branchKey, wrapping, dek };
}

/** Waits until the wrap of an object has been switched to that version. */
async function switchedTo(address: string, generation: Generation) {
  const deadline = AbortSignal.timeout(120_000);
  for (;;) {
    const keys = await keysOf(address, generation);
    if (keys !== undefined) return keys;
    assert.ok(!deadline.aborted, `${address} has no wrap under version ${generation.ver}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

async function processes(): Promise<ProcessState[]> {
  const { processes: all } = await (await cluster.control()).state();
  return all.filter(({ pid }) => pid !== undefined);
}

/** Where the needles are found: process → what. */
async function searchAll(needles: readonly Needle[]): Promise<Map<string, Found>> {
  const found = new Map<string, Found>();
  found.set('supervisor', await searchProcess(cluster.supervisorPid, needles));
  for (const { name, pid } of await processes()) found.set(name, await searchProcess(the(pid), needles));
  return found;
}

/** `process: needle × count`, one row each. */
function rowsOf(
  found: ReadonlyMap<string, Found>,
  but: (process: string, needle: string) => boolean = () => false,
): string[] {
  return [...found].flatMap(([name, hits]) =>
    [...hits]
      .filter(([needle]) => !but(name, needle))
      .map(([needle, count]) => `${name}: ${needle} × ${count}`),
  );
}

function skipped(t: TestContext): boolean {
  if (skip !== undefined) t.skip(skip);
  return skip !== undefined;
}

test('the search finds what is there', async (t) => {
  if (skipped(t)) return;
  const planted = randomBytes(32);
  const child = holder(planted);
  try {
    await once(the(child.stdout ?? undefined), 'data');
    const found = await searchProcess(the(child.pid), formsOf('planted', planted));
    assert.ok((found.get('planted') ?? 0) > 0, 'as bytes');
    assert.ok((found.get('planted (reversed, hex)') ?? 0) > 0, 'as text, reversed');
    // In processes of the cluster too: each knows its own name.
    const some = (await processes()).filter(({ name }) => ['door', 'custodian-1'].includes(name));
    assert.equal(some.length, 2);
    for (const { name, pid, peer } of some) {
      const hits = await searchProcess(the(pid), [{ name: 'peer', bytes: Buffer.from(peer) }]);
      assert.ok((hits.get('peer') ?? 0) > 0, `${name} knows itself`);
    }
  } finally {
    child.kill();
    await once(child, 'exit');
  }
});

test('after a put, a read, a refresh, a reshare and a rotation nobody holds the private key, nor a branch key that is not open there', async (t) => {
  if (skipped(t)) return;
  const first = await sharesFrom(1);
  const [mine, doors] = [
    'ucxl://ann:author@hygiene:mine/*^/a.bin',
    'ucxl://ann:author@hygiene:door/*^/b.bin',
  ];
  await fed(content).ok('put', mine, '-');
  assert.ok((await ok('get', mine)).bytes.equals(content), 'it comes back');
  const put = await cluster.fetch(`/ucxi/v1/put?address=${encodeURIComponent(doors)}`, {
    method: 'PUT',
    body: content,
  });
  assert.equal(put.status, 201, await put.text());
  await ok('custody', 'refresh');
  await ok('custody', 'reshare', ...custodians, '-t', '4');
  const now = await sharesFrom(first.gen + 2);
  assert.equal(now.t, 4);
  assert.deepEqual(now.x, first.x, 'other shares of the same keys');
  assert.notDeepEqual(now.shares.kek, first.shares.kek);

  const client = the(await keysOf(mine, now));
  const door = the(await keysOf(doors, now));
  await ok('custody', 'rotate');
  const rotated = await sharesFrom(1, 2);
  assert.notDeepEqual(rotated.x.kek, now.x.kek, 'another key');
  assert.deepEqual(
    (await switchedTo(mine, rotated)).branchKey,
    client.branchKey,
    'the same branch key under it',
  );
  assert.deepEqual((await switchedTo(doors, rotated)).branchKey, door.branchKey);
  const shares = (generation: Generation): Needle[] =>
    (['kek', 'frost'] as const).flatMap((key) =>
      generation.shares[key].map((bytes, at) => ({
        name: `${key} share ${at + 1} of ${generation.gen}`,
        bytes,
      })),
    );
  const found = await searchAll([
    ...formsOf('x of the KEK', now.x.kek),
    ...formsOf('x of the next KEK', rotated.x.kek),
    ...formsOf('x of the signing key', now.x.frost),
    ...shares(now),
    ...shares(first),
    ...formsOf('element of a client', client.element),
    ...formsOf('branch key of a client', client.branchKey),
    ...formsOf('content key of a client', client.dek),
    { name: 'wrapping key of a client', bytes: client.wrapping },
    ...formsOf('element of the door', door.element),
    ...formsOf('branch key of the door', door.branchKey),
    ...formsOf('content key of the door', door.dek),
    { name: 'wrapping key of the door', bytes: door.wrapping },
  ]);
  for (const row of rowsOf(found)) t.diagnostic(row);
  // A share may be where it belongs. Old shares of the KEK are not even there: whatever computes with them zeroes its
  // memory. The signing key is computed with in big integers, of which nobody can say where copies were left.
  const allowed = (process: string, needle: string): boolean => {
    const share = /(kek|frost) share (\d) of (\d+)/.exec(needle);
    if (share === null) return process === 'door' && needle.endsWith('of the door');
    const [, key, index, gen] = share;
    return process === `custodian-${index}` && (key === 'frost' || Number(gen) === now.gen);
  };
  assert.deepEqual(rowsOf(found, allowed), []);
});

test('no secret is in a file, a log, an argument or an environment', async (t) => {
  const { x, shares } = await sharesFrom(1);
  const needles = [
    ...formsOf('x of the KEK', x.kek),
    ...formsOf('x of the signing key', x.frost),
    ...[...shares.kek, ...shares.frost].flatMap((share, at) => formsOf(`share ${at}`, share)),
  ];
  const found = new Map<string, Found>();
  for (const path of await filesIn(cluster.dir)) {
    const bytes = await readFile(path).catch(() => undefined); // removed meanwhile
    if (bytes !== undefined) found.set(path, searchBytes(bytes, needles));
  }
  assert.ok(
    [...found.keys()].some((path) => path.includes('/logs/custodian-1.log')),
    'logs were read',
  );
  const secrets = await secretFiles();
  for (const { name, pid } of await processes()) {
    for (const part of ['cmdline', 'environ']) {
      const bytes = await readFile(`/proc/${pid}/${part}`);
      found.set(`${name} ${part}`, searchBytes(bytes, [...needles, ...secrets]));
    }
  }
  for (const path of await filesIn(layoutPaths(cluster.dir).logs))
    found.set(path, searchBytes(await readFile(path), [...needles, ...secrets]));
  assert.deepEqual(rowsOf(found), []);
  t.diagnostic(`${found.size} files, arguments and environments`);
});

test('who holds keys leaves no core dump', {
  skip: process.platform === 'linux' ? false : 'reads /proc',
}, async () => {
  const holders = (await processes()).filter(({ role }) => role === 'custodian' || role === 'door');
  assert.equal(holders.length, 6);
  for (const { name, pid } of holders) {
    const limits = await readFile(`/proc/${pid}/limits`, 'utf8');
    assert.match(limits, /Max core file size +0 +0 /, name);
  }
});

/** Keys that lie in files of their own, as bytes and as the text that is in the file. */
async function secretFiles(): Promise<Needle[]> {
  const paths = layoutPaths(cluster.dir);
  const files = [
    paths.token,
    paths.operatorKey,
    paths.writerKey,
    ...custodians.map((name) => paths.sealingKey(name)),
  ];
  const texts = await Promise.all(files.map(async (path) => (await readFile(path, 'latin1')).split(/\s+/)));
  return texts.flatMap((words, at) =>
    words
      .filter((word) => /^[\w+/=-]{32,}$/.test(word))
      .map((word) => ({ name: `${the(files[at])} ${word.slice(0, 4)}…`, bytes: Buffer.from(word) })),
  );
}

async function filesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

/** A process that keeps a secret in memory, as bytes and as text, each made there. */
function holder(secret: Uint8Array): ChildProcess {
  const program = `
    let text = '';
    process.stdin.on('data', (part) => { text += part; });
    process.stdin.on('end', () => {
      globalThis.kept = Buffer.from(text, 'hex');
      globalThis.turned = Buffer.from(globalThis.kept).reverse().toString('hex');
      console.log(globalThis.turned.length);
      setInterval(() => globalThis.kept.length + globalThis.turned.length, 1000);
    });`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(toHex(secret));
  return child;
}
