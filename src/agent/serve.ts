// A key agent over HTTP. Requests are signed and answers sealed, so the connection need not be secret.
//
//   GET  /v1/agent  → {name, key, group}       whom to ask under which key
//   POST /v1/key    signed request → sealed answer, application/octet-stream
//
// An error is {error: {code, message, details}} with the status of its code.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { second } from '../core/clock.ts';
import { asHoldfastError, describeError, errorCatalogue, HoldfastError } from '../core/errors.ts';
import { objectKeyRequestBytesMax } from '../custody/object-key.ts';
import { wholeBody } from '../local/loopback.ts';
import { http } from '../net/http.ts';

export interface AgentService {
  readonly info: () => Readonly<Record<string, unknown>>;
  readonly release: (message: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>;
}

/** A request that takes longer than this is given up: custodians have answered or will not. */
const answerMs = 30 * second;
const connectionsMax = 1024;

/** Listens until disposed. Throws PORT_IN_USE. */
export async function serveAgent(
  service: AgentService,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<AsyncDisposable & { readonly port: number }> {
  const server = http.createServer({ requestTimeout: answerMs }, (request, response) => {
    void answer(service, request, response);
  });
  server.maxConnections = connectionsMax;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen({ host, port }, resolve);
  try {
    await promise;
  } catch (cause) {
    throw new HoldfastError('PORT_IN_USE', `${host}:${port} cannot be listened on`, { cause });
  }
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((closed) => server.close(() => closed()));
    },
  };
}

async function answer(
  service: AgentService,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort(new Error('who asked has gone')));
  try {
    if (request.method === 'GET' && request.url === '/v1/agent')
      return sendJson(response, 200, service.info());
    if (request.method !== 'POST' || request.url !== '/v1/key')
      throw new HoldfastError('NOT_FOUND', 'a key agent answers GET /v1/agent and POST /v1/key');
    const message = new Uint8Array(await wholeBody(request, objectKeyRequestBytesMax));
    const sealed = await service.release(
      message,
      AbortSignal.any([gone.signal, AbortSignal.timeout(answerMs)]),
    );
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': sealed.length });
    response.end(sealed);
  } catch (error) {
    const { code, details } = asHoldfastError(error, 'INTERNAL', 'the key agent failed');
    sendJson(response, errorCatalogue[code].status, {
      error: { code, message: describeError(error), details },
    });
  }
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  if (response.headersSent) return;
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify(body));
}
