// The Beacon log in a stream, as its host has it: servers that may come and go, a copy on this disk, and another stream
// that another steward may have put in the place of ours.
//
//   holdfast        the first stream
//   holdfast-e2 …   put in its place after it lost something, or for a rebuild; each names those before it
//
// A stream that takes another one's place is filled while it is closed, and opened at the end. So a steward whose stream
// was closed, or is not what it was, looks whether there is an open one behind it that names its own, and goes there.

import { mkdir } from 'node:fs/promises';
import { resolve } from 'node:path';
import { isBorn, isStoreDamage, setAside } from '../beacon/birth.ts';
import type { JetStreamLog, JetStreamLogOptions } from '../beacon/jetstream.ts';
import type { StreamWord } from '../beacon/jetstream-message.ts';
import { LevelLog } from '../beacon/level.ts';
import type { BeaconLog } from '../beacon/log.ts';
import { isSettings, PatientLog } from '../beacon/patient-log.ts';
import { describeError, isHoldfastError } from '../core/errors.ts';
import type { JetStreamSettings } from '../local/beacon-settings.ts';
import type { BeaconReport } from '../steward/status.ts';
import {
  birthName,
  type Generation,
  keepLineage,
  logDirectory,
  openLineage,
  prepareGeneration,
  switchGeneration,
  writeGeneration,
} from './beacon-generations.ts';
import type { HostedLog } from './beacon-logs.ts';
import type { Member } from './member.ts';

export interface StreamPorts {
  /** Folds what the copy holds beyond the view: nobody else has it open. */
  readonly settle: (copy: BeaconLog) => Promise<void>;
  /** Runs `work`, which uses the directory of the next generation, unless this process makes a log there: then false. */
  readonly lookAround: (work: (isBusy: () => boolean) => Promise<boolean>) => Promise<boolean>;
  /** Another log is in force from now on. */
  readonly onReplaced: () => void;
}

interface StreamGeneration extends Generation {
  readonly kept: JetStreamSettings;
}

/** Streams behind ours that are looked at: a rebuild that was given up leaves one that is never opened. */
const successorsTried = 4;
/** Whoever opens it tries again by himself, and says meanwhile what is the matter. */
const once = { openMs: 0 };

/** Servers are waited for in the background. Throws DATA_DIR_LOCKED and the like for the copy. */
export async function openStream(
  member: Member,
  generation: StreamGeneration,
  ports: StreamPorts,
): Promise<HostedLog> {
  const directory = logDirectory(member, generation.number);
  const settle = (): Promise<void> => settleCopy(directory, ports);
  await settle();
  let isFirst = true;
  const adopt = (): Promise<boolean> =>
    ports.lookAround((isBusy) => adoptSuccessor(member, generation, isBusy));
  // A move that was killed: where nothing else is in force this one goes on.
  const goOn = async (): Promise<void> => {
    if (await adopt()) ports.onReplaced();
    else await sayInStream(member, generation.kept, 'open', 'the move was interrupted');
  };
  const log = await PatientLog.start(
    async (signal) => {
      const opened = await openedCopy(directory, () => openInForce(member, generation, signal));
      try {
        if (isFirst && opened.closed?.by === member.peer.name) await goOn();
        isFirst = false;
        return opened;
      } catch (error) {
        await opened[Symbol.asyncDispose]();
        throw error;
      }
    },
    {
      onLost: settle,
      onStuck: async () => {
        if (await adopt()) ports.onReplaced();
      },
    },
  );
  return { log, report: () => reportOf(log, generation.kept) };
}

/** Opens a stream, or begins it, with a copy in `directory`; throws as `JetStreamLog.open`. */
export async function openStreamLog(
  member: Member,
  settings: JetStreamSettings,
  options: Pick<JetStreamLogOptions, 'directory' | 'create' | 'signal' | 'fills' | 'openMs'>,
): Promise<JetStreamLog> {
  // The client is loaded where it is needed only.
  const { JetStreamLog } = await import('../beacon/jetstream.ts');
  await mkdir(options.directory, { recursive: true });
  return JetStreamLog.open({ ...accessOf(member, settings), ...options });
}

/** Closes or opens a stream for everybody; false when there is none. Throws BEACON_UNAVAILABLE. */
export async function sayInStream(
  member: Member,
  settings: JetStreamSettings,
  kind: StreamWord['kind'],
  why: string,
): Promise<boolean> {
  const word = await import('../beacon/jetstream-word.ts');
  return word.sayInStream(accessOf(member, settings), { kind, by: member.peer.name, why });
}

/** The name of the stream that is `count` behind `stream`. */
export function streamAfter(stream: string, count = 1): string {
  const [, base = stream, epoch = '1'] = /^(.+)-e([1-9]\d{0,8})$/.exec(stream) ?? [];
  return `${base}-e${Number(epoch) + count}`;
}

