// What several providers taken as one have in common (combine-any.ts, combine-all.ts).

import { HoldfastError } from '../core/errors.ts';
import type { BranchKeyBody, KekFields } from '../envelope/records.ts';
import { matchesCommitment } from '../envelope/wrap.ts';
import { assertBatch, refusedKey } from './legs.ts';
import {
  type KekProvider,
  type ProviderDescription,
  type ProviderHealth,
  type Renewed,
  renewsWraps,
  type Unwrapped,
  type WrapRenewer,
} from './provider.ts';

export abstract class Combined implements AsyncDisposable, WrapRenewer {
  readonly id: string;
  readonly kind: 'any' | 'all';
  readonly providers: readonly KekProvider[];
  readonly #first: KekProvider;

  /** Throws ARGUMENT_INVALID for fewer than two. */
  constructor(kind: 'any' | 'all', providers: readonly KekProvider[]) {
    const [first] = providers;
    if (first === undefined || providers.length < 2)
      throw notCombinable(`custody by "${kind}" takes at least two providers`);
    this.kind = kind;
    this.id = `${kind}(${providers.map(({ id }) => id).join(', ')})`;
    this.providers = providers;
    this.#first = first;
  }

  /** Good only when every one is: with one away, `any` makes no keys and `all` gives none. */
  async health(): Promise<ProviderHealth> {
    const all = await Promise.all(this.providers.map((provider) => provider.health()));
    return { ok: all.every(({ ok }) => ok), text: all.map(({ text }) => text).join('; ') };
  }

  describe(): ProviderDescription {
    const all = this.providers.map((provider) => provider.describe());
    const isFit = ({ production }: ProviderDescription): boolean => production;
    const production = this.kind === 'any' ? all.every(isFit) : all.some(isFit);
    const head =
      this.kind === 'any' ? 'Any one of these gives every key:' : 'Only all of these together give a key:';
    return { kind: this.kind, production, text: [head, ...all.map(({ text }) => text)].join(' ') };
  }

  /** Of the first one: it names the custody of these keys. */
  kek(): KekFields {
    return this.#first.kek();
  }

  /** Each one that can renews its own wraps, one after the other. */
  async renew(records: readonly BranchKeyBody[], signal?: AbortSignal): Promise<readonly Renewed[]> {
    assertBatch(records);
    let answers: readonly Renewed[] = records.map(() => ({ ok: true, wraps: undefined }));
    for (const provider of this.providers) {
      if (!renewsWraps(provider)) continue;
      const current = records.map((record, index) => withWraps(record, answers[index]));
      const next = await provider.renew(current, signal);
      answers = answers.map((answer, index) => merged(answer, next[index]));
    }
    return answers;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.providers.map((provider) => provider[Symbol.asyncDispose]()));
  }
}

/** The answer if it is the key that the record commits to; a wrong key is zeroed and refused. */
export function matched(record: BranchKeyBody, answer: Unwrapped): Unwrapped {
  if (!answer.ok || matchesCommitment(answer.branchKey, record.commit)) return answer;
  answer.branchKey.fill(0);
  return refusedKey(record, 'DECRYPT_FAILED', 'another key than its record commits to was given');
}

/** The results, or the first failure when there is one. */
export function allOf<T>(settled: readonly PromiseSettledResult<T>[]): T[] {
  return settled.map((each) => {
    if (each.status === 'fulfilled') return each.value;
    throw each.reason instanceof Error ? each.reason : new Error('a provider failed', { cause: each.reason });
  });
}

export function notCombinable(message: string): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', message);
}

function withWraps(record: BranchKeyBody, answer: Renewed | undefined): BranchKeyBody {
  return answer?.ok === true && answer.wraps !== undefined ? { ...record, wraps: answer.wraps } : record;
}

/** A refusal stays; otherwise the newer wraps. */
function merged(before: Renewed, after: Renewed | undefined): Renewed {
  if (!before.ok || after === undefined) return before;
  return after.ok && after.wraps === undefined ? before : after;
}
