// Who has erased shares whose day is over: what each custodian says of itself, kept, so that one that has confirmed it
// and then went for good is not asked for ever. Who was never heard since is shown, because nobody knows.

import { readIfThere, writeWhole } from '../files/whole.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { isMap } from '../core/shape.ts';
import type { CustodyDirectory, OverShares } from '../custody/directory.ts';
import { isSuccessorName } from '../custody/group-name.ts';
import type { CustodianStatus } from '../custody/wire.ts';

export interface Unconfirmed {
  readonly peer: PeerName;
  readonly version: number;
  readonly text: string;
}

/** The oldest are forgotten: then a custodian that is gone shows up once more. */
const keptMax = 4096;

/** Generations that are known to be erased, by group, version and custodian. */
type Confirmed = Readonly<Record<string, number>>;

export class Erasures {
  readonly #path: string;
  #confirmed: Confirmed;
  #saving: Promise<void> = Promise.resolve();

  private constructor(path: string, confirmed: Confirmed) {
    this.#path = path;
    this.#confirmed = confirmed;
  }

  /** Reads what was confirmed before. Throws RECORD_INVALID for a damaged file, which may be deleted: they are asked again. */
  static async open(path: string): Promise<Erasures> {
    const text = await readIfThere(path);
    return new Erasures(path, text === undefined ? {} : parse(text, path));
  }

  /** Whose shares are over by `directory` and not known to be erased, given what custodians have just said of themselves. */
  async unconfirmed(
    directory: Pick<CustodyDirectory, 'cg' | 'initialised' | 'over'>,
    said: ReadonlyMap<PeerName, CustodianStatus>,
  ): Promise<readonly Unconfirmed[]> {
    if (!directory.initialised) return [];
    const news: Record<string, number> = {};
    const left = directory.over().flatMap((over): Unconfirmed[] => {
      const { peer, version, gen } = over;
      const name = `${directory.cg}/${version}/${peer}`;
      const status = said.get(peer);
      if (status !== undefined && !hasStill(status, directory.cg, over)) news[name] = gen;
      else if (status !== undefined || (this.#confirmed[name] ?? 0) < gen)
        return [{ peer, version, text: textOf(over, status !== undefined) }];
      return [];
    });
    await this.#keep(news);
    return [...left, ...ofEnded(directory.cg, said)];
  }

  /** What was known already is not written again. One at a time. */
  async #keep(news: Confirmed): Promise<void> {
    const fresh = Object.entries(news).filter(([name, gen]) => (this.#confirmed[name] ?? 0) < gen);
    if (fresh.length === 0) return this.#saving;
    const all = Object.entries({ ...this.#confirmed, ...Object.fromEntries(fresh) });
    this.#confirmed = Object.fromEntries(all.slice(-keptMax));
    const text = `${JSON.stringify({ v: 1, erased: this.#confirmed })}\n`;
    // Who asks for the status is not to miss it for that: whoever answers is asked again by the next process.
    this.#saving = this.#saving
      .then(() => writeWhole(this.#path, text, 0o600))
      .catch((error: unknown) => console.error(`${this.#path}: ${describeError(error)}`));
    await this.#saving;
  }
}

/** Shares of groups before `cg`. Of who does not answer nothing is known: the records of its group may be forgotten. */
function ofEnded(cg: string, said: ReadonlyMap<PeerName, CustodianStatus>): Unconfirmed[] {
  return [...said].flatMap(([peer, { shares }]) => {
    const ended = shares.filter((each) => each.key === 'kek' && isSuccessorName(cg, each.cg));
    return [...Map.groupBy(ended, (each) => `${each.cg}/${each.kekVer}`).values()].flatMap(([share]) => {
      if (share === undefined) return [];
      const text = `has shares of group ${share.cg} still, which has ended; it erases them by itself, a day after it read so`;
      return [{ peer, version: share.kekVer, text }];
    });
  });
}

function hasStill({ shares }: CustodianStatus, cg: string, { version, gen, why }: OverShares): boolean {
  return shares.some(
    (each) =>
      each.cg === cg &&
      each.kekVer === version &&
      (why === 'destroyed' || (each.status !== 'staged' && each.gen <= gen)),
  );
}

function textOf({ why }: OverShares, answers: boolean): string {
  const of = why === 'destroyed' ? 'which is destroyed' : 'of whose members it is none any more';
  return answers
    ? `has shares of it still, ${of}; it erases them by itself, a bar and two minutes after it left at the latest`
    : `does not answer, and has not said that it has erased its shares of it, ${of}`;
}

function parse(text: string, path: string): Confirmed {
  const value = parsed(text);
  const erased = isMap(value) && value['v'] === 1 ? value['erased'] : undefined;
  if (isMap(erased) && Object.values(erased).every((gen) => Number.isSafeInteger(gen)))
    return Object.fromEntries(Object.entries(erased).map(([name, gen]) => [name, Number(gen)]));
  throw new HoldfastError(
    'RECORD_INVALID',
    `${path} has another form; delete it: custodians are asked again`,
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
