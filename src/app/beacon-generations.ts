// Which log of the Beacon is in force, and which logs there were before it.
//
//   beacon-N/           a log and its view
//   beacon-generation   the N in force; replacing this file is the switch
//   beacon-lineage      the id of each log and of the logs that it replaced; beside the logs, because it must
//                       outlive them

import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { lineageOf, type LogLineage, parseLineage } from '../beacon/lineage.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf, isMap } from '../core/shape.ts';
import { errnoOf, readIfThere, writeWhole } from '../files/whole.ts';
import type { Member } from './member.ts';

export function beaconDirectory(member: Member, generation: number): string {
  return join(member.config.dataDir, `beacon-${generation}`);
}

/** What the data directory remembers a generation by. */
export function birthName(generation: number): string {
  return `beacon-${generation}`;
}

/** Which log is in force. Without the file it is the newest that was ever opened: an older one has been replaced. */
export async function readGeneration(member: Member): Promise<number> {
  const path = generationPath(member);
  try {
    return Number((await readFile(path, 'utf8')).trim());
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT')
      throw new HoldfastError('FILE_UNREADABLE', `cannot read ${path}`, { cause });
    let generation = 1;
    while (member.dir.isBorn(birthName(generation + 1))) generation++;
    return generation;
  }
}

/** Puts the log of `next` in force, in the place of that of `current`. */
export async function switchGeneration(member: Member, current: number, next: number): Promise<void> {
  const replaced = await openLineage(member, current);
  // First who it is, then that it is: a crash in between leaves the old one in force, and its id with it.
  await writeLineage(member, next, lineageOf(freshId(), replaced));
  await writeWhole(generationPath(member), `${next}\n`, 0o600);
}

/** The lineage of a log; one that has none gets it now. */
export async function openLineage(member: Member, generation: number): Promise<LogLineage> {
  const found = (await readLineages(member)).get(generation);
  if (found !== undefined) return found;
  const born = lineageOf(freshId());
  await writeLineage(member, generation, born);
  return born;
}

async function writeLineage(member: Member, generation: number, lineage: LogLineage): Promise<void> {
  const all = (await readLineages(member)).set(generation, lineage);
  await writeWhole(lineagePath(member), `${JSON.stringify(Object.fromEntries(all))}\n`, 0o600);
}

/** A file that is damaged counts as none: doors then ask a person, which is what to do when nobody knows. */
async function readLineages(member: Member): Promise<Map<number, LogLineage>> {
  const path = lineagePath(member);
  const text = await readIfThere(path);
  if (text === undefined) return new Map();
  try {
    const value: unknown = JSON.parse(text);
    const entries = Object.keys(isMap(value) ? value : {}).map((generation) => {
      const lineage = parseLineage(fieldOf(value, generation));
      if (lineage === undefined) throw new RangeError(`generation ${generation}`);
      return [Number(generation), lineage] as const;
    });
    return new Map(entries);
  } catch (error) {
    console.error(`${path} is damaged and begun anew:`, error);
    return new Map();
  }
}

function freshId(): string {
  return randomBytes(16).toString('hex');
}

function generationPath(member: Member): string {
  return join(member.config.dataDir, 'beacon-generation');
}

function lineagePath(member: Member): string {
  return join(member.config.dataDir, 'beacon-lineage');
}
