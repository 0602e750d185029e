// Snapshots of rows that a test makes up (src/beacon/snapshot.ts), and what a store says of its rows.

import { trailerBytes } from '../../src/beacon/level-format.ts';
import { compareKeys, type KeyPlace } from '../../src/beacon/level-keys.ts';
import { firstKeyOf } from '../../src/beacon/level-rows.ts';
import { blocksOf, tableKey } from '../../src/beacon/level-tables.ts';
import { sealValue } from '../../src/beacon/seal.ts';
import { type GivenBlock, PageWriter } from '../../src/beacon/snapshot.ts';
import type { LevelKv } from '../../src/beacon/view-level.ts';
import { utf8 } from '../../src/core/bytes.ts';

/** A stored row: its key and its value with its checksum. */
export type SealedRow = readonly [key: Uint8Array, sealed: Uint8Array];

/** A row as a table has it; without a value it is removed. */
export type TableRow = readonly [key: string, value: Uint8Array | null, sequence: number];

export interface TestRun {
  readonly level: number;
  readonly rows: readonly TableRow[];
}

/** One run of rows that come in order, in small pages. */
export function pagesOf(rows: readonly SealedRow[], pageBytes = 10_000): Uint8Array[] {
  const blocks = blocksOf(rows.map(([key, value]) => [tableKey(key, 1), value] as const));
  return pagesOfBlocks(
    [6],
    blocks.map((bytes) => ({ run: 0, bytes })),
    pageBytes,
  );
}

/** Runs, the newest first, as whoever gives rows sends them. */
export function pagesOfRuns(runs: readonly TestRun[]): Uint8Array[] {
  return pagesOfBlocks(
    runs.map(({ level }) => level),
    runs.flatMap(({ rows }, run) => blocksOfRows(rows).map((bytes) => ({ run, bytes }))),
  );
}

export function blocksOfRows(rows: readonly TableRow[]): Uint8Array[] {
  return blocksOf(
    rows.map(([key, value, sequence]) => {
      const bytes = utf8(key);
      const sealed = value === null ? new Uint8Array() : sealValue(bytes, value);
      return [tableKey(bytes, sequence, value === null), sealed] as const;
    }),
  );
}

/** `blocks`: uncompressed. */
export function pagesOfBlocks(
  levels: readonly number[],
  blocks: readonly GivenBlock[],
  pageBytes = 10_000,
): Uint8Array[] {
  const keyOf = ({ bytes }: GivenBlock): KeyPlace => firstKeyOf(bytes.subarray(0, -trailerBytes));
  const writer = new PageWriter(levels);
  const full = blocks
    .toSorted((a, b) => compareKeys(keyOf(a), keyOf(b)))
    .flatMap((block) => writer.add(block));
  return cut(Buffer.concat([...full, writer.take()]), pageBytes);
}

/** `bytes` in pages. */
export function cut(bytes: Uint8Array, pageBytes: number): Uint8Array[] {
  const pages: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += pageBytes) pages.push(bytes.slice(at, at + pageBytes));
  return pages;
}

/** All rows, as they are stored. */
export async function sealedRows(kv: LevelKv): Promise<SealedRow[]> {
  const rows = await Array.fromAsync(kv.range({ from: '', to: '\u{10ffff}' }));
  return rows.map(([text, value]) => [utf8(text), sealValue(utf8(text), value)]);
}

/** Each page, to give away. */
export async function* each(pages: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for (const page of pages) yield new Uint8Array(page);
}
