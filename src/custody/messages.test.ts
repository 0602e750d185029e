// Every record and message of custody, one byte changed at a time, in every byte: none may pass, none may throw
// anything but a HoldfastError.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import {
  authority,
  bytes32,
  certificateRecord,
  cg,
  group,
  kekRecord,
  nextKek,
  nextPolicy,
  requester,
  rootPolicy,
  signedKek,
  someCapability,
  someEpoch,
  someLabel,
  someRequest,
  someRevocation,
  someRotation,
  someSigner,
  someUnsignedKek,
  steward,
} from '../../test/support/custody-records.ts';
import { openRegistryRecord } from '../beacon/records.ts';
import { type CID, decodeCbor, encodeCbor } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldsOf } from '../envelope/fields.ts';
import { verifyKek } from '../envelope/kek.ts';
import type { SignedRecord } from '../manifest/record.ts';
import { generateKeyPair, openerOf } from '../threshold/hpke.ts';
import { type AnswerTerms, type CustodyAnswer, openAnswer, parseAnswer, sealAnswer } from './answer.ts';
import {
  electorateOf,
  headsOf,
  isCertificate,
  nothing,
  openValue,
  promiseBytes,
  readBallotCertificate,
  readPromises,
  requireContents,
  voteBytes,
} from './ballot.ts';
import { CustodyBook } from './book.ts';
import { parseCapability } from './capability.ts';
import { verifyCertificate } from './certificate.ts';
import { beatAt } from './freshness.ts';
import { checkOrder, type CustodyOrder, openOrder, type OrderTerms, signOrder } from './order.ts';
import { verifyPolicy } from './policy.ts';
import { decodeProposal, encodeProposal, messagesOf, valueOf } from './proposal.ts';
import { refusal } from './refusal.ts';
import { ReplaySet } from './replay.ts';
import { approveRequest, encodeRequest, openRequest, requestHash, signRequest } from './request.ts';
import { Revocations } from './revocation.ts';

const random = (bytes: number): Uint8Array => new Uint8Array(randomBytes(bytes));
const custodian = someSigner('custodian 2');
const keys = generateKeyPair(random);
const reqHash = requestHash(encodeRequest(someRequest()));
const answer: CustodyAnswer = {
  v: 1,
  reqHash,
  i: 2,
  shareGen: 1,
  results: [{ granted: true, D: bytes32('D') }, refusal('budget', 'used up')],
  proof: new Uint8Array(64).fill(9),
};
const answerTerms: AnswerTerms = { reqHash, i: 2, shareGen: 1, itemsCount: 2, sigPk: custodian.publicKey };
const order: CustodyOrder = {
  v: 1,
  cg,
  op: 'refresh',
  args: { ver: 1 },
  nonce: bytes32('nonce'),
  beat: 100,
  exp: 102,
  by: authority.publicKey,
};
const encoded = encodeRequest(someRequest({}, [someLabel(), someLabel({ cls: 'restricted' })]));
const request = signRequest(encoded, requester, [
  approveRequest(encoded, authority),
  approveRequest(encoded, steward),
]);
const sealed = sealAnswer(answer, keys.publicKey, custodian);

describe('a changed byte never passes', () => {
  const messages: readonly [string, Uint8Array, (bytes: Uint8Array) => unknown][] = [
    ['capability', someCapability(), parseCapability],
    ['request with approvals', request, openRequest],
    ['order', signOrder(order, authority), openOrder],
    ['sealed answer', sealed, (bytes) => openAnswer(bytes, openerOf(keys.secretKey), answerTerms)],
    ['policy', nextPolicy(rootPolicy).block.bytes, openRegistryRecord],
    ['revocation', someRevocation(1, [{ what: 'key', id: bytes32('k') }]).block.bytes, openRegistryRecord],
    [
      'rotation certificate',
      certificateRecord(someRotation(bytes32('root'), 3)).block.bytes,
      openRegistryRecord,
    ],
    ['epoch certificate', certificateRecord(someEpoch()).block.bytes, openRegistryRecord],
    ['KEK of a group', kekRecord(signedKek(someUnsignedKek())).block.bytes, openRegistryRecord],
  ];
  for (const [name, bytes, open] of messages) {
    test(name, () => {
      open(bytes);
      let accepted = 0;
      for (let at = 0; at < bytes.length; at++) {
        for (const flip of [1, 0x80]) {
          const changed = bytes.slice();
          changed[at] = (changed[at] ?? 0) ^ flip;
          if (passes(() => open(changed))) accepted++;
        }
        if (passes(() => open(bytes.subarray(0, at)))) accepted++;
      }
      if (passes(() => open(new Uint8Array([...bytes, 0])))) accepted++;
      assert.equal(accepted, 0);
    });
  }
});

