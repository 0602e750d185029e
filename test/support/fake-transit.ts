// The small Transit server of the tests: the paths that our provider uses, with the answers that OpenBao gives,
// and a way to make single answers fail. Here are tokens, logins and faults; the keys are in fake-transit-keys.ts.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fieldOf } from '../../src/core/shape.ts';
import { denied, failed, FakeTransitKeys, type Reply } from './fake-transit-keys.ts';
import { adminOf, type TransitServer, writeSecrets } from './transit-server.ts';

/** Instead of an answer: a status with errors, silence until the client goes, a broken connection, or any text. */
export type Fault =
  | { status: number; errors?: string[] }
  | 'silence'
  | 'reset'
  | { status: number; text: string };

export interface FakeTransit extends TransitServer {
  /** Paths asked for, oldest first. */
  readonly asked: string[];
  /** What the answers warned of. */
  readonly warnings: string[];
  /** The next requests fail like this, one each; undefined lets one pass. */
  readonly faults: (Fault | undefined)[];
  /** Tokens that are accepted beside the administrator's. */
  readonly tokens: Set<string>;
  sealed: boolean;
  /** The role may make keys, as one with `update` on `transit/keys/NAME`. */
  roleCreates: boolean;
  /** Fails a whole request over one text that is not authentic, as Vault did up to 1.9. */
  failsWhole: boolean;
  /** Seconds that the next login's token is good for. */
  leaseSeconds: number;
  /** Wrapping token → secret id. */
  readonly wrappings: Map<string, string>;
}

interface Request {
  readonly method: string;
  readonly path: string;
  readonly token: string;
  readonly namespace: string;
  readonly body: Record<string, unknown>;
}

const adminToken = 'administrator-of-the-fake';
const roleId = 'fake-role';
const secretId = 'fake-secret-id';

/** Over TLS when `tls` has a key and a certificate, both PEM. */
export async function startFakeTransit(tls?: { key: string; cert: string }): Promise<FakeTransit> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-fake-transit-'));
  const keys = new FakeTransitKeys();
  const serve = (request: IncomingMessage, response: ServerResponse): void => void answer(request, response);
  const server = tls === undefined ? createServer(serve) : createTlsServer(tls, serve);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  assert(address !== null && typeof address === 'object');
  const url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${address.port}`;
  const fake: FakeTransit = {
    url,
    folder,
    ...(await writeSecrets(folder, adminToken, secretId)),
    roleId,
    namespace: 'team',
    admin: adminOf(url, adminToken),
    asked: [],
    warnings: [],
    faults: [],
    tokens: new Set(),
    sealed: false,
    roleCreates: false,
    failsWhole: false,
    leaseSeconds: 600,
    wrappings: new Map(),
    seal: async () => {
      fake.sealed = true;
    },
    unseal: async () => {
      fake.sealed = false;
    },
    revokeLogins: async () => fake.tokens.clear(),
    wrapSecretId: async () => {
      const token = randomUUID();
      fake.wrappings.set(token, secretId);
      return token;
    },
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return fake;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').replace(/^\/v1\//, '').replace(/\?.*$/, '');
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    const text = Buffer.concat(parts).toString();
    const token = String(request.headers['x-vault-token'] ?? '');
    if (token !== adminToken) fake.asked.push(path);
    const fault = token === adminToken && path.endsWith('/rotate') ? undefined : fake.faults.shift();
    if (fault === 'silence') return;
    if (fault === 'reset') return void request.socket.resetAndDestroy();
    const namespace = String(request.headers['x-vault-namespace'] ?? '');
    const body = text === '' ? {} : JSON.parse(text);
    const reply = faulty(fault) ?? route({ method: request.method ?? '', path, token, namespace, body });
    const warned = fieldOf(reply.body, 'warnings');
    if (Array.isArray(warned)) fake.warnings.push(...warned.map(String));
    response.writeHead(reply.status, { 'content-type': 'application/json' });
    if (fault !== undefined && typeof fault === 'object' && 'text' in fault) response.end(fault.text);
    else response.end(reply.body === undefined ? undefined : JSON.stringify(reply.body));
  }

  function route({ method, path, token, namespace, body }: Request): Reply {
    if (path === 'sys/health') return health(namespace);
    if (fake.sealed) return failed(503, 'Vault is sealed');
    if (path === 'auth/approle/login') return login(body);
    if (path === 'sys/wrapping/unwrap') return openWrapping(token);
    const isAdmin = token === adminToken;
    if (!isAdmin && !fake.tokens.has(token)) return failed(403, 'permission denied');
    if (namespace !== '' && namespace !== fake.namespace) return failed(404, 'namespace not found');
    const [mount, ...below] = path.split('/');
    if (mount !== 'transit')
      return isAdmin ? failed(404, `no handler for route "${path}". route entry not found.`) : denied();
    const rights = { mayCreate: isAdmin || fake.roleCreates, mayConfigure: isAdmin };
    const { failsWhole } = fake;
    return keys.answer({ method, namespace, path: below, body, ...rights, failsWhole });
  }

  function health(namespace: string): Reply {
    if (namespace !== '') return failed(400, 'operation unavailable in namespaces');
    const { sealed } = fake;
    return { status: sealed ? 503 : 200, body: { initialized: true, sealed, standby: sealed } };
  }

  function login(body: Record<string, unknown>): Reply {
    if (body['role_id'] !== roleId || body['secret_id'] !== secretId)
      return failed(400, 'invalid role or secret ID');
    const token = randomUUID();
    fake.tokens.add(token);
    return { status: 200, body: { auth: { client_token: token, lease_duration: fake.leaseSeconds } } };
  }

  function openWrapping(token: string): Reply {
    const wrapped = fake.wrappings.get(token);
    fake.wrappings.delete(token);
    if (wrapped === undefined) return failed(400, 'wrapping token is not valid or does not exist');
    return { status: 200, body: { data: { secret_id: wrapped } } };
  }
}

function faulty(fault: Fault | undefined): Reply | undefined {
  if (fault === undefined || typeof fault === 'string') return undefined;
  return { status: fault.status, body: { errors: 'errors' in fault ? (fault.errors ?? []) : [] } };
}
