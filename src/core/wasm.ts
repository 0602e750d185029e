// Small WebAssembly modules that are written down here, instruction by instruction, and compiled by V8.
//
// An expression is the code that leaves its value on the stack, a statement is code that leaves nothing. Numbers are of 32
// bits where nothing else is said; addresses are unsigned. Binary format: WebAssembly core specification, chapter 5.

/** Bytes of code, in parts. */
export type Code = readonly (number | Code)[];
export type ValueType = 'i32' | 'i64' | 'f64' | 'v128';

/** A function of a module, which is exported by its name. */
export interface WasmFunction {
  readonly name: string;
  readonly params: readonly ValueType[];
  /** Undefined where nothing is answered. */
  readonly result?: ValueType;
  /** Behind the parameters. */
  readonly locals: readonly ValueType[];
  readonly body: Code;
}

export interface WasmMemory {
  readonly buffer: ArrayBuffer;
  /** By so many pages of 64 KiB; makes `buffer` a new one. */
  grow(pages: number): number;
}

/** As much of it as is used here: the types of the engine's own globals are not among ours. */
declare const WebAssembly: {
  readonly Memory: new (size: { readonly initial: number }) => WasmMemory;
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
    imports: { readonly env: { readonly memory: WasmMemory } },
  ) => { readonly exports: never }; // only who wrote the functions knows their types
};

export const wasmPageBytes = 65_536;

/** A memory of at least so many bytes, all 0. */
export function wasmMemory(sizeBytes: number): WasmMemory {
  return new WebAssembly.Memory({ initial: Math.ceil(sizeBytes / wasmPageBytes) });
}

/**
 * Compiles the functions, which work on `memory`. Functions call each other by their place among them. `Exports`: what they
 * are by their names.
 */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- only who wrote the functions knows their types
export function wasmExports<Exports>(memory: WasmMemory, functions: readonly WasmFunction[]): Exports {
  const module = new WebAssembly.Module(moduleBytes(functions));
  return new WebAssembly.Instance(module, { env: { memory } }).exports;
}

const valueTypes: Readonly<Record<ValueType, number>> = { i32: 0x7f, i64: 0x7e, f64: 0x7c, v128: 0x7b };

/** `\0asm`, version 1. */
const magic = [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00];

function moduleBytes(functions: readonly WasmFunction[]): Uint8Array {
  const types = functions.map(({ params, result }) => [
    0x60,
    vector(params.map((each) => [valueTypes[each]])),
    vector(result === undefined ? [] : [[valueTypes[result]]]),
  ]);
  const code: Code = [
    magic,
    section(1, vector(types)),
    section(2, vector([[text('env'), text('memory'), 0x02, 0x00, 0x01]])),
    section(3, vector(functions.map((_, at) => unsigned(at)))),
    section(7, vector(functions.map(({ name }, at) => [text(name), 0x00, unsigned(at)]))),
    section(10, vector(functions.map((each) => sized(coded(each))))),
  ];
  return new Uint8Array(flat(code));
}

function coded({ locals, body }: WasmFunction): Code {
  return [vector(locals.map((each) => [1, valueTypes[each]])), body, 0x0b];
}

// Expressions

/** The value of a local; parameters come first. */
export function get(local: number): Code {
  return [0x20, unsigned(local)];
}

export function i32(value: number): Code {
  return [0x41, signed(BigInt(value | 0))];
}

export function i64(value: bigint): Code {
  return [0x42, signed(value)];
}

/** How many bytes of memory an instruction takes or writes; fewer than four fill up with zeros. */
const loads = { u8: 0x2d, u16: 0x2f, i32: 0x28, i64: 0x29, f64: 0x2b } as const;

/** What is in memory `offset` bytes behind an address, lowest byte first. */
export function load(what: keyof typeof loads, address: Code, offset = 0): Code {
  return [address, loads[what], 0, unsigned(offset)];
}

export function load128(address: Code, offset = 0): Code {
  return [address, 0xfd, 0x00, 0, unsigned(offset)];
}

