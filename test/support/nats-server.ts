// A real nats-server for tests: found on PATH, where Go installs programs, or built by Go. Tests skip by name without one.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { access, constants, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { endsWithUs } from './ends-with-us.ts';

const run = promisify(execFile);
const wanted = 'github.com/nats-io/nats-server/v2@v2.15.1';
/** A cold build compiles the whole server. */
const buildMsMax = 400_000;

let found: Promise<string | undefined> | undefined;

/** Path of a nats-server, or undefined where there is neither one nor a Go to build it. */
function findNatsServer(): Promise<string | undefined> {
  found ??= findOrBuild();
  return found;
}

/** For the `skip` option of a test: false, or the reason. */
export async function natsSkip(): Promise<string | false> {
  return (await findNatsServer()) === undefined
    ? `no nats-server on PATH and no Go to build one (go install ${wanted})`
    : false;
}

/** Whoever ends what was started: a test, or a group of them. */
export interface Ending {
  after(end: () => Promise<void>): void;
}

export interface NatsServer {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** Stops it as an operator would (`SIGTERM`) or as a power cut would (`SIGKILL`); resolves when it has ended. */
  end(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Sends any other signal, e.g. SIGSTOP and SIGCONT. */
  signal(name: NodeJS.Signals): void;
}

export interface NatsServerOptions {
  /** 0 or absent: a free one. Give the old one to start a server in the place of one that ended. */
  readonly port?: number;
  /** Directory of JetStream; absent: without JetStream. */
  readonly storeDir?: string;
  /** More arguments of the command line, e.g. `-c` and a configuration. */
  readonly args?: readonly string[];
  /** Variables beside those of this process. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a server on loopback, ready when this resolves. It ends with the test. */
export async function startNats(t: Ending, options: NatsServerOptions = {}): Promise<NatsServer> {
  const path = await findNatsServer();
  if (path === undefined) throw new Error('no nats-server: the test should have been skipped');
  const port = options.port || (await freePort());
  const store = options.storeDir === undefined ? [] : ['-js', '-sd', options.storeDir];
  const child = spawn(path, ['-a', '127.0.0.1', '-p', String(port), ...store, ...(options.args ?? [])], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...options.env },
  });
  endsWithUs(child);
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const end = async (signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGCONT');
      child.kill(signal);
    }
    await ended;
  };
  t.after(() => end());
  started.set(t, [...(started.get(t) ?? []), () => end()]);
  await ready(child, ended);
  return {
    url: `nats://127.0.0.1:${port}`,
    port,
    pid: child.pid ?? 0,
    end,
    signal: (name) => void child.kill(name),
  };
}

const started = new WeakMap<Ending, readonly (() => Promise<void>)[]>();

/** A directory for JetStream that is gone after the test, once the servers of the test have ended. */
export async function natsStore(t: Ending): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-nats-'));
  t.after(async () => {
    await Promise.all((started.get(t) ?? []).map((end) => end()));
    await rm(path, { recursive: true, force: true });
  });
  return path;
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function ready(child: ChildProcess, ended: Promise<void>): Promise<void> {
  let said = '';
  const listening = new Promise<boolean>((resolve) => {
    child.stderr?.on('data', (bytes: Buffer) => {
      if (said.length < 100_000) said += bytes.toString();
      if (said.includes('Server is ready')) resolve(true);
    });
  });
  if (!(await Promise.race([listening, ended.then(() => false)])))
    throw new Error(`nats-server ended before it was ready:\n${said}`);
}

async function findOrBuild(): Promise<string | undefined> {
  const onPath = (process.env['PATH'] ?? '').split(delimiter).filter((each) => each !== '');
  const goPath = await run('go', ['env', 'GOPATH']).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
  const goBin = join(goPath ?? join(homedir(), 'go'), 'bin');
  for (const directory of [...onPath, goBin]) {
    const path = join(directory, 'nats-server');
    if (await isProgram(path)) return path;
  }
  if (goPath === undefined) return undefined;
  await run('go', ['install', wanted], { timeout: buildMsMax });
  return join(goBin, 'nats-server');
}

async function isProgram(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
