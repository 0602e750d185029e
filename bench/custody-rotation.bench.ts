// Rotation of the key over a thousand branch keys, which guard a million objects at a thousand each, from one group to
// another: wall time, and what part of it is whose.
//
//   node bench/custody-rotation.bench.ts [keys, default 1000] [page, default 256] [objects registered, default 2000]
//
// Old key 3 of 5, new key 4 of 7. Each custodian is a process of its own with its share on the disk and an audit log
// that it flushes; the registry is the Beacon's log and view on the disk. The number of objects cannot matter, because
// nothing about them is read or written: some are registered, and what the registry has of them is compared. The making
// of the new key is not in it: it happens once, a bar before.

import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BeaconRotationRegistry } from '../src/app/rotation-registry.ts';
import type { Append } from '../src/beacon/log.ts';
import { LevelLog } from '../src/beacon/level.ts';
import { openRegistryRecord, recordKey } from '../src/beacon/records.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { checkAppend } from '../src/beacon/check-append.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { decodeCbor, encodeCbor } from '../src/core/block.ts';
import { signerFromSeed } from '../src/core/hash.ts';
import { beatAt } from '../src/custody/freshness.ts';
import { RotationCoordinator } from '../src/custody/rotation-coordinator.ts';
import type { TdecKek, UnsignedKek } from '../src/envelope/kek.ts';
import { kekPreimage } from '../src/envelope/kek.ts';
import { encodeLabel } from '../src/envelope/label.ts';
import { aggregate, commit, signShare } from '../src/threshold/frost.ts';
import { type EnvelopeBody, parseBranchKey, parseEnvelope } from '../src/envelope/records.ts';
import { commitmentOf } from '../src/envelope/wrap.ts';
import { type RecordBody, signRecord } from '../src/manifest/record.ts';
import { ed25519Suite, ristrettoSuite } from '../src/threshold/dkg-suite.ts';
import { loadEd25519 } from '../src/threshold/ed25519-sodium.ts';
import { loadRistretto } from '../src/threshold/group-sodium.ts';
import { branchKeyOf, encrypt } from '../src/threshold/tdh2.ts';
import { generate, newMembers, type World } from '../test/support/custody-world.ts';
import type { CustodianStart } from './custody-rotation.child.ts';

const [keys = 1000, page = 256, objects = 2000] = process.argv.slice(2).map(Number);
const cg = 'cg-bench';
const beat = 100;
const random = (size: number): Uint8Array => new Uint8Array(randomBytes(size));
const [steward, writer] = [signerFromSeed(random(32)), signerFromSeed(random(32))];
const groups = { kek: await loadRistretto(), frost: await loadEd25519() };
const dir = await mkdtemp(join(tmpdir(), 'holdfast-rotation-'));
const children: ChildProcess[] = [];
const spent = { append: 0, appends: 0, records: 0 };

try {
  await bench();
} finally {
  for (const child of children) child.kill();
  await rm(dir, { recursive: true, force: true });
}

