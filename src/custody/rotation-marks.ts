// What a custodian remembers of the versions of a key over restarts, so that nobody can hurry it. The beat comes from
// outside; the wall clock and these marks are its own.

import { day, minute } from '../core/clock.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { CustodyBook } from './book.ts';
import type { CeremonyDesk } from './ceremony-desk.ts';
import { rotationMark } from './share-state.ts';

type Desk = Pick<CeremonyDesk, 'ports'>;

/** From the moment a custodian saw a version retired until it signs that it is destroyed, milliseconds. */
export interface DestroyWaits {
  /** An operator ordered the rotation: somebody is looking. As long as a refresh leaves old shares. */
  readonly orderedMs: number;
  /** The policy's schedule did: time for a person to notice what nobody asked for. */
  readonly scheduledMs: number;
}

export const destroyWaits: DestroyWaits = { orderedMs: 2 * minute, scheduledMs: day };

/** Everything that is known of a group's key, oldest version first. */
export function versionsOf(book: CustodyBook | undefined): TdecKek[] {
  const found: TdecKek[] = [];
  for (let kek = book?.kek(1); kek !== undefined; kek = book?.kek(kek.ver + 1)) found.push(kek);
  return found;
}

/** Beat of the last key of that version given here, also before a restart; 0 for never. */
export function lastUseOf({ ports }: Desk, cg: string, ver: number, sinceStart: number): number {
  return Math.max(sinceStart, ports.shares.mark(rotationMark(cg, ver, 'used')));
}

/** Writes down what is new about versions on their way out; called once a beat and before anything is signed. */
export async function noteVersions(
  { ports }: Desk,
  cg: string,
  lastUse: (cg: string, ver: number) => number,
): Promise<void> {
  for (const { ver, state } of versionsOf(ports.books.book(cg))) {
    if (state !== 'decrypt-only' && state !== 'retired') continue;
    const used = rotationMark(cg, ver, 'used');
    if (lastUse(cg, ver) > ports.shares.mark(used)) await ports.shares.raise(used, lastUse(cg, ver));
    const retired = rotationMark(cg, ver, 'retired');
    if (state === 'retired' && ports.shares.mark(retired) === 0)
      await ports.shares.raise(retired, ports.now());
  }
}

/** An operator wants this version replaced. */
export async function noteOrdered({ ports }: Desk, cg: string, ver: number): Promise<void> {
  await ports.shares.raise(rotationMark(cg, ver, 'ordered'), 1);
}

/** Why a retired version is not destroyed yet, by our own clock; undefined when it may be. */
export function destroyTooEarly(
  { ports }: Desk,
  cg: string,
  ver: number,
  waits: DestroyWaits,
): string | undefined {
  const since = ports.shares.mark(rotationMark(cg, ver, 'retired'));
  const isOrdered = ports.shares.mark(rotationMark(cg, ver, 'ordered')) === 1;
  const from = since + (isOrdered ? waits.orderedMs : waits.scheduledMs);
  if (since > 0 && ports.now() >= from) return undefined;
  return `version ${ver} is destroyed from ${new Date(since > 0 ? from : ports.now()).toISOString()} on`;
}
