// A thief who comes again and again: of every sharing there ever was of a group's keys it steals one share fewer than
// open it. What it has never makes up a key, however it mixes generations and versions.

import assert from 'node:assert/strict';
import { concat, toHex } from '../../src/core/bytes.ts';
import { proofContext, sealAnswer } from '../../src/custody/answer.ts';
import { openRequest } from '../../src/custody/request.ts';
import type { ShareEntry, ShareKey } from '../../src/custody/share-state.ts';
import type { KekCustodian } from '../../src/envelope/kek.ts';
import { proveDleq } from '../../src/threshold/dleq.ts';
import { type Point, samePoint, type Scalar } from '../../src/threshold/group.ts';
import { partial } from '../../src/threshold/tdh2.ts';
import { type CeremonyWorld, type CustodianSite, groups, interpolated, random } from './ceremony-world.ts';
import type { Dice } from './dice.ts';

export interface Stolen {
  readonly key: ShareKey;
  readonly kekVer: number;
  readonly gen: number;
  readonly index: number;
  readonly t: number;
  readonly secret: Scalar;
  /** Names the polynomial that it lies on. */
  readonly sharing: string;
}

/** Mixtures tried for each key at a time. */
const tries = 6;

export class MobileThief {
  readonly #loot: Stolen[] = [];

  /** Of each sharing as much as is missing to one fewer than `t`. */
  async steal(sites: readonly CustodianSite[], dice: Dice): Promise<void> {
    for (const site of dice.shuffled(sites.filter(({ isUp }) => isUp)))
      for (const entry of site.running.shares.shares()) {
        const sharing = toHex(concat(...entry.commitments));
        const had = this.#loot.filter((each) => each.sharing === sharing);
        if (had.length >= entry.t - 1 || had.some(({ index }) => index === entry.index)) continue;
        this.#loot.push(await stolen(site, entry, sharing));
      }
  }

  /** Throws when some mixture is the private key of a version, or of the group's signing key. */
  requirePoor({ kek, frost }: Readonly<Record<ShareKey, readonly Point[]>>, dice: Dice): void {
    for (const [key, points] of Object.entries({ kek, frost }) as [ShareKey, readonly Point[]][]) {
      const loot = this.#loot.filter((each) => each.key === key);
      for (let at = 0; at < tries; at++) {
        const mixture = mixed(dice.shuffled(loot));
        if (mixture.length < 2) continue;
        const made = groups[key].base(interpolated(key, mixture));
        const what = mixture.map(({ kekVer, gen, index }) => `${kekVer}/${gen}/${index}`).join(' ');
        assert.ok(!points.some((point) => samePoint(point, made)), `${key} from stolen shares: ${what}`);
      }
    }
  }

  /** Stolen shares that are of another sharing than this one. */
  otherThan(sharing: string): readonly Stolen[] {
    return this.#loot.filter((each) => each.key === 'kek' && each.sharing !== sharing);
  }
}

/** A custodian that answers with a share of another generation or version as with its own. */
export function answerWith(
  world: CeremonyWorld,
  { i, peer }: Pick<KekCustodian, 'i' | 'peer'>,
  { secret }: Stolen,
): (request: Uint8Array) => Uint8Array {
  return (message) => {
    const { request, hash } = openRequest(message);
    const U = request.items.map(({ wrap }) => wrap.U);
    const D = U.map((point) => partial(groups.kek, secret, point));
    const statement = { context: proofContext(hash), B: groups.kek.base(secret), C: U, D };
    return sealAnswer(
      {
        v: 1,
        reqHash: hash,
        i,
        shareGen: request.shareGen,
        results: D.map((point) => ({ granted: true, D: point })),
        proof: proveDleq(groups.kek, secret, statement, random),
      },
      request.epk,
      world.site(peer).signer,
    );
  };
}

async function stolen({ running }: CustodianSite, entry: ShareEntry, sharing: string): Promise<Stolen> {
  const { key, cg, kekVer, gen, index, t } = entry;
  const { secret } = await running.shares.openShare({ cg, kekVer, gen }, key);
  return { key, kekVer, gen, index, t, secret, sharing };
}

/** As many as open one of their sharings, of different places. */
function mixed(loot: readonly Stolen[]): Stolen[] {
  const found: Stolen[] = [];
  for (const each of loot) {
    if (found.length > 0 && found.length >= Math.max(...found.map(({ t }) => t))) break;
    if (!found.some(({ index }) => index === each.index)) found.push(each);
  }
  return found;
}
