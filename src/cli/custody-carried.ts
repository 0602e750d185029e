// What was withdrawn in a custody group is withdrawn in the one in its place: the operator says it again there.

import type { DoorClient } from '../client/door-client.ts';
import { sameBytes } from '../core/bytes.ts';
import type { Signer } from '../core/hash.ts';
import { revokedPerRecordMax } from '../core/limits.ts';
import { uncarried } from '../custody/carried.ts';
import type { CustodyDirectory } from '../custody/directory.ts';
import { type Revoked, signRevocation } from '../custody/revocation.ts';
import type { Context } from './command.ts';
import { believedSuccession } from './custody-believed.ts';

/**
 * Revokes in the group of now the keys that were revoked in the one in whose place it is; nothing where that was done.
 * Before anybody is given leave of the new group. Says what it did, and what only another authority can do.
 *
 * @throws KEY_UNAVAILABLE when one of the groups is not believed, and what filing throws
 */
export async function carryRevocations(context: Context, door: DoorClient, operator: Signer): Promise<void> {
  const { data, screen } = context;
  for (;;) {
    const { now, before } = await believedSuccession(door, data);
    if (before === undefined || !now.initialised) return;
    const left = uncarried(before.revocations(), now.revocations());
    if (left.length === 0) return;
    const isAuthority = now.policy()?.authorities.some((key) => sameBytes(key, operator.publicKey)) === true;
    if (!isAuthority) {
      screen.say(
        `${left.length} keys that were revoked in ${before.cg} are not in ${now.cg}, and the operator is no authority of its policy: have an authority revoke them`,
      );
      return;
    }
    const some = left.slice(0, revokedPerRecordMax).map((id): Revoked => ({ what: 'key', id }));
    await fileRevocation(context, door, now, some, operator);
    screen.say(`revoked in ${now.cg} too: ${some.length} keys that were revoked in ${before.cg}`);
  }
}

/** Files a revocation behind those that `directory` knows. Gives the revision of the registry. */
export async function fileRevocation(
  { signal }: Pick<Context, 'signal'>,
  door: DoorClient,
  directory: CustodyDirectory,
  revoked: readonly Revoked[],
  authority: Signer,
): Promise<number> {
  const chain = `rev/${directory.cg}`;
  const { index: beat } = await door.beat({ signal });
  const place = {
    cg: directory.cg,
    n: directory.count(chain) + 1,
    prev: directory.last(chain) ?? null,
    beat,
  };
  const record = signRevocation({ ...place, revoked }, authority);
  return (await door.custodyFile(record, { signal })).revision;
}
