import type { Command } from '../command.ts';
import { openClient } from '../connect.ts';

export const rm: Command = {
  name: 'rm',
  usage: 'ADDRESS',
  summary: 'End an address with a tombstone version; its blocks are reclaimed later',
  options: {
    expect: { type: 'string', value: 'N', text: 'only if N is the newest version now' },
    by: { type: 'string', value: 'NAME', text: 'who removes it' },
  },
  positionals: [1, 1],
  notes: [
    'The history stays readable with `log`. The content of earlier versions (*~N) can be read until its blocks are',
    'reclaimed, six hours later or more; then it is GONE. A later `put` makes the next version.',
  ].join('\n'),
  async run(context) {
    const { positionals, json, screen, signal } = context;
    const expectedVersion = context.whole('expect', { min: 1, max: Number.MAX_SAFE_INTEGER });
    await using client = await openClient(context, context.text('by') ?? 'holdfast/cli');
    const { cid, ...rest } = await client.remove(positionals[0] ?? '', {
      signal,
      ...(expectedVersion === undefined ? {} : { expectedVersion }),
    });
    if (json) screen.value({ ...rest, cid: cid.toString() });
    else screen.line(`removed by ${rest.address}`);
  },
};
