// The embedded Beacon as its host keeps it: a log and its view on this disk, served to the other processes.
//
// A log that cannot be trusted is not opened and never replaced by an empty one: the process starts without a
// Beacon, says so to everybody who asks, and offers `rebuild`, which makes a new log out of the records found
// in the blockstores beside the old one, and `import`, which makes it out of an exported one. Which is in force
// stands in one small file (beacon-generations.ts); the switch is a rename, after which the process ends and is
// started again on the new one. The old one stays for inspection.

import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isBorn, setAside } from '../beacon/birth.ts';
import { type Append, decodeAppend, type LogEntry } from '../beacon/log.ts';
import type { LogLineage } from '../beacon/lineage.ts';
import { LevelLog } from '../beacon/level.ts';
import { serveCustody } from '../beacon/custody-rpc.ts';
import { rebuildBeacon } from '../beacon/rebuild.ts';
import { serveBeacon } from '../beacon/serve.ts';
import { verifyBeacon } from '../beacon/verify.ts';
import { BeaconView, checkAppend } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcMessage } from '../core/rpc.ts';
import { hasRole } from '../node/membership.ts';
import { isRecordBytes } from '../manifest/record.ts';
import type { Catalogue } from '../steward/catalogue.ts';
import {
  beaconDirectory,
  birthName,
  openLineage,
  readGeneration,
  switchGeneration,
} from './beacon-generations.ts';
import { HeldBlocks } from './held-blocks.ts';
import { type Member, peersWithRole } from './member.ts';
import { clearScratch, scratchDirectory } from './scratch.ts';

/** A log that is being made beside the damaged one, out of an export. */
interface Restoring {
  readonly log: LevelLog;
  readonly generation: number;
}

interface OpenBeacon {
  readonly lineage: LogLineage;
  readonly log: LevelLog;
  readonly view: BeaconView;
}

const problemsMax = 1000;
const replaceAfterMs = 200;

export class BeaconHost implements AsyncDisposable {
  /** Resolves once a rebuild has put another log in force. */
  readonly replaced: Promise<void>;
  readonly #member: Member;
  readonly #generation: number;
  readonly #open: OpenBeacon | HoldfastError;
  readonly #stop = new AbortController();
  #following: Promise<void> = Promise.resolve();
  #replace: () => void = () => undefined;
  #busy = false;
  #restoring: Restoring | undefined;

  private constructor(member: Member, generation: number, open: OpenBeacon | HoldfastError) {
    this.#member = member;
    this.#generation = generation;
    this.#open = open;
    this.replaced = new Promise((resolve) => {
      this.#replace = resolve;
    });
  }

