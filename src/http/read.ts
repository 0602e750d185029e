// Reads what callers give as parameters. All throw ARGUMENT_INVALID with the field's name.

import { HoldfastError } from '../core/errors.ts';
import { type ContentClass, contentClasses } from '../envelope/aad.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import type { DoorPorts } from './door-ports.ts';
import type { Request } from './server.ts';

/** Copies wanted; what the caller leaves out follows from the door's defaults. */
export function readPolicy({ defaults }: Pick<DoorPorts, 'defaults'>, request: Request): ReplicationPolicy {
  const read = (name: keyof ReplicationPolicy, fallback: number): number => {
    const text = request.query(name);
    return text === undefined ? fallback : wholeNumber(name, text, 1, 256);
  };
  const min = read('min', defaults.min);
  const max = read('max', Math.max(min, defaults.max));
  const zones = read('zones', Math.min(min, defaults.zones));
  if (min > max || zones > min)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `copies: zones ${zones} ≤ min ${min} ≤ max ${max} must hold`,
      { details: { field: 'min' } },
    );
  return { min, max, zones };
}

export function readClass(request: Request): ContentClass {
  const text = request.query('cls') ?? 'internal';
  const found = contentClasses.find((cls) => cls === text);
  if (found === undefined)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `cls must be one of ${contentClasses.join(', ')}, not ${JSON.stringify(text)}`,
      { details: { field: 'cls' } },
    );
  return found;
}

/** A page of a listing: `limit` 1 to 1,000, default 100; `after` is the `next` of the page before. */
export function pageOf(request: Request): { limit: number; after?: string } {
  const limit = wholeNumber('limit', request.query('limit') ?? '100', 1, 1000);
  const after = request.query('after');
  return after === undefined ? { limit } : { limit, after };
}

export function nextOf(next: string | undefined): { next?: string } {
  return next === undefined ? {} : { next };
}

/** A whole number from `min` to `max`. */
export function wholeNumber(
  field: string,
  text: string,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): number {
  const value = Number(text);
  if (!/^\d{1,16}$/.test(text) || value < min || value > max)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${field} must be a whole number from ${min} to ${max}, not ${JSON.stringify(text)}`,
      { details: { field } },
    );
  return value;
}

/** How long a reader waits for the revision it asks to see. */
const seenWaitMs = 10_000;

/** Waits until the revision that the caller wants to see is visible here. Throws TIMEOUT. */
export async function seenRevision(ports: Pick<DoorPorts, 'view'>, request: Request): Promise<void> {
  const text = request.query('revision');
  if (text === undefined) return;
  const revision = wholeNumber('revision', text, 0);
  try {
    await ports.view.waitFor(revision, AbortSignal.any([request.signal, AbortSignal.timeout(seenWaitMs)]));
  } catch (cause) {
    throw new HoldfastError(
      'TIMEOUT',
      `Beacon revision ${revision} did not become visible here in ${seenWaitMs / 1000} s`,
      { cause },
    );
  }
}
