// The reference page of errors and the catalogue say the same.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { errorCatalogue } from '../src/core/errors.ts';

const page = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8');

/** Rows of the table, each as its cells without back-quotes. */
function rowsOf(text: string): string[][] {
  const rows = text.split('\n').filter((line) => line.startsWith('| `'));
  return rows.map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

test('docs/errors.md lists exactly the catalogue', () => {
  const wanted = Object.entries(errorCatalogue).map(([code, row]) => [
    code,
    row.text,
    String(row.status),
    row.ucxl,
    String(row.exit),
  ]);
  assert.deepEqual(rowsOf(page), wanted);
});

test('a missing row, a changed status or an extra row would be noticed', () => {
  const rows = rowsOf(page);
  const line = page.split('\n').find((each) => each.startsWith('| `GONE`')) ?? '';
  assert.equal(rowsOf(page.replace(`${line}\n`, '')).length, rows.length - 1);
  assert.notDeepEqual(rowsOf(page.replace(line, line.replace('404', '410'))), rows);
});

test('every UCXL code begins with the HTTP status it travels with, but where HTTP is finer', () => {
  const finer = new Set(['METHOD_NOT_ALLOWED', 'TOO_LARGE', 'RANGE_INVALID', 'DISK_FULL']);
  for (const [code, { status, ucxl }] of Object.entries(errorCatalogue))
    assert.equal(ucxl.startsWith(`UCXL-${status}-`), !finer.has(code), code);
});
