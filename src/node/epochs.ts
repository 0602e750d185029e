// What a storage node knows of the stewards' division of work: the highest epoch it was ever given, and when each
// steward called last. It obeys no order under an earlier epoch, and none about a slice that is another steward's.
//
//   steward-epoch.json    the epoch held: {"n", "by", "members"}; on disk before it is answered

import { join } from 'node:path';
import type { Clock } from '../core/clock.ts';
import { compareEpochs, type Epoch, epochText, ownerOf, readEpoch, slicesCount } from '../core/epoch.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { readIfThere, writeWhole } from '../files/whole.ts';

/** Stewards remembered. */
const heardMax = 256;

export class StewardEpochs {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #heardAt = new Map<PeerName, number>();
  #held: Epoch | undefined;
  #writing: Promise<void> = Promise.resolve();
  #owners: { readonly of: string; readonly table: readonly (PeerName | undefined)[] } = { of: '', table: [] };

  private constructor(path: string, clock: Clock, held: Epoch | undefined) {
    this.#path = path;
    this.#clock = clock;
    this.#held = held;
  }

  /** Throws DATA_DIR_DAMAGED: a node that forgot its epoch might obey a steward that was replaced. */
  static async open(dataDir: string, clock: Clock): Promise<StewardEpochs> {
    const path = join(dataDir, 'steward-epoch.json');
    const text = await readIfThere(path);
    return new StewardEpochs(path, clock, text === undefined ? undefined : parsed(text, path));
  }

  get held(): Epoch | undefined {
    return this.#held;
  }

  /** Stewards that have called since this start, and how long ago, ms. */
  heard(): { readonly peer: PeerName; readonly agoMs: number }[] {
    const now = this.#clock.monotonic();
    return [...this.#heardAt].map(([peer, at]) => ({ peer, agoMs: Math.round(now - at) }));
  }

  /** A steward calls, perhaps with a proposal. What is held afterwards is on disk. */
  async call(steward: PeerName, proposed: Epoch | undefined): Promise<Epoch | undefined> {
    this.#heardAt.set(steward, this.#clock.monotonic());
    const [oldest] = this.#heardAt.keys();
    if (this.#heardAt.size > heardMax && oldest !== undefined) this.#heardAt.delete(oldest);
    if (proposed !== undefined) await this.#raise(proposed);
    return this.#held;
  }

  /** Throws FORBIDDEN for an order that this node must not carry out. `digests`: of the blocks it is about. */
  async obey(steward: PeerName, epoch: Epoch | undefined, digests: readonly Uint8Array[]): Promise<void> {
    if (epoch !== undefined) await this.#raise(epoch);
    await this.#writing;
    if (this.#held === undefined) return; // one steward, and there was never another
    if (epoch === undefined || compareEpochs(epoch, this.#held) !== 0)
      throw refused(steward, `its epoch ${epoch?.n ?? 0} is not the newest, ${this.#held.n}`);
    const table = this.#tableOf(epoch);
    if (digests.some((digest) => table[digest[0] ?? 0] !== steward))
      throw refused(steward, `another steward looks after a block of it in epoch ${epoch.n}`);
  }

  /** One after the other: an answer says what is on disk. */
  async #raise(epoch: Epoch): Promise<void> {
    const run = this.#writing.then(async () => {
      if (compareEpochs(this.#held, epoch) >= 0) return;
      await writeWhole(this.#path, JSON.stringify(epoch), 0o600);
      this.#held = epoch;
    });
    this.#writing = run.catch(() => undefined); // the failure is the caller's
    await run;
  }

  #tableOf(epoch: Epoch): readonly (PeerName | undefined)[] {
    const of = epochText(epoch);
    if (this.#owners.of !== of) {
      const table = Array.from({ length: slicesCount }, (_, slice) => ownerOf(slice, epoch.members));
      this.#owners = { of, table };
    }
    return this.#owners.table;
  }
}

function parsed(text: string, path: string): Epoch {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const epoch = readEpoch(value);
  if (epoch !== undefined) return epoch;
  throw new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${path} holds no epoch; remove it when no steward is cut off from the others`,
    { details: { path } },
  );
}

function refused(steward: PeerName, why: string): HoldfastError {
  return new HoldfastError('FORBIDDEN', `an order of ${steward} is not carried out: ${why}`, {
    details: { peer: steward },
  });
}
