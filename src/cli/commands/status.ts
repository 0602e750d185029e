import { setTimeout as sleep } from 'node:timers/promises';
import type { DoorClient } from '../../client/door-client.ts';
import { describeError, HoldfastError } from '../../core/errors.ts';
import type { StewardStatus } from '../../steward/status.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import { statusPage, type Verdict, verdictOf } from '../status-page.ts';

const exitOf: Readonly<Record<Verdict, number>> = { well: 0, problem: 1, unknown: 5 };

export const status: Command = {
  name: 'status',
  usage: '[--watch]',
  summary: 'What is lost, at risk, healing and healthy, and how every node does',
  options: { watch: { type: 'boolean', text: 'draw again every second until Ctrl-C' } },
  positionals: [0, 0],
  notes:
    'Exit status: 0 all well · 1 something is lost, on its last copy or below its minimum · 5 not running, or nothing\n' +
    'can be said because the Beacon is damaged or out of reach.',
  async run(context) {
    await using door = await openDoor(context);
    if (!context.flag('watch')) return await show(context, door);
    while (!context.signal.aborted) {
      await redraw(context, door);
      await sleep(1000, undefined, { signal: context.signal }).catch(() => undefined); // Ctrl-C is how it ends
    }
    return 0;
  },
};

async function show(context: Context, door: DoorClient): Promise<number> {
  const answer = await door.status<StewardStatus>({ signal: context.signal });
  if (context.json) context.screen.value(answer);
  else for (const line of statusPage(answer, door.url, context.screen.paint)) context.screen.line(line);
  return exitOf[verdictOf(answer)];
}

/** While watching, a cluster that goes away is news, not an end. */
async function redraw(context: Context, door: DoorClient): Promise<void> {
  const { screen, signal, json } = context;
  try {
    const answer = await door.status<StewardStatus>({ signal });
    if (json) {
      screen.value(answer);
      return;
    }
    const page = statusPage(answer, door.url, screen.paint);
    screen.line(`${screen.streams.stdout.isTTY === true ? '\u001B[H\u001B[J' : ''}${page.join('\n')}`);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof HoldfastError)) throw error;
    if (json)
      screen.value({ error: { code: error.code, message: describeError(error), details: error.details } });
    else screen.line(screen.paint('red', describeError(error)));
  }
}
