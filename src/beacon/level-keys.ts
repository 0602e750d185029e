// Keys where they lie in memory, compared and moved without making anything: of a snapshot that is walked (level-rows.ts)
// there are a dozen for each entry of the log.

/** A key without LevelDB's tail: where it is. */
export interface KeyPlace {
  readonly memory: DataView;
  readonly from: number;
  readonly to: number;
}

/** A key that is kept. Begins as the empty one. */
export class KeptKey implements KeyPlace {
  readonly from = 0;
  to = 0;
  memory: DataView = new DataView(new ArrayBuffer(1024));

  keep({ memory, from, to }: KeyPlace): void {
    this.to = to - from;
    if (this.to > this.memory.byteLength) this.memory = new DataView(new ArrayBuffer(2 * this.to));
    bytesIn(this.memory).set(bytesIn(memory).subarray(from, to));
  }
}

/** Below 0 when `a` comes before `b`. */
export function compareKeys(a: KeyPlace, b: KeyPlace): number {
  return compareBytes(a.memory, a.from, a.to, b.memory, b.from, b.to);
}

/** Below 0 when what is from `aFrom` to `aTo` in `a` comes before that in `b`. */
export function compareBytes(
  a: DataView,
  aFrom: number,
  aTo: number,
  b: DataView,
  bFrom: number,
  bTo: number,
): number {
  const end = Math.min(aTo - aFrom, bTo - bFrom);
  let at = 0;
  for (; at + 4 <= end; at += 4) {
    const difference = a.getUint32(aFrom + at) - b.getUint32(bFrom + at);
    if (difference !== 0) return difference;
  }
  for (; at < end; at++) {
    const difference = a.getUint8(aFrom + at) - b.getUint8(bFrom + at);
    if (difference !== 0) return difference;
  }
  return aTo - aFrom - (bTo - bFrom);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}

function bytesIn(memory: DataView): Uint8Array {
  return new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
}
