// Words that policies and capabilities share: what may be done, to whose content, and when one permission lies
// inside another.

import { addressBytesMax, addressPartBytesMax } from '../core/limits.ts';
import { type ContentClass, contentClasses } from '../envelope/aad.ts';
import type { Fields } from '../envelope/fields.ts';

/** `read`: open content. `write`: wrap anew. `pin`, `prune`: keep and let go of blocks. `audit`: canaries and logs. */
export const operations = ['read', 'write', 'pin', 'prune', 'audit'] as const;
export type Operation = (typeof operations)[number];

/** Name of the project that canaries are in: no address has it. */
export const canaryProject = 'holdfast-canary';

/** Which content a permission is about. */
export interface AccessScope {
  /** A project, or the first characters of one and `*`. */
  readonly project: string;
  /** The highest class. */
  readonly cls: ContentClass;
  /**
   * Start of the UCXL path, empty for all. The label of a branch key names project, class, writer and window but
   * no path, so a custodian cannot enforce it: whoever hands out single content keys (door, key agent) does.
   */
  readonly prefix: string;
}

export function readScope(fields: Fields): AccessScope {
  return {
    project: fields.text('project', addressPartBytesMax),
    cls: fields.oneOf('cls', contentClasses),
    prefix: fields.textUpTo('prefix', addressBytesMax),
  };
}

/** Reads a list of different operations, at least one. */
export function readOperations(fields: Fields, field: string): readonly Operation[] {
  const list = fields.list(field, operations.length);
  const ops = operations.filter((known) => list.includes(known));
  if (list.length === 0 || ops.length !== list.length || !list.every((op, at) => op === ops[at]))
    fields.refuse(field, `some of ${operations.join(', ')}, in this order, expected`);
  return ops;
}

/** True when `project` is one that `pattern` means. */
export function matchesProject(pattern: string, project: string): boolean {
  return pattern.endsWith('*') ? project.startsWith(pattern.slice(0, -1)) : pattern === project;
}

/** True when everything in `inner` is in `outer`. */
export function scopeCovers(outer: AccessScope, inner: AccessScope): boolean {
  return (
    patternCovers(outer.project, inner.project) &&
    rank(inner.cls) <= rank(outer.cls) &&
    inner.prefix.startsWith(outer.prefix)
  );
}

/** True when content of `cls` is not above `highest`. */
export function classWithin(highest: ContentClass, cls: ContentClass): boolean {
  return rank(cls) <= rank(highest);
}

function patternCovers(outer: string, inner: string): boolean {
  if (outer.endsWith('*')) return inner.startsWith(outer.slice(0, -1)); // an inner pattern's star is more text
  return outer === inner;
}

function rank(cls: ContentClass): number {
  return contentClasses.indexOf(cls);
}
