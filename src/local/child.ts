// One process of the cluster, as the supervisor sees it: a state machine around a real process.
//
//   down → starting → ready → stopping → down
//   starting | ready → waiting (it ended by itself) → starting
//   starting → failed (its error would only repeat) → starting, on request

import { type ChildProcess, type Serializable, spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';
import { second } from '../core/clock.ts';
import { describeError, errorCatalogue, type ErrorCode, HoldfastError } from '../core/errors.ts';
import type { ProcessEntry } from './cluster-file.ts';
import type { ChildInfo, ProcessState } from './control-types.ts';
import { lastLines, withLogFile } from './log-file.ts';
import { isPortFree, portInUse } from './ports.ts';
import { isErrorCode } from './run-file.ts';
import type { DownReason } from './state-file.ts';

export interface ChildOptions {
  readonly entry: ProcessEntry;
  /** Program and arguments. */
  readonly command: readonly string[];
  readonly logPath: string;
  /** Where Node keeps compiled code between starts: half of the time that loading the program takes. */
  readonly compileCache: string;
  /** Ports that must be free before it is spawned. */
  readonly ports: readonly number[];
  /** A start without a word for this long is given up, milliseconds. */
  readonly startMs: number;
  /** From SIGTERM to SIGKILL, milliseconds. */
  readonly stopMs: number;
  /** Pause before the first restart and the longest one, milliseconds; it doubles in between. */
  readonly backoffMs: { readonly first: number; readonly longest: number };
  /** A number in [0, 1): spreads restarts. */
  readonly random: () => number;
  readonly now: () => number;
  /** Called on every change of status. */
  readonly onChange: (child: Child) => void;
}

export interface ChildFailure {
  readonly code: ErrorCode;
  readonly message: string;
}

type Status =
  | { readonly is: 'down'; readonly since: number; readonly by?: DownReason | undefined }
  | {
      readonly is: 'starting';
      readonly since: number;
      readonly process?: ChildProcess;
      readonly text: string;
    }
  | { readonly is: 'ready'; readonly since: number; readonly process: ChildProcess; readonly info: ChildInfo }
  | {
      readonly is: 'waiting';
      readonly since: number;
      readonly pauseMs: number;
      readonly timer: NodeJS.Timeout;
    }
  | {
      readonly is: 'stopping';
      readonly since: number;
      readonly process: ChildProcess;
      readonly by?: DownReason | undefined;
    }
  | { readonly is: 'failed'; readonly since: number };

// A process that was ready for this long was healthy: its next end is a first one again.
const healthyMs = 30 * second;
/** What it is doing before it has said a word. */
const silent = 'starting';

/**
 * How a process of the cluster is started: `main` is the program's own file. Blocks are buffers that live for a
 * moment; V8 frees them with the objects of its young generation, and lets that grow until gigabytes have passed
 * through, unless told not to.
 */
export function daemonCommand(main: string): string[] {
  return [process.execPath, '--max-semi-space-size=2', main, 'daemon'];
}

/**
 * The same command with core dumps off for good: the memory of a process that holds keys must not end up in a file.
 * Node has no call for it, so the shell sets the limit and becomes the program.
 */
export function withoutCoreDumps([program = '', ...rest]: readonly string[]): string[] {
  return ['/bin/sh', '-c', 'ulimit -c 0; exec "$0" "$@"', program, ...rest];
}

/**
 * What passes through a process must not stay in it. glibc, once a large buffer was freed, keeps the next ones in
 * the heaps of its threads: a fixed threshold and few heaps give them back. The environment may say otherwise.
 */
const memorySettings = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '131072',
  MALLOC_TRIM_THRESHOLD_: '262144',
} as const;

export class Child {
  readonly #options: ChildOptions;
  readonly #changes = new EventEmitter();
  #status: Status;
  /** Ends by itself since it was last healthy. */
  #endings = 0;
  #restarts = 0;
  #failure: ChildFailure | undefined;
  #startTimer: NodeJS.Timeout | undefined;

  constructor(options: ChildOptions, downBy?: DownReason, since: number = options.now()) {
    this.#options = options;
    this.#changes.setMaxListeners(0);
    this.#status = { is: 'down', since, by: downBy };
  }

  get entry(): ProcessEntry {
    return this.#options.entry;
  }

  get status(): Status['is'] {
    return this.#status.is;
  }

  /** Of the running process. */
  get pid(): number | undefined {
    return 'process' in this.#status ? this.#status.process?.pid : undefined;
  }

  get failure(): ChildFailure | undefined {
    return this.#failure;
  }

  /** How often it has ended by itself since it was last healthy. */
  get endings(): number {
    return this.#endings;
  }

