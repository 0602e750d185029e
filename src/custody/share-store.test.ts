import assert from 'node:assert/strict';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Fuse, PowerCutDisk, type Survival, survivals } from '../../test/support/power-cut-disk.ts';
import { isHoldfastError } from '../core/errors.ts';
import { openFolder } from './disk.ts';
import { chooseSealing, createSealingKeyFile, type SealingConfig } from './sealing-key.ts';
import { openShareStore, Resealing } from './open-shares.ts';
import { ShareStore } from './share-store.ts';

const owner = '12D3KooWExample';
const bytes32 = (value: number): Uint8Array => new Uint8Array(32).fill(value);
const facts = {
  index: 2,
  t: 2,
  n: 3,
  publicKey: bytes32(1),
  commitments: [bytes32(1), bytes32(2)],
  verificationShares: [bytes32(3), bytes32(4), bytes32(5)],
};
const generation = (gen: number) => ({ cg: 'main', kekVer: 1, gen });
const certificate = bytes32(9);

let dir = '';
let sealing: SealingConfig;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-shares-'));
  const path = join(dir, 'sealing.key');
  await createSealingKeyFile(path);
  sealing = { source: 'key-file', path };
});
after(() => rm(dir, { recursive: true, force: true }));

interface World {
  readonly shares: PowerCutDisk;
  readonly keys: PowerCutDisk;
}

function world(fuse = new Fuse()): World {
  return { shares: new PowerCutDisk('shares', fuse), keys: new PowerCutDisk('keys', fuse) };
}

function open(disks: World, create = false): Promise<ShareStore> {
  return ShareStore.open({ ...disks, sealing, owner, create });
}

async function secretOf(store: ShareStore, gen: number): Promise<Uint8Array> {
  return (await store.openShare(generation(gen), 'kek')).secret;
}

/** A store with generation 0 active. */
async function active(disks: World): Promise<ShareStore> {
  const store = await open(disks, true);
  await store.stage(generation(0), 'kek', { facts, secret: bytes32(10), beat: 1 });
  await store.activate(generation(0), { beat: 2, certificate });
  return store;
}

