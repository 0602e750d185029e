// Real processes, each with a share behind a passphrase.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { main } from '../../test/helpers/command-line.ts';
import { groups, random } from '../../test/support/ceremony-world.ts';
import { concat, toHex } from '../core/bytes.ts';
import { signerFromSeed } from '../core/hash.ts';
import { type ColdOpening, type ColdTask, coldContext } from '../custody/cold-share.ts';
import { canaryProject } from '../custody/scope.ts';
import { exportShare } from '../custody/share-export.ts';
import { encodeLabel } from '../envelope/label.ts';
import { verifyDleq } from '../threshold/dleq.ts';
import { encrypt } from '../threshold/tdh2.ts';
import { ColdProcess } from './cold-process.ts';

const { signal } = new AbortController();
const signer = signerFromSeed(random(32));
const x = groups.kek.scalar.random(random);
const Y = groups.kek.base(groups.kek.scalar.random(random));
const passphrase = 'a long enough passphrase';
let dir = '';
let opening: ColdOpening;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-cold-process-'));
  await writeFile(file('secret'), passphrase, { mode: 0o600 });
  const head = { cg: 'cg-test', kekVer: 1, shareGen: 1, i: 1, beat: 1, by: signer.publicKey };
  const secret = concat(x, groups.frost.scalar.random(random));
  const to = { passphrase: new Uint8Array(Buffer.from(passphrase)) };
  const message = await exportShare(head, secret, to, signer);
  opening = { purpose: 'drill', message, by: signer.publicKey, Y };
});
after(async () => {
  await rm(dir, { recursive: true, force: true });
});

test('one process opens a share once and answers page after page; nothing secret is in its words, and it ends', async () => {
  const cold = await ColdProcess.open(main, opening, file('secret'), signal);
  try {
    for (const count of [1, 3, 256]) {
      const task = taskOf(count);
      const { D, proof } = await cold.use(task);
      const C = task.items.map(({ wrap }) => wrap.U);
      const statement = { context: coldContext(task), B: groups.kek.base(x), C, D };
      assert.ok(verifyDleq(groups.kek, statement, proof));
    }
    // What is wrong with one task is no reason for it to end.
    await assert.rejects(cold.use(taskOf(1, 'somebody')), { code: 'FORBIDDEN' });
    await assert.rejects(cold.use(taskOf(0)), { code: 'ARGUMENT_INVALID', message: /1 to 256 wraps/ });
    const many = Array.from({ length: 257 }, () => taskOf(1).items).flat();
    await assert.rejects(cold.use({ ...taskOf(1), items: many }), /up to 256 items expected/);
    await cold.use(taskOf(1));
    const seen = `${await of(cold.pid, 'cmdline')}${await of(cold.pid, 'environ')}`;
    for (const word of [passphrase, toHex(x), Buffer.from(x).toString('base64')])
      assert.ok(seen.includes('cold-share') && !seen.includes(word));
    assert.match(await of(cold.pid, 'limits'), /Max core file size +0 +0/);
  } finally {
    await cold[Symbol.asyncDispose]();
  }
  assert.ok(!isThere(cold.pid));
  await assert.rejects(cold.use(taskOf(1)), { code: 'INTERNAL', message: /ended without an answer/ });
});

test('what is wrong with an export or its secret is told, and no process is left', async () => {
  await writeFile(file('wrong'), 'another long passphrase', { mode: 0o600 });
  const cases: [opening: Partial<ColdOpening>, secret: string, code: string][] = [
    [{}, 'wrong', 'DECRYPT_FAILED'],
    [{}, 'none', 'FILE_NOT_FOUND'],
    [{ by: random(32) }, 'secret', 'RECORD_INVALID'],
    [{ message: random(64) }, 'secret', 'RECORD_INVALID'],
  ];
  for (const [change, secret, code] of cases)
    await assert.rejects(ColdProcess.open(main, { ...opening, ...change }, file(secret), signal), { code });
  assert.deepEqual(await childrenOf(process.pid), []);
});

test('who is killed, or given up, is told at once and leaves nothing', async () => {
  const killed = await ColdProcess.open(main, opening, file('secret'), signal);
  const asked = killed.use(taskOf(256));
  process.kill(killed.pid ?? 0, 'SIGKILL');
  await assert.rejects(asked, { code: 'INTERNAL' });
  await killed[Symbol.asyncDispose]();
  const stop = new AbortController();
  const stopped = await ColdProcess.open(main, opening, file('secret'), stop.signal);
  stop.abort(new Error('Ctrl-C'));
  await assert.rejects(stopped.use(taskOf(1)), /Ctrl-C/);
  await stopped[Symbol.asyncDispose]();
  assert.deepEqual(await childrenOf(process.pid), []);
});

test('a share does not outlive kill -9 of who opened it', async () => {
  const parent = spawn(
    process.execPath,
    [fileURLToPath(new URL('../../test/helpers/cold-parent.child.ts', import.meta.url)), file('secret')],
    { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], serialization: 'advanced' },
  );
  parent.send(opening);
  const [pid]: unknown[] = await once(parent, 'message');
  assert.ok(typeof pid === 'number' && isThere(pid));
  parent.kill('SIGKILL');
  await once(parent, 'exit');
  for (const deadline = AbortSignal.timeout(10_000); isThere(pid); await delay(20))
    assert.ok(!deadline.aborted, 'the process of the share is still there');
});

// Helpers

function file(name: string): string {
  return join(dir, name);
}

function taskOf(count: number, project = canaryProject): ColdTask {
  const items = Array.from({ length: count }, () => {
    const scope = { project, cls: 'internal', writer: random(32), window: [1, 2] } as const;
    const key = { cg: 'cg-test', kekVer: 1, bkId: random(16), bkVer: 1 };
    const label = encodeLabel({ v: 1, ...key, ...scope, policy: null });
    return { label, wrap: encrypt(groups.kek, Y, label, random).wrap };
  });
  return { nonce: random(32), items };
}

function of(pid: number | undefined, what: string): Promise<string> {
  return readFile(`/proc/${pid}/${what}`, 'latin1');
}

function isThere(pid: number | undefined): boolean {
  try {
    process.kill(pid ?? 0, 0);
    return true;
  } catch {
    return false;
  }
}

async function childrenOf(pid: number): Promise<string[]> {
  return (await readFile(`/proc/${pid}/task/${pid}/children`, 'latin1'))
    .split(' ')
    .filter((each) => each !== '');
}
