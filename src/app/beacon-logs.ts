// The log of the Beacon in force, as its host has it, whatever keeps it. To keep it in something else, write another
// engine here and in beacon-next.ts.

import { mkdir } from 'node:fs/promises';
import { isBorn } from '../beacon/birth.ts';
import { LevelLog } from '../beacon/level.ts';
import type { RecallingLog } from '../beacon/log.ts';
import { HoldfastError } from '../core/errors.ts';
import type { BeaconReport } from '../steward/status.ts';
import {
  birthName,
  type Generation,
  keepGeneration,
  logDirectory,
  openLineage,
} from './beacon-generations.ts';
import { openStream, type StreamPorts } from './beacon-stream.ts';
import type { Member } from './member.ts';

export interface HostedLog {
  readonly log: RecallingLog;
  /** What a person is told about it. */
  report(): BeaconReport;
}

/**
 * Opens the log of the generation in force. Never begins one where there was one.
 * Throws DATA_DIR_*, RECORD_CORRUPT, FILE_UNREADABLE for what is on this disk; servers are waited for in the background.
 */
export async function openLog(
  member: Member,
  generation: Generation,
  ports: StreamPorts,
): Promise<HostedLog> {
  const { number, kept } = generation;
  if (kept.engine === 'jetstream') return openStream(member, { number, kept }, ports);
  const directory = logDirectory(member, number);
  const name = birthName(number);
  // A log that was there before and has no mark any more is lost: never begin a new one in its place.
  if (member.dir.isBorn(name) && !(await isBorn(directory)))
    throw new HoldfastError('DATA_DIR_DAMAGED', `${directory} is gone although the Beacon was kept there`);
  await mkdir(directory, { recursive: true });
  const log = await LevelLog.open(directory, { lineage: await openLineage(member, number) });
  try {
    await keepGeneration(member, generation);
    await member.dir.markBorn(name);
  } catch (error) {
    await log[Symbol.asyncDispose]();
    throw error;
  }
  return { log, report: () => reportOf(log) };
}

function reportOf(log: LevelLog): BeaconReport {
  const { state, reason } = log.health();
  return { engine: 'leveldb', text: 'embedded LevelDB log', state, reason, durable: true, problems: [] };
}