describe('share store', () => {
  test('a share goes staged, active, previous, erased, over restarts', async () => {
    const disks = world();
    await active(disks);
    const store = await open(disks);
    assert.deepEqual(await secretOf(store, 0), bytes32(10));
    await store.stage(generation(1), 'kek', { facts, secret: bytes32(11), beat: 3 });
    await store.activate(generation(1), { beat: 4, certificate });
    const again = await open(disks);
    assert.deepEqual(
      again.shares().map(({ gen, status, since }) => [gen, status, since]),
      [
        [0, 'previous', 4],
        [1, 'active', 4],
      ],
    );
    assert.deepEqual([await secretOf(again, 0), await secretOf(again, 1)], [bytes32(10), bytes32(11)]);
    await again.erase(generation(1)); // active: not erased
    await again.erase(generation(0));
    await assert.rejects(secretOf(again, 0), { code: 'KEY_UNAVAILABLE' });
    assert.deepEqual(await secretOf(await open(disks), 1), bytes32(11));
    assert.deepEqual((await disks.keys.list()).length, 1, 'one sealing key is left');
  });

  test('both keys of a generation are activated together, and retiring a version erases it for good', async () => {
    const disks = world();
    const store = await open(disks, true);
    for (const key of ['kek', 'frost'] as const)
      await store.stage(generation(0), key, { facts, secret: bytes32(1), beat: 1 });
    await store.activate(generation(0), { beat: 2, certificate });
    assert.deepEqual(
      store.shares().map(({ key, status }) => `${key} ${status}`),
      ['kek active', 'frost active'],
    );
    await store.retire({ cg: 'main', kekVer: 1 });
    assert.deepEqual([(await disks.keys.list()).length, (await disks.shares.list()).length], [0, 1]);
    await assert.rejects(store.stage(generation(7), 'kek', { facts, secret: bytes32(1), beat: 3 }), {
      code: 'VERSION_CONFLICT',
    });
  });

  test('a version that was given up is over while the one before it goes on', async () => {
    const store = await active(world());
    const put = { facts, secret: bytes32(1), beat: 3 };
    await store.stage({ cg: 'main', kekVer: 2, gen: 1 }, 'kek', put);
    await store.retire({ cg: 'main', kekVer: 2 });
    await assert.rejects(store.stage({ cg: 'main', kekVer: 2, gen: 1 }, 'kek', put), {
      code: 'VERSION_CONFLICT',
    });
    await store.stage(generation(1), 'kek', put);
    await store.activate(generation(1), { beat: 4, certificate });
    await store.leave({ cg: 'main', kekVer: 1 });
    assert.deepEqual(store.versions('main'), [1], 'who left may come back, to a later generation');
    await assert.rejects(store.stage(generation(1), 'kek', put), { code: 'VERSION_CONFLICT' });
    await store.stage(generation(2), 'kek', put);
    await store.retire({ cg: 'main', kekVer: 1 });
    await assert.rejects(store.stage(generation(3), 'kek', put), { code: 'VERSION_CONFLICT' });
    assert.ok(store.hasServed('main') && !store.hasServed('other'));
  });

  test('what an earlier release remembers of a version that is over goes with the next look at it', async () => {
    const store = await open(world(), true);
    await store.raise('generation/main/1/kek', Number.MAX_SAFE_INTEGER);
    const put = { facts, secret: bytes32(1), beat: 3 };
    await assert.rejects(store.stage(generation(1), 'kek', put), { code: 'VERSION_CONFLICT' });
    assert.deepEqual(store.versions('main'), [1]);
    await store.retire({ cg: 'main', kekVer: 1 });
    assert.deepEqual(store.versions('main'), []);
    await assert.rejects(store.stage(generation(1), 'kek', put), { code: 'VERSION_CONFLICT' });
  });

  test('a generation that was active is never staged again', async () => {
    const store = await active(world());
    await assert.rejects(store.stage(generation(0), 'kek', { facts, secret: bytes32(9), beat: 3 }), {
      code: 'VERSION_CONFLICT',
    });
    await assert.rejects(store.activate(generation(1), { beat: 3, certificate }), { code: 'NOT_FOUND' });
  });

  test('key pairs, marks and nonces survive', async () => {
    const disks = world();
    const store = await open(disks, true);
    await store.addKeyPair({ kind: 'dkg', epoch: 0, publicKey: bytes32(1) }, bytes32(21));
    for (const epoch of [1, 2])
      await store.addKeyPair({ kind: 'prekey', epoch, publicKey: bytes32(2) }, bytes32(30 + epoch));
    await store.raise('kek/main', 4);
    assert.equal(await store.useNonce(bytes32(1), 20, 10), true);
    const again = await open(disks);
    assert.equal(await again.useNonce(bytes32(1), 20, 10), false);
    assert.equal(await again.useNonce(bytes32(2), 90, 21), true);
    assert.deepEqual(await again.openKeyPair('dkg'), bytes32(21));
    await again.erasePrekeysBefore(2);
    await assert.rejects(again.openKeyPair('prekey', 1), { code: 'KEY_UNAVAILABLE' });
    assert.deepEqual(await again.openKeyPair('prekey', 2), bytes32(32));
    await assert.rejects(again.raise('kek/main', 3), { code: 'VERSION_CONFLICT' });
    assert.equal(again.mark('kek/main'), 4);
  });

  test('no secret is in any file', async () => {
    const disks = world();
    await active(disks);
    const files = await Promise.all(
      [disks.shares, disks.keys].flatMap(async (disk) =>
        Promise.all((await disk.list()).map(async (name) => (await disk.read(name)) ?? bytes32(0))),
      ),
    );
    for (const file of files.flat())
      assert.equal(Buffer.from(file).indexOf(Buffer.alloc(16, 10)), -1, 'the secret is in the clear');
  });
});

/** Cuts the power before every step of `work` in turn, opens what is left, and lets `check` look at it. */
async function atEveryStep(
  prepare: (disks: World) => Promise<ShareStore>,
  work: (store: ShareStore) => Promise<void>,
  check: (store: ShareStore, where: string) => Promise<void>,
): Promise<number> {
  for (let at = 0; ; at++) {
    const fuse = new Fuse();
    const disks = world(fuse);
    const store = await prepare(disks);
    fuse.at = fuse.steps + at;
    const done = await work(store).then(
      () => true,
      () => false,
    );
    for (const survival of survivals) await checkAfterCut(disks, survival, at, check);
    if (done) return at;
  }
}

