// The tempo of a steward: the bus, the Pulse where this cluster has one of its own, and the beats for everything here.

import { join } from 'node:path';
import { backbeatBus } from '../backbeat/bus.ts';
import { LocalChannel } from '../backbeat/channel.ts';
import { Pulse } from '../backbeat/pulse.ts';
import { pulseFile } from '../backbeat/pulse-file.ts';
import { SoleLease } from '../backbeat/sole-lease.ts';
import type { Tempo } from '../backbeat/tempo.ts';
import { TempoFollower } from '../backbeat/tempo-follower.ts';
import { minute } from '../core/clock.ts';
import { type Member, random, systemClock } from './member.ts';

/** A local bar is short, so that what happens once a bar can be watched. */
const barBeats = 60;

export interface Backbeat extends AsyncDisposable {
  readonly tempo: Tempo;
}

/** Throws FILE_UNREADABLE or DISK_FULL when the Pulse's record cannot be read or written. */
export async function startBackbeat({ config, identity }: Member): Promise<Backbeat> {
  await using stack = new AsyncDisposableStack();
  const clusterId = config.cluster;
  const tempoBpm = Math.min(1000, Math.max(0.1, Math.round((10 * minute) / config.settings.beatMs) / 10));
  const channel = stack.use(new LocalChannel(systemClock.now()));
  const bus = backbeatBus(channel, { signer: identity.signer });
  const tempo = stack.use(
    new TempoFollower({ bus, clusterId, defaultTempoBpm: tempoBpm, clock: systemClock }),
  );
  const lease = stack.use(
    await SoleLease.open({
      store: pulseFile(join(config.dataDir, 'pulse.json'), (error) => console.error(error.message)),
      random,
      onError: (error) => console.error('pulse', error),
    }),
  );
  stack.use(new Pulse({ clusterId, tempoBpm, barBeats, bus, lease, clock: systemClock, random }));
  const owned = stack.move();
  return { tempo, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
