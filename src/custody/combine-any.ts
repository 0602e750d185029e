// One branch key, wrapped by each of several providers: whichever answers will do. For availability.
//
// What a provider gives is matched with the record's commitment before it is believed, so one provider's wrong
// answer only means asking the next.

import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { toHex } from '../core/bytes.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import { Combined, allOf, matched, notCombinable } from './combined.ts';
import { assertBatch, refusedKey } from './legs.ts';
import {
  type KekProvider,
  type KeyWrapper,
  type NewKey,
  type NewKeyScope,
  type Unwrapped,
  type UnwrapRequest,
  type WrapRenewer,
  wrapsGivenKeys,
} from './provider.ts';

/**
 * Any one of `providers`, asked in this order, the next only for what the one before could not give. At most one
 * may be unable to wrap a given key; it makes the keys then, else the first does. Making a key needs every one of
 * them: a key that fewer could open would break the promise.
 *
 * @throws ARGUMENT_INVALID for fewer than two, or for two that cannot wrap given keys
 */
export function combineAny(providers: readonly KekProvider[]): KekProvider & WrapRenewer {
  const makers = providers.filter((provider) => !wrapsGivenKeys(provider));
  if (makers.length > 1)
    throw notCombinable(`${makers.map(({ id }) => id).join(' and ')} cannot wrap one and the same key`);
  return makers.length === 0 ? new AnyOfWrappers(providers) : new AnyOf(providers, makers[0]);
}

class AnyOf extends Combined implements KekProvider {
  readonly #maker: KekProvider | undefined;

  constructor(providers: readonly KekProvider[], maker = providers[0]) {
    super('any', providers);
    this.#maker = maker;
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    const made = await this.#maker?.createKey(scope);
    if (made?.combiner !== 'any')
      throw notCombinable(`${this.id}: a combination of all cannot be one of any`);
    try {
      const wrapping = this.providers.map(async (provider) => {
        if (provider === this.#maker) return made.wraps;
        return wrapsGivenKeys(provider) ? provider.wrapKey(scope, made.branchKey) : [];
      });
      return { ...made, wraps: allOf(await Promise.allSettled(wrapping)).flat() };
    } catch (error) {
      made.branchKey.fill(0);
      throw error;
    }
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    assertBatch(records);
    const answers: (Unwrapped | undefined)[] = records.map(() => undefined);
    for (const provider of this.providers) {
      const open = records
        .map((record, index) => ({ record, index }))
        .filter(({ index }) => answers[index]?.ok !== true);
      if (open.length === 0) break;
      const asked = open.map(({ record }) => record);
      const given = await askAll(provider, asked, request);
      for (const [place, { record, index }] of open.entries()) {
        const answer = given[place];
        if (answer !== undefined) answers[index] = chosen(record, answers[index], matched(record, answer));
      }
    }
    return records.map(
      (record, index) => answers[index] ?? refusedKey(record, 'KEY_UNAVAILABLE', 'no answer'),
    );
  }
}

class AnyOfWrappers extends AnyOf implements KeyWrapper {
  async wrapKey(scope: NewKeyScope, branchKey: Uint8Array): Promise<readonly BkWrap[]> {
    const wrappers = this.providers.filter(wrapsGivenKeys);
    const wrapping = wrappers.map((provider) => provider.wrapKey(scope, branchKey));
    return allOf(await Promise.allSettled(wrapping)).flat();
  }
}

/** A provider that fails altogether is a refusal of every item, unless the caller has given up. */
export async function askAll(
  provider: KekProvider,
  records: readonly BranchKeyBody[],
  request: UnwrapRequest,
): Promise<readonly Unwrapped[]> {
  try {
    return await provider.unwrap(records, request);
  } catch (error) {
    request.signal?.throwIfAborted();
    const code = isHoldfastError(error) ? error.code : 'KEY_UNAVAILABLE';
    return records.map((record) => refusedKey(record, code, describeError(error), error));
  }
}

/** A key, or a refusal with the reasons of all, under the code of the one asked first. */
export function chosen(record: BranchKeyBody, before: Unwrapped | undefined, after: Unwrapped): Unwrapped {
  if (before === undefined || before.ok || after.ok) return after;
  const { code } = before.error;
  const bkId = toHex(record.bkId);
  const prefix = `branch key ${bkId}: `;
  const message = `${before.error.message}; ${after.error.message.replace(prefix, '')}`;
  return { ok: false, error: new HoldfastError(code, message, { details: { bkId }, cause: before.error }) };
}