async function checkAfterCut(
  disks: World,
  survival: Survival,
  at: number,
  check: (store: ShareStore, where: string) => Promise<void>,
): Promise<void> {
  const fuse = new Fuse();
  const found = { shares: disks.shares.afterCut(survival, fuse), keys: disks.keys.afterCut(survival, fuse) };
  const where = `cut before step ${at}, ${survival} of the unflushed survives`;
  const store = await open(found).catch((error: unknown) => assert.fail(`${where}: ${String(error)}`));
  await check(store, where);
  const [keys, shares] = [await found.keys.list(), await found.shares.list()];
  assert.equal(keys.length, store.entries().length, `${where}: a key nobody names was left`);
  assert.equal(shares.length, store.entries().length + 1, `${where}: a file nobody names was left`);
}

describe('power cuts', () => {
  test('staging: the active share stays, the staged one is whole or absent', async () => {
    const steps = await atEveryStep(
      active,
      (store) => store.stage(generation(1), 'kek', { facts, secret: bytes32(11), beat: 3 }),
      async (store, where) => {
        assert.deepEqual(await secretOf(store, 0), bytes32(10), where);
        if (store.shares().some(({ gen }) => gen === 1))
          assert.deepEqual(await secretOf(store, 1), bytes32(11));
      },
    );
    assert.ok(steps >= 12, `only ${steps} steps were cut`);
  });

  test('activating: exactly one generation is active, and it opens', async () => {
    await atEveryStep(
      async (disks) => {
        const store = await active(disks);
        await store.stage(generation(1), 'kek', { facts, secret: bytes32(11), beat: 3 });
        return store;
      },
      (store) => store.activate(generation(1), { beat: 4, certificate }),
      async (store, where) => {
        const usable = store.shares().filter(({ status }) => status === 'active');
        assert.equal(usable.length, 1, where);
        const gen = usable[0]?.gen ?? -1;
        assert.deepEqual(await secretOf(store, gen), bytes32(10 + gen), where);
        assert.deepEqual(await secretOf(store, 1 - gen), bytes32(11 - gen), where);
      },
    );
  });

  test('activating over a previous one, and erasing: the active share opens at every step', async () => {
    const two = async (disks: World): Promise<ShareStore> => {
      const store = await active(disks);
      await store.stage(generation(1), 'kek', { facts, secret: bytes32(11), beat: 3 });
      await store.activate(generation(1), { beat: 4, certificate });
      await store.stage(generation(2), 'kek', { facts, secret: bytes32(12), beat: 5 });
      return store;
    };
    const check = async (store: ShareStore, where: string): Promise<void> => {
      const usable = store.shares().filter(({ status }) => status === 'active');
      assert.equal(usable.length, 1, where);
      for (const { gen } of store.shares())
        assert.deepEqual(await secretOf(store, gen), bytes32(10 + gen), where);
    };
    await atEveryStep(two, (store) => store.activate(generation(2), { beat: 6, certificate }), check);
    await atEveryStep(two, (store) => store.erase(generation(0)), check);
  });

  test('a nonce that was refused the second time is never accepted after a cut', async () => {
    await atEveryStep(
      active,
      async (store) => void (await store.useNonce(bytes32(7), 50, 1)),
      async (store) => {
        await store.useNonce(bytes32(7), 50, 1); // whether it was written or not, it is used now
        assert.equal(await store.useNonce(bytes32(7), 50, 1), false);
      },
    );
  });

  test('the test sees a store that renames before it flushes', async () => {
    const fuse = new Fuse();
    const disk = new PowerCutDisk('shares', fuse);
    await disk.create('a.new', bytes32(1));
    await disk.rename('a.new', 'a');
    await disk.flushNames();
    assert.equal((await disk.afterCut('names', fuse).read('a'))?.length, 0);
  });

  test('after a failed write nothing is written until it is opened again, and reading goes on', async () => {
    const fuse = new Fuse();
    const disks = world(fuse);
    const store = await active(disks);
    fuse.at = fuse.steps + 2;
    await assert.rejects(store.raise('a', 1), { code: 'FILE_UNREADABLE' });
    fuse.at = Number.POSITIVE_INFINITY;
    await assert.rejects(store.raise('a', 1), { code: 'FILE_UNREADABLE' });
    assert.deepEqual(await secretOf(store, 0), bytes32(10));
    await (await open(disks)).raise('a', 1);
  });
});

