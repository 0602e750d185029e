// One catalogue of everything that may go wrong in the world outside our own code.
//
// A mistake of ours is an `assert`; an expected absence is `undefined` or a union; the rest is a
// HoldfastError: a stable code, the fields that say what and where, and the cause. The HTTP status and
// the UCXL code stand in the same row so that the door never has to guess.

import { inspect } from 'node:util';

interface CatalogueRow {
  /** HTTP status the door answers with. */
  readonly status: number;
  /** UCXL code of the error envelope. */
  readonly ucxl: string;
  /** Exit status of the command line: 1 failed, 2 bad usage, 3 not there, 4 conflict, 5 not reachable now, 6 damaged. */
  readonly exit: 1 | 2 | 3 | 4 | 5 | 6;
  /** What it means, for the reference page. */
  readonly text: string;
}

const invalid = { status: 400, ucxl: 'UCXL-400-INVALID_FORMAT', exit: 2 } as const;
const missing = { status: 404, ucxl: 'UCXL-404-NOT_FOUND', exit: 3 } as const;
const conflict = { status: 409, ucxl: 'UCXL-409-CONFLICT', exit: 4 } as const;
const unprocessable = { status: 422, ucxl: 'UCXL-422-UNPROCESSABLE_ENTITY', exit: 1 } as const;
const internal = { status: 500, ucxl: 'UCXL-500-INTERNAL_ERROR', exit: 1 } as const;
const damaged = { status: 500, ucxl: 'UCXL-500-INTERNAL_ERROR', exit: 6 } as const;
const unavailable = { status: 503, ucxl: 'UCXL-503-SERVICE_UNAVAILABLE', exit: 5 } as const;

