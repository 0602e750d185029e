// Power cuts at many moments, and disks whose syncs fail: nothing acknowledged is lost, nothing half-written is taken.
//
// A killed process shows neither: the kernel keeps what was not synced. Here a shim between the process and its disk
// writes down what it does (support/disk-shim.c), and the disk after a cut at any moment is made from that.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { LevelLog } from '../src/beacon/level.ts';
import { MemoryLog } from '../src/beacon/memory.ts';
import { verifyBeacon } from '../src/beacon/verify.ts';
import { BeaconView } from '../src/beacon/view.ts';
import { LevelKv } from '../src/beacon/view-level.ts';
import { MemoryKv } from '../src/beacon/view-memory.ts';
import { sameBytes } from '../src/core/bytes.ts';
import { openBlockStore } from '../src/node/blockstore.ts';
import { openDataDir } from '../src/node/stores.ts';
import { compileShim, cuts, PlayedDisk, runOnDisk } from './support/disk-journal.ts';
import { blockOptions, numberedAppend, numberedBlock, owner } from './support/disk-world.ts';

const scratch = await mkdtemp(join(tmpdir(), 'holdfast-power-'));
const library = compileShim(scratch);
const skip = library === undefined && 'needs Linux and a C compiler (cc): no shim between process and disk';
after(() => rm(scratch, { recursive: true }));

const { EIO, ENOSPC } = constants.errno;
const faults = {
  'a sync fails once (EIO)': `sync ${EIO} 1`,
  'syncs fail for a while (EIO)': `sync ${EIO} -1`,
  'the disk is full for a while (ENOSPC)': `write ${ENOSPC} -1`,
  'writes fail for a while (EIO)': `write ${EIO} -1`,
};

/** A block store that was cut off probes its index in another process: there are fewer moments for it. */
const subjects = [
  { what: 'log', check: checkLog, moments: 30 },
  { what: 'view', check: checkView, moments: 30 },
  { what: 'blocks', check: checkBlocks, moments: 12 },
] as const;

for (const { what, check, moments } of subjects) {
  describe(`the disk under ${what}`, { skip }, () => {
    it('is written down whole: played to its end, the journal gives the files that are there', async () => {
      const { disk, root } = await written(what, `${what}-whole`);
      while (disk.step());
      const played = disk.files();
      for (const name of await readdir(join(root, 'store'), { recursive: true, withFileTypes: true })) {
        if (!name.isFile() || name.name.startsWith('LOG')) continue; // LevelDB's diary goes past the shim, and nobody reads it
        const path = join(name.parentPath, name.name);
        const bytes = played.get(path.slice(root.length + 1));
        assert(bytes !== undefined && bytes.equals(await readFile(path)), path);
      }
    });

    it('keeps all that was acknowledged through a power cut at any moment', async () => {
      const { disk } = await written(what, `${what}-cut`);
      await cutAll(disk, join(scratch, `${what}-after`), check, moments);
    });

    for (const [name, fault] of Object.entries(faults)) {
      it(`${name}: nothing is acknowledged then, and what is acknowledged later is kept`, async () => {
        const { disk } = await written(what, `${what}-${fault.replaceAll(' ', '')}`, fault);
        await cutAll(disk, join(scratch, `${what}-after`), check, moments / 6);
        const refused = disk.marks.filter((line) => line.startsWith('refused'));
        assert(refused.length > 0, 'the fault was not noticed');
        if (what !== 'view')
          assert(
            refused.some((line) => line.endsWith('read-only')),
            refused.join(),
          );
      });
    }
  });
}

it('is not blind: a program that does not sync is seen to lose', { skip }, async () => {
  const root = join(scratch, 'blind');
  await mkdir(root);
  const journal = join(scratch, 'blind.journal');
  const script = join(import.meta.dirname, 'support/unsynced.child.ts');
  await runOnDisk(library ?? '', { root, journal, script, args: [root] });
  const disk = await PlayedDisk.load(root, journal);
  while (disk.step());
  await disk.write(join(scratch, 'blind-after'), { names: 'all', bytes: 'synced' });
  assert.deepEqual(disk.marks, ['written']);
  assert.equal((await readFile(join(scratch, 'blind-after/file'))).length, 0);
  await disk.write(join(scratch, 'blind-after'), { names: 'synced', bytes: 'synced' });
  assert.deepEqual(await readdir(join(scratch, 'blind-after')), []);
});

