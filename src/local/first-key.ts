// The operator's order to make the first key of a local cluster's custody group: written once, followed by the
// steward as soon as all custodians are there, of no effect ever after.

import { groupNameOf } from '../custody/group-name.ts';
import { firstKeyOrder } from '../custody/first-key.ts';
import { random } from '../custody/random.ts';
import { isThere, makeDirectory, writeWhole } from '../files/whole.ts';
import { openIdentity } from '../node/identity.ts';
import { type Layout, layoutPaths } from './layout.ts';

/** Signs the order unless it is there. Nothing to do with fewer than two custodians: one alone shares nothing. */
export async function orderFirstKey({ dir, file }: Layout): Promise<void> {
  const paths = layoutPaths(dir);
  const custodians = file.processes.filter(({ role }) => role === 'custodian');
  if (custodians.length < 2 || (await isThere(paths.custodyInitOrder))) return;
  await makeDirectory(paths.custody);
  const { signer } = await openIdentity(paths.operatorKey);
  const members = custodians.map(({ peer, name }) => ({ peer, org: name }));
  const choice = { cg: groupNameOf(file.cluster), members, development: members.length < 3 };
  const order = firstKeyOrder(choice, signer, random);
  await writeWhole(paths.custodyInitOrder, order, 0o600);
}
