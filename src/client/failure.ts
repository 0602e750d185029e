// What a failed call means: which error of the catalogue it is, and whether it may be tried again.

import { type ErrorCode, type ErrorDetails, errorCatalogue, HoldfastError } from '../core/errors.ts';

/** What happened to one attempt of a call. */
export interface Failure {
  readonly error: unknown;
  /**
   * `refused`: nobody listens, so nothing was done. `answered`: the door said no. `lost`: the connection
   * broke or fell silent, and whether the door did it is not known.
   */
  readonly kind: 'refused' | 'answered' | 'lost';
}

/** Codes of answers that another try a moment later may turn into a good one. */
const passing: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BEACON_UNAVAILABLE',
  'BLOCK_UNAVAILABLE',
  'PEER_UNREACHABLE',
  'QUORUM_UNAVAILABLE',
  'TIMEOUT',
]);

/**
 * True when the call may be sent again.
 *
 * @param idempotent doing it twice is the same as doing it once
 * @param reachedBefore this door has answered before: a refusal is then a door that restarts, else an absent one
 */
export function mayRetry(failure: Failure, idempotent: boolean, reachedBefore: boolean): boolean {
  const { error, kind } = failure;
  if (kind === 'refused') return reachedBefore;
  if (!(error instanceof HoldfastError)) return false;
  if (kind === 'answered' && error.code === 'RATE_LIMITED') return true; // turned away before anything was done
  return idempotent && passing.has(error.code);
}

/** Pause before attempt `next` (2, 3, …), milliseconds: doubles, at most 2 s. */
export function backoffMs(next: number): number {
  return Math.min(100 * 2 ** (next - 2), 2000);
}

/** The error inside an error envelope; what is no envelope becomes the error that its status stands for. */
export function errorOfEnvelope(status: number, body: unknown, url: string): HoldfastError {
  const envelope = fieldsOf(fieldsOf(body)['error']);
  const { reason, ...details } = fieldsOf(envelope['details']);
  const message = typeof envelope['message'] === 'string' ? envelope['message'] : `${url}: status ${status}`;
  return new HoldfastError(isErrorCode(reason) ? reason : codeOfStatus(status), message, {
    details: flatDetails(details),
    ...(typeof envelope['cause'] === 'string' ? { cause: new Error(envelope['cause']) } : {}),
  });
}

/** The failure behind a network error. `host` decides what a refusal means: on this machine, no cluster runs. */
export function failureOfNetwork(cause: unknown, url: URL): Failure {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const where = url.origin;
  if (code === 'ECONNREFUSED')
    return {
      kind: 'refused',
      error: isLoopback(url.hostname)
        ? new HoldfastError(
            'CLUSTER_NOT_RUNNING',
            `no door answers at ${where}; start the cluster with \`holdfast up\``,
            { details: { url: where }, cause },
          )
        : new HoldfastError('PEER_UNREACHABLE', `no door answers at ${where}`, {
            details: { url: where },
            cause,
          }),
    };
  return {
    kind: 'lost',
    error: new HoldfastError('PEER_UNREACHABLE', `the connection to the door at ${where} failed`, {
      details: { url: where },
      cause,
    }),
  };
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(errorCatalogue, value);
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || host.startsWith('127.');
}

/** For doors and proxies that say no more than a status. */
function codeOfStatus(status: number): ErrorCode {
  const known: Readonly<Record<number, ErrorCode>> = {
    400: 'ARGUMENT_INVALID',
    401: 'UNAUTHORIZED',
    403: 'FORBIDDEN',
    404: 'NOT_FOUND',
    413: 'TOO_LARGE',
    429: 'RATE_LIMITED',
    502: 'PEER_UNREACHABLE',
    503: 'PEER_UNREACHABLE',
    504: 'TIMEOUT',
  };
  return known[status] ?? 'PEER_REFUSED';
}

function flatDetails(fields: Readonly<Record<string, unknown>>): ErrorDetails {
  const flat: Record<string, string | number | boolean | null | readonly string[]> = {};
  for (const [name, value] of Object.entries(fields)) {
    if (
      typeof value === 'string' ||
      typeof value === 'number' ||
      typeof value === 'boolean' ||
      value === null
    )
      flat[name] = value;
    else if (Array.isArray(value)) flat[name] = value.map(String);
  }
  return flat;
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? Object.fromEntries(Object.entries(value)) : {};
}