describe('refusals', () => {
  test('every flipped byte of the state is noticed', async () => {
    const disks = world();
    await active(disks);
    const state = (await disks.shares.read('state')) ?? bytes32(0);
    for (let at = 0; at < state.length; at += 7) {
      const flipped = new Uint8Array(state);
      flipped[at] = (flipped[at] ?? 0) ^ 0x10;
      disks.shares.tamper('state', flipped);
      await assert.rejects(
        open(disks),
        (error) => isHoldfastError(error) && error.code.startsWith('DATA_DIR_'),
      );
    }
  });

  test('a lost state is damage, with or without sealed secrets', async () => {
    const disks = world();
    await active(disks);
    disks.shares.tamper('state');
    await assert.rejects(open(disks), { code: 'DATA_DIR_DAMAGED' });
    await assert.rejects(open(disks, true), { code: 'DATA_DIR_DAMAGED' });
    await assert.rejects(open(world()), { code: 'DATA_DIR_DAMAGED' });
  });

  test('a damaged or lost secret is named when it is opened; the others work', async () => {
    const disks = world();
    const store = await active(disks);
    await store.addKeyPair({ kind: 'dkg', epoch: 0, publicKey: bytes32(1) }, bytes32(21));
    const share = store.shares()[0]?.id ?? '';
    disks.keys.tamper(`${share}.key`);
    const again = await open(disks);
    await assert.rejects(secretOf(again, 0), { code: 'RECORD_CORRUPT' });
    assert.deepEqual(await again.openKeyPair('dkg'), bytes32(21));
    const pair = again.keyPairs()[0]?.id ?? '';
    const sealed = (await disks.shares.read(`${pair}.sealed`)) ?? bytes32(0);
    disks.shares.tamper(
      `${pair}.sealed`,
      sealed.map((byte, at) => (at === 20 ? byte ^ 1 : byte)),
    );
    await assert.rejects(again.openKeyPair('dkg'), { code: 'RECORD_CORRUPT' });
  });

  test('one secret in the place of another does not open', async () => {
    const disks = world();
    const store = await open(disks, true);
    for (const epoch of [1, 2])
      await store.addKeyPair({ kind: 'prekey', epoch, publicKey: bytes32(2) }, bytes32(epoch));
    const [one = '', two = ''] = store.keyPairs().map(({ id }) => id);
    disks.shares.tamper(`${two}.sealed`, await disks.shares.read(`${one}.sealed`));
    disks.keys.tamper(`${two}.key`, await disks.keys.read(`${one}.key`));
    await assert.rejects(store.openKeyPair('prekey', 2), { code: 'RECORD_CORRUPT' });
  });

  test('foreign owners, newer formats and other files', async () => {
    const disks = world();
    await active(disks);
    await assert.rejects(ShareStore.open({ ...disks, sealing, owner: 'another', create: false }), {
      code: 'DATA_DIR_FOREIGN',
    });
    const { encodeCbor } = await import('../core/block.ts');
    disks.shares.tamper('state', encodeCbor({ format: 'holdfast-share-store', version: 2 }));
    await assert.rejects(open(disks), { code: 'DATA_DIR_NEWER' });
    disks.shares.tamper('state', encodeCbor({ format: 'something' }));
    await assert.rejects(open(disks), { code: 'DATA_DIR_FOREIGN' });
  });
});

