// What a Transit engine answers to the requests that our provider makes, and to damaged ones: status, texts of errors
// and results. A real server, where there is one, and the small one of the tests must say the same; every word that
// the provider reads meaning into stands here.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fieldOf } from '../core/shape.ts';
import { asBuffer } from '../core/bytes.ts';
import { startFakeTransit } from '../../test/support/fake-transit.ts';
import { baoSkip, startBao, type TransitServer } from '../../test/support/transit-server.ts';
import { readSecretFile } from './secret-file.ts';

const plaintext = Buffer.alloc(32, 7).toString('base64');
const context = Buffer.alloc(32, 1).toString('base64');
const otherContext = Buffer.alloc(32, 2).toString('base64');
const noContext = /^missing 'context' for key derivation; the key was created using a derived key/;
const tooOld = 'ciphertext or signature version is disallowed by policy (too old)';
const unauthentic = 'cipher: message authentication failed';

/** A text or pattern is the error of an item, `ok` its success. */
type Expected = string | RegExp | { readonly ok: string | number };

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

let server: TransitServer;
let adminToken: string;

for (const [name, start, skip] of [
  ['a server of the tests', () => startFakeTransit(), undefined],
  ['OpenBao or Vault', startBao, baoSkip],
] as const) {
  describe(`the answers of ${name}`, { skip: skip ?? false }, () => {
    before(async () => {
      server = await start();
      adminToken = asBuffer(await readSecretFile(server.tokenFile, 'token')).toString();
    });
    after(async () => {
      await server[Symbol.asyncDispose]();
    });
    answerTests();
  });
}

