// Three of five custodians are lost for good, with their disks. Shares out of the safe bring the keys to a key file, three
// others get the places of the lost, a new group is made in the place of the old one, and every key comes under it. The
// content and every manifest stay, and the new group goes on like any other.

import assert from 'node:assert/strict';
import { rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { devKeyPath, layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import { custodyTold, untilCustody } from '../helpers/custody.ts';

const lost = ['custodian-1', 'custodian-2', 'custodian-3'];
const reason = 'three machines burnt';
const at = (name: string): string => `ucxl://operator:ops@custody:succession/*^/${name}.txt`;
/** What is stored, by name. */
const texts = new Map<string, string>();
/** CIDs of the manifest and the content of each. */
const manifests = new Map<string, string>();
let cluster: TestCluster;
let old = '';
let young = '';
let shares: string[] = [];
const commands = commandLine(() => cluster);
const { run, ok, printed, json } = commands;

before(async () => {
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000, retiredMs: 2000 } });
  old = (await custodyTold(commands)).group;
  young = `${old}.2`;
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
});

function file(name: string): string {
  return join(cluster.dir, name);
}

async function put(name: string, ...more: string[]): Promise<void> {
  texts.set(name, `what is in ${name}\n`);
  await writeFile(file('in.txt'), texts.get(name) ?? '');
  await ok('put', at(name), file('in.txt'), ...more);
  manifests.set(name, await manifestOf(name));
}

async function manifestOf(name: string): Promise<string> {
  const { version } = await json<{ version: { cid: string; root: string } }>('stat', at(name));
  assert.ok(version.cid !== '' && version.root !== '');
  return `${version.cid} ${version.root}`;
}

/** Every object is given back, by the same manifest. */
async function assertAllThere(): Promise<void> {
  for (const [name, text] of texts) {
    assert.equal(await printed('get', at(name)), text);
    assert.equal(await manifestOf(name), manifests.get(name), name);
  }
}

/** All keys of the old group, by the shares out of the safe. */
async function recoverTo(provider: string): Promise<void> {
  const opened = [...shares, '--secret-file', file('passphrase')];
  await ok('custody', 'recovery', 'shares', ...opened, '--to', provider, '--reason', reason);
}

async function throughTheDoor(name: string): Promise<string> {
  const address = encodeURIComponent(at(name));
  return (await cluster.fetch(`/ucxi/v1/get?address=${address}`)).text();
}

test('a group that can be used is not ended: the refusal says what to do instead', async () => {
  for (const name of ['plan', 'notes', 'minutes']) await put(name);
  await put('secret', '--class', 'restricted');
  await writeFile(file('rules.json'), JSON.stringify({ maxItemsPerBar: 12_345 }));
  await ok('custody', 'policy', 'set', file('rules.json'));
  await writeFile(file('passphrase'), 'a long enough passphrase\n', { mode: 0o600 });
  for (const name of lost) {
    const out = file(`${name}.share`);
    await ok('custody', 'export', name, '--passphrase-file', file('passphrase'), '--out', out);
    shares = [...shares, out];
  }
  const end = ['custody', 'init', '--in-place-of'];
  assert.match((await run(...end, old)).err, /needs --reason TEXT/);
  assert.match(
    (await run(...end, old, '--reason', reason, '-n', '3')).err,
    /takes NAMEs, not --custodians N/,
  );
  const refused = await run(...end, old, '--reason', reason);
  assert.notEqual(refused.status, 0);
  assert.match(refused.err, /is not lost: custodian-1, .*hold its shares and 3 suffice; .*custody reshare/);
  assert.match(
    (await run(...end, 'cg-other', '--reason', reason)).err,
    /of this cluster is .*, not cg-other/,
  );
});

test('three are lost with their disks; the shares of the safe bring every key to the key file', async () => {
  const control = await cluster.control();
  for (const name of lost) {
    await control.killNode(name);
    await rm(file(name), { recursive: true });
  }
  assert.match((await run('get', at('plan'))).err, /2 of 3 partial decryptions/);
  await recoverTo('file');
  await assertAllThere();
  // Sealing needs no custodian: what is put now is under the lost group again.
  await put('late');
  assert.match((await run('get', at('late'))).err, /2 of 3 partial decryptions/);
  texts.delete('late');
});

