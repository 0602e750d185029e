import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hour, minute } from '../core/clock.ts';
import { sha256 } from '../core/hash.ts';
import {
  dueRecords,
  regionOf,
  regionsCount,
  regionsDue,
  regionStart,
  scheduleOptions,
} from './provider-schedule.ts';

const options = scheduleOptions(48 * hour, minute);
const own = sha256(Uint8Array.of(9));
const now = 1_800_000_000_000;

function record(seed: number, announcedAt: number) {
  return { key: sha256(Uint8Array.of(seed >> 8, seed & 0xff)), announcedAt };
}

test('new goes before overdue, and overdue goes by least remaining lease', () => {
  const fresh = record(1, now - minute);
  const old = record(2, now - 25 * hour);
  const older = record(3, now - 47 * hour);
  const never = record(4, 0);
  const due = dueRecords([fresh, old, older, never], undefined, own, now, options);
  assert.deepEqual(
    due.map(({ record, lane }) => [record, lane]),
    [
      [never, 'new'],
      [older, 'overdue'],
      [old, 'overdue'],
    ],
  );
});

test('a record announced in the future, by a clock that was set back, is announced again', () => {
  assert.equal(dueRecords([record(1, now + hour)], undefined, own, now, options)[0]?.lane, 'overdue');
});

test('over one period every record is scheduled exactly once, evenly, wherever the period begins', () => {
  const records = Array.from({ length: 4096 }, (_, i) => record(i, now - 7 * hour));
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 40 }), (start) => {
      const seen = new Map<unknown, number>();
      let busiest = 0;
      for (let beat = start; beat < start + options.beatsPerPeriod; beat++) {
        const regions = new Set(regionsDue({ after: beat - 1, upTo: beat }, own, options));
        const due = records.filter((each) => regions.has(regionOf(each.key)));
        busiest = Math.max(busiest, due.length);
        for (const each of due) seen.set(each, (seen.get(each) ?? 0) + 1);
      }
      assert.equal(seen.size, records.length);
      assert.ok([...seen.values()].every((times) => times === 1));
      assert.ok(busiest <= 24, `${busiest} records at one beat, about 6 expected`);
    }),
    { numRuns: 5 },
  );
});

test('a span of missed beats covers what the beats would have covered one by one', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 5000 }),
      fc.integer({ min: 0, max: 3000 }),
      fc.integer({ min: 1, max: 3000 }),
      (after, passed, beatsPerPeriod) => {
        const whole = regionsDue({ after, upTo: after + passed }, own, { beatsPerPeriod });
        const single = new Set<number>();
        for (let beat = after + 1; beat <= after + passed; beat++) {
          for (const each of regionsDue({ after: beat - 1, upTo: beat }, own, { beatsPerPeriod }))
            single.add(each);
        }
        assert.equal(new Set(whole).size, whole.length);
        assert.deepEqual(new Set(whole), single);
      },
    ),
    { numRuns: 50 },
  );
});

test('no record ever outlives its lease, though no beat comes at all', () => {
  let announcedAt = now;
  for (let at = now; at < now + 200 * hour; at += hour) {
    assert.ok(at - announcedAt < options.validityMs);
    const due = dueRecords([record(1, announcedAt)], undefined, own, at, options);
    if (due.length > 0) announcedAt = at;
  }
});

test('a Pulse that starts again from 0 makes nothing due by itself', () => {
  assert.deepEqual(regionsDue({ after: 5000, upTo: 0 }, own, options), []);
});

test('two nodes begin at different regions', () => {
  const other = sha256(Uint8Array.of(10));
  const span = { after: 0, upTo: 1 };
  assert.notDeepEqual(regionsDue(span, own, options), regionsDue(span, other, options));
});

test('a region begins with the prefix it says', () => {
  for (let region = 0; region < regionsCount; region++) assert.equal(regionOf(regionStart(region)), region);
});
