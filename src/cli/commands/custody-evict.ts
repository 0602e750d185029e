// Taking a custodian out: because it leaves, or because it is no longer believed.
//
//   routine   reshare to the others
//   suspect   seal it, if it listens; reshare to the others; rotate, because `t` old shares open old wraps for ever
//
// How far a suspicion has been followed stands in the registry: which versions of the key the custodian ever had
// shares of. So the command goes on where it was, from any machine, when it is given again.

import { setTimeout as sleep } from 'node:timers/promises';
import type { DoorClient } from '../../client/door-client.ts';
import { describeError, HoldfastError, isHoldfastError } from '../../core/errors.ts';
import { custodiansMax } from '../../core/limits.ts';
import type { OrderResult } from '../../custody/coordinator-run.ts';
import type { CustodyDirectory } from '../../custody/directory.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import { believed } from '../custody-believed.ts';
import { carry, dealArgs, resultLines, seatOf, signed, thresholdOption } from './custody-ceremonies.ts';

const reasons = ['routine', 'suspect'] as const;
/** How often it is asked how far the rotation is, ms. */
const pollMs = 2000;

export const custodyEvict: Command = {
  name: 'custody evict',
  usage: 'NAME [--reason routine|suspect] [-t T] [--wait]',
  summary: 'Take one custodian out of the group; the others get other shares, and with suspicion another key',
  options: {
    reason: {
      type: 'string',
      value: 'WHY',
      text: 'routine: it leaves (default). suspect: it is not believed any more, so the key is rotated too',
    },
    ...thresholdOption,
    wait: { type: 'boolean', text: 'with suspect: come back when no key that it had shares of is left' },
  },
  positionals: [1, 1],
  notes: [
    'T stays as it is where that leaves one custodian to spare, else it becomes one less. With suspect the custodian is',
    'sealed first, if it still listens; then the others get new shares; then a new key is made by all of them, and every',
    'branch key moved under it. Given again, it goes on where it was interrupted. What the suspect opened before it opened',
    'in its own log; with T - 1 accomplices it still opens wraps out of a copy of the registry.',
    '',
    'Exit status: 0 done, or for suspect: going on by itself · 1 some of it is still to be done: give it again.',
  ].join('\n'),
  async run(context) {
    const reason = reasons.find((each) => each === (context.text('reason') ?? 'routine'));
    if (reason === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', `--reason takes ${reasons.join(' or ')}`);
    await using door = await openDoor(context);
    const peer = await peerNamed(context, door);
    const steps: string[] = []; // what was done now, in words
    const dealt = await takeOut(context, door, peer, reason === 'suspect', steps);
    const left = reason === 'suspect' ? await rotateAway(context, door, peer, steps) : [];
    if (context.json) context.screen.value({ reason, evicted: dealt ?? null, steps, versionsLeft: left });
    else for (const line of linesOf(context, reason, dealt, left)) context.screen.line(line);
    return context.flag('wait') && left.length > 0 ? 1 : 0;
  },
};

async function peerNamed(context: Context, door: DoorClient): Promise<string> {
  const [name = ''] = context.positionals;
  const { custodians } = await door.custodyStatus({ signal: context.signal });
  const found = custodians.find((each) => each.name === name || each.peer === name)?.peer;
  if (found !== undefined) return found;
  if (/^12D3KooW\w{44}$/.test(name)) return name; // it may be out of the membership already
  throw new HoldfastError('ARGUMENT_INVALID', `there is no custodian ${name}; a peer id will do as well`);
}

/** Undefined when it holds no share of the present key. */
async function takeOut(
  context: Context,
  door: DoorClient,
  peer: string,
  suspect: boolean,
  steps: string[],
): Promise<OrderResult | undefined> {
  const directory = await believed(door, context.data);
  const kek = activeOf(directory);
  const rest = kek.custodians.filter((each) => each.peer !== peer);
  if (rest.length === kek.custodians.length) {
    if (directory.versions().some(({ ver }) => directory.hasHeld(ver, peer))) return undefined;
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${context.positionals[0]} is no custodian of the group, and never was`,
    );
  }
  if (suspect) await sealOne(context, door, directory.cg, peer, steps);
  const t =
    context.whole('threshold', { min: 2, max: custodiansMax }) ??
    Math.max(2, Math.min(kek.t, rest.length - 1));
  const args = { ...dealArgs(kek, t, rest.map(seatOf)) };
  const dealt = await carry(context, door, await signed(context, door, kek.cg, 'evict', args));
  steps.push('evicted');
  return dealt;
}

/** As far as it listens: whoever is suspected need not. */
async function sealOne(
  context: Context,
  door: DoorClient,
  cg: string,
  peer: string,
  steps: string[],
): Promise<void> {
  try {
    const result = await carry(context, door, await signed(context, door, cg, 'seal', { only: [peer] }));
    const isSealed = 'obeyed' in result && result.obeyed.length > 0;
    steps.push(isSealed ? 'sealed' : 'not sealed: it does not listen');
  } catch (error) {
    if (!isHoldfastError(error)) throw error;
    steps.push(`not sealed: ${describeError(error)}`);
  }
}

/** Orders the rotation unless one that leads away is under way. Versions that the custodian had shares of and that still are. */
async function rotateAway(
  context: Context,
  door: DoorClient,
  peer: string,
  steps: string[],
): Promise<readonly number[]> {
  let said = '';
  for (;;) {
    const directory = await believed(door, context.data);
    const left = heldStill(directory, peer);
    if (left.length === 0) return left;
    const active = activeOf(directory);
    const coming = directory.versions().some(({ state }) => state === 'pre-active');
    if (left.includes(active.ver) && !coming) {
      await carry(context, door, await signed(context, door, active.cg, 'rotate', { ver: active.ver }));
      steps.push(`rotation of key ${active.ver} ordered`);
      if (!context.flag('wait')) return heldStill(await believed(door, context.data), peer);
    } else if (!context.flag('wait')) return left;
    const text = directory
      .versions()
      .map(({ ver, state }) => `key ${ver} ${state}`)
      .join(', ');
    if (text !== said) context.screen.say(text);
    said = text;
    await sleep(pollMs, undefined, { signal: context.signal });
  }
}

function heldStill(directory: CustodyDirectory, peer: string): readonly number[] {
  return directory
    .versions()
    .filter(({ ver, state }) => state !== 'destroyed' && directory.hasHeld(ver, peer))
    .map(({ ver }) => ver);
}

function activeOf(directory: CustodyDirectory): NonNullable<ReturnType<CustodyDirectory['active']>> {
  const kek = directory.active();
  if (kek !== undefined) return kek;
  throw new HoldfastError('KEY_UNAVAILABLE', `custody group ${directory.cg} has no active key`);
}

function linesOf(
  { positionals: [name = ''] }: Context,
  reason: (typeof reasons)[number],
  dealt: OrderResult | undefined,
  left: readonly number[],
): string[] {
  const lines = dealt === undefined ? [`${name} holds no share of the present key`] : resultLines(dealt);
  if (reason === 'routine')
    return [
      ...lines,
      'Its shares are of a past generation: they open nothing without T - 1 others of that one.',
    ];
  if (left.length === 0) return [...lines, `no key is left that ${name} had shares of`];
  return [
    ...lines,
    `key ${left.join(', ')}: ${name} had shares of it; it is being replaced, which goes on by itself, and is over when it is destroyed (\`holdfast custody status\`; give this command again to see what is left)`,
    'Look at what was opened: `holdfast custody audit --all`.',
  ];
}