describe('a changed byte of what custodians vote by never counts', () => {
  const heads = headsOf([someUnsignedKek()]);
  const electorate = { ...electorateOf(someUnsignedKek(), heads, 0), quorum: 2 };
  const voters = [1, 2].map((i) => ({ i, signer: someSigner(`voter ${i}`) }));
  const keys = new Map(voters.map(({ i, signer }) => [i, signer.publicKey]));
  const proposal = { keks: [someUnsignedKek({ seq: 2 })], certificates: [someEpoch()] };
  const about = { attempt: 2, round: 3, value: valueOf(proposal) };
  const signed = (bytes: Uint8Array): { i: number; sig: Uint8Array }[] =>
    voters.map(({ i, signer }) => ({ i, sig: signer.sign(bytes) }));
  const certificate = { ...about, votes: signed(voteBytes(electorate.place, 'prepare', about)) };
  const promises = signed(promiseBytes(electorate, 2, 4, certificate)).map((vote) => ({
    ...vote,
    lock: certificate,
  }));
  const rows: readonly [string, Uint8Array, (bytes: Uint8Array) => unknown][] = [
    [
      'certificate',
      encodeCbor(certificate),
      (bytes) => {
        const read = readBallotCertificate(decodeCbor(bytes, 'x'), 'x');
        assert.ok(isCertificate({ ...electorate, keys }, 'prepare', read));
      },
    ],
    [
      'promises',
      encodeCbor({ promises }),
      (bytes) => {
        const read = readPromises(fieldsOf(decodeCbor(bytes, 'x'), 'x', ['promises']), 'promises');
        assert.equal(toHex(openValue({ ...electorate, keys }, 2, 4, read) ?? nothing), toHex(about.value));
      },
    ],
    [
      'proposal',
      encodeProposal(proposal),
      (bytes) => {
        decodeProposal(bytes);
        requireContents(certificate, bytes);
      },
    ],
  ];
  for (const [name, bytes, open] of rows)
    test(name, () => {
      open(bytes);
      for (let at = 0; at < bytes.length; at++)
        for (const flip of [1, 0x80]) {
          const changed = bytes.slice();
          changed[at] = (changed[at] ?? 0) ^ flip;
          assert.ok(!passes(() => open(changed)), `byte ${at}`);
        }
    });

  test('a proposal comes back as it was made, and means what the group signs', () => {
    const read = decodeProposal(encodeProposal(proposal));
    assert.deepEqual(messagesOf(read).map(toHex), messagesOf(proposal).map(toHex));
    assert.equal(toHex(valueOf(read)), toHex(about.value));
  });
});

describe('a changed field never verifies under the group’s key, though somebody signs the record anew', () => {
  const kek = signedKek(someUnsignedKek());
  const policy = nextPolicy(rootPolicy).body;
  const rotation = certificateRecord(someRotation(bytes32('root'), 3)).body;
  const epoch = certificateRecord(someEpoch()).body;
  const bodies: readonly [string, object, (body: never) => boolean][] = [
    ['KEK', kek, verifyKek],
    ['policy', policy, (body) => verifyPolicy(body, group.publicKey)],
    ['rotation', rotation, (body) => verifyCertificate(body, group.publicKey)],
    ['epoch', epoch, (body) => verifyCertificate(body, group.publicKey)],
  ];
  for (const [name, body, verify] of bodies) {
    test(name, () => {
      assert.ok(verify(body as never));
      for (const field of Object.keys(body)) {
        const changed = { ...body, [field]: other(Reflect.get(body, field)) };
        // The writer of the record is whoever files it: it is covered by the record's own signature.
        const verifies = passes(() => assert.ok(verify(changed as never)));
        assert.equal(verifies, field === 'writer', `${name}.${field}`);
      }
    });
  }
});

