// The command line: finds the command, gives it its context, and turns what it throws into one line and a status.

import { readFileSync } from 'node:fs';
import { describeError, errorCatalogue, HoldfastError } from '../core/errors.ts';
import { stopOnSignals } from '../local/signals.ts';
import { helpPage, makeContext, overview } from './command.ts';
import { allCommands, commandIn } from './commands/index.ts';
import { Screen, type Streams } from './screen.ts';

export interface CliOptions {
  readonly streams: Streams;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Ends the command in order. Signals of this process do so too. */
  readonly signal?: AbortSignal;
  /** The program that `up` starts the processes of a cluster with. */
  readonly mainPath: string;
}

/** Status of a command that a signal ended, as shells count. */
const interruptedStatus = 130;
const badUsage = 2;

/**
 * Runs one command. Results go to standard output, all else to standard error; with --json an error is a result.
 * Never rejects.
 *
 * @returns the exit status: 0, that of the error's row in the catalogue, or 130 after a signal
 */
export async function runCli(argv: readonly string[], options: CliOptions): Promise<number> {
  const screen = new Screen(options.streams, { json: argv.includes('--json') });
  const closed = new AbortController();
  const onClosed = (error: unknown): void => closed.abort(error);
  options.streams.stdout.on('error', onClosed); // the reader went away: `holdfast ls … | head`
  using signals = stopOnSignals();
  const signal = AbortSignal.any([signals.stop, closed.signal, ...(options.signal ? [options.signal] : [])]);
  try {
    return await dispatch(argv, screen, { ...options, signal, hurry: signals.hurry });
  } catch (error) {
    if (closed.signal.aborted) return 0;
    if (signal.aborted && error === signal.reason) return interruptedStatus;
    return reportError(screen, error, argv.includes('--json'), options.env);
  } finally {
    options.streams.stdout.off('error', onClosed);
  }
}

async function dispatch(
  argv: readonly string[],
  screen: Screen,
  outside: CliOptions & { readonly signal: AbortSignal; readonly hurry: AbortSignal },
): Promise<number> {
  const [first] = argv;
  if (first === '--version' || first === '-V' || first === 'version') {
    screen.line(programVersion());
    return 0;
  }
  if (first === undefined || first === '--help' || first === '-h' || first === 'help')
    return showHelp(screen, argv.slice(1));
  const found = await commandIn(argv);
  if (found === undefined) throw await unknownCommand(argv);
  const context = makeContext(found.command, found.rest, { screen, ...outside });
  if (context.help) {
    screen.line(helpPage(found.command));
    return 0;
  }
  // A command that does not hear the first Ctrl-C ends with the second.
  if (found.command.ownSignals !== true)
    outside.hurry.addEventListener('abort', () => process.exit(interruptedStatus), { once: true });
  return (await found.command.run(context)) ?? 0;
}

async function showHelp(screen: Screen, words: readonly string[]): Promise<number> {
  const found = await commandIn(words);
  if (found === undefined && words.length > 0 && words[0]?.startsWith('-') !== true)
    throw await unknownCommand(words);
  screen.line(found === undefined ? overview(await allCommands()) : helpPage(found.command));
  return 0;
}

async function unknownCommand(words: readonly string[]): Promise<HoldfastError> {
  const [first = ''] = words;
  const family = (await allCommands())
    .filter(({ name }) => name.startsWith(`${first} `))
    .map(({ name }) => name);
  return family.length > 0
    ? new HoldfastError(
        'ARGUMENT_INVALID',
        `which one: ${family.map((name) => `holdfast ${name}`).join(', ')}?`,
      )
    : new HoldfastError('ARGUMENT_INVALID', `no command ${JSON.stringify(first)}; see holdfast help`);
}

/** One line for people, or one JSON value for programs; the exit status of the error. */
export function reportError(
  screen: Screen,
  error: unknown,
  json: boolean,
  env: Readonly<Record<string, string | undefined>>,
): number {
  const known =
    error instanceof HoldfastError
      ? error
      : new HoldfastError('INTERNAL', 'a fault in this program', { cause: error });
  const { exit } = errorCatalogue[known.code];
  const text = exit === badUsage ? known.message : describeError(known); // bad usage explains itself
  const message = text.replaceAll(/\s*\n\s*/g, ' ');
  if (json) screen.value({ error: { code: known.code, message, details: known.details } });
  else screen.streams.stderr.write(`holdfast: ${message}\n`);
  if (env['HOLDFAST_DEBUG'] === '1') screen.streams.stderr.write(`${stackOf(error)}\n`);
  return exit;
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function programVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version }: { version: string } = JSON.parse(text);
  return version;
}
