// The log of the Beacon as its host has it, whatever keeps it: opened, or begun anew for a generation that is being made.
// To keep it in something else, write another engine here.

import { mkdir, rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { isBorn, setAside } from '../beacon/birth.ts';
import type { JetStreamLog, JetStreamLogOptions } from '../beacon/jetstream.ts';
import { LevelLog } from '../beacon/level.ts';
import type { BeaconLog, LogLineage } from '../beacon/log.ts';
import { PatientLog } from '../beacon/patient-log.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { JetStreamSettings } from '../local/beacon-settings.ts';
import type { BeaconReport } from '../steward/status.ts';
import {
  birthName,
  type Generation,
  logDirectory,
  openLineage,
  writeGeneration,
} from './beacon-generations.ts';
import type { Member } from './member.ts';

export interface HostedLog extends BeaconLog {
  /** What a person is told about it. */
  report(): BeaconReport;
}

/**
 * Opens the log of the generation in force. Never begins one where there was one.
 * Throws DATA_DIR_*, RECORD_CORRUPT, FILE_UNREADABLE for what is on this disk; servers are waited for in the background.
 */
export async function openLog(member: Member, generation: Generation): Promise<HostedLog> {
  const { number, kept } = generation;
  if (kept.engine === 'jetstream') return openStream(member, generation, kept);
  const directory = logDirectory(member, number);
  const name = birthName(number);
  // A log that was there before and has no mark any more is lost: never begin a new one in its place.
  if (member.dir.isBorn(name) && !(await isBorn(directory)))
    throw new HoldfastError('DATA_DIR_DAMAGED', `${directory} is gone although the Beacon was kept there`);
  await mkdir(directory, { recursive: true });
  const log = await LevelLog.open(directory, { lineage: await openLineage(member, number) });
  try {
    await member.dir.markBorn(name);
  } catch (error) {
    await log[Symbol.asyncDispose]();
    throw error;
  }
  return hostedLevel(log);
}

/** An empty log in LevelDB for a generation that is being made; what is there is thrown away. */
export async function newLevelLog(member: Member, generation: number): Promise<LevelLog> {
  const directory = logDirectory(member, generation);
  await rm(directory, { recursive: true, force: true });
  await mkdir(directory, { recursive: true });
  return LevelLog.open(directory);
}

/** Opens the log of a stream once, or begins it; throws as `JetStreamLog.open`. */
async function openStreamOnce(
  member: Member,
  settings: JetStreamSettings,
  options: Pick<JetStreamLogOptions, 'directory' | 'create' | 'signal'>,
): Promise<JetStreamLog> {
  // The client is loaded where it is needed only.
  const { JetStreamLog } = await import('../beacon/jetstream.ts');
  await mkdir(options.directory, { recursive: true });
  return JetStreamLog.open({ ...accessOf(member, settings), ...options });
}

async function openStream(
  member: Member,
  generation: Generation,
  settings: JetStreamSettings,
): Promise<HostedLog> {
  const { number } = generation;
  const directory = logDirectory(member, number);
  const name = birthName(number);
  const log = await PatientLog.start(async (signal) => {
    // Whoever was there before knows the stream, and whoever joins the others finds theirs: neither begins one.
    const mayCreate = !member.dir.isBorn(name) && !member.config.joins;
    const create = mayCreate ? await creation(settings, openLineage(member, number)) : {};
    const opened = await openedCopy(directory, () =>
      openStreamOnce(member, settings, { directory, signal, ...create }),
    );
    if (!member.dir.isBorn(name)) {
      await writeGeneration(member, generation);
      await member.dir.markBorn(name);
    }
    return opened;
  });
  return {
    ...delegated(log),
    report: () => streamReport(log, settings),
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
  };
}

async function creation(
  { replicas = 3 }: JetStreamSettings,
  lineage: Promise<LogLineage>,
): Promise<Pick<JetStreamLogOptions, 'create'>> {
  return { create: { replicas, lineage: await lineage } };
}

/** A copy that is damaged is fetched again: the stream has it all, and the view knows how far that had come. */
async function openedCopy(directory: string, open: () => Promise<JetStreamLog>): Promise<JetStreamLog> {
  try {
    return await open();
  } catch (error) {
    if (!isHoldfastError(error, 'DATA_DIR_DAMAGED') && !isHoldfastError(error, 'RECORD_CORRUPT')) throw error;
    const aside = await setAside(directory, String(Date.now()));
    console.error(`the copy of the log is damaged, now at ${aside}, and fetched again: ${error.message}`);
    return open();
  }
}

/** Where the servers are: what the settings of the cluster say now, for what they do not say what they said before. */
function accessOf({ config }: Member, settings: JetStreamSettings): Omit<JetStreamLogOptions, 'directory'> {
  const { nats, beacon } = config.settings;
  const now = beacon?.engine === 'jetstream' ? { ...settings, ...beacon } : settings;
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

function delegated(log: BeaconLog): Omit<BeaconLog, typeof Symbol.asyncDispose> {
  return {
    append: (append, options) => log.append(append, options),
    read: (from, options) => log.read(from, options),
    watch: (from, options) => log.watch(from, options),
    head: () => log.head(),
  };
}

function hostedLevel(log: LevelLog): HostedLog {
  return {
    ...delegated(log),
    report: () => {
      const { state, reason } = log.health();
      return { engine: 'leveldb', text: 'embedded LevelDB log', state, reason, durable: true, problems: [] };
    },
    [Symbol.asyncDispose]: () => log[Symbol.asyncDispose](),
  };
}

function streamReport(log: PatientLog, { stream }: JetStreamSettings): BeaconReport {
  const problem = log.problem();
  const { state, reason } = log.health();
  const { durable, problems } = log.durability();
  const text = `JetStream stream ${stream}`;
  if (problem === undefined) return { engine: 'jetstream', text, state, reason, durable, problems };
  const refused = 'settings' in problem.details ? 'refused' : 'waiting';
  return {
    engine: 'jetstream',
    text,
    state: problem.details['diverged'] === true ? 'diverged' : refused,
    reason: describeError(problem),
    durable: false,
    problems,
  };
}
