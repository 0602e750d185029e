// What a command is, and how its words are read. Help is made from the same table that parses, so they agree.

import { parseArgs } from 'node:util';
import { HoldfastError } from '../core/errors.ts';
import type { Screen } from './screen.ts';

interface Option {
  readonly type: 'string' | 'boolean';
  readonly short?: string;
  /** Name of the value in the help, e.g. DIR. */
  readonly value?: string;
  readonly text: string;
}

export interface Context {
  readonly screen: Screen;
  /** The cluster's directory: --data, else HOLDFAST_DATA, else ./.holdfast. */
  readonly data: string;
  readonly json: boolean;
  readonly positionals: readonly string[];
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  /** Aborted by the second Ctrl-C. */
  readonly hurry: AbortSignal;
  /** The program that is running, to start others with. */
  readonly mainPath: string;
  flag(name: string): boolean;
  text(name: string): string | undefined;
  /** A whole number from `min` to `max`, or the fallback. Throws ARGUMENT_INVALID naming the option. */
  whole(name: string, range: { min: number; max: number }): number | undefined;
}

export interface Command {
  /** As typed, e.g. `put` or `node kill`. */
  readonly name: string;
  /** Arguments as shown in the help, e.g. `ADDRESS FILE|DIR|-`. */
  readonly usage: string;
  readonly summary: string;
  readonly options?: Readonly<Record<string, Option>>;
  /** Fewest and most positionals. */
  readonly positionals: readonly [number, number];
  /** Longer text under the options. */
  readonly notes?: string;
  /** True for a command that deals with repeated Ctrl-C itself. */
  readonly ownSignals?: boolean;
  /** Returns the exit status, 0 unless it says otherwise. */
  run(context: Context): Promise<number | void>;
}

/** Options of every command. */
const commonOptions: Readonly<Record<string, Option>> = {
  data: {
    type: 'string',
    value: 'DIR',
    text: 'directory of the cluster (default $HOLDFAST_DATA, else ./.holdfast)',
  },
  json: { type: 'boolean', text: 'print one JSON value (or one a line) and nothing else' },
  help: { type: 'boolean', short: 'h', text: 'show this help' },
};

/** Finds the command that `words` begin with: the longest name wins. */
export function findCommand(
  commands: readonly Command[],
  words: readonly string[],
): { command: Command; rest: string[] } | undefined {
  const byLength = [...commands].sort((a, b) => b.name.length - a.name.length);
  for (const command of byLength) {
    const name = command.name.split(' ');
    if (name.every((word, index) => words[index] === word))
      return { command, rest: words.slice(name.length) };
  }
  return undefined;
}

/** Reads the words after the command's name. Throws ARGUMENT_INVALID or ARGUMENT_MISSING with the usage line. */
function readArguments(
  command: Command,
  words: readonly string[],
): { values: Readonly<Record<string, unknown>>; positionals: string[] } {
  const options = { ...commonOptions, ...command.options };
  let parsed: ReturnType<typeof parseArgs>;
  try {
    parsed = parseArgs({
      args: [...words],
      allowPositionals: true,
      options: Object.fromEntries(
        Object.entries(options).map(([name, option]) => [
          name,
          option.short === undefined ? { type: option.type } : { type: option.type, short: option.short },
        ]),
      ),
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.split('. To specify')[0] : String(cause);
    throw new HoldfastError('ARGUMENT_INVALID', `${reason}. Usage: ${usageLine(command)}`, { cause });
  }
  const { values } = parsed;
  const [fewest, most] = command.positionals;
  if (values['help'] !== true && parsed.positionals.length < fewest)
    throw new HoldfastError('ARGUMENT_MISSING', `too few arguments. Usage: ${usageLine(command)}`);
  if (parsed.positionals.length > most)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `unexpected argument ${JSON.stringify(parsed.positionals[most])}. Usage: ${usageLine(command)}`,
    );
  return { values, positionals: parsed.positionals };
}

export function makeContext(
  command: Command,
  words: readonly string[],
  outside: Pick<Context, 'screen' | 'signal' | 'hurry' | 'mainPath'> & {
    readonly env: Readonly<Record<string, string | undefined>>;
  },
): Context & { readonly help: boolean } {
  const { values, positionals } = readArguments(command, words);
  const text = (name: string): string | undefined => {
    const value = values[name];
    return typeof value === 'string' ? value : undefined;
  };
  return {
    screen: outside.screen,
    signal: outside.signal,
    hurry: outside.hurry,
    mainPath: outside.mainPath,
    data: text('data') ?? outside.env['HOLDFAST_DATA'] ?? '.holdfast',
    json: values['json'] === true,
    help: values['help'] === true,
    positionals,
    flag: (name) => values[name] === true,
    text,
    whole: (name, range) => wholeNumber(name, text(name), range),
  };
}

function wholeNumber(
  name: string,
  value: string | undefined,
  { min, max }: { min: number; max: number },
): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (!/^\d+$/.test(value) || number < min || number > max)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `--${name} takes a whole number from ${min} to ${max}, not ${JSON.stringify(value)}`,
    );
  return number;
}

function usageLine(command: Command): string {
  return `holdfast ${command.name}${command.usage === '' ? '' : ` ${command.usage}`}`;
}

/** The help page of one command. */
export function helpPage(command: Command): string {
  const rows = Object.entries({ ...command.options, ...commonOptions }).map(([name, option]) => {
    const short = option.short === undefined ? '' : `-${option.short}, `;
    return [
      `  ${short}--${name}${option.value === undefined ? '' : ` ${option.value}`}`,
      option.text,
    ] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  return [
    `Usage: ${usageLine(command)}`,
    '',
    command.summary,
    '',
    ...rows.map(([left, right]) => `${left.padEnd(width)}${right}`),
    ...(command.notes === undefined ? [] : ['', command.notes]),
  ].join('\n');
}

/** The overview of all commands. */
export function overview(commands: readonly Command[]): string {
  const rows = commands.map(
    (command) => [`  ${command.name} ${command.usage}`.trimEnd(), command.summary] as const,
  );
  const width = Math.min(44, Math.max(...rows.map(([left]) => left.length)) + 2);
  return [
    'Holdfast: self-healing, end-to-end-encrypted storage that never loses a decision.',
    '',
    'Usage: holdfast COMMAND [OPTIONS]      (holdfast COMMAND --help for each)',
    '',
    ...rows.map(([left, right]) =>
      left.length >= width ? `${left}\n${' '.repeat(width)}${right}` : `${left.padEnd(width)}${right}`,
    ),
    '',
    'Exit status: 0 done · 1 failed · 2 bad usage · 3 not there · 4 conflict · 5 not reachable now · 6 damaged',
  ].join('\n');
}
