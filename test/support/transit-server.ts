// Two servers for the tests of the Transit provider: a real OpenBao or Vault in development mode, where a binary is
// installed, and a small one that speaks the same protocol and can be told to misbehave. One list of tests runs
// against both, which keeps the small one honest.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fieldOf } from '../../src/core/shape.ts';
import { endsWithUs } from './ends-with-us.ts';

export interface TransitServer extends AsyncDisposable {
  readonly url: string;
  readonly folder: string;
  /** A token that may do everything. */
  readonly tokenFile: string;
  readonly roleId: string;
  readonly secretIdFile: string;
  /** One with a Transit engine of its own; undefined when the server has no namespaces. */
  readonly namespace: string | undefined;
  /** A request with the token; its JSON. */
  readonly admin: Admin;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  /** No token that a login gave is good any more. */
  revokeLogins(): Promise<void>;
  /** A token that gives the role's secret id once. */
  wrapSecretId(): Promise<string>;
}

/** Throws with the status and the answer when the server refuses. */
export type Admin = (
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: object,
  headers?: Readonly<Record<string, string>>,
) => Promise<unknown>;

/** Path of the binary: HOLDFAST_BAO, or `bao` in PATH. */
const baoBinary = [
  process.env['HOLDFAST_BAO'] ?? '',
  ...(process.env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'bao')),
].find((path) => path !== '' && existsSync(path));

export const baoSkip =
  baoBinary === undefined ? 'optional: OpenBao is not installed (set HOLDFAST_BAO)' : undefined;

const rootToken = 'root-token-of-a-test';

/** Starts OpenBao or Vault on a port of its own, with a Transit engine, a role and what the role may do. */
export async function startBao(): Promise<TransitServer> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-bao-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const flags = ['-dev', '-dev-no-store-token', `-dev-root-token-id=${rootToken}`];
  const child = spawn(baoBinary ?? '', ['server', ...flags, `-dev-listen-address=127.0.0.1:${port}`], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { HOME: folder, PATH: process.env['PATH'] },
  });
  endsWithUs(child);
  const stop = async (): Promise<void> => {
    await ended(child);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const [unsealKey] = await Promise.all([unsealKeyIn(child), reachable(child, url)]);
    const admin = adminOf(url);
    const { roleId, secretId } = await setUp(admin);
    const namespace = await makeNamespace(admin);
    const files = await writeSecrets(folder, rootToken, secretId);
    const means = operatorOf(admin, unsealKey);
    return { url, folder, ...files, roleId, namespace, admin, ...means, [Symbol.asyncDispose]: stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Token and secret id in files closed to others. */
export async function writeSecrets(
  folder: string,
  token: string,
  secretId: string,
): Promise<{ tokenFile: string; secretIdFile: string }> {
  const tokenFile = join(folder, 'token');
  const secretIdFile = join(folder, 'secret-id');
  await writeFile(tokenFile, `${token}\n`, { mode: 0o600 });
  await writeFile(secretIdFile, `${secretId}\n`, { mode: 0o600 });
  return { tokenFile, secretIdFile };
}

/** What the operator of a real server does. */
function operatorOf(
  admin: Admin,
  unsealKey: string,
): Pick<TransitServer, 'seal' | 'unseal' | 'revokeLogins' | 'wrapSecretId'> {
  return {
    seal: async () => void (await admin('POST', 'sys/seal', {})),
    unseal: async () => void (await admin('POST', 'sys/unseal', { key: unsealKey })),
    revokeLogins: async () => {
      const ours = textAt(await admin('GET', 'auth/token/lookup-self'), 'accessor');
      const all: unknown = fieldAt(await admin('GET', 'auth/token/accessors?list=true'), 'keys');
      for (const accessor of Array.isArray(all) ? all : [])
        if (accessor !== ours) await admin('POST', 'auth/token/revoke-accessor', { accessor });
    },
    wrapSecretId: async () => {
      const path = 'auth/approle/role/holdfast/secret-id';
      const answer = await admin('POST', path, {}, { 'x-vault-wrap-ttl': '60s' });
      return textAt(answer, 'token', 'wrap_info');
    },
  };
}

/** The server says it once, on its output, which is read to the end lest the server wait for a reader. */
async function unsealKeyIn(child: ChildProcess): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = '';
  child.stdout?.setEncoding('utf8');
  child.stdout?.on('data', (part: string) => {
    text = text.length > 65_536 ? '' : text + part;
    const key = /^Unseal Key: (\S+)$/m.exec(text)?.[1];
    if (key !== undefined) resolve(key);
  });
  child.once('close', () => reject(new Error('the server ended without an unseal key')));
  return promise;
}

export function adminOf(url: string, token = rootToken): Admin {
  return async (method, path, body, headers = {}) => {
    const response = await fetch(`${url}/v1/${path}`, {
      method,
      headers: { 'x-vault-token': token, ...headers },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    if (response.status >= 300) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  };
}

/** What the role needs, and no more: the operating guide says the same. */
const policy = `
path "transit/keys/+" { capabilities = ["read"] }
path "transit/encrypt/+" { capabilities = ["update"] }
path "transit/decrypt/+" { capabilities = ["update"] }
path "transit/rewrap/+" { capabilities = ["update"] }
`;

async function setUp(admin: Admin): Promise<{ roleId: string; secretId: string }> {
  await admin('POST', 'sys/mounts/transit', { type: 'transit' });
  await admin('POST', 'sys/auth/approle', { type: 'approle' });
  await admin('POST', 'sys/policies/acl/holdfast', { policy });
  await admin('POST', 'auth/approle/role/holdfast', { token_policies: 'holdfast', token_ttl: '10m' });
  const role = await admin('GET', 'auth/approle/role/holdfast/role-id');
  const secret = await admin('POST', 'auth/approle/role/holdfast/secret-id', {});
  return { roleId: textAt(role, 'role_id'), secretId: textAt(secret, 'secret_id') };
}

/** Undefined at Vault, which has namespaces for paying customers only, and at OpenBao before 2.3. */
async function makeNamespace(admin: Admin): Promise<string | undefined> {
  const name = 'team';
  try {
    await admin('POST', `sys/namespaces/${name}`, {});
  } catch {
    return undefined;
  }
  await admin('POST', 'sys/mounts/transit', { type: 'transit' }, { 'x-vault-namespace': name });
  return name;
}

function textAt(answer: unknown, name: string, part = 'data'): string {
  const value = fieldAt(answer, name, part);
  if (typeof value !== 'string') throw new Error(`no ${name} in the answer`);
  return value;
}

function fieldAt(answer: unknown, name: string, part = 'data'): unknown {
  return fieldOf(fieldOf(answer, part), name);
}

async function reachable(child: ChildProcess, url: string): Promise<void> {
  for (let attempt = 0; attempt < 300; attempt++) {
    if (child.exitCode !== null) throw new Error(`bao ended with status ${child.exitCode}`);
    const answer = await fetch(`${url}/v1/sys/health`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.status === 200) return;
    await sleep(100);
  }
  throw new Error('bao does not answer');
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
