// Starts the process in which one share out of the safe is used (`holdfast cold-share`): without core dumps, without
// our environment, and with Node's permission model, so that it can write no file and start no process.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { isAbsolute, resolve } from 'node:path';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { ColdPartials, ColdTask } from '../custody/cold-share.ts';
import { withoutCoreDumps } from '../local/child.ts';
import { isErrorCode } from '../local/run-file.ts';

/** scrypt takes a good part of a second, and the machine may be busy. */
const patienceMs = 60 * second;
const stderrBytesMax = 4096;

/**
 * What the share in `task` gives, opened with the secret in the file `secretPath`, which only that process reads. The
 * process has ended when this resolves.
 *
 * @throws what is wrong with the export or the secret, TIMEOUT, INTERNAL
 */
export async function useInProcess(
  mainPath: string,
  task: ColdTask,
  secretPath: string,
  signal: AbortSignal,
): Promise<ColdPartials> {
  const command = [process.execPath, '--permission', '--allow-fs-read=*', mainPath, 'cold-share'];
  const [program = '', ...rest] = withoutCoreDumps(command);
  const child = spawn(program, rest, {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    serialization: 'advanced',
    cwd: '/',
    env: {},
    signal: AbortSignal.any([signal, AbortSignal.timeout(patienceMs)]),
    killSignal: 'SIGKILL',
  });
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    said = `${said}${part}`.slice(0, stderrBytesMax);
  });
  const ended = once(child, 'close');
  child.send({ task, secretPath: isAbsolute(secretPath) ? secretPath : resolve(secretPath) });
  const answer = await Promise.race([messageOf(child), ended.then(() => undefined)]).catch(
    (cause: unknown) => {
      signal.throwIfAborted();
      throw new HoldfastError('TIMEOUT', 'the process that uses the share does not answer', { cause });
    },
  );
  child.kill('SIGKILL'); // it has answered and has nothing left to do
  await ended.catch(() => undefined); // told above
  return partialsOf(answer, said);
}

async function messageOf(child: ChildProcess): Promise<unknown> {
  const [message]: unknown[] = await once(child, 'message');
  return message;
}

function partialsOf(answer: unknown, said: string): ColdPartials {
  const partials = fieldOf(answer, 'partials');
  const [D, proof, frost] = [fieldOf(partials, 'D'), fieldOf(partials, 'proof'), fieldOf(partials, 'frost')];
  const areBytes = Array.isArray(D) && D.every((each) => each instanceof Uint8Array);
  if (areBytes && proof instanceof Uint8Array && frost instanceof Uint8Array)
    return {
      D: D.map((each: Uint8Array) => new Uint8Array(each)),
      proof: new Uint8Array(proof),
      frost: new Uint8Array(frost),
    };
  const [code, message] = [fieldOf(answer, 'code'), fieldOf(answer, 'message')];
  if (isErrorCode(code)) throw new HoldfastError(code, String(message));
  throw new HoldfastError(
    'INTERNAL',
    `the process that uses the share ended without an answer: ${said.trim()}`,
  );
}
