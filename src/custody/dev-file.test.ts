import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { encodeCbor } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import type { ErrorCode } from '../core/errors.ts';
import { isHoldfastError } from '../core/errors.ts';
import { parseLabel } from '../envelope/label.ts';
import { type BranchKeyBody, type DevWrap, parseBranchKey, parseKek } from '../envelope/records.ts';
import { commitmentOf } from '../envelope/wrap.ts';
import { type DevFileOptions, openDevFile } from './dev-file.ts';
import { BranchKeys } from './keyring.ts';
import type { KekProvider, NewKey } from './provider.ts';

const writer = fresh(32);
const bkId = fresh(16);
const scope = { project: 'bzzz', cls: 'internal', writer, window: [1, 120] } as const;
const request = { purpose: 'read', requester: writer, beat: 1 } as const;
let folder = '';
let filesCount = 0;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'holdfast-dev-file-'));
});
after(() => rm(folder, { recursive: true, force: true }));

test('a branch key comes back, also after a restart', async () => {
  const path = newPath();
  const body = await withProvider(path, true, async (provider) => {
    const made = await make(provider);
    assert.deepEqual(await unwrapped(provider, made.body), made.branchKey);
    return made;
  });
  await withProvider(path, false, async (provider) => {
    assert.deepEqual(await unwrapped(provider, body.body), body.branchKey);
  });
});

test('works behind the ring of branch keys', async () => {
  await withProvider(newPath(), true, async (provider) => {
    await using ring = new BranchKeys({ provider, writer, random: fresh });
    using writing = await ring.current({ project: 'p', cls: 'restricted', policy: null, beat: 9 });
    using reading = await ring.open(writing.body, request);
    assert.equal(reading.bkVer, 1);
    const label = parseLabel(devWrap(writing.body).label);
    assert.deepEqual([label.cg, label.kekVer, label.window], ['dev', 1, [9, 128]]);
  });
});

describe('the file', () => {
  test('has mode 600 whatever the umask, and leaves nothing beside it', async () => {
    const path = newPath();
    const umask = process.umask(0o277);
    try {
      await withProvider(path, true, async () => undefined);
    } finally {
      process.umask(umask);
    }
    assert.equal((await stat(path)).mode & 0o7777, 0o600);
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.includes('.tmp')),
      [],
    );
  });

  test('is never replaced: a second creation takes the key that is there', async () => {
    const path = newPath();
    const ids = await Promise.all(
      Array.from({ length: 8 }, () => withProvider(path, true, async ({ id }) => id)),
    );
    assert.equal(new Set(ids).size, 1);
  });

  test('is not made anew when it is missing', async () => {
    await refuses({ path: newPath() }, 'DATA_DIR_DAMAGED', /missing/);
  });

  test('is refused with any permission for others', async () => {
    const path = await made();
    for (const mode of [
      0o640, 0o604, 0o620, 0o602, 0o660, 0o666, 0o644, 0o601, 0o610, 0o700, 0o777, 0o4600,
    ]) {
      await chmod(path, mode);
      await refuses({ path }, 'FILE_UNREADABLE', new RegExp(`mode is ${mode.toString(8)}`));
    }
    await chmod(path, 0o400);
    await withProvider(path, false, async () => undefined);
  });

  test('is refused behind a symbolic link, as a directory, and of another version', async () => {
    const path = await made();
    const linked = newPath();
    await symlink(path, linked);
    await refuses({ path: linked }, 'FILE_UNREADABLE', /plain file/);
    await refuses({ path: linked, create: true }, 'FILE_UNREADABLE', /plain file/);
    await refuses({ path: folder }, 'FILE_UNREADABLE', /plain file/);
    for (const version of [0, 2, '1', null]) {
      const other = newPath();
      await writeFile(other, JSON.stringify({ ...(await fieldsOf(path)), version }), { mode: 0o600 });
      await refuses({ path: other }, 'DATA_DIR_NEWER', /version 1 expected/);
    }
  });

  test('is refused when damaged, without showing what it holds', async () => {
    const path = await made();
    const fields = await fieldsOf(path);
    const key = String(fields['key']);
    const text = JSON.stringify(fields);
    const otherKey = randomBytes(32).toString('base64');
    const damaged = [
      '',
      text.slice(0, -30),
      key,
      `"${key}"`,
      `[${text}]`,
      text.padEnd(5000, ' '),
      JSON.stringify({ ...fields, format: 'other' }),
      JSON.stringify({ ...fields, key: otherKey }),
      JSON.stringify({ ...fields, key: key.slice(4) }),
      JSON.stringify({ ...fields, kid: '00'.repeat(16) }),
      JSON.stringify({ ...fields, kekVersion: '1' }),
      JSON.stringify({ ...fields, group: undefined }),
    ];
    for (const content of damaged) {
      const other = newPath();
      await writeFile(other, content, { mode: 0o600 });
      const error = await refuses({ path: other }, 'RECORD_CORRUPT', /./);
      const shown = `${inspect(error, { showHidden: true, depth: 9 })}${JSON.stringify(error)}`;
      assert.ok(!shown.includes(key.slice(0, 10)) && !shown.includes(otherKey.slice(0, 10)));
    }
  });

  test('says where it could not be made', async () => {
    await refuses(
      { path: join(folder, 'absent', 'key.json'), create: true },
      'FILE_UNREADABLE',
      /cannot be created/,
    );
  });
});

