// Opens a LevelDB and reads all of it, in a process of its own: damage can make LevelDB abort.
//
//   node stores-probe.worker.ts probe|repair <directory>
//
// Prints {records, intact} as JSON; exits 1 with the reason on stderr.

import { ClassicLevel } from 'classic-level';
import { describeError } from '../core/errors.ts';
import { openValue } from './stores.ts';

const [mode, path] = process.argv.slice(2);
if (path === undefined || (mode !== 'probe' && mode !== 'repair'))
  throw new TypeError('usage: probe|repair <directory>');

try {
  if (mode === 'repair') await ClassicLevel.repair(path);
  console.log(JSON.stringify(await countRecords(path)));
} catch (error) {
  console.error(describeError(error));
  process.exitCode = 1;
}

async function countRecords(path: string): Promise<{ records: number; intact: number }> {
  const level = new ClassicLevel<Uint8Array, Uint8Array>(path, {
    keyEncoding: 'view',
    valueEncoding: 'view',
  });
  await level.open({ createIfMissing: false });
  let records = 0;
  let intact = 0;
  for await (const [key, value] of level.iterator({ fillCache: false })) {
    records++;
    if (isIntact(key, value)) intact++;
  }
  await level.close();
  return { records, intact };
}

function isIntact(key: Uint8Array, value: Uint8Array): boolean {
  try {
    openValue(key, value);
    return true;
  } catch {
    return false;
  }
}