test('others get the places of the lost; those that are there keep theirs', async () => {
  const before = await custodyTold(commands);
  await cluster.down();
  await assert.rejects(cluster.up({ replace: ['custodian-4'] }), /custodian-4 is not lost/);
  await cluster.up({ replace: lost });
  const now = await custodyTold(commands);
  const peerOf = (told: typeof now, name: string) => told.custodians.find((each) => each.name === name)?.peer;
  for (const name of lost) assert.notEqual(peerOf(now, name), peerOf(before, name));
  for (const name of ['custodian-4', 'custodian-5']) assert.equal(peerOf(now, name), peerOf(before, name));
  assert.equal(now.group, old);
});

test('the new group is made in the place of the old one, also when the steward is killed in the middle', async () => {
  await untilCustody(
    () => custodyTold(commands),
    'all five answer',
    ({ custodians }) => custodians.every(({ state }) => state !== 'unreachable'),
  );
  const order = ['custody', 'init', '--in-place-of', old, '--reason', reason];
  const first = run(...order);
  await sleep(1500);
  process.kill(await cluster.pid('steward'), 'SIGKILL');
  await first;
  let said = '';
  for (const deadline = AbortSignal.timeout(120_000); ; await sleep(1000)) {
    const { status, out, err } = await run(...order);
    said = `${out}${err}`;
    if (status === 0) break;
    assert.ok(!deadline.aborted, said);
  }
  const { group, inPlaceOf, key } = await custodyTold(commands);
  assert.deepEqual([group, inPlaceOf?.group, inPlaceOf?.reason], [young, old, reason]);
  assert.deepEqual([key?.t, key?.n], [3, 5]);
  // What was allowed in the old group is what is allowed in the new one.
  const policy = await json<{ ver: number; maxItemsPerBar: number }>('custody', 'policy', 'show');
  assert.deepEqual([policy.ver, policy.maxItemsPerBar], [1, 12_345]);
  assert.match(
    (await run('custody', 'status')).out,
    new RegExp(`In the place of ${old}, which ended at beat`),
  );
  assert.match((await run(...order)).err, /in the place of .* already/);
});

test('every key comes under the new group, straight from the safe or from the key file, and content stays', async () => {
  texts.set('late', 'what is in late\n');
  // Some from the key file, what was put too late from the shares of the safe.
  await ok('custody', 'migrate', '--to', 'custodians');
  await recoverTo('custodians');
  const keyFile = devKeyPath({ keysDir: layoutPaths(cluster.dir).keys });
  await rename(keyFile, `${keyFile}.away`);
  await assertAllThere();
  assert.equal(await throughTheDoor('plan'), texts.get('plan'));
  await put('young');
});

test('after a restart of everything it is the same, and who kept shares of the old group shows', async () => {
  await cluster.down();
  await cluster.up();
  await assertAllThere();
  assert.equal(await throughTheDoor('plan'), texts.get('plan'));
  const { group, unerased, margin } = await custodyTold(commands);
  assert.deepEqual([group, margin], [young, 2]);
  assert.deepEqual(
    unerased.map(({ custodian }) => custodian),
    ['custodian-4', 'custodian-5'],
  );
  assert.match(
    unerased[0]?.text ?? '',
    new RegExp(`shares of group ${old.replace('.', '\\.')} still, which has ended`),
  );
});

test('the new group refreshes and rotates, and its logs verify', async () => {
  await ok('custody', 'refresh');
  assert.ok(((await custodyTold(commands)).key?.shareGen ?? 0) >= 2);
  await ok('custody', 'rotate', '--wait');
  await untilCustody(
    () => custodyTold(commands),
    'the rotation is over',
    ({ versions }) => versions.map(({ state }) => state).join() === 'destroyed,active',
    { timeoutMs: 180_000 },
  );
  await assertAllThere();
  const exported = file('after.share');
  await ok('custody', 'export', 'custodian-1', '--passphrase-file', file('passphrase'), '--out', exported);
  assert.ok((await stat(exported)).size > 0);
  assert.match(
    await printed('custody', 'audit'),
    new RegExp(`group ${old} ended at beat .*${reason}; \\d+ openings of before cannot`),
  );
});
