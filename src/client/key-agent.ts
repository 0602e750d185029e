// Who wants to read one object and may not have a branch key: asks a key agent for the key of exactly that one.

import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { isMap } from '../core/shape.ts';
import { parseCapability } from '../custody/capability.ts';
import { openObjectKey, signKeyRequest } from '../custody/object-key.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import type { SignedRecord } from '../manifest/record.ts';
import { generateRequestKey } from '../custody/request-key.ts';
import type { KeyAgentPort } from './client.ts';
import { isErrorCode } from './failure.ts';

export interface KeyAgentOptions {
  /** Where the agent listens, e.g. http://127.0.0.1:7460. */
  readonly url: string;
  /** Its Ed25519 key: an answer of somebody else is not taken. */
  readonly agent: Uint8Array;
  /** Who asks, and the capability chain of that key, outermost first: it says which custody group is asked. */
  readonly signer: Signer;
  readonly chain: readonly Uint8Array[];
  /** A request without an answer for this long is given up, milliseconds. Default 30,000. */
  readonly timeoutMs?: number;
}

/** Beats for which a request is good: the most that an agent takes. */
const lifeBeats = 2;
const answerBytesMax = 65_536;

export class KeyAgentClient implements KeyAgentPort {
  readonly #options: KeyAgentOptions;
  readonly #url: URL;
  /** Custody group. */
  readonly #cg: string;

  /** Throws ARGUMENT_INVALID for a URL that is none and for a chain without a link, RECORD_INVALID for a damaged link. */
  constructor(options: KeyAgentOptions) {
    if (!URL.canParse('/v1/key', options.url))
      throw new HoldfastError('ARGUMENT_INVALID', `${options.url.slice(0, 200)} is no URL of a key agent`);
    const last = options.chain.at(-1);
    if (last === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', 'a key agent wants a capability: the chain is empty');
    this.#options = options;
    this.#url = new URL('/v1/key', options.url);
    this.#cg = parseCapability(last).cg;
  }

  async contentKey(
    { body, cid }: SignedRecord<ManifestBody>,
    beat: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { agent, signer, chain } = this.#options;
    const cg = this.#cg;
    const { publicKey: epk, secretKey } = generateRequestKey();
    try {
      const { message, hash } = signKeyRequest(
        {
          v: 1,
          reqId: new Uint8Array(randomBytes(32)),
          cg,
          agent,
          address: body.ucxl_address,
          version: body.context_version,
          manifest: cid,
          beat,
          exp: beat + lifeBeats,
          chain,
          epk,
          by: signer.publicKey,
        },
        signer,
      );
      return openObjectKey(await this.#ask(message, signal), secretKey, { hash, agent });
    } finally {
      secretKey.fill(0);
    }
  }

  async #ask(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const limit = AbortSignal.timeout(this.#options.timeoutMs ?? 30_000);
    try {
      const response = await fetch(this.#url, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body: new Uint8Array(message),
        redirect: 'error',
        signal: AbortSignal.any([signal, limit]),
      });
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (bytes.length > answerBytesMax)
        throw new HoldfastError('PEER_REFUSED', 'the key agent sent too much');
      if (response.ok) return bytes;
      throw errorOf(bytes, response.status);
    } catch (cause) {
      signal.throwIfAborted();
      if (cause instanceof HoldfastError) throw cause;
      const code = limit.aborted ? 'TIMEOUT' : 'PEER_UNREACHABLE';
      throw new HoldfastError(code, `the key agent at ${this.#url.origin} does not answer`, { cause });
    }
  }
}

function errorOf(bytes: Uint8Array, status: number): HoldfastError {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes).toString('utf8'));
  } catch {
    value = undefined;
  }
  const error = isMap(value) && isMap(value['error']) ? value['error'] : {};
  const { code, message } = error;
  return isErrorCode(code)
    ? new HoldfastError(code, `key agent: ${String(message)}`)
    : new HoldfastError('PEER_REFUSED', `the key agent answered with status ${status}`);
}
