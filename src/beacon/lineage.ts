// Which log this is. Two logs with equal chains tell the same history; whether one was put in the other's place, on
// purpose, no chain can say. So every log has an id, drawn at its birth, and names the logs that it replaces.
//
// A rebuild makes a new log with revisions of its own. A view of the old one looks at it because its id is another one,
// and follows it when it holds everything (followed.ts). The names of the ancestors tell a log that was put in the place
// of ours from one that was only begun there, and lead stewards from one stream to the next.

import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import type { LogLineage } from './log.ts';

/** Who was away for more rebuilds than this is not named any more. */
const ancestorsMax = 64;

/** A log born as `id`, in the place of `replaced` if there is one. */
export function lineageOf(id: string, replaced?: LogLineage): LogLineage {
  const replaces = replaced === undefined ? [] : [replaced.id, ...replaced.replaces];
  return { id, replaces: replaces.slice(0, ancestorsMax) };
}

/** Reads one as it is on disk and on the wire; undefined when it is none. */
export function parseLineage(value: unknown): LogLineage | undefined {
  const [id, replaces] = [fieldOf(value, 'id'), fieldOf(value, 'replaces')];
  if (!isId(id) || !Array.isArray(replaces) || replaces.length > ancestorsMax) return undefined;
  return replaces.every(isId) ? { id, replaces } : undefined;
}

/** Where a stream says it, in its metadata. */
export const lineageField = 'holdfast-log';

/** What a stream says of itself; undefined when it says nothing. Throws BEACON_UNAVAILABLE for what nobody understands. */
export function lineageIn(metadata: Readonly<Record<string, string>>): LogLineage | undefined {
  const text = metadata[lineageField];
  if (text === undefined) return undefined;
  try {
    return parseLineage(JSON.parse(text));
  } catch (cause) {
    throw new HoldfastError('BEACON_UNAVAILABLE', 'the stream does not say which log it is', { cause });
  }
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{32}$/.test(value);
}
