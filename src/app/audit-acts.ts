// What a stranded audit may do, and what it did: written down before and after each act.
//
//   audit-acts.jsonl    one JSON object a line: at, act, cid, chain and version of a record, and `outcome` once done
//
// A plan is named by a hash over its acts in order: whoever orders it has seen this one.

import { createHash } from 'node:crypto';
import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import type { StrandedAct, StrandedOrder } from '../api/types.ts';
import type { StrandedRows } from '../beacon/stranded-rows.ts';
import { partNumber } from '../beacon/rows.ts';
import { CID } from '../core/block.ts';
import { errnoOf } from '../files/whole.ts';

/** As the door tells it, but not done yet; `chain` and `version` of a record. */
export type AuditAct = Omit<StrandedAct, 'cid' | 'outcome'> & { readonly cid: CID };

/** Adopting gives a lease to what cannot be adopted. */
const actsOf = { adopt: ['adopt', 'lease'], collect: ['collect'] } as const;

/** The acts of an order, in the order in which they are done. */
export async function* plannedActs(rows: StrandedRows, order: StrandedOrder): AsyncGenerator<AuditAct> {
  for (const act of actsOf[order]) {
    for await (const { parts } of rows.all('a', act)) {
      const cid = CID.parse(parts.at(-1) ?? '');
      if (act !== 'adopt') yield { act, cid };
      else yield { act, cid, chain: parts[2] ?? '', version: partNumber(parts[3]) };
    }
  }
}

/** How many acts a plan has, and 16 hex digits that name it. */
export async function planOf(
  rows: StrandedRows,
  order: StrandedOrder,
): Promise<{ readonly acts: number; readonly hash: string }> {
  const hash = createHash('sha256');
  let acts = 0;
  for await (const { act, cid, chain = '', version = 0 } of plannedActs(rows, order)) {
    hash.update(`${act}\0${cid.toString()}\0${chain}\0${version}\n`);
    acts++;
  }
  return { acts, hash: hash.digest('hex').slice(0, 16) };
}

/** Then the file becomes `audit-acts.jsonl.1`. */
const journalBytesMax = 64 * 1024 * 1024;

export class ActJournal {
  readonly #path: string;

  constructor(dataDir: string) {
    this.#path = join(dataDir, 'audit-acts.jsonl');
  }

  /** On disk when it resolves. `outcome` absent: it is about to be done. */
  async write(acts: readonly AuditAct[], outcome?: (index: number) => string): Promise<void> {
    const at = new Date().toISOString();
    const lines = acts.map(({ cid, ...act }, index) =>
      JSON.stringify({
        at,
        ...act,
        cid: cid.toString(),
        ...(outcome === undefined ? {} : { outcome: outcome(index) }),
      }),
    );
    await this.#makeRoom();
    await using file = await open(this.#path, 'a', 0o600);
    await file.appendFile(`${lines.join('\n')}\n`);
    await file.sync();
  }

  async #makeRoom(): Promise<void> {
    try {
      await using file = await open(this.#path, 'r');
      if ((await file.stat()).size < journalBytesMax) return;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return;
      throw error;
    }
    await rename(this.#path, `${this.#path}.1`);
  }
}
