// Plays the scenarios of test/scenarios: a command, `----`, what it printed and its exit status.
//
// Each runs in an empty directory of its own, so that nothing depends on where the tests run; $DIR stands for it.
// UPDATE=1 rewrites what is expected: the diff is what is reviewed.

import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { runCli } from '../src/cli/main.ts';

const folder = new URL('./scenarios/', import.meta.url);
const files = globSync('*.txt', { cwd: folder }).sort();

test('there are scenarios', () => assert.ok(files.length > 0));

for (const file of files) {
  test(`scenario ${basename(file, '.txt')}`, async () => {
    const path = new URL(file, folder);
    const before = await readFile(path, 'utf8');
    const after = await play(before);
    if (process.env['UPDATE'] === '1') await writeFile(path, after);
    else assert.equal(after, before);
  });
}

/** The scenario with the outputs that the commands have now. */
async function play(text: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'holdfast-scenario-'));
  try {
    const out: string[] = [];
    for (const part of text.split(/^(?=\$ holdfast)/m)) out.push(await playPart(part, dir));
    return out.join('');
  } finally {
    await rm(dir, { recursive: true });
  }
}

/** `$ holdfast …`, `----`, output up to an empty line after the exit status, then prose. */
async function playPart(part: string, dir: string): Promise<string> {
  const found =
    /^\$ (holdfast.*)\n----\n[^]*?^exit \d+\n/m.exec(part) ?? /^\$ (holdfast.*)\n----\n/.exec(part);
  if (found === null) return part;
  const [whole, command = ''] = found;
  const { output, status } = await run(wordsOf(command.replaceAll('$DIR', dir)).slice(1), dir);
  const shown = output.replaceAll(dir, '$DIR');
  return `$ ${command}\n----\n${shown}exit ${status}\n${part.slice(whole.length)}`;
}

async function run(argv: readonly string[], dir: string): Promise<{ output: string; status: number }> {
  const parts: string[] = [];
  const collecting = (prefix: string): PassThrough => {
    const stream = new PassThrough();
    stream.on('data', (chunk: Buffer) => parts.push(chunk.toString().replaceAll(/^(?=.)/gm, prefix)));
    return stream;
  };
  const status = await runCli(argv, {
    streams: { stdin: new PassThrough(), stdout: collecting(''), stderr: collecting('! ') },
    env: { HOLDFAST_DATA: join(dir, 'none') },
    mainPath: '/not/started',
  });
  await new Promise((resolve) => setImmediate(resolve));
  return { output: parts.join(''), status };
}

/** Words as a shell would cut them: blanks, and single quotes around what holds some. */
function wordsOf(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? '');
}