  state(): ProcessState {
    const { name, role, zone, peer, port } = this.entry;
    const status = this.#status;
    return {
      name,
      role,
      zone,
      peer,
      port,
      status: status.is,
      text: this.#text(),
      since: status.since,
      ...(this.pid === undefined ? {} : { pid: this.pid }),
      restarts: this.#restarts,
      ...(status.is === 'down' && status.by !== undefined ? { downBy: status.by } : {}),
      ...(this.#failure === undefined || status.is === 'ready' ? {} : { error: this.#failure }),
      ...(status.is === 'ready' ? { info: status.info } : {}),
    };
  }

  /** down | failed | waiting → starting; nothing in any other status. Wait with `settled`. */
  start(): void {
    const status = this.#status;
    if (status.is !== 'down' && status.is !== 'failed' && status.is !== 'waiting') return;
    if (status.is === 'waiting') clearTimeout(status.timer);
    this.#become({ is: 'starting', since: this.#options.now(), text: silent });
    void this.#launch();
  }

  /**
   * → down, by SIGTERM and after the grace by SIGKILL, or by SIGKILL at once. Resolves when the process has
   * ended. `by` is kept in the state: an operator took it down.
   */
  async stop(signal: 'SIGTERM' | 'SIGKILL', by?: DownReason): Promise<void> {
    const status = this.#status;
    if (status.is === 'down') return this.#become({ ...status, by: by ?? status.by });
    if (status.is === 'waiting') clearTimeout(status.timer);
    clearTimeout(this.#startTimer);
    this.#endings = 0;
    if (!('process' in status) || status.process === undefined) {
      return this.#become({ is: 'down', since: this.#options.now(), by });
    }
    const reason = by ?? (status.is === 'stopping' ? status.by : undefined);
    this.#become({ is: 'stopping', since: this.#options.now(), process: status.process, by: reason });
    const kill = setTimeout(() => this.hurry(), this.#options.stopMs);
    status.process.kill(signal);
    await this.settled(['down']);
    clearTimeout(kill);
  }

  /** Kills the process at once, whatever it is doing. What follows is the same as if it had ended by itself. */
  hurry(): void {
    if ('process' in this.#status) this.#status.process?.kill('SIGKILL');
  }

  /** Resolves when the status is one of `statuses`, or with the present status when `signal` aborts. */
  async settled(statuses: readonly Status['is'][], signal?: AbortSignal): Promise<Status['is']> {
    while (!statuses.includes(this.#status.is)) {
      if (signal?.aborted === true) break;
      await this.#change(signal);
    }
    return this.#status.is;
  }

  /** Resolves when it has told of progress, or is not starting any more, or when `signal` aborts. */
  async heard(signal: AbortSignal): Promise<void> {
    while (this.#status.is === 'starting' && this.#status.text === silent && !signal.aborted)
      await this.#change(signal);
  }

  #change(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#changes.off('change', done);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      this.#changes.on('change', done);
      signal?.addEventListener('abort', done);
    });
  }

  async #launch(): Promise<void> {
    const launching = this.#status;
    const taken = await this.#takenPort();
    if (this.#status !== launching) return; // Stopped meanwhile, maybe started again.
    if (taken !== undefined) return this.#ended(taken);
    this.#failure = undefined;
    const child = this.#spawn();
    child.on('message', (message) => this.#hear(child, message));
    child.once('error', (cause) => {
      if (child.pid === undefined) this.#exited(child, `it cannot be started: ${describeError(cause)}`);
    });
    child.once('exit', (code, signal) => {
      const how = signal === null ? `code ${code}` : `signal ${signal}`;
      // Its last message may still be in the channel.
      if (child.connected) child.once('disconnect', () => this.#exited(child, how));
      else this.#exited(child, how);
    });
    this.#become({ is: 'starting', since: launching.since, process: child, text: silent });
    this.#expectWord(child);
  }

  async #takenPort(): Promise<ChildFailure | undefined> {
    for (const port of this.#options.ports) {
      if (!(await isPortFree(port))) return portInUse(port, this.entry.name);
    }
    return undefined;
  }

  // In a group of its own: Ctrl-C in the terminal then reaches the supervisor only, which stops in order.
  #spawn(): ChildProcess {
    const { command, entry } = this.#options;
    const holdsKeys = entry.role === 'custodian' || entry.role === 'door';
    const [program = '', ...rest] = holdsKeys ? withoutCoreDumps(command) : command;
    return withLogFile(this.#options.logPath, (log) =>
      spawn(program, rest, {
        stdio: ['ignore', log, log, 'ipc'],
        detached: true,
        env: { NODE_COMPILE_CACHE: this.#options.compileCache, ...memorySettings, ...process.env },
      }),
    );
  }

  #expectWord(process: ChildProcess): void {
    clearTimeout(this.#startTimer);
    this.#startTimer = setTimeout(() => {
      this.#failure = {
        code: 'TIMEOUT',
        message: `no word for ${this.#options.startMs / second} s while starting`,
      };
      process.kill('SIGKILL');
    }, this.#options.startMs);
  }

  #hear(process: ChildProcess, message: Serializable): void {
    const status = this.#status;
    if (!('process' in status) || status.process !== process) return;
    const heard = parseMessage(message);
    if (heard?.type === 'failed') this.#failure = heard.failure;
    if (status.is !== 'starting') return;
    if (heard?.type === 'progress') {
      this.#expectWord(process);
      this.#become({ ...status, text: heard.text });
    }
    if (heard?.type === 'ready') {
      clearTimeout(this.#startTimer);
      this.#become({ is: 'ready', since: this.#options.now(), process, info: heard.info });
    }
  }

  #exited(process: ChildProcess, how: string): void {
    const status = this.#status;
    if (!('process' in status) || status.process !== process) return;
    clearTimeout(this.#startTimer);
    if (status.is === 'stopping') {
      return this.#become({ is: 'down', since: this.#options.now(), by: status.by });
    }
    return this.#ended(this.#failure ?? this.#explain(how));
  }

  #explain(how: string): ChildFailure {
    const said = lastLines(this.#options.logPath);
    const message = `${this.entry.name} ended with ${how}${said === '' ? '' : `; its log ends: ${said}`}`;
    return { code: 'INTERNAL', message };
  }

  #ended(failure: ChildFailure): void {
    const now = this.#options.now();
    const status = this.#status;
    this.#failure = failure;
    if (status.is === 'ready' && now - status.since >= healthyMs) this.#endings = 0;
    this.#endings++;
    if (status.is === 'starting' && wouldRepeat(failure.code))
      return this.#become({ is: 'failed', since: now });
    const pauseMs = backoff(this.#endings, this.#options);
    const timer = setTimeout(() => {
      this.#restarts++;
      this.start();
    }, pauseMs);
    return this.#become({ is: 'waiting', since: now, pauseMs, timer });
  }

  #become(status: Status): void {
    this.#status = status;
    this.#options.onChange(this);
    this.#changes.emit('change');
  }

  #text(): string {
    const status = this.#status;
    switch (status.is) {
      case 'down':
        return status.by === undefined ? 'not running' : downText(this.entry.name, status.by);
      case 'starting':
        return status.text;
      case 'waiting':
        return `${this.#failure?.message ?? 'it ended'}; starting again in ${(status.pauseMs / second).toFixed(1)} s`;
      case 'failed':
        return `${this.#failure?.message ?? 'it failed'}; it is not started again before ${startCommand(this.entry.name)}`;
      case 'ready':
        return 'up';
      default:
        return 'stopping';
    }
  }
}

