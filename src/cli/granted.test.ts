import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { someSigner } from '../../test/support/custody-records.ts';
import { signCapability } from '../custody/capability.ts';
import { fullCapability } from '../custody/default-policy.ts';
import { layoutPaths } from '../local/layout.ts';
import { idOf, keepGranted, readGranted, readGrantedFile } from './granted.ts';

const operator = someSigner('operator');
const reader = someSigner('reader');

async function directory(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-granted-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

function chainTo(exp: number): readonly Uint8Array[] {
  const [iss, aud] = [operator.publicKey, reader.publicKey];
  return [signCapability(fullCapability({ cg: 'cg-test', iss, aud, nbf: 0, exp }), operator)];
}

test('what is granted is kept with where it was written, for its owner only, and once', async (t) => {
  const data = await directory(t);
  assert.deepEqual(await readGranted(data, assert.fail), []);
  const file = '/where it/went "to".cap';
  for (const exp of [900, 100, 900]) await keepGranted(data, chainTo(exp), { file, beat: 5 });
  const found = await readGranted(data, assert.fail);
  assert.deepEqual(
    found.map(({ file: at, last, chain }) => [at, last.exp, chain]),
    [
      [file, 100, chainTo(100)],
      [file, 900, chainTo(900)],
    ],
  );
  const { granted } = layoutPaths(data);
  for (const path of [granted, join(granted, `${idOf(chainTo(100))}.cap`)])
    assert.equal((await stat(path)).mode & 0o077, 0, path);
});

test('a list that is full loses what has ended, and takes nothing more when all of it is good', async (t) => {
  const data = await directory(t);
  await keepGranted(data, chainTo(100), { file: 'a', beat: 5 });
  const { granted } = layoutPaths(data);
  // As many as there may be: the same one under other names.
  const text = await readFile(join(granted, `${idOf(chainTo(100))}.cap`));
  await Promise.all(Array.from({ length: 4095 }, (_, at) => writeFile(join(granted, `${at}.cap`), text)));
  await assert.rejects(keepGranted(data, chainTo(900), { file: 'b', beat: 100 }), {
    code: 'TOO_LARGE',
    message: /holds 4096 capabilities that are good still/,
  });
  await keepGranted(data, chainTo(900), { file: 'b', beat: 101 });
  assert.deepEqual(await readdir(granted), [`${idOf(chainTo(900))}.cap`]);
});

test('a file that holds no capability is named, and the others are read', async (t) => {
  const data = await directory(t);
  await keepGranted(data, chainTo(900), { file: 'a', beat: 5 });
  await writeFile(join(layoutPaths(data).granted, 'torn.cap'), 'AA');
  const told: string[] = [];
  assert.equal((await readGranted(data, (text) => told.push(text))).length, 1);
  assert.match(told.join(), /torn\.cap holds no capability that can be read: /);
  const path = join(data, 'x.cap');
  await assert.rejects(readGrantedFile(path), { code: 'FILE_NOT_FOUND' });
  await writeFile(path, '# holdfast capability: none\nAAAA\n');
  await assert.rejects(readGrantedFile(path), {
    code: 'RECORD_INVALID',
    message: /x\.cap holds no capability/,
  });
});
