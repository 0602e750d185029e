// A supervisor in a process of its own, over stand-ins for the real processes, on the layout in the directory given.

import { fileURLToPath } from 'node:url';
import { createOrOpenLayout } from '../../src/local/layout-create.ts';
import { stopOnSignals } from '../../src/local/signals.ts';
import { startSupervisor } from '../../src/local/supervisor.ts';

const [dir = ''] = process.argv.slice(2);
const child = fileURLToPath(new URL('./local-process.child.ts', import.meta.url));
using signals = stopOnSignals();
const layout = await createOrOpenLayout(dir);
await using supervisor = await startSupervisor(layout, {
  command: [process.execPath, child],
  signal: signals.stop,
  hurry: signals.hurry,
  onEvent: (event) => console.log(JSON.stringify(event)),
});
console.log('running');
await supervisor.ended;
