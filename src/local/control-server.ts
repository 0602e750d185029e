// The control endpoint of the supervisor: HTTP on the loopback, a random port, a token of its own.
//
//   GET  /state                                → ClusterState
//   POST /node/<name>/{stop,kill,start,wipe}   → ProcessState, when it is done
//   POST /down                                 → 202; the supervisor ends soon after

import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { utf8 } from '../core/bytes.ts';
import { asHoldfastError, describeError, errorCatalogue, HoldfastError } from '../core/errors.ts';
import { sameSecret, sha256 } from '../core/hash.ts';
import { type ClusterState, type NodeAction, nodeActions, type ProcessState } from './control-types.ts';

/** Time that answers have to leave when the endpoint closes. */
const lastAnswersMs = 500;

export interface Controlled {
  state(): ClusterState;
  act(name: string, action: NodeAction): Promise<ProcessState>;
  /** Begins to stop; what comes of it is seen by the end of the process. */
  requestStop(): void;
}

export interface ControlEndpoint extends AsyncDisposable {
  readonly port: number;
  readonly token: string;
}

/** Listens on 127.0.0.1 until disposed. */
export async function serveControl(controlled: Controlled): Promise<ControlEndpoint> {
  const token = randomBytes(32).toString('base64url');
  const server = createServer((request, response) => {
    void answer(controlled, token, request, response);
  });
  const port = await listen(server);
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

async function answer(
  controlled: Controlled,
  token: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    authorize(request, token);
    request.resume();
    const [status, body] = await route(controlled, request.method ?? '', request.url ?? '');
    send(response, status, body);
  } catch (error) {
    const { code, details } = asHoldfastError(error, 'INTERNAL', 'the supervisor failed');
    send(response, errorCatalogue[code].status, { error: { code, message: describeError(error), details } });
  }
}

async function route(controlled: Controlled, method: string, url: string): Promise<[number, unknown]> {
  const [, first, name = '', verb, ...rest] = url.split('/');
  if (method === 'GET' && url === '/state') return [200, controlled.state()];
  if (method === 'POST' && url === '/down') {
    controlled.requestStop();
    return [202, {}];
  }
  const action = nodeActions.find((each) => each === verb);
  if (method === 'POST' && first === 'node' && action !== undefined && rest.length === 0) {
    return [200, await controlled.act(decodeURIComponent(name), action)];
  }
  throw new HoldfastError('NOT_FOUND', `the supervisor does not know ${method} ${url.slice(0, 200)}`);
}

// Digests have one length, so that not even the length of the token is told.
function authorize(request: IncomingMessage, token: string): void {
  const given = /^Bearer (\S{1,200})$/.exec(request.headers.authorization ?? '')?.[1] ?? '';
  if (sameSecret(sha256(utf8(given)), sha256(utf8(token)))) return;
  throw new HoldfastError('UNAUTHORIZED', 'the control token is missing or wrong');
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' });
  response.end(JSON.stringify(body));
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: 0, host: '127.0.0.1' }, resolve);
  });
  const address = server.address();
  if (address === null || typeof address === 'string') {
    throw new HoldfastError('INTERNAL', 'the control endpoint has no port');
  }
  return address.port;
}
