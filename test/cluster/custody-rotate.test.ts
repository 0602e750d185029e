// The key of a real group is rotated while documents are read and written, with a custodian and the steward killed in
// the middle: everything stays readable, no manifest changes, and the old key and its shares are gone at the end.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { CustodyStatus } from '../../src/api/types.ts';
import { layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import { custodyTold, untilCustody } from '../helpers/custody.ts';

/** Objects of one project share a branch key. */
const projects = 20;
const objects = 200;
const secret = 'ucxl://operator:ops@custody:test/*^/secret.txt';
let cluster: TestCluster;
let scratch: string;
const commands = commandLine(() => cluster);
const { ok, printed } = commands;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-rotate-'));
  // A bar of 60 beats is waited for twice; custodians want to have read the registry within two beats, and a loaded
  // machine takes a second for that.
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000, retiredMs: 2000 } });
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(scratch, { recursive: true, force: true });
});

const until = (
  what: string,
  holds: (status: CustodyStatus) => boolean,
  meanwhile = () => Promise.resolve(),
): Promise<void> => untilCustody(() => custodyTold(commands), what, holds, { timeoutMs: 300_000, meanwhile });

function addressOf(object: number): string {
  return `ucxl://operator:ops@project${object % projects}:test/*^/object-${object}.txt`;
}

async function put(object: number): Promise<void> {
  const query = new URLSearchParams({ address: addressOf(object) }).toString();
  const stored = await cluster.fetch(`/ucxi/v1/put?${query}`, { method: 'PUT', body: `object ${object}` });
  assert.equal(stored.status, 201, await stored.text());
}

async function get(object: number): Promise<void> {
  const query = new URLSearchParams({ address: addressOf(object) }).toString();
  const read = await cluster.fetch(`/ucxi/v1/get?${query}`);
  assert.equal(await read.text(), `object ${object}`);
}

/** The CIDs of all manifests, by address. */
async function manifests(): Promise<Map<string, unknown>> {
  const found = new Map<string, unknown>();
  await each(objects, async (object) => {
    const query = new URLSearchParams({ address: addressOf(object) }).toString();
    const answer = await cluster.fetch(`/ucxi/v1/navigate?${query}`);
    const cid = /"newestCid":\s*"([^"]+)"/.exec(await answer.text())?.[1];
    assert.ok(cid !== undefined);
    found.set(addressOf(object), cid);
  });
  return found;
}

/** Names of the sealed secrets of each custodian: two of them are the shares of a version of the key. */
async function secrets(): Promise<string[][]> {
  const stores = [1, 2, 3, 4, 5].map((i) =>
    join(layoutPaths(cluster.dir).data(`custodian-${i}`), 'stores/shares'),
  );
  const names = await Promise.all(stores.map((store) => readdir(store)));
  return names.map((list) => list.filter((name) => name.endsWith('.key')));
}

async function each(count: number, work: (object: number) => Promise<void>): Promise<void> {
  for (let at = 0; at < count; at += 8)
    await Promise.all(Array.from({ length: Math.min(8, count - at) }, (_, i) => work(at + i)));
}

const stateOf = ({ versions }: CustodyStatus, version: number): string | undefined =>
  versions.find((kek) => kek.version === version)?.state;

test('two hundred objects stay readable through a rotation that a crash of custodian and steward interrupts', async () => {
  const file = join(scratch, 'secret.txt');
  await writeFile(file, 'restricted\n');
  await ok('put', secret, file, '--class', 'restricted');
  await each(objects, put);
  const before = await manifests();
  const held = await secrets();

  assert.match(await printed('custody', 'rotate'), /used from beat/);
  let next = objects;
  const work = async (): Promise<void> => {
    // A process of its own has no keys in memory: it asks the custodians.
    assert.equal(await printed('get', secret), 'restricted\n');
    await put(next++);
    await get(next % objects);
  };
  const control = await cluster.control();
  await until('the new key is used', (status) => stateOf(status, 2) === 'active', work);
  await control.killNode('custodian-2');
  await control.killNode('steward');
  await control.startNode('steward');
  await until(
    'keys move',
    (status) => (status.versions.find(({ version }) => version === 2)?.switched ?? 0) > 0,
  );
  await control.startNode('custodian-2');
  await until('the old key is destroyed', (status) => stateOf(status, 1) === 'destroyed', work);

  assert.deepEqual(await manifests(), before);
  // A door that starts anew has no keys in memory either.
  await control.killNode('door');
  await control.startNode('door');
  await each(next, get);
  await until('all custodians are well', ({ custodians }) =>
    custodians.every(({ state }) => state === 'ready'),
  );
  const now = await secrets();
  assert.deepEqual(
    held.map((names, at) => names.filter((name) => now[at]?.includes(name) !== true).length),
    [2, 2, 2, 2, 2],
    'the sealing keys of the old shares are gone',
  );
  await work();
});
