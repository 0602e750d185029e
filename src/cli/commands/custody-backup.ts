// Shares for the safe: taken out sealed, one custodian at a time and on its own machine, and tried in a drill.

import { resolve } from 'node:path';
import { HoldfastError } from '../../core/errors.ts';
import { custodiansMax } from '../../core/limits.ts';
import { fieldOf } from '../../core/shape.ts';
import { readShareHead } from '../../custody/share-export.ts';
import { formatShareFile, shareText } from '../../custody/share-file.ts';
import { createWhole, writeWhole } from '../../files/whole.ts';
import { callHost } from '../../local/host-commands.ts';
import { exportOptions, tellDrill, triedExports } from '../cold-exports.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import { custodianHere } from '../custodian-here.ts';

const custodyExport: Command = {
  name: 'custody export',
  usage: 'NAME|--config FILE (--passphrase-file FILE | --recipient KEY) [--out FILE] [--force]',
  summary: "Take a custodian's shares out, sealed, for the safe; on the machine where it runs",
  options: {
    config: { type: 'string', value: 'FILE', text: 'configuration of a custodian that runs by itself' },
    'passphrase-file': {
      type: 'string',
      value: 'FILE',
      text: 'seal to the passphrase in FILE, mode 600, 12 bytes or more',
    },
    recipient: {
      type: 'string',
      value: 'KEY',
      text: 'seal to an X25519 key, 64 hex digits (`custody recovery new-key` makes one)',
    },
    out: { type: 'string', value: 'FILE', text: 'where it is written (default NAME.share)' },
    force: { type: 'boolean', text: 'replace the file if it exists' },
  },
  positionals: [0, 1],
  notes: [
    'The custodian writes it into its audit log first. An export is worth a share for as long as its generation is the',
    'present one: take it out again after each refresh that it shall survive, keep it where no other is, and destroy the',
    'one before: T exports of one generation open everything, also of a past one, for whoever has the registry.',
  ].join('\n'),
  async run(context) {
    const { json, screen } = context;
    const { name, dataDir } = await custodianHere(context);
    const answer = await callHost(dataDir, name, '/export', recipient(context));
    const exports = exportsOf(answer);
    const file = context.text('out') ?? `${name}.share`;
    await (context.flag('force') ? writeWhole : createWhole)(file, formatShareFile(name, exports), 0o600);
    const heads = exports.map(readShareHead);
    if (json)
      screen.value({
        file,
        custodian: name,
        shares: heads.map(({ cg, kekVer, shareGen, i, beat }) => ({
          group: cg,
          version: kekVer,
          generation: shareGen,
          index: i,
          beat,
        })),
      });
    else for (const head of heads) screen.line(`${file}: ${shareText(head)}`);
  },
};

function recipient(context: Context): Readonly<Record<string, unknown>> {
  const [file, key] = [context.text('passphrase-file'), context.text('recipient')];
  if (file !== undefined && key === undefined) return { passphraseFile: resolve(file) };
  if (key !== undefined && file === undefined) return { publicKey: key };
  throw new HoldfastError(
    'ARGUMENT_MISSING',
    'custody export needs --passphrase-file FILE or --recipient KEY, one of them',
  );
}

function exportsOf(answer: unknown): readonly Uint8Array[] {
  const list = fieldOf(answer, 'exports');
  if (Array.isArray(list) && list.every((each) => typeof each === 'string'))
    return list.map((each: string) => new Uint8Array(Buffer.from(each, 'base64')));
  throw new HoldfastError(
    'INTERNAL',
    'the custodian speaks another version; use the program that started it',
  );
}

const custodyDrill: Command = {
  name: 'custody drill',
  usage: 'EXPORT[=SECRET-FILE]… [--secret-file FILE]',
  summary: 'Try whether the shares in the safe still open the key, and forget them again',
  options: exportOptions,
  positionals: [1, custodiansMax],
  notes: [
    'EXPORT is a file of `custody export`. For each version of the key that opens documents, a canary is sealed; every',
    'export makes its part in a process of its own, which can write nothing and ends right after; T parts are combined.',
    'No two shares are ever in one process, and nothing but canaries is opened. The custodians take no part.',
    '',
    'Exit status: 0 every version opens and every export is good · 1 they open, and some exports are to be made anew ·',
    '5 a version does not open with these.',
  ].join('\n'),
  async run(context) {
    await using door = await openDoor(context);
    const { report, exit } = await triedExports(context, door);
    tellDrill(context, report);
    return exit;
  },
};

export const backupCommands: readonly Command[] = [custodyExport, custodyDrill];
