import { setTimeout as sleep } from 'node:timers/promises';
import type { DoorClient } from '../../client/door-client.ts';
import type { StewardStatus } from '../../steward/status.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import { bytesText } from '../screen.ts';

export const heal: Command = {
  name: 'heal',
  usage: '[--wait]',
  summary: 'Look for deficits now rather than on the next beat',
  options: { wait: { type: 'boolean', text: 'until nothing is left to do, or nothing can be done' } },
  positionals: [0, 0],
  notes:
    'With --wait the exit status is 1 when objects are still short, below their minimum or lost at the end.',
  async run(context) {
    const { json, screen, signal } = context;
    await using door = await openDoor(context);
    await door.heal({ signal });
    if (!context.flag('wait')) {
      if (json) screen.value({ started: true });
      else screen.line('healing brought forward; watch it with `holdfast status --watch`');
      return 0;
    }
    const { objects, unable, healing } = await settled(context, door);
    const bad = objects.total - objects.healthy;
    if (json) screen.value({ objects, unable, copiesDone: healing.copiesDone });
    else {
      screen.line(
        bad === 0
          ? `all ${objects.total} objects are healthy`
          : `${bad} of ${objects.total} objects are not healthy`,
      );
      for (const { state, address, cid, reason } of unable)
        screen.line(`${state}: ${address ?? cid}: ${reason}`);
    }
    return bad === 0 ? 0 : 1;
  },
};

const pollMs = 300;
/** Rounds after the request in which nothing was planned: the first may have begun before it. */
const quietRounds = 3;

/** The status once the steward has looked again and has nothing in hand. */
async function settled({ screen, signal }: Context, door: DoorClient): Promise<StewardStatus> {
  let quietSince: number | undefined;
  let done = 0;
  using progress = screen.progress('healing', undefined);
  for (;;) {
    const { steward } = await door.status<StewardStatus>({ signal });
    if (steward !== null) {
      const { objects, queue, beat, healing } = steward;
      progress.add(
        Math.max(0, healing.copiesDone - done),
        `healing, ${bytesText(healing.pendingBytes)} to go`,
      );
      done = healing.copiesDone;
      const quiet = queue.waiting + queue.underway === 0 && objects.healing + objects.unchecked === 0;
      if (!quiet) quietSince = undefined;
      else quietSince ??= beat.sequence;
      if (quietSince !== undefined && beat.sequence - quietSince >= quietRounds) return steward;
    }
    await sleep(pollMs, undefined, { signal });
  }
}
