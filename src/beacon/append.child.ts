// Appends to the log named on the command line, 16 at a time, and prints each acknowledged revision. For damage.test.ts.

import { someAppend } from '../../test/suites/beacon-log.suite.ts';
import { LevelLog } from './level.ts';

const log = await LevelLog.open(process.argv[2] ?? '');

await Promise.all(
  Array.from({ length: 16 }, async (_, writer) => {
    for (;;) {
      const { revision } = await log.append(someAppend(`addr/${writer}`));
      process.stdout.write(`${revision}\n`);
    }
  }),
);
