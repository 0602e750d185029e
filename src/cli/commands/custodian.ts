import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { HoldfastError } from '../../core/errors.ts';
import { fieldOf } from '../../core/shape.ts';
import type { Command, Context } from '../command.ts';

export const custodian: Command = {
  name: 'custodian',
  usage: '--config FILE [--init]',
  summary: 'Run one custodian of a cluster by itself, on a machine of its own; Ctrl-C stops it',
  options: {
    config: { type: 'string', value: 'FILE', text: 'its configuration (docs/operating/custodians.md)' },
    init: { type: 'boolean', text: 'make its identity, print the peer id for the membership, and end' },
  },
  positionals: [0, 0],
  ownSignals: true,
  notes: 'The process is the same that `up` starts for each custodian of a local cluster.',
  run: (context) => runApart(context, 'custodian', []),
};

/** Runs a process with a configuration of its own as our child until it ends; its exit status. */
export async function runApart(context: Context, what: string, flags: readonly string[]): Promise<number> {
  const config = context.text('config');
  if (config === undefined) throw new HoldfastError('ARGUMENT_MISSING', `${what} needs --config FILE`);
  const { daemonCommand, withoutCoreDumps } = await import('../../local/child.ts');
  const [program = '', ...rest] = withoutCoreDumps(daemonCommand(context.mainPath));
  const words = [...rest, ...flags, '--config', config, ...(context.flag('init') ? ['--init'] : [])];
  const child = spawn(program, words, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  child.on('message', (message) => hear(context, message));
  context.signal.addEventListener('abort', () => child.kill('SIGTERM'));
  context.hurry.addEventListener('abort', () => child.kill('SIGKILL'));
  return exitOf(child);
}

/** Its first word: what it is, as the supervisor of a cluster would hear it. */
function hear({ screen, json }: Context, message: unknown): void {
  if (fieldOf(message, 'type') !== 'ready') return;
  const info = fieldOf(message, 'info');
  const key = fieldOf(info, 'key');
  if (json) screen.value(info);
  else screen.line(`${String(fieldOf(info, 'peer'))}${typeof key === 'string' ? ` ${key}` : ''}`);
}

async function exitOf(child: ChildProcess): Promise<number> {
  const [code] = await once(child, 'exit');
  return typeof code === 'number' ? code : 1;
}
