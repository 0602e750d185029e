// Another log in the place of the one in force: out of the records in the blockstores (`rebuild`), or out of an exported
// file where the one in force is damaged (`import`). It is made beside the old one. Which is in force stands in one small
// file (beacon-generations.ts); the switch is a rename, after which the process ends and is started again on the new one.
// The old one stays for inspection.

import { mkdir, rm } from 'node:fs/promises';
import type { LevelLog } from '../beacon/level.ts';
import { type Append, type BeaconLog, decodeAppend } from '../beacon/log.ts';
import { rebuildBeacon } from '../beacon/rebuild.ts';
import { LevelKv } from '../beacon/view-level.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcMessage, RpcServer } from '../core/rpc.ts';
import { isRecordBytes } from '../manifest/record.ts';
import { beaconDirectory, type Generation, switchGeneration } from './beacon-generations.ts';
import { newLevelLog } from './beacon-logs.ts';
import { type Member, peersWithRole } from './member.ts';
import { clearScratch, scratchDirectory } from './scratch.ts';

/** A log that is being made beside the damaged one, out of an export. */
interface Restoring {
  readonly log: LevelLog;
  readonly generation: number;
}

/** So that the answer is out before the process ends. */
const replaceAfterMs = 200;

export class BeaconSuccessor implements AsyncDisposable {
  /** Resolves once another log is in force. */
  readonly inForce: Promise<void>;
  readonly #member: Member;
  readonly #current: Generation;
  readonly #log: BeaconLog | HoldfastError;
  readonly #checkImported: (append: Append, signal: AbortSignal) => Promise<void>;
  #replace: () => void = () => undefined;
  #busy = false;
  #restoring: Restoring | undefined;

  /** `log`: the one in force, or why there is none. `checkImported` refuses what an import may not bring into it. */
  constructor(
    member: Member,
    current: Generation,
    log: BeaconLog | HoldfastError,
    checkImported: (append: Append, signal: AbortSignal) => Promise<void>,
  ) {
    this.#checkImported = checkImported;
    this.#member = member;
    this.#current = current;
    this.#log = log;
    this.inForce = new Promise((resolve) => {
      this.#replace = resolve;
    });
  }

  serve(rpc: RpcServer, isDoor: (peer: PeerName) => boolean): void {
    rpc.handleStream('beacon.rebuild', (_, { peer, signal }) => this.#rebuild(isDoor(peer), signal));
    this.#serveImport(rpc, isDoor);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dropRestoring();
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
  async #beginImport(): Promise<BeaconLog> {
    if (!(this.#log instanceof HoldfastError)) return this.#log;
    if (this.#busy) throw new HoldfastError('RATE_LIMITED', 'a rebuild or an import is under way already');
    this.#busy = true;
    try {
      await this.#dropRestoring();
      const { generation } = await this.#emptyGeneration();
      const log = await newLevelLog(this.#member, generation);
      this.#restoring = { log, generation };
      return log;
    } finally {
      this.#busy = false;
    }
  }

  #importLog(): BeaconLog {
    if (!(this.#log instanceof HoldfastError)) return this.#log;
    if (this.#restoring !== undefined) return this.#restoring.log;
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the import was interrupted; begin it again', {
      cause: this.#log,
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
    const generation = this.#current.number + 1;
    const directory = beaconDirectory(this.#member, generation);
    await rm(directory, { recursive: true, force: true }); // what an interrupted attempt left
    await mkdir(directory, { recursive: true });
    return { generation, directory };
  }

  /** The process ends once its answer is out, and starts again on the other log. */
  async #putInForce(generation: number): Promise<void> {
    await switchGeneration(this.#member, this.#current.number, {
      number: generation,
      kept: { engine: 'leveldb' },
    });
    setTimeout(() => this.#replace(), replaceAfterMs);
  }

  async *#rebuild(allowed: boolean, signal: AbortSignal): AsyncGenerator<RpcMessage> {
    if (!allowed) throw new HoldfastError('FORBIDDEN', 'only a door may ask for a rebuild');
    if (this.#busy) throw new HoldfastError('RATE_LIMITED', 'a rebuild or an import is under way already');
    if (this.#current.kept.engine !== 'leveldb')
      throw new HoldfastError('BEACON_UNAVAILABLE', 'a rebuild into a stream is not there yet');
    this.#busy = true;
    try {
      await this.#dropRestoring();
      const { generation, directory } = await this.#emptyGeneration();
      await mkdir(scratchDirectory(directory), { recursive: true });
      yield { head: { progress: 'reading the records of every reachable node' } };
      const report = await this.#rebuildInto(generation, directory, signal);
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

  async #rebuildInto(generation: number, directory: string, signal: AbortSignal) {
    await using log = await newLevelLog(this.#member, generation);
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
