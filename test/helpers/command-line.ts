// The program as a person runs it: each command a process of its own, judged by what it prints and how it ends.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** What `node` is given to run a command. */
export const program = fileURLToPath(new URL('../../bin/holdfast.js', import.meta.url));

/** The same for what a command starts: processes of a cluster. */
export const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export interface Finished {
  /** Null for what was killed. */
  readonly status: number | null;
  /** What was printed on standard output, also as text in `out`. */
  readonly bytes: Buffer;
  readonly out: string;
  readonly err: string;
}

export interface Place {
  /** Directory of the cluster that commands mean when they name none with `--data`. */
  readonly dir: string;
  /** Where they run. Default where the test runs. */
  readonly home?: string;
}

/** A value so that a test can take apart what it needs: nothing in it is bound to the rest. */
export interface CommandLine {
  readonly run: (...words: string[]) => Promise<Finished>;
  /** The same of what must end with 0. */
  readonly ok: (...words: string[]) => Promise<Finished>;
  /** What it printed; it must end with 0. */
  readonly printed: (...words: string[]) => Promise<string>;
  /** With `--json`: the one value that it printed; it must end with 0. */
  readonly json: <T = Record<string, unknown>>(...words: string[]) => Promise<T>;
  /** The same commands with this on their standard input. */
  readonly fed: (input: string | Uint8Array) => CommandLine;
  /** The same commands; `told` gets what they print on standard error as it comes. */
  readonly heard: (told: (text: string) => void) => CommandLine;
}

/** Commands for the cluster of a place, which is asked for as each begins: most clusters start after their test is read. */
export function commandLine(
  place: () => Place,
  input: string | Uint8Array = '',
  told: (text: string) => void = () => undefined,
): CommandLine {
  const run = (...words: string[]): Promise<Finished> =>
    finished(process.execPath, [program, ...words], place(), input, told);
  const ok = async (...words: string[]): Promise<Finished> => {
    const done = await run(...words);
    assert.equal(done.status, 0, `holdfast ${words.join(' ')}:\n${done.err}${done.out}`);
    return done;
  };
  return {
    run,
    ok,
    printed: async (...words) => (await ok(...words)).out,
    json: async <T>(...words: string[]) => JSON.parse((await ok(...words, '--json')).out) as T,
    fed: (given) => commandLine(place, given, told),
    heard: (listener) => commandLine(place, input, listener),
  };
}

/** Runs any program to its end. */
export async function finished(
  program: string,
  words: readonly string[],
  { dir, home }: Place,
  input: string | Uint8Array = '',
  told: (text: string) => void = () => undefined,
): Promise<Finished> {
  const env = { ...process.env, HOLDFAST_DATA: dir };
  const child = spawn(program, words, { cwd: home, env });
  child.stdin.on('error', () => undefined); // it need not read what it does not want
  child.stdin.end(input);
  child.stderr.on('data', (bytes: Buffer) => told(bytes.toString()));
  const said = Promise.all([child.stdout.toArray(), child.stderr.toArray()]);
  const [status] = (await once(child, 'close')) as [number | null];
  const [bytes, err] = (await said).map((parts) => Buffer.concat(parts as Buffer[]));
  assert.ok(bytes !== undefined && err !== undefined);
  return { status, bytes, out: bytes.toString(), err: err.toString() };
}

/** A value of each line. */
export function jsonLines<T = Record<string, unknown>>(out: string): T[] {
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as T);
}
