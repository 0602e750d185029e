// One HTTP exchange with an OpenBao or Vault server: JSON both ways, bounded in time and size, over TLS with a
// certificate authority of the organisation's own.
//
// On node:https, because the global fetch takes no certificate authority. Redirects are not followed: they would
// carry the token to a place that nobody configured. Without TLS only the own machine is talked to.

import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { type Transport, transportOf } from '../net/http.ts';

export interface VaultHttpOptions {
  /** Like https://bao.example.org:8200; http:// for the loopback only. */
  readonly url: string;
  /** PEM file of the certificate authorities to trust instead of the system's. */
  readonly caFile?: string | undefined;
  /** Namespace of every path, where the server has them. */
  readonly namespace?: string | undefined;
  /** From the first byte sent to the last one received, milliseconds. */
  readonly timeoutMs: number;
}

export interface VaultRequest {
  readonly method: 'GET' | 'POST';
  /** Below /v1/, already encoded. */
  readonly path: string;
  readonly body?: object | undefined;
  readonly token?: string | undefined;
  /** Leaves the namespace out: for the few paths that a server has outside of namespaces only. Default false. */
  readonly outsideNamespace?: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface VaultAnswer {
  readonly status: number;
  /** Undefined for an empty body. */
  readonly body: unknown;
}

/** A full batch of 500 items is about 200 KiB. */
const answerBytesMax = 4 * 1_048_576;
const socketsMax = 8;

/** Throws ARGUMENT_INVALID for a URL that cannot be used, FILE_UNREADABLE for the file of authorities. */
export async function openVaultHttp(options: VaultHttpOptions): Promise<VaultHttp> {
  const url = checkedUrl(options.url);
  if (options.caFile === undefined) return new VaultHttp(url, options, undefined);
  try {
    return new VaultHttp(url, options, await readFile(options.caFile, 'utf8'));
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `certificate authorities: ${options.caFile} cannot be read`, {
      cause,
    });
  }
}

export class VaultHttp implements Disposable {
  readonly origin: string;
  readonly #url: URL;
  readonly #options: VaultHttpOptions;
  readonly #transport: Transport;

  constructor(url: URL, options: VaultHttpOptions, ca: string | undefined) {
    this.#url = url;
    this.origin = url.origin;
    this.#options = options;
    this.#transport = transportOf(url, { maxSockets: socketsMax, ...(ca === undefined ? {} : { ca }) });
  }

  /**
   * Sends a request once and reads the answer, whatever its status.
   *
   * @throws TIMEOUT, KEY_UNAVAILABLE when the server cannot be reached or does not speak JSON, or the reason of `signal`
   */
  async exchange(request: VaultRequest): Promise<VaultAnswer> {
    request.signal?.throwIfAborted();
    const overdue = AbortSignal.timeout(this.#options.timeoutMs);
    const signal = request.signal === undefined ? overdue : AbortSignal.any([overdue, request.signal]);
    try {
      const incoming = await this.#send(request, signal);
      const status = incoming.statusCode ?? 0;
      return { status, body: parseJson(await readAll(incoming), status) };
    } catch (cause) {
      request.signal?.throwIfAborted();
      if (isHoldfastError(cause)) throw cause;
      if (overdue.aborted)
        throw this.#failure('TIMEOUT', `did not answer within ${this.#options.timeoutMs} ms`, cause);
      throw this.#failure('KEY_UNAVAILABLE', 'cannot be reached', cause);
    }
  }

  [Symbol.dispose](): void {
    this.#transport.agent.destroy();
  }

  async #send(request: VaultRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { method, path, body, token } = request;
    const text = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const namespace = request.outsideNamespace === true ? undefined : this.#options.namespace;
    const outgoing = this.#transport.request(new URL(`/v1/${path}`, this.#url), {
      method,
      agent: this.#transport.agent,
      signal,
      headers: {
        'x-vault-request': 'true',
        ...(token === undefined ? {} : { 'x-vault-token': token }),
        ...(namespace === undefined ? {} : { 'x-vault-namespace': namespace }),
        ...(text === undefined ? {} : { 'content-type': 'application/json', 'content-length': text.length }),
      },
    });
    outgoing.on('response', resolve);
    outgoing.on('error', reject);
    outgoing.end(text);
    try {
      return await promise;
    } finally {
      text?.fill(0); // it may hold a branch key; the socket has taken it
    }
  }

  #failure(code: 'TIMEOUT' | 'KEY_UNAVAILABLE', reason: string, cause: unknown): HoldfastError {
    return new HoldfastError(code, `${this.origin} ${reason}`, { details: { url: this.origin }, cause });
  }
}

/** What the server said, shortened and on one line: it never repeats what it was sent. */
export function answerErrors({ body }: VaultAnswer): string {
  const errors = fieldOf(body, 'errors');
  if (!Array.isArray(errors)) return '';
  const text = errors.filter((each) => typeof each === 'string').join('; ');
  return text.replaceAll(/\s*\p{Cc}+\s*/gu, ' ').slice(0, 300);
}

async function readAll(incoming: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let sizeBytes = 0;
  for await (const part of incoming as AsyncIterable<Buffer>) {
    sizeBytes += part.length;
    if (sizeBytes > answerBytesMax) {
      incoming.destroy();
      throw new HoldfastError('KEY_UNAVAILABLE', `an answer of over ${answerBytesMax} bytes is not read`);
    }
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Without the cause, which would quote the answer, and with it perhaps a key. */
function parseJson(bytes: Buffer, status: number): unknown {
  if (bytes.length === 0) return undefined;
  try {
    const value: unknown = JSON.parse(bytes.toString());
    return value;
  } catch {
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `an answer with status ${status} is no JSON: is this the right server?`,
    );
  } finally {
    bytes.fill(0);
  }
}

const loopback = new Set(['127.0.0.1', '[::1]', 'localhost']);

function checkedUrl(text: string): URL {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== '' || url.password !== '')
    throw new HoldfastError('ARGUMENT_INVALID', 'the URL of the key server must look like https://host:8200');
  if (url.protocol === 'http:' && !loopback.has(url.hostname))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${url.origin}: keys and tokens travel over https only, but on the loopback`,
    );
  return url;
}
