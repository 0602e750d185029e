// CRC-32C (Castagnoli), the checksum inside LevelDB's files. Node has only the other CRC-32.
//
// Eight bytes at a time over eight tables ("slicing by 8"): several hundred MB/s, so that checking a store is bound by
// its disk.

const polynomial = 0x82f63b78; // reversed
const tables = makeTables();

/** The checksum of `bytes`, 0…2³²−1. */
export function crc32c(bytes: Uint8Array): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
  const { length } = bytes;
  let crc = 0xffffffff;
  let at = 0;
  for (; at + 8 <= length; at += 8) {
    const low = crc ^ word(bytes, at);
    const high = word(bytes, at + 4);
    crc =
      look(t7, low & 0xff) ^
      look(t6, (low >>> 8) & 0xff) ^
      look(t5, (low >>> 16) & 0xff) ^
      look(t4, low >>> 24) ^
      look(t3, high & 0xff) ^
      look(t2, (high >>> 8) & 0xff) ^
      look(t1, (high >>> 16) & 0xff) ^
      look(t0, high >>> 24);
  }
  for (; at < length; at++) crc = look(t0, (crc ^ (bytes[at] ?? 0)) & 0xff) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

type Tables = readonly [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
];

function look(table: Int32Array, index: number): number {
  return table[index] ?? 0;
}

/** Four bytes from `at` on, little-endian. */
function word(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) |
    ((bytes[at + 1] ?? 0) << 8) |
    ((bytes[at + 2] ?? 0) << 16) |
    ((bytes[at + 3] ?? 0) << 24)
  );
}

function makeTables(): Tables {
  const first = Int32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
    return crc;
  });
  const next = (table: Int32Array): Int32Array => table.map((crc) => look(first, crc & 0xff) ^ (crc >>> 8));
  const t1 = next(first);
  const t2 = next(t1);
  const t3 = next(t2);
  const t4 = next(t3);
  const t5 = next(t4);
  const t6 = next(t5);
  return [first, t1, t2, t3, t4, t5, t6, next(t6)];
}
