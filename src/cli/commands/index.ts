// All commands. Those of custody read keys, certificates and capabilities, and what that takes is four times as much
// as all else a command loads: they are loaded when one of them is meant, or the help of all is.

import { type Command, findCommand } from '../command.ts';
import { auditStranded } from './audit.ts';
import {
  beaconAccept,
  beaconExport,
  beaconImport,
  beaconMigrate,
  beaconRebuild,
  beaconReseed,
  beaconVerify,
} from './beacon.ts';
import { custodian } from './custodian.ts';
import { down } from './down.ts';
import { get } from './get.ts';
import { heal } from './heal.ts';
import { log } from './log.ts';
import { ls } from './ls.ts';
import { nodeCommands } from './node.ts';
import { put } from './put.ts';
import { rm } from './rm.ts';
import { stat } from './stat.ts';
import { status } from './status.ts';
import { up } from './up.ts';

const content: readonly Command[] = [up, down, status, put, get, ls, log, stat, rm, ...nodeCommands];
const registry: readonly Command[] = [
  heal,
  auditStranded,
  beaconVerify,
  beaconReseed,
  beaconRebuild,
  beaconAccept,
  beaconExport,
  beaconImport,
  beaconMigrate,
];

/** Of all, in the order of the help. */
export async function allCommands(): Promise<readonly Command[]> {
  const [{ custodyCommands }, { migrateCommands }, { recoveryCommands }, { keyAgentCommands }] =
    await Promise.all([
      import('./custody.ts'),
      import('./custody-migrate.ts'),
      import('./custody-recovery.ts'),
      import('./key-agent.ts'),
    ]);
  const custody = [...custodyCommands, ...migrateCommands, ...recoveryCommands];
  return [...content, ...registry, ...custody, custodian, ...keyAgentCommands];
}

/** The command that `words` begin with, and the words after it. No name of one kind begins one of the other. */
export async function commandIn(
  words: readonly string[],
): Promise<{ command: Command; rest: string[] } | undefined> {
  return findCommand([...content, ...registry, custodian], words) ?? findCommand(await allCommands(), words);
}
