import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { pulseFile } from '../backbeat/pulse-file.ts';
import { day } from '../core/clock.ts';
import { type CapabilityLink, parseCapability, signCapability } from '../custody/capability.ts';
import { formatCapabilityFile, parseCapabilityFile } from '../custody/capability-file.ts';
import { groupNameOf } from '../custody/group-name.ts';
import { openIdentity, publicKeyOfPeer } from '../node/identity.ts';
import { keepGrants, renewGrants } from './grants.ts';
import { layoutPaths, processEntry } from './layout.ts';
import { createOrOpenLayout } from './layout-create.ts';

async function directory(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-grants-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

const small = { nodes: 1, custodians: 3, port: 0 } as const;

async function linkOf(dir: string, name: string): Promise<CapabilityLink> {
  const [link] = parseCapabilityFile(await readFile(layoutPaths(dir).capability(name), 'utf8'));
  assert.ok(link !== undefined);
  return parseCapability(link);
}

/** As the steward leaves it behind. */
async function letBeat(dir: string, beat: number): Promise<void> {
  const data = layoutPaths(dir).data('steward');
  await mkdir(data, { recursive: true });
  const file = pulseFile(join(data, 'pulse.json'), (error) => assert.fail(error));
  await file.write({ epoch: new Uint8Array(32), nextIndex: beat });
}

test('the operator grants the writer everything and the door what it needs, for thirty days', async (t) => {
  const dir = await directory(t);
  const layout = await createOrOpenLayout(dir, small);
  const { signer } = await openIdentity(layoutPaths(dir).writerKey);
  const [writer, door] = [await linkOf(dir, 'writer'), await linkOf(dir, 'door')];
  assert.deepEqual([writer.aud, writer.cg], [signer.publicKey, groupNameOf(layout.file.cluster)]);
  assert.deepEqual(door.aud, publicKeyOfPeer(processEntry(layout, 'door').peer));
  assert.deepEqual([writer.scope.cls, door.scope.cls], ['restricted', 'confidential']);
  assert.deepEqual(door.ops, ['read', 'write', 'audit']);
  assert.equal(writer.exp, (30 * 24 * 3600 * 1000) / layout.file.settings.beatMs);
});

test('a start renews what is half over, and leaves alone what a person made', async (t) => {
  const dir = await directory(t);
  const layout = await createOrOpenLayout(dir, small);
  const paths = layoutPaths(dir);
  const before = await readFile(paths.capability('writer'), 'utf8');
  await createOrOpenLayout(dir, small);
  assert.equal(await readFile(paths.capability('writer'), 'utf8'), before);
  const { exp } = await linkOf(dir, 'writer');
  await letBeat(dir, Math.ceil(exp * 0.6));
  // What is made out to another key was put there by a person.
  const others = parseCapabilityFile(await readFile(paths.capability('writer'), 'utf8'));
  await writeFile(paths.capability('door'), formatCapabilityFile(others));
  await createOrOpenLayout(dir, small);
  assert.equal((await linkOf(dir, 'writer')).exp, Math.ceil(exp * 0.6) + exp);
  assert.deepEqual(parseCapabilityFile(await readFile(paths.capability('door'), 'utf8')), others);
  await writeFile(paths.capability('writer'), 'damaged');
  await createOrOpenLayout(dir, small);
  assert.equal((await linkOf(dir, 'writer')).cg, groupNameOf(layout.file.cluster));
});

test('where another group is in the place of the first, leave is made out for that, and not for a group of elsewhere', async (t) => {
  const dir = await directory(t);
  const layout = await createOrOpenLayout(dir, small);
  const paths = layoutPaths(dir);
  const first = groupNameOf(layout.file.cluster);
  const pin = (cg: string) =>
    writeFile(paths.custodyPin, JSON.stringify({ v: 1, cg, frostPk: '07'.repeat(32), marks: {} }));
  await pin(`${first}.2`);
  await renewGrants(layout);
  assert.deepEqual(
    [(await linkOf(dir, 'writer')).cg, (await linkOf(dir, 'door')).cg],
    [`${first}.2`, `${first}.2`],
  );
  // There is no way back, and what another group has is none of ours.
  for (const cg of ['cg-other.7', first]) {
    await pin(cg);
    await renewGrants(layout);
    assert.equal((await linkOf(dir, 'writer')).cg, `${first}.2`);
  }
  const { signer: operator } = await openIdentity(paths.operatorKey);
  const narrowed = { ...(await linkOf(dir, 'writer')), cg: first, ops: ['read'] as const };
  await writeFile(paths.capability('writer'), formatCapabilityFile([signCapability(narrowed, operator)]));
  await pin(`${first}.2`);
  await renewGrants(layout);
  assert.deepEqual((await linkOf(dir, 'writer')).ops, ['read'], 'a person made it');
});

test('what a person narrowed is not widened, and a damaged count of beats signs nothing', async (t) => {
  const dir = await directory(t);
  const layout = await createOrOpenLayout(dir, small);
  const paths = layoutPaths(dir);
  const { signer: operator } = await openIdentity(paths.operatorKey);
  const full = await linkOf(dir, 'writer');
  const narrowed = { ...full, scope: { ...full.scope, cls: 'internal' as const } };
  await writeFile(paths.capability('writer'), formatCapabilityFile([signCapability(narrowed, operator)]));
  const door = await linkOf(dir, 'door');
  await letBeat(dir, Math.ceil(full.exp * 0.9));
  const pulse = join(paths.data('steward'), 'pulse.json');
  const text = await readFile(pulse, 'utf8');
  await writeFile(pulse, text.replace(/ \d+ /, ' 999999999999 '));
  await renewGrants(layout);
  assert.deepEqual(await linkOf(dir, 'door'), door);
  await writeFile(pulse, text);
  await renewGrants(layout);
  assert.equal((await linkOf(dir, 'writer')).scope.cls, 'internal');
  assert.ok((await linkOf(dir, 'door')).exp > door.exp);
});

test('a cluster that runs on renews once a day, and says when it cannot', async (t) => {
  const dir = await directory(t);
  const layout = await createOrOpenLayout(dir, small);
  const paths = layoutPaths(dir);
  const { exp } = await linkOf(dir, 'writer');
  await letBeat(dir, Math.ceil(exp * 0.6));
  t.mock.timers.enable({ apis: ['setInterval'] });
  const troubles: string[] = [];
  const kept = keepGrants(layout, (text) => troubles.push(text));
  t.mock.timers.tick(day - 1);
  assert.equal((await linkOf(dir, 'writer')).exp, exp);
  t.mock.timers.tick(1);
  await kept[Symbol.asyncDispose]();
  assert.equal((await linkOf(dir, 'writer')).exp, Math.ceil(exp * 0.6) + exp);
  assert.equal(troubles.join(), '');

  await rm(paths.operatorKey);
  const without = keepGrants(layout, (text) => troubles.push(text));
  t.mock.timers.tick(day);
  await without[Symbol.asyncDispose]();
  assert.match(troubles.join(), /^leave to ask custodians cannot be renewed: /);
  t.mock.timers.tick(3 * day);
  assert.equal(troubles.length, 1);
});

test('a cluster without custodians grants nothing', async (t) => {
  const dir = await directory(t);
  await createOrOpenLayout(dir, { nodes: 1, custodians: 0, port: 0 });
  await assert.rejects(readFile(layoutPaths(dir).capability('writer')), { code: 'ENOENT' });
});
