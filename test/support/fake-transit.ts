// The small Transit server of the tests: the paths that our provider uses, with the answers that OpenBao gives,
// and a way to make single answers fail. Its keys live in memory; its ciphertexts are real ones.

import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
  /** The next requests fail like this, one each; undefined lets one pass. */
  readonly faults: (Fault | undefined)[];
  /** Tokens that are accepted beside the administrator's. */
  readonly tokens: Set<string>;
  sealed: boolean;
  /** Seconds that the next login's token is good for. */
  leaseSeconds: number;
  /** Wrapping token → secret id. */
  readonly wrappings: Map<string, string>;
}

interface Key {
  readonly fields: Record<string, unknown>;
  readonly versions: Buffer[];
  least: number;
}

interface Item {
  readonly plaintext?: string;
  readonly ciphertext?: string;
  readonly context?: string;
  readonly associated_data?: string;
}

type Result = Readonly<Partial<Record<'plaintext' | 'ciphertext' | 'error', string>>>;

interface Reply {
  readonly status: number;
  readonly body?: object;
}

const adminToken = 'administrator-of-the-fake';
const roleId = 'fake-role';
const secretId = 'fake-secret-id';
const authenticationFailed = 'cipher: message authentication failed';

/** Over TLS when `tls` has a key and a certificate, both PEM. */
export async function startFakeTransit(tls?: { key: string; cert: string }): Promise<FakeTransit> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-fake-transit-'));
  const keys = new Map<string, Key>();
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
    admin: adminOf(url, adminToken),
    asked: [],
    faults: [],
    tokens: new Set(),
    sealed: false,
    leaseSeconds: 600,
    wrappings: new Map(),
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
    const reply =
      faulty(fault) ?? route(request.method ?? '', path, token, text === '' ? {} : JSON.parse(text));
    response.writeHead(reply.status, { 'content-type': 'application/json' });
    if (fault !== undefined && typeof fault === 'object' && 'text' in fault) response.end(fault.text);
    else response.end(reply.body === undefined ? undefined : JSON.stringify(reply.body));
  }

  function route(method: string, path: string, token: string, body: Record<string, unknown>): Reply {
    if (path === 'sys/health') return { status: fake.sealed ? 503 : 200, body: { sealed: fake.sealed } };
    if (fake.sealed) return failed(503, 'Vault is sealed');
    if (path === 'auth/approle/login') return login(body);
    if (path === 'sys/wrapping/unwrap') return openWrapping(token);
    if (token !== adminToken && !fake.tokens.has(token)) return failed(403, 'permission denied');
    const [mount, operation, name = '', detail] = path.split('/');
    if (mount !== 'transit') return failed(404);
    if (operation === 'keys') return keyPath(method, name, detail, body);
    const key = keys.get(name);
    if (key === undefined) return failed(400, 'encryption key not found');
    return batch(operation ?? '', key, body);
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

  function keyPath(
    method: string,
    name: string,
    detail: string | undefined,
    body: Record<string, unknown>,
  ): Reply {
    if (method === 'POST' && detail === undefined) {
      const fields = { type: 'aes256-gcm96', derived: false, exportable: false, ...body };
      const defaults = {
        allow_plaintext_backup: false,
        deletion_allowed: false,
        convergent_encryption: undefined,
      };
      if (!keys.has(name))
        keys.set(name, { fields: { ...defaults, ...fields }, versions: [randomBytes(32)], least: 1 });
      return { status: 200, body: {} };
    }
    const key = keys.get(name);
    if (key === undefined) return failed(404);
    if (detail === 'rotate') key.versions.push(randomBytes(32));
    const { min_decryption_version: least, ...settings } = body;
    if (typeof least === 'number') {
      if (least > key.versions.length)
        return failed(400, 'cannot set min decryption version of a future version');
      key.least = least;
    }
    if (detail === 'config') Object.assign(key.fields, settings);
    const state = { latest_version: key.versions.length, min_decryption_version: key.least };
    return { status: 200, body: { data: { name, ...key.fields, ...state } } };
  }
}

function batch(operation: string, key: Key, body: Record<string, unknown>): Reply {
  if (stringsCount(body) > 1000)
    return failed(400, 'refused JSON input due to high complexity: exceeded maximum number of strings');
  const items = body['batch_input'] as readonly Item[];
  assert(items.length >= 1);
  assert(items.every((item) => !('associated_data' in item)));
  const results: Result[] = [];
  for (const item of items) {
    const result: Result =
      operation === 'encrypt' ? encrypted(key, item.plaintext ?? '', item) : opened(key, item);
    // A rewrap that meets a text that does not authenticate fails altogether; decryption goes on.
    if (operation === 'rewrap' && result.error === authenticationFailed)
      return failed(500, `1 error occurred:\n\t* ${authenticationFailed}\n\n`);
    results.push(
      operation === 'rewrap' && 'plaintext' in result ? encrypted(key, result.plaintext, item) : result,
    );
  }
  const bad = results.filter(({ error }) => error !== undefined).length;
  const partly = typeof body['partial_failure_response_code'] === 'number' && bad < items.length;
  const status = bad === 0 || operation === 'rewrap' || partly ? 200 : 400;
  return { status, body: { data: { batch_results: results } } };
}

/** As OpenBao counts them: names and values. */
function stringsCount(value: unknown): number {
  if (typeof value === 'string') return 1;
  if (typeof value !== 'object' || value === null) return 0;
  const names = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce<number>((sum, each) => sum + stringsCount(each), names);
}

function encrypted(key: Key, plaintext: string, { context }: Item): Result {
  const version = key.versions.length;
  const nonce = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', derived(key, version, context), nonce);
  const parts = [nonce, cipher.update(plaintext, 'base64'), cipher.final(), cipher.getAuthTag()];
  return { ciphertext: `vault:v${version}:${Buffer.concat(parts).toString('base64')}` };
}

function opened(key: Key, { ciphertext = '', context }: Item): Result {
  const [, digits, text = ''] = /^vault:v(\d+):(.*)$/.exec(ciphertext) ?? [];
  if (digits === undefined) return { error: 'invalid ciphertext: no prefix' };
  const version = Number(digits);
  if (version > key.versions.length) return { error: 'invalid ciphertext: version is too new' };
  if (version < key.least)
    return { error: 'ciphertext or signature version is disallowed by policy (too old)' };
  const bytes = Buffer.from(text, 'base64');
  if (bytes.length < 28) return { error: 'invalid ciphertext length' };
  const decipher = createDecipheriv('aes-256-gcm', derived(key, version, context), bytes.subarray(0, 12));
  decipher.setAuthTag(bytes.subarray(-16));
  try {
    const plaintext = Buffer.concat([decipher.update(bytes.subarray(12, -16)), decipher.final()]);
    return { plaintext: plaintext.toString('base64') };
  } catch {
    return { error: authenticationFailed };
  }
}

function derived(key: Key, version: number, context = ''): Buffer {
  const secret = key.versions[version - 1] ?? Buffer.alloc(32);
  return Buffer.from(hkdfSync('sha256', secret, '', Buffer.from(context, 'base64'), 32));
}

function faulty(fault: Fault | undefined): Reply | undefined {
  if (fault === undefined || typeof fault === 'string') return undefined;
  return { status: fault.status, body: { errors: 'errors' in fault ? (fault.errors ?? []) : [] } };
}

function failed(status: number, ...errors: string[]): Reply {
  return { status, body: { errors } };
}
