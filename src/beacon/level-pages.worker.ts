// The thread that makes tables of a snapshot's pages, so that it is walked while more of it comes, and whoever answers
// requests goes on answering. level-thread.ts is the other end.
// What it has open when it is ended, Node closes.

import { parentPort, workerData } from 'node:worker_threads';
import { describeError, HoldfastError } from '../core/errors.ts';
import { PageTables } from './level-pages.ts';
import type { Answer, Question, ThreadData } from './level-thread.ts';

const { path, sync }: ThreadData = workerData;
const tables = new PageTables(path, sync);
let turn: Promise<void> = Promise.resolve();

parentPort?.on('message', (question: Question) => {
  turn = turn.then(async () => parentPort?.postMessage(await answer(question), []));
});

async function answer(question: Question): Promise<Answer> {
  try {
    if ('page' in question) await tables.add(question.page);
    else if ('own' in question) return { made: await tables.finish(question.own) };
    else await tables.endPages();
    return {};
  } catch (error) {
    return failure(error);
  }
}

/** Of an error of the system only the text is needed (errno.ts). */
function failure(error: unknown): Answer {
  if (error instanceof HoldfastError) return { refused: String(error.details['problem']) };
  return { failed: describeError(error) };
}