/** Lets a child write, and returns its disk before the first request. */
async function written(
  what: string,
  name: string,
  fault?: string,
): Promise<{ readonly disk: PlayedDisk; readonly root: string }> {
  const root = join(scratch, name);
  const journal = join(scratch, `${name}.journal`);
  await mkdir(root);
  const script = join(import.meta.dirname, 'support/disk.child.ts');
  const args = fault === undefined ? [what, root] : [what, root, fault];
  await runOnDisk(library ?? '', { root, journal, script, args });
  return { disk: await PlayedDisk.load(root, journal), root };
}

type Check = (directory: string, marks: readonly string[]) => Promise<void>;

/** Cuts the power at moments spread over the whole run, each with another part of the unsynced kept. */
async function cutAll(disk: PlayedDisk, target: string, check: Check, moments: number): Promise<void> {
  let kind = 0;
  let marked = 0;
  for (let at = 1; disk.step(); at++) {
    const isChosen =
      Math.floor((at * moments) / disk.length) > Math.floor(((at - 1) * moments) / disk.length);
    // Right after an acknowledgement is when something could be missing.
    const acknowledged = disk.marks.filter((line) => !line.startsWith('refused')).length;
    const isAcknowledged = acknowledged > marked && acknowledged % 6 === 0 && kind < 2 * moments;
    marked = acknowledged;
    if (!isChosen && !isAcknowledged) continue;
    const cut = cuts[kind++ % cuts.length] ?? { names: 'all', bytes: 'all' };
    await disk.write(target, cut);
    try {
      await check(join(target, 'store'), disk.marks);
    } catch (cause) {
      throw new Error(`cut after request ${at} of ${disk.length}, ${JSON.stringify(cut)}`, { cause });
    }
  }
  assert(kind >= moments, `only ${kind} cuts`);
}

/** Numbers in the marks that begin with `word`. */
function numbersOf(marks: readonly string[], word: string): Set<number> {
  const lines = marks.filter((line) => line.startsWith(`${word} `));
  return new Set(lines.map((line) => Number(line.split(' ')[1])));
}

async function checkLog(directory: string, marks: readonly string[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  await using log = await LevelLog.open(directory);
  const found = await Array.fromAsync(log.read(1));
  const subjects = new Set(found.map(({ subject }) => subject));
  for (const index of numbersOf(marks, 'kept')) {
    assert(subjects.has(numberedAppend(index).subject), `append ${index} is lost`);
  }
  const { revision } = await log.append(numberedAppend(99));
  assert.equal(revision, found.length + 1);
}

async function checkView(directory: string, marks: readonly string[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  await using log = new MemoryLog();
  for (let index = 0; index < 36; index++) await log.append(numberedAppend(index));
  await using view = await BeaconView.open(await LevelKv.open(directory));
  const keptTo = Math.max(0, ...[...numbersOf(marks, 'kept')].map((index) => index + 1));
  const { revision } = view.position();
  assert(revision >= keptTo, `the view is at ${revision}, ${keptTo} was acknowledged`);
  const { problems } = await verifyBeacon({ log, view, scratch: new MemoryKv() });
  assert.deepEqual(problems, []);
  await view.apply(await Array.fromAsync(log.read(revision + 1)));
}

async function checkBlocks(directory: string, marks: readonly string[]): Promise<void> {
  await using dir = await openDataDir(directory, owner);
  await using store = await openBlockStore(dir, blockOptions);
  const deleting = numbersOf(marks, 'deleting');
  for (const index of numbersOf(marks, 'kept')) {
    if (deleting.has(index)) continue;
    const { cid, bytes } = numberedBlock(index);
    const found = await store.get(cid);
    assert(found !== undefined && sameBytes(found, bytes), `block ${index} is lost`);
  }
  for (const index of numbersOf(marks, 'gone')) {
    assert.equal(await store.has(numberedBlock(index).cid), false, `block ${index} is back`);
  }
  for (const cid of await store.list())
    assert(await store.get(cid), `${cid.toString()} is listed and not whole`);
  const { cid, bytes } = numberedBlock(99);
  assert.equal(await store.put(cid, bytes), 'stored');
}
