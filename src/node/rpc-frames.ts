// The bytes of an RPC stream: frames of a fixed header, a small head and a bulk body.
//
//   0     1        4          8            12
//   ┌─────┬────────┬──────────┬────────────┬──────────┬──────────┐
//   │ type│ head n │    id    │   body n   │   head   │   body   │   all numbers big-endian
//   └─────┴────────┴──────────┴────────────┴──────────┴──────────┘
//
// What a frame may carry depends on its type, and is checked on the header alone: a peer that announces
// more than the table allows is refused before a byte of it is held. Pure: no stream in here.

import { encodeCbor, decodeCbor } from '../core/block.ts';
import { asBuffer, readUint32, utf8, writeUint32 } from '../core/bytes.ts';
import { errorCatalogue, type ErrorCode, type ErrorDetails, HoldfastError } from '../core/errors.ts';
import { rpcBodyBytesMax, rpcHeadBytesMax } from '../core/limits.ts';

export const frameTypes = {
  /** First frame of both sides: who opened which lane of which link, and how much may be sent unasked. */
  hello: 0,
  /** Caller → callee: method and head, body. Answered by `response` or `error` with the same id. */
  request: 1,
  /** Caller → callee: like `request`; answered by `item`s, then `end` or `error`. */
  subscribe: 2,
  response: 3,
  error: 4,
  item: 5,
  end: 6,
  /** The caller is no longer interested in `id`. */
  cancel: 7,
  /** Callee → caller: that many bytes of requests were dealt with. */
  requestCredit: 8,
  /** Caller → callee: that many bytes of the items of stream `id` were taken. */
  itemCredit: 9,
  ping: 10,
  pong: 11,
} as const;
export type FrameType = (typeof frameTypes)[keyof typeof frameTypes];

export interface Frame {
  readonly type: FrameType;
  /** 0…2³²−1; chosen by the caller, 0 where there is no call. */
  readonly id: number;
  readonly head: Uint8Array;
  readonly body: Uint8Array;
}

const frameHeaderBytes = 12;
export const emptyBytes: Uint8Array = new Uint8Array(0);
const methodBytesMax = 128;
/** A question that opens a stream is held as long as the stream: it must be small. */
export const subscribeBodyBytesMax = 65_536;
const errorHeadBytesMax = 16_384;
const errorTextLengthMax = 2000;

// The most that head and body of each type may hold, in the order of the numbers above.
const callHeadBytesMax = 1 + methodBytesMax + rpcHeadBytesMax;
const bounds: readonly (readonly [head: number, body: number])[] = [
  [256, 0],
  [callHeadBytesMax, rpcBodyBytesMax],
  [callHeadBytesMax, subscribeBodyBytesMax],
  [rpcHeadBytesMax, rpcBodyBytesMax],
  [errorHeadBytesMax, 0],
  [rpcHeadBytesMax, rpcBodyBytesMax],
  [0, 0],
  [0, 0],
  [4, 0],
  [4, 0],
  [0, 0],
  [0, 0],
];

/** What a frame costs against a credit window: its bytes, and a little so that empty ones are not free. */
export function frameCost(frame: Frame): number {
  return frameHeaderBytes + frame.head.length + frame.body.length;
}

export function frameHeader(frame: Frame): Uint8Array {
  const out = new Uint8Array(frameHeaderBytes);
  out[0] = frame.type;
  out[1] = frame.head.length >>> 16;
  out[2] = frame.head.length >>> 8;
  out[3] = frame.head.length;
  writeUint32(out, 4, frame.id);
  writeUint32(out, 8, frame.body.length);
  return out;
}

export function frameBytes(frame: Frame): Uint8Array {
  const out = new Uint8Array(frameCost(frame));
  out.set(frameHeader(frame));
  out.set(frame.head, frameHeaderBytes);
  out.set(frame.body, frameHeaderBytes + frame.head.length);
  return out;
}

/** A frame without head and body, or with a number as its head. */
export function smallFrame(type: FrameType, id: number, amount?: number): Frame {
  if (amount === undefined) return { type, id, head: emptyBytes, body: emptyBytes };
  const head = new Uint8Array(4);
  writeUint32(head, 0, amount);
  return { type, id, head, body: emptyBytes };
}

/** The number in the head of a credit frame. Throws RECORD_INVALID. */
export function amountOf(frame: Frame): number {
  if (frame.head.length !== 4) throw malformed('a credit without an amount');
  return readUint32(frame.head, 0);
}

/** Gives the memory for the body of a frame that begins to come. */
export type BodyMemory = (type: FrameType, id: number, length: number) => Uint8Array;

