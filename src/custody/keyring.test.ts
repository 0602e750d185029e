import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { encodeCbor, rawBlock } from '../core/block.ts';
import { sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { encodeLabel } from '../envelope/label.ts';
import type { BranchKeyBody, KekFields } from '../envelope/records.ts';
import { type DekBinding, unwrapDek, WrappingKey, wrapDek } from '../envelope/wrap.ts';
import { BranchKeys, type BranchKeysOptions } from './keyring.ts';
import type { KekProvider, NewKey, NewKeyScope, Unwrapped, UnwrapRequest } from './provider.ts';

const writer = fresh(32);
const request: UnwrapRequest = { purpose: 'read', requester: writer, beat: 5 };
const scope = { project: 'bzzz', cls: 'internal', policy: null, beat: 5 } as const;

test('what a writer wrapped, a reader with the record unwraps', async () => {
  await using provider = new MemoryProvider();
  await using ring = ringOf(provider);
  using writing = await ring.current(scope);
  const dek = fresh(32);
  const wrap = wrapDek(writing.key, dek, bindingOf(writing.body), randomBytes);
  const record = writing.unregistered;
  assert.ok(record !== undefined);
  await using elsewhere = ringOf(provider);
  using reading = await elsewhere.open(record, request);
  assert.deepEqual(unwrapDek(reading.key, wrap, bindingOf(record)), dek);
});

describe('the writer', () => {
  test('keeps one key for its window, and takes a new one after it', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider, { windowBeats: 10 });
    const ids = [];
    for (const beat of [100, 105, 109, 110, 119, 120]) ids.push((await use(ring, { ...scope, beat })).bkId);
    assert.deepEqual(
      [ids[0] === ids[2], ids[2] === ids[3], ids[3] === ids[4], ids[4] === ids[5]],
      [true, false, true, false],
    );
    assert.equal(provider.made, 3);
  });

  test('takes a new key when the beats begin again', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const before = await use(ring, { ...scope, beat: 1000 });
    const after = await use(ring, { ...scope, beat: 0 });
    assert.notEqual(before.bkId, after.bkId);
    assert.deepEqual(after.body.scope.window, [0, 119]);
  });

  test('takes a new key after so many uses, also when all come at once', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider, { usesMax: 3 });
    const loans = await Promise.all(Array.from({ length: 10 }, () => ring.current(scope)));
    const counts = Map.groupBy(loans, ({ bkId }) => toHex(bkId));
    assert.deepEqual(
      [...counts.values()].map((uses) => uses.length),
      [3, 3, 3, 1],
    );
    for (const loan of loans) loan[Symbol.dispose]();
  });

  test('has a key of its own for each project, class and policy', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const policy = rawBlock(utf8('policy')).cid;
    const scopes = [
      scope,
      { ...scope, project: 'other' },
      { ...scope, cls: 'public' as const },
      { ...scope, policy },
    ];
    const used = await Promise.all(scopes.map((scope) => use(ring, scope)));
    assert.equal(new Set(used.map(({ bkId }) => bkId)).size, 4);
  });

  test('takes a new key when the KEK changes', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const before = await use(ring, scope);
    provider.version = 2;
    assert.notEqual((await use(ring, scope)).bkId, before.bkId);
  });

  test('asks for registration until it has happened', async () => {
    await using ring = ringOf(new MemoryProvider());
    using first = await ring.current(scope);
    using second = await ring.current(scope);
    assert.deepEqual(first.unregistered, first.body);
    assert.deepEqual(second.unregistered, first.body);
    first.registered();
    assert.equal(second.unregistered, undefined);
    using third = await ring.current(scope);
    assert.equal(third.unregistered, undefined);
  });

  test('passes on that no key could be made, and tries again next time', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    provider.failing = true;
    await assert.rejects(ring.current(scope), isUnavailable);
    provider.failing = false;
    using key = await ring.current(scope);
    assert.equal(key.bkVer, 1);
  });

  test('a key whose window ended serves its borrower to the end, and no longer', async () => {
    await using ring = ringOf(new MemoryProvider());
    const old = await ring.current(scope);
    const { key } = old;
    using _next = await ring.current({ ...scope, beat: 1000 });
    await settled();
    assert.ok(!key.disposed);
    old[Symbol.dispose]();
    await settled();
    assert.ok(key.disposed);
  });
});

