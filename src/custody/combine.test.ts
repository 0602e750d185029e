import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import { parseLabel } from '../envelope/label.ts';
import { startFakeTransit, type FakeTransit } from '../../test/support/fake-transit.ts';
import {
  keyProviderSuite,
  makeKey,
  readRequest,
  recordOf,
  relabelled,
  someScope,
  unwrapped,
} from '../../test/suites/key-provider.ts';
import { combineAll } from './combine-all.ts';
import { combineAny } from './combine-any.ts';
import { openDevFile } from './dev-file.ts';
import { type KekProvider, type KeyWrapper, wrapsGivenKeys } from './provider.ts';
import { openTransit } from './transit.ts';

let folder = '';
let server: FakeTransit | undefined;
let filesCount = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-combine-'));
  server = await startFakeTransit();
});
after(async () => {
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

for (const combine of [combineAny, combineAll]) {
  keyProviderSuite(`${combine.name} of two key files`, async () => {
    const paths = [newPath(), newPath()];
    const provider = combine(await Promise.all(paths.map((path) => devFile(path))));
    const foreign = combine([await devFile(), await devFile()]);
    const reopen = async (): Promise<KekProvider> =>
      combine(await Promise.all(paths.map((path) => devFile(path))));
    return { provider, foreign, reopen, [Symbol.asyncDispose]: () => disposeAll([provider, foreign]) };
  });

  keyProviderSuite(`${combine.name} of a key file and a Transit engine`, async () => {
    const provider = combine([await devFile(), await transit()]);
    const foreign = combine([await devFile(), await transit()]);
    return { provider, foreign, [Symbol.asyncDispose]: () => disposeAll([provider, foreign]) };
  });
}

describe('any', () => {
  test('gives a key that one of them gives, whichever that is', async () => {
    const [one, two] = [await devFile(), await devFile()];
    await using any = combineAny([one, two]);
    const { branchKey, body } = await makeKey(any);
    assert.equal(body.wraps.length, 2);
    assert.deepEqual(await unwrapped(one, body), branchKey);
    assert.deepEqual(await unwrapped(two, body), branchKey);
    for (const gone of [0, 1])
      assert.deepEqual(await unwrapped(any, { ...body, wraps: body.wraps.toSpliced(gone, 1) }), branchKey);
  });

  test('believes no wrong key, and asks the next one', async () => {
    const good = await devFile();
    const liar = changed(await devFile(), {
      unwrap: async (records) => records.map(() => ({ ok: true, branchKey: new Uint8Array(32).fill(7) })),
    });
    await using first = combineAny([liar, good]);
    const { branchKey, body } = await makeKey(first);
    assert.deepEqual(await unwrapped(first, body), branchKey);
    await using alone = combineAny([liar, liar]);
    const [answer] = await alone.unwrap([body], readRequest);
    assert(answer?.ok === false);
    assert.equal(answer.error.code, 'DECRYPT_FAILED');
    assert.match(answer.error.message, /commits to .* commits to/);
  });

  test('asks the next one when the first is away, and says what each said', async () => {
    const away = changed(await devFile(), { unwrap: nobody });
    const good = await devFile();
    await using any = combineAny([away, good]);
    const { branchKey, body } = await makeKey(any);
    assert.deepEqual(await unwrapped(any, body), branchKey);
    const [answer] = await any.unwrap([relabelled(body, { project: 'x' })], readRequest);
    assert(answer?.ok === false);
    assert.equal(answer.error.code, 'TIMEOUT');
    assert.match(answer.error.message, /nobody is there; its wrap or label was changed/);
    const stopped = new Error('enough');
    const request = { ...readRequest, signal: AbortSignal.abort(stopped) };
    await assert.rejects(any.unwrap([body], request), stopped);
  });

  test('makes no key that one of them could not open', async () => {
    const broken = changed(await devFile(), {
      wrapKey: () => Promise.reject(new HoldfastError('TIMEOUT', 'away')),
    });
    await using any = combineAny([await devFile(), broken]);
    await assert.rejects(makeKey(any), (error) => isHoldfastError(error, 'TIMEOUT'));
  });

  test('has at most one whose keys cannot be chosen, and lets that one choose', async () => {
    const choosy: Partial<FullProvider> & KekProvider = changed(await devFile(), {});
    Reflect.deleteProperty(choosy, 'wrapKey');
    const other = await devFile();
    await using any = combineAny([other, choosy]);
    const { branchKey, body } = await makeKey(any);
    assert.deepEqual(await unwrapped(other, body), branchKey);
    assert.deepEqual(await unwrapped(choosy, body), branchKey);
    assert(!('wrapKey' in any));
    assert.throws(
      () => combineAny([choosy, choosy]),
      (error) => isHoldfastError(error, 'ARGUMENT_INVALID'),
    );
    assert.throws(() => combineAny([other]), /at least two/);
    assert.throws(() => combineAll([other]), /at least two/);
  });
});

describe('all', () => {
  test('needs every one: neither part nor provider is the key', async () => {
    const [one, two] = [await devFile(), await transit()];
    await using all = combineAll([one, two]);
    const { branchKey, body } = await makeKey(all);
    for (const [place, provider] of [one, two].entries()) {
      const [refused] = await provider.unwrap([body], readRequest);
      assert(refused?.ok === false && refused.error.code === 'KEY_UNAVAILABLE');
      const part = await unwrapped(provider, { ...body, wraps: body.wraps.slice(place, place + 1) });
      assert.notDeepEqual(part, branchKey);
      const [less] = await all.unwrap([{ ...body, wraps: body.wraps.slice(place, place + 1) }], readRequest);
      assert(less?.ok === false && less.error.code === 'KEY_UNAVAILABLE');
    }
  });

  test('fails altogether when one of them is away', async () => {
    const away = changed(await devFile(), { unwrap: nobody });
    await using all = combineAll([await transit(), away]);
    const { body } = await makeKey(all);
    await assert.rejects(all.unwrap([body], readRequest), (error) => isHoldfastError(error, 'TIMEOUT'));
  });

  test('finds the wraps of each kind whatever the order, and derives in the order of the wraps', async () => {
    const [one, two] = [await devFile(), await transit()];
    const { branchKey, body } = await makeKey(combineAll([one, two]));
    assert.deepEqual(await unwrapped(combineAll([two, one]), body), branchKey);
    const [swapped] = await combineAll([one, two]).unwrap(
      [{ ...body, wraps: body.wraps.toReversed() }],
      readRequest,
    );
    assert(swapped?.ok === false && swapped.error.code === 'DECRYPT_FAILED');
  });

  test('takes no part of one key for another', async () => {
    await using all = combineAll([await devFile(), await transit()]);
    const one = await makeKey(all);
    const two = await makeKey(all);
    const [first] = one.body.wraps;
    const [, second] = two.body.wraps;
    assert(first !== undefined && second !== undefined);
    const mixed = { ...one.body, wraps: [first, second] };
    const answers = await all.unwrap([mixed, one.body], readRequest);
    assert.deepEqual(
      answers.map(({ ok }) => ok),
      [false, true],
    );
  });

  test('keeps the key when one guard gets another group or key version', async () => {
    const [old, other] = [await devFile(), await transit()];
    const scope = someScope();
    const { branchKey, wraps } = await combineAll([old, other]).createKey(scope);
    const body = recordOf(scope, branchKey, wraps, 'all');
    const [first, second] = wraps;
    assert(first !== undefined && second !== undefined);
    const part = await unwrapped(old, { ...body, wraps: [first] });
    const successor = await devFile(newPath(), 'elsewhere');
    assert(wrapsGivenKeys(successor));
    const [moved] = await successor.wrapKey(scope, part);
    assert(moved !== undefined && parseLabel(moved.label).cg === 'elsewhere');
    const switched = recordOf(scope, branchKey, [moved, second], 'all');
    await using after = combineAll([successor, other]);
    assert.deepEqual(await unwrapped(after, switched), branchKey);
  });

  test('leaves a recovery wrap out of the parts', async () => {
    await using all = combineAll([await devFile(), await transit()]);
    const { branchKey, body } = await makeKey(all);
    const [first] = body.wraps;
    assert(first !== undefined);
    const recovery = {
      t: 'recovery',
      kid: 'k',
      label: first.label,
      enc: new Uint8Array(32),
      ct: new Uint8Array(48),
    };
    const record: BranchKeyBody = { ...body, wraps: [...body.wraps, recovery as BkWrap] };
    assert.deepEqual(await unwrapped(all, record), branchKey);
  });

  test('renews what can be renewed', async () => {
    const engine = await transit();
    await using all = combineAll([await devFile(), engine]);
    const { branchKey, body } = await makeKey(all);
    const kek = engine.kek();
    assert(kek.provider === 'transit');
    await server?.admin('POST', `transit/keys/${kek.key}/rotate`, {});
    const [answer] = await all.renew([body]);
    assert(answer?.ok === true && answer.wraps !== undefined);
    assert.deepEqual(answer.wraps[0], body.wraps[0]);
    assert(answer.wraps[1]?.t === 'transit' && answer.wraps[1].ver === 2);
    assert.deepEqual(await unwrapped(all, { ...body, wraps: answer.wraps }), branchKey);
  });
});

function nobody(): Promise<never> {
  return Promise.reject(new HoldfastError('TIMEOUT', 'nobody is there'));
}

type FullProvider = KekProvider & KeyWrapper;

/** `provider` with some of its methods replaced. */
function changed(provider: KekProvider, methods: Partial<FullProvider>): FullProvider {
  assert(wrapsGivenKeys(provider));
  return {
    id: provider.id,
    kind: provider.kind,
    createKey: (scope) => provider.createKey(scope),
    wrapKey: (scope, branchKey) => provider.wrapKey(scope, branchKey),
    unwrap: (records, request) => provider.unwrap(records, request),
    describe: () => provider.describe(),
    health: () => provider.health(),
    kek: () => provider.kek(),
    [Symbol.asyncDispose]: () => provider[Symbol.asyncDispose](),
    ...methods,
  };
}

function devFile(path = newPath(), group = 'dev'): Promise<KekProvider> {
  const clock = { now: () => 1000, monotonic: () => 0 };
  return openDevFile({ path, clock, create: true, environment: 'test', group });
}

async function transit(): Promise<KekProvider & Pick<Awaited<ReturnType<typeof openTransit>>, 'renew'>> {
  assert(server !== undefined);
  const clock = { now: () => 1000, monotonic: () => 0 };
  const auth = { method: 'token-file', tokenFile: server.tokenFile } as const;
  return openTransit({
    url: server.url,
    auth,
    key: `kek-${filesCount++}`,
    group: 'org',
    clock,
    create: true,
  });
}

async function disposeAll(providers: readonly KekProvider[]): Promise<void> {
  for (const provider of providers) await provider[Symbol.asyncDispose]();
}

function newPath(): string {
  return join(folder, `key-${filesCount++}.json`);
}
