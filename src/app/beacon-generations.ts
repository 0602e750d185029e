// Which log of the Beacon is in force here, what keeps it, and which logs there were before it.
//
//   beacon-N/           a log, or the copy of one that servers keep, and its view; `making` says what it was begun for
//   beacon-generation   the N in force, and what keeps it; replacing this file is the switch
//   beacon-lineage      the id of each log and of the logs that it replaced; beside the logs, because it must
//                       outlive them

import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { lineageOf, parseLineage } from '../beacon/lineage.ts';
import type { LogLineage } from '../beacon/log.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf, isMap } from '../core/shape.ts';
import { errnoOf, isThere, readIfThere, writeWhole } from '../files/whole.ts';
import { type BeaconSettings, parseBeaconSettings } from '../local/beacon-settings.ts';
import type { Member } from './member.ts';

/** A log and what keeps it. */
export interface Generation {
  readonly number: number;
  readonly kept: BeaconSettings;
}

const level: BeaconSettings = { engine: 'leveldb' };

export function beaconDirectory(member: Member, generation: number): string {
  return join(member.config.dataDir, `beacon-${generation}`);
}

/** Where the log of a generation, or the copy of it, is. */
export function logDirectory(member: Member, generation: number): string {
  return join(beaconDirectory(member, generation), 'log');
}

/** What the data directory remembers a generation by. */
export function birthName(generation: number): string {
  return `beacon-${generation}`;
}

/**
 * Which log is in force. Without the file it is the newest that was ever opened, in LevelDB, since an older one has been
 * replaced; and where none was, what the settings say. Throws FILE_UNREADABLE, DATA_DIR_DAMAGED for a file that says
 * neither, and without one where the settings name a stream: what is left on this disk may be a copy of that, and whoever
 * took it for the log would be alone with it.
 */
export async function readGeneration(member: Member): Promise<Generation> {
  const path = generationPath(member);
  try {
    return parseGeneration(await readFile(path, 'utf8'), path);
  } catch (cause) {
    if (cause instanceof HoldfastError) throw cause;
    if (errnoOf(cause) !== 'ENOENT')
      throw new HoldfastError('FILE_UNREADABLE', `cannot read ${path}`, { cause });
    let number = 1;
    while (member.dir.isBorn(birthName(number + 1))) number++;
    const said = member.config.settings.beacon ?? level;
    if (!member.dir.isBorn(birthName(number))) return { number, kept: said };
    if (said.engine === 'jetstream')
      throw new HoldfastError(
        'DATA_DIR_DAMAGED',
        `${path} is gone, which alone says what keeps generation ${number} of the Beacon: the settings name stream ` +
          `${said.stream}; restore it from a backup`,
        { cause },
      );
    return { number, kept: level };
  }
}

/** Puts the log of `next` in force, in the place of that of generation `current`. `lineage`: absent for a new one. */
export async function switchGeneration(
  member: Member,
  current: number,
  next: Generation,
  lineage?: LogLineage,
): Promise<void> {
  // First who it is, then that it is: a crash in between leaves the old one in force, and its id with it.
  await keepLineage(member, next.number, lineage ?? (await nextLineage(member, current)));
  await writeGeneration(member, next);
  await member.dir.markBorn(birthName(next.number)); // from now on its loss is damage, and no reason to begin anew
}

/** A lineage for a log in the place of that of generation `current`. */
export async function nextLineage(member: Member, current: number): Promise<LogLineage> {
  return lineageOf(freshId(), await openLineage(member, current));
}

/** Writes down what keeps the log in force, where nothing says so. */
export async function keepGeneration(member: Member, generation: Generation): Promise<void> {
  if (!(await isThere(generationPath(member)))) await writeGeneration(member, generation);
}

/** Makes `generation` the one in force, its lineage being known already. */
export async function writeGeneration(member: Member, { number, kept }: Generation): Promise<void> {
  const text = kept.engine === 'leveldb' ? `${number}\n` : `${number}\n${JSON.stringify(kept)}\n`;
  await writeWhole(generationPath(member), text, 0o600);
}

/**
 * Makes the directory of a generation that is not in force yet. What an attempt for another place left there is thrown
 * away, and with `anew` what one for the same place did.
 */
export async function prepareGeneration(
  member: Member,
  { number, kept }: Generation,
  anew = false,
): Promise<void> {
  // Whatever asks for it: what is in force, or was, is never thrown away here.
  if ((await readGeneration(member)).number >= number)
    throw new HoldfastError('BEACON_UNAVAILABLE', `generation ${number} of the Beacon is in force already`);
  const directory = beaconDirectory(member, number);
  const path = join(directory, 'making');
  const text = `${JSON.stringify(kept)}\n`;
  if (!anew && (await readIfThere(path)) === text) return;
  await rm(directory, { recursive: true, force: true });
  await mkdir(join(directory, 'log'), { recursive: true });
  await writeWhole(path, text, 0o600);
}

/** The lineage of a log; one that has none gets it now. */
export async function openLineage(member: Member, generation: number): Promise<LogLineage> {
  const found = (await readLineages(member)).get(generation);
  if (found !== undefined) return found;
  const born = lineageOf(freshId());
  await keepLineage(member, generation, born);
  return born;
}

/** Remembers which log that of a generation is. */
export async function keepLineage(member: Member, generation: number, lineage: LogLineage): Promise<void> {
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

/** One line: the number of a log in LevelDB. Two: number and settings of another one. */
function parseGeneration(text: string, path: string): Generation {
  const damaged = (why: string, cause?: unknown): HoldfastError =>
    new HoldfastError('DATA_DIR_DAMAGED', `${path} is damaged (${why}); restore it from a backup`, { cause });
  const [first = '', ...rest] = text.trim().split('\n');
  const number = Number(first);
  if (!/^[1-9]\d{0,8}$/.test(first)) throw damaged('it names no generation');
  if (rest.length === 0) return { number, kept: level };
  let kept: unknown;
  try {
    kept = JSON.parse(rest.join('\n'));
  } catch (cause) {
    throw damaged('its settings are no JSON', cause);
  }
  return { number, kept: parseBeaconSettings(kept, undefined, damaged) ?? level };
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