test('production is refused unless forced', async () => {
  const path = await made();
  await refuses({ path, environment: 'production' }, 'ARGUMENT_INVALID', /NODE_ENV=production/);
  const fresh = newPath();
  await refuses({ path: fresh, environment: 'production', create: true }, 'ARGUMENT_INVALID', /refused/);
  await assert.rejects(stat(fresh));
  await using forced = await openDevFile(
    options({ path, environment: 'production', forceInProduction: true }),
  );
  assert.equal(forced.describe().production, false);
});

test('says loudly what it is, and notices when its file goes', async () => {
  const path = await made();
  await withProvider(path, false, async (provider) => {
    assert.match(provider.describe().text, /^DEVELOPMENT KEY FILE, NOT FOR PRODUCTION/);
    assert.deepEqual((await provider.health()).ok, true);
    await chmod(path, 0o644);
    assert.match((await provider.health()).text, /mode is 644/);
    await rm(path);
    assert.deepEqual((await provider.health()).ok, false);
    await withProvider(path, true, async () => undefined);
    assert.match((await provider.health()).text, /another key/);
  });
});

test('its KEK fields make a valid record', async () => {
  await withProvider(newPath(), true, async (provider) => {
    const body = { kind: 'kek', v: 1, writer, prev: null, ...provider.kek() };
    assert.equal(parseKek(body).createdAt, '1970-01-01T00:00:01.000Z');
  });
});

describe('nothing else unwraps', () => {
  test('another key file’s wrap, and one that needs other providers too', async () => {
    await withProvider(newPath(), true, async (one) => {
      await withProvider(newPath(), true, async (other) => {
        const { body } = await make(one);
        await unwrapRefused(other, body, 'KEY_UNAVAILABLE');
        const relabelled = { ...body, wraps: [{ ...devWrap(body), kid: devKid(other) }] };
        await unwrapRefused(other, relabelled, 'DECRYPT_FAILED');
        const both = {
          ...body,
          combiner: 'all',
          wraps: [devWrap(body), devWrap((await make(other)).body)],
        } as const;
        await unwrapRefused(one, both, 'KEY_UNAVAILABLE');
      });
    });
  });

  test('a flipped bit in label, nonce or ciphertext', async () => {
    await withProvider(newPath(), true, async (provider) => {
      const { body } = await make(provider);
      const wrap = devWrap(body);
      for (const field of ['label', 'nonce', 'ct'] as const) {
        for (let byte = 0; byte < wrap[field].length; byte++) {
          const changed = new Uint8Array(wrap[field]);
          changed[byte] = (changed[byte] ?? 0) ^ 4;
          await unwrapRefused(
            provider,
            { ...body, wraps: [{ ...wrap, [field]: changed }] },
            'DECRYPT_FAILED',
          );
        }
      }
    });
  });
});

