// Orders to the custodians, signed by the operator here and carried by the cluster: each custodian judges them itself.

import { setTimeout as sleep } from 'node:timers/promises';
import type { DoorClient } from '../../client/door-client.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { Signer } from '../../core/hash.ts';
import { custodiansMax } from '../../core/limits.ts';
import { type DealArgs, isRefreshed, type Seat } from '../../custody/ceremony-plan.ts';
import type { OrderResult } from '../../custody/coordinator-run.ts';
import type { CustodyDirectory } from '../../custody/directory.ts';
import { firstKeyOrder, thresholdOf } from '../../custody/first-key.ts';
import { type OrderOp, signOrder } from '../../custody/order.ts';
import { random } from '../../custody/random.ts';
import type { Command, Context } from '../command.ts';
import { openDoor, openOperator } from '../connect.ts';
import { believed } from '../custody-believed.ts';

type TdecKek = NonNullable<ReturnType<CustodyDirectory['active']>>;

/** An order is carried at once; the rest is for a clock that is a little behind. */
const lifeBeats = 60;
/** How often it is asked how far a rotation is, ms. */
const pollMs = 1000;

export const thresholdOption = {
  threshold: { type: 'string', short: 't', value: 'T', text: 'custodians needed to give a key back' },
} as const;

const custodyInit: Command = {
  name: 'custody init',
  usage: '[-t T] [-n N] | --in-place-of GROUP --reason TEXT [-t T] [NAME…]',
  summary: 'Have the custodians make the first key together; nobody ever holds it',
  options: {
    ...thresholdOption,
    custodians: { type: 'string', short: 'n', value: 'N', text: 'the first N custodians (default all)' },
    'in-place-of': {
      type: 'string',
      value: 'GROUP',
      text: 'a new group where GROUP, the one of now, has fewer than T custodians left for good',
    },
    reason: {
      type: 'string',
      value: 'TEXT',
      text: 'why GROUP ends; everybody who reads the registry sees it',
    },
  },
  positionals: [0, custodiansMax],
  notes: [
    'All of them must be running. A cluster that `up` has made does this by itself at its first start: T is then more',
    'than half. An interrupted ceremony leaves nothing; begin it again. There is no way to get a key back that T',
    'custodians have lost: back their shares up, or allow a recovery key in the policy.',
    '',
    'With --in-place-of the NAMEs (default all custodians of the membership) make the key of a new group, and GROUP ends in',
    'the same entry of the registry. It takes the operator key, which is here and nowhere in the cluster. It is refused while',
    'T custodians of GROUP answer with their shares. GROUP opens nothing from then on: bring its keys to another provider',
    'before (`custody recovery shares`), or to the new group afterwards (`custody recovery shares … --to custodians`).',
    'Interrupted, it goes on when it is given again.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    const ended = context.text('in-place-of');
    if (ended !== undefined) {
      if (context.text('custodians') !== undefined)
        throw new HoldfastError('ARGUMENT_INVALID', '--in-place-of takes NAMEs, not --custodians N');
      const { initInPlaceOf } = await import('./custody-in-place-of.ts');
      return await initInPlaceOf(context, door, ended);
    }
    if (context.positionals.length > 0 || context.text('reason') !== undefined)
      throw new HoldfastError('ARGUMENT_INVALID', 'NAMEs and --reason go with --in-place-of GROUP');
    const { group, custodians } = await door.custodyStatus({ signal: context.signal });
    const n = context.whole('custodians', { min: 1, max: custodians.length }) ?? custodians.length;
    const members = custodians.slice(0, n).map(({ peer, name }) => ({ peer, org: name }));
    const t = context.whole('threshold', { min: 2, max: custodiansMax }) ?? thresholdOf(n);
    return await give(
      context,
      door,
      firstKeyOrder({ cg: group, members, t }, await openOperator(context.data), random),
    );
  },
};

const custodyRefresh: Command = {
  name: 'custody refresh',
  usage: '',
  summary: 'Give every custodian another share of the same key; old shares become worthless',
  positionals: [0, 0],
  notes: [
    'Done by itself every so many bars (`custody policy show`). No document and no key record changes. During a rotation',
    'the shares of both versions of the key are renewed, one after the other.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    const { kek, versions } = await present(context, door);
    const others = versions.filter((each) => each.ver !== kek.ver && isRefreshed(each));
    let code = 0;
    for (const each of [kek, ...others])
      code ||= await deal(context, door, 'refresh', each, each.t, each.custodians.map(seatOf));
    return code;
  },
};

