import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat, sameBytes, toHex, uint64, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import { sha512 } from '../core/hash.ts';
import { begin, conclude, type DkgDealt, dkgContext, receive } from './dkg.ts';
import type { DkgSession } from './dkg-message.ts';
import { type DkgSuite, ed25519Suite, ristrettoSuite, schnorrSign } from './dkg-suite.ts';
import { recover, recoveryBundle } from './dkg-transcript.ts';
import { nobleEd25519, nobleRistretto } from '../../test/support/group-noble.ts';
import { loadEd25519 } from './ed25519-sodium.ts';
import { loadRistretto } from './group-sodium.ts';
import { lagrange } from './polynomial.ts';
import {
  blamed,
  ed25519Runs,
  flipped,
  fromHex,
  random,
  readVectors,
  the,
  valueOf,
} from '../../test/support/threshold.ts';

interface Vector {
  readonly n: number;
  readonly t: number;
  readonly session_tag: string;
  readonly context: string;
  readonly extension: string;
  readonly payloads?: readonly string[];
  readonly config: {
    readonly static_secret_keys: readonly string[];
    readonly static_public_keys: readonly string[];
  };
  readonly round1: readonly {
    readonly ephemeral_public_key: string;
    readonly vss_commitment: readonly string[];
    readonly pop: string;
    readonly encrypted_shares: readonly string[];
  }[];
  readonly round2: readonly { readonly secret_share: string; readonly verification_share: string }[];
  readonly round3: {
    readonly transcript_hash: string;
    readonly signatures: readonly { signature: string }[];
  };
  readonly group_public_key: string;
  readonly recovery?: {
    readonly ciphertexts: readonly string[];
    readonly recovered_secret_share: string;
    readonly recovered_verification_share: string;
  };
}

const ristretto = ristrettoSuite(await loadRistretto());
const ed25519 = ed25519Suite(await loadEd25519());
const published = readVectors('cocktail-dkg/ristretto255-sha512.json');
const suites: readonly (readonly [string, DkgSuite, unknown])[] = [
  ['libsodium', ristretto, published.value],
  ['libsodium', ed25519, ed25519Runs()],
  ['noble', ristrettoSuite(nobleRistretto()), published.value],
  ['noble', ed25519Suite(nobleEd25519()), ed25519Runs()],
];

test('the published runs are there', { skip: published.skip }, () => {
  assert.ok(suites.every(([, , file]) => vectorsOf(file).length > 0));
});

for (const [backend, suite, file] of suites) {
  // The slow backend leaves the large groups to the other.
  for (const vector of vectorsOf(file).filter(({ n }) => backend === 'libsodium' || n < 5)) {
    const name = `${suite.id} by ${backend}: ${vector.t} of ${vector.n}${vector.payloads ? ' with payloads' : ''}`;
    test(`${name}: the published run, byte by byte`, () => replay(suite, vector));
  }
}

function vectorsOf(file: unknown): readonly Vector[] {
  return (file as { readonly vectors: readonly Vector[] } | undefined)?.vectors ?? [];
}

