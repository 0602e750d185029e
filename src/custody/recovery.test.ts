import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { type Signer, signerFromSeed } from '../core/hash.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import {
  keyProviderSuite,
  makeKey,
  relabelled,
  someScope,
  unwrapped,
} from '../../test/suites/key-provider.ts';
import { openDevFile } from './dev-file.ts';
import { type CustodyOrder, signOrder } from './order.ts';
import type { KekProvider } from './provider.ts';
import {
  newRecoveryKey,
  type RecoveryAlarm,
  recoverKeys,
  recoveryArgs,
  type RecoveryUse,
  withRecovery,
} from './recovery.ts';

const officers = [1, 2, 3].map(() => signerFromSeed(fresh(32)));
const [ops, security, compliance] = officers;
const key = newRecoveryKey(fresh);
let folder = '';
let filesCount = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-recovery-'));
});
after(() => rm(folder, { recursive: true, force: true }));

keyProviderSuite('a key file with a recovery key', async () => {
  const path = newPath();
  const provider = await guarded(path);
  const foreign = await guarded();
  return {
    provider,
    foreign,
    reopen: () => guarded(path),
    [Symbol.asyncDispose]: async () => {
      await provider[Symbol.asyncDispose]();
      await foreign[Symbol.asyncDispose]();
    },
  };
});

test('two authorities open what the provider lost, after the alarm', async () => {
  const made = [await makeKey(await guarded()), await makeKey(await guarded())];
  const records = made.map(({ body }) => body);
  const alarms: RecoveryAlarm[] = [];
  const answers = await recoverKeys(
    use(records, {
      alarm: async (alarm) => {
        alarms.push(alarm);
      },
    }),
  );
  assert.deepEqual(
    answers.map((answer) => (answer.ok ? answer.branchKey : undefined)),
    made.map(({ branchKey }) => branchKey),
  );
  assert.equal(alarms.length, 1);
  assert.deepEqual([alarms[0]?.keysCount, alarms[0]?.reason, alarms[0]?.kid], [2, 'drill', key.kid]);
  assert.equal(alarms[0]?.by.length, 2);
});

test('an alarm that cannot be kept opens nothing', async () => {
  const { body } = await makeKey(await guarded());
  const failure = new HoldfastError('BEACON_UNAVAILABLE', 'no log');
  await assert.rejects(recoverKeys(use([body], { alarm: () => Promise.reject(failure) })), failure);
});

test('one authority is not enough, however often it signs', async () => {
  const { body } = await makeKey(await guarded());
  const records = [body];
  const stranger = signerFromSeed(fresh(32));
  const wrong: readonly (readonly [RegExp, readonly Uint8Array[]])[] = [
    [/0 of 2/, []],
    [/1 of 2/, [order(ops, records), order(ops, records)]],
    [/is not of an authority/, [order(ops, records), order(stranger, records)]],
    [/is one to seal/, [order(ops, records), order(security, records, { op: 'seal' })]],
    [/custody group other/, [order(ops, records), order(security, records, { cg: 'other' })]],
    [/other keys or another reason/, [order(ops, records), order(security, [])]],
    [/1 of 2/, [order(ops, records), order(security, records, { beat: 1, exp: 20 })]],
  ];
  for (const [message, orders] of wrong) {
    let alarmed = false;
    const attempt = recoverKeys(
      use(records, {
        orders,
        alarm: async () => {
          alarmed = true;
        },
      }),
    );
    await assert.rejects(
      attempt,
      (error) => isHoldfastError(error, 'FORBIDDEN') && message.test(error.message),
    );
    assert(!alarmed);
  }
  const both = [order(compliance, records), order(security, records)];
  assert.equal((await recoverKeys(use(records, { orders: both })))[0]?.ok, true);
});

test('an order for some keys opens no others', async () => {
  const [one, two] = [await makeKey(await guarded()), await makeKey(await guarded())];
  const orders = [order(ops, [one.body]), order(security, [one.body])];
  await assert.rejects(recoverKeys(use([two.body], { orders })), (error) =>
    isHoldfastError(error, 'FORBIDDEN'),
  );
});

