import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chmod, writeFile } from 'node:fs/promises';
import { inspect } from 'node:util';
import { join } from 'node:path';
import koffi from 'koffi';
import { utf8 } from '../core/bytes.ts';
import type { ErrorCode } from '../core/errors.ts';
import { isHoldfastError } from '../core/errors.ts';
import { keyProviderSuite, makeKey, readRequest, unwrapped } from '../../test/suites/key-provider.ts';
import {
  makeSoftTokens,
  type SoftTokens,
  softTokenModule,
  softTokenSkip,
} from '../../test/support/soft-token.ts';
import { attribute, secretKeyClass } from './pkcs11-codes.ts';
import { pkcs11Types } from './pkcs11-binding.ts';
import { openPkcs11Module } from './pkcs11-module.ts';
import { openPkcs11, type Pkcs11Options } from './pkcs11.ts';

let tokens: SoftTokens | undefined;
let keysCount = 0;

before(async () => {
  if (softTokenModule !== undefined) tokens = await makeSoftTokens(['holdfast', 'other']);
});
after(async () => {
  await tokens?.[Symbol.asyncDispose]();
});

keyProviderSuite(
  'PKCS#11 (SoftHSM2)',
  async () => {
    const options = someOptions({ key: newKeyName(), create: true });
    const provider = await openPkcs11(options);
    const foreign = await openPkcs11({ ...options, key: newKeyName() });
    return {
      provider,
      foreign,
      reopen: () => openPkcs11({ ...options, create: false }),
      [Symbol.asyncDispose]: async () => {
        await provider[Symbol.asyncDispose]();
        await foreign[Symbol.asyncDispose]();
      },
    };
  },
  { skip: softTokenSkip },
);

describe('a PKCS#11 token (SoftHSM2)', { skip: softTokenSkip ?? false }, () => {
  test('wraps with the mechanism that its records name', async () => {
    await using provider = await openPkcs11(someOptions({ key: newKeyName(), create: true }));
    const [wrap] = (await makeKey(provider)).body.wraps;
    assert(wrap?.t === 'pkcs11');
    assert.deepEqual(
      [wrap.token, wrap.mech, wrap.iv.length, wrap.ct.length],
      ['holdfast', 'CKM_AES_GCM', 12, 48],
    );
  });

  test('finds out which parameters the module takes, and says when it takes none', async () => {
    const key = newKeyName();
    await using found = await openPkcs11(someOptions({ key, create: true }));
    await using named = await openPkcs11(someOptions({ key, gcmLayout: 'iv-bits' }));
    const { branchKey, body } = await makeKey(found);
    assert.deepEqual(await unwrapped(named, body), branchKey);
    await refuses({ key, gcmLayout: 'no-iv-bits' }, 'KEY_UNAVAILABLE', /does not do CKM_AES_GCM/);
  });

  test('opens nothing that was flipped by a bit', async () => {
    await using provider = await openPkcs11(someOptions({ key: newKeyName(), create: true }));
    const { body } = await makeKey(provider);
    const [wrap] = body.wraps;
    assert(wrap?.t === 'pkcs11');
    const records = (['iv', 'ct'] as const).flatMap((field) =>
      Array.from(wrap[field], (_, index) => {
        const changed = new Uint8Array(wrap[field]);
        changed[index] = (changed[index] ?? 0) ^ 16;
        return { ...body, wraps: [{ ...wrap, [field]: changed }] };
      }),
    );
    const answers = await provider.unwrap(records, readRequest);
    assert(answers.every((answer) => !answer.ok && answer.error.code === 'DECRYPT_FAILED'));
    const short = { ...body, wraps: [{ ...wrap, ct: wrap.ct.subarray(1) }] };
    const [answer] = await provider.unwrap([short], readRequest);
    assert(answer?.ok === false && answer.error.code === 'DECRYPT_FAILED');
  });

  test('uses no key that is missing, unless it may make it', async () => {
    await refuses({ key: 'absent' }, 'ARGUMENT_INVALID', /there is no such key/);
    await refuses(
      { key: 'absent', create: true, token: 'nowhere' },
      'KEY_UNAVAILABLE',
      /there is "holdfast", "other"$/,
    );
  });

  test('uses no key that could leave the token', async () => {
    const weak: readonly (readonly [string, number, boolean | number])[] = [
      ['extractable', attribute.extractable, true],
      ['readable', attribute.sensitive, false],
      ['short', attribute.valueLen, 16],
      ['encrypt-only', attribute.decrypt, false],
    ];
    for (const [key, type, value] of weak) {
      await makeRawKey(key, type, value);
      await refuses({ key }, 'ARGUMENT_INVALID', /sensitive and not extractable/);
    }
    await makeRawKey('twice');
    await makeRawKey('twice');
    await refuses({ key: 'twice' }, 'ARGUMENT_INVALID', /there are several/);
  });

  test('sends a refused PIN once and shows it nowhere', async () => {
    const pinFile = join(held().folder, 'wrong-pin');
    await writeFile(pinFile, '555777', { mode: 0o600 });
    const error = await refuses(
      { pinFile, key: 'any', create: true },
      'KEY_UNAVAILABLE',
      /CKR_PIN_INCORRECT/,
    );
    assert(!inspect(error, { showHidden: true, depth: 9 }).includes('555777'));
    await using _good = await openPkcs11(someOptions({ key: newKeyName(), create: true })); // not locked
  });

  test('reads no PIN that others can read', async () => {
    const pinFile = join(held().folder, 'open-pin');
    await writeFile(pinFile, '93175');
    await chmod(pinFile, 0o644);
    await refuses({ pinFile }, 'FILE_UNREADABLE', /its mode is 644/);
    await refuses({ pinFile: `${pinFile}-absent` }, 'FILE_NOT_FOUND', /does not exist/);
  });

  test('stops waiting when it is told to', async () => {
    await using provider = await openPkcs11(someOptions({ key: newKeyName(), create: true }));
    const { body } = await makeKey(provider);
    const stopped = new Error('enough');
    const request = { ...readRequest, signal: AbortSignal.abort(stopped) };
    await assert.rejects(provider.unwrap([body], request), stopped);
  });
});

