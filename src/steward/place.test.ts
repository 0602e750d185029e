import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { sha256 } from '../core/hash.ts';
import { utf8 } from '../core/bytes.ts';
import { chooseTargets, type PlacementMember, rankMembers, zonesOf } from './place.ts';

const member = (peer: string, zone: string, host = peer, freeBytes = 1e9): PlacementMember => ({
  peer,
  zone,
  host,
  freeBytes,
});

const cluster: fc.Arbitrary<PlacementMember[]> = fc
  .array(
    fc.record({
      zone: fc.constantFrom('a', 'b', 'c', 'd'),
      host: fc.constantFrom('h1', 'h2', 'h3'),
      freeBytes: fc.integer({ min: 1, max: 1e12 }),
    }),
    { maxLength: 8 },
  )
  .map((list) => list.map((fields, at) => ({ ...fields, peer: `p${at}` })));

test('the local cluster of five: three copies in three zones, five on five', () => {
  const members = [member('1', 'a'), member('2', 'a'), member('3', 'b'), member('4', 'b'), member('5', 'c')];
  const ranked = rankMembers(sha256(utf8('x')), members);
  assert.equal(ranked.length, 5);
  assert.equal(zonesOf(ranked.slice(0, 3)), 3);
  assert.equal(new Set(ranked.map(({ peer }) => peer)).size, 5);
});

test('a full member is never chosen', () => {
  assert.deepEqual(rankMembers(sha256(utf8('x')), [member('1', 'a', '1', 0)]), []);
});

test('every prefix covers as many zones, and given that as many hosts, as any choice of its length (brute force)', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), cluster, (key, members) => {
      const ranked = rankMembers(key, members);
      for (let length = 1; length <= members.length; length++) {
        assert.deepEqual(spread(ranked.slice(0, length)), bestSpread(members, [], length));
      }
    }),
    { numRuns: 300 },
  );
});

test('repair: survivors count, so the copies together are spread as well as any repair could', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      cluster,
      fc.nat(7),
      fc.nat(4),
      (key, members, kept, count) => {
        const holders = members.slice(0, Math.min(kept, members.length));
        const added = chooseTargets(key, members, holders, count);
        assert.equal(added.length, Math.min(count, members.length - holders.length));
        assert.ok(added.every(({ peer }) => !holders.some((holder) => holder.peer === peer)));
        assert.deepEqual(spread([...holders, ...added]), bestSpread(members, holders, added.length));
      },
    ),
    { numRuns: 300 },
  );
});

test('shares follow free space, and a member that leaves moves only its own share', () => {
  const members = [member('1', 'a', 'h', 1e9), member('2', 'a', 'h', 3e9), member('3', 'a', 'h', 4e9)];
  const firsts = new Map<string, number>();
  for (let at = 0; at < 8000; at++) {
    const key = sha256(utf8(`${at}`));
    const first = rankMembers(key, members)[0]?.peer ?? '';
    firsts.set(first, (firsts.get(first) ?? 0) + 1);
    const without = rankMembers(key, members.slice(0, 2))[0]?.peer;
    if (first !== '3') assert.equal(without, first);
  }
  for (const [peer, share] of [
    ['1', 1000],
    ['2', 3000],
    ['3', 4000],
  ] as const) {
    assert.ok(Math.abs((firsts.get(peer) ?? 0) - share) < 200, `${peer}: ${firsts.get(peer)} of 8000`);
  }
});

function spread(members: readonly PlacementMember[]): [number, number] {
  return [zonesOf(members), new Set(members.map(({ zone, host }) => `${zone}/${host}`)).size];
}

/** Tries every subset: the best (zones, hosts) in that order. */
function bestSpread(
  members: readonly PlacementMember[],
  holders: readonly PlacementMember[],
  count: number,
): [number, number] {
  const free = members.filter((candidate) => !holders.includes(candidate));
  let best: [number, number] = [0, 0];
  for (let mask = 0; mask < 2 ** free.length; mask++) {
    const chosen = free.filter((_, at) => (mask & (1 << at)) !== 0);
    if (chosen.length !== count) continue;
    const found = spread([...holders, ...chosen]);
    if (found[0] > best[0] || (found[0] === best[0] && found[1] > best[1])) best = found;
  }
  return best;
}
