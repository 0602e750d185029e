import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { rename, writeFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { join } from 'node:path';
import { toHex } from '../core/bytes.ts';
import { describeError, type ErrorCode, type HoldfastError, isHoldfastError } from '../core/errors.ts';
import {
  keyProviderSuite,
  makeKey,
  readRequest,
  relabelled,
  unwrapped,
} from '../../test/suites/key-provider.ts';
import { type FakeTransit, type Fault, startFakeTransit } from '../../test/support/fake-transit.ts';
import { selfSigned } from '../../test/support/self-signed.ts';
import { baoSkip, startBao, type TransitServer } from '../../test/support/transit-server.ts';
import { openTransit, type TransitOptions, type TransitProvider } from './transit.ts';

let keysCount = 0;

for (const [name, start, skip] of [
  ['a server of the tests', () => startFakeTransit(), undefined],
  ['OpenBao', startBao, baoSkip],
] as const) {
  describe(`Transit at ${name}`, { skip: skip ?? false }, () => {
    let running: TransitServer | undefined;
    before(async () => {
      running = await start();
    });
    after(async () => {
      await running?.[Symbol.asyncDispose]();
    });
    serverTests(() => {
      assert(running !== undefined);
      return running;
    });
  });
}

/** What must hold at every server. */
function serverTests(server: () => TransitServer): void {
  keyProviderSuite('Transit', async () => {
    const options = { key: newKeyName(), create: true } as const;
    const provider = await openTransit(someOptions(server(), options));
    const foreign = await openTransit(someOptions(server(), { key: newKeyName(), create: true }));
    return {
      provider,
      foreign,
      reopen: () => openTransit(someOptions(server(), { ...options, create: false })),
      [Symbol.asyncDispose]: async () => {
        await provider[Symbol.asyncDispose]();
        await foreign[Symbol.asyncDispose]();
      },
    };
  });

  test('a wrap of another key under this key’s name does not open', async () => {
    await using provider = await openNew(server());
    await using other = await openNew(server());
    const { body } = await makeKey(other);
    const { key } = transitKek(provider);
    const moved = {
      ...body,
      wraps: body.wraps.map((wrap) => (wrap.t === 'transit' ? { ...wrap, key } : wrap)),
    };
    const [answer] = await provider.unwrap([moved], readRequest);
    assert(answer?.ok === false);
    assert.equal(answer.error.code, 'DECRYPT_FAILED');
  });

  test('follows the server’s key from version to version and retires the old ones', async () => {
    await using provider = await openNew(server());
    const { key } = transitKek(provider);
    const old = [await makeKey(provider), await makeKey(provider), await makeKey(provider)];
    await server().admin('POST', `transit/keys/${key}/rotate`, {});
    assert.deepEqual(await provider.keyState(), { latestVersion: 2, leastVersion: 1 });
    const fresh = await makeKey(provider);
    assert.equal(fresh.body.wraps[0]?.t === 'transit' && fresh.body.wraps[0].ver, 2);
    for (const { branchKey, body } of old) assert.deepEqual(await unwrapped(provider, body), branchKey);

    const answers = await provider.renew([...old, fresh].map(({ body }) => body));
    const renewed = answers.map((answer) => (answer.ok ? answer.wraps : assert.fail(answer.error)));
    assert.equal(renewed[3], undefined, 'the newest one needs nothing');
    await provider.retireBelow(2);
    for (const [index, { branchKey, body }] of old.entries()) {
      const [refused] = await provider.unwrap([body], readRequest);
      assert(refused?.ok === false);
      assert.equal(refused.error.code, 'KEY_UNAVAILABLE');
      assert.match(refused.error.message, /too old/);
      const wraps = renewed[index];
      assert(wraps?.[0]?.t === 'transit' && wraps[0].ver === 2);
      assert.deepEqual(await unwrapped(provider, { ...body, wraps }), branchKey);
    }
    await assert.rejects(provider.retireBelow(9), (error) => isHoldfastError(error, 'ARGUMENT_INVALID'));
  });

  test('renews all but the damaged ones of a request', async () => {
    await using provider = await openNew(server());
    const { key } = transitKek(provider);
    const made = [];
    for (let count = 0; count < 9; count++) made.push(await makeKey(provider));
    await server().admin('POST', `transit/keys/${key}/rotate`, {});
    const bodies = made.map(({ body }, index) =>
      index % 4 === 1 ? relabelled(body, { project: 'other' }) : body,
    );
    const answers = await provider.renew(bodies);
    assert.deepEqual(
      answers.map(({ ok }) => ok),
      made.map((_, index) => index % 4 !== 1),
    );
    for (const [index, { branchKey, body }] of made.entries()) {
      const answer = answers[index];
      if (answer?.ok === true) {
        assert(answer.wraps !== undefined);
        assert.deepEqual(await unwrapped(provider, { ...body, wraps: answer.wraps }), branchKey);
      } else {
        assert.match(String(answer?.error.message), new RegExp(toHex(body.bkId)));
      }
    }
  });

  test('wants a key that is derived and stays where it is, and makes none unasked', async () => {
    const options = { key: newKeyName() };
    await refuses(server(), options, 'ARGUMENT_INVALID', /does not exist .* not made anew/);
    await server().admin('POST', `transit/keys/${options.key}`, { derived: false });
    await refuses(server(), { ...options, create: true }, 'ARGUMENT_INVALID', /must be derived$/);
    const open = newKeyName();
    await server().admin('POST', `transit/keys/${open}`, { derived: true, exportable: true });
    await refuses(server(), { key: open }, 'ARGUMENT_INVALID', /must be not exportable$/);
  });

  test('logs in with a role, and is refused with a wrong secret', async () => {
    const key = newKeyName();
    await using admin = await openTransit(someOptions(server(), { key, create: true }));
    const { roleId, secretIdFile, folder } = server();
    const auth = { method: 'approle', roleId, secretIdFile } as const;
    await using provider = await openTransit(someOptions(server(), { key, auth }));
    const { branchKey, body } = await makeKey(provider);
    assert.deepEqual(await unwrapped(admin, body), branchKey);

    const wrong = join(folder, 'wrong-secret');
    await writeFile(wrong, 'not-the-secret', { mode: 0o600 });
    const bad = { ...auth, secretIdFile: wrong };
    const error = await refuses(server(), { key, auth: bad }, 'FORBIDDEN', /login with role/);
    assert(!inspect(error, { depth: 9, showHidden: true }).includes('not-the-secret'));
  });

  test('says so when the token is refused, without showing it', async () => {
    const tokenFile = join(server().folder, 'stale-token');
    await writeFile(tokenFile, 'hvs.stale-token-0815\n', { mode: 0o600 });
    const auth = { method: 'token-file', tokenFile } as const;
    const error = await refuses(server(), { auth }, 'FORBIDDEN', /status 403: .*permission denied/);
    assert(!inspect(error, { depth: 9, showHidden: true }).includes('0815'));
  });
}

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

  test('comes from a secret id that was wrapped, once', async () => {
    await using server = await startFakeTransit();
    const secretIdFile = join(server.folder, 'wrapping');
    await writeFile(secretIdFile, 'wrapping-token', { mode: 0o600 });
    server.wrappings.set('wrapping-token', 'fake-secret-id');
    const auth = { method: 'approle', roleId: server.roleId, secretIdFile, wrapped: true } as const;
    await using provider = await openNew(server, { auth });
    server.tokens.clear();
    await makeKey(provider); // logs in again with the secret id that it holds
    await refuses(server, { auth }, 'FORBIDDEN', /somebody else has it/);
  });

  test('is read again from its file when it was replaced', async () => {
    await using server = await startFakeTransit();
    const tokenFile = join(server.folder, 'agent-token');
    await writeFile(tokenFile, 'first', { mode: 0o600 });
    server.tokens.add('first');
    await using provider = await openNew(server, { auth: { method: 'token-file', tokenFile } });
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

function someOptions(server: TransitServer, changes: Partial<TransitOptions> = {}): TransitOptions {
  const auth = { method: 'token-file', tokenFile: server.tokenFile } as const;
  const clock = { now: () => 1000, monotonic: () => 0 };
  return { url: server.url, auth, key: newKeyName(), group: 'org', clock, pauseMs: 1, ...changes };
}

function openNew(server: TransitServer, changes: Partial<TransitOptions> = {}): Promise<TransitProvider> {
  return openTransit(someOptions(server, { create: true, ...changes }));
}

/** As the fake's role. */
function openRole(server: FakeTransit, changes: Partial<TransitOptions> = {}): Promise<TransitProvider> {
  const { roleId, secretIdFile } = server;
  return openNew(server, { auth: { method: 'approle', roleId, secretIdFile }, ...changes });
}

function transitKek(provider: TransitProvider): { key: string } {
  const kek = provider.kek();
  assert(kek.provider === 'transit');
  return kek;
}

async function refuses(
  server: TransitServer,
  changes: Partial<TransitOptions>,
  code: ErrorCode,
  message: RegExp,
): Promise<HoldfastError> {
  return rejects(openTransit(someOptions(server, changes)), code, message);
}

async function rejects(work: Promise<unknown>, code: ErrorCode, message: RegExp): Promise<HoldfastError> {
  const error: unknown = await work.then(
    () => assert.fail('it worked'),
    (error: unknown) => error,
  );
  assert(isHoldfastError(error, code), inspect(error));
  assert.match(error.message, message);
  return error;
}

function newKeyName(): string {
  return `kek-${keysCount++}`;
}
