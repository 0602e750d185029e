// Who asks the custodians of a real cluster: the command line through the door, and the door that seals; with
// custodians killed, with too few of them, without leave, and what an auditor sees of it afterwards.

import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import { custodyAnswered, untilCustody } from '../helpers/custody.ts';

const secret = 'ucxl://operator:ops@custody:test/*^/secret.txt';
const plain = 'ucxl://operator:ops@custody:test/*^/plain.txt';
let cluster: TestCluster;
let scratch: string;
const commands = commandLine(() => cluster);
const { run, ok, printed } = commands;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-requester-'));
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000 } });
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(scratch, { recursive: true, force: true });
});

const untilReady = (count: number): Promise<void> =>
  untilCustody(
    () => custodyAnswered(cluster),
    `${count} are ready`,
    ({ custodians }) => custodians.filter(({ state }) => state === 'ready').length === count,
  );

const get = (address: string): Promise<Response> =>
  cluster.fetch(`/ucxi/v1/get?${new URLSearchParams({ address }).toString()}`);

test('restricted content is opened by the writer, through a door that may not open it itself', async () => {
  await untilReady(5);
  const file = join(scratch, 'secret.txt');
  await writeFile(file, 'restricted\n');
  await ok('put', secret, file, '--class', 'restricted');
  assert.equal(await printed('get', secret), 'restricted\n');
  const refused = await get(secret);
  assert.equal(refused.status, 403);
  assert.match(await refused.text(), /custodians refuse: the capability reaches up to confidential/);
  const query = new URLSearchParams({ address: plain }).toString();
  const stored = await cluster.fetch(`/ucxi/v1/put?${query}`, { method: 'PUT', body: 'plain' });
  assert.equal(stored.status, 201);
  assert.equal(await (await get(plain)).text(), 'plain');
});

test('two away: everything is read; a third away: who is missing is said', async () => {
  const control = await cluster.control();
  for (const name of ['custodian-1', 'custodian-4']) await control.stopNode(name);
  for (let times = 0; times < 3; times++) assert.equal(await printed('get', secret), 'restricted\n');
  await control.stopNode('custodian-5');
  const { status, err } = await run('get', secret);
  assert.equal(status, 5);
  assert.match(
    err,
    /2 of 3 partial decryptions: custodian-1 unreachable, custodian-4 unreachable, custodian-5 unreachable/,
  );
  const shown = await run('custody', 'status');
  assert.equal(shown.status, 5);
  assert.match(shown.out, /margin -1: nothing can be opened until 1 more are back/);
  for (const name of ['custodian-1', 'custodian-4', 'custodian-5']) await control.startNode(name);
  await untilReady(5);
  assert.equal(await printed('get', secret), 'restricted\n');
});

test('an auditor sees who opened what, and a log that was cut since', async () => {
  const told = await printed('custody', 'audit', '--all');
  assert.match(told, /custodian-3: \d+ entries, whole/);
  assert.match(told, /read +writer +[0-9a-f]{32} +custodian-/);
  assert.match(told, /read +door +[0-9a-f]{32} +custodian-/);
  assert.doesNotMatch(told, /no receipt|not written it down/);
  // What was seen before must be the beginning of what is there now.
  const seen = join(layoutPaths(cluster.dir).custody, 'audited');
  const noteOf = async (name: string): Promise<string> => {
    const found = (await readdir(seen)).find((each) => each.startsWith(`${name}.`));
    assert.ok(found);
    return join(seen, found);
  };
  await writeFile(await noteOf('custodian-2'), await readFile(await noteOf('custodian-3'), 'utf8'));
  const damaged = await run('custody', 'audit');
  assert.equal(damaged.status, 6);
  assert.match(damaged.out, /custodian-2: /);
  await rm(await noteOf('custodian-2'));
});

test('what is granted can be passed on narrower, and a revoked key opens nothing', async () => {
  const key = 'ab'.repeat(32);
  const file = join(scratch, 'narrow.cap');
  const under = layoutPaths(cluster.dir).capability('writer');
  const said = await printed('custody', 'grant', key, '--under', under, '--project', 'demo', '--out', file);
  assert.match(said, /read of project demo up to internal/);
  await ok('custody', 'revoke', file);
  const writer = /for key ([0-9a-f]{64})/.exec(await readFile(under, 'utf8'))?.[1] ?? '';
  await ok('custody', 'revoke', writer);
  const deadline = AbortSignal.timeout(30_000);
  for (;;) {
    const { status, err } = await run('get', secret);
    if (status === 1) return assert.match(err, /custodians refuse: the key that asks was revoked/);
    assert.ok(!deadline.aborted, `still opened: ${status} ${err}`);
  }
});
