// A log that is being made beside the one in force, to take its place: empty, or what an interrupted attempt for the same
// place has left there.

import { isStoreDamage } from '../beacon/birth.ts';
import type { JetStreamLog } from '../beacon/jetstream.ts';
import { LevelLog } from '../beacon/level.ts';
import type { BeaconLog, LogLineage } from '../beacon/log.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { BeaconSettings, JetStreamSettings } from '../local/beacon-settings.ts';
import {
  beaconDirectory,
  type Generation,
  logDirectory,
  nextLineage,
  prepareGeneration,
  switchGeneration,
} from './beacon-generations.ts';
import { openStreamLog, sayInStream, streamAfter } from './beacon-stream.ts';
import type { Member } from './member.ts';

export interface NextLog extends AsyncDisposable {
  readonly generation: Generation;
  /** Where what belongs to the generation is. */
  readonly directory: string;
  readonly log: BeaconLog;
  /** Makes it the log that counts. On disk when it resolves; it is closed to this process by then. */
  putInForce(): Promise<void>;
}

/** Streams that earlier attempts may have left. */
const attemptsMax = 16;

/**
 * Begins a log that is kept in `kept`, or goes on with one that was begun for it. What is left of that and is of no use,
 * because it is damaged or its stream is not there any more, is thrown away: nothing that counts is in it. Throws what
 * the engines throw.
 */
export async function continueNext(
  member: Member,
  current: Generation,
  kept: BeaconSettings,
): Promise<NextLog> {
  const generation = { number: current.number + 1, kept };
  await prepareGeneration(member, generation);
  try {
    return await opened(member, current, generation);
  } catch (error) {
    if (!isStoreDamage(error) && !isDiverged(error)) throw error;
    console.error(`what an earlier attempt left is thrown away: ${describeError(error)}`);
    await prepareGeneration(member, generation, true);
    return opened(member, current, generation);
  }
}

function isDiverged(error: unknown): boolean {
  return isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['diverged'] === true;
}

/** As `continueNext`, in the same engine, with a log that holds the beginning of the same history or nothing. */
export async function nextOfSame(member: Member, current: Generation): Promise<NextLog> {
  const { kept } = current;
  const next = kept.engine === 'leveldb' ? kept : { ...kept, stream: streamAfter(kept.stream) };
  return continueNext(member, current, next);
}

/** Begins an empty log in the same engine as the current one. What interrupted attempts left is thrown away or passed over. */
export async function beginNext(member: Member, current: Generation): Promise<NextLog> {
  const number = current.number + 1;
  const { kept } = current;
  for (let count = 1; count <= attemptsMax; count++) {
    const generation =
      kept.engine === 'leveldb'
        ? { number, kept }
        : { number, kept: { ...kept, stream: streamAfter(kept.stream, count) } };
    await prepareGeneration(member, generation, true);
    const next = await opened(member, current, generation);
    if ((await next.log.head()).revision === 0) return next;
    await next[Symbol.asyncDispose]();
  }
  throw new HoldfastError(
    'BEACON_UNAVAILABLE',
    `${attemptsMax} streams of earlier attempts are in the way; delete those that are not in force`,
  );
}

async function opened(member: Member, current: Generation, generation: Generation): Promise<NextLog> {
  const { kept, number } = generation;
  const directory = logDirectory(member, number);
  const base = { generation, directory: beaconDirectory(member, number) };
  if (kept.engine === 'leveldb') {
    const log = await LevelLog.open(directory);
    return nextOf({ ...base, log }, async () => switchGeneration(member, current.number, generation));
  }
  const log = await openFilling(member, current, kept, directory);
  const { lineage } = log;
  return nextOf({ ...base, log }, () => openAndSwitch(member, current, { number, kept }, lineage));
}

async function openFilling(
  member: Member,
  current: Generation,
  kept: JetStreamSettings,
  directory: string,
): Promise<JetStreamLog> {
  const lineage = await nextLineage(member, current.number);
  const create = { replicas: kept.replicas ?? 3, lineage, closed: true };
  return openStreamLog(member, kept, { directory, create, fills: true });
}

/** First open, then in force: a crash in between leaves the old log in force, and others may go to the new one. */
async function openAndSwitch(
  member: Member,
  current: Generation,
  generation: Generation & { readonly kept: JetStreamSettings },
  lineage: LogLineage | undefined,
): Promise<void> {
  await sayInStream(member, generation.kept, 'open', 'it is in force');
  await switchGeneration(member, current.number, generation, lineage);
}

function nextOf(
  base: Pick<NextLog, 'generation' | 'directory' | 'log'>,
  putInForce: () => Promise<void>,
): NextLog {
  return {
    ...base,
    putInForce: async () => {
      await base.log[Symbol.asyncDispose]();
      await putInForce();
    },
    [Symbol.asyncDispose]: () => base.log[Symbol.asyncDispose](),
  };
}