function replay(suite: DkgSuite, vector: Vector): void {
  const session = sessionOf(vector);
  const secrets = vector.config.static_secret_keys.map(fromHex);
  assert.equal(toHex(dkgContext(suite, fromHex(vector.session_tag), session.statics)), vector.context);
  const messages = vector.round1.map((sent) =>
    concat(
      ...sent.vss_commitment.map(fromHex),
      fromHex(sent.pop),
      fromHex(sent.ephemeral_public_key),
      ...sent.encrypted_shares.map((hex) => concat(uint64(hex.length / 2), fromHex(hex))),
    ),
  );
  const received = secrets.map((secret, at) => {
    const dealt: DkgDealt = {
      step: 'dealt',
      index: at + 1,
      sent: sha512(the(messages[at])),
    };
    return valueOf(receive(suite, session, dealt, secret, messages));
  });
  const signatures = received.map(({ state }) => state.signature);
  for (const [at, { share, state, payloads }] of received.entries()) {
    assert.equal(toHex(share), vector.round2[at]?.secret_share);
    assert.deepEqual(
      state.keys.Yi.map(toHex),
      vector.round2.map((row) => row.verification_share),
    );
    assert.equal(toHex(state.keys.Y), vector.group_public_key);
    assert.equal(toHex(sha512(state.transcript)), vector.round3.transcript_hash);
    assert.equal(toHex(state.signature), vector.round3.signatures[at]?.signature);
    assert.deepEqual(payloads.map(toHex), vector.payloads ?? payloads.map(() => ''));
    assert.equal(
      toHex(valueOf(conclude(suite, session, state, signatures)).transcriptHash),
      vector.round3.transcript_hash,
    );
  }
  const transcript = the(received[0]).state.transcript;
  for (const [at, secret] of secrets.entries()) {
    const bundle = recoveryBundle(session, messages, at + 1);
    const recovered = recover(suite, secret, transcript, signatures, bundle);
    assert.equal(recovered.index, at + 1);
    assert.equal(toHex(recovered.share), vector.round2[at]?.secret_share);
    assert.equal(toHex(recovered.keys.Y), vector.group_public_key);
  }
  if (vector.recovery !== undefined) {
    const bundle = concat(
      ...vector.recovery.ciphertexts.map((hex) => concat(uint64(hex.length / 2), fromHex(hex))),
    );
    assert.ok(sameBytes(bundle, recoveryBundle(session, messages, 1)));
    const recovered = recover(suite, the(secrets[0]), transcript, signatures, bundle);
    assert.equal(toHex(recovered.share), vector.recovery.recovered_secret_share);
    assert.equal(toHex(the(recovered.keys.Yi[0])), vector.recovery.recovered_verification_share);
  }
}

function sessionOf(vector: Vector): DkgSession {
  return {
    t: vector.t,
    n: vector.n,
    statics: vector.config.static_public_keys.map(fromHex),
    context: fromHex(vector.context),
    ext: fromHex(vector.extension),
  };
}

interface Ceremony {
  readonly session: DkgSession;
  readonly secrets: readonly Uint8Array[];
  readonly dealt: readonly { readonly message: Uint8Array; readonly state: DkgDealt }[];
}

function ceremony(suite: DkgSuite, t: number, n: number, tag = 'a session'): Ceremony {
  const secrets = Array.from({ length: n }, () => suite.group.scalar.random(random));
  const statics = secrets.map((secret) => suite.group.base(secret));
  const context = dkgContext(suite, utf8(tag), statics);
  const session: DkgSession = { t, n, statics, context, ext: utf8('policy') };
  const dealt = secrets.map((secret, at) => begin(suite, session, at + 1, secret, random));
  return { session, secrets, dealt };
}

/** What member `index` makes of messages, some of which replaced. */
function receiveAs(
  suite: DkgSuite,
  { session, secrets, dealt }: Ceremony,
  index: number,
  changed: Readonly<Record<number, Uint8Array>> = {},
) {
  const messages = dealt.map(({ message }, at) => changed[at + 1] ?? message);
  return receive(suite, session, the(dealt[index - 1]).state, the(secrets[index - 1]), messages);
}

test('any t shares make the key, and fewer do not', () => {
  for (const suite of [ristretto, ed25519]) {
    const { group } = suite;
    const run = ceremony(suite, 3, 4);
    const results = [1, 2, 3, 4].map((index) => valueOf(receiveAs(suite, run, index)));
    const Y = the(results[0]).state.keys.Y;
    const open = (quorum: readonly number[]) =>
      group.sum(
        quorum.map((i) => group.mul(lagrange(group, quorum, i), group.base(the(results[i - 1]).share))),
      );
    for (const quorum of [
      [1, 2, 3],
      [1, 2, 4],
      [2, 3, 4],
      [1, 2, 3, 4],
    ])
      assert.deepEqual(open(quorum), Y);
    for (const few of [[1, 2], [2, 4], [3]]) assert.notDeepEqual(open(few), Y);
  }
});

