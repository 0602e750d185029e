import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { type Block, cborBlock, CID, rawBlock } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import type { BlockStoreEvent, BlockStoreOptions } from './block-options.ts';
import type { DiskBlockStore } from './block-ports.ts';
import { frameHeadBytes } from './block-segments.ts';
import { openBlockStore } from './blockstore.ts';
import { openDataDir } from './stores.ts';

const owner = { node: 'node-1', peer: 'peer-1', cluster: 'cluster-1' };
const small: BlockStoreOptions = { segmentBytes: 64 * 1024, indexBufferBytes: 64 * 1024, reserveBytes: 0 };

async function scratch(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-blocks-'));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

/** Opens the store at `path`, lets `work` use it, and closes it in good order. */
async function withStore<T>(
  path: string,
  work: (store: DiskBlockStore, events: BlockStoreEvent[]) => Promise<T>,
  options: BlockStoreOptions = small,
  as = owner,
): Promise<T> {
  const events: BlockStoreEvent[] = [];
  await using dir = await openDataDir(path, as);
  await using store = await openBlockStore(dir, { ...options, onEvent: (event) => events.push(event) });
  return await work(store, events);
}

const fileBlock = (): Block => rawBlock(randomBytes(65_536));
const frameBlock = (): Block => rawBlock(randomBytes(1000));

test('a block comes back, both sizes, both codecs, and after opening again', async (t) => {
  const path = await scratch(t);
  const blocks = [
    fileBlock(),
    frameBlock(),
    cborBlock({ a: 1 }),
    rawBlock(new Uint8Array(0)),
    rawBlock(randomBytes(1_048_576)),
  ];
  await withStore(path, async (store) => {
    for (const { cid, bytes } of blocks) {
      assert.equal(await store.has(cid), false);
      assert.equal(await store.put(cid, bytes), 'stored');
      assert.equal(await store.put(cid, bytes), 'present');
      assert.deepEqual(await store.stat(cid), { sizeBytes: bytes.length });
    }
    assert.equal(store.changes.seq, blocks.length);
  });
  await withStore(path, async (store, events) => {
    for (const { cid, bytes } of blocks)
      assert.deepEqual(Buffer.from((await store.get(cid)) ?? []), Buffer.from(bytes));
    assert.equal(store.usage().blocks, blocks.length);
    assert.deepEqual(events, []);
    assert.equal(await store.delete(fileBlock().cid), false);
  });
});

test('bytes under a wrong CID are not taken', async (t) => {
  await withStore(await scratch(t), async (store) => {
    await assert.rejects(store.put(frameBlock().cid, randomBytes(9)), { code: 'BLOCK_CORRUPT' });
    await assert.rejects(store.put(rawBlock(new Uint8Array(1_048_577)).cid, new Uint8Array(1_048_577)), {
      code: 'TOO_LARGE',
    });
    assert.equal(store.usage().blocks, 0);
  });
});

test('a random history agrees with a map', async (t) => {
  const root = await scratch(t);
  const pool = Array.from({ length: 24 }, (_, at) =>
    rawBlock(Buffer.alloc(at % 3 === 0 ? 65_536 + at : 300 * at, `b${at}`)),
  );
  const step = fc.oneof(
    { weight: 6, arbitrary: fc.tuple(fc.constant('put' as const), fc.nat(23)) },
    { weight: 4, arbitrary: fc.tuple(fc.constant('delete' as const), fc.nat(23)) },
    { weight: 2, arbitrary: fc.tuple(fc.constant('get' as const), fc.nat(23)) },
    { weight: 1, arbitrary: fc.tuple(fc.constantFrom('reopen' as const, 'compact' as const), fc.nat(0)) },
  );
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const path = join(root, String(++runs));
      const model = new Map<string, Block>();
      const options = { ...small, segmentBytes: 4096 };
      for (const session of split(steps)) {
        await withStore(
          path,
          async (store) => {
            await check(store, model);
            for (const [op, at] of session) await apply(store, model, op, pool[at] ?? frameBlock());
            await check(store, model);
            await store.compact();
            await check(store, model);
          },
          options,
        );
      }
    }),
    { numRuns: 12 },
  );
});

type Step = ['put' | 'delete' | 'get' | 'reopen' | 'compact', number];

function split(steps: readonly Step[]): Step[][] {
  const sessions: Step[][] = [[]];
  for (const step of steps) {
    if (step[0] === 'reopen') sessions.push([]);
    else sessions.at(-1)?.push(step);
  }
  return sessions;
}

