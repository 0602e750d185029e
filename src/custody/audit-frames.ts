// The file of an audit log: a row of frames, each with a checksum of its own, only ever appended to.
//
//   length 4 ‖ type 1 ‖ payload ‖ SHA-256(type ‖ payload)[0:8]
//
//   header   what this file is and whose, once
//   leaf     one entry
//   commit   the signed checkpoint over all leaves before it: what stands before the last one was promised

import type { FileHandle } from 'node:fs/promises';
import { asBuffer, concat, sameBytes, uint32 } from '../core/bytes.ts';
import { sha256 } from '../core/hash.ts';

export const frameTypes = { header: 1, leaf: 2, commit: 3 } as const;
export type FrameType = keyof typeof frameTypes;

export interface Frame {
  readonly type: FrameType;
  readonly payload: Uint8Array;
  /** Where it begins in the file, and where the next one does. */
  readonly offset: number;
  readonly end: number;
}

const headBytes = 5;
const checkBytes = 8;
/** No frame is larger: a leaf, and room. */
const payloadBytesMax = 65_536;
const chunkBytes = 1024 * 1024;

export function encodeFrame(type: FrameType, payload: Uint8Array): Uint8Array {
  const tagged = concat(Uint8Array.of(frameTypes[type]), payload);
  return concat(uint32(payload.length), tagged, sha256(tagged).subarray(0, checkBytes));
}

/** The frames from `offset` on, up to the end of the file or the first that is not whole. */
export async function* readFrames(file: FileHandle, offset: number): AsyncGenerator<Frame, void, undefined> {
  let held: Uint8Array = new Uint8Array(0);
  let at = offset;
  for (let next = offset; ; ) {
    const chunk = Buffer.alloc(chunkBytes);
    const { bytesRead } = await file.read(chunk, 0, chunkBytes, next);
    if (bytesRead === 0) return;
    next += bytesRead;
    held = concat(held, chunk.subarray(0, bytesRead));
    let used = 0;
    for (;;) {
      const frame = decodeFrame(held, used, at);
      if (frame === 'more') break;
      if (frame === 'bad') return;
      yield frame;
      used += frame.end - at;
      at = frame.end;
    }
    held = held.subarray(used);
  }
}

/** One frame whose place is known. Undefined when it is not whole. */
export async function readFrame(file: FileHandle, offset: number): Promise<Frame | undefined> {
  const head = Buffer.alloc(headBytes);
  if ((await file.read(head, 0, headBytes, offset)).bytesRead < headBytes) return undefined;
  const length = head.readUInt32BE();
  if (length > payloadBytesMax) return undefined;
  const bytes = Buffer.alloc(headBytes + length + checkBytes);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, offset);
  const frame = decodeFrame(bytes.subarray(0, bytesRead), 0, offset);
  return typeof frame === 'string' ? undefined : frame;
}

function decodeFrame(held: Uint8Array, from: number, offset: number): Frame | 'more' | 'bad' {
  const left = held.length - from;
  if (left < headBytes) return 'more';
  const length = asBuffer(held).readUInt32BE(from);
  if (length > payloadBytesMax) return 'bad';
  const total = headBytes + length + checkBytes;
  if (left < total) return 'more';
  const tagged = held.subarray(from + 4, from + headBytes + length);
  const check = held.subarray(from + headBytes + length, from + total);
  const type = typeNames.get(tagged[0] ?? 0);
  if (type === undefined || !sameBytes(check, sha256(tagged).subarray(0, checkBytes))) return 'bad';
  return { type, payload: tagged.slice(1), offset, end: offset + total };
}

const typeNames = new Map<number, FrameType>([
  [frameTypes.header, 'header'],
  [frameTypes.leaf, 'leaf'],
  [frameTypes.commit, 'commit'],
]);
