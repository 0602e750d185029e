// Writes to a log, a view or a block store under disk-shim.c and marks in the journal what it was told is kept.
// Arguments: log|view|blocks, the directory, and optionally a fault: a command for the shim, as "sync 5 1".

import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { LevelLog } from '../../src/beacon/level.ts';
import { MemoryLog } from '../../src/beacon/memory.ts';
import { BeaconView } from '../../src/beacon/view.ts';
import { LevelKv } from '../../src/beacon/view-level.ts';
import { HoldfastError } from '../../src/core/errors.ts';
import { openBlockStore } from '../../src/node/blockstore.ts';
import { openDataDir } from '../../src/node/stores.ts';
import { blockOptions, numberedAppend, numberedBlock, owner } from './disk-world.ts';

const [, , what, root = '', fault] = process.argv;
const directory = join(root, 'store');
const marks = openSync(join(root, '.mark'), 'a');
const faults = openSync(join(root, '.fault'), 'a');

if (what === 'log') await writeLog();
else if (what === 'view') await writeView();
else await writeBlocks();
closeSync(marks);

/** Three openings, so that tables, manifests and logs change hands. The fault comes in the second. */
async function writeLog(): Promise<void> {
  for (let round = 0; round < 3; round++) {
    await using log = await LevelLog.open(directory, { freeBytesMin: 0 });
    for (let group = 0; group < 4; group++) {
      if (round === 1 && group === 2) begin();
      const from = 12 * round + 3 * group;
      await Promise.all(
        [from, from + 1, from + 2].map(async (index) => {
          await untilKept(
            () => log.append(numberedAppend(index)),
            () => log.health().state,
          );
          mark(`kept ${index}`);
        }),
      );
    }
  }
}

async function writeView(): Promise<void> {
  const log = new MemoryLog();
  for (let index = 0; index < 36; index++) await log.append(numberedAppend(index));
  const entries = await Array.fromAsync(log.read(1));
  for (let round = 0; round < 3; round++) {
    await using view = await BeaconView.open(await LevelKv.open(directory));
    for (let group = 0; group < 4; group++) {
      if (round === 1 && group === 2) begin();
      const from = 12 * round + 3 * group;
      await untilKept(
        () => view.apply(entries.slice(from, from + 3)),
        () => 'not kept',
      );
      mark(`kept ${from + 2}`);
    }
  }
}

async function writeBlocks(): Promise<void> {
  for (let round = 0; round < 2; round++) {
    await using dir = await openDataDir(directory, owner);
    await using store = await openBlockStore(dir, blockOptions);
    for (let group = 0; group < 5; group++) {
      if (round === 1 && group === 2) begin();
      const from = 20 * round + 4 * group;
      await Promise.all(
        [from, from + 1, from + 2, from + 3].map(async (index) => {
          const { cid, bytes } = numberedBlock(index);
          await untilKept(
            () => store.put(cid, bytes),
            () => store.usage().state,
          );
          mark(`kept ${index}`);
        }),
      );
      if (group % 2 === 0) continue;
      const { cid } = numberedBlock(from);
      mark(`deleting ${from}`);
      await untilKept(
        () => store.delete(cid),
        () => store.usage().state,
      );
      mark(`gone ${from}`);
    }
  }
}

function begin(): void {
  if (fault !== undefined) writeSync(faults, fault);
}

/** Again and again; a refusal ends the fault when it is a lasting one. */
async function untilKept(work: () => Promise<unknown>, state: () => string): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      await work();
      return;
    } catch (error) {
      if (!(error instanceof HoldfastError) || attempt > 500) throw error;
      mark(`refused ${error.code} ${state()}`);
      if (attempt === 1) writeSync(faults, 'none');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

function mark(line: string): void {
  writeSync(marks, `${line}\n`);
}