async function apply(
  store: DiskBlockStore,
  model: Map<string, Block>,
  op: Step[0],
  block: Block,
): Promise<void> {
  const name = block.cid.toString();
  if (op === 'put') {
    assert.equal(await store.put(block.cid, block.bytes), model.has(name) ? 'present' : 'stored');
    model.set(name, block);
  }
  if (op === 'delete') assert.equal(await store.delete(block.cid), model.delete(name));
  if (op === 'get') assert.equal((await store.get(block.cid)) !== undefined, model.has(name));
  if (op === 'compact') await store.compact();
}

async function check(store: DiskBlockStore, model: ReadonlyMap<string, Block>): Promise<void> {
  const expected = [...model.values()].sort((a, b) =>
    Buffer.compare(a.cid.multihash.digest, b.cid.multihash.digest),
  );
  assert.deepEqual(
    (await store.list()).map(String),
    expected.map(({ cid }) => String(cid)),
  );
  for (const { cid, bytes } of expected)
    assert.ok(Buffer.from(bytes).equals((await store.get(cid)) ?? new Uint8Array(1)));
  let sum = 0n;
  for (const { cid } of expected) sum += BigInt(`0x${toHex(cid.multihash.digest)}`);
  assert.equal(toHex(store.digest().sum), (sum % 2n ** 256n).toString(16).padStart(64, '0'));
  assert.equal(store.digest().count, expected.length);
  assert.equal(
    store.usage().bytes,
    expected.reduce((total, { bytes }) => total + bytes.length, 0),
  );
}

test('pages of the list join without gap or overlap', async (t) => {
  await withStore(await scratch(t), async (store) => {
    const blocks = Array.from({ length: 30 }, frameBlock);
    await Promise.all(blocks.map(({ cid, bytes }) => store.put(cid, bytes)));
    const seen: string[] = [];
    for (let after: CID | undefined; ; ) {
      const page = await store.list(after, 7);
      seen.push(...page.map(String));
      after = page.at(-1);
      if (after === undefined) break;
    }
    assert.deepEqual(seen, (await store.list()).map(String));
    assert.equal(new Set(seen).size, 30);
  });
});

test('the journal tells additions and deletions, and when to list again', async (t) => {
  await withStore(
    await scratch(t),
    async (store) => {
      const blocks = Array.from({ length: 6 }, frameBlock);
      for (const { cid, bytes } of blocks) await store.put(cid, bytes);
      await store.delete(blocks[0]?.cid ?? frameBlock().cid);
      const tail = store.changes.since(5);
      assert.ok(tail !== 'reset');
      assert.deepEqual(
        tail.changes.map(({ seq, op, sizeBytes }) => [seq, op, sizeBytes]),
        [
          [6, 'add', 1000],
          [7, 'del', 1000],
        ],
      );
      assert.equal(store.changes.since(8), 'reset');
      assert.equal(store.changes.since(2), 'reset');
      const page = store.changes.since(3, 2);
      assert.deepEqual(page !== 'reset' && page.changes.map(({ seq }) => seq), [4, 5]);
    },
    { ...small, journalChanges: 4 },
  );
});

test('a thousand writers of one block do not wait for a thousand writes', { timeout: 20_000 }, async (t) => {
  await withStore(await scratch(t), async (store) => {
    const { cid, bytes } = rawBlock(randomBytes(262_144));
    const results: string[] = [];
    let left = 1000;
    await Promise.all(
      Array.from({ length: 64 }, async () => {
        while (left-- > 0) results.push(await store.put(cid, bytes));
      }),
    );
    assert.equal(store.changes.seq, 1, 'written once');
    assert.equal(results.filter((result) => result === 'stored').length, 1);
    assert.equal(results.length, 1000);
  });
});

for (const kind of ['file', 'segment'] as const) {
  test(`a flipped bit in a ${kind} is never served, is told, and the block can be stored again`, async (t) => {
    const path = await scratch(t);
    const block = kind === 'file' ? fileBlock() : frameBlock();
    await withStore(path, async (store) => {
      await store.put(block.cid, block.bytes);
      await flip(await dataFile(path, kind), kind === 'file' ? 30_000 : frameHeadBytes + 500);
      assert.equal(await store.get(block.cid), undefined);
      assert.equal(await store.has(block.cid), false);
      const changes = store.changes.since(1);
      assert.deepEqual(changes !== 'reset' && changes.changes.map(({ op }) => op), ['corrupt']);
      assert.equal((await readdir(join(path, 'stores', 'blocks', 'quarantine'))).length, 1);
      assert.equal(await store.put(block.cid, block.bytes), 'stored');
      assert.deepEqual(Buffer.from((await store.get(block.cid)) ?? []), Buffer.from(block.bytes));
    });
  });

  test(`scrub finds what nobody reads: ${kind}`, async (t) => {
    const path = await scratch(t);
    const block = kind === 'file' ? fileBlock() : frameBlock();
    await withStore(path, async (store) => {
      await store.put(block.cid, block.bytes);
      await flip(await dataFile(path, kind), kind === 'file' ? 1 : frameHeadBytes + 1);
      const { checked, corrupt, done } = await store.scrubStep(1_000_000);
      assert.deepEqual([checked, corrupt.map(String), done], [1, [String(block.cid)], true]);
    });
  });
}

