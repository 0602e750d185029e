// `custody init --in-place-of GROUP`: a new custody group where one has lost too many custodians.

import type { CustodyStatus } from '../../api/types.ts';
import { type ErrorCode, HoldfastError } from '../../core/errors.ts';
import { custodiansMax } from '../../core/limits.ts';
import { standingRules } from '../../custody/carried.ts';
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
import { carryRevocations } from '../custody-carried.ts';
import { readGranted } from '../granted.ts';
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
    await made(context, door, firstKeyOrder(choice, await openOperator(context.data), random), ended);
  }
  await takeUp(context, door, ended);
  return 0;
}

/** Codes of a ceremony that did not come to its end, for want of somebody. */
const cut: readonly ErrorCode[] = [
  'KEY_UNAVAILABLE',
  'PEER_UNREACHABLE',
  'TIMEOUT',
  'BEACON_UNAVAILABLE',
  'QUORUM_UNAVAILABLE',
];

/** Has the order carried out. Where it was cut, who reads the error learns which group stands, and what to do. */
async function made(context: Context, door: DoorClient, order: Uint8Array, ended: string): Promise<void> {
  try {
    await give(context, door, order);
  } catch (error) {
    if (!(error instanceof HoldfastError) || !cut.includes(error.code)) throw error;
    const standing = await door.custodyStatus({ signal: context.signal }).then(
      ({ group }) => group,
      () => undefined, // the door says why with the next command
    );
    const cg = successorNameOf(ended);
    const state =
      standing === undefined
        ? `whether ${ended} or ${cg} stands is not known now`
        : standing === ended
          ? `as far as the door knows, group ${cg} is not made and ${ended} stands as it did`
          : `group ${standing} is made, and ${ended} has ended`;
    throw new HoldfastError(
      error.code,
      `${state}; give the command again when all custodians answer (\`holdfast custody status\`): it ends or finishes what was begun`,
      { details: error.details, cause: error },
    );
  }
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

/** What was allowed stays what is allowed, and what was withdrawn stays withdrawn: the new policy judges content of the old group. */
function rulesOf(old: CustodyDirectory): PolicyBody {
  const policy = old.policy();
  if (policy !== undefined) return standingRules(policy, old.revocations());
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

/**
 * What was withdrawn before is withdrawn in the new group, and then what asks custodians from here gets leave of it; it is
 * believed here, and remembered.
 */
async function takeUp(context: Context, door: DoorClient, ended: string): Promise<void> {
  const cg = successorNameOf(ended);
  const directory = await lastBelieved(door, context.data);
  if (directory.cg !== cg)
    throw new HoldfastError(
      'BEACON_UNAVAILABLE',
      `the door does not show group ${cg} yet, or it is not believed; give the command again in a moment`,
    );
  await carryRevocations(context, door, await openOperator(context.data));
  await renewGrants(await readLayout(context.data));
  await sayGranted(context, door, ended);
}

/** Others than the writer and the door have leave of the old group only. */
async function sayGranted({ data, screen, signal }: Context, door: DoorClient, ended: string): Promise<void> {
  const { index: beat } = await door.beat({ signal });
  const granted = await readGranted(data, (text) => screen.say(text));
  const good = granted.filter(({ last }) => last.cg === ended && last.exp >= beat);
  if (good.length > 0)
    screen.say(
      `${good.length} capabilities that were granted in ${ended} are worth nothing now: \`holdfast custody regrant --dry-run\` shows them, \`holdfast custody regrant\` signs them anew`,
    );
}
