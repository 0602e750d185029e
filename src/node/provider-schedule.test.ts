import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { hour, minute } from '../core/clock.ts';
import { sha256 } from '../core/hash.ts';
import {
  type Lane,
  laneOf,
  type OwnAge,
  placesDue,
  regionOf,
  regionsCount,
  regionsDue,
  regionStart,
  scheduleOptions,
  spanOf,
} from './provider-schedule.ts';

const options = scheduleOptions(48 * hour, minute);
const own = sha256(Uint8Array.of(9));
const now = 1_800_000_000_000;

function record(seed: number, announcedAt: number) {
  return { key: sha256(Uint8Array.of(seed >> 8, seed & 0xff)), announcedAt };
}

/** What a node announces that looks where it is told and takes what it is told, with a list for a store. */
function dueRecords<T extends OwnAge>(records: readonly T[], region: number | undefined, at: number) {
  const byAge = records.toSorted((a, b) => a.announcedAt - b.announcedAt || Buffer.compare(a.key, b.key));
  return placesDue(region, at, options).flatMap((place) =>
    byAge
      .filter((each) =>
        place.lane === 'scheduled'
          ? regionOf(each.key) === place.region
          : each.announcedAt >= place.from && each.announcedAt < place.before,
      )
      .filter((each) => laneOf(each, region, at, options) === place.lane)
      .map((each) => ({ record: each, lane: place.lane })),
  );
}

test('new goes before overdue, and overdue goes by least remaining lease', () => {
  const fresh = record(1, now - minute);
  const old = record(2, now - 25 * hour);
  const older = record(3, now - 47 * hour);
  const never = record(4, 0);
  const due = dueRecords([fresh, old, older, never], undefined, now);
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
  assert.equal(dueRecords([record(1, now + hour)], undefined, now)[0]?.lane, 'overdue');
  assert.deepEqual(dueRecords([record(1, now + 1)], undefined, now), [], 'a little is no reason');
});

test('the places hold everything that is due, once, and by urgency: compared with judging every record', () => {
  const ages = fc.oneof(
    fc.constantFrom(0, 1, now, now + minute, now + minute + 1, now - 6 * hour, now - 24 * hour),
    fc.integer({ min: now - 50 * hour, max: now + 2 * hour }),
  );
  const rank: Record<Lane, number> = { new: 0, overdue: 1, scheduled: 2 };
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(2000), ages)), fc.nat(2000), fc.boolean(), (list, seed, hasBeat) => {
      const records = list.map(([each, announcedAt]) => record(each, announcedAt));
      const region = hasBeat ? regionOf(record(seed, 0).key) : undefined;
      const found = dueRecords(records, region, now);
      const due = records.filter((each) => laneOf(each, region, now, options) !== undefined);
      assert.equal(found.length, due.length);
      assert.deepEqual(new Set(found.map(({ record: each }) => each)), new Set(due));
      const ranks = found.map(({ lane }) => rank[lane]);
      assert.deepEqual(
        ranks,
        ranks.toSorted((a, b) => a - b),
      );
    }),
  );
});

test('a first beat, and one of a Pulse that began again, stands for itself; a gap is made good', () => {
  assert.deepEqual(spanOf(undefined, 7), { after: 6, upTo: 7 });
  assert.deepEqual(spanOf(5000, 3), { after: 2, upTo: 3 });
  assert.deepEqual(spanOf(7, 10), { after: 7, upTo: 10 });
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
    const due = dueRecords([record(1, announcedAt)], undefined, at);
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
