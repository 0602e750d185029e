// Arithmetic modulo p = 2^255 − 19 and of points of the curve, as a WebAssembly module that is made here.
//
// A field element is ten signed limbs h0 … h9 of 26 and 25 bits by turns (h = Σ hᵢ·2^⌈25.5·i⌉), each a 32-bit word:
// the radix of Bernstein's ref10, whose bounds hold here word for word. Products of two limbs and sums of ten of them
// fit into 64 bits. Limbs after a multiplication are below 1.01·2^25 and 1.01·2^24; sums and differences of up to four
// such elements may go into the next multiplication without carrying: 4·3·125·2^50 is below 2^61.
//
// A point is X Y Z T with x = X/Z, y = Y/Z, T = XY/Z. A point that is about to be added is kept as Y+X, Y−X, 2Z, 2dT.
//
// FOR PUBLIC VALUES ONLY. Nothing here hides what it works on, and nothing is zeroed.

export const elementBytes = 40;
export const pointSpan = 4 * elementBytes;

/** Functions of the module: all take addresses in its memory; results may take the place of operands. */
export interface FieldModule {
  readonly memory: Memory;
  /** out = a·b */
  readonly mul: (out: number, a: number, b: number) => void;
  /** out = a^(2^count), count ≥ 1 */
  readonly squares: (out: number, a: number, count: number) => void;
  /** out = p + q, with q prepared */
  readonly add: (out: number, p: number, q: number) => void;
  /** out = p − q, with q prepared */
  readonly subtract: (out: number, p: number, q: number) => void;
  /** out = 2p */
  readonly double: (out: number, p: number) => void;
  /** out = p, prepared */
  readonly prepare: (out: number, p: number) => void;
}

/** Memory up to here belongs to the module. */
export const reservedBytes = 1024;
/** Address of the element 2d. */
export const twiceD = 0;

interface Memory {
  readonly buffer: ArrayBuffer;
  /** Makes `buffer` a new one. */
  grow(pages: number): number;
}

/** As much of it as is used here: the types of the engine's own globals are not among ours. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => Memory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly env: { readonly memory: Memory } },
  ) => { readonly exports: Omit<FieldModule, 'memory'> };
};

/** @param pages of 64 KiB */
export function makeFieldModule(pages: number): FieldModule {
  const memory = new WebAssembly.Memory({ initial: pages });
  const module = new WebAssembly.Module(new Uint8Array(moduleBytes()));
  return { memory, ...new WebAssembly.Instance(module, { env: { memory } }).exports };
}

// The module

const op = {
  end: 0x0b,
  call: 0x10,
  get: 0x20,
  set: 0x21,
  load64from32: 0x34,
  load32: 0x28,
  store64as32: 0x3e,
  store32: 0x36,
  const32: 0x41,
  const64: 0x42,
  add32: 0x6a,
  sub32: 0x6b,
  equalsZero32: 0x45,
  add64: 0x7c,
  sub64: 0x7d,
  mul64: 0x7e,
  shiftLeft64: 0x86,
  shiftRight64: 0x87,
  loop: 0x03,
  branchIf: 0x0d,
  empty: 0x40,
} as const;
const [typeI32, typeI64] = [0x7f, 0x7e];

interface Body {
  readonly params: number;
  readonly locals64: number;
  readonly code: readonly number[];
}

const functions = ['mul', 'squares', 'add', 'subtract', 'double', 'prepare'] as const;
const mulIndex = 0;
const squaresIndex = 1;

/** `\0asm`, version 1. */
const magic = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

function moduleBytes(): number[] {
  const bodies: Record<(typeof functions)[number], Body> = {
    mul: mulBody(),
    squares: squaresBody(),
    add: addBody(false),
    subtract: addBody(true),
    double: doubleBody(),
    prepare: prepareBody(),
  };
  const paramCounts = functions.map((name) => bodies[name].params);
  return [
    ...magic,
    ...section(1, vector(paramCounts.map((count) => [0x60, ...vector(times(count, [typeI32])), 0x00]))),
    ...section(2, vector([[...name('env'), ...name('memory'), 0x02, 0x00, 0x01]])),
    ...section(3, vector(functions.map((_, at) => unsigned(at)))),
    ...section(7, vector(functions.map((each, at) => [...name(each), 0x00, ...unsigned(at)]))),
    ...section(10, vector(functions.map((each) => sized(coded(bodies[each]))))),
  ];
}

