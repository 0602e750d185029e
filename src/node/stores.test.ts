import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { utf8 } from '../core/bytes.ts';
import { type DataDirOwner, openDataDir, openLevel, openValue, sealValue } from './stores.ts';

const owner: DataDirOwner = { node: 'node-1', peer: 'peer-1', cluster: 'cluster-1' };

async function scratch(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-stores-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return join(path, 'data');
}

test('a directory is made once and known again', async (t) => {
  const path = await scratch(t);
  {
    await using dir = await openDataDir(path, owner);
    assert.equal(dir.fresh, true);
    await Promise.all(['a', 'b', 'c'].map((name) => dir.markBorn(name)));
  }
  await using dir = await openDataDir(path, owner);
  assert.equal(dir.fresh, false);
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((name) => dir.isBorn(name)),
    [true, true, true, false],
  );
});

test('another owner is refused and the directory is left as it was', async (t) => {
  const path = await scratch(t);
  await (await openDataDir(path, owner))[Symbol.asyncDispose]();
  const before = await readFile(join(path, 'birth.json'));
  for (const field of ['node', 'peer', 'cluster'] as const) {
    await assert.rejects(openDataDir(path, { ...owner, [field]: 'other' }), { code: 'DATA_DIR_FOREIGN' });
  }
  assert.deepEqual(await readFile(join(path, 'birth.json')), before);
});

test('a newer format, a damaged marker and a lost marker are refused', async (t) => {
  const path = await scratch(t);
  {
    await using dir = await openDataDir(path, owner);
    await using _ = await openLevel(dir, 'ledger');
  }
  const marker = join(path, 'birth.json');
  const good = await readFile(marker, 'utf8');
  await writeFile(marker, good.replace('"format": 1', '"format": 2'));
  await assert.rejects(openDataDir(path, owner), { code: 'DATA_DIR_NEWER' });
  for (const bad of [good.replace('"ledger"', '"Ledger"'), good.slice(0, 40), '', 'null', '{}']) {
    await writeFile(marker, bad);
    await assert.rejects(openDataDir(path, owner), { code: 'DATA_DIR_DAMAGED' }, bad);
  }
  await rm(marker);
  await assert.rejects(openDataDir(path, owner), { code: 'DATA_DIR_DAMAGED' });
  assert.deepEqual(await readdir(join(path, 'stores')), ['ledger']);
});

test('a second opening is refused, in this process and in another', async (t) => {
  const path = await scratch(t);
  await using _ = await openDataDir(path, owner);
  await assert.rejects(openDataDir(path, owner), { code: 'DATA_DIR_LOCKED', details: { pid: process.pid } });
  const child = holder(t, path);
  const [text] = await once(child.stdout, 'data');
  assert.equal(String(text), 'DATA_DIR_LOCKED\n');
  await once(child, 'exit');
});

test('the lock dies with its process', async (t) => {
  const path = await scratch(t);
  const child = holder(t, path);
  const [text] = await once(child.stdout, 'data');
  assert.equal(String(text), 'open\n');
  await assert.rejects(openDataDir(path, owner), { code: 'DATA_DIR_LOCKED', details: { pid: child.pid } });
  child.kill('SIGKILL');
  await once(child, 'exit');
  await using dir = await openDataDir(path, owner);
  assert.equal(dir.fresh, false);
});

test('rubble in the lock after a power cut does not matter', async (t) => {
  const path = await scratch(t);
  await (await openDataDir(path, owner))[Symbol.asyncDispose]();
  await truncate(join(path, 'lock', 'CURRENT'), 0);
  await using dir = await openDataDir(path, owner);
  await assert.rejects(openDataDir(path, owner), { code: 'DATA_DIR_LOCKED' });
  assert.equal(dir.fresh, false);
});

test('a store that lost its files is never replaced by an empty one', async (t) => {
  const path = await scratch(t);
  await using dir = await openDataDir(path, owner);
  const key = utf8('k');
  {
    await using store = await openLevel(dir, 'ledger');
    assert.equal(store.condition, 'fresh');
    await store.level.put(key, sealValue(key, utf8('v')), { sync: true });
  }
  await rm(join(dir.storePath('ledger'), 'CURRENT'));
  await assert.rejects(openLevel(dir, 'ledger'), {
    code: 'DATA_DIR_DAMAGED',
    details: {
      store: dir.storePath('ledger'),
      salvaged: `${dir.storePath('ledger')}.salvage`,
      records: 1,
      intact: 1,
    },
  });
  await rm(dir.storePath('ledger'), { recursive: true });
  await assert.rejects(openLevel(dir, 'ledger'), { code: 'DATA_DIR_DAMAGED' });
});

test('a rebuildable store that lost its files begins anew, and says so', async (t) => {
  const path = await scratch(t);
  await using dir = await openDataDir(path, owner);
  await (await openLevel(dir, 'index', { rebuildable: true }))[Symbol.asyncDispose]();
  await rm(join(dir.storePath('index'), 'CURRENT'));
  await using store = await openLevel(dir, 'index', { rebuildable: true });
  assert.equal(store.condition, 'rebuild');
  assert.equal(store.damage?.code, 'DATA_DIR_DAMAGED');
});

test('an unclean end is noticed once', async (t) => {
  const path = await scratch(t);
  await using dir = await openDataDir(path, owner);
  await (await openLevel(dir, 'ledger')).abandon();
  const second = await openLevel(dir, 'ledger');
  assert.equal(second.condition, 'unclean');
  await second[Symbol.asyncDispose]();
  await using third = await openLevel(dir, 'ledger');
  assert.equal(third.condition, 'clean');
});

test('a sealed value opens under its own key and nowhere else, and no flipped bit passes', () => {
  const bytes = fc.uint8Array({ maxLength: 64 });
  fc.assert(
    fc.property(bytes, bytes, bytes, fc.nat(), (key, other, value, at) => {
      const sealed = sealValue(key, value);
      assert.deepEqual(openValue(key, sealed), value);
      const flipped = sealed.slice();
      const bit = at % (flipped.length * 8);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      assert.throws(() => openValue(key, flipped), { code: 'RECORD_CORRUPT' });
      if (Buffer.compare(key, other) !== 0) {
        assert.throws(() => openValue(other, sealed), { code: 'RECORD_CORRUPT' });
      }
    }),
  );
});

/** A process that opens the directory, says how that went, and holds it if it may. */
function holder(t: TestContext, path: string) {
  const stores = fileURLToPath(new URL('./stores.ts', import.meta.url));
  const script = `
    const { openDataDir } = await import(${JSON.stringify(stores)});
    try {
      await openDataDir(${JSON.stringify(path)}, ${JSON.stringify(owner)});
      console.log('open');
      setInterval(() => {}, 1000);
    } catch (error) {
      console.log(error.code);
    }`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  return child;
}
