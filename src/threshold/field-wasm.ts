// Arithmetic modulo p = 2^255 − 19 and of points of the curve, as a WebAssembly module that is made here. It does
// everything twice: an operand is a pair of elements, or of points, that go the same way in the two lanes of a vector.
//
// A field element is ten signed limbs h0 … h9 of 26 and 25 bits by turns (h = Σ hᵢ·2^⌈25.5·i⌉), each a 32-bit word:
// the radix of Bernstein's ref10, whose bounds hold here word for word. Products of two limbs and sums of ten of them
// fit into 64 bits. Limbs after a multiplication are below 1.01·2^25 and 1.01·2^24; a sum or difference of four such
// elements may be the first factor of the next multiplication without carrying, one of three the second (19 times its
// limbs must fit into 32 bits, and do up to 1.65·2^26): 4·3·125·2^50 is below 2^61.
//
// A point is X Y Z T with x = X/Z, y = Y/Z, T = XY/Z. A point that is about to be added is kept as Y+X, Y−X, 2Z, 2dT.
//
// FOR PUBLIC VALUES ONLY. Nothing here hides what it works on, and nothing is zeroed.

import {
  type ValueType,
  wasmExports,
  type WasmFunction,
  wasmMemory,
  type WasmMemory,
  wasmPageBytes,
} from '../core/wasm.ts';

/** Of a pair of elements: limb i of the first at 8·i, of the second at 8·i + 4. */
export const elementBytes = 80;
export const pointSpan = 4 * elementBytes;

/** Functions of the module: all take addresses of pairs in its memory; results may take the place of operands. */
export interface FieldModule {
  readonly memory: WasmMemory;
  /** out = a·b; a may be a sum of four elements, b of three */
  readonly mul: (out: number, a: number, b: number) => void;
  /** out = a^(2^count), count ≥ 1; a may be a sum of three elements */
  readonly squares: (out: number, a: number, count: number) => void;
  /** out = p + q, with q prepared */
  readonly add: (out: number, p: number, q: number) => void;
  /** out = p − q, with q prepared */
  readonly subtract: (out: number, p: number, q: number) => void;
  /** out = 2p */
  readonly double: (out: number, p: number) => void;
  /** The same without T, which no doubling needs: for what is doubled again. */
  readonly doubleOnly: (out: number, p: number) => void;
  /** out = p, prepared */
  readonly prepare: (out: number, p: number) => void;
}

/** Memory up to here belongs to the module. */
export const reservedBytes = 1024;
/** Address of the pair 2d, 2d. */
export const twiceD = 0;

/** @param pages of 64 KiB */
export function makeFieldModule(pages: number): FieldModule {
  const memory = wasmMemory(pages * wasmPageBytes);
  return { memory, ...wasmExports<Omit<FieldModule, 'memory'>>(memory, moduleFunctions()) };
}

// The module

const op = {
  end: 0x0b,
  call: 0x10,
  get: 0x20,
  set: 0x21,
  const32: 0x41,
  add32: 0x6a,
  sub32: 0x6b,
  equalsZero32: 0x45,
  loop: 0x03,
  branchIf: 0x0d,
  empty: 0x40,
} as const;
/** Of vectors, behind the prefix 0xfd. `…64` works on two lanes of 64 bits, `…32` on four of 32. */
const vectorOp = {
  load: 0x00,
  load64Zero: 0x5d,
  store: 0x0b,
  store64Lane: 0x5b,
  constant: 0x0c,
  shuffle: 0x0d,
  splat32: 0x11,
  add32: 0xae,
  sub32: 0xb1,
  mul32: 0xb5,
  shiftLeft64: 0xcb,
  shiftRight64: 0xcd,
  add64: 0xce,
  sub64: 0xd1,
  /** Products, of 64 bits, of the first two lanes of 32. */
  products: 0xdc,
} as const;
interface Body {
  readonly params: number;
  readonly vectors: number;
  readonly code: readonly number[];
}

const functions = ['mul', 'squares', 'add', 'subtract', 'double', 'doubleOnly', 'prepare'] as const;
const mulIndex = 0;
const squaresIndex = 1;

function moduleFunctions(): WasmFunction[] {
  const bodies: Record<(typeof functions)[number], Body> = {
    mul: mulBody(),
    squares: squaresBody(),
    add: addBody(false),
    subtract: addBody(true),
    double: doubleBody(true),
    doubleOnly: doubleBody(false),
    prepare: prepareBody(),
  };
  return functions.map((name) => {
    const { params, vectors, code } = bodies[name];
    return { name, params: times(params, 'i32'), locals: times(vectors, 'v128'), body: code };
  });
}

