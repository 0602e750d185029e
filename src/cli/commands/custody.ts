// The group's health, who may ask it for what, and who did.

import { fileRevocation } from '../custody-carried.ts';
import { readRevoked } from '../custody-grants.ts';
import { custodyExit, custodyPage } from '../custody-page.ts';
import { believed } from '../custody-believed.ts';
import { toHex } from '../../core/bytes.ts';
import type { Command } from '../command.ts';
import { openDoor, openOperator } from '../connect.ts';
import { ceremonyCommands } from './custody-ceremonies.ts';
import { custodyEvict } from './custody-evict.ts';
import { custodyAudit } from './custody-audit.ts';
import { grantCommands } from './custody-grant.ts';
import { backupCommands } from './custody-backup.ts';
import { policyCommands } from './custody-policy.ts';
import { custodyReseal } from './custody-reseal.ts';

const custodyStatus: Command = {
  name: 'custody status',
  usage: '',
  summary: 'Who holds shares, who is alive, how old the key is, and whether keys come back',
  positionals: [0, 0],
  notes: 'Exit status: 0 all well · 1 something is to be done · 5 keys cannot be given back now.',
  async run(context) {
    await using door = await openDoor(context);
    const status = await door.custodyStatus({ signal: context.signal });
    if (context.json) context.screen.value(status);
    else for (const line of custodyPage(status, context.screen.paint)) context.screen.line(line);
    return custodyExit(status);
  },
};

const custodyRevoke: Command = {
  name: 'custody revoke',
  usage: 'KEY|FILE…',
  summary: 'Withdraw a key, or the capabilities in a file, before their time',
  positionals: [1, 64],
  notes: [
    'KEY is an Ed25519 public key, 64 hex digits, or a peer id: nothing that it signs counts any more. FILE is a',
    'capability file: its last link is withdrawn, and all that was granted under it. Custodians take it within a beat;',
    'there is no way back.',
  ].join('\n'),
  async run(context) {
    const { screen, json, positionals, data } = context;
    await using door = await openDoor(context);
    const directory = await believed(door, data);
    const revoked = await Promise.all(positionals.map(readRevoked));
    const revision = await fileRevocation(context, door, directory, revoked, await openOperator(data));
    if (json) screen.value({ revision, revoked: revoked.map(({ what, id }) => ({ what, id: toHex(id) })) });
    else for (const { what, id } of revoked) screen.line(`revoked ${what} ${toHex(id)}`);
  },
};

export const custodyCommands: readonly Command[] = [
  custodyStatus,
  ...grantCommands,
  custodyRevoke,
  ...policyCommands,
  custodyAudit,
  ...ceremonyCommands,
  custodyEvict,
  ...backupCommands,
  custodyReseal,
];
