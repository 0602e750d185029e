// A real cluster for tests: its own directory, its own ports, real processes, gone without a trace at the end.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StatusAnswer } from '../../src/api/types.ts';
import { connectControl } from '../../src/local/control.ts';
import type { ClusterSettings } from '../../src/local/cluster-file.ts';
import type { ControlClient } from '../../src/local/control-types.ts';
import { choosePorts } from '../../src/local/ports.ts';
import type { StewardStatus } from '../../src/steward/status.ts';
import { custodyAnswered } from './custody.ts';

const script = fileURLToPath(new URL('./cluster.child.ts', import.meta.url));
const killPlaces = fileURLToPath(new URL('./kill-places.child.ts', import.meta.url));

export interface ClusterOptions {
  readonly nodes?: number;
  readonly zones?: number;
  /** Default none: five more processes are only for tests of custody. */
  readonly custodians?: number;
  /** Default one. */
  readonly stewards?: number;
  readonly settings?: Partial<ClusterSettings>;
  /** True: its processes die at the places that `diesAt` names. */
  readonly dies?: boolean;
  /** An existing directory; default a fresh one, removed at the end. */
  readonly dir?: string;
}

export class TestCluster implements AsyncDisposable {
  readonly dir: string;
  readonly port: number;
  readonly #options: ClusterOptions;
  #supervisor: ChildProcess | undefined;
  #output = '';

  private constructor(dir: string, port: number, options: ClusterOptions) {
    this.dir = dir;
    this.port = port;
    this.#options = options;
  }

  /** Starts it and waits until every process is ready. */
  static async start(options: ClusterOptions = {}): Promise<TestCluster> {
    const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'holdfast-cluster-')));
    // Below the range of outgoing connections, so that it is still free when the cluster starts again.
    const [port = 0] = await choosePorts(1, []);
    const cluster = new TestCluster(dir, port, options);
    try {
      await cluster.up();
    } catch (error) {
      await cluster[Symbol.asyncDispose](); // nobody else can: it is not known to whoever asked
      throw error;
    }
    return cluster;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get supervisorPid(): number {
    const pid = this.#supervisor?.pid;
    assert.ok(pid !== undefined, 'the cluster is not running');
    return pid;
  }

  async token(): Promise<string> {
    return (await readFile(join(this.dir, 'token'), 'utf8')).trim();
  }

  control(): Promise<ControlClient> {
    return connectControl(this.dir);
  }

  /** `replace`: custodians that are lost with their directories; then nobody waits for a key that can be given back. */
  async up({ replace }: { readonly replace?: readonly string[] } = {}): Promise<void> {
    const { nodes, zones, custodians = 0, stewards, settings } = this.#options;
    const { port } = this;
    const options = JSON.stringify({ nodes, zones, custodians, stewards, settings, port, replace });
    const imported = this.#options.dies === true ? killPlaces : '';
    const child = spawn(process.execPath, [script, this.dir, options, imported], {
      stdio: ['pipe', 'pipe', 'pipe'], // the first tells it when this process has gone
    });
    this.#supervisor = child;
    this.#output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output += text;
      });
    const started = Date.now();
    while (!this.#output.includes('running\n')) {
      assert.ok(
        child.exitCode === null && Date.now() - started < 180_000,
        `the cluster did not start:\n${this.#output}`,
      );
      // Not by `once` in a race: what loses would go on listening, once more in each round.
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    if (custodians > 0 && replace === undefined) await this.#untilKey();
  }

  /** As `holdfast up` does: custodians make the first key together after they are ready, and must be heard to give one back. */
  async #untilKey(): Promise<void> {
    const deadline = AbortSignal.timeout(120_000);
    for (;;) {
      const isOpen = await custodyAnswered(this).then(
        ({ key, margin }) => key !== null && (margin ?? -1) >= 0,
        () => false, // the door may not have heard of anybody yet
      );
      if (isOpen) return;
      assert.ok(!deadline.aborted, `no key yet:\n${this.#output}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  /** Ends it as Ctrl-C does. */
  async down(): Promise<void> {
    const child = this.#supervisor;
    this.#supervisor = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    await once(child, 'exit');
  }

  /** Pid of a process by name. */
  async pid(name: string): Promise<number> {
    const { processes } = await (await this.control()).state();
    const pid = processes.find((each) => each.name === name)?.pid;
    assert.ok(pid !== undefined, `${name} is not running`);
    return pid;
  }

  /** kill -9 for every process at once, supervisor first, as a power failure of the host would. */
  async killAll(): Promise<void> {
    const { processes } = await (await this.control()).state();
    const child = this.#supervisor;
    this.#supervisor = undefined;
    const ended = child === undefined ? undefined : once(child, 'exit');
    child?.kill('SIGKILL');
    for (const { pid } of processes) if (pid !== undefined) killHard(pid);
    await ended;
  }

  /**
   * From now on whichever process comes to the first of `places` dies there, then whichever comes to the second, and so
   * on (kill-places.child.ts). `only`: the process of that name, and no other.
   */
  async diesAt(places: readonly string[], only?: string): Promise<void> {
    assert.ok(this.#options.dies === true, 'this cluster was not started to die');
    await writeFile(this.#killsOf(only), places.join('\n'));
  }

  /** Those of the places that nobody has come to yet. */
  async placesLeft(only?: string): Promise<string[]> {
    const list = await readFile(this.#killsOf(only), 'utf8');
    return list.split('\n').filter((place) => place !== '');
  }

  #killsOf(only: string | undefined): string {
    return join(this.dir, only === undefined ? 'kills' : `kills-${only}`);
  }

  /** A request with the token. */
  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (!headers.has('authorization')) headers.set('authorization', `Bearer ${await this.token()}`);
    return fetch(`${this.url}${path}`, { ...init, headers });
  }

  async status(): Promise<StatusAnswer<StewardStatus>> {
    const response = await this.fetch('/ucxi/v1/status');
    const body = (await response.json()) as { response: { data: StatusAnswer<StewardStatus> } };
    return body.response.data;
  }

  /** Waits until the steward's view satisfies `wanted`. */
  async until(
    what: string,
    wanted: (steward: StewardStatus) => boolean,
    timeoutMs = 60_000,
  ): Promise<StewardStatus> {
    const started = Date.now();
    let last: unknown;
    while (Date.now() - started < timeoutMs) {
      try {
        const { steward } = await this.status();
        last = steward;
        if (steward !== null && wanted(steward)) return steward;
      } catch (error) {
        last = error;
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.fail(`${what}: not within ${timeoutMs} ms; last seen ${JSON.stringify(last)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.down();
    if (this.#options.dir === undefined) await rm(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

function killHard(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    assert.ok(error instanceof Error && 'code' in error && error.code === 'ESRCH', String(error));
  }
}

/** True when every object is healthy. */
export function allHealthy({ objects }: StewardStatus): boolean {
  return objects.total > 0 && objects.healthy === objects.total;
}