function other(value: unknown): unknown {
  if (typeof value === 'number') return value + 1;
  if (value === 'rotation') return 'epoch';
  if (value === 'epoch') return 'rotation';
  if (typeof value === 'string') return `${value}x`;
  if (value instanceof Uint8Array) return value.map((byte, at) => (at === 0 ? byte ^ 1 : byte));
  if (Array.isArray(value)) return value.length > 0 ? value.slice(1) : [bytes32('one more')];
  if (value === null) return 7;
  return {};
}

/** True when nothing is thrown; anything but a refusal of ours is a crash. */
function passes(run: () => unknown): boolean {
  try {
    run();
    return true;
  } catch (error) {
    if (error instanceof HoldfastError || error instanceof assert.AssertionError) return false;
    throw error;
  }
}

describe('answers', () => {
  test('come back as they were given', () => {
    assert.deepEqual(
      encodeCbor(openAnswer(sealed, openerOf(keys.secretKey), answerTerms)),
      encodeCbor(answer),
    );
  });

  test('are of no use for another request, custodian, generation, count, signer or key', () => {
    const wrong: readonly Partial<AnswerTerms>[] = [
      { reqHash: new Uint8Array(64) },
      { i: 1 },
      { shareGen: 2 },
      { itemsCount: 3 },
      { sigPk: steward.publicKey },
    ];
    for (const change of wrong)
      assert.throws(() => openAnswer(sealed, openerOf(keys.secretKey), { ...answerTerms, ...change }), {
        code: 'RECORD_INVALID',
      });
    const stranger = generateKeyPair(random);
    assert.throws(() => openAnswer(sealed, openerOf(stranger.secretKey), answerTerms), {
      code: 'DECRYPT_FAILED',
    });
  });

  test('have a proof exactly when they give something', () => {
    const { results: _, ...rest } = answer;
    const refused = { code: 'budget', reason: 'x' };
    assert.throws(() => parseAnswer(encodeCbor({ ...rest, results: [refused] })), { code: 'RECORD_INVALID' });
    assert.throws(() => parseAnswer(encodeCbor({ ...rest, proof: null, results: [{ D: bytes32('D') }] })), {
      code: 'RECORD_INVALID',
    });
  });
});

describe('orders', () => {
  const now = beatAt({ beat: 100, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 });
  const terms = (changes: Partial<OrderTerms> = {}): OrderTerms => ({
    cg,
    authorities: [authority.publicKey],
    now,
    windowBeats: 2,
    nonces: new ReplaySet(),
    revocations: Revocations.none,
    ...changes,
  });
  const give = (changes: Partial<CustodyOrder>, given: OrderTerms): string =>
    checkOrder(openOrder(signOrder({ ...order, ...changes }, authority)), given)?.code ?? 'taken';
  const lost = beatAt(undefined, 0, { beatMs: 1, beatsPerBar: 1 });

  test('are taken once, from who may give them, for this group and time', () => {
    const given = terms();
    assert.deepEqual([give({}, given), give({}, given)], ['taken', 'replayed']);
    assert.equal(give({}, terms({ authorities: [steward.publicKey] })), 'capability');
    assert.equal(give({ cg: 'other' }, terms()), 'group');
    assert.equal(give({ beat: 90, exp: 92 }, terms()), 'stale');
    assert.equal(give({ exp: 110 }, terms()), 'stale');
    assert.equal(give({}, terms({ now: lost })), 'clock');
    const revocations = Revocations.none.withRecord(
      someRevocation(1, [{ what: 'key', id: authority.publicKey }]).body,
    );
    assert.equal(give({}, terms({ revocations })), 'revoked');
  });

  test('a seal is taken whatever the clock says, and never a second time', () => {
    const given = terms({ now: lost, nonces: new ReplaySet(4) });
    assert.equal(give({ op: 'seal', beat: 1, exp: 2 }, given), 'taken');
    for (let at = 0; at < 3; at++)
      give(
        { nonce: bytes32(`n ${at}`) },
        { ...given, now: beatAt({ beat: 100, atMs: 0 }, 0, { beatMs: 1, beatsPerBar: 1 }) },
      );
    assert.equal(give({ op: 'seal', beat: 1, exp: 2 }, given), 'replayed');
  });

  test('somebody else’s signature is refused on reading', () => {
    assert.throws(() => signOrder(order, steward), { code: 'RECORD_INVALID' });
  });
});

