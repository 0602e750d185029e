// What is remembered of a custody group over restarts, and of those before it: so that a registry that was set back, or
// that shows another group under the same name, is refused.

import { keyOfHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import { isSuccessorName } from './group-name.ts';

/** What is remembered of a group over restarts. Safe to be read by anybody, not to be written. */
export interface DirectoryPin {
  readonly v: 1;
  readonly cg: string;
  /** Hex. */
  readonly frostPk: string;
  /** Records of each chain, by its key in the registry. */
  readonly marks: Readonly<Record<string, number>>;
  /** Groups before this one that were believed, with their signing keys in hex. */
  readonly ended?: Readonly<Record<string, string>>;
  /** The same with `marks` as they were at the end: what such a group revoked is not to be forgotten. */
  readonly endedMarks?: Readonly<Record<string, DirectoryPin['marks']>>;
}

/** Reads a pin. Throws RECORD_INVALID for what is none: then somebody must look, and not go on without. */
export function parsePin(text: string): DirectoryPin {
  const value: unknown = JSON.parse(text);
  if (isMap(value) && value['v'] === 1) {
    const { cg, frostPk } = value;
    const marks = marksIn(value['marks']);
    const before = endedIn(value['ended']);
    const beforeMarks = endedMarksIn(value['endedMarks']);
    const isPin = typeof cg === 'string' && typeof frostPk === 'string' && keyOfHex(frostPk) !== undefined;
    if (isPin && marks !== undefined && before !== undefined && beforeMarks !== undefined)
      return { v: 1, cg, frostPk, marks, ...before, ...beforeMarks };
  }
  throw new HoldfastError('RECORD_INVALID', 'what was remembered of the custody group has another form');
}

function marksIn(value: unknown): DirectoryPin['marks'] | undefined {
  const entries = isMap(value) ? Object.entries(value) : [];
  const counts = entries.filter((entry): entry is [string, number] => Number.isSafeInteger(entry[1]));
  return isMap(value) && counts.length === entries.length ? Object.fromEntries(counts) : undefined;
}

function endedIn(value: unknown): Pick<DirectoryPin, 'ended'> | undefined {
  if (value === undefined) return {};
  const entries = isMap(value) ? Object.entries(value) : [];
  const good = entries.filter((entry): entry is [string, string] => keyOfHex(entry[1]) !== undefined);
  return isMap(value) && good.length === entries.length ? { ended: Object.fromEntries(good) } : undefined;
}

function endedMarksIn(value: unknown): Pick<DirectoryPin, 'endedMarks'> | undefined {
  if (value === undefined) return {};
  const entries = isMap(value) ? Object.entries(value) : [];
  const good = entries.flatMap(([cg, each]) => {
    const marks = marksIn(each);
    return marks === undefined ? [] : [[cg, marks] as const];
  });
  return isMap(value) && good.length === entries.length
    ? { endedMarks: Object.fromEntries(good) }
    : undefined;
}

/** What is remembered when group `to` has come into the place of the one that `pin` is about. */
export function pinOfSuccessor(pin: DirectoryPin, to: DirectoryPin): DirectoryPin {
  const { cg, frostPk, marks } = pin;
  return {
    ...to,
    ended: { ...pin.ended, [cg]: frostPk },
    endedMarks: { ...pin.endedMarks, [cg]: marks },
  };
}

/** The pin that forgets nothing of either: two processes of one directory may have seen different moments. */
export function mergePins(a: DirectoryPin | undefined, b: DirectoryPin): DirectoryPin {
  if (a === undefined) return b;
  if (a.cg !== b.cg) return isSuccessorName(a.cg, b.cg) ? a : b;
  if (a.frostPk !== b.frostPk)
    throw new HoldfastError('RECORD_INVALID', `custody group ${a.cg} was known by another signing key`);
  const ended = { ...a.ended, ...b.ended };
  const merged = { v: 1, cg: b.cg, frostPk: b.frostPk, marks: highest(a.marks, b.marks) } as const;
  const marksOf = (cg: string) => highest(a.endedMarks?.[cg] ?? {}, b.endedMarks?.[cg] ?? {});
  const groups = Object.keys({ ...a.endedMarks, ...b.endedMarks });
  const endedMarks = Object.fromEntries(groups.map((cg) => [cg, marksOf(cg)]));
  return {
    ...merged,
    ...(Object.keys(ended).length > 0 && { ended }),
    ...(groups.length > 0 && { endedMarks }),
  };
}

function highest(a: DirectoryPin['marks'], b: DirectoryPin['marks']): DirectoryPin['marks'] {
  const keys = Object.keys({ ...a, ...b });
  return Object.fromEntries(keys.map((key) => [key, Math.max(a[key] ?? 0, b[key] ?? 0)]));
}