test('scrub goes on where an earlier process ended', async (t) => {
  const path = await scratch(t);
  const blocks = Array.from({ length: 10 }, frameBlock);
  const first = await withStore(path, async (store) => {
    for (const { cid, bytes } of blocks) await store.put(cid, bytes);
    return store.scrubStep(4000);
  });
  assert.deepEqual([first.checked, first.done], [4, false]);
  const second = await withStore(path, (store) => store.scrubStep(1_000_000));
  assert.deepEqual([second.checked, second.done, second.cursor], [6, true, '']);
});

test('a frame whose head is damaged is served, and scrub writes it again for the day the index is lost', async (t) => {
  const path = await scratch(t);
  const { cid, bytes } = frameBlock();
  await withStore(path, async (store) => {
    await store.put(cid, bytes);
    await flip(await dataFile(path, 'segment'), 9);
    assert.deepEqual(Buffer.from((await store.get(cid)) ?? []), Buffer.from(bytes));
    assert.equal((await store.scrubStep(1_000_000)).corrupt.length, 0);
  });
  await rm(join(path, 'stores', 'block-index'), { recursive: true });
  await withStore(path, async (store) =>
    assert.deepEqual(Buffer.from((await store.get(cid)) ?? []), Buffer.from(bytes)),
  );
});

test('a lost index is rebuilt from files and segments', async (t) => {
  const path = await scratch(t);
  const blocks = Array.from({ length: 40 }, (_, at) => (at % 8 === 0 ? fileBlock() : frameBlock()));
  const digest = await withStore(path, async (store) => {
    await Promise.all(blocks.map(({ cid, bytes }) => store.put(cid, bytes)));
    return store.digest();
  });
  await rm(join(path, 'stores', 'block-index'), { recursive: true });
  await withStore(path, async (store, events) => {
    assert.deepEqual(store.digest(), digest);
    assert.deepEqual(
      events.map(({ type }) => type),
      ['index-rebuilt', 'recovered'],
    );
    for (const { cid } of blocks) assert.ok(await store.get(cid));
  });
});

test('bits flipped anywhere in the index serve nothing wrong and lose nothing', {
  timeout: 60_000,
}, async (t) => {
  const path = await scratch(t);
  const blocks = Array.from({ length: 60 }, (_, at) => (at % 20 === 0 ? fileBlock() : frameBlock()));
  await withStore(path, async (store) => {
    for (const { cid, bytes } of blocks) await store.put(cid, bytes);
  });
  const dir = join(path, 'stores', 'block-index');
  for (let round = 0; round < 12; round++) {
    for (const name of await readdir(dir)) {
      if (!/\.(log|ldb)$/.test(name)) continue;
      const { size } = await stat(join(dir, name));
      if (size > 0) await flip(join(dir, name), Math.floor((size * (round + 0.5)) / 12));
    }
    await withStore(path, async (store) => {
      assert.equal(store.digest().count, blocks.length, `round ${round}`);
      for (const { cid, bytes } of blocks)
        assert.ok(Buffer.from(bytes).equals((await store.get(cid)) ?? new Uint8Array(1)));
    });
  }
});

test('a torn tail of a segment costs the torn frame only', async (t) => {
  const path = await scratch(t);
  const blocks = Array.from({ length: 5 }, frameBlock);
  await withStore(path, async (store) => {
    for (const { cid, bytes } of blocks) await store.put(cid, bytes);
  });
  const file = await dataFile(path, 'segment');
  await truncate(file, (await stat(file)).size - 10);
  await writeFile(join(path, 'stores', 'block-index.open'), ''); // as a crash leaves it
  await withStore(path, async (store, events) => {
    assert.deepEqual(await Promise.all(blocks.map(({ cid }) => store.has(cid))), [
      true,
      true,
      true,
      true,
      false,
    ]);
    assert.equal(
      events.some((event) => event.type === 'recovered' && event.report.lost === 1),
      true,
    );
    for (const { cid, bytes } of blocks) await store.put(cid, bytes);
  });
});

test('lost directories are damage, not an empty store', async (t) => {
  const path = await scratch(t);
  await withStore(path, async (store) => store.put(fileBlock().cid, randomBytes(3)).catch(() => undefined));
  await rm(join(path, 'stores', 'blocks', 'segments'), { recursive: true });
  await assert.rejects(
    withStore(path, async () => undefined),
    { code: 'DATA_DIR_DAMAGED' },
  );
  await rm(join(path, 'stores', 'blocks'), { recursive: true });
  await assert.rejects(
    withStore(path, async () => undefined),
    { code: 'DATA_DIR_DAMAGED' },
  );
});

