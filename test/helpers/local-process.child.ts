// Stands in for a storage node, the steward or the door where only supervision is tested: it has a port, a
// data directory and a peer id like the real one, and misbehaves on request. What it shall do is the text of
// the file DIR/NAME/behave.

import { appendFileSync } from 'node:fs';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { HoldfastError } from '../../src/core/errors.ts';
import { loadProcessConfig } from '../../src/local/layout.ts';
import { superviseChild } from '../../src/local/supervise-child.ts';

using supervision = superviseChild();
const { data = '', name = '' } = parseArgs({
  options: { data: { type: 'string' }, name: { type: 'string' } },
}).values;
const config = await loadProcessConfig(data, name);
const behaviour = await readFile(join(data, name, 'behave'), 'utf8').catch(() => '');
const note = (text: string): void => appendFileSync(join(data, 'notes'), `${name} ${text}\n`);

if (behaviour === 'crash') throw new Error('crashes on purpose');
if (behaviour === 'silent') await new Promise((resolve) => setTimeout(resolve, 60_000));
const stored = await stat(join(config.dataDir, 'stored')).catch(() => undefined);
if (config.born && stored === undefined) {
  await supervision.failed(new HoldfastError('DATA_DIR_DAMAGED', `${config.dataDir} lost what it held`));
  process.exit(6);
}
await mkdir(config.dataDir, { recursive: true });
await writeFile(join(config.dataDir, 'stored'), 'a block');

const server = createServer();
await new Promise<void>((resolve) => server.listen({ port: config.port, host: '127.0.0.1' }, resolve));
await supervision.ready({ peer: config.peer, found: stored !== undefined });

if (behaviour === 'busy') for (;;);
if (behaviour === 'deaf') await new Promise(() => undefined);
await new Promise((resolve) => supervision.stop.addEventListener('abort', resolve));
note('stopped');
server.close();