describe('the reader', () => {
  test('asks once for many callers, and not again while the key is open', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const { body } = await use(ring, scope);
    const loans = await Promise.all(Array.from({ length: 20 }, () => ring.open(body, request)));
    for (const loan of loans) loan[Symbol.dispose]();
    (await ring.open(body, request))[Symbol.dispose]();
    assert.equal(provider.asked, 1);
  });

  test('asks again after a bar, and when the beats begin again', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider, { windowBeats: 10 });
    const { body } = await use(ring, scope);
    for (const beat of [5, 14, 15, 24, 0]) (await ring.open(body, { ...request, beat }))[Symbol.dispose]();
    assert.equal(provider.asked, 3);
  });

  test('keeps so many open, and drops the one unused for longest', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider, { openMax: 2 });
    const bodies: BranchKeyBody[] = [];
    for (const project of ['a', 'b', 'c']) bodies.push((await use(ring, { ...scope, project })).body);
    const keys: WrappingKey[] = [];
    for (const index of [0, 1, 0, 2]) {
      using loan = await ring.open(pick(bodies, index), request);
      keys.push(loan.key);
    }
    await settled();
    assert.deepEqual(
      keys.map((key) => key.disposed),
      [false, true, false, false],
    );
    assert.deepEqual(ring.held, { writing: 2, reading: 2 });
    (await ring.open(pick(bodies, 1), request))[Symbol.dispose]();
    assert.equal(provider.asked, 4);
  });

  test('drops nothing that is on loan, even far beyond the bound', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider, { openMax: 1 });
    const bodies: BranchKeyBody[] = [];
    for (let i = 0; i < 20; i++) bodies.push((await use(ring, { ...scope, project: `p${i}` })).body);
    const loans = await Promise.all(bodies.map((body) => ring.open(body, request)));
    await settled();
    assert.ok(loans.every(({ key }) => !key.disposed));
    for (const loan of loans) loan[Symbol.dispose]();
    await settled();
    assert.equal(loans.filter(({ key }) => key.disposed).length, 19);
  });

  test('refuses a key that the record does not commit to', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const { body } = await use(ring, scope);
    provider.lying = true;
    await assert.rejects(ring.open(body, request), (error) => isHoldfastError(error, 'DECRYPT_FAILED'));
    provider.lying = false;
    (await ring.open(body, request))[Symbol.dispose]();
    const forged = { ...body, commit: fresh(32) };
    await assert.rejects(ring.open(forged, request), (error) => isHoldfastError(error, 'DECRYPT_FAILED'));
  });

  test('passes a refusal on and does not remember it', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const { body } = await use(ring, scope);
    provider.failing = true;
    await Promise.all([1, 2].map(() => assert.rejects(ring.open(body, request), isUnavailable)));
    assert.equal(ring.held.reading, 0);
    provider.failing = false;
    (await ring.open(body, request))[Symbol.dispose]();
  });

  test('lets one caller give up without the others', async () => {
    await using provider = new MemoryProvider();
    await using ring = ringOf(provider);
    const { body } = await use(ring, scope);
    const release = provider.hold();
    const giveUp = new AbortController();
    const one = ring.open(body, { ...request, signal: giveUp.signal });
    const other = ring.open(body, { ...request, signal: new AbortController().signal });
    giveUp.abort(new Error('gave up'));
    await assert.rejects(one, /gave up/);
    release();
    (await other)[Symbol.dispose]();
    assert.equal(provider.asked, 1);
    assert.equal(provider.lastRequest?.signal, undefined); // one caller's signal would abort it for all
    await assert.rejects(ring.open(body, { ...request, signal: giveUp.signal }), /gave up/);
  });
});

test('disposal drops every key, also one still on its way', async () => {
  const provider = new MemoryProvider();
  const ring = ringOf(provider);
  const writing = await use(ring, scope);
  const release = provider.hold();
  const late = ring.open(writing.body, request);
  const disposal = ring[Symbol.asyncDispose]();
  release();
  const loan = await late;
  assert.ok(!loan.key.disposed);
  loan[Symbol.dispose]();
  await disposal;
  await settled();
  assert.ok(loan.key.disposed);
  assert.ok(writing.key.disposed);
  await assert.rejects(ring.current(scope), /used after disposal/);
});

