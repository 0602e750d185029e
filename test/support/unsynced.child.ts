// Writes a file and does not sync it. For power-cut.test.ts.

import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const root = process.argv[2] ?? '';
writeSync(openSync(join(root, 'file'), 'w'), 'written and never synced');
writeSync(openSync(join(root, '.mark'), 'a'), 'written\n');
