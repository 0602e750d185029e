// The place of the next record of a group's keys, as a coordinator of ceremonies sees it: where the registry stands,
// what others have begun there, and the filing of what was agreed.

import { HoldfastError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { agreedRecords } from './agreed-records.ts';
import { type BallotCertificate, headsOf, type Seats } from './ballot.ts';
import { activeOf, leftOutBy } from './ceremony-ballot.ts';
import { type Agreed, type BallotPlace, type Settled, settlePlace, type Voter } from './coordinate-ballot.ts';
import {
  activateAll,
  type CoordinatorPorts,
  type FiledKek,
  type NewestKek,
  type Say,
} from './coordinator.ts';
import type { OpenedOrder } from './order.ts';

/** Where the registry stands. */
export interface Standing {
  readonly versions: readonly NewestKek[];
  readonly active: NewestKek;
  readonly place: BallotPlace;
}

/** The attempt that is free, and the end of the one before. */
export interface FreeAttempt {
  readonly attempt: number;
  readonly end: BallotCertificate | null;
}

/** Throws NOT_FOUND when the group has no key. `order`: may leave out members of the group. */
export async function standingOf(
  ports: CoordinatorPorts,
  cg: string,
  order?: OpenedOrder,
): Promise<Standing> {
  const versions = await ports.registry.versions(cg);
  if (versions.length === 0) throw new HoldfastError('NOT_FOUND', `custody group ${cg} has no key yet`);
  const place = placeOf(versions, order);
  const active = versions.find(({ kek }) => kek === place.active);
  if (active === undefined) throw new HoldfastError('INTERNAL', 'the active version is one of all');
  return { versions, active, place };
}

/** The place behind the newest records of all versions. Throws KEY_UNAVAILABLE when no version is in use. */
export function placeOf(
  versions: readonly FiledKek[],
  order?: OpenedOrder,
): BallotPlace & { readonly active: TdecKek } {
  const keks = versions.map(({ kek }) => kek);
  const active = activeOf(keks);
  return { active, heads: headsOf(keks), leftOut: leftOutBy(order, active) };
}

/** The custodians of a version, all in one session. */
export function votersOf(
  ports: CoordinatorPorts,
  { custodians }: Pick<Seats, 'custodians'>,
  { session, protocol }: { readonly session: Uint8Array; readonly protocol: string },
): readonly Voter[] {
  return custodians.map(({ i, peer }) => ({
    i,
    name: ports.custodians.nameOf(peer),
    ask: (step, payload) => ports.custodians.step(peer, { session, protocol, step }, payload),
  }));
}

/**
 * Finishes or ends what others have begun at this place. Undefined when something was finished: then the registry
 * has gone on, and this is the place no more.
 * @throws KEY_UNAVAILABLE when fewer than a quorum answer
 */
export async function clearPlace(
  ports: CoordinatorPorts,
  standing: Standing,
  order: Uint8Array | null,
  say: Say,
): Promise<FreeAttempt | undefined> {
  const settled = await settle(ports, standing, { order, onlyLocked: false });
  if (settled === undefined) throw new HoldfastError('INTERNAL', 'a place is finished, or free');
  if ('attempt' in settled) return settled;
  await fileBegun(ports, standing, settled.agreed, say);
  return undefined;
}

/** Finishes what others have begun where a custodian is locked on it. True when there was something. */
export async function finishBegun(ports: CoordinatorPorts, cg: string, say: Say): Promise<boolean> {
  const standing = await standingOf(ports, cg);
  const settled = await settle(ports, standing, { order: null, onlyLocked: true });
  if (settled === undefined || 'attempt' in settled) return false;
  await fileBegun(ports, standing, settled.agreed, say);
  return true;
}

/** Files what the group has signed, and shows it to the custodians. */
export async function fileAgreed(
  ports: CoordinatorPorts,
  { versions, active }: Standing,
  agreed: Agreed,
): Promise<{ readonly active: readonly string[]; readonly behind: readonly string[] }> {
  const { cg } = active.kek;
  const filed = (ver: number): NewestKek | undefined => versions.find(({ kek }) => kek.ver === ver);
  const records = await agreedRecords(ports.signer, agreed, {
    kek: (ver) => filed(ver)?.cid,
    certificate: (ver) => ports.registry.lastCertificate(cg, ver),
  });
  const [first] = agreed.proposal.keks;
  if (first === undefined) throw new HoldfastError('RECORD_INVALID', 'a record of a key expected');
  await ports.registry.file(`kek/${cg}/${first.ver}`, filed(first.ver)?.revision ?? 0, records);
  const shown = await Promise.all(
    agreed.proposal.keks.map((kek, at) =>
      activateAll(ports, kek, records[at]?.record.block.bytes ?? new Uint8Array(0)),
    ),
  );
  return shown[0] ?? { active: [], behind: [] };
}

async function settle(
  ports: CoordinatorPorts,
  { place }: Standing,
  how: { readonly order: Uint8Array | null; readonly onlyLocked: boolean },
): Promise<Settled | undefined> {
  const { frost } = await ports.groups();
  const voters = votersOf(ports, place.active, { session: ports.random(32), protocol: 'ballot' });
  return settlePlace(frost, place, voters, how);
}

async function fileBegun(
  ports: CoordinatorPorts,
  standing: Standing,
  agreed: Agreed,
  say: Say,
): Promise<void> {
  say('finishing what was begun before: custodians are locked on a record');
  await fileAgreed(ports, standing, agreed);
}
