// A custodian outside of any supervisor: the same role, from a configuration of its own.

import { writeWhole } from '../files/whole.ts';
import { bornPath, loadCustodianConfig } from '../local/custodian-config.ts';
import { openIdentity, openOrCreateIdentity } from '../node/identity.ts';
import { startCustodianRole } from './custodian-role.ts';
import type { RunningRole } from './daemon.ts';

/** Makes the identity key unless it is there, says which peer it is, and is done. Throws like its two parts. */
export async function initStandalone(configPath: string): Promise<RunningRole> {
  const { identityPath } = await loadCustodianConfig(configPath);
  const { name } = await openOrCreateIdentity(identityPath);
  return {
    info: { peer: name },
    ended: Promise.resolve(),
    [Symbol.asyncDispose]: async () => undefined,
  };
}

/** Starts the custodian. Throws FILE_NOT_FOUND when its identity was not made yet, and what the role throws. */
export async function startStandalone(configPath: string): Promise<RunningRole> {
  const config = await loadCustodianConfig(configPath);
  const { name: peer } = await openIdentity(config.identityPath);
  const role = await startCustodianRole({ ...config, peer });
  await writeWhole(bornPath(config.identityPath), `${new Date().toISOString()}\n`, 0o600);
  return role;
}