/** Locals of both multiplications behind their three parameters. */
const f = (i: number): number => 3 + i;
const f2 = (i: number): number => 13 + i;
const g = (i: number): number => 23 + i;
/** 19·g, or 19·f of a square. */
const g19 = (i: number): number => 33 + i;
const h = (i: number): number => 43 + i;
const [carry, nineteen, biasOf, unbiasOf] = [53, 54, [55, 56], [57, 58]] as const;
const multiplicationVectors = 56;

function mulBody(): Body {
  const [out, a, b] = [0, 1, 2];
  const code = constants();
  for (let i = 0; i < 10; i++) {
    code.push(...loadLimbs(a, i), ...set(f(i)), ...loadLimbs(b, i), ...set(g(i)));
    if (i % 2 === 1) code.push(...get(f(i)), ...get(f(i)), ...simd(vectorOp.add32), ...set(f2(i)));
    code.push(...get(g(i)), ...get(nineteen), ...simd(vectorOp.mul32), ...set(g19(i)));
  }
  for (let k = 0; k < 10; k++) {
    for (let i = 0; i < 10; i++) {
      const j = (k - i + 10) % 10;
      const left = i % 2 === 1 && j % 2 === 1 ? f2(i) : f(i);
      code.push(...product(left, i + j === k ? g(j) : g19(j), i === 0));
    }
    code.push(...set(h(k)));
  }
  code.push(...carried());
  for (let i = 0; i < 10; i++) code.push(...packed(h(i)), ...set(h(i)), ...storeLimbs(out, i, h(i)));
  return { params: 3, vectors: multiplicationVectors, code };
}

/** a, squared again and again. */
function squaresBody(): Body {
  const [out, a, count] = [0, 1, 2];
  const code = constants();
  for (let i = 0; i < 10; i++) code.push(...loadLimbs(a, i), ...set(f(i)));
  code.push(op.loop, op.empty);
  for (let i = 0; i < 10; i++) {
    code.push(...get(f(i)), ...get(f(i)), ...simd(vectorOp.add32), ...set(f2(i)));
    code.push(...get(f(i)), ...get(nineteen), ...simd(vectorOp.mul32), ...set(g19(i)));
  }
  for (let k = 0; k < 10; k++) {
    // Twice for i ≠ j, twice for two odd ones, 19 times beyond the last limb.
    const pairs = Array.from({ length: 10 }, (_, i) => [i, (k - i + 10) % 10] as const);
    const terms = pairs.filter(([i, j]) => i <= j);
    const isOdd = ([i, j]: readonly [number, number]): boolean => i % 2 === 1 && j % 2 === 1;
    const factors = ([i, j]: readonly [number, number]): [number, number] => [
      i === j ? f(i) : f2(i),
      i + j === k ? f(j) : g19(j),
    ];
    const [odd, others] = [terms.filter(isOdd), terms.filter((term) => !isOdd(term))];
    for (const [at, term] of odd.entries()) code.push(...product(...factors(term), at === 0));
    if (odd.length > 0) code.push(...const32(1), ...simd(vectorOp.shiftLeft64));
    for (const [at, term] of others.entries())
      code.push(...product(...factors(term), odd.length === 0 && at === 0));
    code.push(...set(h(k)));
  }
  code.push(...carried());
  for (let i = 0; i < 10; i++) code.push(...packed(h(i)), ...set(f(i)));
  code.push(...get(count), ...const32(1), op.sub32, ...set(count));
  code.push(...get(count), op.equalsZero32, op.equalsZero32, op.branchIf, 0, op.end);
  for (let i = 0; i < 10; i++) code.push(...storeLimbs(out, i, f(i)));
  return { params: 3, vectors: multiplicationVectors, code };
}

/** What every multiplication needs, in locals: to make them anew at each use costs more. */
function constants(): number[] {
  const code = [...const32(19), ...simd(vectorOp.splat32), ...set(nineteen)];
  for (const odd of [0, 1] as const) {
    const bits = BigInt(widthOf(odd));
    code.push(...constant64(2n ** 62n + 2n ** (bits - 1n)), ...set(biasOf[odd]));
    code.push(...constant64(2n ** (62n - bits)), ...set(unbiasOf[odd]));
  }
  return code;
}

/** On the stack left·right, added to what is there already unless it is the first. */
function product(left: number, right: number, isFirst: boolean): number[] {
  const made = [...get(left), ...get(right), ...simd(vectorOp.products)];
  return isFirst ? made : [...made, ...simd(vectorOp.add64)];
}

