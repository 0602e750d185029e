// Whoever wrapped a key gives it back: each record goes to the providers of the kinds that its wraps name. So a
// cluster reads what any of its providers has ever wrapped, whichever of them makes the keys now.

import type { BkWrap, BranchKeyBody } from '../envelope/records.ts';
import { parseLabel } from '../envelope/label.ts';
import { combineAll } from './combine-all.ts';
import { askAll, chosen } from './combine-any.ts';
import { matched } from './combined.ts';
import { assertBatch, kindOfWrap, legsOf, refusedKey, takesSeveral } from './legs.ts';
import type { KekProvider, Unwrapped, UnwrapRequest } from './provider.ts';

/**
 * As `KekProvider.unwrap`, out of all `providers`: asked in this order, each only for what has a wrap of its kind and
 * was not given yet. One that fails altogether refuses its items only.
 */
export async function unwrapByWrap(
  providers: readonly KekProvider[],
  records: readonly BranchKeyBody[],
  request: UnwrapRequest,
): Promise<readonly Unwrapped[]> {
  assertBatch(records);
  const answers: (Unwrapped | undefined)[] = records.map(() => undefined);
  const settle = async (provider: KekProvider, places: readonly number[]): Promise<void> => {
    const asked = places.flatMap((at) => records[at] ?? []);
    if (asked.length === 0) return;
    const given = await askAll(provider, asked, request);
    for (const [index, at] of places.entries()) {
      const [record, answer] = [asked[index], given[index]];
      if (record === undefined || answer === undefined) continue;
      // A part of a key has no commitment of its own.
      const checked = record.combiner === 'all' ? answer : matched(record, answer);
      answers[at] = chosen(record, answers[at], checked);
    }
  };
  for (const [provider, places] of together(providers, records)) await settle(provider, places);
  for (const provider of providers) {
    const places = [...records.entries()]
      .filter(([at, record]) => answers[at]?.ok !== true && !takesSeveral(record))
      .filter(([, record]) => legsOf(record).some((leg) => kindOfWrap(leg) === provider.kind));
    await settle(
      provider,
      places.map(([at]) => at),
    );
  }
  return records.map((record, at) => answers[at] ?? refusedKey(record, 'KEY_UNAVAILABLE', nobody(record)));
}

/** For records that take several providers: these as one, and the places of the records. */
function together(
  providers: readonly KekProvider[],
  records: readonly BranchKeyBody[],
): ReadonlyMap<KekProvider, readonly number[]> {
  const made = new Map<string, { readonly provider: KekProvider; readonly places: number[] }>();
  for (const [at, record] of records.entries()) {
    if (!takesSeveral(record)) continue;
    const parts = partsOf(providers, legsOf(record));
    if (parts === undefined) continue;
    const id = parts.map((part) => providers.indexOf(part)).join(' ');
    const one = made.get(id) ?? { provider: combineAll(parts), places: [] };
    one.places.push(at);
    made.set(id, one);
  }
  return new Map([...made.values()].map(({ provider, places }) => [provider, places]));
}

/** The provider of each wrap; undefined when one of them is not there. */
function partsOf(
  providers: readonly KekProvider[],
  legs: readonly BkWrap[],
): readonly KekProvider[] | undefined {
  const parts: KekProvider[] = [];
  for (const leg of legs) {
    const { cg } = parseLabel(leg.label);
    const part = providers.find(
      (each) => !parts.includes(each) && each.kind === kindOfWrap(leg) && groupOf(each) === cg,
    );
    if (part === undefined) return undefined;
    parts.push(part);
  }
  return parts;
}

/** The custody group of a provider; undefined for one that has no key yet: it has wrapped nothing. */
export function groupOf(provider: KekProvider): string | undefined {
  try {
    return provider.kek().cg;
  } catch {
    return undefined;
  }
}

function nobody(record: BranchKeyBody): string {
  const wanted = legsOf(record).map((leg) => `${kindOfWrap(leg)} (${parseLabel(leg.label).cg})`);
  const which = takesSeveral(record) ? 'all of' : 'one of';
  return `it takes ${which} ${wanted.join(', ')}, and that is not among the key providers here`;
}
