// The process in which one share out of the safe is used (`holdfast cold-share`), as who started it sees it. It runs
// without core dumps, without our environment, and with Node's permission model, so that it can write no file and start
// no process. It lives until it is disposed of: opening the share costs far more than using it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { isAbsolute, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { ColdOpening, ColdPartials, ColdTask, OpenedColdShare } from '../custody/cold-share.ts';
import { withoutCoreDumps } from '../local/child.ts';
import { isErrorCode } from '../local/run-file.ts';

/** For one answer: scrypt takes a good part of a second, and the machine may be busy. */
const patienceMs = 60 * second;
/** From the word to end, so that it zeroes its share, to SIGKILL. */
const graceMs = 2 * second;
const stderrBytesMax = 4096;

export class ColdProcess implements OpenedColdShare {
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal;
  readonly #ended: Promise<unknown>;
  #said = '';

  private constructor(mainPath: string, signal: AbortSignal) {
    const command = [process.execPath, '--permission', '--allow-fs-read=*', mainPath, 'cold-share'];
    const [program = '', ...rest] = withoutCoreDumps(command);
    this.#signal = signal;
    this.#child = spawn(program, rest, {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
      cwd: '/',
      env: {},
      signal,
      killSignal: 'SIGKILL',
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (part: string) => {
      this.#said = `${this.#said}${part}`.slice(0, stderrBytesMax);
    });
    this.#child.on('error', () => undefined); // who asks is told, and that it ended
    const { promise, resolve: end } = Promise.withResolvers<void>();
    this.#child.once('close', () => end());
    this.#ended = promise;
  }

  /**
   * Opens the share in `opening` with the secret in the file `secretPath`, which only that process reads. `signal` kills
   * it.
   *
   * @throws what is wrong with the export or the secret, TIMEOUT, INTERNAL; the process has ended then
   */
  static async open(
    mainPath: string,
    opening: ColdOpening,
    secretPath: string,
    signal: AbortSignal,
  ): Promise<ColdProcess> {
    signal.throwIfAborted();
    const cold = new ColdProcess(mainPath, signal);
    try {
      const path = isAbsolute(secretPath) ? secretPath : resolve(secretPath);
      await cold.#ask({ open: opening, secretPath: path });
      return cold;
    } catch (error) {
      await cold[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** One at a time. Throws what is wrong with the task, TIMEOUT, INTERNAL. */
  async use(task: ColdTask): Promise<ColdPartials> {
    return partialsOf(await this.#ask({ task }));
  }

  /** The process id, for tests that look at it. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The process has ended when this resolves. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.connected) {
      this.#child.send({ end: true });
      await Promise.race([this.#ended, delay(graceMs, undefined, { ref: false })]);
    }
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  async #ask(
    question: { readonly open: ColdOpening; readonly secretPath: string } | { readonly task: ColdTask },
  ) {
    const patience = AbortSignal.timeout(patienceMs);
    const answered = once(this.#child, 'message', { signal: patience });
    if (this.#child.connected) this.#child.send(question);
    const answer = await Promise.race([
      answered.then(([message]: unknown[]) => message),
      this.#ended.then(() => undefined),
    ]).catch((cause: unknown) => {
      this.#signal.throwIfAborted();
      this.#child.kill('SIGKILL'); // an answer that comes later would be taken for the next one's
      throw patience.aborted
        ? new HoldfastError('TIMEOUT', 'the process that uses the share does not answer', { cause })
        : new HoldfastError('INTERNAL', 'the process that uses the share cannot be spoken to', { cause });
    });
    this.#signal.throwIfAborted();
    if (fieldOf(answer, 'ok') === true) return answer;
    const [code, message] = [fieldOf(answer, 'code'), fieldOf(answer, 'message')];
    if (isErrorCode(code)) throw new HoldfastError(code, String(message));
    throw new HoldfastError(
      'INTERNAL',
      `the process that uses the share ended without an answer: ${this.#said.trim()}`,
    );
  }
}

function partialsOf(answer: unknown): ColdPartials {
  const partials = fieldOf(answer, 'partials');
  const [D, proof, frost] = [fieldOf(partials, 'D'), fieldOf(partials, 'proof'), fieldOf(partials, 'frost')];
  const areBytes = Array.isArray(D) && D.every((each) => each instanceof Uint8Array);
  if (areBytes && proof instanceof Uint8Array && frost instanceof Uint8Array)
    return {
      D: D.map((each: Uint8Array) => new Uint8Array(each)),
      proof: new Uint8Array(proof),
      frost: new Uint8Array(frost),
    };
  throw new HoldfastError('INTERNAL', 'the process that uses the share speaks another version');
}
