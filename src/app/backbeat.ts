// The tempo of a steward: the bus, our Pulse where this cluster has one of its own, and the beats for everything here;
// and what the steward says on that bus, its claims and the report of each bar.

import { hostname } from 'node:os';
import { join, resolve } from 'node:path';
import { type BackbeatBus, backbeatBus } from '../backbeat/bus.ts';
import { type Channel, LocalChannel } from '../backbeat/channel.ts';
import { ClaimDesk } from '../backbeat/claim-desk.ts';
import { idOf, type JobReport } from '../backbeat/claim.ts';
import { beatMs } from '../backbeat/beat.ts';
import type { JobNow } from '../backbeat/job-schedule.ts';
import { defaultLeaseTiming, type Lease } from '../backbeat/lease.ts';
import type { NatsChannel } from '../backbeat/nats.ts';
import { Pulse } from '../backbeat/pulse.ts';
import { pulseFile } from '../backbeat/pulse-file.ts';
import { ReverbDesk } from '../backbeat/reverb-desk.ts';
import { SharedLease } from '../backbeat/shared-lease.ts';
import { SoleLease } from '../backbeat/sole-lease.ts';
import { subjectsOf } from '../backbeat/subjects.ts';
import { TempoFollower } from '../backbeat/tempo-follower.ts';
import type { TempoReport } from '../backbeat/tempo-report.ts';
import { minute, second } from '../core/clock.ts';
import { random } from '../custody/random.ts';
import type { ProcessConfig } from '../local/layout.ts';
import type { NatsSettings } from '../local/nats-settings.ts';
import { sayNowAndThen } from '../local/say-seldom.ts';
import { type HealEpisode, jobReports } from '../steward/jobs.ts';
import type { Steward } from '../steward/steward.ts';
import { type Member, systemClock } from './member.ts';

/** A local bar is short, so that what happens once a bar can be watched. */
const barBeats = 60;

export interface Backbeat extends AsyncDisposable {
  readonly tempo: TempoFollower;
  readonly bus: BackbeatBus;
  /** Whether the beats of the cluster come from this process now. */
  readonly isLeading: () => boolean;
  /** Lets our frames say how the cluster does, and the report what the last bar was like. */
  join(voices: { readonly health: () => 'healthy' | 'degraded'; readonly reverb: ReverbDesk }): void;
  report(): TempoReport;
}

export interface BackbeatOptions {
  /** Without NATS, another steward's Pulse leads and its beats are brought here (`bus.publishBeat`). */
  readonly isTold?: boolean;
}

/**
 * Begins to keep time. Servers that are not there are waited for in the background.
 *
 * @throws FILE_UNREADABLE or DISK_FULL when the Pulse's record cannot be read or written, ARGUMENT_INVALID for a subject
 * that NATS would not take
 */
