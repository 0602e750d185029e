// Another log in the place of the one in force. It is made beside the old one, out of
//
//   rebuild   the signed records in the blockstores
//   reseed    the view, of a steward or a door, that holds most of the log
//   import    an exported file, where the log in force is damaged
//   migrate   the log in force itself, to be kept in another engine or on other servers
//
// Which is in force stands in one small file (beacon-generations.ts); the switch is a rename, after which the process
// ends and is started again on the new one. The old one stays for inspection. All but `import` can be killed anywhere
// and begun again.

import { mkdir } from 'node:fs/promises';
import { type Append, type BeaconLog, decodeAppend, holds } from '../beacon/log.ts';
import { copyLog, migrateLog } from '../beacon/migrate.ts';
import { rebuildBeacon } from '../beacon/rebuild.ts';
import type { BeaconView } from '../beacon/view.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { Gate } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcMessage, RpcServer } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { type BeaconSettings, parseBeaconSettings } from '../local/beacon-settings.ts';
import { type BeaconCopy, otherCopies, ownCopy } from './beacon-copies.ts';
import type { BeaconGate } from './beacon-gate.ts';
import type { Generation } from './beacon-generations.ts';
import { beginNext, continueNext, type NextLog, nextOfSame } from './beacon-next.ts';
import { sayInStream } from './beacon-stream.ts';
import { answeredMs, type Member } from './member.ts';
import { nodesToAsk, recordBlocks } from './record-blocks.ts';
import { clearScratch, scratchDirectory } from './scratch.ts';

/** The log in force and what is beside it; a log that is damaged has neither gate nor view. */
export interface InForce {
  readonly log: BeaconLog;
  readonly gate: BeaconGate;
  readonly view: BeaconView;
}

export class BeaconSuccessor implements AsyncDisposable {
  /** Resolves once another log is in force. */
  readonly inForce: Promise<void>;
  readonly #member: Member;
  readonly #current: Generation;
  #checkImported: (append: Append, signal: AbortSignal) => Promise<void> = async () => undefined;
  #open: InForce | HoldfastError = new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is not open yet');
  #replace: () => void = () => undefined;
  /** Whoever uses the directory of the next generation. */
  readonly #turn = new Gate(1);
  #busy = false;
  #isReplaced = false;
  #restoring: NextLog | undefined;

  constructor(member: Member, current: Generation) {
    this.#member = member;
    this.#current = current;
    this.inForce = new Promise((resolve) => {
      this.#replace = resolve;
    });
  }

  /** Runs `work`, which looks for a log that another steward has made; not while one is being made here. */
  async lookAround(work: (isBusy: () => boolean) => Promise<boolean>): Promise<boolean> {
    return this.#turn.run(async () => !this.#isTaken && (await work(() => this.#isTaken)));
  }

  /** Another log is in force: the process is to start again on it, and makes or looks for none until then. */
  replaced(): void {
    this.#isReplaced = true;
    setTimeout(this.#replace, answeredMs);
  }

  get #isTaken(): boolean {
    return this.#busy || this.#isReplaced;
  }

  /** `open`: the log in force, or why there is none. `checkImported` refuses what an import may not bring into it. */
  serve(
    rpc: RpcServer,
    open: InForce | HoldfastError,
    isDoor: (peer: PeerName) => boolean,
    checkImported: (append: Append, signal: AbortSignal) => Promise<void>,
  ): void {
    this.#open = open;
    this.#checkImported = checkImported;
    const works = {
      rebuild: (head: unknown, signal: AbortSignal) => this.#rebuild(head, signal),
      reseed: (_: unknown, signal: AbortSignal) => this.#reseed(signal),
      migrate: (head: unknown, signal: AbortSignal) => this.#migrate(head, signal),
    };
    for (const [name, work] of Object.entries(works))
      rpc.handleStream(`beacon.${name}`, ({ head }, { peer, signal }) => {
        if (!isDoor(peer)) throw new HoldfastError('FORBIDDEN', `only a door may ask for beacon.${name}`);
        return this.#alone(work(head, signal));
      });
    this.#serveImport(rpc, isDoor);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dropRestoring();
  }