const binaries = {
  add: 0x6a,
  sub: 0x6b,
  mul: 0x6c,
  rest: 0x70,
  and: 0x71,
  or: 0x72,
  xor: 0x73,
  shiftLeft: 0x74,
  shiftRight: 0x76,
  rotateLeft: 0x77,
  equal: 0x46,
  differs: 0x47,
  below: 0x49,
  above: 0x4b,
  atMost: 0x4d,
  atLeast: 0x4f,
  and64: 0x83,
  or64: 0x84,
  shiftLeft64: 0x86,
  shiftRight64: 0x88,
  equal64: 0x51,
  differs64: 0x52,
  above64: 0x56,
  belowFloat: 0x63,
} as const;

/** Of unsigned numbers, of 64 bits or doubles where the name says so. Comparisons give 1 or 0. */
export function op(name: keyof typeof binaries, left: Code, right: Code): Code {
  return [left, right, binaries[name]];
}

const unaries = {
  isZero: 0x45,
  wrap: 0xa7,
  extend: 0xad,
  toFloat: 0xba,
} as const;

/** `wrap`: the lower half of 64 bits; `extend`: 32 bits as 64; `toFloat`: 64 bits as a double. */
export function of(name: keyof typeof unaries, value: Code): Code {
  return [value, unaries[name]];
}

export function call(index: number, ...values: readonly Code[]): Code {
  return [values, 0x10, unsigned(index)];
}

// Statements

export function set(local: number, value: Code): Code {
  return [value, 0x21, unsigned(local)];
}

const stores = { u8: 0x3a, u16: 0x3b, i32: 0x36, i64: 0x37, f64: 0x39 } as const;

export function store(what: keyof typeof stores, address: Code, value: Code, offset = 0): Code {
  return [address, value, stores[what], 0, unsigned(offset)];
}

export function store128(address: Code, value: Code, offset = 0): Code {
  return [address, value, 0xfd, 0x0b, 0, unsigned(offset)];
}

/** Moves memory, as if through a copy. */
export function move(to: Code, from: Code, count: Code): Code {
  return [to, from, count, 0xfc, 0x0a, 0x00, 0x00];
}

export function when(condition: Code, then: Code, otherwise?: Code): Code {
  return [condition, 0x04, 0x40, then, otherwise === undefined ? [] : [0x05, otherwise], 0x0b];
}

/** `body` again and again as long as `condition` holds before it. */
export function whilst(condition: Code, body: Code): Code {
  return [0x02, 0x40, 0x03, 0x40, condition, 0x45, 0x0d, 1, body, 0x0c, 0, 0x0b, 0x0b];
}

/** `body` once, and again as long as `condition` holds behind it. */
export function untilNot(body: Code, condition: Code): Code {
  return [0x03, 0x40, body, condition, 0x0d, 0, 0x0b];
}

export function answer(value: Code): Code {
  return [value, 0x0f];
}

// Encoding

function flat(code: Code): number[] {
  const bytes: number[] = [];
  const add = (part: number | Code): void => {
    if (typeof part === 'number') bytes.push(part);
    else for (const each of part) add(each);
  };
  add(code);
  return bytes;
}

function section(id: number, content: Code): Code {
  return [id, sized(content)];
}

function sized(content: Code): Code {
  const bytes = flat(content);
  return [unsigned(bytes.length), bytes];
}

function vector(items: readonly Code[]): Code {
  return [unsigned(items.length), items];
}

function text(of: string): Code {
  return sized([...Buffer.from(of)]);
}

/** LEB128 of a number from 0 to 2³¹ − 1. */
function unsigned(value: number): Code {
  return value < 128 ? [value] : [(value & 127) | 128, unsigned(value >>> 7)];
}

/** LEB128 of a number with a sign. */
function signed(value: bigint): Code {
  const low = Number(value & 127n);
  const rest = value >> 7n;
  const isWhole = (rest === 0n && low < 64) || (rest === -1n && low >= 64);
  return isWhole ? [low] : [low | 128, signed(rest)];
}