/**
 * ref10's order of carries: no limb grows past its bound on the way. Vectors have no quick shift of signed numbers, so
 * 2^62 is added before it and what is left of that taken away again.
 */
function carried(): number[] {
  return [0, 4, 1, 5, 2, 6, 3, 7, 4, 8, 9, 0].flatMap((i) => {
    const odd = i % 2 === 0 ? 0 : 1;
    const next = (i + 1) % 10;
    return [
      [...get(h(i)), ...get(biasOf[odd]), ...simd(vectorOp.add64)],
      [...const32(widthOf(i)), ...simd(vectorOp.shiftRight64)],
      [...get(unbiasOf[odd]), ...simd(vectorOp.sub64), ...set(carry)],
      [
        ...get(h(next)),
        ...(i === 9 ? nineteenCarries() : get(carry)),
        ...simd(vectorOp.add64),
        ...set(h(next)),
      ],
      [...get(h(i)), ...shifted(carry, widthOf(i)), ...simd(vectorOp.sub64), ...set(h(i))],
    ].flat();
  });
}

/** 16 + 2 + 1: vectors have no quick product of 64 bits either. */
function nineteenCarries(): number[] {
  return [
    ...shifted(carry, 4),
    ...shifted(carry, 1),
    ...get(carry),
    ...simd(vectorOp.add64),
    ...simd(vectorOp.add64),
  ];
}

function shifted(local: number, bits: number): number[] {
  return [...get(local), ...const32(bits), ...simd(vectorOp.shiftLeft64)];
}

/** The two lanes of 64 bits, whose values fit into 32, as the first two lanes of 32. */
function packed(local: number): number[] {
  const bytes = [0, 1, 2, 3, 8, 9, 10, 11];
  return [...get(local), ...get(local), ...simd(vectorOp.shuffle), ...bytes, ...bytes];
}

function widthOf(limb: number): number {
  return limb % 2 === 0 ? 26 : 25;
}

const at = (part: number): number => part * elementBytes;
const scratch = elementBytes;
const temporary = {
  A: scratch,
  B: scratch + elementBytes,
  C: scratch + 2 * elementBytes,
  D: scratch + 3 * elementBytes,
  E: scratch + 4 * elementBytes,
  F: scratch + 5 * elementBytes,
  G: scratch + 6 * elementBytes,
  H: scratch + 7 * elementBytes,
} as const;

/** The unified addition of Hisil, Wong, Carter and Dawson for a = −1, or with the second point negated. */
function addBody(isNegated: boolean): Body {
  const [out, p, q] = [0, 1, 2];
  const { A, B, C, D, E, F, G, H } = temporary;
  const code = [
    ...sum(fixed(A), within(p, at(1)), within(p, at(0)), vectorOp.sub32),
    ...sum(fixed(B), within(p, at(1)), within(p, at(0)), vectorOp.add32),
    ...mul(fixed(A), fixed(A), within(q, at(isNegated ? 0 : 1))),
    ...mul(fixed(B), fixed(B), within(q, at(isNegated ? 1 : 0))),
    ...mul(fixed(C), within(p, at(3)), within(q, at(3))),
    ...mul(fixed(D), within(p, at(2)), within(q, at(2))),
    ...sum(fixed(E), fixed(B), fixed(A), vectorOp.sub32),
    ...sum(fixed(F), fixed(D), fixed(C), isNegated ? vectorOp.add32 : vectorOp.sub32),
    ...sum(fixed(G), fixed(D), fixed(C), isNegated ? vectorOp.sub32 : vectorOp.add32),
    ...sum(fixed(H), fixed(B), fixed(A), vectorOp.add32),
    ...joined(out, fixed(E), fixed(F), fixed(G), fixed(H)),
  ];
  return { params: 3, vectors: 0, code };
}

function doubleBody(withT: boolean): Body {
  const [out, p] = [0, 1];
  const { A, B, C, E, F, G, H } = temporary;
  const code = [
    ...squared(fixed(A), within(p, at(0))),
    ...squared(fixed(B), within(p, at(1))),
    ...squared(fixed(C), within(p, at(2))),
    ...sum(fixed(E), within(p, at(0)), within(p, at(1)), vectorOp.add32),
    ...squared(fixed(E), fixed(E)),
    ...sum(fixed(H), fixed(A), fixed(B), vectorOp.add32),
    ...sum(fixed(G), fixed(B), fixed(A), vectorOp.sub32),
    ...sum(fixed(E), fixed(E), fixed(H), vectorOp.sub32),
    // F = 2Z² − G: four elements, the most that goes into a multiplication here, as the first factor.
    ...sum(fixed(F), fixed(C), fixed(C), vectorOp.add32),
    ...sum(fixed(F), fixed(F), fixed(G), vectorOp.sub32),
    ...joined(out, fixed(E), fixed(F), fixed(G), fixed(H), withT),
  ];
  return { params: 2, vectors: 0, code };
}

