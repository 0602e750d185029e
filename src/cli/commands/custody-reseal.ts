// What a custodian's shares are sealed under at rest, changed on its own machine while it runs.

import { HoldfastError } from '../../core/errors.ts';
import { fieldOf } from '../../core/shape.ts';
import { sealingSources } from '../../custody/sealing-key.ts';
import { callHost } from '../../local/host-commands.ts';
import type { Command } from '../command.ts';
import { custodianHere } from '../custodian-here.ts';

export const custodyReseal: Command = {
  name: 'custody reseal',
  usage: 'NAME|--config FILE --to credential|passphrase-file|key-file',
  summary: 'Seal the shares of a custodian under another secret; on the machine where it runs',
  options: {
    config: { type: 'string', value: 'FILE', text: 'configuration of a custodian that runs by itself' },
    to: { type: 'string', value: 'KIND', text: 'what they shall be sealed under' },
  },
  positionals: [0, 1],
  notes: [
    'passphrase-file: the new passphrase lies beside the place of the present one, its name ending in .next, mode 600; where',
    'none served before it may lie in its place. credential: holdfast-sealing of the service manager, or',
    'holdfast-sealing-next where one serves now. key-file: a new one is made. Everything is sealed anew under the new secret',
    'and named in one step; a power cut at any moment leaves it under the old secret or the new one. The old one opens',
    'copies from before and nothing else: destroy both.',
  ].join('\n'),
  async run(context) {
    const to = context.text('to');
    if (!sealingSources.some((each) => each === to))
      throw new HoldfastError('ARGUMENT_INVALID', `--to takes ${sealingSources.join(', ')}`);
    const { name, dataDir } = await custodianHere(context);
    const answer = await callHost(dataDir, name, '/reseal', { to });
    if (context.json) context.screen.value({ custodian: name, ...Object(answer) });
    else {
      const { screen } = context;
      screen.line(`${name}: shares sealed under ${text(fieldOf(answer, 'now'))}`);
      screen.line(`${text(fieldOf(answer, 'from'))} opens only copies from before: destroy them`);
    }
    return 0;
  },
};

function text(sealing: unknown): string {
  return `the ${String(fieldOf(sealing, 'source'))} ${String(fieldOf(sealing, 'path'))}`;
}
