// One custodian vouching for the log of another: it cosigns a checkpoint only after it has seen a proof that the log
// of the last checkpoint it cosigned begins this one. So a log that shows two histories needs its witnesses to lie
// too. A fork that is met is kept as evidence, both notes of it, and that log is cosigned no more.

import { decodeCbor, encodeCbor } from '../core/block.ts';
import { sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256, type Signer } from '../core/hash.ts';
import { isMap } from '../core/shape.ts';
import { verifyConsistency } from '../threshold/merkle.ts';
import { type Checkpoint, cosign, type NoteKey, openCheckpoint } from './checkpoint.ts';
import { type Disk, replaceFile } from './disk.ts';

export interface WitnessOptions {
  /** What was cosigned, a file per log. */
  readonly disk: Disk;
  /** Name in the signature line. */
  readonly name: string;
  readonly signer: Signer;
  /** Wall clock, milliseconds since 1970. */
  readonly now: () => number;
}

/** Two checkpoints of one log that cannot both be true, each signed by it. */
export interface ForkEvidence {
  readonly origin: string;
  readonly notes: readonly [string, string];
}

interface Seen {
  readonly note: string;
  /** A note that contradicts it. */
  readonly fork: string | null;
}

export class Witness {
  readonly #options: WitnessOptions;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: WitnessOptions) {
    this.#options = options;
  }

  /**
   * The signature line for `note`, a checkpoint of `log`. `older` and `proof`: the size that the consistency proof
   * starts from, which must be the last size cosigned here (0 and none at first). What is cosigned is on the disk
   * before it is given out.
   *
   * @throws RECORD_INVALID (malformed, not signed by the log, a wrong proof), VERSION_CONFLICT (older is not the last
   * size cosigned: details.current says which), FORBIDDEN (the log is forked: details.fork)
   */
  cosign(log: NoteKey, note: string, older: number, proof: readonly Uint8Array[]): Promise<string> {
    const done = this.#turn.then(() => this.#cosign(log, note, older, proof));
    this.#turn = done.catch(() => undefined); // its caller has the error
    return done;
  }

  /** Size that was cosigned last; 0 when none was. */
  async cosigned(log: NoteKey): Promise<number> {
    const seen = await this.#seen(log);
    return seen === undefined ? 0 : openCheckpoint(seen.note, log).size;
  }

  /** What was found out about a log. Undefined when it is not forked. */
  async fork(log: NoteKey): Promise<ForkEvidence | undefined> {
    const seen = await this.#seen(log);
    return seen?.fork == null ? undefined : { origin: log.name, notes: [seen.note, seen.fork] };
  }

  async #cosign(log: NoteKey, note: string, older: number, proof: readonly Uint8Array[]): Promise<string> {
    const next = openCheckpoint(note, log);
    const seen = await this.#seen(log);
    if (seen?.fork != null) throw forked(log);
    if (seen !== undefined)
      await this.#follow(log, { ...seen, ...openCheckpoint(seen.note, log) }, next, note, older, proof);
    else if (older !== 0) throw stale(log, 0);
    const { name, signer, now } = this.#options;
    const line = cosign(next.text, name, Math.floor(now() / 1000), signer);
    await this.#write(log, { note, fork: null });
    return line;
  }

  async #follow(
    log: NoteKey,
    last: Checkpoint & Seen,
    next: Checkpoint,
    note: string,
    older: number,
    proof: readonly Uint8Array[],
  ): Promise<void> {
    if (next.size === last.size && !sameBytes(next.root, last.root)) {
      await this.#write(log, { note: last.note, fork: note });
      throw forked(log);
    }
    if (next.size < last.size || older !== last.size) throw stale(log, last.size);
    if (verifyConsistency(last.size, last.root, next.size, next.root, proof)) return;
    // Either the proof is wrong or the log is forked; nobody can show which, so it is not kept against the log.
    throw new HoldfastError(
      'RECORD_INVALID',
      `${log.name}: no proof that its ${last.size} entries begin its ${next.size}`,
      { details: { origin: log.name, current: last.size } },
    );
  }

  async #seen(log: NoteKey): Promise<Seen | undefined> {
    const bytes = await this.#options.disk.read(fileOf(log));
    if (bytes === undefined) return undefined;
    const value = decodeCbor(bytes, 'witnessed checkpoint');
    const { note, fork, digest } = isMap(value) ? value : {};
    if (
      typeof note !== 'string' ||
      (fork !== null && typeof fork !== 'string') ||
      !(digest instanceof Uint8Array) ||
      !sameBytes(digest, digestOf({ note, fork }))
    ) {
      throw new HoldfastError(
        'DATA_DIR_DAMAGED',
        `${this.#options.disk.path}: what was cosigned of ${log.name} does not read; restore it from a backup`,
      );
    }
    return { note, fork };
  }

  async #write(log: NoteKey, seen: Seen): Promise<void> {
    await replaceFile(this.#options.disk, fileOf(log), encodeCbor({ ...seen, digest: digestOf(seen) }));
  }
}

function digestOf(seen: Seen): Uint8Array {
  return sha256(encodeCbor(seen)).subarray(0, 16);
}

/** By name and key: a custodian that comes back with another key begins another log. */
function fileOf({ name, publicKey }: NoteKey): string {
  return `witnessed-${toHex(sha256(utf8(`${name}\n${toHex(publicKey)}`))).slice(0, 32)}`;
}

function stale(log: NoteKey, current: number): HoldfastError {
  return new HoldfastError('VERSION_CONFLICT', `${log.name} was cosigned here at ${current} entries`, {
    details: { current, origin: log.name },
  });
}

function forked(log: NoteKey): HoldfastError {
  return new HoldfastError(
    'FORBIDDEN',
    `${log.name} is forked: it signed two different histories, both of which are kept here`,
    { details: { origin: log.name, fork: true } },
  );
}