function downText(name: string, by: DownReason): string {
  const did = by === 'stop' ? 'stopped' : 'killed';
  return `${did} by the operator; it stays down until ${startCommand(name)}`;
}

function startCommand(name: string): string {
  return `\`holdfast node start ${name.replace('node-', '')}\``;
}

// Bad usage and damage are the same at the next attempt; conflicts and outages may pass.
function wouldRepeat(code: ErrorCode): boolean {
  const { exit } = errorCatalogue[code];
  return exit === 2 || exit === 6;
}

/** Doubles from the first to the longest pause; half of it is chance, so that a crowd does not restart in step. */
function backoff(endings: number, { backoffMs, random }: ChildOptions): number {
  const ceiling = Math.min(backoffMs.longest, backoffMs.first * 2 ** Math.min(endings - 1, 30));
  return ceiling / 2 + (ceiling / 2) * random();
}

type Heard =
  | { readonly type: 'progress'; readonly text: string }
  | { readonly type: 'ready'; readonly info: ChildInfo }
  | { readonly type: 'failed'; readonly failure: ChildFailure };

// The child is our own program, but maybe of another version.
function parseMessage(message: unknown): Heard | undefined {
  if (typeof message !== 'object' || message === null || !('type' in message)) return undefined;
  if (message.type === 'progress' && 'text' in message)
    return { type: 'progress', text: String(message.text) };
  if (message.type === 'ready' && 'info' in message) return { type: 'ready', info: parseInfo(message.info) };
  if (message.type === 'failed' && 'code' in message && 'message' in message) {
    const code = isErrorCode(message.code) ? message.code : 'INTERNAL';
    return { type: 'failed', failure: { code, message: String(message.message) } };
  }
  return undefined;
}

function parseInfo(value: unknown): ChildInfo {
  if (typeof value !== 'object' || value === null) return {};
  const entries = Object.entries(value).flatMap(([key, field]): [string, ChildInfo[string]][] =>
    isInfoField(field) ? [[key, field]] : [],
  );
  return Object.fromEntries(entries);
}

function isInfoField(value: unknown): value is ChildInfo[string] {
  return (
    value === null ||
    ['string', 'number', 'boolean'].includes(typeof value) ||
    (Array.isArray(value) && value.every((item) => typeof item === 'string'))
  );
}

/** Why a child did not start, to throw. */
export function childError(child: Child): HoldfastError {
  const { code, message } = child.failure ?? { code: 'TIMEOUT', message: 'it did not become ready' };
  return new HoldfastError(code, `${child.entry.name} did not start: ${message}`, {
    details: { process: child.entry.name },
  });
}