/**
 * Cuts a byte stream into frames. Holds at most one incomplete frame (`frameBytesMax`); heads and bodies
 * are copies, so that a small frame does not keep a large chunk alive.
 */
export class FrameReader {
  readonly #bodyOf: BodyMemory;
  #header = new Uint8Array(frameHeaderBytes);
  #headerLength = 0;
  /** The frame whose header is known, its parts filled up to `#filled`. */
  #open: { type: FrameType; id: number; head: Uint8Array; body: Uint8Array } | undefined;
  #filled = 0;

  /** @param bodyOf gives the memory for it; default a new array */
  constructor(bodyOf: BodyMemory = (_type, _id, length) => allocate(length)) {
    this.#bodyOf = bodyOf;
  }

  /** Every frame that `chunk` completes. Throws RECORD_INVALID at the first malformed header; the reader is then spent. */
  *push(chunk: Uint8Array): Generator<Frame> {
    let offset = 0;
    while (offset < chunk.length || this.#isComplete()) {
      if (this.#open === undefined) offset = this.#takeHeader(chunk, offset);
      if (this.#open === undefined) return;
      offset = this.#takeParts(chunk, offset, this.#open);
      if (!this.#isComplete()) return;
      const frame = this.#open;
      this.#open = undefined;
      this.#headerLength = 0;
      yield frame;
    }
  }

  #isComplete(): boolean {
    return this.#open !== undefined && this.#filled === this.#open.head.length + this.#open.body.length;
  }

  #takeHeader(chunk: Uint8Array, offset: number): number {
    const taken = Math.min(frameHeaderBytes - this.#headerLength, chunk.length - offset);
    this.#header.set(chunk.subarray(offset, offset + taken), this.#headerLength);
    this.#headerLength += taken;
    if (this.#headerLength === frameHeaderBytes) this.#open = this.#parseHeader();
    return offset + taken;
  }

  #parseHeader(): { type: FrameType; id: number; head: Uint8Array; body: Uint8Array } {
    const type = frameType(this.#header[0] ?? 255);
    const headLength = readUint32(this.#header, 0) & 0xff_ffff;
    const bodyLength = readUint32(this.#header, 8);
    const [headMax, bodyMax] = bounds[type] ?? [0, 0];
    if (headLength > headMax || bodyLength > bodyMax) {
      throw malformed(`type ${type} with a head of ${headLength} and a body of ${bodyLength} bytes`);
    }
    this.#filled = 0;
    const id = readUint32(this.#header, 4);
    return { type, id, head: allocate(headLength), body: this.#bodyOf(type, id, bodyLength) };
  }

  #takeParts(chunk: Uint8Array, offset: number, open: { head: Uint8Array; body: Uint8Array }): number {
    const headLength = open.head.length;
    let at = offset;
    if (this.#filled < headLength) {
      const taken = Math.min(headLength - this.#filled, chunk.length - at);
      open.head.set(chunk.subarray(at, at + taken), this.#filled);
      this.#filled += taken;
      at += taken;
    }
    if (this.#filled >= headLength) {
      const taken = Math.min(headLength + open.body.length - this.#filled, chunk.length - at);
      open.body.set(chunk.subarray(at, at + taken), this.#filled - headLength);
      this.#filled += taken;
      at += taken;
    }
    return at;
  }
}

/** Method and head of a call as one head. Throws ARGUMENT_INVALID for the method, TOO_LARGE for the head. */
export function encodeCall(method: string, head: unknown): Uint8Array {
  const name = methodBytes(method);
  const encoded = encodeHead(head, method);
  const out = new Uint8Array(1 + name.length + encoded.length);
  out[0] = name.length;
  out.set(name, 1);
  out.set(encoded, 1 + name.length);
  return out;
}

/** The inverse. Throws RECORD_INVALID. */
export function decodeCall(bytes: Uint8Array): { method: string; head: unknown } {
  const length = bytes[0] ?? 0;
  if (length === 0 || length > methodBytesMax || bytes.length < 1 + length)
    throw malformed('a call without a method');
  const method = asBuffer(bytes).toString('latin1', 1, 1 + length);
  return { method, head: decodeCbor(bytes.subarray(1 + length), `head of ${method}`) };
}

/** The head of an answer or item. Throws TOO_LARGE naming the method. */
export function encodeHead(head: unknown, method: string): Uint8Array {
  const encoded = encodeCbor(head);
  if (encoded.length > rpcHeadBytesMax) {
    throw new HoldfastError(
      'TOO_LARGE',
      `${method}: a head of ${encoded.length} bytes, at most ${rpcHeadBytesMax}`,
    );
  }
  return encoded;
}

/** Throws TOO_LARGE naming the method. */
export function checkBody(body: Uint8Array, method: string, bytesMax: number = rpcBodyBytesMax): Uint8Array {
  if (body.length > bytesMax) {
    throw new HoldfastError('TOO_LARGE', `${method}: a body of ${body.length} bytes, at most ${bytesMax}`);
  }
  return body;
}

/** An error as a head: code, message and details; causes stay where they happened. */
export function encodeError(error: HoldfastError): Uint8Array {
  const message = error.message.slice(0, errorTextLengthMax);
  const full = encodeCbor({ code: error.code, message, details: error.details });
  return full.length <= errorHeadBytesMax ? full : encodeCbor({ code: error.code, message, details: {} });
}

/** The inverse. Codes of a newer version than ours become PEER_REFUSED. Throws RECORD_INVALID. */
export function decodeError(bytes: Uint8Array): HoldfastError {
  const value = decodeCbor(bytes, 'error of a peer');
  if (!isRecord(value) || typeof value['code'] !== 'string' || typeof value['message'] !== 'string') {
    throw malformed('an error without code and message');
  }
  const details = isRecord(value['details']) ? errorDetails(value['details']) : {};
  const code = value['code'];
  if (isErrorCode(code)) return new HoldfastError(code, value['message'], { details });
  return new HoldfastError('PEER_REFUSED', `${code}: ${value['message']}`, { details });
}

export interface Hello {
  readonly v: 1;
  readonly lane: 'control' | 'bulk';
  /** Chosen by the opener; the same on both lanes, and in the acceptor's answer. */
  readonly link: string;
  /** Bytes of requests that this side takes before it gives credit. */
  readonly requestWindow: number;
  /** Bytes of items per stream that this side takes before it gives credit. */
  readonly itemWindow: number;
}

export function helloFrame(hello: Hello): Frame {
  return { type: frameTypes.hello, id: 0, head: encodeCbor(hello), body: emptyBytes };
}

/** Throws RECORD_INVALID. */
export function parseHello(frame: Frame): Hello {
  if (frame.type !== frameTypes.hello) throw malformed('the first frame is no hello');
  const value = decodeCbor(frame.head, 'hello of a peer');
  if (!isRecord(value)) throw malformed('a hello that is no map');
  const { v, lane, link, requestWindow, itemWindow } = value;
  if (v !== 1) throw malformed(`a hello of version ${String(v).slice(0, 16)}, 1 expected`);
  if (lane !== 'control' && lane !== 'bulk') throw malformed('a hello for an unknown lane');
  if (typeof link !== 'string' || !/^[0-9a-f]{32}$/.test(link)) throw malformed('a hello without a link');
  return { v, lane, link, requestWindow: windowSize(requestWindow), itemWindow: windowSize(itemWindow) };
}

function windowSize(value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 0x7fff_ffff)
    return value;
  throw malformed('a hello without windows');
}

/** RECORD_INVALID: the other side does not speak this protocol. */
export function malformed(what: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `malformed RPC frame: ${what}`);
}

const methodCache = new Map<string, Uint8Array>();
const methodCacheMax = 1024;

function methodBytes(method: string): Uint8Array {
  const cached = methodCache.get(method);
  if (cached !== undefined) return cached;
  if (!/^[\x21-\x7e]{1,128}$/.test(method)) {
    throw new HoldfastError('ARGUMENT_INVALID', `not a method name: ${JSON.stringify(method.slice(0, 160))}`);
  }
  if (methodCache.size >= methodCacheMax) methodCache.clear();
  const bytes = utf8(method);
  methodCache.set(method, bytes);
  return bytes;
}

const knownTypes: readonly FrameType[] = Object.values(frameTypes);

function frameType(value: number): FrameType {
  const type = knownTypes[value];
  if (type === undefined) throw malformed(`unknown type ${value}`);
  return type;
}

export function allocate(length: number): Uint8Array {
  return length === 0 ? emptyBytes : new Uint8Array(length);
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCatalogue, code);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function errorDetails(value: Record<string, unknown>): ErrorDetails {
  const out: Record<string, string | number | boolean | null | readonly string[]> = {};
  for (const [key, each] of Object.entries(value)) {
    if (each === null || typeof each === 'string' || typeof each === 'number' || typeof each === 'boolean') {
      out[key] = each;
    } else if (Array.isArray(each)) {
      out[key] = each.map(String);
    }
  }
  return out;
}