async function openInForce(
  member: Member,
  generation: StreamGeneration,
  signal: AbortSignal,
): Promise<JetStreamLog> {
  const { number, kept } = generation;
  const [directory, name] = [logDirectory(member, number), birthName(number)];
  const lineage = await openLineage(member, number);
  // Whoever was there before knows the stream, and whoever joins the others finds theirs: neither begins one.
  const mayCreate = !member.dir.isBorn(name) && !member.config.joins;
  const create = mayCreate ? { create: { replicas: kept.replicas ?? 3, lineage } } : {};
  const log = await openStreamLog(member, kept, { directory, signal, ...once, ...create });
  try {
    // Another one may have begun it.
    if (log.lineage !== undefined && log.lineage.id !== lineage.id)
      await keepLineage(member, number, log.lineage);
    if (!member.dir.isBorn(name)) {
      await writeGeneration(member, generation);
      await member.dir.markBorn(name);
    }
    return log;
  } catch (error) {
    await log[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Goes to an open stream behind ours that names it. False when there is none; throws BEACON_UNAVAILABLE when nobody says
 * whether there is. The directory of the next generation, where a move of ours may have come far, is taken for a stream
 * that is there only.
 */
async function adoptSuccessor(
  member: Member,
  { number, kept }: StreamGeneration,
  isBusy: () => boolean,
): Promise<boolean> {
  const own = await openLineage(member, number);
  for (let count = 1; count <= successorsTried; count++) {
    if (isBusy()) return false;
    const next = { number: number + 1, kept: { ...kept, stream: streamAfter(kept.stream, count) } };
    if (!(await namesLog(member, next.kept, own.id))) continue;
    await prepareGeneration(member, next);
    const directory = logDirectory(member, next.number);
    const log = await unlessRefused(() => openStreamLog(member, next.kept, { directory, ...once }));
    if (log === undefined) continue;
    await using _log = log;
    await log.head();
    if (log.closed !== undefined || log.lineage?.replaces.includes(own.id) !== true) continue;
    await switchGeneration(member, number, next, log.lineage);
    console.error(`stream ${next.kept.stream} has taken the place of ${kept.stream}`);
    return true;
  }
  return false;
}

/** Whether there is a stream that says it is in the place of log `id`. */
async function namesLog(member: Member, settings: JetStreamSettings, id: string): Promise<boolean> {
  const word = await import('../beacon/jetstream-word.ts');
  const lineage = await unlessRefused(() => word.lineageOfStream(accessOf(member, settings)));
  return lineage?.replaces.includes(id) === true;
}

/** What `work` gives; undefined where the stream is not as it must be. Throws where nobody answers: that may end. */
async function unlessRefused<Result>(work: () => Promise<Result>): Promise<Result | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['unanswered'] === true) throw error;
    console.error(`a stream behind ours is passed over: ${describeError(error)}`);
    return undefined;
  }
}

/** What a copy holds that the view has not folded yet, e.g. after its stream turned out to be another one. */
async function settleCopy(directory: string, { settle }: StreamPorts): Promise<void> {
  if (!(await isBorn(directory))) return;
  try {
    await using copy = await LevelLog.open(directory);
    await settle(copy);
  } catch (error) {
    if (!isStoreDamage(error)) throw error; // a damaged copy is fetched again
  }
}

/** A copy that is damaged is fetched again: the stream has it all, and the view knows how far that had come. */
async function openedCopy(directory: string, open: () => Promise<JetStreamLog>): Promise<JetStreamLog> {
  try {
    return await open();
  } catch (error) {
    if (!isStoreDamage(error)) throw error;
    const aside = await setAside(directory, Date.now());
    console.error(
      `the copy of the log is damaged, now at ${aside}, and fetched again: ${describeError(error)}`,
    );
    return open();
  }
}

/** Where the servers are: what the settings of the cluster say now, for what they do not say what they said before. */
function accessOf({ config }: Member, settings: JetStreamSettings): Omit<JetStreamLogOptions, 'directory'> {
  const { nats, beacon } = config.settings;
  const isSame = beacon?.engine === 'jetstream' && settings.stream.startsWith(beacon.stream);
  const now = isSame ? { ...settings, ...beacon } : settings;
  const at = (path: string): string => resolve(config.dir, path);
  const credentials = now.credentials ?? nats?.credentials;
  const ca = now.ca ?? nats?.ca;
  return {
    servers: now.servers ?? nats?.servers ?? [],
    stream: settings.stream,
    acceptNotDurable: now.acceptNotDurable ?? false,
    ...(credentials === undefined ? {} : { login: { path: at(credentials) } }),
    ...(now.system === undefined ? {} : { system: { path: at(now.system) } }),
    ...(ca === undefined ? {} : { tls: { caFile: at(ca) } }),
  };
}

function reportOf(log: PatientLog, { stream }: JetStreamSettings): BeaconReport {
  const problem = log.problem();
  const { state, reason } = log.health();
  const { durable, problems } = log.durability();
  const text = `JetStream stream ${stream}`;
  if (problem === undefined) {
    const now = log.closed === undefined ? state : 'closed';
    return { engine: 'jetstream', text, state: now, reason, durable, problems };
  }
  const refused = isSettings(problem) ? 'refused' : 'waiting';
  return {
    engine: 'jetstream',
    text,
    state: problem.details['diverged'] === true ? 'diverged' : refused,
    reason: describeError(problem),
    durable: false,
    problems,
  };
}
