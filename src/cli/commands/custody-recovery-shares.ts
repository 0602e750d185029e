// What is left when fewer than t custodians are: t shares out of the safe bring the keys to a provider that is there.

import type { KeyRegistry } from '../../client/key-registry.ts';
import type { MoveReport, NamedProvider } from '../../client/move-keys.ts';
import { toHex } from '../../core/bytes.ts';
import { HoldfastError } from '../../core/errors.ts';
import { custodiansMax } from '../../core/limits.ts';
import { random } from '../../custody/random.ts';
import { readShareHead } from '../../custody/share-export.ts';
import {
  exportOptions,
  servingVersions,
  tellDrill,
  type TriedExports,
  triedExports,
} from '../cold-exports.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import { openedProviders, type ProviderAccess, usable } from '../provider-access.ts';
import { raiseAlarm, toOption, wrapperNamed } from '../recovery.ts';

export const recoverShares: Command = {
  name: 'custody recovery shares',
  usage: 'EXPORT[=SECRET-FILE]… --to NAME --reason TEXT [--secret-file FILE]',
  summary: 'Bring all keys to another provider with shares out of the safe; raises an alarm first',
  options: {
    ...toOption,
    ...exportOptions,
    reason: { type: 'string', value: 'TEXT', text: 'why, for the alarm' },
  },
  positionals: [1, custodiansMax],
  notes: [
    'For when fewer than T custodians are left for good. EXPORT is a file of `custody export`; it takes T of them, of the',
    'present generation, as `custody drill` tries them. Each is open in a process of its own, which can write nothing;',
    'only partial decryptions come back, and no two shares are ever in one process. A branch key is in the clear for a',
    'moment in this process. The old wraps stay. `--to custodians` is for shares of a group that has ended: objects go under',
    'new keys of the group in its place. What is interrupted goes on when it is run again. `--to file` makes the',
    'key file where there is none: whoever has it reads everything, so move on to a provider of yours. The alarm stays in',
    'the health of the door until custody/recovery-alarms is taken away.',
    '',
    'Exit status: 0 all keys are there · 1 some could not be brought · 5 the shares do not open the key.',
  ].join('\n'),
  run: recoverByShares,
};

async function recoverByShares(context: Context): Promise<number> {
  const { signal } = context;
  const [name, reason] = [context.text('to'), context.text('reason')];
  if (name === undefined || reason === undefined || reason.trim() === '')
    throw new HoldfastError(
      'ARGUMENT_MISSING',
      'custody recovery shares needs --to NAME and --reason TEXT: the alarm says it',
    );
  const tried = await triedHere(context);
  if (tried.exit === 5) {
    tellDrill(context, tried.report);
    return 5;
  }
  if (name === 'file') {
    const { makeKeyFile } = await import('../custody-provider.ts');
    await makeKeyFile(context.data);
  }
  await using at = await openedProviders(context);
  const to = { name, provider: await targetNamed(at, name, tried) };
  const from = await coldProviders(tried);
  await using shares = new AsyncDisposableStack();
  for (const { provider } of from) shares.use(provider);
  const beat = async (): Promise<number> => (await at.door.beat({ signal })).index;
  await raise(context, { tried, from, registry: at.registry, reason, beat: await beat() });
  const { moveKeys } = await import('../../client/move-keys.ts');
  const report = await moveKeys({
    registry: at.registry,
    from,
    to,
    keep: true,
    request: async () => ({
      purpose: 'recovery',
      requester: at.writer.publicKey,
      beat: await beat(),
      signal,
    }),
    onPage: (_, source, { moved }) => context.screen.say(`${moved} brought, of ${source}`),
  });
  tell(context, name, report);
  return report.failed === 0 ? 0 : 1;
}

/** Of a group that has ended also the one in its place: objects go under new keys there (client/move-objects.ts). */
async function targetNamed(at: ProviderAccess, name: string, { directory }: TriedExports) {
  const provider = name === 'custodians' ? await usable(at.set, name) : undefined;
  const isAnother = provider?.kind === 'tdec' && at.set.groupOf(name) !== directory.cg;
  return provider !== undefined && isAnother ? provider : wrapperNamed(at, name);
}

async function triedHere(context: Context): Promise<TriedExports> {
  await using door = await openDoor(context);
  return await triedExports(context, door);
}

/** One for each version that opens documents, the newest first: most keys are under it. */
async function coldProviders({ directory, exports, open }: TriedExports): Promise<readonly NamedProvider[]> {
  const { ColdCustody } = await import('../../custody/cold-custody.ts');
  return servingVersions(directory)
    .toReversed()
    .map((kek) => ({
      name: `version ${kek.ver}`,
      provider: new ColdCustody({ directory, kek, exports, open, random }),
    }));
}

interface Opening {
  readonly tried: TriedExports;
  readonly from: readonly NamedProvider[];
  readonly registry: KeyRegistry;
  readonly reason: string;
  readonly beat: number;
}

async function raise(context: Context, { tried, from, registry, reason, beat }: Opening): Promise<void> {
  const { countKeys } = await import('../../client/move-keys.ts');
  const { under } = await countKeys(registry, from);
  await raiseAlarm(context, {
    beat,
    kid: `shares of ${tried.directory.cg} out of the safe`,
    keysCount: Object.values(under).reduce((sum, count) => sum + count, 0),
    reason,
    by: [...new Set(tried.exports.map(({ message }) => toHex(readShareHead(message).by)))],
  });
  context.screen.say(`ALARM: shares out of the safe open keys: ${reason}`);
}

function tell({ json, screen }: Context, to: string, { moved, failed, failures }: MoveReport): void {
  if (json) screen.value({ to, moved, failed, failures });
  else
    screen.line(
      [
        `${moved} keys brought to ${to}, ${failed} failed`,
        ...failures.map(({ bkId, message }) => `  ${bkId}: ${message}`),
      ].join('\n'),
    );
}
