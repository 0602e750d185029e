// Receipts of those who open branch keys, one line each, beside the logs of the custodians who helped: an auditor
// holds one against the other. Whoever opens without leaving a receipt is seen in the logs; a custodian who helps
// without writing it down is seen by the receipt.
//
// A receipt is for accounting and holds no secret. It is handed to the system before the key is used, so that a process
// that is killed leaves none out; it is not flushed: what a power cut takes shows up as an opening without a receipt,
// which a person then looks at. It is handed over on this thread: to have three calls of a few microseconds made by
// another one takes the processor several times as long.

import { appendFileSync, renameSync, statSync } from 'node:fs';
import { toHex } from '../core/bytes.ts';
import { describeError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { Receipt } from './audit-verify.ts';

/** A receipt and when it was written, milliseconds since 1970. */
export interface DatedReceipt extends Receipt {
  readonly at: number;
}

/** About 20,000 openings; two files of it are kept. */
const fileBytesMax = 8 * 1024 * 1024;

export class ReceiptFile {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /** Resolves when the line was handed to the system. Never rejects: a read that succeeded is not undone by its receipt. */
  async append(receipt: DatedReceipt): Promise<void> {
    const line = `${JSON.stringify({
      at: receipt.at,
      reqHash: toHex(receipt.reqHash),
      bkIds: receipt.bkIds.map(toHex),
      custodians: receipt.custodians,
      threshold: receipt.threshold,
    })}\n`;
    try {
      this.#makeRoom();
      appendFileSync(this.#path, line, { mode: 0o600 });
    } catch (error) {
      console.error(`a receipt could not be written: ${describeError(error)}`);
    }
  }

  #makeRoom(): void {
    const found = statSync(this.#path, { throwIfNoEntry: false });
    if ((found?.size ?? 0) >= fileBytesMax) renameSync(this.#path, `${this.#path}.old`);
  }
}

/** The receipts of a file's text. A line that cannot be read, such as one cut short, is left out. */
export function parseReceipts(text: string): DatedReceipt[] {
  return text.split('\n').flatMap((line) => {
    try {
      const value: unknown = JSON.parse(line);
      const [at, threshold, reqHash] = ['at', 'threshold', 'reqHash'].map((name) => fieldOf(value, name));
      const [bkIds, custodians] = [textsOf(fieldOf(value, 'bkIds')), textsOf(fieldOf(value, 'custodians'))];
      if (typeof at !== 'number' || typeof threshold !== 'number' || typeof reqHash !== 'string') return [];
      return [{ at, threshold, reqHash: fromHex(reqHash), bkIds: bkIds.map(fromHex), custodians }];
    } catch {
      return [];
    }
  });
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((each): each is string => typeof each === 'string') : [];
}

function fromHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}