export const errorCatalogue = {
  ADDRESS_INVALID: { ...invalid, ucxl: 'UCXL-400-INVALID_ADDRESS', text: 'the UCXL address does not parse' },
  ADDRESS_WILDCARD: {
    ...invalid,
    ucxl: 'UCXL-400-INVALID_ADDRESS',
    text: 'a wildcard address was given where one stored key is needed',
  },
  ARGUMENT_INVALID: { ...invalid, text: 'an argument, option or field has a value that cannot be used' },
  ARGUMENT_MISSING: {
    ...invalid,
    ucxl: 'UCXL-400-MISSING_FIELD',
    text: 'a required argument or field is absent',
  },
  UNAUTHORIZED: {
    status: 401,
    ucxl: 'UCXL-401-UNAUTHORIZED',
    exit: 1,
    text: 'the token is missing or wrong',
  },
  FORBIDDEN: { status: 403, ucxl: 'UCXL-403-FORBIDDEN', exit: 1, text: 'this caller may not do that' },
  NOT_FOUND: { ...missing, text: 'nothing is stored under that address, version or CID' },
  GONE: { ...missing, text: 'the newest version is a tombstone: the object was removed' },
  FILE_NOT_FOUND: { ...missing, text: 'a local file or directory does not exist' },
  FILE_UNREADABLE: { ...internal, exit: 1, text: 'a local file or directory cannot be read or written' },
  FILE_EXISTS: {
    ...conflict,
    text: 'a local file or directory is there already and is not replaced unless forced',
  },
  METHOD_NOT_ALLOWED: {
    status: 405,
    ucxl: 'UCXL-400-INVALID_FORMAT',
    exit: 2,
    text: 'this path takes another HTTP method',
  },
  VERSION_CONFLICT: {
    ...conflict,
    text: 'somebody wrote a newer version first; the current one is in the details',
  },
  IDEMPOTENCY_MISMATCH: { ...conflict, text: 'the same Idempotency-Key came with another request' },
  TOO_LARGE: {
    status: 413,
    ucxl: 'UCXL-422-UNPROCESSABLE_ENTITY',
    exit: 2,
    text: 'the body or message exceeds its limit',
  },
  RANGE_INVALID: {
    status: 416,
    ucxl: 'UCXL-400-INVALID_FORMAT',
    exit: 2,
    text: 'the range lies outside the object',
  },
  UPLOAD_TRUNCATED: {
    ...unprocessable,
    text: 'the upload ended before it was complete; nothing was registered',
  },
  BLOCKS_MISSING: { ...unprocessable, text: 'a manifest names blocks that are not stored on enough nodes' },
  RECORD_INVALID: { ...unprocessable, text: 'a signed record is malformed or its signature does not verify' },
  RATE_LIMITED: {
    status: 429,
    ucxl: 'UCXL-429-RATE_LIMIT',
    exit: 5,
    text: 'too many requests at once; retry later',
  },
  INTERNAL: { ...internal, text: 'a fault in this program' },
  BLOCK_CORRUPT: { ...damaged, text: 'bytes do not match their CID' },
  RECORD_CORRUPT: { ...damaged, text: 'a stored record does not match its checksum or chain' },
  DECRYPT_FAILED: { ...damaged, text: 'ciphertext, header or key do not belong together' },
  DATA_DIR_FOREIGN: { ...damaged, text: 'the data directory belongs to another node or cluster' },
  DATA_DIR_NEWER: {
    ...damaged,
    text: 'the data directory was written by a newer format than this program reads',
  },
  DATA_DIR_DAMAGED: {
    ...damaged,
    text: 'the data directory lost files it had; it is not replaced by an empty one',
  },
  DATA_DIR_LOCKED: { ...conflict, text: 'another process uses this data directory' },
  PORT_IN_USE: { ...conflict, text: 'another program listens on this port' },
  DISK_FULL: {
    status: 507,
    ucxl: 'UCXL-503-SERVICE_UNAVAILABLE',
    exit: 5,
    text: 'no space left: the node is read-only until space returns',
  },
  KEY_UNAVAILABLE: { ...unavailable, text: 'the key provider cannot unwrap this key now' },
  NOT_SEALING: {
    status: 403,
    ucxl: 'UCXL-403-FORBIDDEN',
    exit: 1,
    text: 'this door does not handle plaintext',
  },
  QUORUM_UNAVAILABLE: { ...unavailable, text: 'not enough nodes took the write' },
  BLOCK_UNAVAILABLE: { ...unavailable, text: 'no reachable node has the block' },
  PEER_UNREACHABLE: { ...unavailable, text: 'a peer could not be reached or its connection was lost' },
  PEER_REFUSED: { ...unavailable, text: 'a peer answered with an error' },
  BEACON_UNAVAILABLE: { ...unavailable, text: 'the Beacon cannot be reached or refuses writes' },
  CLUSTER_NOT_RUNNING: { ...unavailable, text: 'no cluster is running on this data directory' },
  TIMEOUT: {
    status: 504,
    ucxl: 'UCXL-504-GATEWAY_TIMEOUT',
    exit: 5,
    text: 'the operation did not finish in its time',
  },
} as const satisfies Record<string, CatalogueRow>;

export type ErrorCode = keyof typeof errorCatalogue;

/** Facts about an error that are safe to show: no secrets, no plaintext. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | null | readonly string[]>>;

export class HoldfastError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  /**
   * @param code row of the catalogue
   * @param message what was wrong, where, and what would be right
   * @param options `details`: typed facts for the caller; `cause`: always pass the underlying error
   */
  constructor(code: ErrorCode, message: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'HoldfastError';
    this.code = code;
    this.details = options.details ?? {};
  }
}

/** True when `error` is a HoldfastError, and, if `code` is given, of that code. */
export function isHoldfastError(error: unknown, code?: ErrorCode): error is HoldfastError {
  return error instanceof HoldfastError && (code === undefined || error.code === code);
}

/** The message of anything thrown, with the messages of its causes, outermost first. Bounded to 8 levels. */
export function describeError(error: unknown): string {
  const parts: string[] = [];
  let current: unknown = error;
  for (let depth = 0; depth < 8 && current !== undefined && current !== null; depth++) {
    parts.push(current instanceof Error ? current.message : inspect(current));
    current = current instanceof Error ? current.cause : undefined;
  }
  return parts.join(': ');
}

/** Wraps anything thrown that is not ours yet, keeping it as the cause. */
export function asHoldfastError(error: unknown, code: ErrorCode, message: string): HoldfastError {
  return error instanceof HoldfastError ? error : new HoldfastError(code, message, { cause: error });
}
