// The Transit provider at a server that fails, lies, goes away or wants another token, and where it refuses to go at all.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { rename, writeFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { join } from 'node:path';
import { toHex } from '../core/bytes.ts';
import { describeError } from '../core/errors.ts';
import { makeKey, readRequest, relabelled, unwrapped } from '../../test/suites/key-provider.ts';
import { type Fault, startFakeTransit } from '../../test/support/fake-transit.ts';
import { selfSigned } from '../../test/support/self-signed.ts';
import {
  openAs,
  openNew,
  openRole,
  refuses,
  rejects,
  roleOf,
  transitKek,
} from '../../test/support/transit-providers.ts';
import { openTransit } from './transit.ts';

describe('a Transit server that misbehaves', () => {
  test('is asked again while it may come back, and not for ever', async () => {
    await using server = await startFakeTransit();
    await using provider = await openRole(server, { timeoutMs: 500 });
    const { branchKey, body } = await makeKey(provider);
    const faults: readonly Fault[] = [
      { status: 503, errors: ['Vault is sealed'] },
      { status: 429 },
      'reset',
      'silence',
    ];
    for (const fault of faults) {
      server.faults.push(fault, fault);
      assert.deepEqual(await unwrapped(provider, body), branchKey, inspect(fault));
    }
    server.asked.length = 0;
    server.faults.push({ status: 503 }, { status: 503 }, { status: 503, errors: ['Vault\n is sealed'] });
    await rejects(provider.unwrap([body], readRequest), 'KEY_UNAVAILABLE', /status 503: Vault is sealed$/);
    assert.equal(server.asked.length, 3);
    server.faults.push('silence', 'silence', 'silence');
    await rejects(provider.unwrap([body], readRequest), 'TIMEOUT', /did not answer within 500 ms/);
    server.faults.push({ status: 400, errors: ['what?'] });
    await rejects(provider.unwrap([body], readRequest), 'KEY_UNAVAILABLE', /status 400: what\?/);
    assert.equal(server.asked.length, 7, 'a refusal is not repeated');
    assert.deepEqual(await unwrapped(provider, body), branchKey);
  });

  test('is not believed when it talks nonsense', async () => {
    await using server = await startFakeTransit();
    await using provider = await openRole(server, { attemptsMax: 1 });
    const { body } = await makeKey(provider);
    for (const text of ['<html>', '{}', '[]', 'null', '{"data":{"batch_results":[]}}']) {
      server.faults.push({ status: 200, text });
      await rejects(provider.unwrap([body], readRequest), 'KEY_UNAVAILABLE', /./);
    }
    for (const item of ['{}', 'null', '{"plaintext":7}', '{"plaintext":"AAAA"}', '{"ciphertext":"x"}']) {
      server.faults.push({ status: 200, text: `{"data":{"batch_results":[${item}]}}` });
      const [answer] = await provider.unwrap([body], readRequest);
      assert(answer?.ok === false && answer.error.code === 'DECRYPT_FAILED', item);
    }
    for (const ct of ['', 'vault:v0:AA', 'vault:AA', 'other']) {
      server.faults.push({ status: 200, text: `{"data":{"batch_results":[{"ciphertext":"${ct}"}]}}` });
      await rejects(makeKey(provider), 'KEY_UNAVAILABLE', /Transit/);
    }
    server.faults.push({ status: 200, text: 'x'.repeat(5_000_000) });
    await rejects(makeKey(provider), 'KEY_UNAVAILABLE', /is not read/);
  });

  test('that fails a whole request over one item, as Vault up to 1.9 does, opens and renews what is good', async () => {
    await using server = await startFakeTransit();
    server.failsWhole = true;
    await using provider = await openRole(server);
    const { key } = transitKek(provider);
    const made = [await makeKey(provider), await makeKey(provider), await makeKey(provider)];
    await server.admin('POST', `transit/keys/${key}/rotate`, {});
    const bodies = made.map(({ body }, index) => (index === 1 ? relabelled(body, { project: 'x' }) : body));
    const opened = await provider.unwrap(bodies, readRequest);
    assert.deepEqual(
      opened.map((answer) => (answer.ok ? toHex(answer.branchKey) : answer.error.code)),
      made.map(({ branchKey }, index) => (index === 1 ? 'DECRYPT_FAILED' : toHex(branchKey))),
    );
    server.asked.length = 0;
    const answers = await provider.renew(bodies);
    assert.deepEqual(
      answers.map((answer) => (answer.ok ? answer.wraps?.length : answer.error.code)),
      [1, 'DECRYPT_FAILED', 1],
    );
    assert.deepEqual(server.warnings, []);
    // All three, the first two, each of these, the third: none of them twice.
    assert.equal(server.asked.filter((path) => path.includes('/rewrap/')).length, 5);
    server.faults.push(undefined, { status: 400, errors: ['what?'] });
    await rejects(provider.renew(bodies), 'KEY_UNAVAILABLE', /status 400: what\?/);
  });

  test('that answers a wrong secret id with 500, as Vault 1.13.0 does, is not asked again', async () => {
    await using server = await startFakeTransit();
    const options = { auth: roleOf(server) };
    server.faults.push({ status: 500, errors: ['invalid secret id'] });
    await refuses(server, options, 'FORBIDDEN', /login with role .* status 500: invalid secret id$/);
    assert.equal(server.asked.length, 1);
    server.faults.push({ status: 500, errors: ['out of memory'] });
    await refuses(server, options, 'ARGUMENT_INVALID', /does not exist/);
  });

  test('stops being asked when the caller gives up', async () => {
    await using server = await startFakeTransit();
    await using provider = await openRole(server, { timeoutMs: 60_000, pauseMs: 60_000 });
    const { body } = await makeKey(provider);
    for (const fault of ['silence', { status: 503 }] as const) {
      const controller = new AbortController();
      const reason = new Error('enough');
      server.asked.length = 0;
      server.faults.push(fault);
      const asked = provider.unwrap([body], { ...readRequest, signal: controller.signal });
      while (server.asked.length === 0) await new Promise(setImmediate);
      controller.abort(reason);
      await assert.rejects(asked, reason);
    }
  });

  test('says in its health that it is sealed or away', async () => {
    await using server = await startFakeTransit();
    await using provider = await openRole(server, { attemptsMax: 1 });
    server.sealed = true;
    assert.deepEqual(
      [(await provider.health()).ok, /sealed/.test((await provider.health()).text)],
      [false, true],
    );
    await server[Symbol.asyncDispose]();
    assert.match((await provider.health()).text, /cannot be reached/);
  });
});

