// The index tree: one root CID for content of any number of segments.
//
//   one segment                 several                                    more than 4,096
//   root = its raw block CID    root = node h 1 ─▶ segments 0 … n−1        root = node h 2 ─▶ nodes h 1 ─▶ segments
//
// A node is DAG-CBOR {t: 'index', h: height, n: segments beneath, len: bytes beneath, l: [links]}. The tree is packed
// to the left: every node but the last of its height is full, every segment but the last is exactly segmentBytes. So
// the place of segment k follows by division, no node needs a table of offsets, and a reader can refuse any node that
// is not the one which must stand there: a tree cannot lie about its size or run for ever.

import {
  type Block,
  CID,
  cborBlock,
  codecDagCbor,
  codecRaw,
  decodeCbor,
  verifiedBlock,
} from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { indexLinksMax, segmentBytes } from '../core/limits.ts';
import { isCount, isLink, isMap } from './fields.ts';

export interface Segment {
  readonly cid: CID;
  /** 1…segmentBytes; less than segmentBytes only for the last one. */
  readonly size: number;
}

/** Fetches an index block. Its bytes are verified here, wherever they come from. */
export type LoadBlock = (cid: CID) => Promise<Uint8Array>;

/**
 * Builds the tree over `segments` in order. `blocks` are the index blocks, children before parents; empty for one
 * segment. Throws ARGUMENT_INVALID for no segments or a wrong size. Keeps the index blocks only (41 B per segment);
 * a writer who wants to send them away as they fill uses `IndexBuilder`.
 */
export async function buildIndex(
  segments: Iterable<Segment> | AsyncIterable<Segment>,
): Promise<{ root: CID; blocks: Block[] }> {
  const builder = new IndexBuilder();
  const blocks: Block[] = [];
  for await (const segment of segments) blocks.push(...builder.add(segment));
  const { root, blocks: rest } = builder.finish();
  return { root, blocks: [...blocks, ...rest] };
}

interface Level {
  links: CID[];
  segments: number;
  bytes: number;
}

/** The tree as it grows: at most one unfinished node per height in memory. */
export class IndexBuilder {
  readonly #levels: Level[] = [];
  #last: number = segmentBytes;

  /** Takes the next segment. Returns the index blocks that became full by it: at most one per height. */
  add(segment: Segment): Block[] {
    checkSegment(segment, this.#last);
    this.#last = segment.size;
    const full: Block[] = [];
    this.#push(0, segment.cid, 1, segment.size, full);
    return full;
  }

  /** Closes the tree. The builder must not be used again. */
  finish(): { root: CID; blocks: Block[] } {
    const blocks: Block[] = [];
    for (let height = 0; height < this.#levels.length; height++) {
      const level = this.#level(height);
      const only =
        level.links.length === 1 && height === this.#levels.length - 1 ? level.links[0] : undefined;
      if (only !== undefined) return { root: only, blocks };
      if (level.links.length > 0) this.#close(height, blocks);
    }
    throw new HoldfastError('ARGUMENT_INVALID', 'an index needs at least one segment');
  }

  #push(height: number, cid: CID, segments: number, bytes: number, out: Block[]): void {
    const level = this.#level(height);
    level.links.push(cid);
    level.segments += segments;
    level.bytes += bytes;
    if (level.links.length === indexLinksMax) this.#close(height, out);
  }

  /** Turns what has gathered at this height into a node, and links it from the height above. */
  #close(height: number, out: Block[]): void {
    const { links, segments, bytes } = this.#level(height);
    this.#levels[height] = emptyLevel();
    const block = cborBlock({ t: 'index', h: height + 1, n: segments, len: bytes, l: links });
    out.push(block);
    this.#push(height + 1, block.cid, segments, bytes, out);
  }

  #level(height: number): Level {
    return (this.#levels[height] ??= emptyLevel());
  }
}

/**
 * The CIDs of segments `from` (inclusive, default 0) to `to` (exclusive, default all), in order. Loads only the index
 * nodes above them. A range beyond the end yields what there is.
 * Throws BLOCK_CORRUPT for index bytes that do not hash to their CID, RECORD_INVALID for a node that does not belong.
 */
export async function* walkIndex(
  root: CID,
  load: LoadBlock,
  range: { readonly from?: number; readonly to?: number } = {},
): AsyncGenerator<CID> {
  const { from = 0, to = Number.POSITIVE_INFINITY } = range;
  if (to <= from) return;
  for await (const { cid, isSegment } of walk(root, load, from, to)) if (isSegment) yield cid;
}

/** Every content block: index nodes before what they link, segments in order. Errors as for `walkIndex`. */
export async function* indexBlocks(root: CID, load: LoadBlock): AsyncGenerator<CID> {
  for await (const { cid } of walk(root, load, 0, Number.POSITIVE_INFINITY)) yield cid;
}

/** Segments of `ctLen` bytes of ciphertext. */
export function segmentsOf(ctLen: number): number {
  return Math.ceil(ctLen / segmentBytes);
}

