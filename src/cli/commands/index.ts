// All commands, in the order of the help.

import type { Command } from '../command.ts';
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
import { custodyCommands } from './custody.ts';
import { migrateCommands } from './custody-migrate.ts';
import { recoveryCommands } from './custody-recovery.ts';
import { down } from './down.ts';
import { get } from './get.ts';
import { heal } from './heal.ts';
import { keyAgentCommands } from './key-agent.ts';
import { log } from './log.ts';
import { ls } from './ls.ts';
import { nodeCommands } from './node.ts';
import { put } from './put.ts';
import { rm } from './rm.ts';
import { stat } from './stat.ts';
import { status } from './status.ts';
import { up } from './up.ts';

export const commands: readonly Command[] = [
  up,
  down,
  status,
  put,
  get,
  ls,
  log,
  stat,
  rm,
  ...nodeCommands,
  custodian,
  ...keyAgentCommands,
  heal,
  ...custodyCommands,
  ...migrateCommands,
  ...recoveryCommands,
  auditStranded,
  beaconVerify,
  beaconReseed,
  beaconRebuild,
  beaconAccept,
  beaconExport,
  beaconImport,
  beaconMigrate,
];
