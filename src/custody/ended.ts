// What becomes of a custodian's part in a group that has ended (succession.ts). It opens nothing and signs nothing any
// more from the moment it reads so. Its shares it erases a day later by its own clock, as those of a version that nobody
// in particular has ordered away: too few are left to open anything, but one that was lost may come back with its disk.

import type { CustodyBooks } from './books.ts';
import type { CeremonyDesk } from './ceremony-desk.ts';
import { eraseVersion } from './erase-version.ts';
import type { ShareStore } from './share-store.ts';

interface Known {
  readonly books: Pick<CustodyBooks, 'endedBy'>;
  readonly shares: Pick<ShareStore, 'mark'>;
}

/** Why a group does nothing any more, in words; undefined while it stands. Also before the registry was read again. */
export function endedText({ books, shares }: Known, cg: string): string | undefined {
  const by = books.endedBy(cg);
  if (by !== undefined) return `custody group ${cg} has ended, ${by.to} is in its place: ${by.reason}`;
  return shares.mark(endedMark(cg)) > 0 ? `custody group ${cg} has ended` : undefined;
}

/** Writes down what has ended, and erases the shares of what ended `waitMs` ago. Called once a beat. */
export async function keepEnded(desk: Pick<CeremonyDesk, 'ports' | 'note'>, waitMs: number): Promise<void> {
  const { shares, books, now } = desk.ports;
  for (const cg of new Set(shares.shares().map((each) => each.cg))) {
    const by = books.endedBy(cg);
    const since = shares.mark(endedMark(cg));
    if (by !== undefined && since === 0) await shares.raise(endedMark(cg), now());
    else if (since > 0 && now() >= since + waitMs) {
      const why = `the group has ended, ${by?.to ?? 'another one'} is in its place`;
      for (const kekVer of shares.versions(cg)) await eraseVersion(desk, { cg, kekVer }, why);
    }
  }
}

/** Wall clock at which a custodian first read that a group has ended. */
function endedMark(cg: string): string {
  return `ended/${cg}`;
}