  /** One piece of work at a time. */
  async *#alone(work: AsyncIterable<RpcMessage>): AsyncGenerator<RpcMessage> {
    await this.#claim();
    try {
      await this.#dropRestoring();
      yield* work;
    } finally {
      this.#busy = false;
    }
  }

  async #claim(): Promise<void> {
    if (this.#isTaken)
      throw new HoldfastError('RATE_LIMITED', 'another log is being made already; wait until it is done');
    this.#busy = true;
    await this.#turn.run(async () => undefined);
  }

  async *#rebuild(head: unknown, signal: AbortSignal): AsyncGenerator<RpcMessage> {
    const { peer } = this.#member;
    const without = namesOf(fieldOf(head, 'without'));
    const nodes = await nodesToAsk(peer, without, signal);
    yield { head: { progress: `reading the records of ${nodes.length} storage nodes` } };
    const begin = (): Promise<NextLog> => beginNext(this.#member, this.#current);
    const { report, generation } = await this.#inPlace('it is being rebuilt', begin, async (next) => {
      const scratchPath = scratchDirectory(next.directory);
      await mkdir(scratchPath, { recursive: true });
      await using scratch = await LevelKv.open(scratchPath, { sync: false });
      const blocks = recordBlocks(peer, nodes, signal);
      const made = await rebuildBeacon({ blocks, log: next.log, scratch, signal });
      await scratch[Symbol.asyncDispose]();
      await clearScratch(next.directory);
      return made;
    });
    yield {
      head: {
        result: {
          ...report,
          forks: report.forks.map((fork) => ({ ...fork, cid: fork.cid.toString() })),
          missing: report.missing.map((gap) => ({ ...gap })),
          without,
          generation,
        },
      },
    };
  }

  async *#reseed(signal: AbortSignal): AsyncGenerator<RpcMessage> {
    yield { head: { progress: 'asking every steward and door how much of the log it holds' } };
    const begin = (): Promise<NextLog> => nextOfSame(this.#member, this.#current);
    const { report, generation } = await this.#inPlace('it is being filled again', begin, async (next) => {
      const { longest, others, unheard } = await this.#longestCopy();
      const from = { head: async () => longest.position, read: longest.read };
      const { entries } = await copyLog(from, next.log, { signal });
      const { revision } = longest.position;
      return { from: longest.name, revision, entries, others, unheard };
    });
    yield { head: { result: { ...report, generation } } };
  }

  /** Throws VERSION_CONFLICT when two of them tell different histories: which counts is for a person, or a rebuild. */
  async #longestCopy() {
    const { copies, unheard } = await otherCopies(this.#member.peer);
    const { name } = this.#member.config;
    const own = this.#open instanceof HoldfastError ? [] : [ownCopy(name, this.#open.view)];
    const [longest, ...others] = [...own, ...copies].toSorted(
      (a, b) => b.position.revision - a.position.revision,
    );
    if (longest === undefined || longest.position.revision === 0)
      throw new HoldfastError(
        'BEACON_UNAVAILABLE',
        'no view that answers holds anything; run: holdfast beacon rebuild',
      );
    const strangers: BeaconCopy[] = [];
    for (const copy of others) if (!(await holds(longest, copy.position))) strangers.push(copy);
    if (strangers.length > 0)
      throw new HoldfastError(
        'VERSION_CONFLICT',
        `the views tell different histories: ${[longest, ...strangers]
          .map((copy) => `${copy.name} up to revision ${copy.position.revision}`)
          .join(', ')}; run: holdfast beacon rebuild`,
        { details: { current: longest.position.revision } },
      );
    return {
      longest,
      others: others.map((copy) => `${copy.name} at revision ${copy.position.revision}`),
      unheard: unheard.map((each) => `${each.name}: ${each.reason}`),
    };
  }

  async *#migrate(head: unknown, signal: AbortSignal): AsyncGenerator<RpcMessage> {
    const to = targetOf(fieldOf(head, 'to'));
    if (isSamePlace(to, this.#current.kept)) {
      yield { head: { result: { entries: 0, already: true, generation: this.#current.number } } };
      return;
    }
    if (this.#open instanceof HoldfastError)
      throw new HoldfastError('BEACON_UNAVAILABLE', 'the Beacon is damaged: repair it before it is moved', {
        cause: this.#open,
      });
    const { log } = this.#open;
    yield { head: { progress: `copying the log to ${placeText(to)}` } };
    await using next = await continueNext(this.#member, this.#current, to);
    try {
      const report = await migrateLog(
        {
          from: log,
          to: next.log,
          close: () => this.#close(`it is being moved to ${placeText(to)}`),
          putInForce: () => next.putInForce(),
        },
        { signal },
      );
      this.replaced();
      const { entries, position } = report;
      yield {
        head: { result: { entries, revision: position.revision, generation: next.generation.number } },
      };
    } catch (error) {
      await this.#reopen();
      throw error;
    }
  }

  /** Makes a log, with the one in force closed, and puts it in its place. */
  async #inPlace<Report>(
    why: string,
    begin: () => Promise<NextLog>,
    fill: (next: NextLog) => Promise<Report>,
  ): Promise<{ readonly report: Report; readonly generation: number }> {
    await this.#close(why);
    try {
      await using next = await begin();
      const report = await fill(next);
      await next.putInForce();
      this.replaced();
      return { report, generation: next.generation.number };
    } catch (error) {
      await this.#reopen();
      throw error;
    }
  }

  /** From when it resolves nobody appends to the log in force, and who is told that he did has done so. */
  async #close(why: string): Promise<void> {
    if (!(this.#open instanceof HoldfastError)) await this.#open.gate.shut();
    const { kept } = this.#current;
    if (kept.engine === 'jetstream') await sayInStream(this.#member, kept, 'closed', why);
  }

  /** After a failure; a stream that cannot be reached now is opened when this process starts again. */
  async #reopen(): Promise<void> {
    const { kept } = this.#current;
    try {
      if (kept.engine === 'jetstream') await sayInStream(this.#member, kept, 'open', 'the move failed');
    } catch (error) {
      console.error(`the stream stays closed for now: ${describeError(error)}`);
    }
    if (!(this.#open instanceof HoldfastError)) this.#open.gate.open();
  }

  /** An import goes into the log in force, or, where that is damaged, into a new one that takes its place at the end. */
  #serveImport(rpc: RpcServer, isDoor: (peer: PeerName) => boolean): void {
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
      const append = decodeAppend(body);
      await this.#checkImported(append, signal);
      const { revision, chain } = await this.#importLog().append(append, { signal });
      return { head: { revision, chain } };
    });
    rpc.handle('beacon.importEnd', async (_, { peer }) => {
      checkCaller(peer);
      await this.#endImport();
      return { head: {} };
    });
  }

  /** Begins from nothing each time: what an interrupted restore left is thrown away. */
  async #beginImport(): Promise<Pick<BeaconLog, 'head'>> {
    if (!(this.#open instanceof HoldfastError)) return this.#open.log;
    await this.#claim();
    try {
      await this.#dropRestoring();
      this.#restoring = await beginNext(this.#member, this.#current);
      return this.#restoring.log;
    } finally {
      this.#busy = false;
    }
  }

  #importLog(): Pick<BeaconLog, 'append'> {
    if (!(this.#open instanceof HoldfastError)) return this.#open.gate;
    if (this.#restoring !== undefined) return this.#restoring.log;
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the import was interrupted; begin it again', {
      cause: this.#open,
    });
  }

  async #endImport(): Promise<void> {
    const restoring = this.#restoring;
    if (restoring === undefined) return;
    this.#restoring = undefined;
    await restoring.putInForce();
    this.replaced();
  }

  async #dropRestoring(): Promise<void> {
    const restoring = this.#restoring;
    this.#restoring = undefined;
    await restoring?.[Symbol.asyncDispose]();
  }
}

function namesOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === 'string') : [];
}

function targetOf(value: unknown): BeaconSettings {
  const fail = (why: string): HoldfastError => new HoldfastError('ARGUMENT_INVALID', why);
  const to = parseBeaconSettings(value, undefined, fail);
  if (to === undefined) throw new HoldfastError('ARGUMENT_MISSING', 'where is the Beacon to be moved?');
  return to;
}

/** The same engine on the same servers. A stream that took another one's place counts as that. */
function isSamePlace(to: BeaconSettings, now: BeaconSettings): boolean {
  if (to.engine === 'leveldb' || now.engine === 'leveldb') return to.engine === now.engine;
  const [wanted, present] = [to.servers ?? [], now.servers ?? []];
  const isHere = now.stream === to.stream || now.stream.startsWith(`${to.stream}-e`);
  return isHere && wanted.some((server) => present.includes(server));
}

function placeText(kept: BeaconSettings): string {
  return kept.engine === 'leveldb'
    ? 'LevelDB'
    : `stream ${kept.stream} on ${(kept.servers ?? []).join(', ')}`;
}
