// libsodium compiled to WebAssembly, as both groups use it: the compiled functions, and integers modulo L.
//
// The calls go to the compiled functions themselves, not to the library's wrappers: a wrapper allocates and
// frees for each call and leaves what was in there on the heap. Here all operands lie in one block of the
// WASM heap, which belongs to us and is zeroed after every call, and so is what the scalar operations leave on
// the stack. Everything is synchronous, so one block is enough.

import assert from 'node:assert/strict';
import * as wrappers from 'libsodium-wrappers-sumo';
import { copied } from '../core/bytes.ts';
import { fieldOf } from '../core/shape.ts';
import {
  isCanonicalScalar,
  isZeroScalar,
  randomScalar,
  type Scalar,
  type ScalarField,
  scalarBytes,
  scalarFromInt,
  uniformBytes,
} from './group.ts';

/** libsodium, once its module is compiled; the same every time. */
export async function loadSodium(): Promise<Sodium> {
  await wrappers.ready;
  if (loaded !== undefined) return loaded;
  const kernel = kernelOf(fieldOf(wrappers, 'libsodium'));
  loaded = { kernel, scalar: fieldOver(kernel) };
  return loaded;
}

let loaded: Sodium | undefined;

export interface Sodium {
  readonly kernel: Kernel;
  /** Of both groups: their order is the same. */
  readonly scalar: ScalarField;
}

function fieldOver(kernel: Kernel): ScalarField {
  const call = (operation: string, a: Scalar, b?: Scalar): Scalar => {
    assertScalar(a);
    if (b !== undefined) assertScalar(b);
    return must(kernel.call(`core_ristretto255_scalar_${operation}`, scalarBytes, a, b));
  };
  const reduce = (wide: Uint8Array): Scalar => {
    assert(wide.length === uniformBytes, 'wide: 64 bytes');
    return must(kernel.call('core_ristretto255_scalar_reduce', scalarBytes, wide));
  };
  return {
    reduce,
    add: (a, b) => call('add', a, b),
    sub: (a, b) => call('sub', a, b),
    mul: (a, b) => call('mul', a, b),
    neg: (a) => call('negate', a),
    inv: (a) => call('invert', a),
    isScalar: isCanonicalScalar,
    isZero: isZeroScalar,
    fromInt: scalarFromInt,
    random: (random) => randomScalar(reduce, random),
  };
}

/** The compiled functions over one block of their heap. */
export interface Kernel {
  /** Result of `operation`, or undefined when libsodium refused the operands. */
  call(operation: string, outBytes: number, a: Uint8Array, b?: Uint8Array): Uint8Array | undefined;
  check(operation: string, operand: Uint8Array): boolean;
}

/** 0 or nothing when it could do it. */
type Compiled = (...pointers: number[]) => number | undefined;

/** Room for a result and two operands, the longest of them 64 bytes. */
const slotBytes = 64;
const blockBytes = 3 * slotBytes;

function kernelOf(module: unknown): Kernel {
  const block = functionOf(module, '_malloc')(blockBytes) ?? 0;
  assert(block !== 0, 'libsodium: no memory');
  const [out, left, right] = [block, block + slotBytes, block + 2 * slotBytes];
  const functions = new Map<string, Compiled>();
  const compiled = (operation: string): Compiled => {
    const found = functions.get(operation) ?? functionOf(module, `_crypto_${operation}`);
    functions.set(operation, found);
    return found;
  };
  return {
    call: (operation, outBytes, a, b) => {
      const heap = heapOf(module);
      heap.set(a, left);
      if (b !== undefined) heap.set(b, right);
      const run = compiled(operation);
      const again = (): number | undefined => (b === undefined ? run(out, left) : run(out, left, right));
      const status = again();
      const result = (status ?? 0) === 0 ? copied(heapOf(module).subarray(out, out + outBytes)) : undefined;
      heapOf(module).fill(0, block, block + blockBytes);
      // The scalar operations, which return no status, copy operands to the stack and leave them there.
      // The same operation over zeros puts zeros into the same places.
      if (status === undefined) again();
      return result;
    },
    check: (operation, operand) => {
      heapOf(module).set(operand, left);
      const status = compiled(operation)(left);
      heapOf(module).fill(0, block, block + blockBytes);
      return status === 1;
    },
  };
}

/** The heap is looked up each time: its view is replaced when the memory grows. */
function heapOf(module: unknown): Uint8Array {
  const heap = fieldOf(module, 'HEAPU8');
  assert(heap instanceof Uint8Array, 'libsodium: HEAPU8 expected');
  return heap;
}

function functionOf(module: unknown, name: string): Compiled {
  const found = fieldOf(module, name);
  assert(isCompiled(found), `libsodium: ${name} expected`);
  return found;
}

function isCompiled(value: unknown): value is Compiled {
  return typeof value === 'function';
}

export function must(bytes: Uint8Array | undefined): Uint8Array {
  assert(bytes !== undefined, 'libsodium refused canonical operands');
  return bytes;
}

export function assertScalar(k: Scalar): void {
  assert(isCanonicalScalar(k), 'a scalar expected: 32 bytes below L');
}
