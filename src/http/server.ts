// HTTP as the door speaks it: a table of routes, one request at a time from line to answer.
//
// The table is the only place that knows paths; the router, the OpenAPI document and the test that compares
// the two with the running server all read it. A handler gets a parsed request and gives back a reply; it
// never touches the socket, so limits, tokens, envelopes and metrics can't be forgotten in one of them.

import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import type { Clock } from '../core/clock.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sameSecret, sha256 } from '../core/hash.ts';
import { errorEnvelope, type RequestFacts, responseEnvelope } from './envelope.ts';

/** A value a caller may give, for the router and the OpenAPI document alike. */
export interface Parameter {
  readonly name: string;
  readonly in: 'query' | 'path' | 'header';
  readonly required?: boolean;
  readonly text: string;
  readonly schema?: Readonly<Record<string, unknown>>;
}

export interface Request {
  readonly method: string;
  readonly url: URL;
  readonly path: Readonly<Record<string, string>>;
  readonly requestId: string;
  readonly signal: AbortSignal;
  /** First value of a query parameter. */
  query(name: string): string | undefined;
  /** Like `query`, but ARGUMENT_MISSING when it is not there. */
  need(name: string): string;
  header(name: string): string | undefined;
  /** The body as a stream, cut off with TOO_LARGE beyond `maxBytes` and UPLOAD_TRUNCATED when it ends early. */
  body(maxBytes: number): AsyncIterable<Uint8Array>;
  /** The whole body as JSON, at most 1 MiB. */
  json(): Promise<unknown>;
}

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

export interface Route {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE' | 'HEAD';
  /** With `{name}` for path parameters. */
  readonly path: string;
  readonly operationId: string;
  readonly summary: string;
  readonly tag: 'ucxi' | 'blocks' | 'operations' | 'health';
  readonly parameters?: readonly Parameter[];
  /** Media type of the request body, when there is one. */
  readonly accepts?: string;
  /** Media type of a good answer; default the JSON envelope. */
  readonly produces?: string;
  /** Statuses of good answers, beside the error envelopes. */
  readonly statuses: readonly number[];
  /** False where no token is needed (liveness, the API document). */
  readonly token?: boolean;
  handle(request: Request): Promise<Reply>;
}

export interface HttpOptions {
  readonly host: string;
  readonly port: number;
  /** Bearer token, compared in constant time. */
  readonly token: string;
  readonly clock: Clock;
  readonly routes: readonly Route[];
  /** Called once a request is answered. */
  onAnswered(operation: string, status: number, seconds: number): void;
  /** Called with faults that became a 5xx. */
  onFault(operation: string, error: unknown): void;
}

/** Requests in flight at once; beyond it 429 with Retry-After. Each may hold a few segments in memory. */
const requestsMax = 256;

export class HttpDoor implements AsyncDisposable {
  readonly #options: HttpOptions;
  readonly #server: Server;
  readonly #tokenDigest: Uint8Array;
  #inFlight = 0;

