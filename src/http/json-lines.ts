// Answers that take long: one JSON value a line, as it comes.

import { utf8 } from '../core/bytes.ts';
import type { Reply } from './answer.ts';
import { toldError } from './envelope.ts';
import { plainJson } from './facts.ts';
import type { Request } from './server.ts';

export function linesReply(items: AsyncIterable<unknown>, request: Request): Reply {
  return {
    status: 200,
    headers: { 'content-type': 'application/jsonl' },
    bytes: jsonLines(items, request),
  };
}

/**
 * One JSON value a line. What goes wrong before the first one is thrown, and answered like any error. After it the last
 * line says what went wrong, as far as a caller is told of it (envelope.ts).
 */
export async function* jsonLines(
  items: AsyncIterable<unknown>,
  request: Pick<Request, 'requestId' | 'onFault'>,
): AsyncGenerator<Uint8Array, void, undefined> {
  let hasBegun = false;
  try {
    for await (const item of items) {
      hasBegun = true;
      yield utf8(`${JSON.stringify(plainJson(item))}\n`);
    }
  } catch (error) {
    if (!hasBegun) throw error;
    request.onFault(error);
    const told = { ...toldError(error), request_id: request.requestId };
    yield utf8(`${JSON.stringify({ error: told })}\n`);
  }
}
