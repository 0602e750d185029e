// The body of a request, piece by piece, and what becomes of one that nobody wants.
//
// Node's own iterator destroys the socket when its reader leaves early, and with the socket goes the answer
// that says why: a caller whose upload is refused in the middle would see a broken pipe instead of a 413. So
// the pieces are taken by hand here, and leaving early leaves the connection alone.

import type { IncomingMessage } from 'node:http';
import { HoldfastError } from '../core/errors.ts';

/** A peer that sends nothing, or takes nothing, for so long is treated as gone. */
export const stallMs = 120_000;
/** How long, and for how many bytes, an unwanted body is still taken in, so that the answer is not lost in a reset. */
const lingerMs = 2000;
const lingerBytesMax = 64 * 1024 * 1024;

export interface BodyOptions {
  readonly maxBytes: number;
  /** Aborted when the sending side ended before the body did. */
  readonly cut: AbortSignal;
  /** Default `stallMs`. */
  readonly stallMs?: number;
}

/** True when the request announces a body, be it empty. */
export function hasBody(req: IncomingMessage): boolean {
  const { 'content-length': length, 'transfer-encoding': coding } = req.headers;
  return coding !== undefined || (length !== undefined && length !== '0');
}

/**
 * The body as it arrives. Throws TOO_LARGE beyond `maxBytes` (before the first byte when the length is
 * declared) and UPLOAD_TRUNCATED when it ends early, breaks off or stalls.
 */
export async function* readBody(
  req: IncomingMessage,
  options: BodyOptions,
): AsyncGenerator<Uint8Array, void, undefined> {
  const { maxBytes, cut } = options;
  const declared = Number(req.headers['content-length'] ?? Number.NaN);
  if (declared > maxBytes) throw tooLarge(maxBytes);
  let seen = 0;
  for await (const chunk of pieces(req, cut, options.stallMs ?? stallMs)) {
    seen += chunk.length;
    if (seen > maxBytes) throw tooLarge(maxBytes);
    yield chunk;
  }
  if (!req.complete || (declared >= 0 && seen !== declared))
    throw truncated(seen, req.errored ?? (cut.aborted ? cut.reason : undefined));
}

/** Takes in and forgets what is left of a body, for a moment: then the sender may read the answer in peace. */
export async function discardBody(req: IncomingMessage, cut: AbortSignal): Promise<void> {
  const deadline = AbortSignal.any([cut, AbortSignal.timeout(lingerMs)]);
  let seen = 0;
  for await (const chunk of pieces(req, deadline, lingerMs)) {
    seen += chunk.length;
    if (seen > lingerBytesMax) return;
  }
}

/** Until the end, an error, a cut or a stall: which of them, the caller sees by `req.complete`. */
async function* pieces(
  req: IncomingMessage,
  cut: AbortSignal,
  stallMs: number,
): AsyncGenerator<Uint8Array, void, undefined> {
  let ring: () => void = () => undefined;
  const onEvent = (): void => ring();
  for (const name of events) req.on(name, onEvent);
  cut.addEventListener('abort', onEvent);
  try {
    for (;;) {
      const rung = new Promise<'rung'>((resolve) => {
        ring = () => resolve('rung');
      });
      const chunk: unknown = req.read();
      if (chunk instanceof Uint8Array) {
        yield chunk;
        continue;
      }
      if (req.readableEnded || req.destroyed || req.errored !== null || cut.aborted) return;
      if ((await orStall(rung, stallMs)) === 'stalled') return;
    }
  } finally {
    for (const name of events) req.off(name, onEvent);
    cut.removeEventListener('abort', onEvent);
  }
}

const events = ['readable', 'end', 'close', 'error'] as const;

/** What `event` resolves to, or 'stalled' when that takes longer than `ms`. */
export async function orStall<T>(event: Promise<T>, ms: number): Promise<T | 'stalled'> {
  let timer: NodeJS.Timeout | undefined;
  const stalled = new Promise<'stalled'>((resolve) => {
    timer = setTimeout(() => resolve('stalled'), ms);
  });
  try {
    return await Promise.race([event, stalled]);
  } finally {
    clearTimeout(timer);
  }
}

function tooLarge(maxBytes: number): HoldfastError {
  return new HoldfastError('TOO_LARGE', `the body exceeds ${maxBytes} bytes`, { details: { maxBytes } });
}

function truncated(seen: number, cause: unknown): HoldfastError {
  return new HoldfastError(
    'UPLOAD_TRUNCATED',
    `the upload ended after ${seen} bytes, before it was complete`,
    { cause, details: { receivedBytes: seen } },
  );
}
