// What an operator does with a custody group of real processes beside its ceremonies: shares for the safe and a drill,
// another policy, another sealing secret, a custodian that is suspected.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { DrillReport } from '../../src/custody/drill.ts';
import { choosePorts } from '../../src/local/ports.ts';
import { TestCluster } from '../helpers/cluster.ts';

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const address = 'ucxl://operator:ops@custody:test/*^/note.txt';
const text = 'what only three of five can open\n';
let cluster: TestCluster;
let scratch: string;

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'holdfast-custody-tools-'));
  cluster = await TestCluster.start({ nodes: 2, custodians: 5, settings: { beatMs: 1000, retiredMs: 2000 } });
  // A loaded machine makes the key after the cluster is ready.
  const deadline = AbortSignal.timeout(180_000);
  for (;;) {
    const { stdout } = await run('custody', 'status', '--json');
    const { key } = JSON.parse(stdout);
    if (key !== null && key !== undefined) break;
    assert.ok(!deadline.aborted, stdout);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  await writeFile(file('note.txt'), text);
  await ok('put', address, file('note.txt'));
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

function file(name: string): string {
  return join(scratch, name);
}

async function secret(name: string, content: string): Promise<string> {
  await writeFile(file(name), content, { mode: 0o600 });
  return file(name);
}

async function drilled(
  ...words: string[]
): Promise<{ readonly status: number; readonly report: DrillReport }> {
  const { status, stdout, stderr } = await run('custody', 'drill', ...words, '--json');
  assert.ok(stdout.startsWith('{"group"'), `${stdout}${stderr}`);
  const report: DrillReport = JSON.parse(stdout);
  return { status, report };
}

/** A second identity beside the agent's: its configuration. */
async function reading(folder: string, agent: object): Promise<string> {
  const path = join(folder, 'reader.json');
  await writeFile(path, JSON.stringify({ ...agent, identity: 'reader.key' }));
  return path;
}

async function freePort(): Promise<number> {
  const [port = 0] = await choosePorts(1, []);
  return port;
}

async function exported(i: number, seal: readonly string[], out: string): Promise<string> {
  await ok('custody', 'export', `custodian-${i}`, ...seal, '--out', file(out));
  return file(out);
}

test('shares in the safe are tried in a drill; two do not suffice, and a past generation is told', async () => {
  const passphrase = await secret('passphrase', 'a long enough passphrase\n');
  await ok('custody', 'recovery', 'new-key', file('safe.key'));
  const { publicKey } = JSON.parse(await ok('custody', 'recovery', 'new-key', file('other.key'), '--json'));
  const one = await exported(1, ['--passphrase-file', passphrase], '1.share');
  const two = await exported(2, ['--passphrase-file', passphrase], '2.share');
  const three = await exported(3, ['--recipient', publicKey], '3.share');
  const again = await run('custody', 'export', 'custodian-1', '--passphrase-file', passphrase, '--out', one);
  assert.match(again.stderr, /exists/);
  const words = [`${one}=${passphrase}`, two, `${three}=${file('other.key')}`, '--secret-file', passphrase];

  const good = await drilled(...words);
  assert.deepEqual([good.status, good.report.versions[0]?.opened], [0, true], JSON.stringify(good));
  assert.match(await ok('custody', 'drill', ...words), /OPENED[^]*custodian-3 .*good/);
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
  assert.match(await ok('custody', 'audit', '--json'), /"logs"/);
  assert.ok(!(await readFile(one, 'utf8')).includes('passphrase'));
});

test('another policy holds for what is stored already; who may not change it is refused', async () => {
  const tight = { classes: { internal: { ops: ['write', 'pin', 'prune', 'audit'] } } };
  await writeFile(file('tight.json'), JSON.stringify(tight));
  assert.match(
    await ok('custody', 'policy', 'set', file('tight.json'), '--dry-run'),
    /tightens +classes\.internal\.ops/,
  );
  assert.equal(await ok('get', address), text);

  await writeFile(file('wrong.json'), JSON.stringify({ classes: { internal: { ops: ['open'] } } }));
  const wrong = await run('custody', 'policy', 'set', file('wrong.json'));
  assert.deepEqual(
    [wrong.status, /classes\.internal\.ops: some of read/.test(wrong.stderr)],
    [2, true],
    wrong.stderr,
  );
  const stranger = join(cluster.dir, 'custodian-1', 'identity.key');
  const refused = await run('custody', 'policy', 'set', file('tight.json'), '--as', stranger);
  assert.notEqual(refused.status, 0);
  assert.match(refused.stderr, /neither operator nor authority/);

  await ok('custody', 'policy', 'set', file('tight.json'));
  const closed = await run('get', address);
  assert.match(closed.stderr, /the policy allows no read of internal content/);
  const shown: unknown = JSON.parse(await ok('custody', 'policy', 'show', '--json'));
  assert.ok(typeof shown === 'object' && shown !== null && 'ver' in shown && shown.ver === 2);
  await writeFile(file('old.json'), JSON.stringify({ ver: 1, recovery: 'any' }));
  assert.match((await run('custody', 'policy', 'set', file('old.json'))).stderr, /version 2 is in force/);
  const open = { classes: { internal: { ops: ['read', 'write', 'pin', 'prune', 'audit'] } } };
  await writeFile(file('open.json'), JSON.stringify(open));
  assert.match(
    await ok('custody', 'policy', 'set', file('open.json')),
    /widens[^]*version 3 of the policy is in force/,
  );
  assert.equal(await ok('get', address), text);
});

test('a key agent gives a reader without leave exactly its object, and the branch key to nobody', async () => {
  const folder = join(scratch, 'agent');
  await mkdir(folder);
  const layout = JSON.parse(await readFile(join(cluster.dir, 'cluster.json'), 'utf8'));
  const config = join(folder, 'agent.json');
  const written = {
    format: 'holdfast-key-agent',
    version: 1,
    cluster: layout.cluster,
    operator: layout.operator,
    name: 'agent-a',
    host: '127.0.0.1',
    port: 0,
    door: cluster.url,
    token: join(cluster.dir, 'token'),
    identity: 'identity.key',
    membership: join(cluster.dir, 'membership.json'),
    capability: 'agent.cap',
    dataDir: 'data',
  };
  await writeFile(config, JSON.stringify(written));
  const { key } = JSON.parse(await ok('key-agent', '--config', config, '--init', '--json'));
  await ok('custody', 'grant', key, '--cls', 'confidential', '--out', join(folder, 'agent.cap'));
  const only = { keyAgents: [key], classes: { confidential: { keyAgentOnly: true } } };
  await writeFile(file('agent.policy'), JSON.stringify(only));
  await ok('custody', 'policy', 'set', file('agent.policy'));
  const at = (name: string): string => `ucxl://operator:ops@custody:test/*^/${name}`;
  for (const name of ['shared/plan.txt', 'private/list.txt']) {
    await writeFile(file('secret.txt'), `secret of ${name}\n`);
    await ok('put', at(name), file('secret.txt'), '--class', 'confidential');
  }
  // A reader with an identity of its own, and leave for one path.
  const { key: reader } = JSON.parse(
    await ok('key-agent', '--config', await reading(folder, written), '--init', '--json'),
  );
  await ok(
    'custody',
    'grant',
    reader,
    '--cls',
    'confidential',
    '--prefix',
    'shared/',
    '--out',
    join(folder, 'reader.cap'),
  );

  const started = JSON.stringify({ ...written, port: await freePort() });
  await writeFile(config, started);
  const child = spawn(process.execPath, [main, 'key-agent', '--config', config, '--json'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  try {
    let said = '';
    for await (const part of child.stdout) {
      said += String(part);
      if (said.includes('\n')) break;
    }
    const { port } = JSON.parse(said);
    const agent = ['--agent', `http://127.0.0.1:${port}`, '--agent-key', key];
    const as = ['--as', join(folder, 'reader.key'), '--capability', join(folder, 'reader.cap')];
    assert.match((await run('get', at('shared/plan.txt'))).stderr, /given to key agents only/);
    assert.equal(await ok('get', at('shared/plan.txt'), ...agent, ...as), 'secret of shared/plan.txt\n');
    assert.match(
      (await run('get', at('private/list.txt'), ...agent, ...as)).stderr,
      /for paths under shared\//,
    );
    const { entries } = JSON.parse(await ok('key-agent', 'audit', '--config', config, '--json'));
    const granted = entries.filter((each: { decision: string }) => each.decision === 'granted');
    assert.deepEqual(
      granted.map((each: { requester: string; reason: string }) => [
        each.requester,
        /shared\/plan\.txt/.test(each.reason),
      ]),
      [[reader, true]],
    );
  } finally {
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
});

test('a custodian seals its shares anew while it runs, and starts with the new secret only', async () => {
  const place = join(cluster.dir, 'custodian-1', 'passphrase');
  const early = await run('custody', 'reseal', 'custodian-1', '--to', 'passphrase-file');
  assert.match(early.stderr, /put the new passphrase into .*passphrase\.next/);
  await writeFile(`${place}.next`, 'what nobody guesses\n', { mode: 0o600 });
  assert.match(
    await ok('custody', 'reseal', 'custodian-1', '--to', 'passphrase-file'),
    /sealed under the passphrase-file/,
  );
  const control = await cluster.control();
  await control.stopNode('custodian-2'); // t are needed now: custodian-1 is among them
  await control.killNode('custodian-1');
  await control.startNode('custodian-1');
  await control.stopNode('custodian-3');
  assert.equal(await ok('get', address), text);
  await control.startNode('custodian-2');
  await control.startNode('custodian-3');
  await control.stopNode('custodian-1');
  await rm(place); // the old key file is still there, and of no use
  assert.match(
    (await run('node', 'start', 'custodian-1')).stdout,
    /custodian-1 .* is (waiting|failed): the shares were sealed with a passphrase-file/,
  );
  await writeFile(place, 'what nobody guesses\n', { mode: 0o600 });
  assert.equal((await control.startNode('custodian-1')).status, 'ready');
});

test('who is suspected goes in one command, and no key is left that it had shares of', async () => {
  const control = await cluster.control();
  await control.startNode('custodian-1'); // should it be down still: the others all make the new key
  await control.stopNode('custodian-5'); // it does not listen
  const out = JSON.parse(await ok('custody', 'evict', 'custodian-5', '--reason', 'suspect', '--json'));
  assert.deepEqual(out.versionsLeft, [1]);
  assert.match(out.steps.join('; '), /not sealed.*; evicted; rotation of key 1 ordered/);
  // Interrupted, and given again: it goes on to the end.
  const rest = JSON.parse(
    await ok('custody', 'evict', 'custodian-5', '--reason', 'suspect', '--wait', '--json'),
  );
  assert.deepEqual([rest.evicted, rest.versionsLeft], [null, []]);
  assert.equal(await ok('get', address), text);
  const unknown = await run('custody', 'evict', 'custodian-9', '--reason', 'suspect');
  assert.match(unknown.stderr, /there is no custodian custodian-9/);
});
