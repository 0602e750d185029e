// A strict reader of the Prometheus text format (exposition 0.0.4): what a scraper may stumble over is an error here.

import assert from 'node:assert/strict';

interface Sample {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

interface Family {
  readonly name: string;
  readonly type: string;
  readonly samples: Sample[];
}

/** Reads an exposition. Throws for a series without HELP and TYPE, given twice, or a histogram that does not add up. */
export function readExposition(text: string): Map<string, Family> {
  assert.ok(text.endsWith('\n'), 'must end with a line feed');
  const families = new Map<string, Family>();
  const helped = new Set<string>();
  const seen = new Set<string>();
  let current: Family | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const comment = /^# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (.+)$/.exec(line);
    if (comment !== null) {
      const [, kind, name = '', rest = ''] = comment;
      if (kind === 'HELP') {
        assert.ok(!helped.has(name), `HELP of ${name} twice`);
        helped.add(name);
        continue;
      }
      assert.ok(helped.has(name), `TYPE of ${name} before its HELP`);
      assert.ok(!families.has(name), `TYPE of ${name} twice`);
      assert.match(rest, /^(counter|gauge|histogram|summary|untyped)$/, `type of ${name}`);
      current = { name, type: rest, samples: [] };
      families.set(name, current);
      continue;
    }
    assert.ok(!line.startsWith('#'), `a comment that is neither HELP nor TYPE: ${line}`);
    const sample = readSample(line);
    assert.ok(
      current !== undefined && belongs(sample.name, current),
      `${sample.name} stands under ${current?.name}`,
    );
    const series = `${sample.name} ${labelText(sample.labels)}`;
    assert.ok(!seen.has(series), `series twice: ${series}`);
    seen.add(series);
    current.samples.push(sample);
  }
  for (const family of families.values()) if (family.type === 'histogram') checkHistogram(family);
  return families;
}

function readSample(line: string): Sample {
  const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: (-?\d+))?$/.exec(line);
  assert.ok(found !== null, `not a sample: ${line}`);
  const [, name = '', labelText = '', valueText = ''] = found;
  const labels = new Map<string, string>();
  let rest = labelText;
  while (rest !== '') {
    const label = /^([a-zA-Z_]\w*)="((?:[^"\\]|\\[\\"n])*)"(?:,|$)/.exec(rest);
    assert.ok(label !== null, `bad label: ${rest}`);
    const [whole, key = '', value = ''] = label;
    assert.ok(!labels.has(key), `label twice: ${key}`);
    labels.set(key, value);
    rest = rest.slice(whole.length);
  }
  assert.match(
    valueText,
    /^(?:[+-]?Inf|NaN|Nan|[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)$/,
    `value of ${line}`,
  );
  return { name, labels, value: numberOf(valueText) };
}

function numberOf(text: string): number {
  if (text.endsWith('Inf')) return text.startsWith('-') ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  return Number(text);
}

function belongs(name: string, { name: family, type }: Family): boolean {
  if (type === 'histogram') return [`${family}_bucket`, `${family}_sum`, `${family}_count`].includes(name);
  if (type === 'summary') return [family, `${family}_sum`, `${family}_count`].includes(name);
  return name === family;
}

/** Labels in one order, but the one named. */
function labelText(labels: ReadonlyMap<string, string>, without = ''): string {
  const pairs = [...labels].filter(([key]) => key !== without).map(([key, value]) => `${key}=${value}`);
  return pairs.toSorted((a, b) => (a < b ? -1 : 1)).join(' ');
}

/** Buckets rise to +Inf, which equals the count; each label set has sum and count. */
function checkHistogram(family: Family): void {
  const groups = Map.groupBy(family.samples, ({ labels }) => labelText(labels, 'le'));
  for (const [labels, samples] of groups) {
    const where = `${family.name}{${labels}}`;
    const buckets = samples.filter(({ name }) => name.endsWith('_bucket'));
    const bounds = buckets.map(({ labels }) =>
      numberOf((labels.get('le') ?? '').replace(/^\+?Inf$/, '+Inf')),
    );
    for (const [index, { value }] of buckets.entries()) {
      if (index === 0) continue;
      assert.ok((bounds[index] ?? 0) > (bounds[index - 1] ?? 0), `${where}: bounds do not rise`);
      assert.ok(value >= (buckets[index - 1]?.value ?? 0), `${where}: buckets fall`);
    }
    assert.equal(bounds.at(-1), Number.POSITIVE_INFINITY, `${where}: no +Inf bucket`);
    const count = samples.find(({ name }) => name.endsWith('_count'));
    assert.equal(count?.value, buckets.at(-1)?.value, `${where}: count differs from the +Inf bucket`);
    assert.ok(
      samples.some(({ name }) => name.endsWith('_sum')),
      `${where}: no sum`,
    );
  }
}
