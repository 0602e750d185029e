// A write sent twice with the same Idempotency-Key happens once.
//
// What is remembered: the answer, and a keyed digest of the request, so that the same key with another
// request is refused rather than answered wrongly. The digest's key lives in this process only: a digest of
// plaintext that somebody else could recompute would tell them what was stored. Memory is bounded in count
// and time; after a restart of the door a repeated write makes a new version, which loses nothing.

import { createHmac, type Hmac, randomBytes } from 'node:crypto';
import { minute } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Reply } from './answer.ts';

const rememberedMax = 10_000;
const rememberedMs = 60 * minute;

interface Remembered {
  readonly digest: string;
  readonly reply: Reply;
  readonly atMs: number;
}

export class IdempotencyKeys {
  readonly #now: () => number;
  readonly #key = randomBytes(32);
  readonly #done = new Map<string, Remembered>();
  readonly #underway = new Set<string>();

  /** @param now milliseconds, any monotonic origin */
  constructor(now: () => number) {
    this.#now = now;
  }

  /**
   * Runs `work` once per `key`. `work` gets the body through a tap that digests it.
   *
   * @param facts what else makes two requests the same: method and target
   * @throws IDEMPOTENCY_MISMATCH for another request under the key, RATE_LIMITED while the first is under way
   */
  async once(
    key: string | undefined,
    facts: string,
    body: AsyncIterable<Uint8Array>,
    work: (body: AsyncIterable<Uint8Array>) => Promise<Reply>,
  ): Promise<Reply> {
    if (key === undefined) return work(body);
    if (key.length > 256)
      throw new HoldfastError('ARGUMENT_INVALID', 'Idempotency-Key is longer than 256 characters');
    const digest = createHmac('sha256', this.#key).update(`${facts}\n`);
    const before = this.#recall(key);
    if (before !== undefined) return replay(before, digest, body);
    if (this.#underway.has(key))
      throw new HoldfastError(
        'RATE_LIMITED',
        'a request with this Idempotency-Key is still under way; retry',
      );
    this.#underway.add(key);
    try {
      const reply = await work(tapped(body, digest));
      this.#remember(key, { digest: digest.digest('hex'), reply, atMs: this.#now() });
      return reply;
    } finally {
      this.#underway.delete(key);
    }
  }

  #recall(key: string): Remembered | undefined {
    const found = this.#done.get(key);
    return found !== undefined && this.#now() - found.atMs <= rememberedMs ? found : undefined;
  }

  #remember(key: string, value: Remembered): void {
    this.#done.delete(key);
    this.#done.set(key, value);
    const oldest = this.#done.keys().next().value;
    if (this.#done.size > rememberedMax && oldest !== undefined) this.#done.delete(oldest);
  }
}

async function replay(before: Remembered, digest: Hmac, body: AsyncIterable<Uint8Array>): Promise<Reply> {
  for await (const chunk of body) digest.update(chunk);
  if (digest.digest('hex') !== before.digest)
    throw new HoldfastError('IDEMPOTENCY_MISMATCH', 'this Idempotency-Key was used for another request');
  return before.reply;
}

async function* tapped(
  body: AsyncIterable<Uint8Array>,
  digest: Hmac,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of body) {
    digest.update(chunk);
    yield chunk;
  }
}