  private constructor(options: HttpOptions) {
    this.#options = options;
    this.#tokenDigest = sha256(utf8(options.token));
    this.#server = createServer(
      { requestTimeout: 0, headersTimeout: 30_000, keepAliveTimeout: 65_000 },
      (req, res) => {
        void this.#answer(req, res);
      },
    );
  }

  /** Listens. Throws PORT_IN_USE naming the port. */
  static async listen(options: HttpOptions): Promise<HttpDoor> {
    const door = new HttpDoor(options);
    await new Promise<void>((resolve, reject) => {
      door.#server.once('error', (cause: NodeJS.ErrnoException) => {
        const code = cause.code === 'EADDRINUSE' ? 'PORT_IN_USE' : 'INTERNAL';
        const where = `${options.host}:${options.port}`;
        const text =
          code === 'PORT_IN_USE'
            ? `${where} is taken by another program; choose another --port`
            : `cannot listen on ${where}`;
        reject(new HoldfastError(code, text, { cause, details: { port: options.port } }));
      });
      door.#server.listen(options.port, options.host, resolve);
    });
    return door;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : this.#options.port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const startedMs = this.#options.clock.monotonic();
    const requestId = acceptableId(req.headers['x-request-id']) ?? randomUUID();
    const facts: RequestFacts = {
      requestId,
      path: (req.url ?? '/').split('?')[0] ?? '/',
      nowMs: this.#options.clock.now(),
    };
    const gone = new AbortController();
    res.once('close', () => gone.abort());
    res.setHeader('x-request-id', requestId);
    let operation = 'unknown';
    this.#inFlight++;
    try {
      if (this.#inFlight > requestsMax) throw tooBusy();
      const url = parseUrl(req.url);
      const { route, path } = this.#route(req.method ?? 'GET', url.pathname);
      operation = route.operationId;
      if (route.token !== false) this.#checkToken(req.headers.authorization);
      const reply = await route.handle(new IncomingRequest(req, url, path, requestId, gone.signal));
      await sendReply(req, res, reply, facts);
    } catch (error) {
      await sendError(req, res, error, facts);
      if (res.statusCode >= 500) this.#options.onFault(operation, error);
    } finally {
      this.#inFlight--;
      this.#options.onAnswered(
        operation,
        res.statusCode,
        (this.#options.clock.monotonic() - startedMs) / 1000,
      );
    }
  }

  #route(method: string, pathname: string): { route: Route; path: Record<string, string> } {
    const allowed: string[] = [];
    for (const route of this.#options.routes) {
      const path = matchPath(route.path, pathname);
      if (path === undefined) continue;
      if (route.method === method || (method === 'HEAD' && route.method === 'GET')) return { route, path };
      allowed.push(route.method);
    }
    if (allowed.length > 0)
      throw new HoldfastError('METHOD_NOT_ALLOWED', `${pathname} takes ${allowed.join(', ')}, not ${method}`);
    throw new HoldfastError('NOT_FOUND', `no route ${pathname}; see /openapi.json`);
  }

  #checkToken(header: string | undefined): void {
    const given = /^Bearer (.+)$/.exec(header ?? '')?.[1];
    if (given === undefined)
      throw new HoldfastError(
        'UNAUTHORIZED',
        'no bearer token: send "Authorization: Bearer TOKEN" (file door-token)',
      );
    if (!sameSecret(sha256(utf8(given)), this.#tokenDigest))
      throw new HoldfastError('UNAUTHORIZED', 'wrong bearer token: the right one is in the file door-token');
  }
}

class IncomingRequest implements Request {
  readonly #req: IncomingMessage;
  readonly method: string;
  readonly url: URL;
  readonly path: Readonly<Record<string, string>>;
  readonly requestId: string;
  readonly signal: AbortSignal;

  constructor(
    req: IncomingMessage,
    url: URL,
    path: Record<string, string>,
    requestId: string,
    signal: AbortSignal,
  ) {
    this.#req = req;
    this.method = req.method ?? 'GET';
    this.url = url;
    this.path = path;
    this.requestId = requestId;
    this.signal = signal;
  }

  query(name: string): string | undefined {
    return this.url.searchParams.get(name) ?? undefined;
  }

  need(name: string): string {
    const value = this.query(name);
    if (value === undefined || value === '')
      throw new HoldfastError('ARGUMENT_MISSING', `query parameter ${name} is missing`, {
        details: { field: name },
      });
    return value;
  }

  header(name: string): string | undefined {
    const value = this.#req.headers[name];
    return Array.isArray(value) ? value[0] : value;
  }

