// HTTP as the door speaks it: a table of routes, one request at a time from line to answer.
//
// The table is the only place that knows paths; the router, the OpenAPI document and the test that compares
// the two with the running server all read it. A handler gets a parsed request and gives back a reply; it
// never touches the socket, so limits, tokens, envelopes and metrics can't be forgotten in one of them.

import { randomUUID } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../core/clock.ts';
import { utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sameSecret, sha256 } from '../core/hash.ts';
import { http } from '../net/http.ts';
import { CallerGone, type Exchange, type Reply, sendError, sendReply } from './answer.ts';
import { readBody } from './body.ts';
import { errorEnvelope } from './envelope.ts';

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
  /** Puts into the log, beside the request id, what an answer under way tells in its own words. */
  onFault(error: unknown): void;
}

export interface Route {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE' | 'HEAD';
  /** With `{name}` for path parameters. */
  readonly path: string;
  readonly operationId: string;
  readonly summary: string;
  readonly tag: 'ucxi' | 'blocks' | 'operations' | 'custody' | 'health';
  readonly parameters?: readonly Parameter[];
  /** Media type of the request body, when there is one. */
  readonly accepts?: string;
  /** Media type of a good answer; default the JSON envelope. */
  readonly produces?: string;
  /** JSON Schema of a JSON request body. */
  readonly bodySchema?: Readonly<Record<string, unknown>>;
  /** JSON Schema of `data` in the envelope; absent when there is none. */
  readonly data?: Readonly<Record<string, unknown>>;
  /** Statuses of good answers, beside the error envelopes. */
  readonly statuses: readonly number[];
  /** True where HEAD is worth a word in the document. */
  readonly head?: boolean;
  /** False where no token is needed (liveness, the API document): answered also when the door is busy. */
  readonly token?: boolean;
  /** True for an answer that goes on until the caller leaves: counted apart, so that listeners do not keep workers out. */
  readonly lasting?: boolean;
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
  /** Requests in flight at once, subscriptions apart. Default 256. */
  readonly requestsMax?: number;
  /** Called with faults that became a 5xx, or broke an answer in the middle. `what`: operation and request id. */
  onFault(what: string, error: unknown): void;
}

/** Requests in flight at once; beyond it 429 with Retry-After. Each may hold a few segments in memory. */
const requestsMax = 256;
/** Subscriptions at once: each holds a socket and one log entry. */
const lastingMax = 1024;
/** Why what a caller wanted is given up. One for all: an error of its own costs, with its stack, a thirtieth of an answer. */
const callerLeft = new DOMException('the caller has left', 'AbortError');
/** An address of 4,096 bytes, percent-encoded threefold, and the other headers. */
const headerBytesMax = 32 * 1024;

export class HttpDoor implements AsyncDisposable {
  readonly #options: HttpOptions;
  readonly #server: Server;
  readonly #tokenDigest: Uint8Array;
  /** For each connection with a request under way how to tell it that the caller's side has ended too early. */
  readonly #cuts = new WeakMap<Duplex, AbortController>();
  #inFlight = 0;
  #lasting = 0;

