// How an answer leaves: whole, or visibly broken, never shorter than it says.

import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { utf8 } from '../core/bytes.ts';
import { servedItsPurpose } from '../core/concurrency.ts';
import { type ErrorDetails, HoldfastError } from '../core/errors.ts';
import { discardBody, hasBody, orStall, stallMs } from './body.ts';
import { errorEnvelope, type RequestFacts, responseEnvelope } from './envelope.ts';

/** What a handler answers: an envelope around `data`, or bytes as they are. */
export type Reply =
  | {
      readonly status: number;
      readonly message: string;
      readonly data?: unknown;
      readonly headers?: Headers_;
    }
  | {
      readonly status: number;
      readonly headers: Headers_;
      readonly bytes: Uint8Array | AsyncIterable<Uint8Array>;
    };

type Headers_ = Readonly<Record<string, string>>;

/** One request and its answer under way. */
export interface Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly facts: RequestFacts;
  /** Aborted when the connection is gone, or the answer is done. */
  readonly gone: AbortSignal;
  /** Aborted when the caller's side ended before its body did. */
  readonly cut: AbortSignal;
  /** True while the caller waits for "100 Continue" with its body unsent. */
  bodyHeldBack: boolean;
}

/** Thrown inside when the caller left before the answer was complete: nobody's fault. */
export class CallerGone extends Error {}

/**
 * Sends it. When the bytes break off, so does the connection: with an error before the first byte the caller
 * still gets an envelope (it is thrown for `sendError`), later a broken transfer.
 */
export async function sendReply(exchange: Exchange, reply: Reply): Promise<void> {
  const { req, res, facts } = exchange;
  for (const [name, value] of Object.entries(reply.headers ?? {})) res.setHeader(name, value);
  res.statusCode = reply.status;
  if (!('bytes' in reply))
    return sendWhole(
      exchange,
      jsonBytes(res, responseEnvelope(reply.status, reply.message, reply.data, facts)),
    );
  if (reply.bytes instanceof Uint8Array) {
    if (reply.status !== 304 && !res.hasHeader('content-length'))
      res.setHeader('content-length', reply.bytes.length);
    return sendWhole(exchange, reply.status === 304 ? undefined : reply.bytes);
  }
  if (req.method === 'HEAD') return sendWhole(exchange, undefined);
  return sendStream(exchange, reply.bytes);
}

/** The error envelope; after the first byte of an answer only the connection can say that something broke. */
export async function sendError(exchange: Exchange, error: unknown): Promise<void> {
  const { res, facts } = exchange;
  if (res.headersSent || res.destroyed) {
    res.destroy();
    return;
  }
  const { status, body } = errorEnvelope(error, facts);
  for (const name of res.getHeaderNames()) if (name !== 'x-request-id') res.removeHeader(name);
  res.statusCode = status;
  for (const [name, value] of Object.entries(errorHeaders(error, status))) res.setHeader(name, value);
  await sendWhole(exchange, jsonBytes(res, body));
}

function errorHeaders(error: unknown, status: number): Record<string, string> {
  const details: ErrorDetails = error instanceof HoldfastError ? error.details : {};
  const { allow, sizeBytes } = details;
  return {
    ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    ...(status === 405 && Array.isArray(allow) ? { allow: allow.join(', ') } : {}),
    ...(status === 416 && typeof sizeBytes === 'number' ? { 'content-range': `bytes */${sizeBytes}` } : {}),
    ...(status === 429 || status === 503 ? { 'retry-after': '1' } : {}),
  };
}

function jsonBytes(res: ServerResponse, value: unknown): Uint8Array {
  const bytes = utf8(`${JSON.stringify(value)}\n`);
  res.setHeader('content-type', 'application/json; charset=utf-8');
  res.setHeader('content-length', bytes.length);
  return bytes;
}

async function sendWhole(exchange: Exchange, bytes: Uint8Array | undefined): Promise<void> {
  const { req, res, cut } = exchange;
  if (res.destroyed) throw new CallerGone('before the answer');
  const body = req.method === 'HEAD' ? undefined : bytes;
  if (!(await bodyIsUnread(exchange))) {
    res.end(body);
    return;
  }
  // What is left of the request's body is not wanted, and the connection is of no use after it. Closing it
  // now would reset it, and the reset may overtake the answer: so the answer goes first.
  res.setHeader('connection', 'close');
  if (!exchange.bodyHeldBack) {
    if (body === undefined) res.flushHeaders();
    else res.write(body);
    await discardBody(req, cut);
    res.end();
  } else res.end(body);
}

async function bodyIsUnread({ req, cut }: Exchange): Promise<boolean> {
  if (!hasBody(req) || req.complete) return false;
  if (cut.aborted) return true;
  await new Promise((resolve) => setImmediate(resolve)); // a small body may be in the same packet as its head
  return !req.complete;
}

async function sendStream(exchange: Exchange, bytes: AsyncIterable<Uint8Array>): Promise<void> {
  const { res, gone } = exchange;
  const declared = res.hasHeader('content-length') ? Number(res.getHeader('content-length')) : undefined;
  let sent = 0;
  for await (const chunk of bytes) {
    if (gone.aborted) throw new CallerGone('in the middle of the answer');
    sent += chunk.length;
    if (!res.write(chunk)) await drained(res, gone);
  }
  if (declared !== undefined && sent !== declared)
    throw new HoldfastError('INTERNAL', `an answer of ${declared} bytes ended after ${sent}`);
  res.end();
}

async function drained(res: ServerResponse, gone: AbortSignal): Promise<void> {
  if (gone.aborted) throw new CallerGone('in the middle of the answer');
  const stop = new AbortController();
  const drain = once(res, 'drain', { signal: AbortSignal.any([gone, stop.signal]) });
  try {
    if ((await orStall(drain, stallMs)) === 'stalled') throw new CallerGone('the answer is not taken');
  } catch (cause) {
    throw cause instanceof CallerGone ? cause : new CallerGone('in the middle of the answer', { cause });
  } finally {
    stop.abort(servedItsPurpose);
    drain.catch(() => undefined); // nobody waits for it any more
  }
}
