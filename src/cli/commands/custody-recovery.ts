// What is left when a custody group is lost: the offline recovery key, made, ordered by two authorities and used, and
// shares out of the safe. Either brings the keys to a provider that is there.

import { open } from 'node:fs/promises';
import { asBuffer, keyOfHex, toHex } from '../../core/bytes.ts';
import { HoldfastError } from '../../core/errors.ts';
import { custodiansMax } from '../../core/limits.ts';
import { isMap } from '../../core/shape.ts';
import { groupNameOf } from '../../custody/directory.ts';
import { wrapsGivenKeys } from '../../custody/provider.ts';
import { readSecretFile } from '../../custody/secret-file.ts';
import { readShareHead } from '../../custody/share-export.ts';
import { createWhole, fileError, readIfThere, writeWhole } from '../../files/whole.ts';
import { layoutPaths, readLayout } from '../../local/layout.ts';
import type { Command, Context } from '../command.ts';
import { openKeyOf, openOperator } from '../connect.ts';
import { servingVersions, tellDrill, triedExports } from '../cold-exports.ts';
import { openedProviders, usable } from '../provider-access.ts';
import { random } from '../../custody/random.ts';

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
  options: {
    to: { type: 'string', value: 'NAME', text: 'a provider that can wrap given keys: file, or one of yours' },
  },
  positionals: [2, 2],
  notes: 'The alarm stays in the health of the door until custody/recovery-alarms is taken away.',
  async run(context) {
    const [file = '', secretFile = ''] = context.positionals;
    const { screen, json, signal } = context;
    const name = context.text('to');
    if (name === undefined)
      throw new HoldfastError('ARGUMENT_MISSING', 'custody recovery open needs --to NAME');
    await using at = await openedProviders(context);
    const to = await usable(at.set, name);
    if (!wrapsGivenKeys(to))
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        `"${name}" cannot wrap given keys; move there by custody migrate afterwards`,
      );
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

const openShares: Command = {
  name: 'custody recovery shares',
  usage: 'EXPORT[=SECRET-FILE]… --to NAME --reason TEXT [--secret-file FILE]',
  summary: 'Bring all keys to another provider with shares out of the safe; raises an alarm first',
  options: {
    to: { type: 'string', value: 'NAME', text: 'a provider that can wrap given keys: file, or one of yours' },
    reason: { type: 'string', value: 'TEXT', text: 'why, for the alarm' },
    'secret-file': {
      type: 'string',
      value: 'FILE',
      text: 'passphrase or key that opens the EXPORTs without one of their own',
    },
  },
  positionals: [1, custodiansMax],
  notes: [
    'For when fewer than T custodians are left for good. EXPORT is a file of `custody export`; it takes T of them, of the',
    'present generation, as `custody drill` tries them. Each is used in a process of its own, which can write nothing;',
    'only partial decryptions come back, and no two shares are ever in one process. A branch key is in the clear for a',
    'moment in this process. The old wraps stay. What is interrupted goes on when it is run again. `--to file` makes the',
    'key file where there is none: whoever has it reads everything, so move on to a provider of yours. The alarm stays in',
    'the health of the door until custody/recovery-alarms is taken away.',
    '',
    'Exit status: 0 all keys are there · 1 some could not be brought · 5 the shares do not open the key.',
  ].join('\n'),
  run: recoverByShares,
};

export const recoveryCommands: readonly Command[] = [newKey, order, openKeys, openShares];

async function recoverByShares(context: Context): Promise<number> {
  const { screen, json, signal } = context;
  const [name, reason] = [context.text('to'), context.text('reason')];
  if (name === undefined || reason === undefined || reason.trim() === '')
    throw new HoldfastError(
      'ARGUMENT_MISSING',
      'custody recovery shares needs --to NAME and --reason TEXT: the alarm says it',
    );
  if (name === 'file') {
    const { makeKeyFile } = await import('../custody-provider.ts');
    await makeKeyFile(context.data);
  }
  await using at = await openedProviders(context);
  const to = await usable(at.set, name);
  if (!wrapsGivenKeys(to))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `"${name}" cannot wrap given keys; move there by custody migrate afterwards`,
    );
  const [{ ColdCustody }, { moveKeys, countKeys }] = await Promise.all([
    import('../../custody/cold-custody.ts'),
    import('../../client/move-keys.ts'),
  ]);
  const tried = await triedExports(context, at.door);
  if (tried.exit === 5) {
    tellDrill(context, tried.report);
    return 5;
  }
  const { directory, exports, use } = tried;
  const from = servingVersions(directory)
    .toReversed()
    .map((kek) => ({
      name: `version ${kek.ver}`,
      provider: new ColdCustody({ directory, kek, exports, use, random }),
    }));
  const { under } = await countKeys(at.registry, from);
  const beat = async (): Promise<number> => (await at.door.beat({ signal })).index;
  await raiseAlarm(context, {
    beat: await beat(),
    kid: `shares of ${directory.cg} out of the safe`,
    keysCount: Object.values(under).reduce((sum, count) => sum + count, 0),
    reason,
    by: [...new Set(exports.map(({ message }) => toHex(readShareHead(message).by)))],
  });
  screen.say(`ALARM: shares out of the safe open keys: ${reason}`);
  const { moved, failed, failures } = await moveKeys({
    registry: at.registry,
    from,
    to: { name, provider: to },
    keep: true,
    request: async () => ({
      purpose: 'recovery',
      requester: at.writer.publicKey,
      beat: await beat(),
      signal,
    }),
    onPage: (_, source, state) => screen.say(`${state.moved} brought, of ${source}`),
  });
  if (json) screen.value({ to: name, moved, failed, failures });
  else {
    screen.line(`${moved} keys brought to ${name}, ${failed} failed`);
    for (const { bkId, message } of failures) screen.line(`  ${bkId}: ${message}`);
  }
  return failed === 0 ? 0 : 1;
}

interface Alarm {
  readonly beat: number;
  /** What opens the keys. */
  readonly kid: string;
  readonly keysCount: number;
  readonly reason: string;
  /** Keys of those who ordered it, or whose shares they are, in hex. */
  readonly by: readonly string[];
}

async function raiseAlarm({ data }: Context, alarm: Alarm): Promise<void> {
  const line = JSON.stringify({ at: new Date().toISOString(), ...alarm });
  await appendLine(layoutPaths(data).recoveryAlarms, line);
}

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
  return groupNameOf((await readLayout(data)).file.cluster);
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

/** On the disk when it resolves. */
async function appendLine(path: string, line: string): Promise<void> {
  try {
    await using file = await open(path, 'a', 0o600);
    await file.write(`${line}\n`);
    await file.sync();
  } catch (cause) {
    throw fileError(path, 'cannot be written', cause);
  }
}
