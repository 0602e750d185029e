// Patterns over stored keys: `ucxl://any:any@chorus:*/*~/planning/requirements.md`.
//
// A part is exact or a wildcard (`any`, `*`). In the path `*` stands for any run of characters inside one segment and
// `**`, as a whole segment, for any number of segments. No path, or one that ends in `/`, means everything beneath.
// The temporal segment selects among the versions of a matching key; that is the caller's business.
//
// Matching is done by hand rather than by a RegExp built from the pattern: a regular expression with several stars
// backtracks exponentially, and patterns come from strangers.

import { checkSegments, parseWith, type UcxlAddress, wildcard } from './address.ts';

export interface AddressPattern extends UcxlAddress {
  /** The path's segments; `**` stands for any number of them. */
  readonly segments: readonly string[];
}

/** Reads a pattern in the lenient profile. Throws ADDRESS_INVALID with details {field, message, raw}. */
export function parsePattern(text: string): AddressPattern {
  const address = parseWith(text, 'lenient', checkPathPattern);
  return { ...address, segments: address.path === '' ? ['**'] : address.path.split('/') };
}

/** True when the stored key (as `canonicalKey` spells it) is one that `pattern` means. */
export function matches(pattern: AddressPattern, key: string): boolean {
  const split = splitKey(key);
  if (split === undefined) return false;
  return (
    partMatches(pattern.agent, split.agent) &&
    partMatches(pattern.role, split.role) &&
    partMatches(pattern.project, split.project) &&
    partMatches(pattern.task, split.task) &&
    pathMatches(pattern.segments, split.path)
  );
}

/** The longest text with which every matching key starts: where a scan over sorted keys begins and ends. */
export function keyPrefix(pattern: AddressPattern): string {
  let prefix = 'ucxl://';
  for (const [part, separator] of [
    [pattern.agent, ':'],
    [pattern.role, '@'],
    [pattern.project, ':'],
    [pattern.task, '/*^/'],
  ] as const) {
    if (part === wildcard) return prefix;
    prefix += part + separator;
  }
  // `a/**` also means `a`, so the slash before two stars is not sure to be there.
  return prefix + pattern.segments.join('/').replace(/(?:\/?\*\*|\*).*$/su, '');
}

/** `a//` and `a/**` mean the same; so do `a/` and both. */
function checkPathPattern(path: string, _profile: string, fail: Parameters<typeof checkSegments>[1]): string {
  const whole = path.endsWith('/') && path !== '/' ? `${path}**` : path;
  checkSegments(whole, fail);
  if (whole.split('/').filter((segment) => segment === '**').length > deepStarsMax) {
    fail('path', `holds more than ${deepStarsMax} segments **`);
  }
  return whole;
}

/** Nobody needs more, and each could make a match walk the path once more. */
const deepStarsMax = 8;

const keyShape = /^ucxl:\/\/([^:@/]+):([^:@/]+)@([^:@/]+):([^:@/]+)\/\*\^\/(.*)$/su;

function splitKey(key: string): Record<'agent' | 'role' | 'project' | 'task' | 'path', string> | undefined {
  const [, agent, role, project, task, path] = keyShape.exec(key) ?? [];
  if (agent === undefined || role === undefined || project === undefined || task === undefined)
    return undefined;
  return { agent, role, project, task, path: path ?? '' };
}

function partMatches(pattern: string, part: string): boolean {
  return pattern === wildcard || pattern === part;
}

function pathMatches(pattern: readonly string[], path: string): boolean {
  return globMatches(pattern, path === '' ? [] : path.split('/'), '**', segmentMatches);
}

function segmentMatches(pattern: string, segment: string): boolean {
  return pattern.includes('*') ? globMatches(pattern, segment, '*', sameCharacter) : pattern === segment;
}

function sameCharacter(a: string, b: string): boolean {
  return a === b;
}

/**
 * Does `items` match `pattern`, in which `star` stands for any run? When an item does not fit, only the last star can
 * help by taking one more: all earlier choices stay as good as any. So the work is at most pattern × items.
 */
function globMatches(
  pattern: ArrayLike<string>,
  items: ArrayLike<string>,
  star: string,
  fits: (pattern: string, item: string) => boolean,
): boolean {
  let at = 0;
  let starAt = -1;
  let starEnd = 0;
  for (let index = 0; index < items.length; ) {
    const wanted = pattern[at];
    if (wanted === star) {
      starAt = at++;
      starEnd = index;
    } else if (wanted !== undefined && fits(wanted, items[index] ?? '')) {
      at++;
      index++;
    } else if (starAt !== -1) {
      at = starAt + 1;
      index = ++starEnd;
    } else {
      return false;
    }
  }
  while (pattern[at] === star) at++;
  return at === pattern.length;
}
