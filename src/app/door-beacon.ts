// Work on the Beacon as a whole, as a door offers it: the steward does it, the door passes it on.

import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type Append, type BeaconLog, encodeAppend, type LogEntry, type LogPosition } from '../beacon/log.ts';
import { parsePosition } from '../beacon/serve.ts';
import { exportLog, importLog, readLogFile } from '../beacon/transfer.ts';
import type { BeaconView } from '../beacon/view.ts';
import { sameBytes } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { RpcClient } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import type { DoorPorts } from '../http/door-ports.ts';
import type { DoorView } from './door-view.ts';
import type { StewardClient } from './steward-client.ts';

/** A large registry takes its time; this is only there to end what hangs. */
const longWorkMs = 60 * minute;

export interface DoorBeaconPorts {
  readonly view: BeaconView;
  readonly log: BeaconLog;
  readonly rpc: RpcClient;
  readonly steward: StewardClient;
  /** For files that last as long as a request. */
  readonly scratch: string;
  /** The view's part: logs in the place of its own that lack something (door-view.ts). */
  readonly successors: Pick<DoorView, 'refused' | 'accept'>;
  /** Resolves once reads here see the revision. */
  visible(revision: number): Promise<void>;
}

export class DoorBeacon implements Readonly<DoorPorts['beacon']> {
  readonly #ports: DoorBeaconPorts;

  constructor(ports: DoorBeaconPorts) {
    this.#ports = ports;
  }

  async *verify(signal: AbortSignal): AsyncGenerator {
    yield { progress: 'folding the log again and looking every block up' };
    const result = await this.#ports.steward.call('beacon.verify', {}, { signal, timeoutMs: longWorkMs });
    yield { result };
  }

  /** Every door, this one too, folds the new log once it follows that (door-view.ts). */
  rebuild(without: readonly string[], signal: AbortSignal): AsyncIterable<unknown> {
    return this.#told('beacon.rebuild', { without }, signal);
  }

  reseed(signal: AbortSignal): AsyncIterable<unknown> {
    return this.#told('beacon.reseed', {}, signal);
  }

  refused(): string | undefined {
    return this.#ports.successors.refused;
  }

  accept(id: string): Promise<void> {
    return this.#ports.successors.accept(id);
  }

  migrate(to: unknown, signal: AbortSignal): AsyncIterable<unknown> {
    return this.#told('beacon.migrate', { to }, signal);
  }

  /** The view's own copy of the log: it is there when the log itself is damaged. */
  async *export(signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { view } = this.#ports;
    const path = await this.#scratchPath('export');
    try {
      await exportLog((from) => view.entriesSince(from, { signal }), path, { signal });
      yield* fileBytes(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  /** Into the log in force, or, where that is damaged, into one that takes its place. Throws VERSION_CONFLICT. */
  async import(body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<unknown> {
    const { steward } = this.#ports;
    const path = await this.#scratchPath('import');
    try {
      await pipeline(Readable.from(body, { objectMode: false }), createWriteStream(path));
      const begun = await steward.call('beacon.importBegin', {}, { signal });
      const restored = fieldOf(begun, 'restoring') === true;
      if (restored) await this.#checkRestores(path, signal);
      const target = this.#importTarget(parsePosition(begun));
      const { entries, position } = await importLog(path, target, { signal });
      await steward.call('beacon.importEnd', {}, { signal });
      if (!restored) await this.#ports.visible(position.revision);
      return { entries, revision: position.revision, restored };
    } finally {
      await rm(path, { force: true });
    }
  }

  /** A log in place of a damaged one must hold all that this view has seen acknowledged. Throws VERSION_CONFLICT. */
  async #checkRestores(path: string, signal: AbortSignal): Promise<void> {
    const seen = this.#ports.view.position();
    let holds = seen.revision === 0;
    for await (const { revision, chain } of readLogFile(path, signal))
      if (revision === seen.revision) holds = sameBytes(chain, seen.chain);
    if (holds) return;
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `the file does not hold the history that this door has seen up to revision ${seen.revision}; ` +
        '`holdfast beacon export` writes a file that does',
      { details: { current: seen.revision } },
    );
  }

  /** The log without the check against the current view: an import brings its own history, which the fold judges. */
  #importTarget(head: LogPosition): BeaconLog {
    const { log, rpc, steward } = this.#ports;
    return {
      head: async () => head,
      read: (from: number) => log.read(from),
      watch: (from: number, options: { readonly signal: AbortSignal }) => log.watch(from, options),
      append: async (append: Append): Promise<LogEntry> => {
        const payload = encodeAppend(append);
        const answer = await rpc.call(steward.peer(), 'beacon.import', { head: {}, body: payload });
        return { ...append, ...parsePosition(answer.head), payload };
      },
      [Symbol.asyncDispose]: async () => undefined,
    };
  }

  /** What the steward tells about long work. */
  async *#told(method: string, head: unknown, signal: AbortSignal): AsyncGenerator {
    const { rpc, steward } = this.#ports;
    const options = { signal, timeoutMs: longWorkMs };
    for await (const told of rpc.stream(steward.peer(), method, { head }, options)) yield told.head;
  }

  async #scratchPath(name: string): Promise<string> {
    await mkdir(this.#ports.scratch, { recursive: true });
    return join(this.#ports.scratch, `${name}-${process.pid}-${Date.now()}`);
  }
}

async function* fileBytes(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  const chunks: AsyncIterable<Uint8Array> = createReadStream(path, { highWaterMark: 1024 * 1024 });
  yield* chunks;
}
