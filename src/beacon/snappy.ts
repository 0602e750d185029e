// What Snappy compressed (format_description.txt of google/snappy): the blocks of LevelDB's tables.
//
// Tags with bytes to take as they are, and tags with bytes to take from what there is already. Four bytes are moved at a
// time, which may be up to three too many: the next tag writes over them, and behind the last one there is room.

const slackBytes = 4;
/** More bytes are moved sooner by who does nothing else. */
const longBytes = 64;

/** Throws RangeError for what is not Snappy's. */
export function unsnap(compressed: Uint8Array): Uint8Array {
  const { sizeBytes: outBytes, bodyAt } = readSize(compressed);
  const end = compressed.length;
  // No tag of three bytes gives more than 64: a false size asks for no more memory than that.
  if (outBytes > 64 * end) throw new RangeError(notWhole);
  const out = new Uint8Array(outBytes + slackBytes);
  const [input, output] = [viewOf(compressed), viewOf(out)];
  let at = bodyAt;
  let to = 0;
  while (at < end) {
    const tag = compressed[at++] ?? 0;
    const kind = tag & 3;
    // What does not fit into the tag stands behind it: of literals their length, of copies how far back they begin.
    const own = tag >>> 2;
    const behind = kind === 0 ? Math.max(0, own - 59) : kind === 3 ? 4 : kind;
    let number = 0;
    for (let index = 0, scale = 1; index < behind; index++, scale *= 256)
      number += (compressed[at++] ?? 0) * scale;
    const sizeBytes = kind === 1 ? (own & 7) + 4 : 1 + (kind === 0 && behind > 0 ? number : own);
    const next = to + sizeBytes;
    if (next > outBytes) throw new RangeError(notWhole);
    if (kind === 0) {
      const after = at + sizeBytes;
      if (after > end) throw new RangeError(notWhole);
      if (sizeBytes > longBytes || after + slackBytes > end) out.set(compressed.subarray(at, after), to);
      else for (; to < next; to += 4, at += 4) output.setInt32(to, input.getInt32(at));
      at = after;
    } else {
      const back = kind === 1 ? ((tag >>> 5) << 8) | number : number;
      if (back === 0 || back > to) throw new RangeError(notWhole);
      if (back < 4) for (; to < next; to++) out[to] = out[to - back] ?? 0;
      else for (; to < next; to += 4) output.setInt32(to, output.getInt32(to - back));
    }
    to = next;
  }
  if (at !== end || to !== outBytes) throw new RangeError(notWhole);
  return out.subarray(0, outBytes);
}

const notWhole = 'has a block that does not decompress';

/** Seven bits a byte, the lowest first. */
function readSize(compressed: Uint8Array): { readonly sizeBytes: number; readonly bodyAt: number } {
  let sizeBytes = 0;
  for (let at = 0, scale = 1; at < 5; at++, scale *= 128) {
    const byte = compressed[at] ?? 0xff;
    sizeBytes += (byte & 0x7f) * scale;
    if (byte < 0x80) return { sizeBytes, bodyAt: at + 1 };
  }
  throw new RangeError(notWhole);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