describe('sealing sources', () => {
  test('the key file is refused when others may read it, and when it is damaged', async () => {
    const disks = world();
    await active(disks);
    const path = join(dir, 'copy.key');
    const text = await readFile(sealing.path, 'utf8');
    await writeFile(path, text, { mode: 0o640 });
    await chmod(path, 0o640);
    const openWith = (config: SealingConfig) =>
      ShareStore.open({ ...disks, sealing: config, owner, create: false });
    await assert.rejects(openWith({ source: 'key-file', path }), { code: 'FORBIDDEN' });
    await chmod(path, 0o600);
    await openWith({ source: 'key-file', path });
    await writeFile(
      path,
      text.replace(/[0-9a-f]\n$/, (end) => (end[0] === '0' ? '1\n' : '0\n')),
    );
    await assert.rejects(openWith({ source: 'key-file', path }), { code: 'RECORD_CORRUPT' });
    await rm(path);
    await assert.rejects(openWith({ source: 'key-file', path }), { code: 'FILE_NOT_FOUND' });
    await createSealingKeyFile(path);
    await assert.rejects(openWith({ source: 'key-file', path }), { code: 'DECRYPT_FAILED' });
  });

  test('a passphrase file seals and opens; a wrong or short one, or another source, does not', async () => {
    const disks = world();
    const path = join(dir, 'passphrase');
    await writeFile(path, 'correct horse battery\n', { mode: 0o600 });
    const config: SealingConfig = { source: 'passphrase-file', path };
    await ShareStore.open({ ...disks, sealing: config, owner, create: true });
    await ShareStore.open({ ...disks, sealing: config, owner, create: false });
    await assert.rejects(open(disks), { code: 'KEY_UNAVAILABLE' });
    await writeFile(path, 'another horse battery\n');
    await assert.rejects(ShareStore.open({ ...disks, sealing: config, owner, create: false }), {
      code: 'DECRYPT_FAILED',
    });
    await writeFile(path, 'short\n');
    await assert.rejects(ShareStore.open({ ...disks, sealing: config, owner, create: false }), {
      code: 'ARGUMENT_INVALID',
    });
  });

  test('the best source that is there is chosen', async () => {
    const folder = await mkdtemp(join(dir, 'places-'));
    const places = {
      credentialsDir: folder,
      passphrasePath: join(folder, 'pass'),
      keyPath: join(folder, 'key'),
    };
    assert.equal((await chooseSealing(places)).source, 'key-file');
    await writeFile(places.passphrasePath, 'correct horse battery', { mode: 0o600 });
    assert.equal((await chooseSealing(places)).source, 'passphrase-file');
    await writeFile(join(folder, 'holdfast-sealing'), 'correct horse battery', { mode: 0o400 });
    assert.equal((await chooseSealing(places)).source, 'credential');
  });

  test('a store on a real directory', async () => {
    const disk = await openFolder(join(dir, 'real'));
    const options = { shares: disk, keys: disk, sealing, owner };
    const store = await ShareStore.open({ ...options, create: true });
    await store.stage(generation(0), 'kek', { facts, secret: bytes32(10), beat: 1 });
    await store.activate(generation(0), { beat: 2, certificate });
    assert.deepEqual(await secretOf(await ShareStore.open({ ...options, create: false }), 0), bytes32(10));
  });
});

