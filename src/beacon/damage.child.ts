// Flips bits for damage.test.ts: one line per flip, `fine`, `detected`, or what was wrong.
// Arguments: log|view, the good directory, where to make the bad copy, first flip, number of flips.

import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkLog, checkView } from '../../test/suites/beacon-filled.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { verifyBeacon } from './verify.ts';
import { MemoryKv } from './view-memory.ts';

const [, , kind, good = '', bad = '', first, count] = process.argv;
const names = (await readdir(join(good, 'db'))).filter((name) => /\.(?:ldb|log)$|^MANIFEST/.test(name));
const files = await Promise.all(
  names.map(async (name) => ({ name, bytes: await readFile(join(good, 'db', name)) })),
);
const total = files.reduce((sum, { bytes }) => sum + bytes.length, 0);

for (let flip = Number(first); flip < Number(count); flip++) {
  const where = await copyWithFlip(flip);
  process.stdout.write(`${await outcome(where)}\n`);
}

async function outcome(where: string): Promise<string> {
  try {
    return kind === 'log' ? await logOutcome() : await viewOutcome();
  } catch (error) {
    return error instanceof HoldfastError
      ? 'detected'
      : `${where}: ${describeError(error).replaceAll('\n', ' ')}`;
  }
}

async function logOutcome(): Promise<string> {
  await checkLog(bad);
  return 'fine';
}

async function viewOutcome(): Promise<string> {
  await using view = await checkView(bad);
  if (view === undefined) return 'fine';
  const { ok } = await verifyBeacon({ view, scratch: new MemoryKv() });
  return ok ? 'fine' : 'detected';
}

/** Flip `flip` of `count`, spread evenly over all files. */
async function copyWithFlip(flip: number): Promise<string> {
  let offset = Math.floor(((flip + 0.5) * total) / Number(count));
  for (const { name, bytes } of files) {
    if (offset >= bytes.length) {
      offset -= bytes.length;
      continue;
    }
    const flipped = Buffer.from(bytes);
    flipped.writeUInt8(flipped.readUInt8(offset) ^ (1 << (flip % 8)), offset);
    await rm(bad, { recursive: true, force: true });
    await cp(good, bad, { recursive: true });
    await writeFile(join(bad, 'db', name), flipped);
    return `bit ${flip % 8} of byte ${offset} of ${name}`;
  }
  throw new RangeError(`flip ${flip}: beyond the files`);
}
