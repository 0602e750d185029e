// What an operator does with a custody group of real processes beside its ceremonies: shares for the safe and a drill,
// another policy, another sealing secret, a custodian that is suspected.

import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DrillReport } from '../../src/custody/drill.ts';
import { devKeyPath, layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine } from '../helpers/command-line.ts';
import { custodyTold, untilCustody } from '../helpers/custody.ts';
import { keyAgentSite, runKeyAgent } from '../helpers/key-agent.ts';

const address = 'ucxl://operator:ops@custody:test/*^/note.txt';
const text = 'what only three of five can open\n';
let cluster: TestCluster;
let scratch: string;
const commands = commandLine(() => cluster);
const { run, ok, printed, json } = commands;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-custody-tools-'));
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000, retiredMs: 2000 } });
  // A loaded machine makes the key after the cluster is ready.
  await untilCustody(
    () => custodyTold(commands),
    'the key is made',
    ({ key }) => key !== null && key !== undefined,
    { timeoutMs: 180_000 },
  );
  await writeFile(file('note.txt'), text);
  await ok('put', address, file('note.txt'));
});
after(async () => {
  await cluster[Symbol.asyncDispose]();
  await rm(scratch, { recursive: true, force: true });
});

function file(name: string): string {
  return join(scratch, name);
}

async function secret(name: string, content: string): Promise<string> {
  await writeFile(file(name), content, { mode: 0o600 });
  return file(name);
}

async function drilled(
  ...words: string[]
): Promise<{ readonly status: number | null; readonly report: DrillReport }> {
  const { status, out, err } = await run('custody', 'drill', ...words, '--json');
  assert.ok(out.startsWith('{"group"'), `${out}${err}`);
  const report: DrillReport = JSON.parse(out);
  return { status, report };
}

/** An entry of a key agent's log. */
interface Answered {
  readonly decision: string;
  readonly requester: string;
  readonly reason: string;
}

async function exported(i: number, seal: readonly string[], out: string): Promise<string> {
  await ok('custody', 'export', `custodian-${i}`, ...seal, '--out', file(out));
  return file(out);
}

test('shares in the safe are tried in a drill; two do not suffice, and a past generation is told', async () => {
  const passphrase = await secret('passphrase', 'a long enough passphrase\n');
  await ok('custody', 'recovery', 'new-key', file('safe.key'));
  const { publicKey } = await json<{ publicKey: string }>(
    'custody',
    'recovery',
    'new-key',
    file('other.key'),
  );
  const one = await exported(1, ['--passphrase-file', passphrase], '1.share');
  const two = await exported(2, ['--passphrase-file', passphrase], '2.share');
  const three = await exported(3, ['--recipient', publicKey], '3.share');
  const again = await run('custody', 'export', 'custodian-1', '--passphrase-file', passphrase, '--out', one);
  assert.match(again.err, /exists/);
  const words = [`${one}=${passphrase}`, two, `${three}=${file('other.key')}`, '--secret-file', passphrase];

  const good = await drilled(...words);
  assert.deepEqual([good.status, good.report.versions[0]?.opened], [0, true], JSON.stringify(good));
  assert.match(await printed('custody', 'drill', ...words), /OPENED[^]*custodian-3 .*good/);
  const few = await drilled(one, two, '--secret-file', passphrase);
  assert.deepEqual([few.status, few.report.versions[0]?.opened], [5, false]);
  const wrong = await drilled(one, two, `${three}=${file('safe.key')}`, '--secret-file', passphrase);
  assert.match(wrong.report.versions[0]?.exports[2]?.text ?? '', /the key does not open this share/);
  await chmod(passphrase, 0o644);
  const open = await drilled(...words);
  assert.match(open.report.versions[0]?.exports[0]?.text ?? '', /set it to 600/);
  await chmod(passphrase, 0o600);

  await ok('custody', 'refresh');
  const stale = await drilled(...words);
  assert.equal(stale.status, 5);
  assert.match(stale.report.versions[0]?.exports[0]?.text ?? '', /generation 1 is past: the group is at 2/);
  // Written down by the custodian, and the log still verifies.
  assert.match(await printed('custody', 'audit', '--json'), /"logs"/);
  assert.ok(!(await readFile(one, 'utf8')).includes('passphrase'));
});

