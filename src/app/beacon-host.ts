// The Beacon as its host keeps it: the log in force, whatever keeps that (beacon-logs.ts), and its view on this disk,
// served to the other processes.
//
// A log on this disk that cannot be trusted is not opened and never replaced by an empty one: the process starts without
// a Beacon, says so to everybody who asks, and offers to put another log in its place (beacon-successor.ts). A log on
// servers may come later, or go: the view answers meanwhile.

import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isEarlierEdition, isStoreDamage, setAside } from '../beacon/birth.ts';
import { proveRows } from '../beacon/copied.ts';
import { serveCustody } from '../beacon/custody-rpc.ts';
import { bringsCustody, checkEntitled, type Entitled } from '../beacon/entitled.ts';
import type { Kv } from '../beacon/kv.ts';
import { type Append, type BeaconLog, holds, type LogEntry } from '../beacon/log.ts';
import { serveBeacon } from '../beacon/serve.ts';
import { verifyBeacon } from '../beacon/verify.ts';
import { BeaconView } from '../beacon/view.ts';
import { checkAppend } from '../beacon/check-append.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { grouped } from '../core/concurrency.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { type PeerName, refuseMethods } from '../core/rpc.ts';
import { groupNameOf } from '../custody/group-name.ts';
import { custodianKeysOf } from '../node/identity.ts';
import { hasRole } from '../node/membership.ts';
import type { Catalogue } from '../steward/catalogue.ts';
import type { BeaconReport } from '../steward/status.ts';
import { serveCopy } from './beacon-copies.ts';
import { BeaconGate } from './beacon-gate.ts';
import { beaconDirectory, type Generation, readGeneration } from './beacon-generations.ts';
import { type HostedLog, openLog } from './beacon-logs.ts';
import { BeaconSuccessor, type InForce } from './beacon-successor.ts';
import { HeldBlocks } from './held-blocks.ts';
import { ViewCatalogue } from './catalogue.ts';
import { type Member, systemClock } from './member.ts';
import { clearScratch, scratchDirectory } from './scratch.ts';
import { ViewRoots } from './view-roots.ts';

type OpenBeacon = InForce & HostedLog;

const problemsMax = 1000;
/** What only a log that is open answers. */
const ofTheLog = {
  calls: ['beacon.head', 'beacon.append', 'beacon.custody', 'beacon.verify'],
  streams: ['beacon.read', 'beacon.watch', 'beacon.snapshot'],
};
/** Entries of a copy that are folded in one batch. */
const settledAtOnce = 256;

export class BeaconHost implements AsyncDisposable {
  readonly #member: Member;
  readonly #generation: Generation;
  readonly #open: OpenBeacon | HoldfastError;
  readonly #successor: BeaconSuccessor;
  readonly #stop = new AbortController();
  readonly #roots: ViewRoots | undefined;
  #following: Promise<void> = Promise.resolve();
  #proving: Promise<void> | undefined;

  private constructor(
    member: Member,
    generation: Generation,
    open: OpenBeacon | HoldfastError,
    successor: BeaconSuccessor,
  ) {
    this.#member = member;
    this.#generation = generation;
    this.#open = open;
    this.#successor = successor;
    if (!(open instanceof HoldfastError))
      this.#roots = new ViewRoots(open.view, () => this.#proveAgain(open.view), this.#stop.signal);
  }

  /** Opens the log in force and serves it. Throws only for what is no damage: DATA_DIR_LOCKED, DATA_DIR_NEWER. */
  static async open(member: Member): Promise<BeaconHost> {
    await clearScratch(member.config.dataDir);
    const generation = await readGeneration(member);
    // A rebuild that was killed left its scratch in the generation it was making; the log there is kept until the next.
    await clearScratch(beaconDirectory(member, generation.number + 1));
    const successor = new BeaconSuccessor(member, generation);
    const open = await openOrDamage(member, generation, successor);
    const host = new BeaconHost(member, generation, open, successor);
    if (open instanceof HoldfastError) console.error(`the Beacon is damaged: ${describeError(open)}`);
    else host.#following = open.view.follow(open.log, host.#stop.signal);
    host.#serve();
    return host;
  }

