// What Snappy compressed (format_description.txt of google/snappy): the blocks of LevelDB's tables.
//
// Tags with bytes to take as they are, and tags with bytes to take from what there is already. Eight bytes are moved at a
// time, which may be up to seven too many: the next tag writes over them, and behind the last one there is room. V8 moves
// them in a register: no BigInt comes of it.

const slackBytes = 8;
/** More bytes are moved sooner by who does nothing else. */
const longBytes = 128;

interface UnsnapOptions {
  /** What gives more is refused. */
  readonly bytesMax?: number;
  /** So much of it is enough, and what is behind is not looked at. */
  readonly upTo?: number;
  /** Used again where it is large enough: the last answer in it is gone then. */
  readonly into?: Uint8Array;
}

/** Throws RangeError for what is not Snappy's. */
export function unsnap(
  compressed: Uint8Array,
  { bytesMax = Infinity, upTo = Infinity, into }: UnsnapOptions = {},
): Uint8Array {
  const { sizeBytes: outBytes, bodyAt } = readSize(compressed);
  const end = compressed.length;
  // No tag of three bytes gives more than 64: a false size asks for no more memory than that.
  if (outBytes > Math.min(64 * end, bytesMax)) throw new RangeError(notWhole);
  const isRoom = into !== undefined && into.length >= outBytes + slackBytes;
  const out = isRoom ? into : new Uint8Array(outBytes + slackBytes);
  const [input, output] = [viewOf(compressed), viewOf(out)];
  let at = bodyAt;
  let to = 0;
  while (at < end) {
    if (to >= upTo) return out.subarray(0, to);
    const tag = compressed[at++] ?? 0;
    const own = tag >>> 2;
    if ((tag & 3) === 0) {
      // As they are. Where the number does not fit into the tag, it stands behind it.
      let sizeBytes = own + 1;
      if (own > 59) {
        sizeBytes = 1 + numberAt(compressed, at, own - 59);
        at += own - 59;
      }
      const next = to + sizeBytes;
      const after = at + sizeBytes;
      if (next > outBytes || after > end) throw new RangeError(notWhole);
      if (sizeBytes > longBytes || after + slackBytes > end) out.set(compressed.subarray(at, after), to);
      else for (; to < next; to += 8, at += 8) output.setBigInt64(to, input.getBigInt64(at, true), true);
      at = after;
      to = next;
      continue;
    }
    // A copy: how long, and how far back it begins.
    let sizeBytes = own + 1;
    let back = 0;
    if ((tag & 3) === 1) {
      sizeBytes = (own & 7) + 4;
      back = ((tag >>> 5) << 8) | (compressed[at++] ?? 0);
    } else if ((tag & 3) === 2) {
      back = (compressed[at] ?? 0) | ((compressed[at + 1] ?? 0) << 8);
      at += 2;
    } else {
      back = numberAt(compressed, at, 4);
      at += 4;
    }
    const next = to + sizeBytes;
    if (next > outBytes || back === 0 || back > to) throw new RangeError(notWhole);
    if (back < 8) for (; to < next; to++) out[to] = out[to - back] ?? 0;
    else for (; to < next; to += 8) output.setBigInt64(to, output.getBigInt64(to - back, true), true);
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

/** Of `count` bytes, the lowest first. */
function numberAt(bytes: Uint8Array, from: number, count: number): number {
  let number = 0;
  for (let at = from, scale = 1; at < from + count; at++, scale *= 256) number += (bytes[at] ?? 0) * scale;
  return number;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
