// Blocks that a person wants kept although nothing names them: what an audit found stranded and did not delete.
//
//   audit-pins.json   {"v": 1, "pins": [["CID", until in ms since 1970], …]}
//
// The door renews their leases like those of an upload, also after it was started again.

import { join } from 'node:path';
import { CID, parseCid } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { readIfThere, writeWhole } from '../files/whole.ts';

/** Each takes part in a call to the steward in every minute. */
const pinsMax = 65_536;

export class Pins {
  readonly #path: string;
  readonly #now: () => number;
  readonly #until: Map<string, number>;

  private constructor(path: string, now: () => number, until: Map<string, number>) {
    this.#path = path;
    this.#now = now;
    this.#until = until;
  }

  /** @param now wall clock, ms. Throws FILE_UNREADABLE, RECORD_CORRUPT */
  static async open(dataDir: string, now: () => number): Promise<Pins> {
    const path = join(dataDir, 'audit-pins.json');
    const text = await readIfThere(path);
    return new Pins(path, now, new Map(text === undefined ? [] : parsePins(text, path)));
  }

  /** What is pinned now. */
  pinned(): CID[] {
    const now = this.#now();
    return [...this.#until].filter(([, until]) => until > now).map(([cid]) => CID.parse(cid));
  }

  has(cid: CID): boolean {
    return (this.#until.get(cid.toString()) ?? 0) > this.#now();
  }

  /** Durable when it resolves. Throws TOO_LARGE when there are too many. */
  async add(cids: readonly CID[], until: number): Promise<void> {
    const now = this.#now();
    for (const [cid, end] of this.#until) if (end <= now) this.#until.delete(cid);
    if (this.#until.size + cids.length > pinsMax)
      throw new HoldfastError('TOO_LARGE', `more than ${pinsMax} blocks would be leased for a person`);
    for (const cid of cids) this.#until.set(cid.toString(), until);
    await writeWhole(this.#path, JSON.stringify({ v: 1, pins: [...this.#until] }), 0o600);
  }
}

function parsePins(text: string, path: string): [string, number][] {
  try {
    const pins = fieldOf(JSON.parse(text), 'pins');
    if (!Array.isArray(pins)) throw new TypeError('no list of pins');
    return pins.map((pin: unknown) => {
      const [cid, until]: unknown[] = Array.isArray(pin) ? pin : [];
      if (typeof cid !== 'string' || typeof until !== 'number') throw new TypeError('a pin has another form');
      return [parseCid(cid).toString(), until];
    });
  } catch (cause) {
    throw new HoldfastError(
      'RECORD_CORRUPT',
      `${path} is no list of leases; remove it, and run the audit again`,
      {
        cause,
      },
    );
  }
}
