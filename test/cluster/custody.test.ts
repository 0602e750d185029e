// A custody group of real processes: made at the start, refreshed and reshared under reads, killed, repaired, sealed.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { CustodyStatus } from '../../src/api/types.ts';
import { layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const address = 'ucxl://operator:ops@custody:test/*^/note.txt';
const text = 'what only three of five can open\n';
let cluster: TestCluster;
let scratch: string;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-custody-'));
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000 } });
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(scratch, { recursive: true, force: true });
});

interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(...words: string[]): Promise<Ran> {
  const child = spawn(process.execPath, [main, ...words, '--data', cluster.dir], { stdio: 'pipe' });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (part) => (stdout += String(part)));
  child.stderr.on('data', (part) => (stderr += String(part)));
  await once(child, 'close');
  return { status: child.exitCode ?? -1, stdout, stderr };
}

async function ok(...words: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(...words);
  assert.equal(status, 0, `${words.join(' ')}:\n${stdout}${stderr}`);
  return stdout;
}

async function order(...words: string[]): Promise<Record<string, unknown>> {
  const value: unknown = JSON.parse(await ok('custody', ...words, '--json'));
  assert.ok(typeof value === 'object' && value !== null);
  return { ...value };
}

async function custody(): Promise<CustodyStatus> {
  const { stdout } = await run('custody', 'status', '--json');
  const status: CustodyStatus = JSON.parse(stdout);
  return status;
}

async function checkRead(): Promise<void> {
  assert.equal(await ok('get', address), text);
}

/** Waits until the custodians say so of themselves. */
async function until(what: string, holds: (status: CustodyStatus) => boolean): Promise<void> {
  const deadline = AbortSignal.timeout(60_000);
  for (;;) {
    const status = await custody();
    if (holds(status)) return;
    assert.ok(!deadline.aborted, `${what}:\n${JSON.stringify(status, null, 1)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
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
  await until('custodian-2 is repaired', ({ custodians }) =>
    custodians.every(({ shareGen, state }) => state === 'ready' && shareGen === 2),
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
  await control.startNode('custodian-2');
});

test('a seal stops every reader, says so, outlasts a restart, and is lifted', async () => {
  await order('seal');
  const refused = await run('get', address);
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /sealed/);
  const control = await cluster.control();
  await control.killNode('custodian-3');
  await control.startNode('custodian-3');
  assert.match((await run('get', address)).stderr, /sealed/);
  await order('unseal');
  await checkRead();
});

test('no process has written a secret or a failure that nobody heard of', async () => {
  const log = await readFile(layoutPaths(cluster.dir).log('steward'), 'utf8');
  assert.doesNotMatch(log, /uncaught|unhandled/i);
});
