// Many test files in one process: the program is loaded once for all of them. Their tests run one after the other.

import { pathToFileURL } from 'node:url';

for (const path of process.argv.slice(2)) await import(pathToFileURL(path).href);
