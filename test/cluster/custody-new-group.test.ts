// Three of five custodians are lost for good, with their disks. Shares out of the safe bring the keys to a key file, three
// others get the places of the lost, a new group is made in the place of the old one while its custodians and the steward
// are killed, and every key comes under it. The content and every manifest stay, what was granted is granted anew and what
// was revoked stays revoked, a key agent that runs on goes over, and the new group goes on like any other.

import assert from 'node:assert/strict';
import { copyFile, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { devKeyPath, layoutPaths } from '../../src/local/layout.ts';
import { TestCluster } from '../helpers/cluster.ts';
import { commandLine, type Finished } from '../helpers/command-line.ts';
import { custodyTold, untilCustody } from '../helpers/custody.ts';
import { type AgentSite, keyAgentSite, runKeyAgent } from '../helpers/key-agent.ts';

const lost = ['custodian-1', 'custodian-2', 'custodian-3'];
const reason = 'three machines burnt';
const at = (name: string): string => `ucxl://operator:ops@custody:succession/*^/${name}.txt`;
interface Rules {
  readonly ver: number;
  readonly maxItemsPerBar: number;
  readonly keyAgents: readonly string[];
  readonly authorities: readonly string[];
}

/** What is stored, by name. */
const texts = new Map<string, string>();
/** CIDs of the manifest and the content of each. */
const manifests = new Map<string, string>();
let cluster: TestCluster;
let old = '';
let young = '';
let shares: string[] = [];
let agent: AgentSite;
let stolen: AgentSite;
/** What ends before the cluster does. */
const running = new AsyncDisposableStack();
const commands = commandLine(() => cluster);
const { run, ok, printed, json } = commands;

before(async () => {
  cluster = await TestCluster.start({
    nodes: 2,
    custodians: 5,
    settings: { beatMs: 500, retiredMs: 2000 },
    dies: true,
  });
  old = (await custodyTold(commands)).group;
  young = `${old}.2`;
});
after(async () => {
  await running.disposeAsync();
  await cluster[Symbol.asyncDispose]();
});

function file(name: string): string {
  return join(cluster.dir, name);
}

/** Public key, hex. */
async function operator(): Promise<string> {
  const layout: { operator: string } = JSON.parse(await readFile(file('cluster.json'), 'utf8'));
  return layout.operator;
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

/** All that the membership names, and the steward says what it does. */
async function allAnswer(): Promise<void> {
  await untilCustody(
    () => custodyTold(commands),
    'all five answer',
    ({ custodians, next }) => next !== null && custodians.every(({ state }) => state !== 'unreachable'),
  );
}

async function throughTheDoor(name: string): Promise<string> {
  const address = encodeURIComponent(at(name));
  return (await cluster.fetch(`/ucxi/v1/get?address=${address}`)).text();
}

test('a group that can be used is not ended: the refusal says what to do instead', async () => {
  for (const name of ['plan', 'notes', 'minutes']) await put(name);
  await put('secret', '--class', 'restricted');
  agent = await keyAgentSite(cluster, commands, file('agent'));
  stolen = await keyAgentSite(cluster, commands, file('stolen'));
  const rules = {
    authorities: [await operator(), stolen.key],
    maxItemsPerBar: 12_345,
    keyAgents: [agent.key],
    classes: { confidential: { keyAgentOnly: true } },
  };
  await writeFile(file('rules.json'), JSON.stringify(rules));
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

test('what is granted to others serves them, and who was revoked is refused', async () => {
  const confidential = ['--cls', 'confidential'];
  await ok('custody', 'grant', agent.key, ...confidential, '--out', agent.capability);
  const leave = [...confidential, '--prefix', 'shared/', '--out', agent.readerCapability];
  await ok('custody', 'grant', agent.reader, ...leave);
  // Passed on by the writer of here, to its own key again: a chain of two.
  const passed = ['--under', layoutPaths(cluster.dir).capability('writer'), '--out', file('passed.cap')];
  await ok('custody', 'grant', agent.reader, '--cls', 'internal', ...passed);
  // One that has ended by then, and one of a key that is stolen.
  await ok('custody', 'grant', agent.reader, '--beats', '1', '--out', file('short.cap'));
  await ok('custody', 'grant', stolen.reader, ...confidential, '--out', stolen.readerCapability);
  await ok('custody', 'revoke', stolen.reader, stolen.key);
  texts.set('shared/list', 'what is in shared/list\n');
  await writeFile(file('in.txt'), texts.get('shared/list') ?? '');
  await ok('put', at('shared/list'), file('in.txt'), '--class', 'confidential');
  texts.delete('shared/list'); // only through the agent
  running.use(await runKeyAgent(agent));
  assert.equal(await printed('get', at('shared/list'), ...agent.asked), 'what is in shared/list\n');
  assert.match((await run('get', at('shared/list'), ...asStolen())).err, /revoked/);
});

/** The thief asks the agent. */
function asStolen(): readonly string[] {
  const own = [stolen.readerKey, stolen.readerCapability];
  return agent.asked.map((word) => own[[agent.readerKey, agent.readerCapability].indexOf(word)] ?? word);
}

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

/** Makes the new group; `why` tells whose order it was that it came to. */
function order(why: string): string[] {
  return ['custody', 'init', '--in-place-of', old, '--reason', why];
}

/** Gives the order, and kills a process as soon as the command says `heard`. */
async function orderedUntil(why: string, heard: RegExp, victim: string): Promise<Finished> {
  const pid = await cluster.pid(victim);
  let said = '';
  let isKilled = false;
  const done = await commands
    .heard((text) => {
      said += text;
      if (isKilled || !heard.test(said)) return;
      isKilled = true;
      process.kill(pid, 'SIGKILL');
    })
    .run(...order(why));
  assert.ok(isKilled, done.err);
  return done;
}

/** Nothing of the new group is there: the command says so and what to do, and the old one is as it was. */
async function assertNotMade({ status, err }: Finished, why: RegExp): Promise<void> {
  assert.notEqual(status, 0, err);
  assert.match(err, why);
  const { group, inPlaceOf } = await custodyTold(commands);
  assert.deepEqual([group, inPlaceOf], [old, null]);
  // One of them may have been started again just now.
  await untilCustody(
    () => custodyTold(commands),
    'the two that are left hold their shares of the old group, and nobody else any',
    ({ custodians }) =>
      custodians.flatMap(({ name, holds }) => (holds.length > 0 ? name : [])).join() ===
      'custodian-4,custodian-5',
  );
  assert.match((await run('get', at('late'))).err, /2 of 3 partial decryptions/);
}

const stands =
  /group \S+\.2 is not made and \S+ stands as it did; give the command again when all custodians answer/;

test('a custodian that is down before the first round is named, and nothing is begun', async () => {
  await allAnswer();
  const control = await cluster.control();
  await control.killNode('custodian-3');
  await assertNotMade(
    await run(...order(reason)),
    /a key is made by all, and custodian-3 do not answer: start/,
  );
  await control.startNode('custodian-3');
});

test('a custodian is killed with half of its shares put by: the old group stands', async () => {
  await allAnswer();
  await cluster.diesAt(['after rename 1 shares/state since .sealed'], 'custodian-3');
  await assertKilledReceiving(await run(...order('killed with half')));
});

test('one is killed while that is ended, and waited for; another one when it vouches for its shares', async () => {
  await allAnswer();
  await cluster.diesAt(['after rename 1 shares/state'], 'custodian-4');
  await cluster.diesAt(['after rename 2 shares/state since .sealed'], 'custodian-3');
  await assertKilledReceiving(await run(...order('killed vouching')));
  assert.deepEqual(await cluster.placesLeft('custodian-4'), []);
});

async function assertKilledReceiving(done: Finished): Promise<void> {
  await assertNotMade(done, stands);
  assert.match(done.err, /receiving: 4 custodians did it, 5 are needed \(custodian-3: lost .*\)\n$/);
  assert.deepEqual(await cluster.placesLeft('custodian-3'), []);
}

test('the steward is killed while shares are dealt: the old group stands', async () => {
  await allAnswer();
  await assertNotMade(await orderedUntil('steward killed', /dealing shares/, 'steward'), stands);
});

test('two are killed with their locks written: what was decided is finished, and nothing else', async () => {
  await allAnswer();
  for (const name of ['custodian-2', 'custodian-3'])
    await cluster.diesAt(['after rename 5 shares/state since .sealed'], name);
  const done = await finallyOrdered(reason, (each) => /custodians vote for the record/.test(each.err));
  await assertNotMade(done, stands);
  assert.match(done.err, /3 custodians vote for the record, 4 are needed \(.*custodian-[23]: /);
  for (const name of ['custodian-2', 'custodian-3']) assert.deepEqual(await cluster.placesLeft(name), []);
  await allAnswer();
});

/** Gives the order until something comes of it: who was killed is started again, and connects, in its own time. */
async function finallyOrdered(why: string, isIt: (done: Finished) => boolean): Promise<Finished> {
  for (const deadline = AbortSignal.timeout(120_000); ; await sleep(1000)) {
    const done = await run(...order(why));
    if (isIt(done)) return done;
    assert.ok(!deadline.aborted && done.status !== 0, `${done.out}${done.err}`);
  }
}

test('a custodian is killed when the key is registered: the group is made, and was made once', async () => {
  const done = await orderedUntil('given again', /the key is registered/, 'custodian-1');
  assert.equal(done.status, 0, done.err);
  const { group, inPlaceOf, key } = await custodyTold(commands);
  // What the two were killed with came to its end, so it is the order of then that stands.
  assert.deepEqual([group, inPlaceOf?.group, inPlaceOf?.reason], [young, old, reason]);
  assert.deepEqual([key?.t, key?.n], [3, 5]);
  // What was allowed in the old group is what is allowed in the new one.
  const policy = await json<Rules>('custody', 'policy', 'show');
  assert.deepEqual([policy.ver, policy.maxItemsPerBar, policy.keyAgents], [1, 12_345, [agent.key]]);
  // And what was withdrawn is withdrawn: an authority that was revoked is none, and no key is good again.
  assert.deepEqual(policy.authorities, [await operator()]);
  assert.match(done.err, new RegExp(`revoked in \\S+ too: 2 keys that were revoked in ${old}`));
  assert.match(
    done.err,
    /4 capabilities that were granted in \S+ are worth nothing now: `holdfast custody regrant/,
  );
  assert.match(
    (await run('custody', 'status')).out,
    new RegExp(`In the place of ${old}, which ended at beat`),
  );
  assert.match((await run(...order('once more'))).err, /in the place of .* already/);
  await untilCustody(
    () => custodyTold(commands),
    'all five have their shares, also the one that was killed',
    ({ custodians }) => custodians.every(({ holds }) => holds.includes(1)),
  );
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

interface Regranted {
  readonly now: string;
  readonly granted: readonly {
    readonly key: string;
    readonly what: string;
    readonly before: string;
    readonly file: string | null;
    readonly problem: string | null;
  }[];
}

test('what was granted is granted anew and what was revoked is not; a key agent that runs on goes over', async () => {
  const confidential = at('shared/list');
  // With leave of the old group nobody gets anything, and the agent has gone over without being started again.
  const early = await run('get', confidential, ...agent.asked);
  assert.match(
    early.err,
    new RegExp(`for custody group ${old}, this agent serves ${young.replace('.', '\\.')}`),
  );
  const shown = await json<Regranted>('custody', 'regrant', '--dry-run');
  const told = shown.granted.map(({ key, before, problem }) => [key, before, problem]);
  const [reader, thief] = [agent.reader, stolen.reader];
  const wanted: (string | null | RegExp)[][] = [
    [agent.key, agent.capability, null],
    [reader, agent.readerCapability, null],
    [reader, file('passed.cap'), null],
    [reader, file('short.cap'), /it ended with beat/],
    [thief, stolen.readerCapability, /was revoked/],
  ];
  assert.equal(told.length, wanted.length, JSON.stringify(told));
  for (const [key, before, problem] of wanted) {
    const found = told.find((each) => each[0] === key && each[1] === before);
    assert.ok(found !== undefined, `${String(key)} ${String(before)}: ${JSON.stringify(told)}`);
    if (problem instanceof RegExp) assert.match(found[2] ?? '', problem);
    else assert.equal(found[2], null);
  }
  const signed = await printed('custody', 'regrant', '--out', file('anew'));
  assert.match(signed, /3 of 5 capabilities of \S+ signed anew in/);
  // Given again it signs the same.
  const again = await json<Regranted>('custody', 'regrant', '--out', file('anew'));
  for (const { before, file: now } of again.granted)
    if (now !== null && before !== file('passed.cap')) await copyFile(now, before);
  assert.equal(await printed('get', confidential, ...agent.asked), 'what is in shared/list\n');
  // Revoked in the old group, and so in the new one, whoever forgets it.
  await ok('custody', 'grant', thief, '--cls', 'confidential', '--force', '--out', stolen.readerCapability);
  assert.match((await run('get', confidential, ...asStolen())).err, /revoked/);
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