  /** Opens the log in force and serves it. Throws only for what is no damage: DATA_DIR_LOCKED, DATA_DIR_NEWER. */
  static async open(member: Member): Promise<BeaconHost> {
    await clearScratch(member.config.dataDir);
    const generation = await readGeneration(member);
    // A rebuild that was killed left its scratch in the generation it was making; the log there is kept until the next.
    await clearScratch(beaconDirectory(member, generation + 1));
    const host = new BeaconHost(member, generation, await openOrDamage(member, generation));
    if (host.#open instanceof HoldfastError)
      console.error(`the Beacon is damaged: ${describeError(host.#open)}`);
    else host.#following = host.#open.view.follow(host.#open.log, host.#stop.signal);
    host.#serve();
    return host;
  }

  get view(): BeaconView | undefined {
    return this.#open instanceof HoldfastError ? undefined : this.#open.view;
  }

  revision(): number {
    return this.view?.position().revision ?? 0;
  }

  /** Appends what this process itself has to file, checked like anybody's. Throws as `beacon.append`. */
  async append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    if (this.#open instanceof HoldfastError)
      throw new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is damaged', { cause: this.#open });
    await checkAppend(this.#open.view, append);
    return this.#open.log.append(append, options);
  }

  text(): string {
    return this.#open instanceof HoldfastError ? `damaged: ${this.#open.message}` : 'embedded LevelDB log';
  }

  /** What the steward has while there is no Beacon: nothing, and not fresh, so nothing is collected. */
  emptyCatalogue(): Catalogue {
    const reason = this.text();
    return {
      state: () => ({ revision: 0, fresh: false, reason }),
      changes: async (after) => ({ objects: [], revision: after, done: true }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#dropRestoring();
    if (this.#open instanceof HoldfastError) return;
    await this.#open.view[Symbol.asyncDispose]();
    await this.#open.log[Symbol.asyncDispose]();
  }

  #serve(): void {
    const { peer: own } = this.#member;
    const { rpc } = own;
    const isDoor = (peer: PeerName): boolean => hasRole(own.membership(), peer, 'door');
    const open = this.#open;
    if (open instanceof HoldfastError) {
      const refuse = (): never => {
        throw new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is damaged; run: holdfast beacon rebuild', {
          cause: open,
        });
      };
      for (const method of ['beacon.head', 'beacon.append', 'beacon.custody', 'beacon.verify'])
        rpc.handle(method, async () => refuse());
      for (const method of ['beacon.read', 'beacon.watch'])
        rpc.handleStream(method, async function* () {
          refuse();
          yield* [];
        });
    } else {
      const { lineage, log, view } = open;
      serveBeacon(rpc, log, {
        lineage,
        mayAppend: isDoor,
        check: (append) => checkAppend(view, append),
      });
      serveCustody(rpc, view);
      rpc.handle('beacon.verify', async (_, { signal }) => ({ head: await this.#verify(open, signal) }));
    }
    rpc.handleStream('beacon.rebuild', (_, { peer, signal }) => this.#rebuild(isDoor(peer), signal));
    this.#serveImport(isDoor);
  }

  /** An import goes into the log in force, or, where that is damaged, into a new one that takes its place at the end. */
  #serveImport(isDoor: (peer: PeerName) => boolean): void {
    const { rpc } = this.#member.peer;
    const checkCaller = (peer: PeerName): void => {
      if (!isDoor(peer)) throw new HoldfastError('FORBIDDEN', `${peer} may not append to the Beacon`);
    };
    rpc.handle('beacon.importBegin', async (_, { peer }) => {
      checkCaller(peer);
      const { revision, chain } = await (await this.#beginImport()).head();
      return { head: { revision, chain, restoring: this.#restoring !== undefined } };
    });
    rpc.handle('beacon.import', async ({ body }, { peer, signal }) => {
      checkCaller(peer);
      const { revision, chain } = await this.#importLog().append(decodeAppend(body), { signal });
      return { head: { revision, chain } };
    });
    rpc.handle('beacon.importEnd', async (_, { peer }) => {
      checkCaller(peer);
      await this.#endImport();
      return { head: {} };
    });
  }

  /** Begins from nothing each time: what an interrupted restore left is thrown away. */
  async #beginImport(): Promise<LevelLog> {
    if (!(this.#open instanceof HoldfastError)) return this.#open.log;
    if (this.#busy) throw new HoldfastError('RATE_LIMITED', 'a rebuild or an import is under way already');
    this.#busy = true;
    try {
      await this.#dropRestoring();
      const { generation, directory } = await this.#emptyGeneration();
      const log = await LevelLog.open(join(directory, 'log'));
      this.#restoring = { log, generation };
      return log;
    } finally {
      this.#busy = false;
    }
  }

  #importLog(): LevelLog {
    if (!(this.#open instanceof HoldfastError)) return this.#open.log;
    if (this.#restoring !== undefined) return this.#restoring.log;
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the import was interrupted; begin it again', {
      cause: this.#open,
    });
  }

  async #endImport(): Promise<void> {
    if (this.#restoring === undefined) return;
    const { generation } = this.#restoring;
    await this.#dropRestoring();
    await this.#putInForce(generation);
  }

  async #dropRestoring(): Promise<void> {
    const restoring = this.#restoring;
    this.#restoring = undefined;
    await restoring?.log[Symbol.asyncDispose]();
  }

  async #emptyGeneration(): Promise<{ readonly generation: number; readonly directory: string }> {
    const generation = this.#generation + 1;
    const directory = beaconDirectory(this.#member, generation);
    await rm(directory, { recursive: true, force: true }); // what an interrupted attempt left
    await mkdir(join(directory, 'log'), { recursive: true });
    return { generation, directory };
  }

  /** The process ends once its answer is out, and starts again on the other log. */
  async #putInForce(generation: number): Promise<void> {
    await switchGeneration(this.#member, this.#generation, generation);
    setTimeout(() => this.#replace(), replaceAfterMs);
  }

  async #verify({ log, view }: OpenBeacon, signal: AbortSignal): Promise<Record<string, unknown>> {
    const directory = join(scratchDirectory(this.#member.config.dataDir), `verify-${Date.now()}`);
    await mkdir(directory, { recursive: true });
    await using scratch = await LevelKv.open(directory, { sync: false });
    try {
      const held = new HeldBlocks(this.#member, signal);
      const report = await verifyBeacon({ log, view, scratch, hasBlock: (cid) => held.has(cid), signal });
      const content = await held.contentOf(view);
      const problems = [...report.problems, ...content.problems].slice(0, problemsMax);
      const blocks = report.blocks + content.blocks;
      return { ...report, ok: problems.length === 0, problems, blocks, counts: { ...report.counts } };
    } finally {
      await scratch[Symbol.asyncDispose]();
      await rm(directory, { recursive: true, force: true });
    }
  }

  async *#rebuild(allowed: boolean, signal: AbortSignal): AsyncGenerator<RpcMessage> {
    if (!allowed) throw new HoldfastError('FORBIDDEN', 'only a door may ask for a rebuild');
    if (this.#busy) throw new HoldfastError('RATE_LIMITED', 'a rebuild or an import is under way already');
    this.#busy = true;
    try {
      await this.#dropRestoring();
      const { generation, directory } = await this.#emptyGeneration();
      await mkdir(scratchDirectory(directory), { recursive: true });
      yield { head: { progress: 'reading the records of every reachable node' } };
      const report = await this.#rebuildInto(directory, signal);
      await clearScratch(directory);
      await this.#putInForce(generation);
      yield {
        head: {
          result: {
            ...report,
            forks: report.forks.map((fork) => ({ ...fork, cid: fork.cid.toString() })),
            missing: report.missing.map((gap) => ({ ...gap })),
            generation,
          },
        },
      };
    } finally {
      this.#busy = false;
    }
  }

  async #rebuildInto(directory: string, signal: AbortSignal) {
    await using log = await LevelLog.open(join(directory, 'log'));
    await using scratch = await LevelKv.open(scratchDirectory(directory), { sync: false });
    return await rebuildBeacon({ blocks: this.#recordBlocks(signal), log, scratch, signal });
  }

  async *#recordBlocks(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { peer } = this.#member;
    const up = new Set(peer.connected());
    const nodes = peersWithRole(peer.membership(), 'node').filter((each) => up.has(each));
    if (nodes.length === 0)
      throw new HoldfastError('PEER_UNREACHABLE', 'no storage node is reachable: nothing to rebuild from');
    for (const node of nodes)
      for await (const { body } of peer.rpc.stream(
        node,
        'block.records',
        { head: {} },
        { signal, lane: 'bulk', timeoutMs: 60_000 },
      ))
        if (isRecordBytes(body)) yield body;
  }
}

async function openOrDamage(member: Member, generation: number): Promise<OpenBeacon | HoldfastError> {
  try {
    return await openGeneration(member, generation);
  } catch (error) {
    const damage = ['DATA_DIR_DAMAGED', 'RECORD_CORRUPT', 'FILE_UNREADABLE'];
    if (error instanceof HoldfastError && damage.includes(error.code)) return error;
    throw error;
  }
}

async function openGeneration(member: Member, generation: number): Promise<OpenBeacon> {
  const directory = join(beaconDirectory(member, generation), 'log');
  const name = birthName(generation);
  // A log that was there before and has no mark any more is lost: never begin a new one in its place.
  if (member.dir.isBorn(name) && !(await isBorn(directory)))
    throw new HoldfastError('DATA_DIR_DAMAGED', `${directory} is gone although the Beacon was kept there`);
  await mkdir(directory, { recursive: true });
  const log = await LevelLog.open(directory);
  try {
    const view = await openView(beaconDirectory(member, generation));
    await member.dir.markBorn(name);
    return { lineage: await openLineage(member, generation), log, view };
  } catch (error) {
    await log[Symbol.asyncDispose]();
    throw error;
  }
}

/** A view is a fold of the log: one that is damaged is set aside, for a person to look at, and folded again. */
async function openView(parent: string): Promise<BeaconView> {
  const directory = join(parent, 'view');
  await mkdir(directory, { recursive: true });
  try {
    return await BeaconView.open(await LevelKv.open(directory));
  } catch (error) {
    const damage = ['DATA_DIR_DAMAGED', 'RECORD_CORRUPT'];
    if (!(error instanceof HoldfastError) || !damage.includes(error.code)) throw error;
    const aside = await setAside(directory, String(Date.now()));
    console.error(`the view is damaged, now at ${aside}, and folded again: ${error.message}`);
    await mkdir(directory, { recursive: true });
    return BeaconView.open(await LevelKv.open(directory));
  }
}
