// The content of a tree object: which file of a stored directory has which address. It is sealed like any content.
//
//   DAG-CBOR {t: 'tree', v: 1, e: [{name, address, version, manifest, size}, …]}     sorted by name, each name once
//
// Names come back as paths on somebody's disk, so a tree that could write outside its directory is refused here, for
// every reader alike.

import { type CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { treeBytesMax, treeEntriesMax } from '../core/limits.ts';
import { canonicalKey, parseAddress } from '../ucxl/address.ts';
import { type Fields, isCount, isLink, isMap, isText } from './fields.ts';

/** Media type of a tree's content. */
export const treeMedia = 'application/vnd.holdfast.tree+cbor';

export interface TreeEntry {
  /** Path of the file inside the directory, parts joined by `/`. */
  readonly name: string;
  /** Canonical key of the file's address. */
  readonly address: string;
  readonly version: number;
  /** CID of the file's manifest. */
  readonly manifest: CID;
  /** Bytes of plaintext. */
  readonly size: number;
}

/** The content for these files, in any order. Throws RECORD_INVALID for an entry that `decodeTree` would refuse. */
export function encodeTree(entries: readonly TreeEntry[]): Uint8Array {
  const sorted = entries
    .map(({ name, address, version, manifest, size }) => ({ name, address, version, manifest, size }))
    .sort((a, b) => compare(a.name, b.name));
  checkEntries(sorted);
  const bytes = encodeCbor({ t: 'tree', v: 1, e: sorted });
  if (bytes.length > treeBytesMax) throw invalid('tree', `is larger than ${treeBytesMax} bytes`);
  return bytes;
}

/** The files of a tree, sorted by name. Throws RECORD_INVALID naming the field. */
export function decodeTree(bytes: Uint8Array): readonly TreeEntry[] {
  if (bytes.length > treeBytesMax) throw invalid('tree', `is larger than ${treeBytesMax} bytes`);
  const value = decodeCbor(bytes, 'tree');
  if (!isMap(value) || value['t'] !== 'tree' || value['v'] !== 1 || Object.keys(value).length !== 3) {
    throw invalid('tree', 'is not {t: tree, v: 1, e: […]}');
  }
  const entries = value['e'];
  checkEntries(entries);
  return entries;
}

function checkEntries(entries: unknown): asserts entries is TreeEntry[] {
  if (!Array.isArray(entries)) throw invalid('e', 'is not a list');
  if (entries.length > treeEntriesMax) throw invalid('e', `has more than ${treeEntriesMax} entries`);
  const names = new Set<string>();
  let previous = '';
  for (const entry of entries) {
    const { name } = checkEntry(entry);
    if (compare(previous, name) >= 0) throw invalid('name', 'is not in order, or there twice');
    checkPlace(name, names);
    names.add(name);
    previous = name;
  }
}

/** A name that is also the folder of another cannot be written. Folders sort before what is in them. */
function checkPlace(name: string, names: ReadonlySet<string>): void {
  for (let at = name.indexOf('/'); at !== -1; at = name.indexOf('/', at + 1)) {
    if (names.has(name.slice(0, at))) throw invalid('name', 'is a file and a folder at once');
  }
}

function checkEntry(entry: unknown): TreeEntry {
  if (!isMap(entry)) throw invalid('e', 'holds something else than maps');
  if (!isEntry(entry)) throw invalid('e', 'holds an entry with fields unknown here');
  return entry;
}

function isEntry(entry: Fields): entry is Fields & TreeEntry {
  const { name, address, version, manifest, size, ...rest } = entry;
  if (!isName(name)) throw invalid('name', 'is not a relative path without . and ..');
  if (!isKey(address)) throw invalid('address', 'is not a canonical key');
  if (!isCount(version, 1)) throw invalid('version', 'is not an integer from 1');
  if (!isLink(manifest, 0x71)) throw invalid('manifest', 'is not the CID of a record');
  if (!isCount(size, 0)) throw invalid('size', 'is not an integer from 0');
  return Object.keys(rest).length === 0;
}

const nameBytesMax = 4096;

/** A backslash separates folders on some systems, and a colon names a drive there: neither may be part of a name. */
function isName(name: unknown): name is string {
  return (
    isText(name, 1, nameBytesMax) &&
    name.isWellFormed() &&
    !/[\t\n\\]|^[a-zA-Z]:/.test(name) &&
    name.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
  );
}

function isKey(address: unknown): address is string {
  if (typeof address !== 'string') return false;
  try {
    return canonicalKey(parseAddress(address, { profile: 'lenient' })) === address;
  } catch {
    return false;
  }
}

/** By UTF-16 code units: the order that JavaScript's own `<` gives, the same everywhere. */
function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function invalid(field: string, message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `tree: ${field} ${message}`, { details: { field, message } });
}
