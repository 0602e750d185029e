// `custody init --in-place-of GROUP`: a new custody group where one has lost too many custodians.

import type { CustodyStatus } from '../../api/types.ts';
import { HoldfastError } from '../../core/errors.ts';
import { custodiansMax } from '../../core/limits.ts';
import { notLost } from '../../custody/coordinate-succession.ts';
import type { CustodyDirectory } from '../../custody/directory.ts';
import { firstKeyOrder, thresholdOf } from '../../custody/first-key.ts';
import { successorNameOf } from '../../custody/group-name.ts';
import type { PolicyBody } from '../../custody/policy.ts';
import { random } from '../../custody/random.ts';
import { renewGrants } from '../../local/grants.ts';
import { readLayout } from '../../local/layout.ts';
import type { DoorClient } from '../../client/door-client.ts';
import type { Context } from '../command.ts';
import { openOperator } from '../connect.ts';
import { lastBelieved } from '../custody-believed.ts';
import { give } from './custody-ceremonies.ts';

/** An order that was not followed must not end a group years later. */
const lifeBeats = 600;

/**
 * Has the custodians make the key of the group in the place of `ended`. Given again it goes on where it was, and when it
 * was done already it does what is left to do here.
 *
 * @throws ARGUMENT_MISSING without a reason, ARGUMENT_INVALID for a group that is not the one of now, VERSION_CONFLICT
 * for one that can still be used, KEY_UNAVAILABLE naming who is missing
 */
export async function initInPlaceOf(context: Context, door: DoorClient, ended: string): Promise<number> {
  const reason = context.text('reason');
  if (reason === undefined || reason.trim() === '')
    throw new HoldfastError(
      'ARGUMENT_MISSING',
      'custody init --in-place-of needs --reason TEXT: it is registered with the end of the group',
    );
  const status = await door.custodyStatus({ signal: context.signal });
  const cg = successorNameOf(ended);
  if (status.group === cg) context.screen.say(`group ${cg} is in the place of ${ended} already`);
  else {
    const old = await endingGroup(context, door, status, ended);
    const policies = [old.active()?.policyRoot ?? null, ...old.takenOver].filter((root) => root !== null);
    const members = membersOf(context, status);
    const t = context.whole('threshold', { min: 2, max: custodiansMax }) ?? thresholdOf(members.length);
    const { index: beat } = await door.beat({ signal: context.signal });
    const choice = {
      cg,
      members,
      t,
      inPlaceOf: { cg: ended, reason, policies },
      rules: rulesOf(old),
      exp: beat + lifeBeats,
    };
    await give(context, door, firstKeyOrder(choice, await openOperator(context.data), random));
  }
  await takeUp(context, door, cg);
  return 0;
}

/** The group as it was believed, which must be the one of now, and lost. */
async function endingGroup(
  context: Context,
  door: DoorClient,
  { group, key, custodians }: CustodyStatus,
  ended: string,
): Promise<CustodyDirectory> {
  if (group !== ended)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `the custody group of this cluster is ${group}, not ${ended}`,
    );
  const directory = await lastBelieved(door, context.data);
  const active = directory.active();
  if (directory.cg !== ended || active === undefined)
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `custody group ${ended} has no key: have it made (\`custody init\`)`,
    );
  const live = custodians
    .filter(({ holds }) => holds.includes(key?.version ?? active.ver))
    .map(({ name }) => name);
  if (live.length >= active.t) throw notLost(ended, live, active.t);
  return directory;
}

/** What was allowed stays what is allowed: content of the old group is judged by the new one's policy. */
function rulesOf(old: CustodyDirectory): PolicyBody {
  const policy = old.policy();
  if (policy !== undefined) return policy;
  throw new HoldfastError('KEY_UNAVAILABLE', `the policy of group ${old.cg} is not known here`);
}

/** In the order of their indices. They make the key together, and all who read it must know more than half of them. */
function membersOf({ positionals }: Context, { custodians }: CustodyStatus) {
  const chosen =
    positionals.length === 0
      ? custodians
      : positionals.map((name) => {
          const found = custodians.find((each) => each.name === name);
          if (found !== undefined) return found;
          throw new HoldfastError('ARGUMENT_INVALID', `there is no custodian ${name} in the membership`);
        });
  if (2 * chosen.length <= custodians.length)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${chosen.length} of the ${custodians.length} custodians of the membership: more than half are needed, or nobody believes the group; take those that are lost out of the membership`,
    );
  const silent = chosen.filter(({ state }) => state === 'unreachable').map(({ name }) => name);
  if (silent.length > 0)
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `a key is made by all, and ${silent.join(', ')} do not answer: start them, have them replaced (\`holdfast up --replace NAME,…\`), or name the others`,
    );
  return chosen.map(({ peer, name }) => ({ peer, org: name }));
}

/** What asks custodians from here gets leave of the new group; it is believed here, and remembered. */
async function takeUp(context: Context, door: DoorClient, cg: string): Promise<void> {
  const directory = await lastBelieved(door, context.data);
  if (directory.cg !== cg)
    throw new HoldfastError(
      'BEACON_UNAVAILABLE',
      `the door does not show group ${cg} yet, or it is not believed; give the command again in a moment`,
    );
  await renewGrants(await readLayout(context.data));
}
