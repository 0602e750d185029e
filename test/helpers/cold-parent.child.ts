// Opens the share that it is sent in a process of its own, tells which one, and waits to be killed.

import { ColdProcess } from '../../src/cli/cold-process.ts';
import type { ColdOpening } from '../../src/custody/cold-share.ts';
import { main } from './command-line.ts';

process.once('message', (opening) => {
  void open(opening as ColdOpening);
});

async function open(opening: ColdOpening): Promise<void> {
  const { signal } = new AbortController();
  const cold = await ColdProcess.open(main, opening, process.argv[2] ?? '', signal);
  process.send?.(cold.pid);
}
