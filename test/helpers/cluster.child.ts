// A supervisor over the real processes, on the directory given: what `holdfast up` runs, without its welcome.
// Arguments: the directory, options as JSON, and optionally a module that each process imports before the program.

import { access } from 'node:fs/promises';
import { systemClock } from '../../src/app/member.ts';
import { openDevFile } from '../../src/custody/dev-file.ts';
import { daemonCommand } from '../../src/local/child.ts';
import { createOrOpenLayout } from '../../src/local/layout-create.ts';
import { devKeyPath, layoutPaths } from '../../src/local/layout.ts';
import { stopOnSignals } from '../../src/local/signals.ts';
import { startSupervisor } from '../../src/local/supervisor.ts';
import { main } from './command-line.ts';

const [dir = '', options = '{}', imported = ''] = process.argv.slice(2);
using signals = stopOnSignals();
// A test that is killed takes nothing down: the end of the pipe from it does.
process.stdin
  .resume()
  .once('end', () => process.kill(process.pid, 'SIGTERM'))
  .unref();
const layout = await createOrOpenLayout(dir, JSON.parse(options) as Parameters<typeof createOrOpenLayout>[1]);
const path = devKeyPath({ keysDir: layoutPaths(dir).keys });
const exists = await access(path).then(
  () => true,
  () => false,
);
const hasCustodians = layout.file.processes.some(({ role }) => role === 'custodian');
await using _provider = hasCustodians
  ? undefined
  : await openDevFile({ path, clock: systemClock, create: !exists });
const [program = '', ...rest] = daemonCommand(main);
await using supervisor = await startSupervisor(layout, {
  command: [program, ...(imported === '' ? [] : [`--import=${imported}`]), ...rest],
  signal: signals.stop,
  hurry: signals.hurry,
  startMs: 150_000, // other tests may have the processor
});
console.log('running');
await supervisor.ended;
