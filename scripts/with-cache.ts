// Imported before a test file: it then starts as quickly as the program does.

import { saveProgramCache, useProgramCache } from '../src/local/program-cache.ts';

useProgramCache();
process.on('exit', saveProgramCache);
