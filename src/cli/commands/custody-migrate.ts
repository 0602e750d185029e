// Moving keys from one provider to another, and what providers there are.

import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KeptMove, KeptProgress, MoveReport, NamedProvider } from '../../client/move-keys.ts';
import { HoldfastError } from '../../core/errors.ts';
import { isMap } from '../../core/shape.ts';
import type { ProviderSet } from '../../custody/provider-set.ts';
import { readIfThere, writeWhole } from '../../files/whole.ts';
import { layoutPaths } from '../../local/layout.ts';
import type { Command, Context } from '../command.ts';
import { openedProviders, provided, usable } from '../provider-access.ts';

const custodyProviders: Command = {
  name: 'custody providers',
  usage: '[--create NAME]',
  summary: 'Which key providers are configured, which makes new keys, and whether each answers',
  options: {
    create: { type: 'string', value: 'NAME', text: 'make the key of this one in its server or token' },
  },
  positionals: [0, 0],
  notes:
    'Configured in custody/provider.json of the cluster (docs/key-providers.md). Exit status 5 when one does not answer.',
  async run(context) {
    const { screen, json } = context;
    await using at = await openedProviders(context);
    const create = context.text('create');
    if (create !== undefined) await at.set.makeKeyOf(create);
    const { making, names, recoveryKid } = at.set;
    const found = await Promise.all(names.map((name) => infoOf(at.set, name)));
    if (json) screen.value({ making, providers: found, recoveryKey: recoveryKid ?? null });
    else
      for (const each of found) {
        const makes = making.names.includes(each.name) ? ' (makes new keys)' : '';
        screen.line(`${each.name}: ${each.kind}, group ${each.group ?? 'without a key'}${makes}`);
        screen.line(`  ${each.ok ? '' : 'NOT USABLE: '}${each.text}`);
      }
    if (!json && recoveryKid !== undefined)
      screen.line(`sealed to recovery key ${recoveryKid} too, where the policy allows it`);
    return found.every(({ ok }) => ok) ? 0 : 5;
  },
};

const custodyMigrate: Command = {
  name: 'custody migrate',
  usage: '--to NAME [--from NAME] [--keep] [--dry-run] [--wait]',
  summary: 'Move the keys of everything that is stored to another provider, while it is read and written',
  options: {
    to: {
      type: 'string',
      value: 'NAME',
      text: 'a provider of `custody providers`: custodians, file, or one of yours',
    },
    from: { type: 'string', value: 'NAME', text: 'only what is under this one (default all others)' },
    keep: { type: 'boolean', text: 'leave the old wraps beside the new ones' },
    'dry-run': { type: 'boolean', text: 'count what would be moved' },
    wait: { type: 'boolean', text: 'go on until nothing is left under the others, keys made meanwhile too' },
  },
  positionals: [0, 0],
  notes: [
    'Content, manifests and their CIDs stay. A branch key is in the clear for a moment in this process. To the',
    'custodians, objects go under new branch keys, because their keys cannot be chosen; an old record stays, with no',
    'object under it. What is interrupted goes on when it is run again. Exit status 1 when some keys could not be moved.',
  ].join('\n'),
  run: migrate,
};

export const migrateCommands: readonly Command[] = [custodyProviders, custodyMigrate];

