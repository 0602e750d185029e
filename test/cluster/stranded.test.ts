// The stranded audit on real processes: nothing is found in a cluster at work, each kind of stranded thing is found
// exactly when it was planted, and gone after it was adopted, collected or repaired.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StrandedFinding, StrandedResult } from '../../src/api/types.ts';
import type { HoldfastClient } from '../../src/client/index.ts';
import { type Block, type CID, parseCid, rawBlock } from '../../src/core/block.ts';
import { concat } from '../../src/core/bytes.ts';
import { carHeader, carSection, readCar } from '../../src/manifest/car.ts';
import { type ManifestBody, parseManifest } from '../../src/manifest/manifest.ts';
import { openRecord } from '../../src/manifest/record.ts';
import { allHealthy, TestCluster } from '../helpers/cluster.ts';
import { commandLine, jsonLines } from '../helpers/command-line.ts';
import { NeverRegisters } from '../helpers/never-registers.ts';
import { sealingClient } from '../helpers/sealing-client.ts';

const nodes = ['node-1', 'node-2', 'node-3'];

let cluster: TestCluster;
const { run } = commandLine(() => cluster);
let client: HoldfastClient;
let dying: HoldfastClient;
let liar: NeverRegisters;

before(async () => {
  // What is stranded is deleted by order only: the planner must not be quicker than the audit.
  const settings = { graceMs: 2000, leaseMs: 1000, collects: false, scrubMs: 3000 };
  cluster = await TestCluster.start({ nodes: 3, zones: 3, settings });
  liar = await NeverRegisters.before(cluster.url);
  client = await sealingClient(cluster);
  dying = await sealingClient(cluster, liar.url);
});

after(async () => {
  await client[Symbol.asyncDispose]();
  await dying[Symbol.asyncDispose]();
  await liar[Symbol.asyncDispose]();
  await cluster[Symbol.asyncDispose]();
});

test('a cluster at work has nothing stranded, whatever moment the audit meets', async () => {
  const stop = new AbortController();
  const lanes = [0, 1, 2, 3].map(async (lane) => {
    for (let turn = 0; !stop.signal.aborted; turn++) {
      const address = at('load', `${lane}-${turn % 5}`);
      const size = turn % 7 === 0 ? 600_000 : 3_000;
      if (turn % 11 === 10) await client.remove(address).catch(() => undefined);
      else await client.put(address, [randomBytes(size)]);
    }
  });
  await cluster.until('the work begins', ({ objects }) => objects.total > 10);
  for (let audit = 0; audit < 4; audit++) {
    await sleep(500);
    const { findings, result } = await auditNow();
    assert.deepEqual([findings, result.unsure, result.unasked], [[], 0, []]);
    assert.ok(result.entries > 0 && result.blocks > 0);
  }
  stop.abort();
  await Promise.all(lanes);
  const { status, lines } = await cli('audit', 'stranded');
  assert.equal(status, 0, JSON.stringify(lines));
});

test('orphans and blocks that nothing names are found exactly; only the plan that was shown is carried out', async () => {
  await client.put(at('real', 'a'), [randomBytes(1000)]);
  await dying.put(at('real', 'a'), [randomBytes(2000)]);
  const kept = randomBytes(700_000);
  await dying.put(at('stray', 'b'), [kept]);
  const lost = await client.put(at('real', 'c'), [randomBytes(10)]);
  await dying.put(at('real', 'c'), [randomBytes(300)]);
  await client.put(at('real', 'c'), [randomBytes(400)]);
  const nameless = rawBlock(randomBytes(90_000));
  await upload(nameless);
  assert.deepEqual((await auditNow()).findings, [], 'uploads under way are no findings');

  await forgetLeases();
  const { findings, result } = await auditNow();
  const orphans = findings.filter(({ kind }) => kind === 'orphan');
  const adoptable = orphans.filter((each) => each.adoptable === true).map(({ chain }) => kindOf(chain));
  assert.deepEqual(adoptable.sort(), ['addr', 'addr', 'bk', 'env', 'env']);
  // What lost version 2 of c to another record, and its envelope, which no object needs.
  const losers = orphans.filter((each) => each.adoptable !== true);
  assert.deepEqual(
    losers.map(({ chain }) => kindOf(chain)),
    ['addr', 'env'],
  );
  const unreached = findings.filter(({ kind }) => kind === 'unreached').map(({ cid }) => cid);
  assert.ok(unreached.includes(nameless.cid.toString()));
  assert.deepEqual(
    findings.map(({ kind }) => kind).filter((kind) => kind !== 'orphan' && kind !== 'unreached'),
    [],
  );
  assert.equal(result.ofOrphans, 5, 'three segments and their index, and one block of the other');
  assert.ok(lost.cid);

  const stale = await cli('audit', 'stranded', '--collect', '--yes', '0000000000000000');
  assert.equal(stale.status, 4);
  const seen = await cli('audit', 'stranded', '--collect');
  assert.equal(seen.status, 6);
  const acts = seen.lines.flatMap(({ act }) => (act === undefined ? [] : [act.cid]));
  assert.ok(acts.includes(nameless.cid.toString()) && acts.includes(String(losers[0]?.cid)));
  const { collect } = last(seen.lines).plans;
  const collected = await cli('audit', 'stranded', '--collect', '--yes', collect.hash);
  assert.equal(collected.status, 0, JSON.stringify(collected.lines));
  assert.equal(last(collected.lines).done, collect.acts);
  assert.equal((await heldBy(nameless.cid)).length, 0);

  const { adopt } = (await auditNow()).result.plans;
  const adopted = await client.auditStranded({ order: 'adopt', plan: adopt.hash });
  assert.deepEqual([adopted.done, adopted.refused], [adopt.acts, 0]);
  assert.ok(kept.equals(await bytesOf(at('stray', 'b'))));
  assert.equal((await client.stat(at('real', 'a'))).newest, 2);
  const again = await auditNow();
  assert.deepEqual(again.findings, []);
  const journal = await readFile(join(cluster.dir, 'door', 'data', 'audit-acts.jsonl'), 'utf8');
  const done = journal.split('\n').filter((line) => line.includes('"outcome":"done"'));
  assert.equal(done.length, collect.acts + adopt.acts);
});