function coded({ locals64, code }: Body): number[] {
  const locals = locals64 === 0 ? [] : [[...unsigned(locals64), typeI64]];
  return [...vector(locals), ...code, op.end];
}

/** Limbs of two operands, times what they need, in locals of their own. */
function mulBody(): Body {
  const [out, a, b] = [0, 1, 2];
  const f = (i: number): number => 3 + i;
  const g = (i: number): number => 13 + i;
  const h = (i: number): number => 23 + i;
  const f2 = (i: number): number => 33 + (i >> 1);
  const g19 = (i: number): number => 38 + i;
  const code: number[] = [];
  for (let i = 0; i < 10; i++) {
    code.push(...get(a), ...load64(i), ...set(f(i)), ...get(b), ...load64(i), ...set(g(i)));
    if (i % 2 === 1) code.push(...get(f(i)), ...const64(1), op.shiftLeft64, ...set(f2(i)));
    code.push(...get(g(i)), ...const64(19), op.mul64, ...set(g19(i)));
  }
  for (let k = 0; k < 10; k++) {
    for (let i = 0; i < 10; i++) {
      const j = (k - i + 10) % 10;
      const left = i % 2 === 1 && j % 2 === 1 ? f2(i) : f(i);
      const right = i + j === k ? g(j) : g19(j);
      code.push(...get(left), ...get(right), op.mul64, ...(i === 0 ? [] : [op.add64]));
    }
    code.push(...set(h(k)));
  }
  return { params: 3, locals64: 45, code: [...code, ...carried(h, 48 - 1), ...stored(out, h)] };
}

/** a, squared again and again. */
function squaresBody(): Body {
  const [out, a, count] = [0, 1, 2];
  const f = (i: number): number => 3 + i;
  const h = (i: number): number => 13 + i;
  const f2 = (i: number): number => 23 + i;
  const f19 = (i: number): number => 33 + i;
  const code: number[] = [];
  for (let i = 0; i < 10; i++) code.push(...get(a), ...load64(i), ...set(h(i)));
  code.push(op.loop, op.empty);
  for (let i = 0; i < 10; i++) {
    code.push(...get(h(i)), ...set(f(i)), ...get(f(i)), ...const64(1), op.shiftLeft64, ...set(f2(i)));
    code.push(...get(f(i)), ...const64(19), op.mul64, ...set(f19(i)));
  }
  for (let k = 0; k < 10; k++) {
    let isFirst = true;
    for (let i = 0; i < 10; i++) {
      const j = (k - i + 10) % 10;
      if (j < i) continue;
      // Twice for i ≠ j, twice for two odd ones, 19 times beyond the last limb.
      const left = i === j ? f(i) : f2(i);
      const right = i + j === k ? f(j) : f19(j);
      code.push(...get(left), ...get(right), op.mul64);
      if (i % 2 === 1 && j % 2 === 1) code.push(...const64(1), op.shiftLeft64);
      if (!isFirst) code.push(op.add64);
      isFirst = false;
    }
    code.push(...set(h(k)));
  }
  code.push(...carried(h, 43));
  code.push(...get(count), ...const32(1), op.sub32, ...set(count));
  code.push(...get(count), op.equalsZero32, op.equalsZero32, op.branchIf, 0, op.end);
  return { params: 3, locals64: 41, code: [...code, ...stored(out, h)] };
}

/** ref10's order of carries: no limb grows past its bound on the way. */
function carried(h: (i: number) => number, carry: number): number[] {
  return [0, 4, 1, 5, 2, 6, 3, 7, 4, 8, 9, 0].flatMap((i) => {
    const bits = i % 2 === 0 ? 26 : 25;
    const next = (i + 1) % 10;
    const rounded = [...get(h(i)), ...const64(2 ** (bits - 1)), op.add64];
    const folded = i === 9 ? [...const64(19), op.mul64] : [];
    const taken = [...get(carry), ...const64(bits), op.shiftLeft64];
    return [
      rounded,
      [...const64(bits), op.shiftRight64, ...set(carry)],
      [...get(h(next)), ...get(carry), ...folded, op.add64, ...set(h(next))],
      [...get(h(i)), ...taken, op.sub64, ...set(h(i))],
    ].flat();
  });
}

