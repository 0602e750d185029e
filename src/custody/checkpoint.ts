// Checkpoints of a log as signed notes, and the cosignatures of witnesses on them: c2sp.org/signed-note,
// c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature (the Ed25519 type), byte for byte, so that the tools of other
// transparency logs read ours.
//
//   local-1234/custodian-1            origin: the name of the log
//   1042                              size
//   CsUYapGGPo4dkMgIAUqom/Xajj7h…=    root
//
//   — local-1234/custodian-1 Az3grlgt…
//   — local-1234/custodian-2 jWbPPwAA…

import { asBuffer, concat, sameBytes, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256, type Signer, verifySignature } from '../core/hash.ts';

export interface Checkpoint {
  readonly origin: string;
  readonly size: number;
  /** 32 bytes. */
  readonly root: Uint8Array;
}

/** Who may have signed: the name in the signature line and an Ed25519 public key. */
export interface NoteKey {
  readonly name: string;
  readonly publicKey: Uint8Array;
}

export interface Cosignature {
  readonly name: string;
  /** Seconds since 1970, as the witness says. */
  readonly time: number;
}

/** A note with 16 signatures, with room. */
export const noteBytesMax = 8192;
const signaturesMax = 32;
const logType = 0x01;
const cosignatureType = 0x04;

/** The text that is signed. Throws ARGUMENT_INVALID for an origin that is no key name. */
function checkpointText({ origin, size, root }: Checkpoint): string {
  checkName(origin);
  return `${origin}\n${size}\n${base64(root)}\n`;
}

/** A checkpoint signed by its log. */
export function signCheckpoint(checkpoint: Checkpoint, signer: Signer): string {
  const text = checkpointText(checkpoint);
  const id = keyId(checkpoint.origin, logType, signer.publicKey);
  return `${text}\n${signatureLine(checkpoint.origin, concat(id, signer.sign(utf8(text))))}`;
}

/** One signature line by which a witness vouches for `text`; `name` is the witness, `time` seconds since 1970. */
export function cosign(text: string, name: string, time: number, signer: Signer): string {
  checkName(name);
  const signature = signer.sign(cosignedBytes(text, time));
  return signatureLine(name, concat(keyId(name, cosignatureType, signer.publicKey), uint64(time), signature));
}

/**
 * Reads a note and checks the signature of its log.
 *
 * @throws RECORD_INVALID when it is malformed, of another origin than `log.name`, or not signed by that key
 */
export function openCheckpoint(note: string, log: NoteKey): Checkpoint & { readonly text: string } {
  const text = openNote(note, log);
  const checkpoint = parseText(text);
  if (checkpoint.origin !== log.name)
    throw invalid(`a checkpoint of ${checkpoint.origin.slice(0, 80)}, ${log.name} expected`);
  return { ...checkpoint, text };
}

/** The text of a note that `key` signed (Ed25519). Throws RECORD_INVALID when it is malformed or not signed by it. */
export function openNote(note: string, key: NoteKey): string {
  const { text, signatures } = parseNote(note);
  const id = keyId(key.name, logType, key.publicKey);
  const found = signatures.filter(
    ({ name, bytes }) => name === key.name && sameBytes(bytes.subarray(0, 4), id),
  );
  if (
    found.length === 0 ||
    !found.every(({ bytes }) => verifySignature(key.publicKey, utf8(text), bytes.subarray(4)))
  )
    throw invalid(`the note is not signed by ${key.name}`);
  return text;
}

/**
 * Which of `witnesses` have cosigned the note, each once with its newest time; unknown lines are passed over.
 *
 * @throws RECORD_INVALID when the note is malformed or a known witness's signature is wrong
 */
export function cosignaturesOf(note: string, witnesses: readonly NoteKey[]): Cosignature[] {
  const { text, signatures } = parseNote(note);
  return witnesses.flatMap(({ name, publicKey }) => {
    const id = keyId(name, cosignatureType, publicKey);
    const times = signatures
      .filter((line) => line.name === name && sameBytes(line.bytes.subarray(0, 4), id))
      .map(({ bytes }) => verifiedTime(text, name, publicKey, bytes.subarray(4)));
    return times.length === 0 ? [] : [{ name, time: Math.max(...times) }];
  });
}

/** `note` with one more signature line. */
export function withSignature(note: string, line: string): string {
  return note + line;
}

function verifiedTime(text: string, name: string, publicKey: Uint8Array, bytes: Uint8Array): number {
  const time = bytes.length === 72 ? Number(asBuffer(bytes).readBigUInt64BE()) : Number.NaN;
  if (
    !Number.isSafeInteger(time) ||
    !verifySignature(publicKey, cosignedBytes(text, time), bytes.subarray(8))
  )
    throw invalid(`the cosignature of ${name} does not verify`);
  return time;
}

function cosignedBytes(text: string, time: number): Uint8Array {
  return utf8(`cosignature/v1\ntime ${time}\n${text}`);
}

interface SignatureLine {
  readonly name: string;
  /** Key id and signature. */
  readonly bytes: Uint8Array;
}

function parseNote(note: string): { text: string; signatures: SignatureLine[] } {
  if (note.length > noteBytesMax) throw invalid(`longer than ${noteBytesMax} bytes`);
  // eslint-disable-next-line no-control-regex -- control characters are what is refused
  if (/[\u0000-\u0009\u000b-\u001f]/.test(note)) throw invalid('control characters in a note');
  const end = note.lastIndexOf('\n\n');
  if (end < 0 || !note.endsWith('\n')) throw invalid('a text, a blank line and signatures expected');
  const lines = note.slice(end + 2, -1).split('\n');
  if (lines.length > signaturesMax) throw invalid(`more than ${signaturesMax} signatures`);
  return { text: note.slice(0, end + 1), signatures: lines.map(parseLine) };
}

function parseLine(line: string): SignatureLine {
  const [, name, text] = /^\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})$/u.exec(line) ?? [];
  const bytes = text === undefined ? undefined : fromBase64(text);
  if (name === undefined || bytes === undefined || bytes.length < 5)
    throw invalid('a signature line is malformed');
  return { name, bytes };
}

function parseText(text: string): Checkpoint {
  const [origin = '', size = '', hash = '', ...extensions] = text.slice(0, -1).split('\n');
  const root = fromBase64(hash);
  if (origin === '' || !/^(?:0|[1-9]\d{0,15})$/.test(size) || root?.length !== 32 || extensions.includes(''))
    throw invalid('origin, size and root expected');
  if (!Number.isSafeInteger(Number(size))) throw invalid('the size is beyond all measure');
  return { origin, size: Number(size), root };
}

function keyId(name: string, type: number, publicKey: Uint8Array): Uint8Array {
  return sha256(concat(utf8(`${name}\n`), Uint8Array.of(type), publicKey)).subarray(0, 4);
}

function signatureLine(name: string, bytes: Uint8Array): string {
  return `\u2014 ${name} ${base64(bytes)}\n`;
}

function base64(bytes: Uint8Array): string {
  return asBuffer(bytes).toString('base64');
}

/** Undefined for anything but the one spelling of some bytes. */
function fromBase64(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(Buffer.from(text, 'base64'));
  return base64(bytes) === text ? bytes : undefined;
}

function checkName(name: string): void {
  if (name === '' || name.length > 200 || /[\s+\p{Cc}]/u.test(name))
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${JSON.stringify(name.slice(0, 80))} cannot name a log or witness`,
    );
}

function invalid(why: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `checkpoint: ${why}`);
}
