import type { Command } from '../command.ts';
import { openDoor } from '../connect.ts';
import { bytesText } from '../screen.ts';

export const ls: Command = {
  name: 'ls',
  usage: 'PATTERN',
  summary: 'The addresses that match a pattern, with their newest version',
  positionals: [1, 1],
  notes: [
    'A part of the pattern is exact or `any`; in the path * stands for anything in one segment and ** for any',
    "number of segments; no path means everything. Quote it: holdfast ls 'ucxl://any:any@chorus:*/*^/plans/**'.",
    'With --json one value a line.',
  ].join('\n'),
  async run({ positionals, json, screen, signal, ...context }) {
    await using door = await openDoor(context);
    let count = 0;
    for await (const version of door.query(positionals[0] ?? '', { signal })) {
      count++;
      if (json) screen.value(version);
      else {
        const { generatedAt, sizeBytes, address, type } = version;
        const kind = type === 'tree' ? 'dir ' : 'file';
        screen.line(
          `${kind}  ${bytesText(sizeBytes).padStart(10)}  ${generatedAt.slice(0, 19)}Z  ${address}`,
        );
      }
    }
    if (count === 0) screen.say('no address matches');
  },
};