test('what nothing names and nobody may delete yet can be given a lease, which outlives the door', async () => {
  const block = rawBlock(randomBytes(70_000));
  await upload(block);
  await forgetLeases();
  const { adopt } = (await auditNow()).result.plans;
  assert.equal(adopt.acts, 1);
  await client.auditStranded({ order: 'adopt', plan: adopt.hash });
  await forgetLeases();
  const { findings, result } = await auditNow();
  assert.deepEqual(findings, []);
  assert.ok(result.leased >= 1);
});

test('missing blocks, missing keys and broken chains are found after a rebuild from what is left', async () => {
  await client.put(at('holes', 'd'), [randomBytes(150_000)]);
  await client.put(at('holes', 'e'), [randomBytes(2_000)]);
  await client.put(at('holes', 'f'), [randomBytes(80_000)]);
  await client.put(at('holes', 'f'), [randomBytes(80_000)]);
  await cluster.until('healthy', allHealthy);
  const content = await block(rootOf(await recordsOf(at('holes', 'd'))));
  const envelope = (await recordsOf(at('holes', 'e'))).find(({ bytes }) => is(bytes, 'envelope'));
  const manifest = (await recordsOf(at('holes', 'f', '*~1'))).find(({ bytes }) => is(bytes, 'manifest'));
  assert.ok(envelope && manifest);
  const lost = [content, envelope, manifest];
  for (const node of nodes) await damage(node, lost);
  await eventually('the scrub has put them aside', async () => {
    const held = await Promise.all(lost.map(({ cid }) => heldBy(cid)));
    return held.every(({ length }) => length === 0);
  });
  // A version is not to be had, and the door knows it: a person decides.
  const refused = await cli('beacon', 'rebuild');
  assert.equal(refused.status, 4, JSON.stringify(refused.lines));
  const id = /holdfast beacon accept ([0-9a-f]{32})/.exec(JSON.stringify(refused.lines))?.[1];
  assert.ok(id !== undefined, JSON.stringify(refused.lines));
  assert.equal((await cli('beacon', 'accept', '00'.repeat(16))).status, 4);
  assert.equal((await cli('beacon', 'accept', id)).status, 0);

  const { findings } = await auditNow();
  assert.deepEqual(
    findings
      .map(({ kind, chain, version, cid }) => ({ kind, of: chain ?? cid, version }))
      .sort((a, b) => a.kind.localeCompare(b.kind)),
    [
      { kind: 'chain', of: `addr/${at('holes', 'f')}`, version: 1 },
      { kind: 'keys', of: `addr/${at('holes', 'e')}`, version: 1 },
      { kind: 'missing', of: `addr/${at('holes', 'd')}`, version: 1 },
      { kind: 'unreached', of: rootOf([manifest]).toString(), version: undefined },
    ],
  );

  for (const each of lost) await upload(each);
  await forgetLeases();
  const returned = await auditNow();
  const byChain = returned.findings.find(({ cid }) => cid === manifest.cid.toString());
  assert.match(byChain?.reason ?? '', /written down as missing; `holdfast beacon rebuild` takes it in/);
  await client.auditStranded({ order: 'adopt', plan: returned.result.plans.adopt.hash });
  assert.deepEqual(
    (await auditNow()).findings.map(({ kind }) => kind),
    ['chain'],
  );
  assert.equal((await cli('beacon', 'rebuild')).status, 0);
  assert.deepEqual((await auditNow()).findings, []);
});

test('a node that cannot be asked makes the audit inconclusive, and is named', async () => {
  const control = await cluster.control();
  await control.killNode('node-3');
  const { status, lines } = await cli('audit', 'stranded');
  assert.equal(status, 5, JSON.stringify(lines));
  assert.deepEqual(
    last(lines).unasked.map(({ who }) => who),
    ['node-3'],
  );
  await control.startNode('node-3');
});

