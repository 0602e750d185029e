// Writers that append with compare-and-set without a pause, and the judgement of what became of it.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { type Append, appendIdText, type BeaconLog, type LogEntry } from '../../src/beacon/log.ts';
import { toHex } from '../../src/core/bytes.ts';
import { isHoldfastError } from '../../src/core/errors.ts';
import { entriesOf, someAppend } from '../suites/beacon-log.suite.ts';

/** What a writer was told. */
export interface Acknowledged {
  readonly id: string;
  readonly revision: number;
  readonly chain: string;
}

export class CasWriters {
  readonly acknowledged: Acknowledged[] = [];
  readonly #stop = new AbortController();
  readonly #running: Promise<void>[] = [];
  #unanswered = 0;

  /** `count` writers, divided over the logs; each two share a subject, so that they get in each other's way. */
  constructor(logs: readonly BeaconLog[], count: number) {
    for (let index = 0; index < count; index++) {
      const log = logs[index % logs.length];
      if (log !== undefined) this.#running.push(this.#write(log, `addr/${Math.floor(index / 2)}`));
    }
  }

  /** Appends that were not answered and sent again. */
  get unanswered(): number {
    return this.#unanswered;
  }

  /** Resolves when `count` more were acknowledged than now. */
  async more(count: number): Promise<void> {
    const target = this.acknowledged.length + count;
    while (this.acknowledged.length < target) await delay(20);
  }

  /** Resolves when each has got its last answer. Throws what was neither a conflict nor silence. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#running);
  }

  async #write(log: BeaconLog, subject: string): Promise<void> {
    let expected = 0;
    while (!this.#stop.signal.aborted) {
      const append = someAppend(subject, { expected, id: randomBytes(16) });
      expected = await this.#untilAnswered(log, append);
    }
  }

  /** The revision of the subject, whoever made it. Sends again what was not answered, as RemoteLog does. */
  async #untilAnswered(log: BeaconLog, append: Append): Promise<number> {
    for (;;) {
      try {
        const { revision, chain, id } = await log.append(append);
        this.acknowledged.push({ id: appendIdText(id ?? new Uint8Array()), revision, chain: toHex(chain) });
        return revision;
      } catch (error) {
        if (!isHoldfastError(error) || error.details['diverged'] === true) throw error;
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
