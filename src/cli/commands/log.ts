import type { Command } from '../command.ts';
import { openDoor } from '../connect.ts';

export const log: Command = {
  name: 'log',
  usage: 'ADDRESS',
  summary: 'The versions of an address, newest first',
  positionals: [1, 1],
  notes: 'With --json one value a line.',
  async run({ positionals, json, screen, signal, ...context }) {
    await using door = await openDoor(context);
    for await (const line of door.log(positionals[0] ?? '', { signal })) {
      if (json) screen.value(line);
      else {
        const version = `*~${line.version}`.padEnd(6);
        screen.line(
          `${version}  ${line.at}  ${line.type.padEnd(9)}  ${line.cid ?? '(not found by the rebuild)'}`,
        );
      }
    }
  },
};