test('what is nested too deeply is refused, not a crash', () => {
  const deep = new Uint8Array(30_000).fill(0x81);
  const message = encodeCbor({ m: deep, s: new Uint8Array(64) });
  for (const open of [openOrder, parseCapability, openRequest])
    assert.throws(
      () => open(message),
      (error: unknown) => error instanceof HoldfastError,
    );
});

describe('the book of a group', () => {
  const first = kekRecord(signedKek(someUnsignedKek()));
  const refreshed = nextKek(first, someGeneration(2));
  const tighter = nextPolicy(rootPolicy, { maxItemsPerBar: 1 });
  const filled = (...records: readonly SignedRecord<unknown>[]): CustodyBook => {
    const book = new CustodyBook(cg);
    for (const { block } of [rootPolicy, first, ...records]) book.take(block.bytes);
    return book;
  };
  const refuses = (book: CustodyBook, record: SignedRecord<unknown>, text: RegExp): void =>
    assert.throws(
      () => book.take(record.block.bytes),
      (error: unknown) =>
        error instanceof HoldfastError && error.code === 'RECORD_INVALID' && text.test(error.message),
    );

  test('goes by the newest version of the family that the KEK names', () => {
    const book = filled(tighter);
    assert.equal(book.policy(rootPolicy.cid)?.maxItemsPerBar, 1);
    assert.equal(book.policy(tighter.cid), undefined);
    assert.equal(book.take(tighter.block.bytes), 'known');
  });

  test('an older record than the newest known is refused', () => {
    refuses(filled(refreshed), first, /set back/);
    refuses(filled(tighter), rootPolicy, /set back/);
    const one = someRevocation(1, [{ what: 'key', id: bytes32('k') }]);
    const two = someRevocation(2, [{ what: 'key', id: bytes32('l') }], one.cid);
    const book = filled(one, two);
    refuses(book, one, /set back/);
    assert.ok(book.revocations.has({ what: 'key', id: bytes32('k') }));
    const certificate = certificateRecord(someEpoch());
    refuses(filled(certificate, certificateRecord(someEpoch(2, certificate.cid))), certificate, /set back/);
  });

  test('another record in the place of a known one is refused', () => {
    refuses(filled(refreshed), nextKek(first, { ...someGeneration(2), retireBeat: 7 }), /set back/);
    refuses(filled(), nextPolicy(rootPolicy, { prev: first.cid }), /follow/);
    refuses(filled(), nextPolicy(tighter), /next/);
  });

  test('what the group did not sign is refused', () => {
    const mallory = someSigner('mallory');
    refuses(filled(), nextPolicy(rootPolicy, {}, mallory), /signature/);
    refuses(filled(), certificateRecord(someEpoch(), mallory), /signature/);
    const otherGroup = signedKek(someUnsignedKek({ ver: 2, frostPk: mallory.publicKey }), mallory);
    refuses(filled(), kekRecord(otherGroup), /signature/);
    const pinned = new CustodyBook(cg, mallory.publicKey);
    refuses(pinned, first, /signature/);
  });

  test('only an authority revokes; how fresh that is, is known', () => {
    const id = bytes32('k');
    const book = filled(someRevocation(1, [{ what: 'key', id }], null, someSigner('mallory')));
    assert.equal(book.revocations.has({ what: 'key', id }), false);
    assert.equal(book.revocations.checkedBeat, undefined);
    book.comparedAt(12);
    assert.equal(book.revocations.checkedBeat, 12);
  });

  test('knows the key that is wrapped under', () => {
    const second = kekRecord(signedKek(someUnsignedKek({ ver: 2 })));
    const book = filled(refreshed, second);
    assert.equal(book.kek()?.ver, 1);
    book.take(nextKek(second, { state: 'active' }).block.bytes);
    assert.equal(book.kek()?.ver, 2);
    assert.equal(book.kek(1)?.shareGen, 2);
    assert.equal(book.kek(3), undefined);
  });
});

function someGeneration(shareGen: number): Parameters<typeof nextKek>[1] {
  const { C, Yi, frostYi, custodians } = someUnsignedKek({ shareGen });
  return { shareGen, C, Yi, frostYi, custodians };
}

test('a link to a record of no consequence is no certificate', () => {
  const cid: CID = rootPolicy.cid;
  assert.equal(new CustodyBook(cg).certificate(cid), undefined);
});
