// CAR v1: blocks in a row, the form in which content travels to and from other IPFS tools.
//
//   varint length | DAG-CBOR {version: 1, roots: [CID]}       the header, once
//   varint length | CID | bytes                               a section, for each block
//
// A CAR carries any codec; sha2-256 is the only hash that can be verified here, so nothing else is let through. Each
// block is copied exactly once, out of the chunks it arrived in: a view into a chunk would keep the whole chunk alive,
// and would change under the reader if the source reuses its buffers.

import { type Block, CID, decodeCbor, encodeCbor, verifiedBlock } from '../core/block.ts';
import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { blockBytesMax } from '../core/limits.ts';
import { isMap } from './fields.ts';

export interface Car {
  readonly roots: readonly CID[];
  /** The blocks in the order of the file, verified. To be read once. */
  readonly blocks: AsyncIterable<Block>;
}

/** Where sections are put: an array of exactly that length, of any content. */
export interface CarMemory {
  take(length: number): Uint8Array;
}

const freshArrays: CarMemory = { take: (length) => new Uint8Array(length) };

/** The bytes with which a CAR over these roots starts. */
export function carHeader(roots: readonly CID[]): Uint8Array {
  const header = encodeCbor({ version: 1, roots });
  return concat(varint(header.length), header);
}

/** One block as a section, in two pieces to be written one after the other: the body is not copied. */
export function carSection(block: Block): readonly [head: Uint8Array, body: Uint8Array] {
  const { cid, bytes } = block;
  return [concat(varint(cid.bytes.length + bytes.length), cid.bytes), bytes];
}

/**
 * Reads the header; the blocks follow as they are taken, with no more than one in memory.
 * Throws UPLOAD_TRUNCATED when the source ends early, BLOCK_CORRUPT for a block that does not hash to its CID,
 * TOO_LARGE for a block above 1 MiB, ARGUMENT_INVALID for anything that is not CAR v1 with sha2-256 CIDs.
 */
export async function openCar(
  source: AsyncIterable<Uint8Array>,
  memory: CarMemory = freshArrays,
): Promise<Car> {
  const reader = new ByteReader(source, memory);
  try {
    return { roots: await readHeader(reader), blocks: readSections(reader) };
  } catch (error) {
    await reader.close();
    throw error;
  }
}

/** The blocks alone. Errors as for `openCar`. */
export async function* readCar(
  source: AsyncIterable<Uint8Array>,
  memory: CarMemory = freshArrays,
): AsyncGenerator<Block> {
  yield* (await openCar(source, memory)).blocks;
}

const headerBytesMax = 65_536;
/** Version, codec and hash code as varints of at most 9 bytes each, and a digest: far more than any CID we accept. */
const cidBytesMax = 64;

async function readHeader(reader: ByteReader): Promise<readonly CID[]> {
  const length = await readLength(reader, 'header');
  if (length === undefined) throw truncated('header');
  if (length > headerBytesMax)
    throw malformed(`a header of ${length} bytes: at most ${headerBytesMax} allowed`);
  const header = decodeHeader(await reader.take(length, 'header'));
  if (!isMap(header) || header['version'] !== 1) throw malformed('not version 1');
  const { roots } = header;
  if (!Array.isArray(roots) || !roots.every(isCid)) throw malformed('roots is not a list of CIDs');
  return roots;
}

function decodeHeader(bytes: Uint8Array): unknown {
  try {
    return decodeCbor(bytes, 'header');
  } catch (cause) {
    throw malformed('the header is not DAG-CBOR', cause);
  }
}

async function* readSections(reader: ByteReader): AsyncGenerator<Block> {
  try {
    for (;;) {
      const length = await readLength(reader, 'section');
      if (length === undefined) return;
      yield await readSection(reader, length);
    }
  } finally {
    await reader.close();
  }
}