describe('the token', () => {
  test('is replaced when the server refuses it, by one login for all', async () => {
    await using server = await startFakeTransit();
    await using provider = await openRole(server);
    const { branchKey, body } = await makeKey(provider);
    server.tokens.clear();
    server.asked.length = 0;
    const answers = await Promise.all([1, 2, 3].map(() => unwrapped(provider, body)));
    assert(answers.every((answer) => toHex(answer) === toHex(branchKey)));
    assert.equal(server.asked.filter((path) => path === 'auth/approle/login').length, 1);
  });

  test('is renewed by a login before its lease ends', async () => {
    await using server = await startFakeTransit();
    let now = 0;
    server.leaseSeconds = 30;
    await using provider = await openRole(server, { clock: { now: () => 1000, monotonic: () => now } });
    const logins = (): number => server.asked.filter((path) => path === 'auth/approle/login').length;
    await makeKey(provider);
    assert.equal(logins(), 1);
    now = 19_999;
    await makeKey(provider);
    assert.equal(logins(), 1);
    now = 20_000;
    await makeKey(provider);
    assert.equal(logins(), 2);
  });

  test('is read again from its file when it was replaced', async () => {
    await using server = await startFakeTransit();
    const tokenFile = join(server.folder, 'agent-token');
    await writeFile(tokenFile, 'first', { mode: 0o600 });
    server.tokens.add('first');
    await using provider = await openAs(server, { method: 'token-file', tokenFile });
    server.tokens.delete('first');
    server.tokens.add('second');
    await writeFile(`${tokenFile}.new`, 'second', { mode: 0o600 });
    await rename(`${tokenFile}.new`, tokenFile);
    await makeKey(provider);
    server.tokens.clear();
    await rejects(makeKey(provider), 'FORBIDDEN', /403/);
    await writeFile(tokenFile, 'with blank', { mode: 0o600 });
    await rejects(makeKey(provider), 'ARGUMENT_INVALID', /blanks/);
  });

  test('stands nowhere in the provider', async () => {
    await using server = await startFakeTransit();
    await using provider = await openRole(server);
    const shown = inspect(provider, { depth: 20, showHidden: true }) + JSON.stringify(provider);
    for (const secret of [...server.tokens, 'fake-secret-id']) assert(!shown.includes(secret));
  });
});

test('trusts the certificate authority that it was given, and no other', async () => {
  const { key, cert } = selfSigned();
  await using server = await startFakeTransit({ key, cert });
  const caFile = join(server.folder, 'ca.pem');
  await writeFile(caFile, cert);
  await using provider = await openNew(server, { caFile });
  assert.equal((await makeKey(provider)).branchKey.length, 32);
  await writeFile(caFile, selfSigned().cert);
  const error = await refuses(server, { caFile, attemptsMax: 1 }, 'KEY_UNAVAILABLE', /cannot be reached/);
  assert.match(describeError(error), /self-signed|unable to verify/);
  await refuses(server, { attemptsMax: 1 }, 'KEY_UNAVAILABLE', /cannot be reached/);
});

test('takes no address over which a token would travel in the clear', async () => {
  const { now, monotonic } = { now: () => 0, monotonic: () => 0 };
  const rest = {
    key: 'k',
    group: 'g',
    clock: { now, monotonic },
    auth: { method: 'token-file', tokenFile: '/x' },
  } as const;
  for (const url of [
    'http://bao.example.org:8200',
    'ftp://127.0.0.1',
    'nothing',
    'https://user:pw@bao.example.org',
  ])
    await rejects(openTransit({ ...rest, url }), 'ARGUMENT_INVALID', /https/);
  await rejects(
    openTransit({ ...rest, url: 'https://127.0.0.1:1', caFile: '/nowhere/ca.pem' }),
    'FILE_UNREADABLE',
    /ca\.pem/,
  );
  await rejects(
    openTransit({ ...rest, url: 'https://127.0.0.1:1', key: '../x' }),
    'ARGUMENT_INVALID',
    /no name/,
  );
});