  get view(): BeaconView | undefined {
    return this.#open instanceof HoldfastError ? undefined : this.#open.view;
  }

  /**
   * Resolves once another log has been put in force, or the view turned out to be false: the process is to start again
   * on it, or to fold another view.
   */
  get replaced(): Promise<void> {
    const { inForce } = this.#successor;
    return this.view === undefined ? inForce : Promise.race([inForce, this.view.condemned]);
  }

  /** For comparing its view with others; undefined where there is none. */
  get roots(): ViewRoots | undefined {
    return this.#roots;
  }

  revision(): number {
    return this.view?.position().revision ?? 0;
  }

  /** Appends what this process itself has to file, checked like anybody's. Throws as `beacon.append`. */
  async append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    if (this.#open instanceof HoldfastError)
      throw new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is damaged', { cause: this.#open });
    await checkAppend(this.#open.view, append, entitledIn(this.#member));
    return this.#open.gate.append(append, options);
  }

  text(): string {
    return this.#open instanceof HoldfastError ? `damaged: ${this.#open.message}` : this.#open.report().text;
  }

  report(): BeaconReport {
    if (!(this.#open instanceof HoldfastError)) return this.#open.report();
    const { engine } = this.#generation.kept;
    const reason = this.#open.message;
    return { engine, text: 'the log', state: 'damaged', reason, durable: false, problems: [] };
  }

  /** What ought to exist. Without a Beacon: nothing, and not fresh, so nothing is collected. */
  catalogue(): Catalogue {
    if (this.view !== undefined) return new ViewCatalogue(this.view, systemClock);
    const reason = this.text();
    return {
      state: () => ({ revision: 0, fresh: false, reason }),
      changes: async (after) => ({ objects: [], revision: after, done: true }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#proving;
    await this.#successor[Symbol.asyncDispose]();
    if (this.#open instanceof HoldfastError) return;
    // In this order: a log in a stream may have something left for the view.
    await this.#open.log[Symbol.asyncDispose]();
    await this.#open.view[Symbol.asyncDispose]();
  }

  #serve(): void {
    const { peer: own } = this.#member;
    const { rpc } = own;
    const isDoor = (peer: PeerName): boolean => hasRole(own.membership(), peer, 'door');
    const open = this.#open;
    if (open instanceof HoldfastError) {
      const text = 'the Beacon is damaged; run: holdfast beacon rebuild';
      refuseMethods(rpc, ofTheLog, () => new HoldfastError('BEACON_UNAVAILABLE', text, { cause: open }));
    } else {
      const { log, gate, view } = open;
      const gated = { ...readingOf(log), append: gate.append.bind(gate) };
      serveBeacon(rpc, gated, {
        mayAppend: isDoor,
        recall: (id) => log.recall(id),
        check: (append) => checkAppend(view, append, entitledIn(this.#member)),
        snapshot: () => view.snapshot(),
      });
      if (this.#roots !== undefined) serveCopy(own, view, this.#roots);
      serveCustody(rpc, view);
      rpc.handle('beacon.verify', async (_, { signal }) => ({ head: await this.#verify(open, signal) }));
    }
    this.#successor.serve(rpc, open, isDoor, (append, signal) => this.#checkImported(append, signal));
  }

  /** An import brings its own history, which the fold judges; what no fold can judge is who may found a group. */
  async #checkImported(append: Append, signal: AbortSignal): Promise<void> {
    const open = this.#open;
    if (open instanceof HoldfastError || !bringsCustody(append)) return;
    await open.view.waitFor((await open.log.head()).revision, signal);
    await checkEntitled(open.view, append, entitledIn(this.#member));
  }

  async #verify({ log, view }: OpenBeacon, signal: AbortSignal): Promise<Record<string, unknown>> {
    return this.#withScratch('verify', async (scratch) => {
      const held = new HeldBlocks(this.#member, signal);
      const report = await verifyBeacon({ log, view, scratch, hasBlock: (cid) => held.has(cid), signal });
      const content = await held.contentOf(view);
      const problems = [...report.problems, ...content.problems].slice(0, problemsMax);
      const blocks = report.blocks + content.blocks;
      return { ...report, ok: problems.length === 0, problems, blocks, counts: { ...report.counts } };
    });
  }

  /** Folds the log of the view again and compares, in the background: where they differ, the view is condemned. */
  #proveAgain(view: BeaconView): void {
    const { signal } = this.#stop;
    this.#proving ??= this.#withScratch('prove', (scratch) => proveRows(view, scratch, signal))
      .catch((error: unknown) => {
        if (!signal.aborted) console.error(`the view could not be folded again: ${describeError(error)}`);
      })
      .finally(() => {
        this.#proving = undefined;
      });
  }

  async #withScratch<Result>(name: string, work: (scratch: Kv) => Promise<Result>): Promise<Result> {
    const directory = join(scratchDirectory(this.#member.config.dataDir), `${name}-${Date.now()}`);
    await mkdir(directory, { recursive: true });
    await using scratch = await LevelKv.open(directory, { sync: false });
    try {
      return await work(scratch);
    } finally {
      await scratch[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  }
}

function entitledIn({ config, peer }: Member): Entitled {
  return { group: groupNameOf(config.cluster), custodians: () => custodianKeysOf(peer.membership()) };
}

async function openOrDamage(
  member: Member,
  generation: Generation,
  successor: BeaconSuccessor,
): Promise<OpenBeacon | HoldfastError> {
  try {
    return await openGeneration(member, generation, successor);
  } catch (error) {
    if (isStoreDamage(error) || isHoldfastError(error, 'FILE_UNREADABLE')) return error;
    throw error;
  }
}

async function openGeneration(
  member: Member,
  generation: Generation,
  successor: BeaconSuccessor,
): Promise<OpenBeacon> {
  await using stack = new AsyncDisposableStack();
  const open = (): Promise<BeaconView> => openView(beaconDirectory(member, generation.number));
  // The view of a stream is there before its log, which may hold more; a log on this disk must be sound first.
  const early = generation.kept.engine === 'jetstream' ? stack.use(await open()) : undefined;
  const hosted = await openLog(member, generation, {
    settle: async (copy) => {
      if (early !== undefined) await settle(early, copy);
    },
    lookAround: (work) => successor.lookAround(work),
    onReplaced: () => successor.replaced(),
  });
  stack.use(hosted.log);
  const view = early ?? stack.use(await open());
  stack.move();
  return { ...hosted, gate: new BeaconGate(hosted.log), view };
}

/** Folds in what `copy` holds beyond the view, if it tells the same history. */
async function settle(view: BeaconView, copy: BeaconLog): Promise<void> {
  const position = view.position();
  const { revision } = await copy.head();
  if (revision <= position.revision || !(await holds(copy, position))) return;
  for await (const group of grouped(copy.read(position.revision + 1), settledAtOnce)) await view.apply(group);
}

function readingOf(log: BeaconLog): Omit<BeaconLog, 'append'> {
  return {
    read: (from, options) => log.read(from, options),
    watch: (from, options) => log.watch(from, options),
    head: () => log.head(),
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
  };
}

/** A view is a fold of the log: one that is damaged, or of an earlier edition, is set aside and folded again. */
export async function openView(parent: string): Promise<BeaconView> {
  const directory = join(parent, 'view');
  await mkdir(directory, { recursive: true });
  try {
    return await BeaconView.open(await LevelKv.open(directory));
  } catch (error) {
    const isEarlier = isEarlierEdition(error);
    if (!isEarlier && !isStoreDamage(error)) throw error;
    const aside = await setAside(directory, Date.now(), isEarlier ? 'earlier' : 'damaged');
    console.error(`the view is now at ${aside}, and folded again: ${error.message}`);
    await mkdir(directory, { recursive: true });
    return BeaconView.open(await LevelKv.open(directory));
  }
}