export async function startBackbeat(
  { config, identity }: Pick<Member, 'config' | 'identity'>,
  options: BackbeatOptions = {},
): Promise<Backbeat> {
  await using stack = new AsyncDisposableStack();
  const clusterId = config.cluster;
  const tempoBpm = Math.min(1000, Math.max(0.1, Math.round((10 * minute) / config.settings.beatMs) / 10));
  const { nats, pulse: whose } = config.settings;
  const network = nats === undefined ? undefined : stack.use(await openNats(config, nats));
  const channel: Channel = network ?? stack.use(new LocalChannel(systemClock.now()));
  const bus = backbeatBus(channel, { signer: identity.signer });
  const tempo = stack.use(
    new TempoFollower({ bus, clusterId, defaultTempoBpm: tempoBpm, clock: systemClock }),
  );
  let voices: Parameters<Backbeat['join']>[0] | undefined;
  let pulse: Pulse | undefined;
  if (whose !== 'external' && !(network === undefined && options.isTold === true)) {
    const lease = stack.use(await openLease(config, network, tempoBpm));
    const health = (): 'healthy' | 'degraded' => voices?.health() ?? 'healthy';
    const ports = { bus, lease, clock: systemClock, random, health };
    pulse = stack.use(new Pulse({ clusterId, tempoBpm, barBeats, ...ports }));
  }
  const owned = stack.move();
  const isLeading = (): boolean => pulse?.isLeading ?? false;
  return {
    tempo,
    bus,
    isLeading,
    join: (joined) => {
      voices = joined;
    },
    report: () => ({
      state: tempo.current().state,
      since: tempo.current().since,
      isLeading: isLeading(),
      beats: tempo.counters(),
      bus: bus.status(),
      lastBar: voices?.reverb.last ?? null,
      claims: voices?.reverb.counters ?? null,
    }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

export interface VoicePorts {
  readonly steward: Pick<Steward, 'status' | 'chores'>;
  /** Undefined in a cluster without custodians. */
  readonly custody: { rotationsOk(): boolean; readonly trouble: string | undefined } | undefined;
}

/** Lets this steward say what its jobs do, once a beat, and what happened in every bar that its Pulse has led. */
export function startVoices(
  { config }: Pick<Member, 'config'>,
  backbeat: Backbeat,
  { steward, custody }: VoicePorts,
): Disposable {
  using stack = new DisposableStack();
  const { bus, tempo, isLeading } = backbeat;
  const secretRotationsOk = (): boolean => custody?.rotationsOk() ?? true;
  const reverb = stack.use(
    new ReverbDesk({ bus, tempo, clock: systemClock, mayReport: isLeading, secretRotationsOk }),
  );
  let episode: HealEpisode | undefined;
  const jobs = (now: JobNow): readonly JobReport[] => {
    const made = jobReports(
      {
        status: steward.status(),
        chores: steward.chores(),
        scrubMs: config.settings.scrubMs,
        barBeats,
        custody: custody && { rotationsOk: custody.rotationsOk(), trouble: custody.trouble },
      },
      now,
      episode,
    );
    episode = made.episode;
    return made.jobs;
  };
  const agentId = idOf(`holdfast:${config.name}:${hostname()}`);
  stack.use(new ClaimDesk({ bus, tempo, clock: systemClock, random, agentId, jobs }));
  const health = () => (steward.status().alarms.length === 0 ? 'healthy' : 'degraded');
  backbeat.join({ health, reverb });
  return stack.move();
}

/** The NATS client is loaded where it is needed only. */
async function openNats(config: ProcessConfig, nats: NatsSettings): Promise<NatsChannel> {
  const { NatsChannel } = await import('../backbeat/nats.ts');
  const at = (path: string | undefined): string | undefined =>
    path === undefined ? undefined : resolve(config.dir, path);
  return new NatsChannel({
    servers: nats.servers,
    credentialsPath: at(nats.credentials),
    caPath: at(nats.ca),
    clusterId: config.cluster,
    subjects: subjectsOf(config.cluster, nats.subjects),
    name: `holdfast ${config.cluster} ${config.name}`,
    clock: systemClock,
  });
}

/** Over NATS the lease is shared, and begins with the count that this steward had when it was alone. */
async function openLease(
  config: ProcessConfig,
  network: NatsChannel | undefined,
  tempoBpm: number,
): Promise<Lease> {
  const store = pulseFile(join(config.dataDir, 'pulse.json'), (error) => console.error(error.message));
  const onError = sayNowAndThen('pulse');
  if (network === undefined) {
    // Seconds of a slow disk, and no more: what is reserved is skipped after a crash, and custodians must catch up.
    const reserve = Math.min(256, Math.max(16, Math.ceil((10 * second) / beatMs(tempoBpm))));
    return SoleLease.open({ store, random, onError, reserve });
  }
  const seed = await store.read();
  const reserve = Math.ceil((2 * defaultLeaseTiming.ttlMs) / beatMs(tempoBpm)) + 1;
  return new SharedLease({ register: network, clock: systemClock, random, seed, reserve, onError });
}
