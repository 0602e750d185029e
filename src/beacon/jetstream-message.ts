// One message of the stream: a group of appends that share an acknowledgement.
//
//     checksum 16 │ revision before 8 │ chain before 32 │ per append: length of the payload 4 ‖ payload
//
// or a word about the stream itself, with ff ff ff ff in the place of the first length, and JSON behind it: `closed`, from
// which on nobody appends, or `open`, from which on everybody may again.
//
// The checksum is bound to the place of the message in the stream, and the chain before ties it to the message in
// front of it; so a message that was changed, moved, repeated or left out is known by the next one at the latest.

import { asBuffer, concat, fromUtf8, toHex, uint32, uint64, utf8 } from '../core/bytes.ts';
import { appendBytesMax } from '../core/limits.ts';
import { fieldOf } from '../core/shape.ts';
import { decodeEntry, type LogEntry, type LogPosition, nextChain } from './log.ts';
import { corrupt, sealValue, unsealValue } from './seal.ts';

/** Payloads of a group: one append more may follow, so a message has at most twice as many bytes and its frames. */
export const groupBytesMax = appendBytesMax;
/** What a server must let through: `groupBytesMax` twice, with frames for the smallest appends, and headers. */
export const messageBytesMax = 4 * 1024 * 1024;

const headBytes = 40;
/** Longer than any payload. */
const wordMark = 0xffffffff;
const whyLengthMax = 500;

export interface GroupMessage {
  /** Where the log stood. */
  readonly before: LogPosition;
  /** Their chain was computed from `before`. None: there is a word instead. */
  readonly entries: readonly LogEntry[];
  readonly word?: StreamWord;
  /** Where the log stands behind them. */
  readonly end: LogPosition;
}

/** What a message says about the stream. */
export interface StreamWord {
  readonly kind: 'closed' | 'open';
  /** Peer id of the steward that says so. */
  readonly by: string;
  /** For people. */
  readonly why: string;
}

/** The bytes of the message that says `word` as number `sequence` of the stream. */
export function encodeWord(sequence: number, before: LogPosition, { kind, by, why }: StreamWord): Uint8Array {
  const text = utf8(JSON.stringify({ kind, by, why: why.slice(0, whyLengthMax) }));
  return sealValue(keyOf(sequence), concat(uint64(before.revision), before.chain, uint32(wordMark), text));
}

/** The bytes of the message that puts `entries` behind `before` as number `sequence` of the stream. */
export function encodeGroup(sequence: number, before: LogPosition, entries: readonly LogEntry[]): Uint8Array {
  const frames = entries.flatMap(({ payload }) => [uint32(payload.length), payload]);
  return sealValue(keyOf(sequence), concat(uint64(before.revision), before.chain, ...frames));
}

/** Reads message `sequence`. Throws RECORD_CORRUPT naming it when it is not as it was written there. */
export function decodeGroup(sequence: number, message: Uint8Array): GroupMessage {
  const name = `message ${sequence} of the stream`;
  const body = unsealValue(keyOf(sequence), message, name);
  if (body.length <= headBytes) throw corrupt(name, 'holds no appends');
  const revision = Number(asBuffer(body).readBigUInt64BE(0));
  const before = { revision, chain: body.slice(8, headBytes) };
  const frames = body.subarray(headBytes);
  if (frames.length > 4 && asBuffer(frames).readUInt32BE(0) === wordMark)
    return { before, entries: [], end: before, word: wordIn(frames.subarray(4), name) };
  const entries: LogEntry[] = [];
  let end: LogPosition = before;
  for (const payload of payloadsIn(frames, name)) {
    const entry = decodeEntry(end.revision + 1, nextChain(end, payload), payload);
    entries.push(entry);
    end = { revision: entry.revision, chain: entry.chain };
  }
  return { before, entries, end };
}

/** Names a group for the server's search for duplicates: it is as long as the history in front of it is unique. */
export function messageId({ chain }: LogPosition): string {
  return toHex(chain);
}

function wordIn(text: Uint8Array, name: string): StreamWord {
  let value: unknown;
  try {
    value = JSON.parse(fromUtf8(text));
  } catch {
    throw corrupt(name, 'says what is no JSON');
  }
  const [kind, by, why] = [fieldOf(value, 'kind'), fieldOf(value, 'by'), fieldOf(value, 'why')];
  if ((kind === 'closed' || kind === 'open') && typeof by === 'string' && typeof why === 'string')
    return { kind, by, why };
  throw corrupt(name, 'says what nobody here understands');
}

function* payloadsIn(frames: Uint8Array, name: string): Generator<Uint8Array> {
  for (let at = 0; at < frames.length; ) {
    if (at + 4 > frames.length) throw corrupt(name, 'ends within a length');
    const length = asBuffer(frames).readUInt32BE(at);
    at += 4;
    if (length > appendBytesMax || at + length > frames.length) throw corrupt(name, 'ends within an append');
    yield frames.subarray(at, at + length);
    at += length;
  }
}

function keyOf(sequence: number): Uint8Array {
  return concat(utf8('m'), uint64(sequence));
}