test('says what is wrong with a module that is none', async () => {
  const options = { ...optionsFor('/nowhere/libnone.so'), pinFile: '/nowhere/pin' };
  await assert.rejects(openPkcs11(options), (error) => {
    assert(isHoldfastError(error, 'KEY_UNAVAILABLE'));
    assert.match(error.message, /libnone\.so cannot be loaded as a PKCS#11 module/);
    return true;
  });
});

test('CK_GCM_PARAMS has both shapes of the headers', { skip: process.arch.startsWith('ia') }, () => {
  const types = pkcs11Types(koffi);
  const word = koffi.sizeof('ulong');
  const names = ['pIv', 'ulIvLen', 'ulIvBits', 'pAAD', 'ulAADLen', 'ulTagBits'];
  const offsets = (type: typeof types.gcmWithIvBits, members: string[]): number[] =>
    members.map((name) => koffi.offsetof(type, name) / word);
  assert.deepEqual(offsets(types.gcmWithIvBits, names), [0, 1, 2, 3, 4, 5]);
  assert.equal(koffi.sizeof(types.gcmWithIvBits), 6 * word);
  const short = names.filter((name) => name !== 'ulIvBits');
  assert.deepEqual(offsets(types.gcmWithoutIvBits, short), [0, 1, 2, 3, 4]);
  assert.equal(koffi.sizeof(types.gcmWithoutIvBits), 5 * word);
});

async function makeRawKey(label: string, changed?: number, value: boolean | number = true): Promise<void> {
  const { modulePath } = held();
  await using module = await openPkcs11Module(modulePath);
  const slot = (await module.tokens()).find((token) => token.label === 'holdfast')?.slot;
  assert(slot !== undefined);
  const session = await module.openSession(slot, 'write');
  await session.login(utf8('93175'));
  const attributes = new Map<number, boolean | number>([
    [attribute.class, secretKeyClass],
    [attribute.valueLen, 32],
    [attribute.sensitive, true],
    [attribute.extractable, false],
    [attribute.encrypt, true],
    [attribute.decrypt, true],
    [attribute.token, true],
  ]);
  if (changed !== undefined) attributes.set(changed, value);
  await session.generateAesKey([...attributes, [attribute.label, utf8(label)]]);
  await session.close();
}

async function refuses(changes: Partial<Pkcs11Options>, code: ErrorCode, message: RegExp): Promise<unknown> {
  const error: unknown = await openPkcs11(someOptions(changes)).then(
    () => assert.fail('opened'),
    (error: unknown) => error,
  );
  assert(isHoldfastError(error, code), inspect(error));
  assert.match(error.message, message);
  return error;
}

function someOptions(changes: Partial<Pkcs11Options>): Pkcs11Options {
  const { modulePath, pinFile } = held();
  return { ...optionsFor(modulePath), pinFile, ...changes };
}

function optionsFor(modulePath: string): Omit<Pkcs11Options, 'pinFile'> {
  const clock = { now: () => 1000, monotonic: () => 0 };
  return { modulePath, token: 'holdfast', key: 'kek', group: 'org', clock };
}

function held(): SoftTokens {
  assert(tokens !== undefined);
  return tokens;
}

function newKeyName(): string {
  return `kek-${keysCount++}`;
}