test('one refusal in a request leaves the others their answers', async () => {
  await withProvider(newPath(), true, async (provider) => {
    const good = await make(provider);
    const bad = { ...good.body, wraps: [{ ...devWrap(good.body), ct: fresh(48) }] };
    const answers = await provider.unwrap([good.body, bad, good.body], request);
    assert.deepEqual(
      answers.map(({ ok }) => ok),
      [true, false, true],
    );
    await assert.rejects(provider.unwrap([], request), /1 to 256/);
    await assert.rejects(provider.unwrap(Array<BranchKeyBody>(257).fill(good.body), request), /1 to 256/);
  });
});

test('the provider shows its key nowhere, and is of no use after disposal', async () => {
  const path = await made();
  const key = Buffer.from(String((await fieldsOf(path))['key']), 'base64');
  const provider = await openDevFile(options({ path }));
  const { branchKey, body } = await make(provider);
  const answers = await provider.unwrap([{ ...body, wraps: [{ ...devWrap(body), ct: fresh(48) }] }], request);
  const shown = [provider, provider.describe(), await provider.health(), provider.kek(), body, answers]
    .map(
      (item) =>
        `${inspect(item, { showHidden: true, depth: 20, maxArrayLength: null })}${JSON.stringify(item)}`,
    )
    .join('');
  for (const secret of [key, branchKey]) {
    assert.ok(!shown.includes(toHex(secret).slice(0, 12)));
    assert.ok(!shown.includes(Buffer.from(secret).toString('base64').slice(0, 10)));
    assert.ok(!shown.includes([...secret.subarray(0, 5)].join(', ')));
    assert.ok(!toHex(encodeCbor(body)).includes(toHex(secret).slice(0, 16)));
  }
  await provider[Symbol.asyncDispose]();
  await assert.rejects(provider.unwrap([body], request), /used after disposal/);
});

interface Made {
  readonly branchKey: Uint8Array;
  readonly body: BranchKeyBody;
}

async function make(provider: KekProvider): Promise<Made> {
  const { branchKey, wraps, combiner }: NewKey = await provider.createKey({
    ...scope,
    bkId,
    bkVer: 1,
    policy: null,
  });
  const head = { kind: 'branch-key', v: 1, writer, prev: null } as const;
  const commit = commitmentOf(branchKey);
  const body = parseBranchKey({ ...head, bkId, bkVer: 1, scope, maxWraps: 4096, commit, combiner, wraps });
  return { branchKey, body };
}

async function unwrapped(provider: KekProvider, body: BranchKeyBody): Promise<Uint8Array> {
  const [answer] = await provider.unwrap([body], request);
  assert.ok(answer?.ok === true);
  return answer.branchKey;
}

async function unwrapRefused(provider: KekProvider, body: BranchKeyBody, code: ErrorCode): Promise<void> {
  const [answer] = await provider.unwrap([body], request);
  assert.ok(answer?.ok === false);
  assert.equal(answer.error.code, code);
}

function devKid(provider: KekProvider): string {
  const kek = provider.kek();
  assert.ok(kek.provider === 'dev-file');
  return kek.kid;
}

function devWrap(body: BranchKeyBody): DevWrap {
  const wrap = body.wraps.find((each): each is DevWrap => each.t === 'dev');
  assert.ok(wrap !== undefined);
  return wrap;
}

async function withProvider<T>(
  path: string,
  create: boolean,
  work: (provider: KekProvider) => Promise<T>,
): Promise<T> {
  await using provider = await openDevFile(options({ path, create }));
  return await work(provider);
}

async function refuses(changes: Partial<DevFileOptions>, code: ErrorCode, message: RegExp): Promise<unknown> {
  const error: unknown = await openDevFile(options(changes)).then(
    () => assert.fail('opened'),
    (error: unknown) => error,
  );
  assert.ok(isHoldfastError(error, code), inspect(error));
  assert.match(error.message, message);
  return error;
}

function options(changes: Partial<DevFileOptions>): DevFileOptions {
  const clock = { now: () => 1000, monotonic: () => 0 };
  return { path: newPath(), clock, create: false, environment: 'test', ...changes };
}

async function made(): Promise<string> {
  const path = newPath();
  await withProvider(path, true, async () => undefined);
  return path;
}

async function fieldsOf(path: string): Promise<Record<string, unknown>> {
  const fields: Record<string, unknown> = JSON.parse(await readFile(path, 'utf8'));
  return fields;
}

function newPath(): string {
  return join(folder, `key-${filesCount++}.json`);
}

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}
