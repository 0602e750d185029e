// A custody group of real processes: made at the start, refreshed and reshared under reads, killed, repaired, sealed.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import type { CustodyStatus } from '../../src/api/types.ts';
import { layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import { custodyAnswered, custodyTold, untilCustody } from '../helpers/custody.ts';

const address = 'ucxl://operator:ops@custody:test/*^/note.txt';
const text = 'what only three of five can open\n';
let cluster: TestCluster;
let scratch: string;
const commands = commandLine(() => cluster);
const { run, ok, printed, json } = commands;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-custody-'));
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000 } });
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(scratch, { recursive: true, force: true });
});

const order = (...words: string[]): Promise<Record<string, unknown>> => json('custody', ...words);
const custody = (): Promise<CustodyStatus> => custodyTold(commands);

async function checkRead(): Promise<void> {
  assert.equal(await printed('get', address), text);
}

test('the group has its key when the cluster is ready, and what is put is opened by its custodians', async () => {
  const { key, serves } = await custody();
  assert.equal(serves, 'tdec');
  assert.deepEqual([key?.t, key?.n, key?.shareGen], [3, 5, 1]);
  const file = join(scratch, 'note.txt');
  await writeFile(file, text);
  await ok('put', address, file);
  await checkRead();
});

test('an order refreshes the shares with one custodian dead, and it is repaired by itself', async () => {
  const control = await cluster.control();
  await control.killNode('custodian-2');
  const done = await order('refresh');
  assert.deepEqual([done['shareGen'], done['behind']], [2, ['custodian-2']]);
  await checkRead();
  await control.startNode('custodian-2');
  await untilCustody(
    () => custodyAnswered(cluster),
    'custodian-2 is repaired',
    ({ custodians, versions: [version] }) =>
      custodians.every(({ shareGen, state }) => state === 'ready' && shareGen === 2) &&
      version?.holders === 5 &&
      version.margin === 2,
  );
  await untilCustody(
    () => custodyAnswered(cluster),
    'the steward says what it waits for',
    ({ next, trouble }) => next === 'version 1 is in use and not due' && trouble === null,
  );
  await checkRead();
});

test('the key stays over a restart of everything, killed', async () => {
  await cluster.killAll();
  await cluster.up();
  assert.equal((await custody()).key?.shareGen, 2);
  await checkRead();
});

test('a custodian is evicted and another threshold holds; it is of no use any more', async () => {
  const done = await order('evict', 'custodian-5', '-t', '2');
  const { t, n, shareGen } = { ...Object(done['evicted']) } as Record<string, unknown>;
  assert.deepEqual([t, n, shareGen], [2, 4, 3]);
  const control = await cluster.control();
  await control.killNode('custodian-1');
  await control.killNode('custodian-2');
  await checkRead();
  await control.startNode('custodian-1');
});

test('a seal stops every reader, also one that is being started, says so, outlasts a restart, and is lifted', async () => {
  const control = await cluster.control();
  const starting = control.startNode('custodian-2');
  const sealed = await order('seal');
  await starting;
  assert.deepEqual(sealed['failed'], []);
  assert.equal(Object(sealed['obeyed']).length, 5);
  const refused = await run('get', address);
  assert.notEqual(refused.status, 0);
  assert.match(refused.err, /sealed/);
  await control.killNode('custodian-3');
  await control.startNode('custodian-3');
  assert.match((await run('get', address)).err, /sealed/);
  await order('unseal');
  await checkRead();
});

test('no process has written a secret or a failure that nobody heard of', async () => {
  const log = await readFile(layoutPaths(cluster.dir).log('steward'), 'utf8');
  assert.doesNotMatch(log, /uncaught|unhandled/i);
});