test('branch keys are zeroed once used, and neither they nor wrapping keys show anywhere', async () => {
  await using provider = new MemoryProvider();
  await using ring = ringOf(provider);
  using writing = await ring.current(scope);
  using reading = await ring.open(writing.body, request);
  provider.lying = true;
  const forged = { ...writing.body, commit: fresh(32) };
  const error: unknown = await ring.open(forged, request).catch((error: unknown) => error);
  assert.equal(provider.handedOut.length, 3);
  for (const bytes of provider.handedOut) assert.ok(sameBytes(bytes, new Uint8Array(32)));
  const shown = [ring, writing, reading, error]
    .map((item) => `${inspect(item, { showHidden: true, depth: 20 })}${JSON.stringify(item)}`)
    .join('');
  for (const secret of provider.secrets) {
    assert.ok(!shown.includes(toHex(secret).slice(0, 12)));
    assert.ok(!shown.includes(Buffer.from(secret).toString('base64').slice(0, 10)));
    assert.ok(
      !shown.includes([...secret.subarray(0, 5)].join(', ')) &&
        !shown.includes([...secret.subarray(0, 5)].join(',')),
    );
    assert.ok(!shown.includes(inspect(secret).slice(18, 40)));
  }
});

interface Used {
  readonly bkId: string;
  readonly body: BranchKeyBody;
  readonly key: WrappingKey;
}

async function use(ring: BranchKeys, scope: Parameters<BranchKeys['current']>[0]): Promise<Used> {
  using loan = await ring.current(scope);
  return { bkId: toHex(loan.bkId), body: loan.body, key: loan.key };
}

function ringOf(provider: KekProvider, options: Partial<BranchKeysOptions> = {}): BranchKeys {
  return new BranchKeys({
    provider,
    writer,
    random: (size) => new Uint8Array(randomBytes(size)),
    ...options,
  });
}

function bindingOf(body: BranchKeyBody): DekBinding {
  return {
    objId: new Uint8Array(16),
    headerTag: new Uint8Array(32),
    bkId: body.bkId,
    bkVer: body.bkVer,
    policy: null,
  };
}

/** Lets every reaction that is due run. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

function isUnavailable(error: unknown): boolean {
  return isHoldfastError(error, 'KEY_UNAVAILABLE');
}

function pick<T>(list: readonly T[], index: number): T {
  const item = list[index];
  assert.ok(item !== undefined);
  return item;
}

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

/** Custody that remembers the keys themselves, counts, fails, lies and waits when told to. */
class MemoryProvider implements KekProvider {
  readonly id = 'memory';
  readonly kind = 'memory';
  readonly handedOut: Uint8Array[] = [];
  readonly #keys = new Map<string, Uint8Array>();
  #gate: Promise<void> = Promise.resolve();
  version = 1;
  made = 0;
  asked = 0;
  failing = false;
  lying = false;
  lastRequest: UnwrapRequest | undefined;

  get secrets(): readonly Uint8Array[] {
    return [...this.#keys.values()];
  }

  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#gate = promise;
    return resolve;
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    if (this.failing) throw unavailable();
    this.made++;
    const branchKey = fresh(32);
    this.#keys.set(toHex(scope.bkId), new Uint8Array(branchKey));
    this.handedOut.push(branchKey);
    const label = encodeLabel({ v: 1, cg: 'test', kekVer: this.version, ...scope });
    const wrap = {
      t: 'dev',
      kid: 'memory',
      label,
      nonce: new Uint8Array(12),
      ct: new Uint8Array(48),
    } as const;
    return { branchKey, wraps: [wrap], combiner: 'any' };
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    this.asked++;
    this.lastRequest = request;
    await this.#gate;
    return records.map((record): Unwrapped => {
      if (this.failing) return { ok: false, error: unavailable() };
      encodeCbor(record); // what arrives is a record as it is stored
      const key = this.#keys.get(toHex(record.bkId));
      const branchKey = this.lying || key === undefined ? fresh(32) : new Uint8Array(key);
      this.handedOut.push(branchKey);
      return { ok: true, branchKey };
    });
  }

  describe() {
    return { kind: this.kind, text: 'for tests', production: false };
  }

  async health() {
    return { ok: true, text: 'for tests' };
  }

  kek(): KekFields {
    const createdAt = '2026-01-01T00:00:00Z';
    return {
      cg: 'test',
      ver: this.version,
      suite: 'dev-file-1',
      state: 'active',
      createdAt,
      provider: 'dev-file',
      kid: 'memory',
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function unavailable(): HoldfastError {
  return new HoldfastError('KEY_UNAVAILABLE', 'no custodian answers');
}