test('an order that was changed is none', async () => {
  const { body } = await makeKey(await guarded());
  const forged = order(security, [body]);
  forged[forged.length - 1] = (forged.at(-1) ?? 0) ^ 1;
  const orders = [order(ops, [body]), forged];
  await assert.rejects(recoverKeys(use([body], { orders })), (error) =>
    isHoldfastError(error, 'RECORD_INVALID'),
  );
});

test('says of each key why it does not open', async () => {
  const path = newPath();
  const good = await makeKey(await guarded(path));
  const never = await makeKey(await devFile(path));
  const relabelledBody = relabelled(good.body, { project: 'other' });
  const swapped: BranchKeyBody = { ...good.body, commit: fresh(32) };
  const records = [never.body, relabelledBody, swapped, good.body];
  const answers = await recoverKeys(use(records));
  assert.deepEqual(
    answers.map((answer) => (answer.ok ? 'ok' : answer.error.code)),
    ['KEY_UNAVAILABLE', 'DECRYPT_FAILED', 'DECRYPT_FAILED', 'ok'],
  );
  const other = newRecoveryKey(fresh);
  const orders = [ops, security].map((officer) => order(officer, [good.body], {}, other.kid));
  const [answer] = await recoverKeys(use([good.body], { secretKey: other.secretKey, orders }));
  assert(answer?.ok === false && answer.error.code === 'KEY_UNAVAILABLE');
});

test('seals nothing where the policy wants no recovery', async () => {
  const inner = await devFile();
  const policy = ({ cls }: { cls: string }): 'none' | 'any' => (cls === 'restricted' ? 'none' : 'any');
  const provider = withRecovery(inner, { publicKey: key.publicKey, policy, random: fresh });
  const restricted = await makeKey(provider, someScope({ cls: 'restricted' }));
  assert.deepEqual(
    restricted.body.wraps.map(({ t }) => t),
    ['dev'],
  );
  const internal = await makeKey(provider);
  assert.deepEqual(
    internal.body.wraps.map(({ t }) => t),
    ['dev', 'recovery'],
  );
  assert.deepEqual(await unwrapped(inner, internal.body), internal.branchKey);
});

test('takes no recovery key that is none', async () => {
  const inner = await devFile();
  const options = { policy: (): 'any' => 'any', random: fresh } as const;
  for (const publicKey of [new Uint8Array(32), fresh(31)])
    assert.throws(
      () => withRecovery(inner, { ...options, publicKey }),
      (error) => isHoldfastError(error, 'ARGUMENT_INVALID'),
    );
});

function use(records: readonly BranchKeyBody[], changes: Partial<RecoveryUse> = {}): RecoveryUse {
  return {
    records,
    secretKey: key.secretKey,
    orders: [order(ops, records), order(security, records)],
    authorities: officers.map(({ publicKey }) => publicKey),
    cg: 'org',
    reason: 'drill',
    beat: 1000,
    alarm: async () => undefined,
    ...changes,
  };
}

function order(
  signer: Signer | undefined,
  records: readonly BranchKeyBody[],
  changes: Partial<CustodyOrder> = {},
  kid = key.kid,
): Uint8Array {
  assert(signer !== undefined);
  const args = recoveryArgs(records, kid, 'drill');
  const head = { v: 1, cg: 'org', op: 'recover', nonce: fresh(32), beat: 999, exp: 1010 } as const;
  return signOrder({ ...head, args, by: signer.publicKey, ...changes }, signer);
}

async function guarded(path?: string): Promise<KekProvider> {
  const policy = (): 'any' => 'any';
  return withRecovery(await devFile(path), { publicKey: key.publicKey, policy, random: fresh });
}

function devFile(path = newPath()): Promise<KekProvider> {
  const clock = { now: () => 1000, monotonic: () => 0 };
  return openDevFile({ path, clock, create: true, environment: 'test' });
}

function newPath(): string {
  return join(folder, `key-${filesCount++}.json`);
}

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}
