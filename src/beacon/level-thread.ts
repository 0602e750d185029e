// The thread in which tables are made of a snapshot's pages (level-pages.worker.ts), as the thread sees it that has them.

import { on } from 'node:events';
import { Worker } from 'node:worker_threads';
import { HoldfastError } from '../core/errors.ts';
import type { MadeTables, OwnRow, TableMaker } from './level-pages.ts';
import { corrupt } from './seal.ts';
import { pageSlabs } from './snapshot.ts';

export interface ThreadData {
  /** A directory. */
  readonly path: string;
  readonly sync: boolean;
}

export type Question =
  | { readonly page: Uint8Array }
  | { readonly pages: 'end' }
  | { readonly own: readonly OwnRow[] };

/** Each question has one, in their order. */
export interface Answer {
  readonly made?: MadeTables;
  /** What is wrong with the pages. */
  readonly refused?: string;
  /** What else went wrong. */
  readonly failed?: string;
}

/** Pages on their way to the thread: one is walked, and another one is there when it is done. */
const underWayMax = 4;

export class PagesThread implements TableMaker {
  readonly #worker: Worker;
  readonly #answers: AsyncIterator<readonly Answer[]>;
  /** On their way, the oldest first; undefined for another question. */
  readonly #underWay: (Uint8Array | undefined)[] = [];

  constructor(workerData: ThreadData) {
    this.#worker = new Worker(new URL('./level-pages.worker.ts', import.meta.url), { workerData });
    this.#answers = on(this.#worker, 'message', { close: ['exit'] });
  }

  async add(page: Uint8Array): Promise<void> {
    // It looks into shared memory, and gets a copy of other memory: all of what lies below an array, so no part of any.
    const isWhole = page.buffer instanceof SharedArrayBuffer || page.length === page.buffer.byteLength;
    this.#worker.postMessage({ page: isWhole ? page : new Uint8Array(page) }, []);
    this.#underWay.push(page);
    while (this.#underWay.length >= underWayMax) await this.#answer();
  }

  async endPages(): Promise<void> {
    await this.#ask({ pages: 'end' });
  }

  async finish(own: readonly OwnRow[]): Promise<MadeTables> {
    const { made } = await this.#ask({ own });
    if (made === undefined) throw new HoldfastError('INTERNAL', 'tables were not made');
    return made;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }

  /** The last answer. */
  async #ask(question: Question): Promise<Answer> {
    this.#worker.postMessage(question, []);
    this.#underWay.push(undefined);
    while (this.#underWay.length > 1) await this.#answer();
    return this.#answer();
  }

  async #answer(): Promise<Answer> {
    const next = await this.#answers.next();
    if (next.done === true) throw new HoldfastError('INTERNAL', 'the thread that makes tables ended');
    const page = this.#underWay.shift();
    if (page !== undefined) pageSlabs.give(page);
    const [answer = {}] = next.value;
    const { refused, failed } = answer;
    if (refused !== undefined) throw corrupt('a copy of rows', refused);
    if (failed !== undefined) throw new Error(failed);
    return answer;
  }
}
