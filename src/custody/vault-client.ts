// Calls to an OpenBao or Vault server that come through: a token with each, a second one when the first was
// refused, and a bounded number of attempts when the server is sealed, overloaded or away.

import { setTimeout as sleep } from 'node:timers/promises';
import { type ErrorCode, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { TokenSource } from './vault-auth.ts';
import { answerErrors, type VaultAnswer, type VaultHttp, type VaultRequest } from './vault-http.ts';

export interface RetryOptions {
  /** Attempts of one call in all, 1…10. */
  readonly attemptsMax: number;
  /** Before the second attempt, milliseconds; doubles with each one more, and is stretched by up to a half by chance. */
  readonly pauseMs: number;
}

type VaultCall = Omit<VaultRequest, 'token'>;

/** Too many requests, standby, sealed, and what proxies answer for an absent server. */
const passing = new Set([412, 429, 472, 473, 500, 502, 503, 504]);

export class VaultClient implements Disposable {
  readonly #http: VaultHttp;
  readonly #tokens: TokenSource;
  readonly #retry: RetryOptions;

  constructor(http: VaultHttp, tokens: TokenSource, retry: RetryOptions) {
    this.#http = http;
    this.#tokens = tokens;
    this.#retry = retry;
  }

  get origin(): string {
    return this.#http.origin;
  }

  /**
   * The answer to a call, which must be one that does no harm when it is done twice. A status below 500 comes back
   * to the caller, and so does a higher one with results in it; 403 does not.
   *
   * @throws FORBIDDEN, TIMEOUT, KEY_UNAVAILABLE, the reason of `call.signal`, or why there is no token
   */
  async call(call: VaultCall): Promise<VaultAnswer> {
    let refusals = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        const token = await this.#tokens.token(call.signal);
        const answer = await this.#http.exchange({ ...call, token });
        if (answer.status === 403) {
          this.#tokens.drop(token);
          if (++refusals > 1) throw failure('FORBIDDEN', this.origin, call, answer);
          attempt--; // with another token it is another question
          continue;
        }
        if (!isPassing(answer)) return answer;
        throw failure('KEY_UNAVAILABLE', this.origin, call, answer);
      } catch (error) {
        if (!mayRetry(error) || attempt >= this.#retry.attemptsMax) throw error;
        const pauseMs = this.#retry.pauseMs * 2 ** (attempt - 1);
        await pause(pauseMs * (1 + Math.random() / 2), call.signal);
      }
    }
  }

  /** One exchange without token, namespace and second attempt: for asking after the server's health, which a namespace has none of. */
  async ask(path: string): Promise<VaultAnswer> {
    return this.#http.exchange({ method: 'GET', path, outsideNamespace: true });
  }

  /** What an answer with an unwelcome status means. */
  failure(code: ErrorCode, call: VaultCall, answer: VaultAnswer): HoldfastError {
    return failure(code, this.origin, call, answer);
  }

  [Symbol.dispose](): void {
    this.#http[Symbol.dispose]();
  }
}

/** A text that fails to authenticate is answered with 500 by Vault up to 1.9: asking again would change nothing. */
function isPassing(answer: VaultAnswer): boolean {
  if (!passing.has(answer.status)) return false;
  if (fieldOf(fieldOf(answer.body, 'data'), 'batch_results') !== undefined) return false;
  return !answerErrors(answer).includes('message authentication failed');
}

function mayRetry(error: unknown): boolean {
  return isHoldfastError(error, 'KEY_UNAVAILABLE') || isHoldfastError(error, 'TIMEOUT');
}

async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(ms, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    signal?.throwIfAborted(); // its own reason rather than the timer's
    throw error;
  }
}

function failure(code: ErrorCode, origin: string, { path }: VaultCall, answer: VaultAnswer): HoldfastError {
  const said = answerErrors(answer);
  return new HoldfastError(
    code,
    `${origin} answered ${path} with status ${answer.status}${said === '' ? '' : `: ${said}`}`,
    { details: { url: origin, path, status: answer.status } },
  );
}
