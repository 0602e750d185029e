// One digest over all rows of a view, so that views can be compared without sending rows: two levels, the kinds of rows
// below, so that a difference says in which of them it is.
//
//     kind  SHA-256 over its rows in key order: length of key u32 ‖ length of value u32 ‖ key ‖ value
//     root  SHA-256 over 'holdfast/view-root/v1\n' and, per kind in order: name ‖ 0 ‖ rows u64 ‖ its digest
//
// The rows are those that the log gives, so views that stand at the same revision have the same root or one is wrong.

import { createHash, type Hash } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { concat, toHex, uint32, uint64, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { fieldOf } from '../core/shape.ts';
import type { KvRow } from './kv.ts';

export interface KindRoot {
  readonly kind: string;
  readonly rows: number;
  /** Hex. */
  readonly digest: string;
}

export interface RowsRoot {
  /** Hex. */
  readonly root: string;
  readonly kinds: readonly KindRoot[];
}

/** What one view was found to be at a revision; `reason` says why nothing is known of it. */
export interface ViewRoot {
  readonly name: string;
  readonly root: RowsRoot | undefined;
  readonly reason: string;
}

export interface ViewsVerdict {
  /** Names of the views that are alike; empty when no group of them is larger than every other one. */
  readonly equal: readonly string[];
  /** The others, and the kinds of rows in which they are unlike those, or unlike each other. */
  readonly differing: readonly { readonly name: string; readonly kinds: readonly string[] }[];
  readonly unknown: readonly { readonly name: string; readonly reason: string }[];
}

const domain = utf8('holdfast/view-root/v1\n');
/** More than there are kinds of rows (rows.ts). */
const kindsMax = 64;
/** Short enough that a request behind it does not notice. */
const sliceMs = 4;

/** Reads all `rows` with pauses of `pauseFactor` times what each slice took. Throws what reading throws. */
export async function rootOf(
  rows: AsyncIterable<KvRow>,
  pauseFactor: number,
  signal: AbortSignal,
): Promise<RowsRoot> {
  const kinds: KindRoot[] = [];
  let current: { readonly kind: string; readonly hash: Hash; rows: number } | undefined;
  const end = (): void => {
    if (current === undefined) return;
    const { kind, rows: count, hash } = current;
    kinds.push({ kind, rows: count, digest: hash.digest('hex') });
  };
  let sliceBegan = performance.now();
  for await (const [key, value] of rows) {
    const kind = key.slice(0, kindLength(key));
    if (current?.kind !== kind) {
      end();
      current = { kind, hash: createHash('sha256'), rows: 0 };
    }
    const name = utf8(key);
    current.hash.update(uint32(name.length)).update(uint32(value.length)).update(name).update(value);
    current.rows++;
    const tookMs = performance.now() - sliceBegan;
    if (tookMs < sliceMs) continue;
    await delay(tookMs * pauseFactor, undefined, { signal });
    sliceBegan = performance.now();
  }
  end();
  const parts = kinds.map((each) =>
    concat(utf8(`${each.kind}\0`), uint64(each.rows), Buffer.from(each.digest, 'hex')),
  );
  return { root: toHex(sha256(concat(domain, ...parts))), kinds };
}

/** Reads a root as it came over the wire. Throws RECORD_INVALID. */
export function parseRoot(value: unknown): RowsRoot {
  const [root, kinds] = [fieldOf(value, 'root'), fieldOf(value, 'kinds')];
  if (isDigest(root) && Array.isArray(kinds) && kinds.length <= kindsMax && kinds.every(isKindRoot))
    return { root, kinds };
  throw new HoldfastError('RECORD_INVALID', 'the root of a view has another form');
}

/** Which of `views`, all at one revision, are alike. Who is right no root can say: folding the log again can. */
export function judgeViews(views: readonly ViewRoot[]): ViewsVerdict {
  const groups = new Map<string, ViewRoot[]>();
  for (const view of views)
    if (view.root !== undefined) groups.set(view.root.root, [...(groups.get(view.root.root) ?? []), view]);
  const [largest = [], second = []] = [...groups.values()].toSorted((a, b) => b.length - a.length);
  const equal = largest.length > second.length ? largest : [];
  const known = views.filter(({ root }) => root !== undefined);
  const others = known.filter((view) => !equal.includes(view));
  const against = (view: ViewRoot): readonly ViewRoot[] =>
    equal.length > 0 ? equal : known.filter((each) => each !== view);
  return {
    equal: equal.map(({ name }) => name),
    differing: others.map((view) => ({
      name: view.name,
      kinds: [...new Set(against(view).flatMap((other) => unlikeKinds(view.root, other.root)))].toSorted(),
    })),
    unknown: views.filter(({ root }) => root === undefined).map(({ name, reason }) => ({ name, reason })),
  };
}

function unlikeKinds(left: RowsRoot | undefined, right: RowsRoot | undefined): string[] {
  const shown = (root: RowsRoot | undefined): Map<string, string> =>
    new Map(root?.kinds.map(({ kind, rows, digest }) => [kind, `${rows} ${digest}`]));
  const [one, other] = [shown(left), shown(right)];
  return [...new Set([...one.keys(), ...other.keys()])].filter((kind) => one.get(kind) !== other.get(kind));
}

function isKindRoot(value: unknown): value is KindRoot {
  const [kind, rows, digest] = ['kind', 'rows', 'digest'].map((name) => fieldOf(value, name));
  return typeof kind === 'string' && Number.isSafeInteger(rows) && isDigest(digest);
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value);
}

function kindLength(key: string): number {
  const at = key.indexOf('\0');
  return at === -1 ? key.length : at;
}