function answerTests(): void {
  test('to a key that is made, read, rotated and set up', async () => {
    failsWith(await ask('GET', 'transit/keys/one'), 404);
    const fresh = { type: 'aes256-gcm96', derived: true, latest_version: 1, min_decryption_version: 1 };
    const closed = { exportable: false, allow_plaintext_backup: false, deletion_allowed: false };
    await makeKey('one');
    hasData(await ask('GET', 'transit/keys/one'), { convergent_encryption: false, ...fresh, ...closed });
    // Made again, it is as it was.
    await server.admin('POST', 'transit/keys/one', { derived: true, exportable: true });
    hasData(await ask('GET', 'transit/keys/one'), { ...fresh, ...closed });
    await server.admin('POST', 'transit/keys/flat', {});
    hasData(await ask('GET', 'transit/keys/flat'), { derived: false, convergent_encryption: undefined });
    failsWith(await ask('POST', 'transit/keys/odd', { type: 'odd' }), 400, 'unknown key type odd');
    failsWith(await ask('POST', 'transit/keys/none/rotate', {}), 400, 'key not found');
    const config = 'transit/keys/one/config';
    const unknown = await ask('POST', 'transit/keys/none/config', { min_decryption_version: 1 });
    failsWith(unknown, 400, 'no existing key named none could be found');
    const future = await ask('POST', config, { min_decryption_version: 2 });
    failsWith(future, 400, 'cannot set min decryption version of 2, latest key version is 1');
    const negative = await ask('POST', config, { min_decryption_version: -1 });
    failsWith(negative, 400, 'min decryption version cannot be negative');
    await ask('POST', 'transit/keys/one/rotate', {});
    await server.admin('POST', config, { min_decryption_version: 2 });
    hasData(await ask('GET', 'transit/keys/one'), { latest_version: 2, min_decryption_version: 2 });
  });

  test('to what it encrypts', async () => {
    await makeKey('enc');
    const batch = (...items: readonly object[]): Promise<Answer> =>
      ask('POST', 'transit/encrypt/enc', withCode(items));
    const good = { plaintext, context };
    hasResults(await batch(good, good), 200, [{ ok: 'vault:v1:' }, { ok: 'vault:v1:' }]);
    hasResults(await batch({ plaintext }), 400, [noContext]);
    const illegal = 'illegal base64 data at input byte 0';
    hasResults(await batch({ plaintext, context: '***' }), 400, [illegal]);
    hasResults(await batch({ plaintext: '***', context }, good), 200, [illegal, { ok: 'vault:v1:' }]);
    const mixed = 'context should be set either in all the request blocks or in none';
    failsWith(await batch({ plaintext }, good), 400, mixed);
    failsWith(await batch(), 400, 'missing batch input to process');
    failsWith(await ask('POST', 'transit/encrypt/enc', {}), 400, 'missing plaintext to encrypt');
    failsWith(await ask('POST', 'transit/decrypt/enc', {}), 400, 'missing ciphertext to decrypt');
  });

  for (const operation of ['decrypt', 'rewrap'] as const) {
    // Only decryption has a status for a batch that failed, and one for a batch that failed in part.
    const failed = operation === 'decrypt' ? 400 : 200;
    const success = operation === 'decrypt' ? plaintext : 'vault:v1:';

    test(`to damaged texts that it must ${operation}`, async () => {
      await makeKey(`bad-${operation}`);
      const own = await wrapOf(`bad-${operation}`);
      const zeros = (sizeBytes: number): string => Buffer.alloc(sizeBytes).toString('base64');
      const cases: readonly (readonly [ciphertext: string, Expected])[] = [
        ['', 'missing ciphertext to decrypt'],
        ['nothing', 'invalid ciphertext: no prefix'],
        ['vault:v1', 'invalid ciphertext: wrong number of fields'],
        ['vault:vX:AAAA', 'invalid ciphertext: version number could not be decoded'],
        [`vault:v${'9'.repeat(20)}:AAAA`, 'invalid ciphertext: version number could not be decoded'],
        ['vault:v-1:AAAA', tooOld],
        ['vault:v2:AAAA', 'invalid ciphertext: version is too new'],
        ['vault:v1:***', 'invalid ciphertext: could not decode base64'],
        ['vault:v1:AAA', 'invalid ciphertext: could not decode base64'],
        [`${own}:`, 'invalid ciphertext: could not decode base64'],
        [`vault:v1:${zeros(5)}`, 'invalid ciphertext length'],
        [`vault:v1:${zeros(12)}`, unauthentic],
        [`vault:v1:${zeros(20)}`, unauthentic],
        [`vault:v1:${zeros(60)}`, unauthentic],
        [own.replace('v1', 'v0'), { ok: success }],
        [`${own}\n`, { ok: success }],
      ];
      const path = `transit/${operation}/bad-${operation}`;
      for (const [ciphertext, expected] of cases) {
        const ok = typeof expected === 'object' && 'ok' in expected;
        hasResults(await ask('POST', path, withCode([{ ciphertext, context }])), ok ? 200 : failed, [
          expected,
        ]);
      }
    });

    test(`to a batch that it can ${operation} in part`, async () => {
      await makeKey(`part-${operation}`);
      const ciphertext = await wrapOf(`part-${operation}`);
      const path = `transit/${operation}/part-${operation}`;
      const items = [
        { ciphertext, context },
        { ciphertext, context: otherContext },
      ];
      const answer = await ask('POST', path, withCode(items));
      hasResults(answer, 200, [{ ok: success }, unauthentic]);
      if (operation === 'rewrap')
        assert.match(String(fieldOf(answer.body, 'warnings')), /ignored .*response_code/);
      hasResults(await ask('POST', path, { batch_input: items }), failed, [{ ok: success }, unauthentic]);
      hasResults(await ask('POST', path, withCode(items.slice(1))), failed, [unauthentic]);
      hasResults(await ask('POST', path, withCode([{ ciphertext }])), failed, [noContext]);
      const unknown = await ask('POST', `transit/${operation}/none`, withCode(items));
      failsWith(unknown, 400, 'encryption key not found');
    });

    test(`to wraps of an older version that it must ${operation}`, async () => {
      const key = `old-${operation}`;
      await makeKey(key);
      const ciphertext = await wrapOf(key);
      await ask('POST', `transit/keys/${key}/rotate`, {});
      const path = `transit/${operation}/${key}`;
      const items = withCode([{ ciphertext, context }]);
      const newest = operation === 'decrypt' ? plaintext : 'vault:v2:';
      hasResults(await ask('POST', path, items), 200, [{ ok: newest }]);
      await ask('POST', `transit/keys/${key}/config`, { min_decryption_version: 2 });
      hasResults(await ask('POST', path, items), failed, [tooOld]);
    });
  }

  test('to more strings in a request than OpenBao takes', async (t) => {
    await makeKey('many');
    const ciphertext = await wrapOf('many');
    const items = (count: number): object =>
      withCode(Array.from({ length: count }, () => ({ ciphertext, context })));
    const full = await ask('POST', 'transit/decrypt/many', items(249));
    hasResults(
      full,
      200,
      Array.from({ length: 249 }, () => ({ ok: plaintext })),
    );
    const over = await ask('POST', 'transit/decrypt/many', items(250));
    if (over.status === 200) return t.diagnostic('this server is Vault, which does not count them');
    failsWith(over, 400, 'refused JSON input due to high complexity: exceeded maximum number of strings');
  });

  test('to tokens that may not', async () => {
    await makeKey('guarded');
    const ciphertext = await wrapOf('guarded');
    for (const token of ['hvs.unknown', ''])
      failsWith(await ask('GET', 'transit/keys/guarded', undefined, token), 403, /permission denied/);
    const role = await loginToken();
    const denied = /^1 error occurred:\n\t\* permission denied\n\n$/;
    const item = withCode([{ plaintext, context }]);
    hasResults(await ask('POST', 'transit/encrypt/guarded', item, role), 200, [{ ok: 'vault:v1:' }]);
    failsWith(await ask('POST', 'transit/encrypt/unknown', item, role), 403, denied);
    const decrypt = withCode([{ ciphertext, context }]);
    const unknown = await ask('POST', 'transit/decrypt/unknown', decrypt, role);
    failsWith(unknown, 400, 'encryption key not found');
    failsWith(await ask('GET', 'transit/keys/unknown', undefined, role), 404);
    failsWith(await ask('POST', 'transit/keys/unknown', { derived: true }, role), 403, denied);
    const config = await ask('POST', 'transit/keys/guarded/config', { min_decryption_version: 1 }, role);
    failsWith(config, 403, denied);
    failsWith(await ask('GET', 'nowhere/keys/one', undefined, role), 403, denied);
    failsWith(await ask('GET', 'nowhere/keys/one'), 404, /^no handler for route "nowhere\/keys\/one"/);
    failsWith(await ask('GET', 'transit/nothing/one'), 404, /unsupported path/);
    // One that may create makes a key by the mere name: why the role may not, and why ours looks first.
    hasResults(await ask('POST', 'transit/encrypt/by-name', item), 200, [{ ok: 'vault:v1:' }]);
    hasData(await ask('GET', 'transit/keys/by-name'), { derived: true });
  });

  test('to logins and wrappings', async () => {
    const secret = asBuffer(await readSecretFile(server.secretIdFile, 'secret id')).toString();
    const refused = 'invalid role or secret ID';
    const login = (role_id: string, secret_id: string): Promise<Answer> =>
      ask('POST', 'auth/approle/login', { role_id, secret_id }, '');
    const wrong = await login(server.roleId, 'wrong');
    // Vault 1.13.0 alone says it so.
    if (wrong.status === 500) failsWith(wrong, 500, 'invalid secret id');
    else failsWith(wrong, 400, refused);
    failsWith(await login('wrong', secret), 400, /^invalid role( or secret)? ID$/);
    const { status, body } = await login(server.roleId, secret);
    assert.equal(status, 200);
    assert.equal(fieldOf(fieldOf(body, 'auth'), 'lease_duration'), 600);
    const wrapping = await server.wrapSecretId();
    const unwrap = (token: string): Promise<Answer> => ask('POST', 'sys/wrapping/unwrap', undefined, token);
    assert.equal(typeof fieldOf(fieldOf((await unwrap(wrapping)).body, 'data'), 'secret_id'), 'string');
    const gone = 'wrapping token is not valid or does not exist';
    for (const token of [wrapping, 'hvs.unknown']) failsWith(await unwrap(token), 400, gone);
  });

  test('while it is sealed', async () => {
    const path = 'sys/health?standbyok=true&perfstandbyok=true';
    const open = await ask('GET', path, undefined, '');
    await server.seal();
    const closed = await ask('GET', path, undefined, '');
    const refusals = [
      await ask('GET', 'transit/keys/one'),
      await ask('POST', 'auth/approle/login', { role_id: 'x', secret_id: 'y' }, ''),
      await ask('POST', 'sys/wrapping/unwrap', undefined, 'z'),
    ];
    await server.unseal();
    assert.deepEqual([open.status, fieldOf(open.body, 'sealed')], [200, false]);
    assert.deepEqual([closed.status, fieldOf(closed.body, 'sealed')], [503, true]);
    for (const refusal of refusals) failsWith(refusal, 503, 'Vault is sealed');
  });

  test('inside a namespace', async (t) => {
    const { namespace } = server;
    if (namespace === undefined) return t.diagnostic('this server has no namespaces');
    const inside = (name: string, path: string): Promise<Answer> =>
      ask('GET', path, undefined, adminToken, { 'x-vault-namespace': name });
    failsWith(await inside(namespace, 'sys/health'), 400, 'operation unavailable in namespaces');
    failsWith(await inside(namespace, 'transit/keys/enc'), 404);
    failsWith(await inside('nowhere', 'transit/keys/enc'), 404, 'namespace not found');
  });
}