async function bench(): Promise<void> {
  await using log = await LevelLog.open(join(dir, 'log'));
  await using view = await BeaconView.open(await LevelKv.open(join(dir, 'view')));
  const stop = new AbortController();
  const following = view.follow(log, stop.signal);
  await using _ = { [Symbol.asyncDispose]: async () => (stop.abort(), following) };
  const append = async (records: readonly RecordBody[], signer = steward): Promise<void> => {
    const keyed = records.map((body) => {
      const { bytes } = signRecord(body, signer).block;
      return { key: recordKey(openRegistryRecord(bytes).body), bytes };
    });
    await view.apply([
      await log.append({ subject: keyed[0]?.key ?? '', expected: -1, records: keyed, at: 0 }),
    ]);
  };

  // Both versions of the key, the older one leaving; one signing key, held by the members of the newer one.
  const from = generate(ristrettoSuite(groups.kek), 3, newMembers(5));
  const to = generate(ristrettoSuite(groups.kek), 4, newMembers(7));
  const frost = generate(ed25519Suite(groups.frost), 4, newMembers(7));
  const { life, active } = keks(from, to, frost);
  for (const record of life) await append([record]);

  for (let at = 0; at < keys; at += 16)
    await append(
      range(at, Math.min(keys, at + 16)).map((key) => branchKey(key, from)),
      writer,
    );
  for (let at = 0; at < objects; at += 16)
    await append(
      range(at, Math.min(objects, at + 16)).map((each) => envelope(idOf(each), each % keys)),
      writer,
    );
  const before = await objectsOf(view);

  const records = (await view.custodyRecords({ revision: 0, index: 0 })).records;
  const filed = records.map(({ key, bytes }) => ({ key, bytes }));
  for (let i = 1; i <= 7; i++) await startCustodian(i, { from, to, frost }, filed);
  const ask = async (peer: string, message: Record<string, unknown>): Promise<unknown> => {
    const child = children[Number(peer.slice(5)) - 1];
    assert.ok(child !== undefined);
    // What a custodian reads in the registry when it is told to is brought along here.
    const isReading = message['step'] === 'hello' || message['step'] === 'learn';
    const all = isReading ? (await view.custodyRecords({ revision: 0, index: 0 })).records : [];
    return call(child, { ...message, records: all.map(({ key, bytes }) => ({ key, bytes })) });
  };

  const coordinator = new RotationCoordinator({
    cg,
    registry: new BeaconRotationRegistry({
      cg,
      view: () => view,
      store: async () => undefined,
      append: async (entry: Append) => {
        const startMs = performance.now();
        await checkAppend(view, entry);
        const done = await log.append(entry);
        await view.waitFor(done.revision, AbortSignal.timeout(60_000));
        spent.append += performance.now() - startMs;
        spent.appends++;
        spent.records += entry.records.length;
        return done;
      },
      policyOf: async () => undefined,
      now: () => Date.now(),
      random,
    }),
    step: (peer, at, payload) => ask(peer, { ...at, payload }),
    activate: async () => true,
    nameOf: (peer) => peer,
    signer: steward,
    groups: async () => groups,
    random,
    beat: () => beatAt({ beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 }),
    beatsPerBar: () => 10,
    instant: () => new Date().toISOString(),
    order: () => undefined,
    pageItems: page,
  });

  const cpuBefore = await Promise.all(children.map((child) => call(child, { cpu: true })));
  const own = process.cpuUsage();
  const startMs = performance.now();
  const { step } = await coordinator.advance(new AbortController().signal);
  const wallMs = performance.now() - startMs;
  const { user, system } = process.cpuUsage(own);
  const cpuAfter = await Promise.all(children.map((child) => call(child, { cpu: true })));
  assert.equal(step, 'switch');
  assert.equal((await view.wrappedUnder(cg, 1)).items.length, 0);
  assert.equal((await view.wrappedUnder(cg, 2, { limit: 1000 })).items.length, Math.min(keys, 1000));
  assert.deepEqual(await objectsOf(view), before);

  const custodians = cpuAfter.map((after, at) => (Number(after) - Number(cpuBefore[at])) / 1e6);
  const line = (what: string, value: string): void => console.log(`${what.padEnd(58)}${value.padStart(12)}`);
  const s = (value: number): string => `${value.toFixed(2)} s`;
  line(`${keys} branch keys, 3 of 5 to 4 of 7, wall`, s(wallMs / 1000));
  line(`  envelopes changed, of ${objects} registered`, '0');
  line(`  Beacon: ${spent.records} records in ${spent.appends} appends, wall`, s(spent.append / 1000));
  line('  coordinator, processor time (appends in it)', s((user + system) / 1e6));
  line('  custodians, processor time of the busiest', s(Math.max(...custodians)));
  line(
    `  custodians, processor time together, ${custodians.filter((each) => each > 0.1).length} at work`,
    s(custodians.reduce((sum, each) => sum + each, 0)),
  );
  console.log(
    `pages of ${page}; ${cpus().length} processors; active version ${active.ver}; node ${process.version}`,
  );
}

function keks(
  from: World,
  to: World,
  frost: World,
): { readonly life: RecordBody[]; readonly active: TdecKek } {
  const sign = (kek: UnsignedKek): TdecKek => ({ ...kek, frostSig: signedBy(frost, kekPreimage(kek)) });
  const custodians = (n: number) =>
    Array.from({ length: n }, (_, at) => ({
      i: at + 1,
      org: `unit ${at + 1}`,
      peer: `peer-${at + 1}`,
      sigPk: frost.members[at]?.signer.publicKey ?? random(32),
      dkgPk: random(32),
      prekey: random(32),
      prekeyEpoch: 1,
    }));
  const members = custodians(7);
  const base = (
    ver: number,
    { keys: { t, n, Y, C, Yi } }: World,
    state: UnsignedKek['state'],
  ): UnsignedKek => ({
    provider: 'tdec',
    suite: 'tdh2-r255-1',
    cg,
    ver,
    state,
    createdAt: '2026-11-22T19:00:00Z',
    seq: 1,
    t,
    n,
    Y,
    C,
    shareGen: 1,
    Yi,
    custodians: members.slice(0, n),
    dkgCert: random(64),
    frostPk: frost.keys.Y,
    frostYi: frost.keys.Yi.slice(0, n),
    activateBeat: 0,
    retireBeat: null,
    refreshEveryBars: 0,
    policyRoot: null,
  });
  const one = base(1, from, 'active');
  const two = base(2, to, 'pre-active');
  const record = (kek: UnsignedKek, prev: RecordBody['prev']) =>
    signRecord({ kind: 'kek', v: 1, writer: steward.publicKey, prev, ...sign(kek) }, steward);
  const first = record(one, null);
  const second = record(two, null);
  const third = record({ ...two, seq: 2, state: 'active' }, second.cid);
  const fourth = record({ ...one, seq: 2, state: 'decrypt-only', retireBeat: 10 }, first.cid);
  return { life: [first, second, third, fourth].map(({ body }) => body), active: third.body };
}

