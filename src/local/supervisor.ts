// The supervisor of a local cluster: one real process per storage node, steward and door, kept running.
//
// It stores nothing and decides nothing about content. What it promises: it is alone on its directory, it
// tells how its children are, it starts again what ended by itself, it stops in order, and nothing that it
// started outlives it (guard.ts, supervise-child.ts).

import { readdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { minute, second } from '../core/clock.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { Child, childError } from './child.ts';
import { claimDirectory } from './claim.ts';
import type { ProcessEntry } from './cluster-file.ts';
import { serveControl } from './control-server.ts';
import type { ClusterPhase, ClusterState, NodeAction, ProcessState, ProcessStatus } from './control-types.ts';
import { errnoOf, fileError, makeDirectory } from '../files/whole.ts';
import { type Guard, startGuard } from './guard.ts';
import { keepGrants } from './grants.ts';
import { doorUrl, type Layout, layoutPaths, processEntry } from './layout.ts';
import { logCheckMs, rotateLog } from './log-file.ts';
import { programCache } from './program-cache.ts';
import { isListening, isPortFree, portInUse } from './ports.ts';
import { endOrphans, removeRunFiles, writeChildren, writeRunFile, writeStartError } from './run-file.ts';
import { type ProcessMemory, readStateFile, remember, type StateFile, writeStateFile } from './state-file.ts';
import { finishWipe, wipeData } from './wipe.ts';

export interface SupervisorOptions {
  /** Program and arguments of a child; `--data DIR --name NAME` are added. */
  readonly command: readonly string[];
  /** Stops the cluster in order when it aborts, also while it starts. */
  readonly signal?: AbortSignal;
  /** Kills what still runs when it aborts. */
  readonly hurry?: AbortSignal;
  /** Told whenever a process changes its status. Must not throw. */
  readonly onEvent?: (event: SupervisorEvent) => void;
  /** A start without a word for this long is given up, milliseconds. Default 60,000. */
  readonly startMs?: number;
  /** From SIGTERM to SIGKILL, milliseconds. Default 8,000. */
  readonly stopMs?: number;
  /** Pause before the first restart and the longest one, milliseconds. Default 250 and 15,000. */
  readonly backoffMs?: { readonly first: number; readonly longest: number };
}

export interface SupervisorEvent {
  /** Milliseconds since 1970. */
  readonly at: number;
  /** The process, or `supervisor`. */
  readonly name: string;
  readonly status: ProcessStatus | ClusterPhase;
  readonly text: string;
}

export interface Supervisor extends AsyncDisposable {
  state(): ClusterState;
  /** Like the methods of ControlClient. Throws ARGUMENT_INVALID for a name the cluster does not have. */
  act(name: string, action: NodeAction): Promise<ProcessState>;
  /** Stops door, steward, custodians and nodes in this order. Resolves when everything has ended; may be called again. */
  stop(): Promise<void>;
  /** Resolves when the cluster has ended, whoever asked for it. */
  readonly ended: Promise<void>;
}

const endingsMax = 3;
/** After a supervisor that was killed: a process it had just started may hold its port for this long. */
const uncleanMs = 6 * second;
/** An outgoing connection keeps its port for a minute after its end (TIME_WAIT); ports from 32,768 on may be such. */
const lingeringMs = 65 * second;
const pollMs = 100;
/** Loading takes one second on an idle core. */
const forerunMs = 4 * second;

/**
 * Starts all processes of `layout` that shall run and resolves when the steward and the door are ready and
 * every node is ready, or known to have failed: `state` says which. Throws DATA_DIR_LOCKED when another
 * supervisor runs there, PORT_IN_USE naming port and process, the failure of the steward or the door, and
 * the reason of `signal` when that aborts first; then nothing is left running.
 */
export async function startSupervisor(layout: Layout, options: SupervisorOptions): Promise<Supervisor> {
  const paths = layoutPaths(layout.dir);
  await makeDirectory(paths.run);
  try {
    await using stack = new AsyncDisposableStack();
    const claim = stack.use(await claimDirectory(paths.root, paths.run));
    const unclean = await endOrphans(paths.run);
    await removeRunFiles(paths.run);
    const guard = stack.use(startGuard());
    const cluster = new Cluster(layout, options, await readStateFile(paths.state), guard);
    stack.defer(() => removeRunFiles(paths.run));
    const endpoint = stack.use(await serveControl(cluster));
    stack.defer(() => cluster.stopProcesses());
    stack.use(keepGrants(layout, (text) => cluster.tell(text)));
    await cluster.freePorts(unclean ? uncleanMs : 0);
    await writeRunFile(paths.run, { supervisor: claim.holder, port: endpoint.port, token: endpoint.token });
    await cluster.start();
    return cluster.running(stack.move());
  } catch (error) {
    const known = asHoldfastError(error, 'INTERNAL', 'the cluster could not be started');
    // Only a note for a waiting `up --detach`: on a full disk the error itself still reaches the log.
    await writeStartError(paths.run, known, describeError(error)).catch(() => undefined);
    throw error;
  }
}

class Cluster {
  readonly #layout: Layout;
  readonly #options: SupervisorOptions;
  readonly #guard: Guard;
  readonly #children: ReadonlyMap<string, Child>;
  readonly #startedAt = Date.now();
  readonly #said = new Map<string, string>();
  /** Per process: what an operator asked for, one after the other. */
  readonly #queues = new Map<string, Promise<unknown>>();
  readonly #stopRequest = new AbortController();
  #phase: ClusterPhase = 'starting';
  #state: StateFile;
  #writes: Promise<void> = Promise.resolve();
  #pids = '';
  #hurried = false;

  constructor(layout: Layout, options: SupervisorOptions, state: StateFile, guard: Guard) {
    this.#layout = layout;
    this.#options = options;
    this.#state = state;
    this.#guard = guard;
    this.#children = new Map(layout.file.processes.map((entry) => [entry.name, this.#newChild(entry)]));
    options.signal?.addEventListener('abort', () => this.requestStop(), { signal: this.#stopRequest.signal });
    options.hurry?.addEventListener('abort', () => this.#hurry());
    if (options.signal?.aborted === true) this.requestStop();
  }

  state(): ClusterState {
    return {
      cluster: this.#layout.file.cluster,
      dir: this.#layout.dir,
      pid: process.pid,
      startedAt: this.#startedAt,
      phase: this.#phase,
      doorUrl: doorUrl(this.#layout),
      processes: [...this.#children.values()].map((child) => child.state()),
    };
  }

  /** Tells something that concerns no single process. */
  tell(text: string): void {
    this.#tell('supervisor', this.#phase, text);
  }

  requestStop(): void {
    this.#stopRequest.abort(this.#options.signal?.reason ?? new Error('asked to stop'));
  }

  /** Throws PORT_IN_USE for the first port that is listened on after `patienceMs`, or not free after a minute. */
  async freePorts(patienceMs: number): Promise<void> {
    const startedMs = performance.now();
    for (const child of this.#wanted()) {
      for (const port of this.#portsOf(child.entry)) {
        while (!(await isPortFree(port))) {
          this.#stopRequest.signal.throwIfAborted();
          const waitedMs = performance.now() - startedMs;
          const lingering = !(await isListening(port));
          if (waitedMs >= (lingering ? lingeringMs : patienceMs)) throw portInUse(port, child.entry.name);
          if (lingering)
            this.#tell('supervisor', 'starting', `waiting for port ${port}: an outgoing connection has it`);
          await sleep(pollMs);
        }
      }
    }
  }

  async start(): Promise<void> {
    await Promise.all([...this.#children.keys()].map((name) => finishWipe(this.#paths.process(name))));
    const wanted = this.#wanted();
    const first = (await this.#hasCompiled()) ? wanted : forerunners(wanted);
    const rest = wanted.filter((child) => !first.includes(child));
    const starts = first.map((child) => this.#startFirst(child));
    await Promise.all([...starts, this.#startAfter(first, rest)]);
    this.#stopRequest.signal.throwIfAborted();
    this.#enter('running', 'all started');
  }

  /** The started cluster; `resources` are given back after its processes have ended. */
  running(resources: AsyncDisposableStack): Supervisor {
    const stopped = Promise.withResolvers<void>();
    const rotation = setInterval(() => void this.#rotateLogs(), logCheckMs).unref();
    let stopping = false;
    const stop = (): Promise<void> => {
      if (!stopping) {
        stopping = true;
        clearInterval(rotation);
        resources.disposeAsync().then(stopped.resolve, stopped.reject);
      }
      return stopped.promise;
    };
    const { signal } = this.#stopRequest;
    signal.addEventListener('abort', () => void stop());
    return {
      state: () => this.state(),
      act: (name, action) => this.act(name, action),
      stop,
      ended: stopped.promise,
      [Symbol.asyncDispose]: stop,
    };
  }

  /** Door, steward, custodians, nodes: nobody is left waiting for one that has gone already. */
  async stopProcesses(): Promise<void> {
    this.#enter('stopping', 'stopping');
    for (const role of ['door', 'steward', 'custodian', 'node']) {
      const children = [...this.#children.values()].filter((child) => child.entry.role === role);
      await Promise.all(children.map((child) => child.stop(this.#hurried ? 'SIGKILL' : 'SIGTERM')));
    }
    await Promise.allSettled(this.#queues.values());
    await this.#writes;
  }

  async act(name: string, action: NodeAction): Promise<ProcessState> {
    const { name: known } = processEntry(this.#layout, name);
    const child = this.#child(known);
    if (action === 'wipe' && child.entry.role !== 'node') {
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        `only storage nodes can be wiped; ${known} holds what cannot be copied back`,
      );
    }
    const earlier = this.#queues.get(known) ?? Promise.resolve();
    const done = earlier.then(() => this.#act(child, action));
    this.#queues.set(
      known,
      done.catch(() => undefined),
    ); // The caller has the error; the next one may go on.
    await done;
    return child.state();
  }

  async #act(child: Child, action: NodeAction): Promise<void> {
    this.#refuseWhenStopping();
    if (action === 'stop' || action === 'kill') {
      await this.#remember(child.entry, { down: { by: action, since: Date.now() } });
      return child.stop(action === 'stop' ? 'SIGTERM' : 'SIGKILL', action);
    }
    if (action === 'wipe') await this.#wipe(child);
    await this.#remember(child.entry, { down: undefined });
    this.#refuseWhenStopping();
    child.start();
    await child.settled(['ready', 'failed', 'waiting', 'down']);
  }

  async #wipe(child: Child): Promise<void> {
    await child.stop('SIGKILL');
    await this.#remember(child.entry, { bornAt: undefined });
    await wipeData(this.#paths.process(child.entry.name));
  }

  #refuseWhenStopping(): void {
    if (this.#phase !== 'stopping') return;
    throw new HoldfastError('CLUSTER_NOT_RUNNING', `the cluster in ${this.#layout.dir} is stopping`);
  }

  // A storage node or custodian that fails leaves the others to do without it, and status says so. Without the steward or
  // the door there is no cluster.
  async #startFirst(child: Child): Promise<void> {
    const stop = this.#stopRequest.signal;
    child.start();
    while (!stop.aborted) {
      const status = await child.settled(['ready', 'failed', 'waiting', 'down'], stop);
      if (status === 'ready' || status === 'down' || stop.aborted) return;
      if (status === 'failed' || child.failure?.code === 'TIMEOUT' || child.endings >= endingsMax) break;
      await child.settled(['starting', 'ready', 'failed', 'down'], stop);
    }
    if (!mayBeDown(child.entry) && !stop.aborted) throw childError(child);
  }

  /** Starts `rest` when `first` have loaded the program, and after a while in any case. */
  async #startAfter(first: readonly Child[], rest: readonly Child[]): Promise<void> {
    if (rest.length === 0) return;
    const stop = this.#stopRequest.signal;
    const signal = AbortSignal.any([stop, AbortSignal.timeout(forerunMs)]);
    await Promise.all(first.map((child) => child.heard(signal)));
    if (stop.aborted || this.#phase === 'stopping') return;
    await Promise.all(rest.map((child) => this.#startFirst(child)));
  }

  /** Beside the program, for all clusters; where that cannot be written, one of this cluster. */
  get #compileCache(): string {
    return programCache() ?? this.#paths.compileCache;
  }

  /** False before the first start: then every process would compile the same program for itself. */
  async #hasCompiled(): Promise<boolean> {
    try {
      return (await readdir(this.#compileCache)).length > 0;
    } catch (cause) {
      if (errnoOf(cause) === 'ENOENT') return false;
      throw fileError(this.#compileCache, 'cannot be read', cause);
    }
  }

  #newChild(entry: ProcessEntry): Child {
    const { command, startMs = minute, stopMs = 8 * second } = this.#options;
    const { backoffMs = { first: 250, longest: 15 * second } } = this.#options;
    const down = mayBeDown(entry) ? this.#state.processes[entry.name]?.down : undefined;
    return new Child(
      {
        entry,
        command: [...command, '--data', this.#layout.dir, '--name', entry.name],
        logPath: this.#paths.log(entry.name),
        compileCache: this.#compileCache,
        ports: this.#portsOf(entry),
        startMs,
        stopMs,
        backoffMs,
        random: Math.random,
        now: Date.now,
        onChange: (child) => this.#changed(child),
      },
      down?.by,
      down?.since,
    );
  }

  #changed(child: Child): void {
    const { name, status, text } = child.state();
    this.#keepPids();
    if (status === 'ready' && this.#state.processes[name]?.bornAt === undefined) {
      this.#background(this.#remember(child.entry, { bornAt: Date.now() }));
    }
    this.#tell(name, status, text);
  }

  #keepPids(): void {
    const pids = [...this.#children.values()].map((child) => child.pid).filter((pid) => pid !== undefined);
    if (pids.join() === this.#pids) return;
    this.#pids = pids.join();
    this.#guard.watch(pids);
    this.#background(this.#write(() => writeChildren(this.#paths.run, pids)));
  }

  /** Replaces the given facts about a process on disk. Only storage nodes and custodians stay down over a restart. */
  #remember(
    entry: ProcessEntry,
    facts: { [Key in keyof ProcessMemory]: ProcessMemory[Key] | undefined },
  ): Promise<void> {
    const memory = { ...this.#state.processes[entry.name], ...facts };
    const { down, bornAt } = memory;
    this.#state = remember(this.#state, entry.name, {
      ...(down === undefined || !mayBeDown(entry) ? {} : { down }),
      ...(bornAt === undefined ? {} : { bornAt }),
    });
    return this.#write(() => writeStateFile(this.#paths.state, this.#state));
  }

  #write(write: () => Promise<void>): Promise<void> {
    const done = this.#writes.then(write);
    this.#writes = done.catch(() => undefined); // Whoever asked has the error; the next write may succeed.
    return done;
  }

  // Nobody waits for these; that they did not happen is told.
  #background(work: Promise<void>): void {
    work.catch((error: unknown) => this.#tell('supervisor', this.#phase, describeError(error)));
  }

  async #rotateLogs(): Promise<void> {
    for (const name of [...this.#children.keys(), 'supervisor']) {
      await rotateLog(this.#paths.log(name)).catch((error: unknown) => {
        this.#tell('supervisor', this.#phase, `${name}.log cannot be rotated: ${describeError(error)}`);
      });
    }
  }

  #hurry(): void {
    this.#hurried = true;
    for (const child of this.#children.values()) child.hurry();
  }

  #enter(phase: ClusterPhase, text: string): void {
    this.#phase = phase;
    this.#tell('supervisor', phase, text);
  }

  #tell(name: string, status: SupervisorEvent['status'], text: string): void {
    if (this.#said.get(name) === `${status} ${text}`) return;
    this.#said.set(name, `${status} ${text}`);
    this.#options.onEvent?.({ at: Date.now(), name, status, text });
  }

  /** Those that no operator took down. */
  #wanted(): Child[] {
    return [...this.#children.values()].filter((child) => child.state().downBy === undefined);
  }

  #child(name: string): Child {
    const child = this.#children.get(name);
    if (child === undefined)
      throw new HoldfastError('INTERNAL', `${name} is in the layout but not supervised`);
    return child;
  }

  #portsOf(entry: ProcessEntry): number[] {
    return entry.role === 'door' ? [entry.port, this.#layout.file.doorPort] : [entry.port];
  }

  get #paths(): ReturnType<typeof layoutPaths> {
    return layoutPaths(this.#layout.dir);
  }
}

/** One of each role, the largest programs first, as many as run at once: what they compile the others find. */
function forerunners(children: readonly Child[]): Child[] {
  return ['custodian', 'steward', 'node', 'door']
    .flatMap((role) => children.find(({ entry }) => entry.role === role) ?? [])
    .slice(0, availableParallelism());
}

/** There are several of them, and the cluster does without one. */
function mayBeDown({ name, role }: ProcessEntry): boolean {
  return role !== 'door' && name !== 'steward';
}