const at = (part: number): number => part * elementBytes;
const scratch = 64;
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
    ...sum(fixed(A), within(p, at(1)), within(p, at(0)), op.sub32),
    ...sum(fixed(B), within(p, at(1)), within(p, at(0)), op.add32),
    ...mul(fixed(A), fixed(A), within(q, at(isNegated ? 0 : 1))),
    ...mul(fixed(B), fixed(B), within(q, at(isNegated ? 1 : 0))),
    ...mul(fixed(C), within(p, at(3)), within(q, at(3))),
    ...mul(fixed(D), within(p, at(2)), within(q, at(2))),
    ...sum(fixed(E), fixed(B), fixed(A), op.sub32),
    ...sum(fixed(F), fixed(D), fixed(C), isNegated ? op.add32 : op.sub32),
    ...sum(fixed(G), fixed(D), fixed(C), isNegated ? op.sub32 : op.add32),
    ...sum(fixed(H), fixed(B), fixed(A), op.add32),
    ...joined(out, fixed(E), fixed(F), fixed(G), fixed(H)),
  ];
  return { params: 3, locals64: 0, code };
}

function doubleBody(): Body {
  const [out, p] = [0, 1];
  const { A, B, C, E, F, G, H } = temporary;
  const code = [
    ...squared(fixed(A), within(p, at(0))),
    ...squared(fixed(B), within(p, at(1))),
    ...squared(fixed(C), within(p, at(2))),
    ...sum(fixed(E), within(p, at(0)), within(p, at(1)), op.add32),
    ...squared(fixed(E), fixed(E)),
    ...sum(fixed(H), fixed(A), fixed(B), op.add32),
    ...sum(fixed(G), fixed(B), fixed(A), op.sub32),
    ...sum(fixed(E), fixed(E), fixed(H), op.sub32),
    // F = 2Z² − G: four elements, the most that goes into a multiplication here.
    ...sum(fixed(F), fixed(C), fixed(C), op.add32),
    ...sum(fixed(F), fixed(F), fixed(G), op.sub32),
    ...joined(out, fixed(E), fixed(F), fixed(G), fixed(H)),
  ];
  return { params: 2, locals64: 0, code };
}

function prepareBody(): Body {
  const [out, p] = [0, 1];
  const { A, B } = temporary;
  const code = [
    ...sum(fixed(A), within(p, at(1)), within(p, at(0)), op.add32),
    ...sum(fixed(B), within(p, at(1)), within(p, at(0)), op.sub32),
    ...mul(within(out, at(3)), within(p, at(3)), fixed(twiceD)),
    ...sum(within(out, at(2)), within(p, at(2)), within(p, at(2)), op.add32),
    ...sum(within(out, at(0)), fixed(A), undefined, op.add32),
    ...sum(within(out, at(1)), fixed(B), undefined, op.add32),
  ];
  return { params: 2, locals64: 0, code };
}

/** X = E·F, Y = G·H, Z = F·G, T = E·H. */
function joined(out: number, E: Place, F: Place, G: Place, H: Place): number[] {
  return [
    ...mul(within(out, at(0)), E, F),
    ...mul(within(out, at(1)), G, H),
    ...mul(within(out, at(2)), F, G),
    ...mul(within(out, at(3)), E, H),
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
  for (let i = 0; i < 10; i++) {
    code.push(...base(out), ...base(a), op.load32, 2, ...unsigned(a.offset + 4 * i));
    if (b !== undefined) code.push(...base(b), op.load32, 2, ...unsigned(b.offset + 4 * i), operation);
    code.push(op.store32, 2, ...unsigned(out.offset + 4 * i));
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

function load64(limb: number): number[] {
  return [op.load64from32, 2, ...unsigned(4 * limb)];
}

function stored(out: number, h: (i: number) => number): number[] {
  return Array.from({ length: 10 }, (_, i) => [
    ...get(out),
    ...get(h(i)),
    op.store64as32,
    2,
    ...unsigned(4 * i),
  ]).flat();
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

function const64(value: number): number[] {
  return [op.const64, ...signed(value)];
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...sized(content)];
}

function sized(content: readonly number[]): number[] {
  return [...unsigned(content.length), ...content];
}

function vector(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function name(text: string): number[] {
  return sized([...Buffer.from(text)]);
}

function times(count: number, what: readonly number[]): (readonly number[])[] {
  return Array.from({ length: count }, () => what);
}

/** LEB128 of a number from 0. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

/** LEB128 of a number from 0 whose sign bit must stay clear. */
function signed(value: number): number[] {
  return value < 64 ? [value] : [(value & 127) | 128, ...signed(Math.floor(value / 128))];
}
