// How fast the block store is beside the bare disk and a bare LevelDB, all durable, in the same run.
//
//   node bench/blockstore.bench.ts [rounds, default 5]
//
// Concurrency 16, incompressible blocks, hashes computed before. Every store begins empty in each round;
// the order of the contenders turns from round to round. Reads come from the page cache: they measure the store, not the disk.

import { randomBytes } from 'node:crypto';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { ClassicLevel } from 'classic-level';
import { type Block, rawBlock } from '../src/core/block.ts';
import { openBlockStore } from '../src/node/blockstore.ts';
import { openDataDir } from '../src/node/stores.ts';

const concurrency = 16;
const rounds = Number(process.argv[2] ?? 5);
const loads = [
  { sizeBytes: 262_144, count: 300 },
  { sizeBytes: 1024, count: 4000 },
];

interface Contender extends AsyncDisposable {
  put(block: Block): Promise<unknown>;
  get(block: Block): Promise<unknown>;
}

const contenders: Record<string, (path: string) => Promise<Contender>> = {
  'block store': openStore,
  'file + fdatasync': openFiles,
  'classic-level sync': openClassic,
};

console.log(
  `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${release()}, Node ${process.version}, ${tmpdir()}`,
);
for (const { sizeBytes, count } of loads) await compare(sizeBytes, count);

async function compare(sizeBytes: number, count: number): Promise<void> {
  const blocks = Array.from({ length: count }, () => rawBlock(randomBytes(sizeBytes)));
  const results = new Map(
    Object.keys(contenders).map((name) => [name, { put: [] as number[], get: [] as number[] }]),
  );
  for (let round = 0; round < rounds; round++) {
    const names = Object.keys(contenders);
    for (const name of [...names.slice(round % names.length), ...names.slice(0, round % names.length)]) {
      const measured = await measure(name, blocks);
      results.get(name)?.put.push(measured.put);
      results.get(name)?.get.push(measured.get);
    }
  }
  const own = results.get('block store') ?? { put: [], get: [] };
  console.log(`\n${sizeBytes} B × ${count}, concurrency ${concurrency}, median of ${rounds}`);
  for (const [name, { put, get }] of results) {
    const rate = (ops: number): string =>
      `${((ops * sizeBytes) / 1e6).toFixed(1).padStart(7)} MB/s ${ops.toFixed(0).padStart(6)}/s`;
    const ratio = `put ×${(median(own.put) / median(put)).toFixed(2)}, get ×${(median(own.get) / median(get)).toFixed(2)}`;
    console.log(
      `${name.padEnd(20)} put ${rate(median(put))}   get ${rate(median(get))}   block store is ${ratio}`,
    );
  }
}

async function measure(name: string, blocks: readonly Block[]): Promise<{ put: number; get: number }> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-bench-'));
  try {
    await using contender = await (contenders[name] ?? openStore)(path);
    const put = await rateOf(blocks, (block) => contender.put(block));
    const get = await rateOf(blocks, (block) => contender.get(block));
    return { put, get };
  } finally {
    await rm(path, { recursive: true });
  }
}

/** Operations per second. */
async function rateOf(blocks: readonly Block[], work: (block: Block) => Promise<unknown>): Promise<number> {
  const queue = blocks.values();
  const began = performance.now();
  const worker = async (): Promise<void> => {
    for (const block of queue) await work(block);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  return (blocks.length / (performance.now() - began)) * 1000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

async function openStore(path: string): Promise<Contender> {
  const dir = await openDataDir(join(path, 'data'), { node: 'bench', peer: 'bench', cluster: 'bench' });
  const store = await openBlockStore(dir);
  return {
    put: ({ cid, bytes }) => store.put(cid, bytes),
    get: ({ cid }) => store.get(cid),
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await dir[Symbol.asyncDispose]();
    },
  };
}

async function openFiles(path: string): Promise<Contender> {
  return {
    async put({ cid, bytes }) {
      await using file = await open(join(path, cid.toString()), 'w');
      await file.write(bytes);
      await file.datasync();
    },
    async get({ cid, bytes }) {
      await using file = await open(join(path, cid.toString()), 'r');
      await file.read(Buffer.allocUnsafeSlow(bytes.length), 0, bytes.length, 0);
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function openClassic(path: string): Promise<Contender> {
  const level = new ClassicLevel<Uint8Array, Uint8Array>(path, {
    keyEncoding: 'view',
    valueEncoding: 'view',
  });
  await level.open();
  return {
    put: ({ cid, bytes }) => level.put(cid.bytes, bytes, { sync: true }),
    get: ({ cid }) => level.get(cid.bytes),
    [Symbol.asyncDispose]: () => level.close(),
  };
}