const custodyReshare: Command = {
  name: 'custody reshare',
  usage: '[-t T] [NAME…]',
  summary: 'Hand the same key on to these custodians, or change how many are needed',
  options: thresholdOption,
  positionals: [0, custodiansMax],
  notes: [
    'NAMEs are all that shall hold shares afterwards (default: those that do now). As many as are needed now must be',
    'running, and most of the new ones. Those left out erase their shares a bar later.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    const { kek, byName } = await present(context, door);
    const seats =
      context.positionals.length === 0
        ? kek.custodians.map(seatOf)
        : context.positionals.map((name) => seatNamed(kek, byName, name));
    const t = context.whole('threshold', { min: 2, max: custodiansMax }) ?? kek.t;
    return await deal(context, door, 'reshare', kek, t, seats);
  },
};

const custodyRepair: Command = {
  name: 'custody repair',
  usage: 'NAME',
  summary: 'Give a custodian its shares again that it has lost',
  positionals: [1, 1],
  notes: [
    'Done by itself for a custodian that answers and is behind. Of every version of the key that is not destroyed. Nobody',
    'who helps learns the shares. Exit status 1: a version could not be restored, for the reason that is said.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    const { kek, byName } = await present(context, door);
    const name = context.positionals[0] ?? '';
    const seat = kek.custodians.find(({ peer }) => peer === byName.get(name));
    if (seat === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', `${name} is no custodian of the group`);
    const args = { ver: kek.ver, gen: kek.shareGen, member: seat.i };
    return await give(context, door, await signed(context, door, kek.cg, 'repair', args));
  },
};

const custodyRotate: Command = {
  name: 'custody rotate',
  usage: '[--wait]',
  summary: 'Have a new key made, and every branch key moved under it; documents stay as they are',
  options: { wait: { type: 'boolean', text: 'come back when the old key is destroyed' } },
  positionals: [0, 0],
  notes: [
    'All custodians must be running to make the new key, and as many as are needed to move what is under the old one.',
    'The new key is used a bar after it is made; the old one is destroyed a bar and two minutes after nothing needs it.',
    'It all goes on by itself, also after a crash; `custody status` says how far it is. With a policy that says so it is',
    'begun by itself every so many bars.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    const { kek } = await present(context, door);
    const order = await signed(context, door, kek.cg, 'rotate', { ver: kek.ver });
    const code = await give(context, door, order);
    if (context.flag('wait')) await rotated(context, door, kek.ver);
    return code;
  },
};

/** Resolves when version `ver` of the key is destroyed; says what happens meanwhile. */
async function rotated(context: Context, door: DoorClient, ver: number): Promise<void> {
  let said = '';
  for (;;) {
    const { versions } = await door.custodyStatus({ signal: context.signal });
    const text = versions
      .map(
        ({ version, state, switched }) =>
          `key ${version} ${state}${switched > 0 ? ` (${switched} keys moved to it)` : ''}`,
      )
      .join(', ');
    if (text !== said) context.screen.say(text);
    said = text;
    if (versions.find(({ version }) => version === ver)?.state === 'destroyed') return;
    await sleep(pollMs, undefined, { signal: context.signal });
  }
}

function sealing(op: 'seal' | 'unseal', summary: string, notes: string): Command {
  return {
    name: `custody ${op}`,
    usage: '[NAME…]',
    summary,
    positionals: [0, custodiansMax],
    notes,
    async run(context) {
      await using door = await openDoor(context);
      const { group, custodians } = await door.custodyStatus({ signal: context.signal });
      const only = context.positionals.map((name) => {
        const peer = custodians.find((each) => each.name === name)?.peer;
        if (peer !== undefined) return peer;
        throw new HoldfastError('ARGUMENT_INVALID', `there is no custodian ${name}`);
      });
      const order = await signed(context, door, group, op, only.length === 0 ? {} : { only });
      return await give(context, door, order);
    },
  };
}

export const ceremonyCommands: readonly Command[] = [
  custodyInit,
  custodyRefresh,
  custodyReshare,
  custodyRepair,
  custodyRotate,
  sealing(
    'seal',
    'Stop at once: no custodian gives anything until it is unsealed',
    'NAMEs: only these. A seal outlasts restarts. What readers have in memory they keep for up to a bar.',
  ),
  sealing('unseal', 'Let custodians answer again', 'NAMEs: only these.'),
];

async function present(
  context: Context,
  door: DoorClient,
): Promise<{
  readonly kek: TdecKek;
  readonly versions: readonly TdecKek[];
  readonly byName: ReadonlyMap<string, string>;
}> {
  const directory: CustodyDirectory = await believed(door, context.data);
  const kek = directory.active();
  if (kek === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', `custody group ${directory.cg} has no active key`);
  const { custodians } = await door.custodyStatus({ signal: context.signal });
  const byName = new Map(custodians.map(({ name, peer }) => [name, peer]));
  return { kek, versions: directory.versions(), byName };
}

async function deal(
  context: Context,
  door: DoorClient,
  op: 'refresh' | 'reshare',
  kek: TdecKek,
  t: number,
  members: readonly Seat[],
): Promise<number> {
  return give(context, door, await signed(context, door, kek.cg, op, { ...dealArgs(kek, t, members) }));
}

/** To deal shares of the present generation anew to `members`, of whom `t` will be needed. */
export function dealArgs(
  { ver, shareGen: gen, frostPk }: TdecKek,
  t: number,
  members: readonly Seat[],
): DealArgs {
  return { ver, gen, t, members, frostPk, development: false };
}

/** An order of the operator, or of `as`: an authority of the policy. */
export async function signed(
  context: Context,
  door: DoorClient,
  cg: string,
  op: OrderOp,
  args: Readonly<Record<string, unknown>>,
  as?: Signer,
): Promise<Uint8Array> {
  const operator = as ?? (await openOperator(context.data));
  const { index: beat } = await door.beat({ signal: context.signal });
  const order = { v: 1, cg, op, args, nonce: random(32), beat, exp: beat + lifeBeats } as const;
  return signOrder({ ...order, by: operator.publicKey }, operator);
}

/** Has it carried out, saying how far it is. */
export function carry(context: Context, door: DoorClient, order: Uint8Array): Promise<OrderResult> {
  const { screen, signal } = context;
  const onProgress = (progress: unknown): void => screen.say(String(progress));
  return door.custodyOrder<OrderResult>(order, { signal, onProgress });
}

/** Has it carried out; exit status 1 when some custodians have not obeyed. */
export async function give(context: Context, door: DoorClient, order: Uint8Array): Promise<number> {
  const { screen, json } = context;
  const result = await carry(context, door, order);
  if (json) screen.value(result);
  else for (const line of resultLines(result)) screen.line(line);
  return 'failed' in result && result.failed.length > 0 ? 1 : 0;
}

export function resultLines(result: OrderResult): string[] {
  if ('obeyed' in result) {
    const past = result.ceremony === 'seal' ? 'sealed' : 'unsealed';
    return [
      `${past}: ${result.obeyed.length === 0 ? 'nobody' : result.obeyed.join(', ')}`,
      ...result.failed.map((why) => `not ${past}: ${why}`),
    ];
  }
  if ('known' in result)
    return [
      `version ${result.version} of the policy is in force; known already by ${result.known.join(', ') || 'nobody'}`,
      ...result.refused.map((why) => `did not sign: ${why}`),
    ];
  if ('next' in result)
    return [
      ...(result.steps.length === 0 ? ['rotation: nothing to do now'] : result.steps),
      `next: ${result.next}`,
    ];
  const { ceremony, cg, t, n, kekVer, shareGen, active, behind, tookMs } = result;
  return [
    ...('restored' in result ? [`restored: version ${result.restored.join(', ')} of the key`] : []),
    `${ceremony} done in ${tookMs} ms: group ${cg}, key ${kekVer}, generation ${shareGen}, ${t} of ${n} needed`,
    `shares active: ${active.join(', ')}`,
    ...(behind.length === 0 ? [] : [`behind, and repaired when they answer: ${behind.join(', ')}`]),
    ...('failed' in result ? result.failed.map((why) => `not restored: ${why}`) : []),
  ];
}

export function seatOf({ peer, org }: Seat): Seat {
  return { peer, org };
}

function seatNamed(kek: TdecKek, byName: ReadonlyMap<string, string>, name: string): Seat {
  const peer = byName.get(name);
  if (peer === undefined) throw new HoldfastError('ARGUMENT_INVALID', `there is no custodian ${name}`);
  return { peer, org: kek.custodians.find((each) => each.peer === peer)?.org ?? name };
}