async function readSection(reader: ByteReader, length: number): Promise<Block> {
  if (length > blockBytesMax + cidBytesMax) throw tooLarge(length);
  const section = await reader.take(length, 'section');
  const [cid, bytes] = decodeCid(section);
  if (cid.multihash.code !== 0x12 || cid.multihash.size !== 32) {
    throw malformed(`${cid.toString()} is not hashed with sha2-256`);
  }
  if (bytes.length > blockBytesMax) throw tooLarge(bytes.length);
  return verifiedBlock(cid, bytes, 'a CAR');
}

/** The CID in memory of its own: it is kept in lists long after the block has gone, and a view would keep the block too. */
function decodeCid(section: Uint8Array): [CID, Uint8Array] {
  try {
    const [view, bytes] = CID.decodeFirst(section);
    return [CID.decode(view.bytes.slice()), bytes];
  } catch (cause) {
    throw malformed('a section does not start with a CID', cause);
  }
}

/** `undefined` when the source ends before the first byte: the proper end of a CAR. */
async function readLength(reader: ByteReader, what: string): Promise<number | undefined> {
  let value = 0;
  for (let index = 0; index < varintBytesMax; index++) {
    const byte = await reader.byte();
    if (byte === undefined && index === 0) return undefined;
    if (byte === undefined) throw truncated(what);
    value += (byte & 0x7f) * 128 ** index;
    if (byte < 0x80) return checkedLength(value, what);
  }
  throw malformed(`the length of a ${what} has more than ${varintBytesMax} bytes`);
}

/** 2³⁵: beyond every length we accept, within what a number counts. */
const varintBytesMax = 5;

function checkedLength(length: number, what: string): number {
  if (length === 0) throw malformed(`an empty ${what}`);
  return length;
}

function varint(value: number): Uint8Array {
  const out: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Uint8Array.from([...out, rest]);
    out.push((rest % 128) + 128);
  }
}

/** Takes exact lengths out of chunks of any size. */
class ByteReader {
  readonly #source: AsyncIterator<Uint8Array>;
  readonly #memory: CarMemory;
  #chunk: Uint8Array = new Uint8Array(0);
  #offset = 0;

  constructor(source: AsyncIterable<Uint8Array>, memory: CarMemory) {
    this.#memory = memory;
    this.#source = source[Symbol.asyncIterator]();
  }

  async byte(): Promise<number | undefined> {
    return (await this.#fill()) ? this.#chunk[this.#offset++] : undefined;
  }

  /** Exactly `length` bytes, copied. Throws UPLOAD_TRUNCATED when the source has fewer. */
  async take(length: number, what: string): Promise<Uint8Array> {
    const out = this.#memory.take(length);
    for (let filled = 0; filled < length; ) {
      if (!(await this.#fill())) throw truncated(what);
      const piece = this.#chunk.subarray(this.#offset, this.#offset + length - filled);
      out.set(piece, filled);
      filled += piece.length;
      this.#offset += piece.length;
    }
    return out;
  }

  /** Tells the source that nothing more will be taken. */
  async close(): Promise<void> {
    await this.#source.return?.();
  }

  /** False when there is nothing left. Does not go to the source while bytes are at hand. */
  async #fill(): Promise<boolean> {
    while (this.#offset === this.#chunk.length) {
      const next = await this.#source.next();
      if (next.done === true) return false;
      this.#chunk = next.value;
      this.#offset = 0;
    }
    return true;
  }
}

function isCid(value: unknown): value is CID {
  return CID.asCID(value) !== null;
}

function truncated(what: string): HoldfastError {
  return new HoldfastError('UPLOAD_TRUNCATED', `the CAR ends in the middle of a ${what}`);
}

function tooLarge(sizeBytes: number): HoldfastError {
  return new HoldfastError(
    'TOO_LARGE',
    `a block of ${sizeBytes} bytes in a CAR: at most ${blockBytesMax} allowed`,
    {
      details: { sizeBytes, sizeBytesMax: blockBytesMax },
    },
  );
}

function malformed(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('ARGUMENT_INVALID', `not a CAR v1: ${message}`, {
    details: { field: 'car' },
    cause,
  });
}
