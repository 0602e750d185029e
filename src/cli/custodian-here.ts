// Which custodian of this machine a command is for: one of the local cluster by its name, or one that runs by itself by
// its configuration.

import { HoldfastError } from '../core/errors.ts';
import { loadCustodianConfig } from '../local/custodian-config.ts';
import { layoutPaths, processEntry, readLayout } from '../local/layout.ts';
import type { Context } from './command.ts';

/** Throws ARGUMENT_MISSING without a name and a configuration, ARGUMENT_INVALID for a process that is no custodian. */
export async function custodianHere(
  context: Context,
): Promise<{ readonly name: string; readonly dataDir: string }> {
  const [name] = context.positionals;
  const config = context.text('config');
  if (config !== undefined) {
    if (name !== undefined) throw new HoldfastError('ARGUMENT_INVALID', 'a NAME or --config FILE, not both');
    return loadCustodianConfig(config);
  }
  if (name === undefined)
    throw new HoldfastError('ARGUMENT_MISSING', 'which custodian: NAME or --config FILE');
  const entry = processEntry(await readLayout(context.data), name);
  if (entry.role !== 'custodian') throw new HoldfastError('ARGUMENT_INVALID', `${name} is no custodian`);
  return { name, dataDir: layoutPaths(context.data).data(name) };
}
