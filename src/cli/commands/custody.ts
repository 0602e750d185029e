// The group's health, who may ask it for what, and who did.

import { CapabilityAudience, grantChain, readRevoked } from '../custody-grants.ts';
import { custodyExit, custodyPage } from '../custody-page.ts';
import { believed } from '../custody-believed.ts';
import { toHex } from '../../core/bytes.ts';
import { formatCapabilityFile } from '../../custody/capability-file.ts';
import { signRevocation } from '../../custody/revocation.ts';
import { createWhole, writeWhole } from '../../files/whole.ts';
import type { Command } from '../command.ts';
import { openDoor, openOperator, openWriter } from '../connect.ts';
import { ceremonyCommands } from './custody-ceremonies.ts';
import { custodyEvict } from './custody-evict.ts';
import { custodyAudit } from './custody-audit.ts';
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

const custodyGrant: Command = {
  name: 'custody grant',
  usage: 'KEY [--project P] [--cls C] [--ops LIST] [--beats N] [--max N] [--under FILE] [--out FILE]',
  summary: 'Sign a capability: what the holder of KEY may ask custodians for',
  options: {
    project: { type: 'string', value: 'P', text: 'project, or the beginning of one and * (default *)' },
    cls: {
      type: 'string',
      value: 'C',
      text: 'highest class: public, internal, confidential, restricted (default internal)',
    },
    prefix: { type: 'string', value: 'PATH', text: 'UCXL path prefix; only a key agent can honour one' },
    ops: { type: 'string', value: 'LIST', text: 'some of read,write,pin,prune,audit (default read)' },
    beats: { type: 'string', value: 'N', text: 'for so many beats from now (default 86400)' },
    max: { type: 'string', value: 'N', text: 'branch keys in one bar (default 256)' },
    under: {
      type: 'string',
      value: 'FILE',
      text: 'pass on the capability in FILE, narrower, signed by the writer key; else the operator signs',
    },
    out: {
      type: 'string',
      value: 'FILE',
      text: 'where it is written (default capability-KEY.cap; - for standard output)',
    },
    force: { type: 'boolean', text: 'replace the file if it exists' },
  },
  positionals: [1, 1],
  notes:
    'KEY is an Ed25519 public key, 64 hex digits, or a peer id. The file is of use only with its private key.',
  async run(context) {
    const { screen, json, positionals } = context;
    await using door = await openDoor(context);
    const audience = await CapabilityAudience.parse(positionals[0] ?? '');
    const signer =
      context.text('under') === undefined ? openOperator(context.data) : openWriter(context.data);
    const { index: beat } = await door.beat({ signal: context.signal });
    const { group } = await door.custodyStatus({ signal: context.signal });
    const chain = await grantChain(context, { group, beat, audience, signer: await signer });
    const text = formatCapabilityFile(chain);
    const file = context.text('out') ?? `capability-${toHex(audience.key).slice(0, 8)}.cap`;
    if (file === '-') {
      if (json) screen.value({ file: null, key: toHex(audience.key), links: chain.length, capability: text });
      else screen.streams.stdout.write(text);
      return;
    }
    await (context.flag('force') ? writeWhole : createWhole)(file, text, 0o600);
    if (json) screen.value({ file, key: toHex(audience.key), links: chain.length });
    else screen.line(`${file}: ${text.split('\n')[0]?.replace('# holdfast capability: ', '') ?? ''}`);
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
    const { screen, json, signal, positionals, data } = context;
    await using door = await openDoor(context);
    const directory = await believed(door, data);
    const revoked = await Promise.all(positionals.map(readRevoked));
    const chain = `rev/${directory.cg}`;
    const record = signRevocation(
      {
        cg: directory.cg,
        n: directory.count(chain) + 1,
        prev: directory.last(chain) ?? null,
        beat: (await door.beat({ signal })).index,
        revoked,
      },
      await openOperator(data),
    );
    const { revision } = await door.custodyFile(record, { signal });
    if (json) screen.value({ revision, revoked: revoked.map(({ what, id }) => ({ what, id: toHex(id) })) });
    else for (const { what, id } of revoked) screen.line(`revoked ${what} ${toHex(id)}`);
  },
};

export const custodyCommands: readonly Command[] = [
  custodyStatus,
  custodyGrant,
  custodyRevoke,
  ...policyCommands,
  custodyAudit,
  ...ceremonyCommands,
  custodyEvict,
  ...backupCommands,
  custodyReseal,
];
