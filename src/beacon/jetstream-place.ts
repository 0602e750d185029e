// Where in the stream a copy stands: which message it took last, found by what the messages hold.

import { sameBytes } from '../core/bytes.ts';
import type { GroupMessage } from './jetstream-message.ts';
import type { LogPosition } from './log.ts';

/**
 * `at`: everything up to message `sequence` is in the copy, which ends at `revision` or within the next message.
 * `behind`: the stream ends at `revision`, before the copy does. `other`: it tells another history in `sequence`.
 */
export type Place =
  | { readonly kind: 'at'; readonly sequence: number; readonly revision: number }
  | { readonly kind: 'behind'; readonly revision: number }
  | { readonly kind: 'other'; readonly sequence: number };

/**
 * Finds the place of a copy that ends at `end` in a stream of `lastSequence` messages, by some 20 reads in a million.
 * Throws what `read` throws.
 */
export async function findPlace(
  read: (sequence: number) => Promise<GroupMessage>,
  lastSequence: number,
  end: LogPosition,
): Promise<Place> {
  if (end.revision === 0) return { kind: 'at', sequence: 0, revision: 0 };
  if (lastSequence === 0) return { kind: 'behind', revision: 0 };
  let [low, high, found] = [1, lastSequence, await read(lastSequence)];
  if (found.end.revision < end.revision) return { kind: 'behind', revision: found.end.revision };
  // A copy is nearly always at the end.
  if (found.before.revision < end.revision) low = high;
  // Invariant: message `high`, which is `found`, ends at `end` or behind it; messages before `low` do not.
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    const message = await read(middle);
    if (message.end.revision >= end.revision) [high, found] = [middle, message];
    else low = middle + 1;
  }
  const entry = found.entries.find(({ revision }) => revision === end.revision);
  if (entry === undefined || !sameBytes(entry.chain, end.chain)) return { kind: 'other', sequence: high };
  if (found.end.revision === end.revision) return { kind: 'at', sequence: high, revision: end.revision };
  return { kind: 'at', sequence: high - 1, revision: found.before.revision };
}