/** Blocks of `ctLen` bytes of ciphertext: segments and the index over them. */
export function blocksOf(ctLen: number): number {
  let level = segmentsOf(ctLen);
  let blocks = level;
  while (level > 1) {
    level = Math.ceil(level / indexLinksMax);
    blocks += level;
  }
  return blocks;
}

/** True for a CID that a segment can have. */
export function isContentLink(value: unknown): value is CID {
  return isLink(value, codecRaw);
}

/** True for a CID that an index node can have. */
export function isIndexLink(value: unknown): value is CID {
  return isLink(value, codecDagCbor);
}

interface IndexNode {
  readonly height: number;
  readonly segments: number;
  readonly bytes: number;
  readonly links: readonly CID[];
}

interface Visited {
  readonly cid: CID;
  readonly isSegment: boolean;
}

async function* walk(root: CID, load: LoadBlock, from: number, to: number): AsyncGenerator<Visited> {
  if (root.code === codecRaw) {
    if (from < 1 && to > 0) yield { cid: root, isSegment: true };
    return;
  }
  const node = await loadNode(root, load);
  // A root over one segment, or over one node, is a level too many: the same content would have two roots.
  if (node.links.length < 2) throw invalid(root, 'root has fewer than two links');
  yield { cid: root, isSegment: false };
  yield* walkNode(node, load, from, to);
}

/** `from` and `to` count from the first segment beneath this node. */
async function* walkNode(
  node: IndexNode,
  load: LoadBlock,
  from: number,
  to: number,
): AsyncGenerator<Visited> {
  const each = segmentsPerLink(node.height);
  const last = Math.min(node.links.length, Math.ceil(to / each));
  for (let index = Math.max(0, Math.floor(from / each)); index < last; index++) {
    const cid = node.links[index];
    if (cid === undefined) return;
    yield { cid, isSegment: node.height === 1 };
    if (node.height === 1) continue;
    const child = await loadNode(cid, load, node, index);
    yield* walkNode(child, load, from - index * each, to - index * each);
  }
}

function segmentsPerLink(height: number): number {
  return indexLinksMax ** (height - 1);
}

/** Loads a node and checks that it is the one which must stand there: the root, or child `index` of `parent`. */
async function loadNode(cid: CID, load: LoadBlock, parent?: IndexNode, index = 0): Promise<IndexNode> {
  const { bytes } = verifiedBlock(cid, await load(cid), 'the index loader');
  const node = parseNode(cid, bytes);
  if (parent !== undefined) checkChild(cid, node, parent, index);
  return node;
}

function parseNode(cid: CID, bytes: Uint8Array): IndexNode {
  const value = decodeCbor(bytes, `index block ${cid.toString()}`);
  if (!isMap(value)) throw invalid(cid, 'is not a map');
  const { t, h, n, len, l, ...rest } = value;
  if (t !== 'index' || Object.keys(rest).length > 0) throw invalid(cid, 'is not an index node');
  if (!isCount(h, 1, heightMax)) throw invalid(cid, `h is not an integer from 1 to ${heightMax}`);
  if (!isCount(n, 1) || !isCount(len, 1)) throw invalid(cid, 'n and len are not integers from 1');
  if (segmentsOf(len) !== n) throw invalid(cid, 'len does not fit n');
  const isRightLink = h === 1 ? isContentLink : isIndexLink;
  if (!Array.isArray(l) || !l.every(isRightLink))
    throw invalid(cid, 'l is not a list of links of one height');
  if (l.length > indexLinksMax || l.length !== Math.ceil(n / segmentsPerLink(h))) {
    throw invalid(cid, 'the number of links does not fit n');
  }
  return { height: h, segments: n, bytes: len, links: l };
}

/** Four heights reach 2.8 × 10¹⁴ segments: more bytes than a safe integer counts. */
const heightMax = 4;

function checkChild(cid: CID, node: IndexNode, parent: IndexNode, index: number): void {
  const each = segmentsPerLink(parent.height);
  const isLast = index === parent.links.length - 1;
  const segments = isLast ? parent.segments - index * each : each;
  const bytes = isLast ? parent.bytes - index * each * segmentBytes : each * segmentBytes;
  if (node.height !== parent.height - 1 || node.segments !== segments || node.bytes !== bytes) {
    throw invalid(cid, 'does not fit the node above it');
  }
}

function checkSegment(segment: Segment, previousSize: number): void {
  const isSize: boolean = isCount(segment.size, 1, segmentBytes);
  if (!isSize) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `segment of ${segment.size} bytes: 1 to ${segmentBytes} expected`,
    );
  }
  if (previousSize !== segmentBytes) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `a segment after one of ${previousSize} bytes: only the last is short`,
    );
  }
  if (!isContentLink(segment.cid))
    throw new HoldfastError('ARGUMENT_INVALID', 'a segment must be a raw block');
}

function emptyLevel(): Level {
  return { links: [], segments: 0, bytes: 0 };
}

function invalid(cid: CID, message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `index block ${cid.toString()}: ${message}`, {
    details: { field: 'index', cid: cid.toString(), message },
  });
}