test('another policy holds for what is stored already; who may not change it is refused', async () => {
  const tight = { classes: { internal: { ops: ['write', 'pin', 'prune', 'audit'] } } };
  await writeFile(file('tight.json'), JSON.stringify(tight));
  assert.match(
    await printed('custody', 'policy', 'set', file('tight.json'), '--dry-run'),
    /tightens +classes\.internal\.ops/,
  );
  assert.equal(await printed('get', address), text);

  await writeFile(file('wrong.json'), JSON.stringify({ classes: { internal: { ops: ['open'] } } }));
  const wrong = await run('custody', 'policy', 'set', file('wrong.json'));
  assert.deepEqual(
    [wrong.status, /classes\.internal\.ops: some of read/.test(wrong.err)],
    [2, true],
    wrong.err,
  );
  const stranger = join(cluster.dir, 'custodian-1', 'identity.key');
  const refused = await run('custody', 'policy', 'set', file('tight.json'), '--as', stranger);
  assert.notEqual(refused.status, 0);
  assert.match(refused.err, /neither operator nor authority/);

  await ok('custody', 'policy', 'set', file('tight.json'));
  const closed = await run('get', address);
  assert.match(closed.err, /the policy allows no read of internal content/);
  assert.equal((await json('custody', 'policy', 'show'))['ver'], 2);
  await writeFile(file('old.json'), JSON.stringify({ ver: 1, recovery: 'any' }));
  assert.match((await run('custody', 'policy', 'set', file('old.json'))).err, /version 2 is in force/);
  const open = { classes: { internal: { ops: ['read', 'write', 'pin', 'prune', 'audit'] } } };
  await writeFile(file('open.json'), JSON.stringify(open));
  assert.match(
    await printed('custody', 'policy', 'set', file('open.json')),
    /widens[^]*version 3 of the policy is in force/,
  );
  assert.equal(await printed('get', address), text);
});

test('where the policy wants an approval nobody reads without one', async () => {
  const wanted = (k: number) => JSON.stringify({ classes: { internal: { approvals: { k } } } });
  await writeFile(file('approvals.json'), wanted(1));
  await ok('custody', 'policy', 'set', file('approvals.json'));
  const alone = await run('get', address);
  assert.match(alone.err, /internal content needs 1 approvals for this, the request brings 0/);
  const { operatorKey } = layoutPaths(cluster.dir);
  const approved = await run('get', address, '--approve', operatorKey);
  assert.deepEqual([approved.status, approved.out], [0, text], approved.err);
  assert.match(approved.err, /approving: 1 keys, internal content of project /);
  const stranger = join(cluster.dir, 'custodian-1', 'identity.key');
  assert.match((await run('get', address, '--approve', stranger)).err, /the request brings 0/);
  const twice = await run('get', address, '--approve', `${operatorKey},${operatorKey}`);
  assert.match(twice.err, /different keys expected/);
  await writeFile(file('approvals.json'), wanted(0));
  await ok('custody', 'policy', 'set', file('approvals.json'));
  assert.equal(await printed('get', address), text);
});