async function ask(
  method: string,
  path: string,
  body?: object,
  token = adminToken,
  headers: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const response = await fetch(`${server.url}/v1/${path}`, {
    method,
    headers: { ...headers, ...(token === '' ? {} : { 'x-vault-token': token }) },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === '' ? undefined : JSON.parse(text) };
}

function withCode(batch_input: readonly object[]): object {
  return { batch_input, partial_failure_response_code: 200 };
}

async function makeKey(name: string): Promise<void> {
  await server.admin('POST', `transit/keys/${name}`, { derived: true });
}

async function wrapOf(key: string): Promise<string> {
  const answer = await ask('POST', `transit/encrypt/${key}`, withCode([{ plaintext, context }]));
  return String(fieldOf(resultsOf(answer)[0], 'ciphertext'));
}

async function loginToken(): Promise<string> {
  const secret = asBuffer(await readSecretFile(server.secretIdFile, 'secret id')).toString();
  const body = { role_id: server.roleId, secret_id: secret };
  const answer = await ask('POST', 'auth/approle/login', body, '');
  return String(fieldOf(fieldOf(answer.body, 'auth'), 'client_token'));
}

function resultsOf({ body }: Answer): readonly unknown[] {
  const results = fieldOf(fieldOf(body, 'data'), 'batch_results');
  assert(Array.isArray(results), JSON.stringify(body));
  return results;
}

/** Without a text, the list of errors is there and empty. */
function failsWith({ status, body }: Answer, wanted: number, text?: string | RegExp): void {
  const errors = fieldOf(body, 'errors');
  assert(Array.isArray(errors), JSON.stringify(body));
  assert.equal(status, wanted, String(errors));
  if (text === undefined) assert.deepEqual(errors, []);
  else if (typeof text === 'string') assert.deepEqual(errors, [text]);
  else assert.match(String(errors[0]), text);
}

function hasData({ status, body }: Answer, wanted: Readonly<Record<string, unknown>>): void {
  assert.equal(status, 200, JSON.stringify(body));
  const data = fieldOf(body, 'data');
  for (const [name, value] of Object.entries(wanted)) assert.equal(fieldOf(data, name), value, name);
}

function hasResults(answer: Answer, status: number, wanted: readonly Expected[]): void {
  const results = resultsOf(answer);
  assert.equal(answer.status, status, JSON.stringify(results[0]));
  assert.equal(results.length, wanted.length);
  for (const [index, expected] of wanted.entries()) {
    const error = fieldOf(results[index], 'error');
    if (typeof expected === 'object' && 'ok' in expected) {
      const text = fieldOf(results[index], 'plaintext') ?? fieldOf(results[index], 'ciphertext');
      assert(error === undefined && String(text).startsWith(String(expected.ok)), String(error));
    } else if (typeof expected === 'string') {
      assert.equal(error, expected);
    } else {
      assert.match(String(error), expected);
    }
  }
}