describe('sealing anew', () => {
  const passphrase = async (name: string): Promise<SealingConfig> => {
    const path = join(dir, name);
    await writeFile(path, `the passphrase ${name}\n`, { mode: 0o600 });
    return { source: 'passphrase-file', path };
  };
  const openAs = (disks: World, how: SealingConfig) =>
    ShareStore.open({ ...disks, sealing: how, owner, create: false });

  test('everything opens under the new secret and nothing under the old one; a reader in between is served', async (t) => {
    const disks = world();
    const store = await active(disks);
    await store.addKeyPair({ kind: 'dkg', epoch: 0, publicKey: bytes32(7) }, bytes32(8));
    await store.raise('beat', 5);
    const old = await disks.shares.list();
    const next = await passphrase('next');
    // Who was about to read a file finds it gone, and the secret in another one.
    const resealed = Promise.withResolvers<void>();
    const read = disks.shares.read.bind(disks.shares);
    let isWaiting = true;
    t.mock.method(disks.shares, 'read', async (name: string) => {
      if (isWaiting) {
        isWaiting = false;
        await resealed.promise;
      }
      return read(name);
    });
    const reading = secretOf(store, 0);
    await store.reseal(next);
    resealed.resolve();
    assert.deepEqual(await reading, bytes32(10));
    assert.equal(store.source, 'passphrase-file');
    assert.deepEqual(await secretOf(store, 0), bytes32(10));
    assert.ok((await disks.shares.list()).every((name) => name === 'state' || !old.includes(name)));
    await assert.rejects(open(disks), { code: 'KEY_UNAVAILABLE' });
    const again = await openAs(disks, next);
    assert.deepEqual([await secretOf(again, 0), again.mark('beat')], [bytes32(10), 5]);
    assert.deepEqual(await again.openKeyPair('dkg'), bytes32(8));
    await again.stage(generation(1), 'kek', { facts, secret: bytes32(11), beat: 3 });
    await again.reseal(sealing); // and back
    assert.deepEqual(await secretOf(await open(disks), 1), bytes32(11));
  });

  test('a power cut at any step leaves the old secret or the new one, and all of it', async () => {
    const path = join(dir, 'other.key');
    await createSealingKeyFile(path);
    const next: SealingConfig = { source: 'key-file', path };
    const opens = async (disks: World, how: SealingConfig): Promise<boolean> =>
      openAs(disks, how).then(
        () => true,
        (error: unknown) => {
          assert.ok(isHoldfastError(error, 'DECRYPT_FAILED'));
          return false;
        },
      );
    let [oldOnes, newOnes] = [0, 0];
    for (const survival of survivals)
      for (let at = 0; ; at++) {
        const fuse = new Fuse();
        const disks = world(fuse);
        const store = await active(disks);
        fuse.steps = 0;
        fuse.at = at;
        const outcome = await store.reseal(next).then(
          () => 'done',
          () => 'cut',
        );
        const after = new Fuse();
        const found = {
          shares: disks.shares.afterCut(survival, after),
          keys: disks.keys.afterCut(survival, after),
        };
        const isOld = await opens(found, sealing);
        assert.equal(await opens(found, next), !isOld);
        if (isOld) oldOnes++;
        else newOnes++;
        const opened = await openAs(found, isOld ? sealing : next);
        assert.deepEqual(await secretOf(opened, 0), bytes32(10));
        assert.deepEqual(
          [(await found.shares.list()).length, (await found.keys.list()).length],
          [1 + opened.entries().length, opened.entries().length],
        );
        if (outcome === 'cut') continue;
        assert.ok(!isOld);
        break;
      }
    assert.ok(oldOnes > 3 && newOnes > 3, `${oldOnes} ${newOnes}`);
  });

  test('a store whose secret is half moved is found and the move is ended', async () => {
    const places = { passphrasePath: join(dir, 'place'), keyPath: join(dir, 'place.key') };
    await writeFile(places.passphrasePath, 'the first passphrase\n', { mode: 0o600 });
    const disks = world();
    const first = await openShareStore({ ...disks, owner, create: true }, places);
    await assert.rejects(new Resealing(first, places).to('passphrase-file'), { code: 'ARGUMENT_MISSING' });
    await assert.rejects(new Resealing(first, places).to('credential'), { code: 'ARGUMENT_MISSING' });
    await writeFile(`${places.passphrasePath}.next`, 'the second passphrase\n', { mode: 0o600 });
    await openShareStore({ ...disks, owner, create: false }, places); // nothing has happened yet
    await first.shares.reseal({ source: 'passphrase-file', path: `${places.passphrasePath}.next` });
    const found = await openShareStore({ ...disks, owner, create: false }, places);
    assert.equal(found.sealing.path, places.passphrasePath);
    assert.match(await readFile(places.passphrasePath, 'utf8'), /second/);
    const { from, now } = await new Resealing(found, places).to('key-file');
    assert.deepEqual([from.path, now.path], [places.passphrasePath, places.keyPath]);
    assert.equal(
      (await openShareStore({ ...disks, owner, create: false }, places)).shares.source,
      'key-file',
    );
    // A secret of the kind that is not there any more is not made up for by another kind.
    await rm(places.keyPath);
    const gone = openShareStore({ ...disks, owner, create: false }, places);
    await assert.rejects(gone, { code: 'KEY_UNAVAILABLE' });
  });
});
