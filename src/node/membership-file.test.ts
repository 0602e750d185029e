import assert from 'node:assert/strict';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { isHoldfastError } from '../core/errors.ts';
import { signerFromSeed } from '../core/hash.ts';
import { openMembershipFile } from './membership-file.ts';
import { type Membership, signMembership } from './membership.ts';

const operator = signerFromSeed(new Uint8Array(32).fill(7));
const operatorKey = operator.publicKey;

function version(number: number): Membership {
  return { v: 1, cluster: 'test', version: number, members: [] };
}

async function paths(context: TestContext): Promise<{ path: string; seenPath: string }> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-membership-'));
  context.after(() => rm(dir, { recursive: true }));
  return { path: join(dir, 'membership.json'), seenPath: join(dir, 'seen.json') };
}

async function replace(path: string, membership: Membership): Promise<void> {
  await writeFile(`${path}.new`, signMembership(membership, operator));
  await rename(`${path}.new`, path);
}

test('a newer document is taken over live, by the poll alone', async (context) => {
  const { path } = await paths(context);
  await replace(path, version(1));
  const { promise, resolve } = Promise.withResolvers<Membership>();
  await using file = await openMembershipFile({ path, operatorKey, pollMs: 10, onChange: resolve });
  await replace(path, version(2));
  assert.equal((await promise).version, 2);
  assert.equal(file.current().version, 2);
});

test('an older, damaged or missing document changes nothing and is reported once', async (context) => {
  const { path } = await paths(context);
  await replace(path, version(5));
  const refused: string[] = [];
  await using file = await openMembershipFile({
    path,
    operatorKey,
    pollMs: 60_000,
    onRefused: (error) => refused.push(error.code),
  });
  await replace(path, version(4));
  await file.refresh();
  await file.refresh();
  await writeFile(path, '{');
  await file.refresh();
  await rm(path);
  await file.refresh();
  await file.refresh();
  assert.deepEqual(refused, ['RECORD_INVALID', 'RECORD_INVALID', 'FILE_NOT_FOUND']);
  assert.equal(file.current().version, 5);
  await replace(path, version(6));
  await file.refresh();
  assert.equal(file.current().version, 6);
});

test('after a restart an older document than was seen is refused', async (context) => {
  const { path, seenPath } = await paths(context);
  await replace(path, version(3));
  await (await openMembershipFile({ path, operatorKey, seenPath }))[Symbol.asyncDispose]();
  await replace(path, version(2));
  await assert.rejects(
    openMembershipFile({ path, operatorKey, seenPath }),
    (error) => isHoldfastError(error, 'RECORD_INVALID') && /older than version 3/.test(error.message),
  );
});

test('a missing document at start is FILE_NOT_FOUND', async (context) => {
  const { path } = await paths(context);
  await assert.rejects(openMembershipFile({ path, operatorKey }), (error) =>
    isHoldfastError(error, 'FILE_NOT_FOUND'),
  );
});
