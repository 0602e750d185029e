import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { fromUtf8, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { signerFromSeed } from '../core/hash.ts';
import { membersMax } from '../core/limits.ts';
import {
  hasRole,
  type Member,
  type Membership,
  nextMembership,
  openMembership,
  signMembership,
} from './membership.ts';

const operator = signerFromSeed(new Uint8Array(32).fill(7));
const stranger = signerFromSeed(new Uint8Array(32).fill(8));

function member(index: number): Member {
  const alphabet = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
  const tail = `${alphabet[Math.floor(index / 58)]}${alphabet[index % 58]}`;
  return {
    name: `node-${index}`,
    peer: `12D3KooW${'1'.repeat(42)}${tail}`,
    roles: ['node'],
    zone: 'a',
    host: 'host-1',
    addrs: ['/ip4/127.0.0.1/tcp/4001', '/dns4/node.example/tcp/4001'],
  };
}

function membership(count: number, version = 1, cluster = 'test'): Membership {
  return { v: 1, cluster, version, members: Array.from({ length: count }, (_, index) => member(index)) };
}

test('a signed document is read back, and says who has which role', () => {
  const before = membership(3);
  const after = openMembership(signMembership(before, operator), operator.publicKey);
  assert.deepEqual(after, before);
  assert.equal(hasRole(after, member(1).peer, 'node'), true);
  assert.equal(hasRole(after, member(1).peer, 'steward'), false);
  assert.equal(hasRole(after, member(9).peer, 'node'), false);
});

test('a document of another operator is refused, and says so', () => {
  const bytes = signMembership(membership(3), stranger);
  assert.throws(() => openMembership(bytes, operator.publicKey), /this cluster's operator is/);
});

test('a changed document is refused, whatever was changed', () => {
  const text = fromUtf8(signMembership(membership(2), operator));
  const changes: [string, string][] = [
    ['"version": 1', '"version": 2'],
    ['node-1', 'node-7'],
    ['"zone": "a"', '"zone": "b"'],
    ['"roles": [\n          "node"', '"roles": [\n          "steward"'],
    ['4001', '4002'],
  ];
  for (const [from, to] of changes) {
    assert.ok(text.includes(from), from);
    assert.throws(
      () => openMembership(utf8(text.replace(from, to)), operator.publicKey),
      /the signature does not verify/,
    );
  }
});

test('unknown fields, double members and too many members are refused by name', () => {
  const [first] = membership(1).members;
  assert.ok(first !== undefined);
  const twice = { ...membership(1), members: [first, { ...first, name: 'other' }] };
  assert.throws(() => signMembership(twice, operator), /the peer 12D3KooW.* occurs twice/);
  assert.throws(() => signMembership(membership(membersMax + 1), operator), /at most 256 are allowed/);
  const extra = { ...membership(1), note: 'x' };
  assert.throws(() => signMembership(extra, operator), /membership\.note is not a field/);
});

test('the version only rises', () => {
  const two = membership(2, 2);
  assert.equal(nextMembership(two, membership(1, 3)).version, 3);
  assert.equal(nextMembership(two, membership(2, 2)), two);
  assert.throws(() => nextMembership(two, membership(2, 1)), /older than version 2/);
  assert.throws(() => nextMembership(two, membership(3, 2)), /two different documents/);
  assert.throws(() => nextMembership(two, membership(2, 3, 'other')), /belongs to cluster other/);
});

test('whatever the order, the newest document wins', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 12 }), (versions) => {
      let current = membership(1, versions[0]);
      for (const version of versions) {
        try {
          current = nextMembership(current, membership(1, version));
        } catch (error) {
          assert.ok(isHoldfastError(error, 'RECORD_INVALID') && version < current.version);
        }
      }
      assert.equal(current.version, Math.max(...versions));
    }),
  );
});

test('damaged bytes are RECORD_INVALID, never anything else', () => {
  const good = signMembership(membership(2), operator);
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const bytes = new Uint8Array(good);
      bytes[at] = (bytes[at] ?? 0) ^ mask;
      try {
        // White space may change; the meaning may not.
        assert.deepEqual(openMembership(bytes, operator.publicKey), membership(2));
      } catch (error) {
        assert.ok(isHoldfastError(error, 'RECORD_INVALID'), String(error));
      }
    }),
    { numRuns: 300 },
  );
});