// Helpers

function at(task: string, path: string, version = '*^'): string {
  return `ucxl://ann:author@stranded:${task}/${version}/${path}`;
}

function kindOf(chain: string | undefined): string {
  return chain?.split('/')[0] ?? '';
}

async function auditNow(): Promise<{ findings: StrandedFinding[]; result: StrandedResult }> {
  const findings: StrandedFinding[] = [];
  const result = await client.auditStranded({ onFinding: (finding) => void findings.push(finding) });
  return { findings, result };
}

type Line = { result?: StrandedResult; act?: { cid: string }; finding?: StrandedFinding };

async function cli(...words: string[]): Promise<{ status: number | null; lines: Line[] }> {
  const { status, out } = await run(...words, '--json');
  return { status, lines: jsonLines(out) };
}

function last(lines: readonly Line[]): StrandedResult {
  return lines.at(-1)?.result ?? assert.fail('no result');
}

/** Kills who remembers leases, and waits until both serve again. */
async function forgetLeases(): Promise<void> {
  const before = await cluster.status();
  for (const name of ['steward', 'door']) process.kill(await cluster.pid(name), 'SIGKILL');
  await eventually('steward and door serve again', async () => {
    const { steward, door } = await cluster.status();
    return (
      steward !== null &&
      steward.startedAt !== before.steward?.startedAt &&
      steward.catalogue.fresh &&
      steward.nodes.every(({ up }) => up) &&
      steward.catalogue.indexesPending === 0 &&
      door.beacon.state === 'following'
    );
  });
  await sleep(2500); // the lease of garbage begins anew with the steward
}

async function upload(...blocks: Block[]): Promise<void> {
  const body = concat(carHeader([]), ...blocks.flatMap((each) => carSection(each)));
  const headers = { 'content-type': 'application/vnd.ipld.car' };
  const answer = await cluster.fetch('/ucxi/v1/blocks', {
    method: 'POST',
    headers,
    body: new Uint8Array(body),
  });
  assert.equal(answer.status, 201, await answer.text());
}

async function recordsOf(address: string): Promise<Block[]> {
  const answer = await cluster.fetch(`/ucxi/v1/records?address=${encodeURIComponent(address)}`);
  assert.equal(answer.status, 200);
  const blocks: Block[] = [];
  for await (const each of readCar(answer.body ?? assert.fail())) blocks.push(each);
  return blocks;
}

function is(bytes: Uint8Array, kind: string): boolean {
  return openRecord(bytes).body.kind === kind;
}

function rootOf(records: readonly Block[]): CID {
  const body: ManifestBody[] = records
    .filter(({ bytes }) => is(bytes, 'manifest'))
    .map(({ bytes }) => parseManifest(openRecord(bytes)).body);
  return body[0]?.cid ?? assert.fail('no content');
}

async function block(cid: CID): Promise<Block> {
  const answer = await cluster.fetch(`/ucxi/v1/blocks/${cid.toString()}`);
  assert.equal(answer.status, 200);
  return { cid: parseCid(cid.toString()), bytes: new Uint8Array(await answer.arrayBuffer()) };
}

/** Nodes that the audit lists as holding it: told by whether it is served at all. */
async function heldBy(cid: CID): Promise<string[]> {
  const answer = await cluster.fetch(`/ucxi/v1/blocks/${cid.toString()}`);
  await answer.arrayBuffer();
  return answer.ok ? ['somebody'] : [];
}

async function bytesOf(address: string): Promise<Uint8Array> {
  const { bytes } = await client.get(address);
  const parts: Uint8Array[] = [];
  for await (const part of bytes) parts.push(new Uint8Array(part));
  return concat(...parts);
}

/** Flips a byte of these blocks wherever a node keeps them. */
async function damage(node: string, blocks: readonly Block[]): Promise<void> {
  const dir = join(cluster.dir, node);
  let damaged = 0;
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || !path.includes('/blocks/')) continue;
    const file = await readFile(path).catch(() => Buffer.alloc(0));
    for (const { bytes } of blocks) {
      const found = file.indexOf(bytes);
      if (found < 0) continue;
      await using handle = await open(path, 'r+');
      const middle = found + (bytes.length >> 1);
      await handle.write(Buffer.from([(file[middle] ?? 0) ^ 0x10]), 0, 1, middle);
      damaged++;
    }
  }
  assert.equal(damaged, blocks.length, `${node} holds ${damaged} of them`);
}

async function eventually(what: string, met: () => Promise<boolean>, timeoutMs = 240_000): Promise<void> {
  const started = Date.now();
  for (;;) {
    const isMet = await met().catch(() => false);
    if (isMet) return;
    assert.ok(Date.now() - started < timeoutMs, `${what}: not within ${timeoutMs} ms`);
    await sleep(250);
  }
}
