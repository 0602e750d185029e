// From the places where sealing secrets may lie to an open share store, and from one secret to another.
//
//   present secret ──reseal──▶ the store, in one step, under `….next` ──rename──▶ `….next` is the present one
//
// A power cut between the two leaves a store that opens with `….next`: the next opening finds that and renames. Before
// the first it opens with the present one, and `….next` is only a file that lies there.

import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Disk } from './disk.ts';
import {
  chooseSealing,
  createSealingKeyFile,
  nextSealing,
  sealingCandidates,
  type SealingConfig,
  type SealingPlaces,
  type SealingSource,
  settleSealing,
} from './sealing-key.ts';
import { ShareStore } from './share-store.ts';

export interface SharePlace {
  readonly shares: Disk;
  readonly keys: Disk;
  readonly owner: string;
  /** True only before the store was ever made. */
  readonly create: boolean;
}

export interface OpenedShares {
  readonly shares: ShareStore;
  readonly sealing: SealingConfig;
}

/**
 * Opens the store with the secret that it is sealed with; a new one is sealed with the best there is. Throws what
 * `ShareStore.open` throws.
 */
export async function openShareStore(place: SharePlace, places: SealingPlaces): Promise<OpenedShares> {
  const source = place.create ? undefined : await ShareStore.sealedWith(place);
  if (source === undefined) return openNew(place, places);
  const candidates = [...(await sealingCandidates(places, source))];
  // None of that kind is there: the store says so, in words.
  if (candidates.length === 0) candidates.push(await chooseSealing(places));
  let first: unknown;
  for (const sealing of candidates) {
    try {
      const shares = await ShareStore.open({ ...place, sealing });
      return { shares, sealing: await settleSealing(sealing) };
    } catch (error) {
      if (!isHoldfastError(error, 'DECRYPT_FAILED')) throw error;
      first ??= error;
    }
  }
  throw first;
}

async function openNew(place: SharePlace, places: SealingPlaces): Promise<OpenedShares> {
  const sealing = await chooseSealing(places);
  if (place.create && sealing.source === 'key-file') await createSealingKeyFile(sealing.path);
  return { shares: await ShareStore.open({ ...place, sealing }), sealing };
}

/** Seals a store anew, over and over if need be. */
export class Resealing {
  readonly #shares: ShareStore;
  readonly #places: SealingPlaces;
  #sealing: SealingConfig;

  constructor({ shares, sealing }: OpenedShares, places: SealingPlaces) {
    this.#shares = shares;
    this.#sealing = sealing;
    this.#places = places;
  }

  /** What the store is sealed with now. */
  get sealing(): SealingConfig {
    return this.#sealing;
  }

  /**
   * Seals everything with a secret of kind `to`, and moves that to its place. `from` in the answer is useless from then
   * on: it opens only copies from before.
   *
   * @throws ARGUMENT_MISSING saying where a new secret is to be put, and what `ShareStore.reseal` throws
   */
  async to(to: SealingSource): Promise<{ readonly from: SealingConfig; readonly now: SealingConfig }> {
    const from = this.#sealing;
    const next = await nextSealing(this.#places, from.source, to);
    if (next.path === from.path)
      throw new HoldfastError('ARGUMENT_INVALID', `the shares are sealed with ${from.path} already`);
    await this.#shares.reseal(next);
    this.#sealing = next; // also when moving it fails: the next opening does it
    this.#sealing = await settleSealing(next);
    return { from, now: this.#sealing };
  }
}