test('a rogue key has no proof of possession', () => {
  const run = ceremony(ristretto, 2, 3);
  const { group } = ristretto;
  const honest = the(run.dealt[2]).message;
  // C₀ chosen to cancel the other members' keys: its logarithm is known to nobody.
  const others = group.sum([1, 2].map((i) => the(run.dealt[i - 1]).message.subarray(0, 32)));
  const mine = group.base(group.scalar.fromInt(7));
  const rogue = concat(group.sub(mine, others), honest.subarray(32));
  assert.deepEqual(blamed(receiveAs(ristretto, run, 1, { 3: rogue })), [[3, 'possession']]);
});

test('a commitment more or fewer raises or lowers no threshold', () => {
  const run = ceremony(ristretto, 2, 3);
  const elevated = ceremony(ristretto, 3, 3);
  const raised = the(elevated.dealt[1]).message;
  assert.deepEqual(blamed(receiveAs(ristretto, run, 1, { 2: raised })), [[2, 'malformed']]);
  const honest = the(run.dealt[1]).message;
  assert.deepEqual(blamed(receiveAs(ristretto, run, 1, { 2: honest.subarray(32) })), [[2, 'malformed']]);
  const identity = concat(honest.subarray(0, 32), ristretto.group.identity, honest.subarray(64));
  assert.deepEqual(blamed(receiveAs(ristretto, run, 1, { 2: identity })), [[2, 'commitments']]);
});

test('a message of another session, or of another member, does not pass', () => {
  const run = ceremony(ristretto, 2, 3);
  const before: Ceremony = {
    ...run,
    session: { ...run.session, context: dkgContext(ristretto, utf8('yesterday'), run.session.statics) },
  };
  const replayed = begin(ristretto, before.session, 2, the(run.secrets[1]), random).message;
  assert.deepEqual(blamed(receiveAs(ristretto, run, 1, { 2: replayed })), [[2, 'possession']]);
  const copied = the(run.dealt[2]).message;
  // The proof of possession is bound to no index, the sealing is: a copied message opens for nobody.
  assert.deepEqual(blamed(receiveAs(ristretto, run, 1, { 2: copied })), [[2, 'sealed']]);
});

test('a share off the polynomial names the dealer and proves it', () => {
  const run = ceremony(ristretto, 2, 3);
  const { group } = ristretto;
  // Deals by the polynomial of another random source but shows the first commitments with a fresh proof.
  const constant = group.scalar.fromInt(5);
  const C = [group.base(constant), group.base(group.scalar.fromInt(9))];
  const honest = the(run.dealt[1]).message;
  const E = honest.subarray(128, 160);
  const pop = schnorrSign(ristretto, constant, concat(run.session.context, ...C, E));
  const outcome = receiveAs(ristretto, run, 1, { 2: concat(...C, pop, E, honest.subarray(160)) });
  assert.deepEqual(blamed(outcome), [[2, 'share']]);
  assert.equal(outcome.ok ? 0 : outcome.faults[0]?.evidence?.length, 32);
});

test('a split view lets nobody conclude, and an altered own message is noticed at once', () => {
  const run = ceremony(ristretto, 2, 3);
  const second = begin(ristretto, run.session, 3, the(run.secrets[2]), random);
  const one = valueOf(receiveAs(ristretto, run, 1));
  const two = valueOf(receiveAs(ristretto, run, 2, { 3: second.message }));
  const three = valueOf(receiveAs(ristretto, run, 3));
  const signatures = [one, two, three].map(({ state }) => state.signature);
  for (const { state } of [one, two, three]) {
    const outcome = conclude(ristretto, run.session, state, signatures);
    assert.ok(blamed(outcome).every(([culprit, reason]) => culprit === 0 && reason === 'certificate'));
  }
  assert.deepEqual(blamed(receiveAs(ristretto, run, 3, { 3: second.message })), [[0, 'altered']]);
  assert.deepEqual(blamed(conclude(ristretto, run.session, one.state, [one.state.signature])), [
    [2, 'missing'],
    [3, 'missing'],
    [0, 'malformed'],
  ]);
});

