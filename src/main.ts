// Starts what was asked for: one process of a cluster (`daemon`, spawned by the supervisor), a custodian or key agent of
// its own (`daemon --config`, spawned by its command), the process of one share in a drill (`cold-share`, spawned by
// `custody drill`), or a command (from bin/holdfast.js).

import { fileURLToPath } from 'node:url';
import { saveProgramCache, useProgramCache } from './local/program-cache.ts';

useProgramCache();

// A reader that went away (`holdfast ls … | head`) ends a command, which hears of it itself; what is still in the
// pipe at the end of the program is nobody's fault.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);

const [first, ...rest] = process.argv.slice(2);
// A daemon that has let go of everything ends there and then: libp2p, stopped, still waits a second for a timer of its own.
if (first === 'daemon' && rest.includes('--key-agent')) {
  const { runKeyAgent } = await import('./agent/run.ts');
  process.exit(await runKeyAgent(valueOf(rest, '--config'), rest.includes('--init')));
} else if (first === 'daemon') {
  const { runDaemon, runStandaloneCustodian } = await import('./app/daemon.ts');
  process.exit(
    rest.includes('--config')
      ? await runStandaloneCustodian(valueOf(rest, '--config'), rest.includes('--init'))
      : await runDaemon(valueOf(rest, '--data'), valueOf(rest, '--name')),
  );
} else if (first === 'cold-share' && process.send !== undefined) {
  const { runColdShare } = await import('./app/cold-share.ts');
  process.exitCode = await runColdShare();
} else {
  const { runCli } = await import('./cli/main.ts');
  process.exitCode = await runCli(process.argv.slice(2), {
    streams: process,
    env: process.env,
    mainPath: fileURLToPath(import.meta.url),
  });
  saveProgramCache();
}

function valueOf(words: readonly string[], option: string): string {
  const value = words[words.indexOf(option) + 1];
  if (words.includes(option) && value !== undefined) return value;
  console.error(`daemon needs ${option}: it is started by \`holdfast up\``);
  process.exit(2);
}