/** A signature of the group, all of whose shares are in this process while the benchmark prepares. */
function signedBy(frost: World, message: Uint8Array): Uint8Array {
  const signers = range(0, frost.keys.t).map((at) => {
    const share = Uint8Array.from(frost.shares[at] ?? []);
    return { index: at + 1, share, ...commit(groups.frost, share, random) };
  });
  const list = signers.map(({ index, commitment }) => ({ index, bytes: commitment }));
  const shares = signers.map(({ index, share, nonces }) => {
    const done = signShare(groups.frost, frost.keys, index, share, nonces, list, message);
    assert.ok(done.ok);
    return { index, bytes: done.value };
  });
  const done = aggregate(groups.frost, frost.keys, list, message, shares);
  assert.ok(done.ok);
  return done.value;
}

function branchKey(at: number, from: World): RecordBody {
  const bkId = idOf(at);
  const scope = {
    project: `project-${at}`,
    cls: 'internal',
    writer: writer.publicKey,
    window: [1, 9],
  } as const;
  const label = encodeLabel({ v: 1, cg, kekVer: 1, bkId, bkVer: 1, policy: null, ...scope });
  const { wrap, element } = encrypt(groups.kek, from.keys.Y, label, random);
  const commit = commitmentOf(branchKeyOf(element, bkId, 1));
  const wraps = [{ t: 'tdec', cg, kekVer: 1, label, ...wrap }];
  const head = { kind: 'branch-key', v: 1, writer: writer.publicKey, prev: null } as const;
  return parseBranchKey({ ...head, bkId, bkVer: 1, scope, maxWraps: 4096, commit, combiner: 'any', wraps });
}

function envelope(objId: Uint8Array, key: number): EnvelopeBody {
  const bkId = idOf(key);
  const head = { kind: 'envelope', v: 1, writer: writer.publicKey, prev: null, envVer: 1, beat: 5 } as const;
  const rest = { wrap: random(60), policy: null, cls: 'internal', mode: 'branch', bkId, bkVer: 1 } as const;
  return parseEnvelope({ ...head, objId, ...rest });
}

/** What the registry has of every object: revision and CID of its envelope. */
async function objectsOf(view: BeaconView): Promise<string[]> {
  return Promise.all(
    range(0, objects).map(async (at) => {
      const found = await view.envelope(idOf(at));
      return `${found?.version} ${found?.revision} ${found?.record.cid.toString()}`;
    }),
  );
}

async function startCustodian(
  i: number,
  worlds: { readonly from: World; readonly to: World; readonly frost: World },
  records: CustodianStart['records'],
): Promise<void> {
  const child = fork(fileURLToPath(new URL('./custody-rotation.child.ts', import.meta.url)), {
    serialization: 'advanced',
  });
  children.push(child);
  const versions = [
    { kekVer: 1, kek: worlds.from },
    { kekVer: 2, kek: worlds.to },
  ];
  const shares = versions.flatMap(({ kekVer, kek }): CustodianStart['shares'] => {
    const [secret, frost] = [kek.shares[i - 1], worlds.frost.shares[i - 1]];
    if (secret === undefined || frost === undefined) return [];
    return [
      { kekVer, key: 'kek', keys: kek.keys, secret },
      // The signing key is that of the new members; beside the old shares it only takes its place.
      {
        kekVer,
        key: 'frost',
        keys: { ...worlds.frost.keys, Yi: worlds.frost.keys.Yi.slice(0, kek.keys.n) },
        secret: frost,
      },
    ];
  });
  const seed = random(32);
  const start: CustodianStart = { cg, i, beat, dir: join(dir, `custodian-${i}`), seed, shares, records };
  await call(child, { start });
}

/** One request to a child and its answer. */
async function call(child: ChildProcess, message: Record<string, unknown>): Promise<unknown> {
  const id = random(8).join();
  const answered = Promise.withResolvers<unknown>();
  const onMessage = (answer: { id: string; value?: Uint8Array; error?: string }): void => {
    if (answer.id !== id) return;
    child.off('message', onMessage);
    if (answer.error !== undefined) answered.reject(new Error(answer.error));
    else answered.resolve(decodeCbor(answer.value ?? new Uint8Array(0), 'answer'));
  };
  child.on('message', onMessage);
  child.send({ id, message: encodeCbor(message) });
  return answered.promise;
}

function idOf(at: number): Uint8Array {
  const id = new Uint8Array(16);
  new DataView(id.buffer).setUint32(0, at);
  return id;
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}
