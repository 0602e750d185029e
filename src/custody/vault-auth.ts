// Where the token comes from that an OpenBao or Vault server wants with each request.
//
//   token file   kept fresh by somebody else (an agent beside us); read again when the server refuses it
//   AppRole      role id and secret id are exchanged for a token, again before its lease ends; the secret id may
//                have been handed over in a wrapping, which opens once: who opened it before us is found out
//
// Neither token nor secret id ever stands in an error, a log line or a property that can be inspected.

import type { Clock } from '../core/clock.ts';
import { second } from '../core/clock.ts';
import { unlessAborted } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { asBuffer } from '../core/bytes.ts';
import { readSecretFile } from './secret-file.ts';
import { answerErrors, type VaultAnswer, type VaultHttp } from './vault-http.ts';

export interface TokenFileAuth {
  readonly method: 'token-file';
  readonly tokenFile: string;
}

export interface AppRoleAuth {
  readonly method: 'approle';
  readonly roleId: string;
  /** File with the secret id, or with the token of its wrapping. */
  readonly secretIdFile: string;
  /** The file holds a wrapping token (response wrapping). Default false. */
  readonly wrapped?: boolean;
  /** Where the method is mounted. Default 'approle'. */
  readonly mount?: string;
}

export type VaultAuth = TokenFileAuth | AppRoleAuth;

export interface TokenSource {
  /** A token that should work. Throws FORBIDDEN when the login is refused, what reading a file throws, KEY_UNAVAILABLE, TIMEOUT. */
  token(signal?: AbortSignal): Promise<string>;
  /** The server refused `token`: the next one is another, if there is another. */
  drop(token: string): void;
}

export function tokenSource(auth: VaultAuth, http: VaultHttp, clock: Clock): TokenSource {
  return auth.method === 'token-file' ? new TokenFile(auth) : new AppRole(auth, http, clock);
}

class TokenFile implements TokenSource {
  readonly #path: string;
  #token: string | undefined;

  constructor({ tokenFile }: TokenFileAuth) {
    this.#path = tokenFile;
  }

  async token(): Promise<string> {
    this.#token ??= await readToken(this.#path, 'token of the key server');
    return this.#token;
  }

  drop(token: string): void {
    if (this.#token === token) this.#token = undefined;
  }
}

class AppRole implements TokenSource {
  readonly #auth: AppRoleAuth;
  readonly #http: VaultHttp;
  readonly #clock: Clock;
  #current: Login | undefined;
  #pending: Promise<Login> | undefined;
  #secretId: string | undefined;

  constructor(auth: AppRoleAuth, http: VaultHttp, clock: Clock) {
    this.#auth = auth;
    this.#http = http;
    this.#clock = clock;
  }

  /** Many callers make one login; a failed one is not remembered. */
  async token(signal?: AbortSignal): Promise<string> {
    if (this.#current !== undefined && this.#clock.monotonic() < this.#current.renewAtMs)
      return this.#current.token;
    this.#pending ??= this.#logIn().finally(() => {
      this.#pending = undefined;
    });
    this.#current = await unlessAborted(this.#pending, signal);
    return this.#current.token;
  }

  drop(token: string): void {
    if (this.#current?.token === token) this.#current = undefined;
  }

  async #logIn(): Promise<Login> {
    const { roleId, mount = 'approle' } = this.#auth;
    const secretId = await this.#readSecretId();
    const body = { role_id: roleId, secret_id: secretId };
    const answer = await this.#http.exchange({ method: 'POST', path: `auth/${mount}/login`, body });
    const auth = fieldOf(answer.body, 'auth');
    const token = fieldOf(auth, 'client_token');
    const leaseSeconds = fieldOf(auth, 'lease_duration');
    if (answer.status !== 200 || typeof token !== 'string')
      throw loginRefused(answer, `login with role "${roleId}"`);
    // A lease of 0 never ends. Two thirds leave time for a server that is away for a while.
    const leaseMs = typeof leaseSeconds === 'number' && leaseSeconds > 0 ? leaseSeconds * second : Infinity;
    return { token: checkedToken(token), renewAtMs: this.#clock.monotonic() + (leaseMs * 2) / 3 };
  }

  async #readSecretId(): Promise<string> {
    if (this.#secretId !== undefined) return this.#secretId;
    const text = await readToken(this.#auth.secretIdFile, 'secret id of the key server');
    if (this.#auth.wrapped !== true) return text; // read anew each time: it may be replaced
    const answer = await this.#http.exchange({ method: 'POST', path: 'sys/wrapping/unwrap', token: text });
    const secretId = fieldOf(fieldOf(answer.body, 'data'), 'secret_id');
    if (answer.status !== 200 || typeof secretId !== 'string')
      throw loginRefused(
        answer,
        'opening the wrapped secret id, which works once: if it was not us, somebody else has it;',
      );
    this.#secretId = secretId;
    return secretId;
  }
}

interface Login {
  readonly token: string;
  /** By the monotonic clock. */
  readonly renewAtMs: number;
}

/** A status of 5xx is the server's trouble, everything else a refusal; but Vault 1.13.0 answers a wrong secret id with 500. */
function loginRefused(answer: VaultAnswer, what: string): HoldfastError {
  const { status } = answer;
  const said = answerErrors(answer);
  const mayPass = (status >= 500 && said !== 'invalid secret id') || status === 429;
  return new HoldfastError(
    mayPass ? 'KEY_UNAVAILABLE' : 'FORBIDDEN',
    `key server: ${what} failed with status ${status}${said === '' ? '' : `: ${said}`}`,
  );
}

async function readToken(path: string, what: string): Promise<string> {
  const bytes = await readSecretFile(path, what);
  try {
    return checkedToken(asBuffer(bytes).toString('latin1'));
  } finally {
    bytes.fill(0);
  }
}

/** What can stand in a header; the message must not quote it. */
function checkedToken(text: string): string {
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    'a token or secret id of the key server has blanks or control characters',
  );
}