async function migrate(context: Context): Promise<number> {
  const { screen, json, signal } = context;
  const name = context.text('to');
  if (name === undefined) throw new HoldfastError('ARGUMENT_MISSING', 'custody migrate needs --to NAME');
  await using at = await openedProviders(context);
  const { moveKeys, countKeys } = await import('../../client/move-keys.ts');
  const { registry } = at;
  const to = { name, provider: await usable(at.set, name) };
  const from = sourcesOf(context, at.set, name);
  const providers = [...from, to];
  if (context.flag('dry-run')) {
    const counted = await countKeys(registry, providers);
    if (json) screen.value({ to: name, ...counted });
    else for (const line of countLines(counted, from)) screen.line(line);
    return 0;
  }
  await checkDoor(registry, at.set, name);
  const wait = context.flag('wait');
  if (wait && !(at.set.making.combiner === 'one' && at.set.making.names.includes(name)))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `new keys are made by ${at.set.making.names.join(', ')}, so there would be no end: set "make" to "${name}" in ${layoutPaths(context.data).keyProviders} first`,
    );
  const progress = keptIn(layoutPaths(context.data).migration);
  let total: MoveReport | undefined;
  for (;;) {
    const report = await moveKeys({
      registry,
      from,
      to,
      keep: context.flag('keep'),
      progress,
      request: async () => ({
        purpose: 'rewrap',
        requester: at.writer.publicKey,
        beat: (await at.door.beat({ signal })).index,
        signal,
      }),
      onPage: (step, source, { moved }) => screen.say(`${step}: ${moved} from ${source}`),
    });
    total = total === undefined ? report : sum(total, report);
    if (!wait || (report.moved === 0 && report.dropped === 0)) break;
    await sleep(pauseMs, undefined, { signal });
  }
  const { moved, dropped, failed, failures } = total;
  if (json) screen.value(total);
  else {
    screen.line(`${moved} moved to ${name}, ${dropped} old wraps dropped, ${failed} could not be moved`);
    for (const { bkId, message } of failures) screen.line(`  ${bkId}: ${message}`);
  }
  return failed === 0 ? 0 : 1;
}

/** Between two looks for keys that others made meanwhile. */
const pauseMs = 1000;

async function infoOf(set: ProviderSet, name: string) {
  const provider = provided(set, name);
  const { ok, text } = await provider.health();
  return { name, kind: provider.kind, group: set.groupOf(name) ?? null, ok, text };
}

function sourcesOf(context: Context, set: ProviderSet, to: string): readonly NamedProvider[] {
  const wanted = context.text('from');
  const names = wanted === undefined ? set.names : [wanted];
  return names
    .filter((name) => name !== to)
    .map((name) => ({ name, provider: provided(set, name) }))
    .filter(({ name }) => set.groupOf(name) !== undefined);
}

/** A door that seals but could not read what was moved would answer its callers with errors. */
async function checkDoor(
  registry: { opens(): Promise<readonly string[] | null> },
  set: ProviderSet,
  name: string,
): Promise<void> {
  const opens = await registry.opens();
  const group = set.groupOf(name);
  if (opens === null || group === undefined || opens.includes(group)) return;
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `the door does not know "${name}" yet: it reads custody/provider.json with each beat; see \`holdfast status\` for what is wrong with it there`,
  );
}

function countLines(
  { total, under, elsewhere }: { total: number; under: Readonly<Record<string, number>>; elsewhere: number },
  from: readonly NamedProvider[],
): string[] {
  const lines = Object.entries(under).map(([name, count]) => {
    const isOld = from.some((each) => each.name === name);
    return `${name}: ${count} of ${total} keys${isOld && count > 0 ? ', to be moved' : ''}`;
  });
  return elsewhere === 0 ? lines : [...lines, `under none of these: ${elsewhere}`];
}

function keptIn(path: string): KeptProgress {
  return {
    load: async () => {
      const text = await readIfThere(path);
      return text === undefined ? undefined : readKept(text);
    },
    save: (kept) => writeWhole(path, `${JSON.stringify(kept)}\n`, 0o600),
    clear: () => rm(path, { force: true }),
  };
}

/** Undefined for what cannot be used: the move looks through all keys again then. */
function readKept(text: string): KeptMove | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isKept(value) ? value : undefined;
}

function isKept(value: unknown): value is KeptMove {
  if (!isMap(value) || !isMap(value['state'])) return false;
  const { state } = value;
  const counts = ['moved', 'untouched', 'conflicts', 'failed'].map((name) => state[name]);
  const isCursor = state['cursor'] === undefined || typeof state['cursor'] === 'string';
  return (
    isCursor &&
    counts.every(Number.isSafeInteger) &&
    Array.isArray(state['failures']) &&
    state['done'] === false
  );
}

function sum(a: MoveReport, b: MoveReport): MoveReport {
  return {
    moved: a.moved + b.moved,
    dropped: a.dropped + b.dropped,
    failed: b.failed,
    failures: b.failures,
  };
}
