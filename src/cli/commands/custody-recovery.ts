// The offline recovery key: made, ordered by two authorities, and used to bring keys to a provider that is there. The
// other way, by shares out of the safe, is in custody-recovery-shares.ts.

import { asBuffer, keyOfHex, toHex } from '../../core/bytes.ts';
import { HoldfastError } from '../../core/errors.ts';
import { isMap } from '../../core/shape.ts';
import { presentGroup } from '../../local/grants.ts';
import { random } from '../../custody/random.ts';
import { readSecretFile } from '../../custody/secret-file.ts';
import { createWhole, readIfThere, writeWhole } from '../../files/whole.ts';
import { layoutPaths, readLayout } from '../../local/layout.ts';
import type { Command, Context } from '../command.ts';
import { openKeyOf, openOperator } from '../connect.ts';
import { openedProviders } from '../provider-access.ts';
import { raiseAlarm, toOption, wrapperNamed } from '../recovery.ts';
import { recoverShares } from './custody-recovery-shares.ts';

/** A day of beats of a second: people have to come together. */
const lifeBeats = 86_400;

const newKey: Command = {
  name: 'custody recovery new-key',
  usage: 'FILE',
  summary: 'Make an offline recovery key: FILE is its secret half, to be taken away from here',
  positionals: [1, 1],
  notes:
    'Whoever has FILE can read everything that is sealed to it. Keep it in parts, on no machine of the cluster.',
  async run({ positionals: [file = ''], json, screen }) {
    const { newRecoveryKey } = await import('../../custody/recovery.ts');
    const { kid, publicKey, secretKey } = newRecoveryKey(random);
    try {
      await createWhole(file, `${toHex(secretKey)}\n`, 0o600);
    } finally {
      secretKey.fill(0);
    }
    if (json) screen.value({ file, kid, publicKey: toHex(publicKey) });
    else {
      screen.line(`recovery key ${kid}; its secret half is in ${file}`);
      screen.line(
        `in custody/provider.json: "recovery": { "publicKey": "${toHex(publicKey)}", "authorities": [KEY, KEY] }`,
      );
    }
  },
};

const order: Command = {
  name: 'custody recovery order',
  usage: 'FILE [--reason TEXT] [--as KEY-FILE]',
  summary: 'Order a recovery: the first authority makes FILE with a reason, a second one signs the same FILE',
  options: {
    reason: { type: 'string', value: 'TEXT', text: 'why, for the alarm; of the first order' },
    as: { type: 'string', value: 'KEY-FILE', text: 'identity key of the authority (default the operator)' },
  },
  positionals: [1, 1],
  async run(context) {
    const [file = ''] = context.positionals;
    await using at = await openedProviders(context);
    const { keysSealedTo, recoveryOrder } = await import('../../client/recover-keys.ts');
    const present = await readIfThere(file);
    const plan = present === undefined ? await newPlan(context, at) : parsePlan(present, file);
    const keys = await keysSealedTo(at.registry, plan.kid, plan.keys);
    if (keys.length !== plan.keys.length)
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        `${file}: only ${keys.length} of its ${plan.keys.length} keys are there`,
      );
    const { index: beat } = await at.door.beat({ signal: context.signal });
    const asked = { cg: await groupOf(context), kid: plan.kid, reason: plan.reason, beat, lifeBeats };
    const signed = recoveryOrder(keys, asked, await authority(context), random);
    const orders = [...plan.orders, Buffer.from(signed).toString('base64')];
    await writeWhole(file, `${JSON.stringify({ ...plan, orders }, null, 2)}\n`, 0o600);
    if (context.json) context.screen.value({ file, keys: keys.length, orders: orders.length });
    else
      context.screen.line(
        `${file}: ${orders.length} of 2 orders to open ${keys.length} keys: ${plan.reason}`,
      );
  },
};

