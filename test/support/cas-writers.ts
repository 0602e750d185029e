// Writers that append with compare-and-set without a pause, and the judgement of what became of it.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type Append, appendIdText, type BeaconLog, type LogEntry } from '../../src/beacon/log.ts';
import { toHex } from '../../src/core/bytes.ts';
import { minute } from '../../src/core/clock.ts';
import { isHoldfastError } from '../../src/core/errors.ts';
import { entriesOf, someAppend } from '../suites/beacon-log.suite.ts';

/** What a writer was told. */
export interface Acknowledged {
  readonly id: string;
  readonly subject: string;
  readonly revision: number;
  readonly chain: string;
}

/** Makes the append of a writer who knows `expected` as the last revision of the subject that he shares with another. */
export type MakeAppend = (writer: number, expected: number) => Promise<Append>;

export interface CasWritersOptions {
  /** Default: one small record under `addr/<pair>`. */
  readonly make?: MakeAppend;
  /** Everything that was acknowledged before to others over the same history: `acknowledged` goes on from there. */
  readonly before?: readonly Acknowledged[];
}

/** Longer than servers need for an election, and than a lost one is waited for. */
const idleMsMax = 3 * minute;

export class CasWriters {
  readonly acknowledged: Acknowledged[];
  readonly #stop = new AbortController();
  readonly #halt = new AbortController();
  readonly #running: Promise<void>[] = [];
  readonly #make: MakeAppend;
  #unanswered = 0;
  #failure: unknown;

  /** `count` writers, divided over the logs; each two share a subject, so that they get in each other's way. */
  constructor(logs: readonly BeaconLog[], count: number, options: CasWritersOptions = {}) {
    this.#make =
      options.make ??
      (async (writer, expected) => someAppend(`addr/${Math.floor(writer / 2)}`, { expected }));
    this.acknowledged = [...(options.before ?? [])];
    for (let index = 0; index < count; index++) {
      const log = logs[index % logs.length];
      if (log === undefined) continue;
      const running = this.#write(log, index).catch((error: unknown) => {
        if (!this.#halt.signal.aborted) this.#failure ??= error;
      });
      this.#running.push(running);
    }
  }

  /** Appends that were not answered and sent again. */
  get unanswered(): number {
    return this.#unanswered;
  }

  /** Resolves when `count` more were acknowledged than now. Throws when a writer failed, or none got on for minutes. */
  async more(count: number): Promise<void> {
    const target = this.acknowledged.length + count;
    let [seen, at] = [0, performance.now()];
    while (this.acknowledged.length < target) {
      this.#check();
      if (this.acknowledged.length > seen) [seen, at] = [this.acknowledged.length, performance.now()];
      assert(performance.now() - at < idleMsMax, `nothing was acknowledged for ${idleMsMax} ms`);
      await delay(20);
    }
  }

  /** Resolves when each has got its last answer. Throws what was neither a conflict nor silence. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
    this.#check();
  }

  /** Ends them with what they have been told by now: nobody is going to answer the rest. */
  async halt(): Promise<void> {
    this.#halt.abort();
    this.#stop.abort();
    await Promise.all(this.#running);
  }

  #check(): void {
    assert.ifError(this.#failure);
  }

  async #write(log: BeaconLog, writer: number): Promise<void> {
    let expected = 0;
    while (!this.#stop.signal.aborted) {
      const append = { ...(await this.#make(writer, expected)), id: randomBytes(16) };
      expected = await this.#untilAnswered(log, append);
    }
  }

  /** The revision of the subject, whoever made it. Sends again what was not answered, as RemoteLog does. */
  async #untilAnswered(log: BeaconLog, append: Append): Promise<number> {
    for (;;) {
      try {
        const { revision, chain, id, subject } = await log.append(append);
        this.acknowledged.push({
          id: appendIdText(id ?? new Uint8Array()),
          subject,
          revision,
          chain: toHex(chain),
        });
        return revision;
      } catch (error) {
        if (this.#halt.signal.aborted || !isHoldfastError(error) || error.details['diverged'] === true)
          throw error;
        if (error.code === 'VERSION_CONFLICT') return Number(error.details['current']);
        if (error.code !== 'BEACON_UNAVAILABLE') throw error;
        this.#unanswered++;
        await delay(50);
      }
    }
  }
}

/** Asserts that `log` holds all that was acknowledged, as it was, nothing twice, and no append on an old picture. */
export async function assertKept(log: BeaconLog, acknowledged: readonly Acknowledged[]): Promise<LogEntry[]> {
  const entries = await entriesOf(log);
  const found = new Map<string, LogEntry>();
  const current = new Map<string, number>();
  for (const entry of entries) {
    const id = appendIdText(entry.id ?? new Uint8Array());
    assert(!found.has(id), `append ${id} was accepted twice`);
    assert.equal(
      entry.expected,
      current.get(entry.subject) ?? 0,
      `revision ${entry.revision} overwrote another`,
    );
    found.set(id, entry);
    current.set(entry.subject, entry.revision);
  }
  for (const { id, revision, chain } of acknowledged) {
    const entry = found.get(id);
    assert.equal(entry?.revision, revision, `append ${id} was acknowledged and lost`);
    assert.equal(toHex(entry?.chain ?? new Uint8Array()), chain);
  }
  return entries;
}