  private constructor(options: HttpOptions) {
    this.#options = options;
    this.#tokenDigest = sha256(utf8(options.token));
    this.#server = http.createServer({
      requestTimeout: 0, // an upload may take hours; one that stalls is cut in body.ts
      headersTimeout: 30_000,
      keepAliveTimeout: 65_000,
      maxHeaderSize: headerBytesMax,
    });
    this.#server.on('request', (req, res) => void this.#answer(req, res, false));
    this.#server.on('checkContinue', (req, res) => void this.#answer(req, res, true));
    this.#server.on('clientError', (error, socket) => this.#clientError(error, socket));
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

  async #answer(req: IncomingMessage, res: ServerResponse, bodyHeldBack: boolean): Promise<void> {
    const startedMs = this.#options.clock.monotonic();
    const gone = new AbortController();
    const cut = new AbortController();
    const exchange: Exchange = {
      req,
      res,
      facts: {
        requestId: acceptableId(req.headers['x-request-id']) ?? randomUUID(),
        path: (req.url ?? '/').split('?')[0] ?? '/',
        nowMs: this.#options.clock.now(),
      },
      gone: gone.signal,
      cut: cut.signal,
      bodyHeldBack,
    };
    res.once('close', () => {
      gone.abort(callerLeft);
      this.#cuts.delete(req.socket);
    });
    res.on('error', () => gone.abort(callerLeft)); // a write to a caller who has left
    this.#cuts.set(req.socket, cut);
    res.setHeader('x-request-id', exchange.facts.requestId);
    const operation = await this.#serve(exchange);
    // 499: the caller left before there was an answer, as proxies log it.
    const status = res.headersSent ? res.statusCode : 499;
    this.#options.onAnswered(operation, status, (this.#options.clock.monotonic() - startedMs) / 1000);
  }

  /** @returns the operation's name, for the metrics. Never throws. */
  async #serve(exchange: Exchange): Promise<string> {
    const { req, res, gone } = exchange;
    let operation = 'unknown';
    const onFault = (error: unknown): void =>
      this.#options.onFault(`${operation} ${exchange.facts.requestId}`, error);
    try {
      const url = parseUrl(req.url);
      const { route, path } = this.#route(req.method ?? 'GET', url.pathname);
      operation = route.operationId;
      if (route.token !== false) this.#checkToken(req.headers.authorization);
      using _place = this.#enter(route);
      await sendReply(exchange, await route.handle(new IncomingRequest(exchange, url, path, onFault)));
    } catch (error) {
      const left = error instanceof CallerGone || gone.aborted;
      const midway = res.headersSent;
      await sendError(exchange, error).catch(() => res.destroy());
      if (!left && (midway || res.statusCode >= 500)) onFault(error);
    }
    return operation;
  }

  /** A place among the requests in flight, until disposed. Throws RATE_LIMITED when there is none. */
  #enter(route: Route): Disposable {
    if (route.lasting === true) {
      if (this.#lasting >= lastingMax) throw tooBusy(`${lastingMax} subscriptions`);
      this.#lasting++;
      return { [Symbol.dispose]: () => void this.#lasting-- };
    }
    const max = this.#options.requestsMax ?? requestsMax;
    if (this.#inFlight >= max && route.token !== false) throw tooBusy(`${max} requests`);
    this.#inFlight++;
    return { [Symbol.dispose]: () => void this.#inFlight-- };
  }

  /** What the parser cannot make a request of, or the end of a body that is not its end. */
  #clientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const cut = this.#cuts.get(socket);
    if (!socket.writable || error.code === 'ECONNRESET') socket.destroy();
    else if (cut !== undefined) cut.abort(error);
    else socket.end(malformedAnswer(error, this.#options.clock.now()));
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
      throw new HoldfastError(
        'METHOD_NOT_ALLOWED',
        `${pathname} takes ${allowed.join(', ')}, not ${method}`,
        {
          details: { allow: allowed },
        },
      );
    throw new HoldfastError('NOT_FOUND', `no route ${pathname}; see /openapi.json`);
  }

  #checkToken(header: string | undefined): void {
    const given = /^Bearer +(.+)$/i.exec(header ?? '')?.[1];
    if (given === undefined)
      throw new HoldfastError(
        'UNAUTHORIZED',
        'no bearer token: send "Authorization: Bearer TOKEN" (the file "token" in the data directory)',
      );
    if (!sameSecret(sha256(utf8(given)), this.#tokenDigest))
      throw new HoldfastError(
        'UNAUTHORIZED',
        'wrong bearer token: the right one is in the file "token" in the data directory',
      );
  }
}

class IncomingRequest implements Request {
  readonly #exchange: Exchange;
  readonly method: string;
  readonly url: URL;
  readonly path: Readonly<Record<string, string>>;
  readonly requestId: string;
  readonly signal: AbortSignal;
  readonly onFault: (error: unknown) => void;

  constructor(exchange: Exchange, url: URL, path: Record<string, string>, onFault: (error: unknown) => void) {
    this.onFault = onFault;
    this.#exchange = exchange;
    this.method = exchange.req.method ?? 'GET';
    this.url = url;
    this.path = path;
    this.requestId = exchange.facts.requestId;
    this.signal = exchange.gone;
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
    const value = this.#exchange.req.headers[name];
    return Array.isArray(value) ? value[0] : value;
  }

  async *body(maxBytes: number): AsyncGenerator<Uint8Array, void, undefined> {
    const { req, res, cut } = this.#exchange;
    const body = readBody(req, { maxBytes, cut });
    if (this.#exchange.bodyHeldBack && !(Number(this.header('content-length')) > maxBytes)) {
      this.#exchange.bodyHeldBack = false;
      res.writeContinue();
    }
    yield* body;
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

function parseUrl(text: string | undefined): URL {
  try {
    const url = new URL(text ?? '/', 'http://door');
    decodeURIComponent(url.search); // URLSearchParams would take what is no percent-encoding as it stands
    return url;
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', 'the request target is not a percent-encoded URL path', {
      cause,
    });
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

function tooBusy(what: string): HoldfastError {
  return new HoldfastError('RATE_LIMITED', `more than ${what} at once; retry in a second`);
}

const parserStatus: Readonly<Record<string, string>> = {
  HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
  ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
};

/** An answer to bytes that never became a request. */
function malformedAnswer(error: NodeJS.ErrnoException, nowMs: number): string {
  const known = new HoldfastError('ARGUMENT_INVALID', 'not an HTTP/1.1 request', {
    details: { parser: error.code ?? 'unknown' },
  });
  const { body } = errorEnvelope(known, { requestId: randomUUID(), path: '', nowMs });
  const json = `${JSON.stringify(body)}\n`;
  return [
    `HTTP/1.1 ${parserStatus[error.code ?? ''] ?? '400 Bad Request'}`,
    'connection: close',
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(json)}`,
    '',
    json,
  ].join('\r\n');
}
