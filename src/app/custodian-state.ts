// What a custodian is good for now, out of what it says and what the registry says it should hold.

import type { CustodianInfo, KekInfo } from '../api/types.ts';
import type { CustodianStatus } from '../custody/wire.ts';
import { holdsVersion } from '../custody/wire.ts';
import type { TdecKek } from '../envelope/kek.ts';

export interface CustodianState extends Pick<CustodianInfo, 'state' | 'text' | 'shareGen' | 'holds'> {}

/** `versions`: every version of the group's key, `active` the one in use; undefined while there is none. */
export function stateOf(
  said: CustodianStatus,
  peer: string,
  group: string,
  { active, versions }: { readonly active: TdecKek | undefined; readonly versions: readonly TdecKek[] },
): CustodianState {
  const own = said.shares.filter(
    ({ cg, key, status }) => cg === group && key === 'kek' && status !== 'staged',
  );
  const newest = own
    .filter(({ kekVer }) => kekVer === (active?.ver ?? kekVer))
    .toSorted((a, b) => b.gen - a.gen)[0];
  const shareGen = newest?.gen ?? null;
  if (said.sealed.includes(group))
    return { state: 'sealed', text: 'sealed by order: opens nothing', shareGen, holds: [] };
  const due = versions.filter(
    ({ state, custodians }) => state !== 'destroyed' && custodians.some((each) => each.peer === peer),
  );
  const holds = due.filter((kek) => holdsVersion(said.shares, kek)).map(({ ver }) => ver);
  if (newest === undefined) {
    const which = own.length === 0 || active === undefined ? '' : ` of version ${active.ver}`;
    return { state: 'idle', text: `holds no share${which}`, shareGen, holds };
  }
  const behind =
    active !== undefined && newest.gen !== active.shareGen
      ? [`has shares of generation ${newest.gen}, the group is at ${active.shareGen}`]
      : [];
  const lacking = due
    .filter(({ ver }) => ver !== active?.ver && !holds.includes(ver))
    .map(({ ver, state }) => `lacks its shares of version ${ver}, which is ${state}`);
  const wrong = [...behind, ...lacking];
  if (wrong.length > 0) return { state: 'stale', text: `${wrong.join('; ')}: repair it`, shareGen, holds };
  return { state: 'ready', text: said.timeLost ?? '', shareGen, holds };
}

/** How many custodians answer with shares of a version that opens, and how many more than needed that is; null for others. */
export function marginOf(
  { ver, state, t }: Pick<TdecKek, 'ver' | 'state' | 't'>,
  custodians: readonly Pick<CustodianInfo, 'holds'>[],
): Pick<KekInfo, 'holders' | 'margin'> {
  if (state !== 'active' && state !== 'decrypt-only') return { holders: null, margin: null };
  const holders = custodians.filter(({ holds }) => holds.includes(ver)).length;
  return { holders, margin: holders - t };
}

/** The version that the fewest failures close. */
export function weakestOf(versions: readonly KekInfo[]): KekInfo | undefined {
  return versions
    .filter(({ margin }) => margin !== null)
    .toSorted((a, b) => (a.margin ?? 0) - (b.margin ?? 0) || b.version - a.version)[0];
}
