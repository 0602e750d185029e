// ristretto255 by libsodium compiled to WebAssembly.
//
// The calls go to the compiled functions themselves, not to the library's wrappers: a wrapper allocates and
// frees for each call and leaves what was in there on the heap. Here all operands lie in one block of the
// WASM heap, which belongs to us and is zeroed after every call, and so is what the scalar operations leave on
// the stack. Everything is synchronous, so one block is enough.
//
// Sums over public scalars are not libsodium's: public-sums.ts makes them four to five times as fast.

import assert from 'node:assert/strict';
import * as wrappers from 'libsodium-wrappers-sumo';
import { fieldOf } from '../core/shape.ts';
import {
  type HashGroup,
  isCanonicalScalar,
  isZeroScalar,
  notAPoint,
  type Point,
  pointBytes,
  randomScalar,
  type Scalar,
  type ScalarField,
  scalarBytes,
  scalarFromInt,
  uniformBytes,
} from './group.ts';
import { makePublicSums } from './public-sums.ts';

const identity: Point = new Uint8Array(pointBytes);

/** The fast ristretto255. Resolves when the WASM module is compiled; the same group every time. */
export async function loadRistretto(): Promise<HashGroup> {
  await wrappers.ready;
  loaded ??= groupOver(kernelOf(fieldOf(wrappers, 'libsodium')));
  return loaded;
}

let loaded: HashGroup | undefined;

function groupOver(kernel: Kernel): HashGroup {
  const sums = makePublicSums();
  const element = (found: Point | undefined): Point => {
    if (found === undefined) throw notAPoint('ristretto255');
    return found;
  };
  const isElement = (bytes: Uint8Array): boolean =>
    bytes.length === pointBytes && kernel.check('core_ristretto255_is_valid_point', bytes);
  const points = (operation: string, p: Point, q: Point): Point => {
    if (p.length !== pointBytes || q.length !== pointBytes) throw notAPoint('ristretto255');
    const out = kernel.call(operation, pointBytes, p, q);
    if (out === undefined) throw notAPoint('ristretto255');
    return out;
  };
  const base = (k: Scalar): Point => {
    assertScalar(k);
    // Refused for zero only.
    return kernel.call('scalarmult_ristretto255_base', pointBytes, k) ?? identity.slice();
  };
  const mul = (k: Scalar, p: Point): Point => {
    assertScalar(k);
    if (p.length !== pointBytes) throw notAPoint('ristretto255');
    const out = kernel.call('scalarmult_ristretto255', pointBytes, k, p);
    if (out !== undefined) return out;
    // Refused for bytes that are no point, and for the identity as the result.
    if (!isElement(p)) throw notAPoint('ristretto255');
    return identity.slice();
  };
  return {
    name: 'ristretto255',
    identity,
    isIdentity: (p) => p.length === pointBytes && isZeroScalar(p),
    isPoint: (bytes) => isElement(bytes) && !isZeroScalar(bytes),
    base,
    mul,
    add: (p, q) => points('core_ristretto255_add', p, q),
    sub: (p, q) => points('core_ristretto255_sub', p, q),
    sum: (all) => element(sums.sum(all)),
    msm: (ks, all) => {
      assert(ks.length === all.length, 'msm: as many scalars as points');
      for (const k of ks) assertScalar(k);
      return element(sums.msm(ks, all));
    },
    hashToPoint: (uniform) => {
      assert(uniform.length === uniformBytes, 'uniform: 64 bytes');
      return must(kernel.call('core_ristretto255_from_hash', pointBytes, uniform));
    },
    scalar: fieldOver(kernel),
  };
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
interface Kernel {
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
      const result = (status ?? 0) === 0 ? heapOf(module).slice(out, out + outBytes) : undefined;
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

function must(bytes: Uint8Array | undefined): Uint8Array {
  assert(bytes !== undefined, 'libsodium refused canonical operands');
  return bytes;
}

function assertScalar(k: Scalar): void {
  assert(isCanonicalScalar(k), 'a scalar expected: 32 bytes below L');
}