test('deleting returns the space of segments', async (t) => {
  const path = await scratch(t);
  await withStore(path, async (store) => {
    const blocks = Array.from({ length: 300 }, frameBlock);
    await Promise.all(blocks.map(({ cid, bytes }) => store.put(cid, bytes)));
    const before = await segmentsSize(path);
    await Promise.all(blocks.slice(0, 270).map(({ cid }) => store.delete(cid)));
    await store.compact();
    await store.compact();
    assert.ok((await segmentsSize(path)) < before / 2, `${await segmentsSize(path)} of ${before}`);
    for (const { cid } of blocks.slice(270)) assert.ok(await store.get(cid));
  });
});

test('nothing acknowledged is lost to kill -9', { timeout: 60_000 }, async (t) => {
  const path = await scratch(t);
  const script = fileURLToPath(new URL('../../test/helpers/blockstore.child.ts', import.meta.url));
  const present = new Set<string>();
  const as = { node: 'crash', peer: 'peer', cluster: 'cluster' };
  for (let round = 0; round < 4; round++) {
    const child = spawn(process.execPath, [script, path, `r${round}`], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => child.kill('SIGKILL'));
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part;
      if (text.length > 6000 + 5000 * round) child.kill('SIGKILL');
    });
    await once(child, 'close');
    for (const line of text.slice(0, text.lastIndexOf('\n')).split('\n')) {
      if (line.startsWith('-')) present.delete(line.slice(1));
      else if (line !== 'open') present.add(line);
    }
    const gone = await withStore(
      path,
      async (store) => {
        const missing: string[] = [];
        for (const name of present) if ((await store.get(CID.parse(name))) === undefined) missing.push(name);
        return missing;
      },
      small,
      as,
    );
    assert.deepEqual(gone, []);
    assert.ok(present.size > 50);
  }
});

const mountable = process.getuid?.() === 0 && process.platform === 'linux';

test('a full disk: read-only, nothing lost, and on again when space returns', {
  timeout: 60_000,
}, async (t) => {
  if (!mountable) return t.skip('tmpfs needs root');
  const path = await scratch(t);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    return t.skip('tmpfs cannot be mounted here');
  }
  try {
    await withStore(path, (store, events) => fillAndFree(path, store, events), { ...small, probeMs: 20 });
  } finally {
    execFileSync('umount', ['-l', path]);
  }
});

async function fillAndFree(path: string, store: DiskBlockStore, events: BlockStoreEvent[]): Promise<void> {
  const ballast = join(path, 'ballast');
  const kept: Block[] = [];
  const fill = async (): Promise<void> => {
    for (let at = 0; ; at++) {
      const block = at % 3 === 0 ? fileBlock() : frameBlock();
      await store.put(block.cid, block.bytes);
      kept.push(block);
    }
  };
  for (let round = 0; round < 3; round++) {
    await writeFile(ballast, new Uint8Array(4 * 1024 * 1024));
    await Promise.allSettled([fill(), fill(), fill(), fill()]);
    assert.equal(store.usage().state, 'read-only');
    assert.ok(store.usage().reason);
    await assert.rejects(fill(), { code: 'DISK_FULL' });
    await allThere(store, kept);
    await rm(ballast);
    while (store.usage().state === 'read-only') await delay(10);
    await allThere(store, kept);
    for (const { cid } of kept.splice(0)) assert.equal(await store.delete(cid), true);
    await store.compact();
  }
  assert.ok(events.some(({ type }) => type === 'ready'));
}

async function allThere(store: DiskBlockStore, blocks: readonly Block[]): Promise<void> {
  for (const { cid, bytes } of blocks)
    assert.ok(Buffer.from(bytes).equals((await store.get(cid)) ?? new Uint8Array(1)));
}

async function dataFile(path: string, kind: 'file' | 'segment'): Promise<string> {
  const dir = join(path, 'stores', 'blocks', kind === 'file' ? 'files' : 'segments');
  const found = (await readdir(dir, { recursive: true, withFileTypes: true })).find((entry) =>
    entry.isFile(),
  );
  assert.ok(found);
  return join(found.parentPath, found.name);
}

async function segmentsSize(path: string): Promise<number> {
  const dir = join(path, 'stores', 'blocks', 'segments');
  let total = 0;
  for (const name of await readdir(dir)) total += (await stat(join(dir, name))).size;
  return total;
}

async function flip(file: string, position: number): Promise<void> {
  await using handle = await open(file, 'r+');
  const byte = new Uint8Array(1);
  await handle.read(byte, 0, 1, position);
  byte[0] = (byte[0] ?? 0) ^ 0x10;
  await handle.write(byte, 0, 1, position);
}
