// UCXL addresses: `ucxl://agent:role@project:task/temporal/path`.
//
// Two profiles read them. Strict is upstream's own grammar. Lenient is what people write: dots in project and task,
// `*` for a wildcard, `#`, an instant or nothing as the temporal segment, a query and a fragment (kept in `raw` only),
// and any printable Unicode in the path.
//
// What is stored is the canonical key, `ucxl://a:r@p:t/*^/path`. Keys follow the strict grammar widened by two lenient
// freedoms, because an address that people really use must be usable for put:
//  - dots in project and task. `holdfast:2.0.0` is a release, not a mistake. A dot separates nothing before the first
//    slash, so the key stays unambiguous; mapping dots to something strict would make two addresses one.
//  - printable Unicode in the path, in NFC. A stored directory has one address per file, and files are called
//    `@types/réunion notes.md`. Escaping them would give every such file a second name.
// Both are refused by `{ profile: 'strict' }`, so a caller that must hand addresses to a strict parser can tell.

import { HoldfastError } from '../core/errors.ts';
import { addressBytesMax, addressPartBytesMax } from '../core/limits.ts';
import { formatTemporal, parseTemporal, type Profile, type TemporalSegment } from './temporal.ts';

export interface UcxlAddress {
  readonly agent: string;
  readonly role: string;
  readonly project: string;
  readonly task: string;
  readonly temporal_segment: TemporalSegment;
  /** Segments joined by `/`, without a slash at either end; empty for none. */
  readonly path: string;
  /** The text as it came, with its query and fragment. */
  readonly raw: string;
}

export type AddressField = 'address' | 'agent' | 'role' | 'project' | 'task' | 'temporal' | 'path';

/** The word that stands for every agent, role, project or task. The lenient profile reads `*` as this word. */
export const wildcard = 'any';

/**
 * Reads an address. Throws ADDRESS_INVALID with details {field, message, raw}.
 * Wildcards parse in both profiles; `canonicalKey` refuses them.
 */
export function parseAddress(text: string, options: { readonly profile: Profile }): UcxlAddress {
  return parseWith(text, options.profile, checkPath);
}

/** As `parseAddress`, lenient, with another rule for the path: patterns allow `*` in it. For match.ts. */
export function parseWith(text: string, profile: Profile, readPath: PathReader): UcxlAddress {
  const fail = failing(text);
  const split = splitAddress(checkedText(text, profile, fail), fail);
  const part = (field: PartField) => checkPart(split[field], field, profile, fail);
  const { temporal, path } = splitTail(split.tail, profile, fail);
  return {
    agent: part('agent'),
    role: part('role'),
    project: part('project'),
    task: part('task'),
    temporal_segment: temporal,
    path: readPath(path, profile, fail),
    raw: text,
  };
}

/** The address as text, with its own temporal segment and without query and fragment. */
export function formatAddress(address: Omit<UcxlAddress, 'raw'>): string {
  return spell(address, formatTemporal(address.temporal_segment));
}

/**
 * The key under which every version of this address is stored: `ucxl://a:r@p:t/*^/path`.
 * Throws ADDRESS_WILDCARD when a part is a wildcard, ADDRESS_INVALID when the key would exceed 4,096 bytes.
 */
export function canonicalKey(address: Omit<UcxlAddress, 'raw'>): string {
  for (const field of partFields) {
    if (address[field] === wildcard) {
      throw new HoldfastError(
        'ADDRESS_WILDCARD',
        `${field} is a wildcard: one stored address is needed here`,
        {
          details: { field, message: 'wildcard', raw: shown(formatAddress(address)) },
        },
      );
    }
  }
  const key = spell(address, '*^');
  if (byteLength(key) > addressBytesMax) failing(key)('address', `longer than ${addressBytesMax} bytes`);
  return key;
}

/** The immutable address of version `version` (integer ≥ 1): what agents cite. */
export function withVersion(address: Omit<UcxlAddress, 'raw'>, version: number): string {
  return spell(address, `*~${version}`);
}

/**
 * The same address with another path, checked as in the lenient profile: how a directory gives each file its address.
 * Throws ADDRESS_INVALID, for instance for a name with `#`, `?` or `*`, which no address can hold.
 */
export function withPath(address: UcxlAddress, path: string): UcxlAddress {
  const fail = failing(path);
  const checked = checkPath(checkedText(path, 'lenient', fail), 'lenient', fail);
  const changed = { ...address, path: checked };
  const raw = formatAddress(changed);
  if (byteLength(raw) > addressBytesMax) fail('address', `longer than ${addressBytesMax} bytes`);
  return { ...changed, raw };
}

type PartField = 'agent' | 'role' | 'project' | 'task';
type Fail = (field: AddressField, message: string) => never;
type PathReader = (path: string, profile: Profile, fail: Fail) => string;

const partFields = ['agent', 'role', 'project', 'task'] as const satisfies readonly PartField[];
const scheme = 'ucxl://';

function spell(address: Omit<UcxlAddress, 'raw'>, temporal: string): string {
  return `${scheme}${address.agent}:${address.role}@${address.project}:${address.task}/${temporal}/${address.path}`;
}

