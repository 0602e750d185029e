// A part from each of several providers, the branch key derived from all of them: nobody gives it alone. For two
// kinds of guard at once, such as a threshold group and a hardware token, and against the day when one is broken.
//
//   parts, in the order of the wraps ──HKDF-SHA-512, info = digest of the common label and their number──▶ branch key
//
// Each part is bound to its own label by its own provider. The common label is what all of those say, without group
// and key version: these change when one guard is switched to a newer key, and the branch key must not.
//
// A part has no commitment of its own: what was derived is matched with the record's.

import { hkdfSync } from 'node:crypto';
import { concat, lengthPrefixed, uint32 } from '../core/bytes.ts';
import { preimage, sha512 } from '../core/hash.ts';
import { encodeLabel, parseLabel } from '../envelope/label.ts';
import { keyBytes } from '../envelope/primitives.ts';
import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import { allOf, Combined, matched, notCombinable } from './combined.ts';
import { assertBatch, kindOfWrap, legsOf, refusedKey } from './legs.ts';
import type { KekProvider, NewKey, NewKeyScope, Unwrapped, UnwrapRequest, WrapRenewer } from './provider.ts';

/**
 * All of `providers` together. A wrap finds its provider by its kind; providers of one kind must keep their order.
 * What one of them renews or switches takes the place of what it replaces.
 *
 * @throws ARGUMENT_INVALID for fewer than two
 */
export function combineAll(providers: readonly KekProvider[]): KekProvider & WrapRenewer {
  return new AllOf(providers);
}

class AllOf extends Combined implements KekProvider {
  constructor(providers: readonly KekProvider[]) {
    super('all', providers);
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    const settled = await Promise.allSettled(this.providers.map((provider) => provider.createKey(scope)));
    try {
      const made = allOf(settled);
      const wraps = made.flatMap((each) => each.wraps);
      if (wraps.length !== made.length || made.some((each) => each.wraps.length !== 1))
        throw notCombinable(`${this.id}: a part takes exactly one wrap`);
      const branchKey = derived(
        made.map((each) => each.branchKey),
        wraps,
      );
      return { branchKey, wraps, combiner: 'all' };
    } finally {
      for (const each of settled) if (each.status === 'fulfilled') each.value.branchKey.fill(0);
    }
  }

  /** Every provider is asked at once. One that fails altogether fails the request: without it there is no key. */
  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    assertBatch(records);
    const plans = records.map((record) => this.#plan(record));
    const asking = this.providers.map(async (provider, place) => {
      const asked = plans.flatMap((plan) => plan?.asked[place] ?? []);
      return asked.length === 0 ? [] : provider.unwrap(asked, request);
    });
    const settled = await Promise.allSettled(asking);
    try {
      const columns = allOf(settled).map((column) => column.values());
      return records.map((record, index) => {
        const plan = plans[index];
        if (plan === undefined)
          return refusedKey(record, 'KEY_UNAVAILABLE', `it is not made of the parts of ${this.id}`);
        return joined(
          record,
          plan,
          columns.map((column) => column.next().value),
        );
      });
    } finally {
      for (const each of settled)
        if (each.status === 'fulfilled')
          for (const answer of each.value) if (answer.ok) answer.branchKey.fill(0);
    }
  }

  /** What each provider is asked; undefined when the wraps are not those of these providers. */
  #plan(record: BranchKeyBody): Plan | undefined {
    const legs = legsOf(record);
    if (record.combiner !== 'all' || legs.length !== this.providers.length) return undefined;
    const taken = new Set<number>();
    const places = this.providers.map(({ kind }) => {
      const place = legs.findIndex((leg, index) => !taken.has(index) && kindOfWrap(leg) === kind);
      taken.add(place);
      return place;
    });
    const asked = places.flatMap((place) => {
      const leg = legs[place];
      return leg === undefined ? [] : [{ ...record, wraps: [leg] }];
    });
    return asked.length === legs.length ? { legs, places, asked } : undefined;
  }
}

interface Plan {
  readonly legs: readonly BkWrap[];
  /** Which of the legs each provider has. */
  readonly places: readonly number[];
  /** For each provider the record with its leg alone. */
  readonly asked: readonly BranchKeyBody[];
}

function joined(
  record: BranchKeyBody,
  { legs, places }: Plan,
  answers: readonly (Unwrapped | undefined)[],
): Unwrapped {
  const parts: Uint8Array[] = [];
  for (const [provider, answer] of answers.entries()) {
    if (answer?.ok !== true) return answer ?? refusedKey(record, 'KEY_UNAVAILABLE', 'a part has no answer');
    parts[places[provider] ?? 0] = answer.branchKey;
  }
  return matched(record, { ok: true, branchKey: derived(parts, legs) });
}

/** The parts stay the caller's to zero. */
function derived(parts: readonly Uint8Array[], legs: readonly BkWrap[]): Uint8Array {
  const labels = legs.map(({ label }) => encodeLabel({ ...parseLabel(label), cg: 'all', kekVer: 1 }));
  // Digested, because the info of Node's HKDF has an upper bound.
  const info = sha512(preimage('CHORUS-SLURP-ALL-v1', uint32(legs.length), ...labels));
  const secret = concat(...parts.map(lengthPrefixed));
  try {
    return new Uint8Array(hkdfSync('sha512', secret, new Uint8Array(0), info, keyBytes));
  } finally {
    secret.fill(0);
  }
}
