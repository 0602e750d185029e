// CRC-32C (Castagnoli), the checksum inside LevelDB's files. Node has only the other CRC-32.
//
// Sixteen bytes at a time over sixteen tables ("slicing by 16"), as WebAssembly: so no look into a table has to be checked
// first, and checking a store is bound by its disk.

import {
  type Code,
  get,
  i32,
  load,
  op,
  set,
  wasmExports,
  type WasmFunction,
  wasmMemory,
  whilst,
} from './wasm.ts';

const polynomial = 0x82f63b78; // reversed
const tablesCount = 16;
/** Where tables are, in any memory that `crcFunction` works on: from 0 on. */
export const crcTablesBytes = tablesCount * 256 * 4;
/** Looked at in one go. */
const pieceBytes = 65_536;

interface Crc {
  readonly crc: (from: number, end: number, before: number) => number;
  /** All of its memory. */
  readonly bytesThere: Uint8Array;
}

/** Made when it is needed first: most processes check no table as they start. */
let made: Crc | undefined;

/** The checksum of `bytes`, 0…2³²−1. */
export function crc32c(bytes: Uint8Array): number {
  made ??= makeCrc();
  const { crc, bytesThere } = made;
  let value = -1;
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    const piece = bytes.length <= pieceBytes ? bytes : bytes.subarray(at, at + pieceBytes);
    bytesThere.set(piece, crcTablesBytes);
    value = crc(crcTablesBytes, crcTablesBytes + piece.length, value);
  }
  return ~value >>> 0;
}

function makeCrc(): Crc {
  const memory = wasmMemory(crcTablesBytes + pieceBytes);
  writeCrcTables(memory.buffer);
  const { crc } = wasmExports<Pick<Crc, 'crc'>>(memory, [crcFunction()]);
  return { crc, bytesThere: new Uint8Array(memory.buffer) };
}

/** Table n, from 256 n on, is what a byte does with n more behind it. */
export function writeCrcTables(buffer: ArrayBuffer): void {
  const all = new Int32Array(buffer, 0, tablesCount * 256);
  for (let byte = 0; byte < 256; byte++) {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1;
    all[byte] = value;
  }
  for (let at = 256; at < all.length; at++) {
    const before = all[at - 256] ?? 0;
    all[at] = (all[before & 0xff] ?? 0) ^ (before >>> 8);
  }
}

/** `crc(from, end, crc)`: goes on with `crc`, −1 at the beginning; the last one is turned over (`^ −1`). */
export function crcFunction(): WasmFunction {
  const [from, end, value, words] = [0, 1, 2, [3, 4, 5, 6]] as const;
  const body: Code = [
    whilst(op('atMost', op('add', get(from), i32(16)), get(end)), [
      words.map((word, at) => set(word, load('i32', get(from), 4 * at))),
      set(words[0], op('xor', get(words[0]), get(value))),
      set(
        value,
        words.map((word, at) => looked(word, at)).reduce((a, b) => op('xor', a, b)),
      ),
      set(from, op('add', get(from), i32(16))),
    ]),
    whilst(op('below', get(from), get(end)), [
      set(
        value,
        op(
          'xor',
          look(0, op('and', op('xor', get(value), load('u8', get(from))), i32(0xff))),
          op('shiftRight', get(value), i32(8)),
        ),
      ),
      set(from, op('add', get(from), i32(1))),
    ]),
    get(value),
  ];
  return {
    name: 'crc',
    params: ['i32', 'i32', 'i32'],
    result: 'i32',
    locals: ['i32', 'i32', 'i32', 'i32'],
    body,
  };
}

/** What the four bytes of word `at` of sixteen bytes do. */
function looked(word: number, at: number): Code {
  return [0, 1, 2, 3]
    .map((byte) => {
      const moved = op('shiftRight', get(word), i32(8 * byte));
      return look(tablesCount - 1 - 4 * at - byte, op('and', moved, i32(0xff)));
    })
    .reduce((a, b) => op('xor', a, b));
}

function look(table: number, index: Code): Code {
  return load('i32', op('shiftLeft', index, i32(2)), 1024 * table);
}