  async *body(maxBytes: number): AsyncGenerator<Uint8Array, void, undefined> {
    const declared = Number(this.header('content-length') ?? Number.NaN);
    if (declared > maxBytes) throw tooLarge(maxBytes);
    let seen = 0;
    try {
      for await (const chunk of this.#req as AsyncIterable<Uint8Array>) {
        seen += chunk.length;
        if (seen > maxBytes) throw tooLarge(maxBytes);
        yield chunk;
      }
    } catch (cause) {
      if (cause instanceof HoldfastError) throw cause;
      throw truncated(seen, cause);
    }
    if (!this.#req.complete || (declared >= 0 && seen !== declared)) throw truncated(seen, undefined);
  }

  async json(): Promise<unknown> {
    const parts: Uint8Array[] = [];
    for await (const chunk of this.body(1024 * 1024)) parts.push(chunk);
    try {
      return JSON.parse(Buffer.concat(parts).toString('utf8'));
    } catch (cause) {
      throw new HoldfastError('ARGUMENT_INVALID', 'the body is not JSON', { cause });
    }
  }
}

async function sendReply(
  req: IncomingMessage,
  res: ServerResponse,
  reply: Reply,
  facts: RequestFacts,
): Promise<void> {
  for (const [name, value] of Object.entries(reply.headers ?? {})) res.setHeader(name, value);
  res.statusCode = reply.status;
  if (!('bytes' in reply)) {
    sendJson(req, res, responseEnvelope(reply.status, reply.message, reply.data, facts));
    return;
  }
  if (req.method === 'HEAD' || reply.status === 304) {
    res.end();
    return;
  }
  if (reply.bytes instanceof Uint8Array) {
    res.setHeader('content-length', reply.bytes.length);
    res.end(reply.bytes);
    return;
  }
  await pipeline(Readable.from(reply.bytes, { objectMode: false, highWaterMark: 1024 * 1024 }), res);
}

async function sendError(
  req: IncomingMessage,
  res: ServerResponse,
  error: unknown,
  facts: RequestFacts,
): Promise<void> {
  if (res.headersSent) {
    res.destroy(); // the body broke in the middle: the caller must see a broken transfer, never a short one
    return;
  }
  const { status, body } = errorEnvelope(error, facts);
  for (const name of res.getHeaderNames()) if (name !== 'x-request-id') res.removeHeader(name);
  res.statusCode = status;
  if (status === 401) res.setHeader('www-authenticate', 'Bearer');
  if (status === 429 || status === 503) res.setHeader('retry-after', '1');
  if (!req.complete) res.setHeader('connection', 'close'); // what is left of the body is not read
  sendJson(req, res, body);
}

function sendJson(req: IncomingMessage, res: ServerResponse, value: unknown): void {
  const bytes = utf8(`${JSON.stringify(value)}\n`);
  res.setHeader('content-type', 'application/json; charset=utf-8');
  res.setHeader('content-length', bytes.length);
  res.end(req.method === 'HEAD' || res.statusCode === 204 ? undefined : bytes);
}

function parseUrl(text: string | undefined): URL {
  try {
    return new URL(text ?? '/', 'http://door');
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', 'the request target is not a URL path', { cause });
  }
}

/** `{name}` stands for one segment, percent-decoded. */
function matchPath(pattern: string, pathname: string): Record<string, string> | undefined {
  const want = pattern.split('/');
  const have = pathname.split('/');
  if (want.length !== have.length) return undefined;
  const found: Record<string, string> = {};
  for (const [index, part] of want.entries()) {
    const given = have[index] ?? '';
    const name = /^\{(.+)\}$/.exec(part)?.[1];
    if (name === undefined) {
      if (part !== given) return undefined;
    } else {
      try {
        found[name] = decodeURIComponent(given);
      } catch (cause) {
        throw new HoldfastError('ARGUMENT_INVALID', `bad percent-encoding in ${name}`, { cause });
      }
    }
  }
  return found;
}

function acceptableId(header: string | string[] | undefined): string | undefined {
  return typeof header === 'string' && /^[\w.:-]{1,128}$/.test(header) ? header : undefined;
}

function tooLarge(maxBytes: number): HoldfastError {
  return new HoldfastError('TOO_LARGE', `the body exceeds ${maxBytes} bytes`, { details: { maxBytes } });
}

function truncated(seen: number, cause: unknown): HoldfastError {
  return new HoldfastError(
    'UPLOAD_TRUNCATED',
    `the upload ended after ${seen} bytes, before it was complete`,
    {
      cause,
      details: { receivedBytes: seen },
    },
  );
}

function tooBusy(): HoldfastError {
  return new HoldfastError('RATE_LIMITED', `more than ${requestsMax} requests at once; retry in a second`);
}
