// CRC-32C (Castagnoli), the checksum inside LevelDB's files. Node has only the other CRC-32.
//
// Sixteen bytes at a time over sixteen tables that lie in one ("slicing by 16"), so that checking a store is bound by its
// disk.

const polynomial = 0x82f63b78; // reversed
const tables = makeTables();

/** The checksum of `bytes`, 0…2³²−1. */
export function crc32c(bytes: Uint8Array): number {
  const { length } = bytes;
  const words = new DataView(bytes.buffer, bytes.byteOffset, length);
  let crc = -1;
  let at = 0;
  for (; at + 16 <= length; at += 16) {
    const a = crc ^ words.getInt32(at, true);
    const b = words.getInt32(at + 4, true);
    const c = words.getInt32(at + 8, true);
    const d = words.getInt32(at + 12, true);
    crc =
      look(0xf00 | (a & 0xff)) ^
      look(0xe00 | ((a >>> 8) & 0xff)) ^
      look(0xd00 | ((a >>> 16) & 0xff)) ^
      look(0xc00 | (a >>> 24)) ^
      look(0xb00 | (b & 0xff)) ^
      look(0xa00 | ((b >>> 8) & 0xff)) ^
      look(0x900 | ((b >>> 16) & 0xff)) ^
      look(0x800 | (b >>> 24)) ^
      look(0x700 | (c & 0xff)) ^
      look(0x600 | ((c >>> 8) & 0xff)) ^
      look(0x500 | ((c >>> 16) & 0xff)) ^
      look(0x400 | (c >>> 24)) ^
      look(0x300 | (d & 0xff)) ^
      look(0x200 | ((d >>> 8) & 0xff)) ^
      look(0x100 | ((d >>> 16) & 0xff)) ^
      look(d >>> 24);
  }
  for (; at < length; at++) crc = look((crc ^ words.getUint8(at)) & 0xff) ^ (crc >>> 8);
  return (crc ^ -1) >>> 0;
}

function look(index: number): number {
  return tables[index] ?? 0;
}

/** Table n, from 256 n on, is what a byte does with n more behind it. */
function makeTables(): Int32Array {
  const all = new Int32Array(16 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
    all[byte] = crc;
  }
  for (let at = 256; at < all.length; at++) {
    const before = all[at - 256] ?? 0;
    all[at] = (all[before & 0xff] ?? 0) ^ (before >>> 8);
  }
  return all;
}