const openKeys: Command = {
  name: 'custody recovery open',
  usage: 'FILE SECRET-FILE --to NAME',
  summary:
    'Bring the keys of a recovery that two authorities ordered to another provider; raises an alarm first',
  options: toOption,
  positionals: [2, 2],
  notes: 'The alarm stays in the health of the door until custody/recovery-alarms is taken away.',
  async run(context) {
    const [file = '', secretFile = ''] = context.positionals;
    const { screen, json, signal } = context;
    const name = context.text('to');
    if (name === undefined)
      throw new HoldfastError('ARGUMENT_MISSING', 'custody recovery open needs --to NAME');
    await using at = await openedProviders(context);
    const to = await wrapperNamed(at, name);
    const text = await readIfThere(file);
    if (text === undefined)
      throw new HoldfastError('FILE_NOT_FOUND', `${file}: no recovery was ordered there`);
    const plan = parsePlan(text, file);
    const { keysSealedTo, recoverTo } = await import('../../client/recover-keys.ts');
    const secretKey = await readSecretKey(secretFile);
    try {
      const report = await recoverTo({
        registry: at.registry,
        keys: await keysSealedTo(at.registry, plan.kid, plan.keys),
        to,
        secretKey,
        orders: plan.orders.map((each) => new Uint8Array(Buffer.from(each, 'base64'))),
        authorities: at.set.recoveryAuthorities,
        cg: await groupOf(context),
        reason: plan.reason,
        beat: (await at.door.beat({ signal })).index,
        windowBeats: lifeBeats,
        alarm: async ({ kid, keysCount, reason, by, beat }) => {
          await raiseAlarm(context, { beat, kid, keysCount, reason, by: by.map(toHex) });
          screen.say(`ALARM: recovery key ${kid} opens ${keysCount} keys: ${reason}`);
        },
      });
      const { recovered, untouched, failures } = report;
      if (json) screen.value(report);
      else {
        screen.line(
          `${recovered} keys brought to ${name}, ${untouched} were there, ${failures.length} failed`,
        );
        for (const { bkId, message } of failures) screen.line(`  ${bkId}: ${message}`);
      }
      return failures.length === 0 ? 0 : 1;
    } finally {
      secretKey.fill(0);
    }
  },
};

export const recoveryCommands: readonly Command[] = [newKey, order, openKeys, recoverShares];

interface Plan {
  readonly format: 'holdfast-recovery';
  readonly version: 1;
  readonly kid: string;
  readonly reason: string;
  readonly keys: readonly string[];
  readonly orders: readonly string[];
}

type Access = Awaited<ReturnType<typeof openedProviders>>;

async function newPlan(context: Context, { set, registry }: Access): Promise<Plan> {
  const reason = context.text('reason');
  if (reason === undefined || reason.trim() === '')
    throw new HoldfastError('ARGUMENT_MISSING', 'the first order of a recovery needs --reason TEXT');
  const kid = set.recoveryKid;
  if (kid === undefined)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${layoutPaths(context.data).keyProviders} names no recovery key`,
    );
  const { keysSealedTo } = await import('../../client/recover-keys.ts');
  const keys = (await keysSealedTo(registry, kid)).map(({ body }) => toHex(body.bkId));
  return { format: 'holdfast-recovery', version: 1, kid, reason, keys, orders: [] };
}

function parsePlan(text: string, path: string): Plan {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `${path} is not valid JSON`, { cause });
  }
  if (isPlan(value)) return value;
  throw new HoldfastError('ARGUMENT_INVALID', `${path}: a file of \`custody recovery order\` expected`);
}

function isPlan(value: unknown): value is Plan {
  if (!isMap(value) || value['format'] !== 'holdfast-recovery' || value['version'] !== 1) return false;
  const { kid, reason, keys, orders } = value;
  const areTexts = (list: unknown): boolean =>
    Array.isArray(list) && list.every((each) => typeof each === 'string');
  return typeof kid === 'string' && typeof reason === 'string' && areTexts(keys) && areTexts(orders);
}

async function authority(context: Context) {
  const path = context.text('as');
  return path === undefined ? openOperator(context.data) : openKeyOf(path);
}

async function groupOf({ data }: Context): Promise<string> {
  return presentGroup(await readLayout(data));
}

async function readSecretKey(path: string): Promise<Uint8Array> {
  const text = await readSecretFile(path, 'secret half of the recovery key');
  try {
    const key = keyOfHex(asBuffer(text).toString('latin1'));
    if (key !== undefined) return key;
    throw new HoldfastError('ARGUMENT_INVALID', `${path}: 64 hex digits expected`);
  } finally {
    text.fill(0);
  }
}
