// The two JSON envelopes of UCXI (docs/formats.md, HTTP), and nothing else.

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
  return {
    status: row.status,
    body: {
      error: {
        code: row.ucxl,
        message: known.message,
        details: { ...known.details, reason: known.code },
        source: 'holdfast/door',
        path: facts.path,
        request_id: facts.requestId,
        timestamp: new Date(facts.nowMs).toISOString(),
        ...(known.cause instanceof HoldfastError ? { cause: known.cause.message } : {}),
      },
    },
  };
}
