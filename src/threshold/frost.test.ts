import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createFROST } from '@noble/curves/abstract/frost.js';
import { ed25519 } from '@noble/curves/ed25519.js';
import {
  dealerOf,
  generate,
  newMembers,
  refreshed,
  reshared,
  type World,
} from '../../test/support/custody-world.ts';
import { blamed, flipped, fromHex, random, readVectors, the, valueOf } from '../../test/support/threshold.ts';
import { toHex, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { sha512, verifySignature } from '../core/hash.ts';
import { ed25519Suite } from './dkg-suite.ts';
import { aggregate, commit, type FrostMessage, signShare } from './frost.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import { keySetOf } from './key-set.ts';

const group = await loadEd25519();
const message = utf8('activate version 2');

interface Published {
  readonly inputs: {
    readonly verifying_key_key: string;
    readonly group_secret_key: string;
    readonly message: string;
    readonly share_polynomial_coefficients: readonly string[];
    readonly participant_shares: readonly {
      readonly identifier: number;
      readonly participant_share: string;
    }[];
  };
  readonly round_one_outputs: {
    readonly outputs: readonly {
      readonly identifier: number;
      readonly hiding_nonce_randomness: string;
      readonly binding_nonce_randomness: string;
      readonly hiding_nonce_commitment: string;
      readonly binding_nonce_commitment: string;
    }[];
  };
  readonly round_two_outputs: {
    readonly outputs: readonly { readonly identifier: number; readonly sig_share: string }[];
  };
  readonly final_output: { readonly sig: string };
}

const published = readVectors('frost/ed25519-vectors.json');

test('the vector of RFC 9591, from nonces to signature', { skip: published.skip }, () => {
  const { inputs, round_one_outputs, round_two_outputs, final_output } = published.value as Published;
  const secrets = [inputs.group_secret_key, ...inputs.share_polynomial_coefficients].map(fromHex);
  const keys = keySetOf(
    group,
    secrets.map((secret) => group.base(secret)),
    3,
  );
  assert.equal(toHex(keys.Y), inputs.verifying_key_key);
  const shareOf = (index: number) =>
    fromHex(the(inputs.participant_shares.find(({ identifier }) => identifier === index)).participant_share);
  const committed = round_one_outputs.outputs.map((row) => {
    const chance = [row.hiding_nonce_randomness, row.binding_nonce_randomness].map(fromHex);
    const made = commit(group, shareOf(row.identifier), () => the(chance.shift()));
    assert.equal(toHex(made.commitment), row.hiding_nonce_commitment + row.binding_nonce_commitment);
    return { index: row.identifier, ...made };
  });
  const list = committed.map(({ index, commitment }) => ({ index, bytes: commitment }));
  const text = fromHex(inputs.message);
  const shares = committed.map(({ index, nonces }) => ({
    index,
    bytes: valueOf(signShare(group, keys, index, shareOf(index), nonces, list, text)),
  }));
  assert.deepEqual(
    shares.map(({ index, bytes }) => ({ identifier: index, sig_share: toHex(bytes) })),
    round_two_outputs.outputs,
  );
  assert.equal(toHex(valueOf(aggregate(group, keys, list, text, shares))), final_output.sig);
});

test('an implementation that shares no code gives the same shares and the same signature', () => {
  const world = generate(ed25519Suite(group), 3, newMembers(5));
  const { keys } = world;
  const other = createFROST({
    name: 'FROST-ED25519-SHA512-v1',
    Point: ed25519.Point,
    hash: (bytes) => new Uint8Array(sha512(bytes)),
    H2: '',
  });
  const named = (index: number) => other.Identifier.fromNumber(index);
  const published = {
    signers: { min: keys.t, max: keys.n },
    commitments: [...keys.C],
    verifyingShares: Object.fromEntries(keys.Yi.map((point, at) => [named(at + 1), point])),
  };
  for (const signers of [
    [1, 2, 3],
    [5, 2, 4],
    [1, 2, 3, 4, 5],
  ]) {
    const chances = new Map(signers.map((index) => [index, [random(32), random(32)]] as const));
    const committed = signers.map((index) => {
      const chance = the(chances.get(index)).map((bytes) => bytes.slice());
      return { index, ...commit(group, dealerOf(world, index).share, () => the(chance.shift())) };
    });
    const list = committed.map(({ index, commitment }) => ({ index, bytes: commitment }));
    const theirs = list
      .toSorted((a, b) => a.index - b.index)
      .map(({ index, bytes }) => ({
        identifier: named(index),
        hiding: bytes.subarray(0, 32),
        binding: bytes.subarray(32),
      }));
    const shares = committed.map(({ index, nonces }) => {
      const signingShare = dealerOf(world, index).share;
      const chance = the(chances.get(index)).map((bytes) => bytes.slice());
      const drawn = other.commit({ identifier: named(index), signingShare }, () => the(chance.shift()));
      assert.deepEqual([drawn.nonces.hiding, drawn.nonces.binding], [nonces.hiding, nonces.binding]);
      const expected = other.signShare(
        { identifier: named(index), signingShare },
        published,
        drawn.nonces,
        theirs,
        message,
      );
      const bytes = valueOf(signShare(group, keys, index, signingShare, nonces, list, message));
      assert.deepEqual(bytes, new Uint8Array(expected));
      return { index, bytes };
    });
    const signature = valueOf(aggregate(group, keys, list, message, shares));
    const byName = Object.fromEntries(shares.map(({ index, bytes }) => [named(index), bytes]));
    assert.deepEqual(signature, new Uint8Array(other.aggregate(published, theirs, message, byName)));
  }
});

/** All signers' messages of both steps. */
function signed(world: World, signers: readonly number[]) {
  const committed = signers.map((index) => ({
    index,
    ...commit(group, dealerOf(world, index).share, random),
  }));
  const list: FrostMessage[] = committed.map(({ index, commitment }) => ({ index, bytes: commitment }));
  const shares: FrostMessage[] = committed.map(({ index, nonces }) => ({
    index,
    bytes: valueOf(signShare(group, world.keys, index, dealerOf(world, index).share, nonces, list, message)),
  }));
  return { committed, list, shares };
}

test('shares of the key generation sign, and still do after refresh and reshare; plain Ed25519 verifies', () => {
  const first = generate(ed25519Suite(group), 2, newMembers(3));
  const later = refreshed(first, [1, 2, 3]);
  const others = reshared(later, [1, 3], 3, newMembers(4));
  for (const [world, signers] of [
    [first, [1, 3]],
    [later, [1, 2, 3]],
    [others, [4, 1, 2]],
  ] as const) {
    const { list, shares } = signed(world, signers);
    const signature = valueOf(aggregate(group, world.keys, list, message, shares));
    assert.ok(verifySignature(first.keys.Y, message, signature));
    assert.ok(!verifySignature(first.keys.Y, utf8('another'), signature));
  }
});

test('who sends a wrong share or commitment is named, and nothing else happens', () => {
  const world = generate(ed25519Suite(group), 2, newMembers(3));
  const { committed, list, shares } = signed(world, [1, 2]);
  const wrong = [the(shares[0]), { index: 2, bytes: group.scalar.fromInt(1) }];
  assert.deepEqual(blamed(aggregate(group, world.keys, list, message, wrong)), [[2, 'share']]);
  assert.deepEqual(blamed(aggregate(group, world.keys, list, utf8('x'), shares)), [
    [1, 'share'],
    [2, 'share'],
  ]);
  assert.deepEqual(blamed(aggregate(group, world.keys, list, message, shares.slice(1))), [[1, 'missing']]);
  assert.deepEqual(blamed(aggregate(group, world.keys, list, message, [...wrong, ...wrong.slice(0, 1)])), [
    [1, 'equivocation'],
    [2, 'share'],
  ]);
  for (let at = 0; at < 32; at += 5) {
    const bytes = flipped(the(shares[1]).bytes, at);
    assert.deepEqual(
      blamed(aggregate(group, world.keys, list, message, [the(shares[0]), { index: 2, bytes }])),
      [[2, 'share']],
    );
  }
  const fresh = commit(group, dealerOf(world, 1).share, random);
  const mine = { index: 1, bytes: fresh.commitment };
  const attempt = (others: readonly FrostMessage[], nonces = fresh.nonces) =>
    signShare(group, world.keys, 1, dealerOf(world, 1).share, nonces, others, message);
  assert.deepEqual(blamed(attempt([mine, { index: 2, bytes: new Uint8Array(64) }])), [[2, 'commitments']]);
  assert.deepEqual(blamed(attempt([mine, { index: 2, bytes: new Uint8Array(9) }])), [[2, 'commitments']]);
  assert.deepEqual(blamed(attempt([mine])), [[0, 'malformed']]);
  assert.deepEqual(blamed(attempt([mine, mine])), [[0, 'malformed']]);
  assert.deepEqual(blamed(attempt([mine, { index: 4, bytes: mine.bytes }])), [[0, 'malformed']]);
  assert.deepEqual(blamed(attempt([...list])), [[0, 'altered']]);
  const refused = (error: unknown) => isHoldfastError(error, 'ARGUMENT_INVALID');
  assert.throws(() => attempt(list, the(committed[0]).nonces), refused, 'nonces twice');
  const share = dealerOf(world, 2).share;
  assert.throws(
    () => signShare(group, world.keys, 1, share, fresh.nonces, list, message),
    refused,
    'foreign share',
  );
});