function prepareBody(): Body {
  const [out, p] = [0, 1];
  const { A, B } = temporary;
  const code = [
    ...sum(fixed(A), within(p, at(1)), within(p, at(0)), vectorOp.add32),
    ...sum(fixed(B), within(p, at(1)), within(p, at(0)), vectorOp.sub32),
    ...mul(within(out, at(3)), within(p, at(3)), fixed(twiceD)),
    ...sum(within(out, at(2)), within(p, at(2)), within(p, at(2)), vectorOp.add32),
    ...sum(within(out, at(0)), fixed(A), undefined, vectorOp.add32),
    ...sum(within(out, at(1)), fixed(B), undefined, vectorOp.add32),
  ];
  return { params: 2, vectors: 0, code };
}

/** X = F·E, Y = G·H, Z = F·G, T = E·H. */
function joined(out: number, E: Place, F: Place, G: Place, H: Place, withT = true): number[] {
  return [
    ...mul(within(out, at(0)), F, E),
    ...mul(within(out, at(1)), G, H),
    ...mul(within(out, at(2)), F, G),
    ...(withT ? mul(within(out, at(3)), E, H) : []),
  ];
}

/** An element: at a fixed address, or so far behind the address in a local. */
interface Place {
  readonly base: number | undefined;
  readonly offset: number;
}

function fixed(offset: number): Place {
  return { base: undefined, offset };
}

function within(base: number, offset: number): Place {
  return { base, offset };
}

/** out = a ± b limb by limb, without a carry; a copy when there is no b. */
function sum(out: Place, a: Place, b: Place | undefined, operation: number): number[] {
  const code: number[] = [];
  for (let i = 0; i < elementBytes; i += 16) {
    code.push(...base(out), ...base(a), ...simd(vectorOp.load), 2, ...unsigned(a.offset + i));
    if (b !== undefined)
      code.push(...base(b), ...simd(vectorOp.load), 2, ...unsigned(b.offset + i), ...simd(operation));
    code.push(...simd(vectorOp.store), 2, ...unsigned(out.offset + i));
  }
  return code;
}

function base({ base: local }: Place): number[] {
  return local === undefined ? const32(0) : get(local);
}

function address(place: Place): number[] {
  if (place.base === undefined) return const32(place.offset);
  return place.offset === 0 ? get(place.base) : [...get(place.base), ...const32(place.offset), op.add32];
}

function mul(out: Place, a: Place, b: Place): number[] {
  return [...address(out), ...address(a), ...address(b), op.call, mulIndex];
}

function squared(out: Place, a: Place): number[] {
  return [...address(out), ...address(a), ...const32(1), op.call, squaresIndex];
}

/** Limb `i` of both elements at an address in a local, in the first two lanes of 32. */
function loadLimbs(base: number, i: number): number[] {
  return [...get(base), ...simd(vectorOp.load64Zero), 2, ...unsigned(8 * i)];
}

function storeLimbs(base: number, i: number, local: number): number[] {
  return [...get(base), ...get(local), ...simd(vectorOp.store64Lane), 2, ...unsigned(8 * i), 0];
}

function simd(operation: number): number[] {
  return [0xfd, ...unsigned(operation)];
}

/** The same number in both lanes. */
function constant64(value: bigint): number[] {
  const bytes = Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));
  return [...simd(vectorOp.constant), ...bytes, ...bytes];
}

function get(local: number): number[] {
  return [op.get, ...unsigned(local)];
}

function set(local: number): number[] {
  return [op.set, ...unsigned(local)];
}

function const32(value: number): number[] {
  return [op.const32, ...signed(value)];
}

function times(count: number, type: ValueType): ValueType[] {
  return Array.from({ length: count }, () => type);
}

/** LEB128 of a number from 0. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

/** LEB128 of a number from 0 whose sign bit must stay clear. */
function signed(value: number): number[] {
  return value < 64 ? [value] : [(value & 127) | 128, ...signed(Math.floor(value / 128))];
}
