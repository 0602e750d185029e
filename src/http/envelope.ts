// The two JSON envelopes of UCXI (docs/formats.md, HTTP), and nothing else.

import type { ToldError } from '../api/types.ts';
import { type ErrorDetails, errorCatalogue, HoldfastError } from '../core/errors.ts';

export interface ResponseEnvelope {
  readonly response: {
    readonly code: string;
    readonly message: string;
    readonly data?: unknown;
    readonly details?: ErrorDetails;
    readonly request_id: string;
    readonly timestamp: string;
  };
}

export interface ErrorEnvelope {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly details: ErrorDetails & { readonly reason: string };
    readonly source: string;
    readonly path: string;
    readonly request_id: string;
    readonly timestamp: string;
    readonly cause?: string;
  };
}

const okCodes: Readonly<Record<number, string>> = {
  200: 'UCXL-200-OK',
  201: 'UCXL-201-CREATED',
  202: 'UCXL-202-ACCEPTED',
  204: 'UCXL-204-NO_CONTENT',
};

export interface RequestFacts {
  readonly requestId: string;
  readonly path: string;
  readonly nowMs: number;
}

export function responseEnvelope(
  status: number,
  message: string,
  data: unknown,
  facts: RequestFacts,
): ResponseEnvelope {
  return {
    response: {
      code: okCodes[status] ?? 'UCXL-200-OK',
      message,
      ...(data === undefined ? {} : { data }),
      request_id: facts.requestId,
      timestamp: new Date(facts.nowMs).toISOString(),
    },
  };
}

/** The error envelope of anything thrown. What is not ours is INTERNAL and its text stays inside. */
export function errorEnvelope(error: unknown, facts: RequestFacts): { status: number; body: ErrorEnvelope } {
  const known =
    error instanceof HoldfastError
      ? error
      : new HoldfastError('INTERNAL', 'a fault in this program', { cause: error });
  const row = errorCatalogue[known.code];
  const details = namesOurOwn(known) ? tellableDetails(known.details) : known.details;
  return {
    status: row.status,
    body: {
      error: {
        code: row.ucxl,
        message: tellable(known),
        details: { ...details, reason: known.code },
        source: 'holdfast/door',
        path: facts.path,
        request_id: facts.requestId,
        timestamp: new Date(facts.nowMs).toISOString(),
        ...(known.cause instanceof HoldfastError ? { cause: withoutPaths(known.cause.message) } : {}),
      },
    },
  };
}

/**
 * What a caller is told of an error: what we say of it ourselves, without what caused it and without the names of this
 * machine's files. The log has all of it, under the same request id.
 */
export function tellable(error: unknown): string {
  if (!(error instanceof HoldfastError)) return errorCatalogue.INTERNAL.text;
  return namesOurOwn(error) ? withoutPaths(error.message) : error.message;
}

/** True for what the log should have: a caller who is told of it cannot mend it. */
export function isFault(error: unknown): boolean {
  return !(error instanceof HoldfastError) || errorCatalogue[error.code].status >= 500;
}

/** An error within an answer that has begun. */
export function toldError(error: unknown): ToldError {
  return { reason: error instanceof HoldfastError ? error.code : 'INTERNAL', message: tellable(error) };
}

/** True when a path in its text may be one of ours. Of the others it is the one that the caller asked for. */
function namesOurOwn({ code }: HoldfastError): boolean {
  return code !== 'NOT_FOUND' && code !== 'METHOD_NOT_ALLOWED';
}

/** `text` without absolute paths of files. Addresses (`ucxl://…`) and URLs stay. */
export function withoutPaths(text: string): string {
  return text.replace(absolutePath, '(a file of the server)');
}

/** Two names or more behind a slash that belongs to no word, URL or other path. */
const absolutePath = /(?<![\w:/.>*^-])\/(?:[^\s/'":,;()]+\/)+[^\s/'":,;()]*/g;

function tellableDetails(details: ErrorDetails): ErrorDetails {
  const entries = Object.entries(details);
  return Object.fromEntries(
    entries.map(([name, value]) => [name, typeof value === 'string' ? withoutPaths(value) : value]),
  );
}
