// The Transit provider at a server that works: at a real one, where there is one, and at the small one of the tests.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { writeFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { join } from 'node:path';
import { toHex } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import {
  keyProviderSuite,
  makeKey,
  readRequest,
  relabelled,
  unwrapped,
} from '../../test/suites/key-provider.ts';
import { startFakeTransit } from '../../test/support/fake-transit.ts';
import {
  newKeyName,
  openAs,
  openNew,
  refuses,
  rejects,
  roleOf,
  someOptions,
  transitKek,
} from '../../test/support/transit-providers.ts';
import { baoSkip, startBao, type TransitServer } from '../../test/support/transit-server.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { openTransit } from './transit.ts';

for (const [name, start, skip] of [
  ['a server of the tests', () => startFakeTransit(), undefined],
  ['OpenBao or Vault', startBao, baoSkip],
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

    const answers = await provider.renew([fresh, ...old].map(({ body }) => body));
    const [newest, ...renewed] = answers.map((answer) =>
      answer.ok ? answer.wraps : assert.fail(answer.error),
    );
    assert.equal(newest, undefined, 'the newest one needs nothing');
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

  test('tells damage from what may pass, when it opens and when it renews', async () => {
    await using provider = await openNew(server());
    const { key } = transitKek(provider);
    const { branchKey, body } = await makeKey(provider);
    const own = cipherOf(body);
    const changed = [
      ['', 'DECRYPT_FAILED'],
      ['nothing', 'DECRYPT_FAILED'],
      ['vault:v1', 'DECRYPT_FAILED'],
      [own.replace('v1:', 'vX:'), 'DECRYPT_FAILED'],
      [own.replace('v1:', 'v1:*'), 'DECRYPT_FAILED'],
      [own.slice(0, 'vault:v1:'.length + 8), 'DECRYPT_FAILED'],
      [own.slice(0, 'vault:v1:'.length + 24), 'DECRYPT_FAILED'],
      [own.replace('v1:', 'v2:'), 'DECRYPT_FAILED'],
      [own.replace('v1:', 'v9:'), 'KEY_UNAVAILABLE'],
    ] as const;
    await server().admin('POST', `transit/keys/${key}/rotate`, {});
    const damaged = changed.map(([ct]) => ({
      ...body,
      wraps: body.wraps.map((wrap) => (wrap.t === 'transit' ? { ...wrap, ct } : wrap)),
    }));
    const opened = await provider.unwrap([...damaged, body], readRequest);
    const codes = changed.map(([, code]) => code);
    assert.deepEqual(
      opened.map((answer) => (answer.ok ? toHex(answer.branchKey) : answer.error.code)),
      [...codes, toHex(branchKey)],
    );
    // What says that it is of a later version than the newest is not touched: the server cannot open it either.
    const renewed = await provider.renew([...damaged.slice(0, -2), body]);
    assert.deepEqual(
      renewed.map((answer) => (answer.ok ? answer.wraps?.length : answer.error.code)),
      [...codes.slice(0, -2), 1],
    );
  });

  test('renews by the version that a wrap is of, whatever the field beside it says', async () => {
    await using provider = await openNew(server());
    const { key } = transitKek(provider);
    const { branchKey, body } = await makeKey(provider);
    await server().admin('POST', `transit/keys/${key}/rotate`, {});
    const wraps = body.wraps.map((wrap) => (wrap.t === 'transit' ? { ...wrap, ver: 2 } : wrap));
    const [answer] = await provider.renew([{ ...body, wraps }]);
    assert(answer?.ok === true && answer.wraps !== undefined, 'it was left as it is');
    await provider.retireBelow(2);
    assert.deepEqual(await unwrapped(provider, { ...body, wraps: answer.wraps }), branchKey);
    const [late] = await provider.renew([body]);
    assert(late?.ok === false);
    assert.equal(late.error.code, 'KEY_UNAVAILABLE');
    assert.match(late.error.message, /is not renewed: the server refuses: .*too old/);
  });

  test('says that its key is soft-deleted, and has all back when that is undone', async (context) => {
    await using provider = await openNew(server());
    const { key } = transitKek(provider);
    const { branchKey, body } = await makeKey(provider);
    try {
      await server().admin('DELETE', `transit/keys/${key}/soft-delete`);
    } catch {
      return context.diagnostic('this server deletes keys for good only');
    }
    const [answer] = await provider.unwrap([body], readRequest);
    assert(answer?.ok === false);
    assert.equal(answer.error.code, 'KEY_UNAVAILABLE');
    const { ok, text } = await provider.health();
    assert.deepEqual(
      [ok, /soft-deleted: .*soft-delete-restore brings it back$/.test(text)],
      [false, true],
      text,
    );
    await rejects(makeKey(provider), 'KEY_UNAVAILABLE', /soft-deleted/);
    await rejects(provider.renew([body]), 'KEY_UNAVAILABLE', /soft-deleted/);
    await refuses(server(), { key, create: true }, 'KEY_UNAVAILABLE', /soft-deleted/);
    await server().admin('POST', `transit/keys/${key}/soft-delete-restore`, {});
    assert.deepEqual(await unwrapped(provider, body), branchKey);
  });

  test('tells a missing engine from a missing key', async (context) => {
    await refuses(
      server(),
      { mount: 'nowhere' },
      'KEY_UNAVAILABLE',
      /nowhere\/keys.* status 404: no handler/,
    );
    if (server().namespace === undefined) return context.diagnostic('no namespaces here');
    await refuses(server(), { namespace: 'nowhere' }, 'KEY_UNAVAILABLE', /status 404: namespace not found/);
  });

  test('works inside a namespace, where the health of a server is not', async (context) => {
    const { namespace } = server();
    if (namespace === undefined) return context.diagnostic('this server has no namespaces');
    const key = newKeyName();
    await using provider = await openNew(server(), { key, namespace });
    const { branchKey, body } = await makeKey(provider);
    assert.deepEqual(await unwrapped(provider, body), branchKey);
    await refuses(server(), { key }, 'ARGUMENT_INVALID', /does not exist/);
    await server().seal();
    const { ok, text } = await provider.health();
    await server().unseal();
    assert.deepEqual([ok, text.endsWith('the server is sealed')], [false, true], text);
  });

  test('says that the server is sealed, and goes on when it is not', async () => {
    await using provider = await openAs(server(), roleOf(server()));
    const { branchKey, body } = await makeKey(provider);
    await server().seal();
    const { ok, text } = await provider.health();
    const refused = await provider.unwrap([body], readRequest).catch((error: unknown) => error);
    await server().unseal();
    assert.deepEqual([ok, text.endsWith('the server is sealed')], [false, true], text);
    assert(isHoldfastError(refused, 'KEY_UNAVAILABLE'), inspect(refused));
    assert.match(refused.message, /status 503: Vault is sealed$/);
    assert.deepEqual(await unwrapped(provider, body), branchKey);
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
    const { folder } = server();
    const auth = roleOf(server());
    await using provider = await openTransit(someOptions(server(), { key, auth }));
    const { branchKey, body } = await makeKey(provider);
    assert.deepEqual(await unwrapped(admin, body), branchKey);

    const wrong = join(folder, 'wrong-secret');
    await writeFile(wrong, 'not-the-secret', { mode: 0o600 });
    const bad = { ...auth, secretIdFile: wrong };
    const said = /login with role .* failed with status \d+: invalid (role or )?secret id$/i;
    const error = await refuses(server(), { key, auth: bad }, 'FORBIDDEN', said);
    assert(!inspect(error, { depth: 9, showHidden: true }).includes('not-the-secret'));
  });

  test('makes no key by a role that may not, and says which path was refused', async () => {
    const key = newKeyName();
    const options = { key, auth: roleOf(server()), create: true };
    await refuses(
      server(),
      options,
      'FORBIDDEN',
      new RegExp(`transit/keys/${key} with status 403: .*denied`),
    );
    await refuses(server(), { key }, 'ARGUMENT_INVALID', /does not exist/);
  });

  test('logs in again when its token was revoked', async () => {
    await using provider = await openAs(server(), roleOf(server()));
    const { branchKey, body } = await makeKey(provider);
    await server().revokeLogins();
    assert.deepEqual(await unwrapped(provider, body), branchKey);
  });

  test('opens a wrapped secret id once, and says so when somebody was there before', async () => {
    const secretIdFile = join(server().folder, 'wrapping');
    await writeFile(secretIdFile, await server().wrapSecretId(), { mode: 0o600 });
    const auth = { ...roleOf(server()), secretIdFile, wrapped: true } as const;
    await using provider = await openAs(server(), auth);
    await server().revokeLogins();
    await makeKey(provider); // logs in again with the secret id that it holds
    await refuses(server(), { auth }, 'FORBIDDEN', /somebody else has it/);
  });

  test('says so when the token is refused, without showing it', async () => {
    const tokenFile = join(server().folder, 'stale-token');
    await writeFile(tokenFile, 'hvs.stale-token-0815\n', { mode: 0o600 });
    const auth = { method: 'token-file', tokenFile } as const;
    const error = await refuses(server(), { auth }, 'FORBIDDEN', /status 403: .*permission denied/);
    assert(!inspect(error, { depth: 9, showHidden: true }).includes('0815'));
  });
}

function cipherOf({ wraps: [wrap] }: BranchKeyBody): string {
  assert(wrap?.t === 'transit');
  return wrap.ct;
}