test('a flipped byte anywhere in a message is refused', () => {
  const run = ceremony(ristretto, 2, 3);
  const honest = the(run.dealt[1]).message;
  const mine = 160 + 56;
  for (let at = 0; at < honest.length; at++) {
    const changed = Uint8Array.from(honest);
    changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
    const outcome = receiveAs(ristretto, run, 1, { 2: changed });
    // The ciphertexts for others are theirs to check, and the transcript leaves them out.
    if (outcome.ok) assert.ok(at >= mine && (at - 160) % 56 >= 8, `byte ${at}`);
  }
});

test('a flipped byte anywhere in the backup recovers nothing', () => {
  const run = ceremony(ristretto, 2, 2);
  const results = [1, 2].map((index) => valueOf(receiveAs(ristretto, run, index)));
  const signatures = results.map(({ state }) => state.signature);
  const messages = run.dealt.map(({ message }) => message);
  const bundle = recoveryBundle(run.session, messages, 1);
  const transcript = the(results[0]).state.transcript;
  const secret = the(run.secrets[0]);
  const attempt = (T: Uint8Array, certificate: readonly Uint8Array[], sealed: Uint8Array) => () =>
    recover(ristretto, secret, T, certificate, sealed);
  assert.ok(attempt(transcript, signatures, bundle)().share.length === 32);
  const refused = (error: unknown) => isHoldfastError(error, 'RECORD_INVALID');
  for (let at = 0; at < transcript.length; at++) {
    assert.throws(attempt(flipped(transcript, at), signatures, bundle), refused, `transcript ${at}`);
  }
  for (let at = 0; at < bundle.length; at++) {
    assert.throws(attempt(transcript, signatures, flipped(bundle, at)), refused, `bundle ${at}`);
  }
  for (let at = 0; at < 64; at++) {
    const [one = bundle, two = bundle] = signatures;
    assert.throws(attempt(transcript, [flipped(one, at), two], bundle), refused, `signature ${at}`);
  }
  assert.throws(attempt(transcript, signatures, concat(bundle, Uint8Array.of(0))), refused);
});

test('our own mistakes throw', () => {
  const { session, secrets } = ceremony(ristretto, 2, 3);
  const secret = the(secrets[0]);
  const wrong: readonly (() => unknown)[] = [
    () => begin(ristretto, { ...session, t: 1 }, 1, secret, random),
    () => begin(ristretto, { ...session, t: 4 }, 1, secret, random),
    () => begin(ristretto, { ...session, n: 33 }, 1, secret, random),
    () => begin(ristretto, session, 0, secret, random),
    () => begin(ristretto, session, 1, secret, random, new Uint8Array(65_536)),
    () => begin(ristretto, { ...session, context: new Uint8Array(1025) }, 1, secret, random),
    () => begin(ristretto, { ...session, ext: new Uint8Array(65_537) }, 1, secret, random),
    () => begin(ristretto, session, 2, secret, random),
    () =>
      begin(
        ristretto,
        { ...session, statics: session.statics.map(() => session.statics[0] ?? secret) },
        1,
        secret,
        random,
      ),
    () =>
      begin(
        ristretto,
        { ...session, statics: session.statics.map(() => ristretto.group.identity) },
        1,
        secret,
        random,
      ),
  ];
  for (const [at, call] of wrong.entries()) {
    assert.throws(call, (error) => isHoldfastError(error, 'ARGUMENT_INVALID'), `case ${at}`);
  }
});
