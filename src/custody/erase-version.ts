// Erasing a custodian's shares of a version of a key for good, written down in its audit log first.

import type { CeremonyDesk } from './ceremony-desk.ts';

/**
 * Erases all that is here of version `kekVer` of the key of `cg`; `why` stands in the leaf. Without shares nothing is
 * written down, and leftovers go all the same. Cut anywhere, it can be called again. Throws what the log and the store throw.
 */
export async function eraseVersion(
  desk: Pick<CeremonyDesk, 'ports' | 'note'>,
  { cg, kekVer }: { readonly cg: string; readonly kekVer: number },
  why: string,
): Promise<void> {
  const { shares } = desk.ports;
  const held = shares.shares().filter((each) => each.cg === cg && each.kekVer === kekVer);
  const shareGen = Math.max(...held.map(({ gen }) => gen));
  if (held.length > 0) await desk.note('erase', { cg, kekVer, shareGen }, why);
  await shares.retire({ cg, kekVer });
}
