import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { verifySignature } from '../core/hash.ts';
import { createIdentity, openIdentity, openOrCreateIdentity } from './identity.ts';

async function keyPath(context: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-identity-'));
  context.after(() => rm(dir, { recursive: true }));
  return join(dir, 'identity.key');
}

test('the key is created once, private, and read back as the same peer', async (context) => {
  const path = await keyPath(context);
  const first = await openOrCreateIdentity(path);
  const second = await openOrCreateIdentity(path);
  assert.equal(second.name, first.name);
  assert.match(first.name, /^12D3KooW/);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(join(path, '..')), ['identity.key']);
});

test('the signer signs with the key of the peer id', async (context) => {
  const { signer, privateKey } = await openOrCreateIdentity(await keyPath(context));
  const message = utf8('message');
  assert.deepEqual(signer.publicKey, new Uint8Array(privateKey.publicKey.raw));
  assert.ok(verifySignature(signer.publicKey, message, signer.sign(message)));
  assert.ok(await privateKey.publicKey.verify(message, signer.sign(message)));
});

test('a key that others may read is refused', async (context) => {
  const path = await keyPath(context);
  await createIdentity(path);
  await chmod(path, 0o640);
  await assert.rejects(openOrCreateIdentity(path), (error) => isHoldfastError(error, 'FORBIDDEN'));
});

test('a damaged key is refused and left as it is', async (context) => {
  const path = await keyPath(context);
  await createIdentity(path);
  const good = await readFile(path, 'utf8');
  const flipped = good.replace(/\n(.)/, (_, digit: string) => `\n${digit === '0' ? '1' : '0'}`);
  for (const damaged of [flipped, good.slice(0, 40), '', good.toUpperCase(), `${good}x`]) {
    await writeFile(path, damaged);
    await assert.rejects(
      openOrCreateIdentity(path),
      (error) => isHoldfastError(error, 'RECORD_CORRUPT'),
      damaged,
    );
    assert.equal(await readFile(path, 'utf8'), damaged);
  }
  await truncate(path, 0);
  await assert.rejects(openOrCreateIdentity(path), (error) => isHoldfastError(error, 'RECORD_CORRUPT'));
});

test('creating never replaces a key', async (context) => {
  const path = await keyPath(context);
  const { name } = await createIdentity(path);
  await assert.rejects(createIdentity(path), (error) => isHoldfastError(error, 'FILE_UNREADABLE'));
  assert.equal((await openIdentity(path)).name, name);
});
