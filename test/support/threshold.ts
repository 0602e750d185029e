// What the tests of the threshold protocols share.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import type { FaultReason, Outcome } from '../../src/threshold/fault.ts';

/** Where published vectors are: tests that need one which is absent are skipped by name. */
const vectorsDir = process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors';

/** A file of published vectors; or, when it is absent, the reason to skip. */
export function readVectors(file: string): { readonly value?: unknown; readonly skip: string | false } {
  const path = `${vectorsDir}/${file}`;
  if (!existsSync(path)) return { skip: `vectors absent: ${path}` };
  return { value: JSON.parse(readFileSync(path, 'utf8')), skip: false };
}

/** The published runs of the Ed25519 suite. */
export function ed25519Runs(): unknown {
  return JSON.parse(
    readFileSync(new URL('../vectors/cocktail-dkg-ed25519-2-of-3.json', import.meta.url), 'utf8'),
  );
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
