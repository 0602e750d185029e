import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseProviderConfig } from './provider-config.ts';

const path = '/cluster/custody/provider.json';
const hsm = { type: 'pkcs11', module: '/lib/hsm.so', token: 'holdfast', key: 'keys', pinFile: 'pin' };
const auth = { method: 'approle', roleId: 'role', secretIdFile: 'secret-id' };
const vault = { type: 'transit', address: 'https://bao.example.org:8200', key: 'holdfast', auth };

function parse(fields: object) {
  return parseProviderConfig(
    JSON.stringify({ format: 'holdfast-key-providers', version: 1, ...fields }),
    path,
  );
}

/** The refusal of one field, which must name file and field. */
function refused(fields: object, field: string, expected: RegExp): void {
  assert.throws(
    () => parse(fields),
    (error: unknown) => {
      assert(error instanceof Error && 'code' in error);
      assert.equal(error.code, 'ARGUMENT_INVALID');
      assert.ok(error.message.startsWith(`${path}: ${field}: `), error.message);
      assert.match(error.message, expected);
      return true;
    },
  );
}

describe('the configuration of key providers', () => {
  it('reads every kind, with files relative to its own directory', () => {
    const tokenFile = { method: 'token-file', tokenFile: '../token' };
    const config = parse({
      providers: {
        hsm,
        vault: { ...vault, mount: 'eng/transit', caFile: '/ca.pem', namespace: 'org', group: 'org-1' },
        agent: { ...vault, auth: tokenFile },
      },
      make: { any: ['custodians', 'hsm'] },
      recovery: { publicKey: '09'.repeat(32) },
    });
    const [token, transit, agent] = config.entries;
    assert.deepEqual(token, {
      type: 'pkcs11',
      name: 'hsm',
      group: 'hsm',
      modulePath: '/lib/hsm.so',
      token: 'holdfast',
      key: 'keys',
      pinFile: '/cluster/custody/pin',
    });
    assert.deepEqual(transit, {
      type: 'transit',
      name: 'vault',
      group: 'org-1',
      url: vault.address,
      mount: 'eng/transit',
      key: 'holdfast',
      auth: {
        method: 'approle',
        roleId: 'role',
        secretIdFile: '/cluster/custody/secret-id',
        wrapped: false,
        mount: 'approle',
      },
      caFile: '/ca.pem',
      namespace: 'org',
    });
    assert.deepEqual(agent?.type === 'transit' && [agent.mount, agent.auth], [
      'transit',
      { method: 'token-file', tokenFile: '/cluster/token' },
    ]);
    assert.deepEqual(config.make, { combiner: 'any', names: ['custodians', 'hsm'] });
    assert.equal(config.recoveryKey?.length, 32);
  });

  it('says nothing of who makes keys where nothing is said', () => {
    assert.deepEqual(parse({}), {
      entries: [],
      make: undefined,
      recoveryKey: undefined,
      recoveryAuthorities: undefined,
    });
    assert.deepEqual(parse({ make: 'file' }).make, { combiner: 'one', names: ['file'] });
  });

  it('names file, field and what would be right', () => {
    const { pinFile: _, ...noPin } = hsm;
    refused({ providers: { hsm: noPin } }, 'providers.hsm.pinFile', /path of a file expected/);
    refused({ providers: { hsm: { ...hsm, token: '' } } }, 'providers.hsm.token', /1 to 32 bytes/);
    refused({ providers: { hsm: { ...hsm, slot: 1 } } }, 'providers.hsm.slot', /unknown here; there are/);
    refused({ providers: { kms: { type: 'kms' } } }, 'providers.kms.type', /"transit" or "pkcs11" expected/);
    refused({ providers: { vault: { ...vault, address: 'bao:8200' } } }, 'providers.vault.address', /https/);
    refused({ providers: { vault: { ...vault, auth: 'x' } } }, 'providers.vault.auth', /an object/);
    const odd = { ...vault, auth: { method: 'jwt' } };
    refused({ providers: { vault: odd } }, 'providers.vault.auth.method', /"approle" or "token-file"/);
    refused({ providers: { file: hsm } }, 'providers.file', /by itself/);
    refused({ providers: { 'My HSM': hsm } }, 'providers.My HSM', /small letters/);
    refused({ providers: { hsm, dev: hsm } }, 'providers.dev.group', /group of another one/);
    refused({ providers: { hsm, b: { ...hsm, group: 'hsm' } } }, 'providers.b.group', /its own/);
    refused({ providers: [] }, 'providers', /an object/);
    refused({ recovery: { publicKey: 'no' } }, 'recovery.publicKey', /64 hex digits/);
    const publicKey = '09'.repeat(32);
    for (const authorities of ['x', [publicKey], [publicKey, publicKey], [publicKey, 'no']])
      refused({ recovery: { publicKey, authorities } }, 'recovery.authorities', /two or more/);
    refused({ custodians: 3 }, 'custodians', /unknown here/);
    refused({ version: 0 }, 'version', /1 expected/);
    refused({ format: 'other' }, 'format', /holdfast-key-providers/);
    assert.throws(() => parseProviderConfig('{', path), {
      code: 'ARGUMENT_INVALID',
      message: /not valid JSON/,
    });
    assert.throws(() => parse({ version: 2 }), { code: 'DATA_DIR_NEWER' });
  });

  it('takes only makers that are there, each once', () => {
    const providers = { hsm };
    for (const make of [
      'vault',
      7,
      [],
      { any: ['hsm'] },
      { any: ['hsm', 'hsm'] },
      { one: ['hsm', 'file'] },
      {},
    ])
      refused({ providers, make }, 'make', /out of custodians, file, hsm expected/);
    refused({ providers, make: { any: ['hsm'], all: ['hsm'] } }, 'make', /expected/);
    refused({ providers, make: { any: ['hsm', 'custodians'] } }, 'make', /"custodians" must come first/);
  });

  it('takes no secret, and never repeats one', () => {
    const secret = 'hunter2';
    const refusals: readonly (readonly [object, string])[] = [
      [{ hsm: { ...hsm, pin: secret } }, 'providers.hsm.pin'],
      [{ vault: { ...vault, token: secret } }, 'providers.vault.token'],
      [{ vault: { ...vault, auth: { ...auth, secretId: secret } } }, 'providers.vault.auth.secretId'],
      [{ vault: { ...vault, auth: { method: 'token-file', token: secret } } }, 'providers.vault.auth.token'],
    ];
    for (const [providers, field] of refusals) {
      refused({ providers }, field, /no secret may stand here: .* 600/);
      assert.throws(
        () => parse({ providers }),
        (error) => !String(error).includes(secret),
      );
    }
  });
});