test('a key agent gives a reader without leave exactly its object, and the branch key to nobody', async () => {
  const site = await keyAgentSite(cluster, commands, join(scratch, 'agent'));
  const confidential = ['--cls', 'confidential'];
  await ok('custody', 'grant', site.key, ...confidential, '--out', site.capability);
  const only = { keyAgents: [site.key], classes: { confidential: { keyAgentOnly: true } } };
  await writeFile(file('agent.policy'), JSON.stringify(only));
  await ok('custody', 'policy', 'set', file('agent.policy'));
  const at = (name: string): string => `ucxl://operator:ops@custody:test/*^/${name}`;
  for (const name of ['shared/plan.txt', 'private/list.txt']) {
    await writeFile(file('secret.txt'), `secret of ${name}\n`);
    await ok('put', at(name), file('secret.txt'), '--class', 'confidential');
  }
  // A reader with an identity of its own, and leave for one path.
  const leave = [...confidential, '--prefix', 'shared/', '--out', site.readerCapability];
  await ok('custody', 'grant', site.reader, ...leave);
  await using _agent = await runKeyAgent(site);
  assert.match((await run('get', at('shared/plan.txt'))).err, /given to key agents only/);
  assert.equal(await printed('get', at('shared/plan.txt'), ...site.asked), 'secret of shared/plan.txt\n');
  assert.match((await run('get', at('private/list.txt'), ...site.asked)).err, /for paths under shared\//);
  const { entries } = await json<{ entries: Answered[] }>('key-agent', 'audit', '--config', site.config);
  assert.deepEqual(
    entries
      .filter(({ decision }) => decision === 'granted')
      .map(({ requester, reason }) => [requester, /shared\/plan\.txt/.test(reason)]),
    [[site.reader, true]],
  );
  // In a group that is in the place of no other there is nothing to grant anew.
  assert.match((await run('custody', 'regrant')).err, /is in the place of no other/);
});

test('a custodian seals its shares anew while it runs, and starts with the new secret only', async () => {
  const place = join(cluster.dir, 'custodian-1', 'passphrase');
  const early = await run('custody', 'reseal', 'custodian-1', '--to', 'passphrase-file');
  assert.match(early.err, /put the new passphrase into .*passphrase\.next/);
  await writeFile(`${place}.next`, 'what nobody guesses\n', { mode: 0o600 });
  assert.match(
    await printed('custody', 'reseal', 'custodian-1', '--to', 'passphrase-file'),
    /sealed under the passphrase-file/,
  );
  const control = await cluster.control();
  await control.stopNode('custodian-2'); // t are needed now: custodian-1 is among them
  await control.killNode('custodian-1');
  await control.startNode('custodian-1');
  await control.stopNode('custodian-3');
  assert.equal(await printed('get', address), text);
  await control.startNode('custodian-2');
  await control.startNode('custodian-3');
  await control.stopNode('custodian-1');
  await rm(place); // the old key file is still there, and of no use
  assert.match(
    (await run('node', 'start', 'custodian-1')).out,
    /custodian-1 .* is (waiting|failed): the shares were sealed with a passphrase-file/,
  );
  await writeFile(place, 'what nobody guesses\n', { mode: 0o600 });
  assert.equal((await control.startNode('custodian-1')).status, 'ready');
});

interface Evicted {
  readonly evicted: unknown;
  readonly versionsLeft: number[];
  readonly steps: string[];
}

test('who is suspected goes in one command, and no key is left that it had shares of', async () => {
  const control = await cluster.control();
  await control.startNode('custodian-1'); // should it be down still: the others all make the new key
  await control.stopNode('custodian-5'); // it does not listen
  const evict = ['custody', 'evict', 'custodian-5', '--reason', 'suspect'];
  const out = await json<Evicted>(...evict);
  assert.deepEqual(out.versionsLeft, [1]);
  assert.match(out.steps.join('; '), /not sealed.*; evicted; rotation of key 1 ordered/);
  // Interrupted, and given again: it goes on to the end.
  const rest = await json<Evicted>(...evict, '--wait');
  assert.deepEqual([rest.evicted, rest.versionsLeft], [null, []]);
  assert.equal(await printed('get', address), text);
  // It has not confirmed that it erased what it had; started again, it learns that it is to, and does.
  const before = (await custodyTold(commands)).unerased;
  assert.deepEqual(
    before.map(({ custodian, version }) => [custodian, version]),
    [['custodian-5', 1]],
  );
  await control.startNode('custodian-5');
  await untilCustody(
    () => custodyTold(commands),
    'custodian-5 has erased its shares',
    ({ unerased }) => unerased.length === 0,
  );
  await control.killNode('custodian-5');
  assert.deepEqual((await custodyTold(commands)).unerased, []);
  await control.startNode('custodian-5');
  const unknown = await run('custody', 'evict', 'custodian-9', '--reason', 'suspect');
  assert.match(unknown.err, /there is no custodian custodian-9/);
});

test('more custodians are lost than may be: shares out of the safe bring every key to the key file', async () => {
  const passphrase = file('passphrase');
  const restricted = 'ucxl://operator:ops@custody:test/*^/restricted.txt';
  await ok('put', restricted, file('note.txt'), '--class', 'restricted');
  const shares: string[] = [];
  for (const i of [1, 2, 3])
    shares.push(await exported(i, ['--passphrase-file', passphrase], `lost-${i}.share`));
  const control = await cluster.control();
  for (const i of [1, 2]) await control.stopNode(`custodian-${i}`);
  assert.match((await run('get', address)).err, /2 of 3 partial decryptions/);

  const recover = (given: readonly string[], ...more: string[]) =>
    run('custody', 'recovery', 'shares', ...given, '--secret-file', passphrase, ...more);
  const ordered = ['--to', 'file', '--reason', 'two machines burnt'];
  assert.match((await recover(shares, '--to', 'file')).err, /--reason TEXT/);
  assert.match((await recover(shares, '--to', 'custodians', '--reason', 'x')).err, /cannot wrap given keys/);
  const few = await recover(shares.slice(0, 2), ...ordered);
  assert.deepEqual([few.status, /NOT OPENED/.test(few.out)], [5, true], `${few.out}${few.err}`);
  assert.ok(!(await checks()).includes('ALARM'), 'nothing was opened');
  await assert.rejects(stat(devKeyPath({ keysDir: layoutPaths(cluster.dir).keys })), { code: 'ENOENT' });

  const done = await recover(shares, ...ordered, '--json');
  assert.equal(done.status, 0, done.err);
  assert.equal(await printed('get', address), text);
  assert.equal(await printed('get', restricted), text);
  // The door finds the key file with a beat, and looks for alarms now and then.
  await told('its health', checks, /ALARM: .*two machines burnt/);
  await told(
    'what it opens',
    () => fetched(`/ucxi/v1/get?address=${encodeURIComponent(address)}`),
    /three of five/,
  );
  const again = await recover(shares, ...ordered, '--json');
  assert.deepEqual(JSON.parse(again.out), { to: 'file', moved: 0, failed: 0, failures: [] });
});

function checks(): Promise<string> {
  return fetched('/health/checks');
}

async function fetched(path: string): Promise<string> {
  return (await cluster.fetch(path)).text();
}

async function told(what: string, ask: () => Promise<string>, wanted: RegExp): Promise<void> {
  let last = '';
  for (const deadline = AbortSignal.timeout(60_000); !deadline.aborted; await sleep(500)) {
    last = await ask();
    if (wanted.test(last)) return;
  }
  assert.fail(`${what}: ${last}`);
}
