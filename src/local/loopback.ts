// A process that takes commands from this machine: HTTP on the loopback, a random port, a token of its own. Where it
// is stands in a file that only the owner of the process may read, so who may command is who may read that file.

import { randomBytes } from 'node:crypto';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { utf8 } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { asHoldfastError, describeError, errorCatalogue, HoldfastError } from '../core/errors.ts';
import type { ErrorDetails } from '../core/errors.ts';
import { sameSecret, sha256 } from '../core/hash.ts';
import { isMap } from '../core/shape.ts';
import { http } from '../net/http.ts';
import { isErrorCode } from './run-file.ts';

/** Where one listens. */
export interface Loopback {
  readonly port: number;
  readonly token: string;
}

export interface LoopbackServer extends Loopback, AsyncDisposable {}

/** Answers one request: its status and a JSON value. `body` is undefined where none came. */
export type LoopbackRoute = (method: string, url: string, body: unknown) => Promise<[number, unknown]>;

/** Time that answers have to leave when the server closes. */
const lastAnswersMs = 500;
/** Commands are a few words. */
const bodyBytesMax = 16_384;
const answerMsMax = 5 * minute;

/** Listens on 127.0.0.1 until disposed. `who` names the process in messages. */
export async function serveLoopback(who: string, route: LoopbackRoute): Promise<LoopbackServer> {
  const token = randomBytes(32).toString('base64url');
  const server = http.createServer((request, response) => {
    void answer(who, route, token, request, response);
  });
  const port = await listen(server, who);
  return {
    port,
    token,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      const impatience = setTimeout(() => server.closeAllConnections(), lastAnswersMs);
      await closed;
      clearTimeout(impatience);
    },
  };
}

/**
 * Sends one command and resolves with the JSON that comes back. Throws what the other side throws, and the error of
 * the operating system when nobody listens there.
 */
export async function callLoopback(
  { port, token }: Loopback,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { status, text } = await exchange({ port, token }, method, path, body);
  const value: unknown = JSON.parse(text);
  if (status < 300) return value;
  throw remoteError(value, status);
}

async function answer(
  who: string,
  route: LoopbackRoute,
  token: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    authorize(request, token);
    const body = await commandIn(request);
    const [status, value] = await route(request.method ?? '', request.url ?? '', body);
    send(response, status, value);
  } catch (error) {
    const { code, details } = asHoldfastError(error, 'INTERNAL', `${who} failed`);
    send(response, errorCatalogue[code].status, { error: { code, message: describeError(error), details } });
  }
}

// Digests have one length, so that not even the length of the token is told.
function authorize(request: IncomingMessage, token: string): void {
  const given = /^Bearer (\S{1,200})$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  if (sameSecret(sha256(utf8(given)), sha256(utf8(token)))) return;
  throw new HoldfastError('UNAUTHORIZED', 'the control token is missing or wrong');
}

/** All of a body. Throws TOO_LARGE. */
export async function wholeBody(request: AsyncIterable<Buffer>, bytesMax: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of request) {
    sizeBytes += part.length;
    if (sizeBytes > bytesMax) throw new HoldfastError('TOO_LARGE', `a request of over ${bytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

async function commandIn(request: IncomingMessage): Promise<unknown> {
  const bytes = await wholeBody(request, bodyBytesMax);
  if (bytes.length === 0) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', 'the command is not JSON', { cause });
  }
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify(body));
}

async function listen(server: Server, who: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: 0, host: '127.0.0.1' }, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string')
    throw new HoldfastError('INTERNAL', `the control endpoint of ${who} has no port`);
  return address.port;
}

function exchange(
  { port, token }: Loopback,
  method: string,
  path: string,
  body: unknown,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = http.request(
      {
        host: '127.0.0.1',
        port,
        method,
        path,
        agent: false,
        headers: { authorization: `Bearer ${token}` },
        signal: AbortSignal.timeout(answerMsMax),
      },
      (response) => {
        const parts: string[] = [];
        response.setEncoding('utf8');
        response.on('data', (part: string) => parts.push(part));
        response.on('error', reject);
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: parts.join('') }));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function remoteError(value: unknown, status: number): HoldfastError {
  const error = isMap(value) && isMap(value['error']) ? value['error'] : {};
  const { code, message, details } = error;
  return isErrorCode(code)
    ? new HoldfastError(code, String(message), { details: isDetails(details) ? details : {} })
    : new HoldfastError('INTERNAL', `the process answered with status ${status}`);
}

function isDetails(value: unknown): value is ErrorDetails {
  return (
    isMap(value) &&
    Object.values(value).every((field) => field === null || Array.isArray(field) || !isMap(field))
  );
}