/** `text` in NFC, once its length and characters are known to be harmless. Length first: it bounds all later work. */
function checkedText(text: string, profile: Profile, fail: Fail): string {
  const tooLong = `longer than ${addressBytesMax} bytes`;
  if (text.length > addressBytesMax) fail('address', tooLong);
  if (!text.isWellFormed()) fail('address', 'not well-formed Unicode');
  if (forbidden.test(text)) fail('address', 'holds a control character');
  const normal = text.normalize('NFC');
  if (profile === 'strict' && normal !== text) fail('address', 'not in Unicode form NFC');
  if (byteLength(normal) > addressBytesMax) fail('address', tooLong);
  return normal;
}

/** Controls, line and paragraph separators, and the marks that make text run backwards on a screen. */
const forbidden = /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u;

/** Cuts at the separators, without judging the parts. */
function splitAddress(text: string, fail: Fail): Record<PartField | 'tail', string> {
  if (!text.startsWith(scheme)) fail('address', `must start with ${scheme}`);
  const rest = text.slice(scheme.length);
  const end = rest.search(/[/?#]/);
  const authority = end === -1 ? rest : rest.slice(0, end);
  const [left, right, extra] = authority.split('@', 3);
  if (left === undefined || right === undefined || extra !== undefined) {
    return fail('address', 'must have one @ between agent:role and project:task');
  }
  const [agent, role] = splitPair(left, 'agent', 'role', fail);
  const [project, task] = splitPair(right, 'project', 'task', fail);
  return { agent, role, project, task, tail: end === -1 ? '' : rest.slice(end) };
}

function splitPair(text: string, first: PartField, second: PartField, fail: Fail): [string, string] {
  const [a, b, extra] = text.split(':', 3);
  if (a === undefined || b === undefined) return fail(second, `missing: ${first}:${second} expected`);
  if (extra !== undefined) return fail(second, 'holds a second colon');
  return [a, b];
}

const strictPart = /^[a-zA-Z0-9_-]+$/;
const dottedPart = /^[a-zA-Z0-9_.-]+$/;

function checkPart(text: string, field: PartField, profile: Profile, fail: Fail): string {
  if (text === '') fail(field, 'is empty');
  if (profile === 'lenient' && text === '*') return wildcard;
  if (byteLength(text) > addressPartBytesMax) fail(field, `longer than ${addressPartBytesMax} bytes`);
  const dotted = profile === 'lenient' && (field === 'project' || field === 'task');
  if (!(dotted ? dottedPart : strictPart).test(text)) {
    fail(field, dotted ? 'may hold letters, digits, _ - and .' : 'may hold letters, digits, _ and -');
  }
  return text;
}

/** `tail` is empty or starts with `/`, `?` or `#`. */
function splitTail(tail: string, profile: Profile, fail: Fail): { temporal: TemporalSegment; path: string } {
  const bare = profile === 'lenient' ? withoutQuery(tail) : tail;
  const [, segment, path] = /^\/([^/]*)\/?(.*)$/su.exec(bare) ?? [];
  if (bare !== '' && segment === undefined) fail('address', 'a query or fragment needs the lenient profile');
  const temporal = segment === undefined ? undefined : parseTemporal(segment, profile);
  if (temporal !== undefined) return { temporal, path: path ?? '' };
  if (profile === 'strict') fail('temporal', 'must be *^, *~, *~N, ~~N or ^^N with N from 1');
  if (segment !== undefined && /^(?:\*[\^~]|~~|\^\^)/.test(segment)) {
    fail('temporal', 'must be *^, *~, *~N, ~~N, ^^N with N from 1, #, or an ISO 8601 instant');
  }
  return { temporal: { type: 'latest' }, path: bare.slice(1) };
}

/** `tail` without `?query` and `#fragment`. A `#` that is a whole first segment is the temporal one and stays. */
function withoutQuery(tail: string): string {
  const skip = /^\/#(?:\/|$)/.test(tail) ? 2 : 0;
  const cut = tail.slice(skip).search(/[?#]/);
  return cut === -1 ? tail : tail.slice(0, skip + cut);
}

const strictPath = /^[a-zA-Z0-9_\-/.]*$/;

function checkPath(path: string, profile: Profile, fail: Fail): string {
  if (profile === 'strict' && !strictPath.test(path)) fail('path', 'may hold letters, digits, _ - / and .');
  if (/[*?#]/.test(path)) fail('path', 'may not hold * ? or #');
  checkSegments(path, fail);
  return path;
}

/** Throws for a segment that is empty, `.`, `..` or too long. An empty path has no segments. */
export function checkSegments(path: string, fail: Fail): void {
  if (path === '') return;
  for (const segment of path.split('/')) {
    if (segment === '') fail('path', 'holds an empty segment');
    if (segment === '.' || segment === '..') fail('path', `holds the segment ${segment}`);
    if (byteLength(segment) > addressPartBytesMax) {
      fail('path', `holds a segment longer than ${addressPartBytesMax} bytes`);
    }
  }
}

function byteLength(text: string): number {
  return Buffer.byteLength(text);
}

function failing(raw: string): Fail {
  return (field, message) => {
    throw new HoldfastError('ADDRESS_INVALID', `${field} ${message}: ${JSON.stringify(shown(raw))}`, {
      details: { field, message, raw: shown(raw) },
    });
  };
}

/** Enough of a hostile text to recognise it, and no half of a surrogate pair. */
function shown(raw: string): string {
  return raw.length <= 200 ? raw.toWellFormed() : `${raw.slice(0, 200).toWellFormed()}…`;
}
