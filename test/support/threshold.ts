// What the tests of the threshold protocols share.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { FaultReason, Outcome } from '../../src/threshold/fault.ts';

/** The published vectors in test/vectors, as they are. */
export function readVectors(file: string): unknown {
  const bytes = readFileSync(new URL(`../vectors/${file}`, import.meta.url));
  return JSON.parse((file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8'));
}

export function fromHex(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

export function random(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}

/** `bytes` with one bit changed in byte `at`. */
export function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const changed = Uint8Array.from(bytes);
  changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
  return changed;
}

/** The value of an outcome without faults. */
export function valueOf<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  assert.fail(`no faults expected, not ${JSON.stringify(blamed(outcome))}`);
}

/** Who is blamed for what. */
export function blamed(outcome: Outcome<unknown>): (readonly [number, FaultReason])[] {
  assert.ok(!outcome.ok, 'faults expected');
  return outcome.faults.map(({ culprit, reason }) => [culprit, reason]);
}

/** The element that must be there. */
export function the<T>(value: T | undefined): T {
  assert.ok(value !== undefined, 'a value expected');
  return value;
}
