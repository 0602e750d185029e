// The attacks that the bindings of threshold custody stop (docs/custody.md, "Bindings"), mounted with real keys.
//
// Each test states an attack, mounts it, and sees it stopped where the table says. "Control" marks the half that
// shows the attack working as soon as the check is left out: by the bare primitive, on the same bytes.
// Attacks that another test mounts already are not mounted again. They are:
//
//   another key, address, class, writer behind a header      src/envelope/floe.test.ts    nothing else opens
//   segments reordered, cut, extended, spliced               src/envelope/floe.test.ts    nothing else opens
//   a segment crafted under a second key                     src/envelope/floe.test.ts    nothing else opens
//   object A served under address B                          src/flows/put-get.test.ts, src/client/client.test.ts
//   a wrapped DEK moved to another object or branch key      src/envelope/wrap.test.ts    nothing else opens
//   a DEK put in place of the right one by an insider        src/envelope/wrap.test.ts
//   policy swapped in an envelope; class lowered             src/envelope/kek.test.ts     policy swap, envelope downgrade
//   a wrap made over into a related one, bit by bit          src/threshold/tdh2.test.ts
//   a wrap of another group, version, id or policy family    src/custody/authorise.test.ts  label swap, policy swap
//   a custodian that lies, named with evidence               src/custody/tdec.test.ts, eager and lazy
//   an answer for another request, index, generation         src/custody/messages.test.ts  answers
//   a request sent twice, dated elsewhere, by a stranger     src/custody/authorise.test.ts
//   threshold raised by one commitment more                  src/threshold/dkg.test.ts, src/threshold/dealing.test.ts
//   a message of another session or member                   src/threshold/dkg.test.ts, src/threshold/dealing.test.ts
//   a split view shown by whoever relays                     src/threshold/dkg.test.ts (CertEq), dealing.test.ts (certificates)
//   a constant said in a refresh                             src/threshold/dealing.test.ts
//   another share, or another key, dealt in a reshare        src/threshold/dealing.test.ts
//   a switch by a wrong share, to another key, unproven      src/threshold/key-switch.test.ts
//   a switched wrap without or beside its certificate        src/custody/authorise.test.ts
//   a partial that nobody wrote down                         src/custody/custodian.test.ts
//   a log cut, rewritten, forked                             src/custody/audit.test.ts
//   a proof or scalar in a second encoding                   src/threshold/dleq.test.ts, src/threshold/group.test.ts
//   records set back, replaced, or signed by another group   src/custody/messages.test.ts, src/custody/custodian.test.ts
//   a custody group that somebody made up                    src/custody/tdec.test.ts
//   any byte of any record or message flipped                src/custody/messages.test.ts and beside each format

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cidOf, codecDagCbor, rawBlock } from '../src/core/block.ts';
import { asBuffer, concat, utf8 } from '../src/core/bytes.ts';
import { isHoldfastError } from '../src/core/errors.ts';
import { preimage, sha256, sha512 } from '../src/core/hash.ts';
import { sealAnswer } from '../src/custody/answer.ts';
import { fullCapability } from '../src/custody/default-policy.ts';
import { signCapability } from '../src/custody/capability.ts';
import { isProven } from '../src/custody/misconduct.ts';
import { openRequest, signRequest } from '../src/custody/request.ts';
import { ShareStore } from '../src/custody/share-store.ts';
import { createSealingKeyFile } from '../src/custody/sealing-key.ts';
import { suite } from '../src/envelope/aad.ts';
import { floeDecryptor, floeEncryptor } from '../src/envelope/floe.ts';
import { encodeLabel } from '../src/envelope/label.ts';
import { hkdfExpand, importKey } from '../src/envelope/primitives.ts';
import type { TdecWrap } from '../src/envelope/wraps.ts';
import { commitmentOf, matchesCommitment, unwrapDek, WrappingKey, wrapDek } from '../src/envelope/wrap.ts';
import { putObject } from '../src/flows/put.ts';
import { openDealt, readDealings } from '../src/threshold/dealing.ts';
import { complain } from '../src/threshold/dealing-complaints.ts';
import { settle } from '../src/threshold/dealing-agreement.ts';
import { domainOf } from '../src/threshold/dealing-session.ts';
import { begin, dkgContext, receive } from '../src/threshold/dkg.ts';
import { ristrettoSuite } from '../src/threshold/dkg-suite.ts';
import { verifyDleq } from '../src/threshold/dleq.ts';
import type { Scalar } from '../src/threshold/group.ts';
import { loadRistretto } from '../src/threshold/group-sodium.ts';
import { generateKeyPair, openWith, sealTo } from '../src/threshold/hpke.ts';
import { commitments, evaluate, lagrange } from '../src/threshold/polynomial.ts';
import { signStep } from '../src/threshold/signed-step.ts';
import { branchKeyOf, combine } from '../src/threshold/tdh2.ts';
import { hashToScalar, lp } from '../src/threshold/transcript.ts';
import { uint8 } from '../src/threshold/wire.ts';
import { TestGroup } from './support/custody-group.ts';
import {
  answerOf,
  ask,
  byShares,
  itemOf,
  labelFor,
  opened,
  partialIn,
  verdicts,
  wrappedBy,
} from './support/custody-asking.ts';
import { someSigner } from './support/custody-records.ts';
import { dealBy, generate, newMembers, refreshed, sessionFor } from './support/custody-world.ts';
import { openUnderBoth } from './support/gcm-collision.ts';
import { address, MemoryWorld, putOptions } from './support/memory-world.ts';
import { Fuse, PowerCutDisk } from './support/power-cut-disk.ts';
import { blamed, random, the, valueOf } from './support/threshold.ts';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const ristretto = await loadRistretto();
const { scalar } = ristretto;
const all5 = Array.from({ length: 5 }, () => 'wrap');

describe('content and its keys', () => {
  test('a salamander: one wrapped DEK that opens under two branch keys, to show two readers two contents', () => {
    const [bkA, bkB, bkId] = [random(32), random(32), random(16)];
    const stream = floeEncryptor(random(32), utf8('aad'), random);
    const { header, headerTag } = stream;
    const binding = { objId: random(16), headerTag, bkId, bkVer: 1, policy: null };
    const info = preimage('CHORUS-SLURP-WK-v1', bkId);
    const [wkA, wkB] = [bkA, bkB].map((bk) => hkdfExpand('sha512', importKey(bk), info, 32));
    const bound = preimage(
      'CHORUS-SLURP-ENV-AAD-v1',
      utf8(suite),
      binding.objId,
      headerTag,
      bkId,
      new Uint8Array([0, 0, 0, 0, 0, 0, 0, 1]),
      new Uint8Array(0),
    );
    const wrap = openUnderBoth([the(wkA), the(wkB)], random(12), sha512(bound), random(16));

    // Control: AES-GCM itself is content with both.
    const [dekA, dekB] = [bkA, bkB].map((bk) => unwrapDek(new WrappingKey(bk, bkId), wrap, binding));
    assert.notDeepEqual(dekA, dekB);

    const commit = commitmentOf(bkA);
    assert.ok(matchesCommitment(bkA, commit));
    assert.ok(!matchesCommitment(bkB, commit), 'the record names one branch key');
    for (const dek of [dekA, dekB])
      assert.throws(() => floeDecryptor(the(dek), utf8('aad'), header), { code: 'DECRYPT_FAILED' });
  });

  test('policy swap in an envelope: the wrap of a strict policy under the name of a lax one', () => {
    const [bk, bkId, dek] = [random(32), random(16), random(32)];
    const [strict, lax] = [rawBlock(utf8('strict')).cid, rawBlock(utf8('lax')).cid];
    const binding = { objId: random(16), headerTag: random(32), bkId, bkVer: 1 };
    const key = new WrappingKey(bk, bkId);
    const wrap = wrapDek(key, dek, { ...binding, policy: strict }, random);
    assert.deepEqual(unwrapDek(key, wrap, { ...binding, policy: strict }), dek);
    assert.throws(() => unwrapDek(key, wrap, { ...binding, policy: lax }), { code: 'DECRYPT_FAILED' });
  });

  test('confirmation of a file: who guesses the content looks for its blocks', async () => {
    const guess = new Uint8Array(40_000).fill(65);
    // Control: with a key made of the content, as in convergent encryption, the same content is the same block.
    const convergent = () =>
      floeEncryptor(sha256(guess), utf8('aad'), (size) => new Uint8Array(size)).encryptSegment(
        0,
        guess,
        true,
      );
    assert.deepEqual(convergent(), convergent());

    const [mine, theirs] = [new MemoryWorld(), new MemoryWorld()];
    await putObject(mine.put, address('a.md'), [guess], putOptions);
    await putObject(theirs.put, address('a.md'), [guess], putOptions);
    for (const cid of mine.blocks.keys()) assert.ok(!theirs.blocks.has(cid), `${cid} in both`);
    const digests = [sha256(guess), sha512(guess)];
    for (const { block } of theirs.blocks.values())
      for (const digest of digests)
        assert.ok(!asBuffer(block.bytes).includes(asBuffer(digest)), 'a hash of the content');
  });
});

describe('wraps and what may be asked of custodians', () => {
  test('Calypso replay: the wrap of another project, under a label that the attacker may open', async () => {
    await using group = await TestGroup.create();
    const victim = wrappedBy(group, labelFor(group));
    const mallory = someSigner('mallory');
    const grant = fullCapability({
      cg: group.cg,
      iss: group.authority.publicKey,
      aud: mallory.publicKey,
      nbf: 0,
      exp: 1000,
      project: 'own',
      cls: 'public',
    });
    const chain = [signCapability(grant, group.authority)];
    const askAs = (label: typeof victim.label, wrap: TdecWrap) =>
      verdicts(group, ask(group, [itemOf({ label, wrap })], { by: mallory, changes: { chain } }));
    const lax = labelFor(group, { project: 'own', cls: 'public' });
    const own = wrappedBy(group, lax);
    assert.deepEqual(await askAs(own.label, own.wrap), Array(5).fill('granted'), 'her own she may open');
    assert.deepEqual(await askAs(victim.label, victim.wrap), Array(5).fill('capability'), 'his as it is');

    // U' = U + r'G, V' = V + r'Y holds the same element, and looks like any other wrap.
    const r = scalar.random(random);
    const fresh = {
      U: ristretto.add(victim.wrap.U, ristretto.base(r)),
      V: ristretto.add(victim.wrap.V, ristretto.mul(r, group.kek.Y)),
    };
    // Control: the shares alone open it for her.
    assert.deepEqual(byShares(group, fresh, [1, 2, 3]), victim.element);

    const said = { ...victim.wrap, label: encodeLabel(lax) };
    const mauled = { ...said, ...fresh };
    // With a proof by herself: she knows r', not the sum.
    const proven = { ...own.wrap, ...fresh, Ubar: ristretto.mul(r, own.wrap.Ubar) };
    for (const wrap of [said, mauled, proven, { ...own.wrap, V: victim.wrap.V, U: victim.wrap.U }])
      assert.deepEqual(await askAs(lax, wrap), all5);
  });

  test('an unproven switched wrap as an oracle', async () => {
    await using group = await TestGroup.create();
    const victim = wrappedBy(group, labelFor(group));
    const { U, V } = victim.wrap;
    const r = scalar.random(random);
    const points = {
      U: ristretto.add(U, ristretto.base(r)),
      V: ristretto.add(V, ristretto.mul(r, group.kek.Y)),
    };
    assert.deepEqual(byShares(group, points, [2, 3, 5]), victim.element, 'control: the shares open it');
    const birth = the(group.records.find(({ key }) => key.startsWith('cert/')));
    for (const cert of [cidOf(utf8('made up'), codecDagCbor), cidOf(birth.bytes, codecDagCbor)]) {
      const wrap = {
        t: 'tdec-ks',
        cg: group.cg,
        kekVer: 1,
        label: victim.wrap.label,
        ...points,
        cert,
        index: 0,
        proof: [],
        prev: cert,
      } as const;
      const asked = ask(group, [{ bkId: victim.label.bkId, wrap }]);
      assert.deepEqual(await verdicts(group, asked), Array(5).fill('group'), 'no such page is known');
    }
  });

  test('a frozen heart: a proof made before its statement', () => {
    // With a challenge over the commitments alone, who knows k picks them first and then the false D that fits.
    const k = scalar.random(random);
    const [B, C] = [ristretto.base(k), ristretto.base(scalar.random(random))];
    const context = utf8('context');
    const r = scalar.random(random);
    const [t2, t3] = [ristretto.base(r), ristretto.base(scalar.random(random))];
    const weak = (a: Uint8Array, b: Uint8Array) => hashToScalar(ristretto, 'weak', a, b);
    const c = weak(t2, t3);
    const s = scalar.sub(r, scalar.mul(c, k));
    const D = ristretto.mul(scalar.inv(c), ristretto.sub(t3, ristretto.mul(s, C)));
    assert.notDeepEqual(D, ristretto.mul(k, C), 'a false partial');
    // Control: both equations hold under the weak challenge.
    const T2 = ristretto.add(ristretto.base(s), ristretto.mul(c, B));
    const T3 = ristretto.add(ristretto.mul(s, C), ristretto.mul(c, D));
    assert.deepEqual(weak(T2, T3), c);
    assert.ok(!verifyDleq(ristretto, { context, B, C: [C], D: [D] }, concat(c, s)));
  });
});

describe('partial decryptions on their way', () => {
  test('harvest: a relay that carries the answers of all custodians', async () => {
    await using group = await TestGroup.create();
    const { label, wrap, element } = wrappedBy(group, labelFor(group));
    const asked = ask(group, [itemOf({ label, wrap })]);
    const carried = await Promise.all(group.custodians.map((each) => each.answers(asked.message)));
    // Control: these answers are all that it takes, for whoever can open them.
    const partials = group.custodians.map((each, at) => partialIn(opened(each, asked, the(carried[at]))));
    assert.deepEqual(combine(ristretto, wrap.V, partials.slice(1, 4)), element);

    const relay = generateKeyPair(random);
    for (const [at, each] of group.custodians.entries()) {
      const sealed = the(carried[at]);
      assert.throws(() => opened(each, { ...asked, secretKey: relay.secretKey }, sealed), {
        code: 'DECRYPT_FAILED',
      });
      for (const { D } of partials)
        assert.ok(!asBuffer(sealed).includes(asBuffer(D)), 'a partial in the clear');
    }
    // It puts its own key in: the signature is about the other one. It signs anew: the capability is not its own.
    const swapped = concat(asked.message);
    const at = asBuffer(swapped).indexOf(openRequest(asked.message).request.epk);
    swapped.set(relay.publicKey, at);
    await assert.rejects(the(group.custodians[0]).answers(swapped), { code: 'RECORD_INVALID' });
    const thief = ask(group, asked.items, { by: someSigner('relay') });
    assert.deepEqual(await verdicts(group, thief), Array(5).fill('capability'));
    const forged = signRequest(thief.encoded, group.requester);
    await assert.rejects(the(group.custodians[0]).answers(forged), { code: 'RECORD_INVALID' });
  });

  test('replay: a partial of yesterday, or of another custodian, with its proof', async () => {
    await using group = await TestGroup.create();
    const item = itemOf(wrappedBy(group, labelFor(group)));
    const [before, now] = [ask(group, [item]), ask(group, [item])];
    const [first, second] = [the(group.custodians[0]), the(group.custodians[1])];
    const answer = await answerOf(first, before);
    const holds = (hash: Uint8Array, i: number) =>
      isProven(ristretto, group.kek, { items: [item], hash }, { ...answer, reqHash: hash, i });
    assert.ok(holds(before.hash, 1), 'control: in its place it proves');
    assert.ok(!holds(now.hash, 1), 'of another request');
    assert.ok(!holds(before.hash, 2), 'of another custodian');
    // The second custodian signs the first one's partial as its own: the envelope is right, the proof is not.
    const stolen = sealAnswer({ ...answer, i: 2 }, openRequest(before.message).request.epk, second.signer);
    const shown = opened(second, before, stolen);
    assert.ok(!isProven(ristretto, group.kek, { items: [item], hash: before.hash }, shown));
  });

  test('a wrong combination is a well-formed key: only the commitment tells', async () => {
    await using group = await TestGroup.create();
    const { label, wrap, element } = wrappedBy(group, labelFor(group));
    const commit = commitmentOf(branchKeyOf(element, label.bkId, 1));
    const asked = ask(group, [itemOf({ label, wrap })]);
    const honest = await Promise.all(
      group.custodians.slice(0, 3).map(async (each) => partialIn(await answerOf(each, asked))),
    );
    const lie = { ...the(honest[2]), D: ristretto.base(scalar.random(random)) };
    const keys = [honest, [...honest.slice(0, 2), lie]].map((partials) =>
      branchKeyOf(combine(ristretto, wrap.V, partials), label.bkId, 1),
    );
    assert.equal(the(keys[1]).length, 32, 'control: nothing about it looks wrong');
    assert.deepEqual(
      keys.map((key) => matchesCommitment(key, commit)),
      [true, false],
    );
  });

  test('a mobile adversary: two custodians in each generation, of five that need three', async () => {
    await using group = await TestGroup.create();
    const { wrap, element } = wrappedBy(group, labelFor(group));
    const old = group.world;
    await group.refresh();
    const fresh = group.world;
    // Control: three of either generation open it, the old ones too. That is why they are erased.
    assert.deepEqual(byShares(group, wrap, [1, 2, 3], old), element);
    assert.deepEqual(byShares(group, wrap, [3, 4, 5], fresh), element);
    const stolen = (i: number) => (i <= 2 ? old : fresh);
    for (const quorum of [
      [1, 2, 3],
      [1, 2, 4],
      [2, 3, 4],
      [1, 2, 3, 4],
    ])
      assert.notDeepEqual(byShares(group, wrap, quorum, stolen), element);
    const asked = ask(group, [itemOf({ label: labelFor(group), wrap })], { changes: { shareGen: 1 } });
    for (const each of group.custodians)
      await assert.rejects(each.answers(asked.message), { code: 'KEY_UNAVAILABLE' });
  });
});

describe('making and moving shares', () => {
  test('a rogue key: the last member chooses its commitment so that the sum is a key of its own', () => {
    const [t, n] = [2, 3];
    const secrets = Array.from({ length: n }, () => scalar.random(random));
    const statics = secrets.map((secret) => ristretto.base(secret));
    const rsuite = ristrettoSuite(ristretto);
    const session = { t, n, statics, context: dkgContext(rsuite, random(32), statics), ext: utf8('policy') };
    const dealt = secrets.map((secret, at) => begin(rsuite, session, at + 1, secret, random));
    const constantOf = (at: number) => the(dealt[at]).message.subarray(0, 32);
    const known = scalar.random(random);
    const rogue = ristretto.sub(ristretto.base(known), ristretto.add(constantOf(0), constantOf(1)));
    // Control: the public key of the group would be that of a scalar it knows alone.
    assert.deepEqual(ristretto.sum([constantOf(0), constantOf(1), rogue]), ristretto.base(known));
    const last = the(dealt[2]).message;
    const messages = [...dealt.slice(0, 2).map(({ message }) => message), concat(rogue, last.subarray(32))];
    const outcome = receive(rsuite, session, the(dealt[0]).state, the(secrets[0]), messages);
    assert.deepEqual(blamed(outcome), [[3, 'possession']]);
  });

  test('the share at zero is the private key: nobody is member 0', () => {
    const world = generate(ristrettoSuite(ristretto), 2, newMembers(3));
    const coeffs = [scalar.random(random), scalar.random(random)];
    assert.deepEqual(evaluate(ristretto, coeffs, 0), coeffs[0], 'control');
    const session = sessionFor(world);
    const { dealings } = readDealings(
      ristretto,
      session,
      dealBy(world, session, [1, 2]).map(({ message }) => message),
    );
    const prekey = the(world.members[0]).prekey.secretKey;
    for (const index of [0, -1, 4])
      assert.throws(() => openDealt(ristretto, session, index, prekey, dealings), {
        code: 'ARGUMENT_INVALID',
      });
    assert.throws(() => complain(session, 0, the(world.members[0]).signer, [1]), {
      code: 'ARGUMENT_INVALID',
    });
    assert.throws(() => lagrange(ristretto, [0, 1], 1), /positive/);
  });

  test('a silent shift: a dealer of a refresh adds its own constant to the shares and does not say it', () => {
    const world = generate(ristrettoSuite(ristretto), 3, newMembers(5));
    const session = sessionFor(world);
    const shift = scalar.random(random);
    const coeffs = [shift, scalar.random(random), scalar.random(random)];
    const sharesOf = (i: number) => evaluate(ristretto, coeffs, i);
    // Control: added as they are, the shares would be those of another key.
    const shifted = world.shares.map((share, at) => scalar.add(share, sharesOf(at + 1)));
    const Ynew = ristretto.add(world.keys.Y, ristretto.base(shift));
    assert.deepEqual(ristretto.base(interpolated(shifted, [1, 2, 3])), Ynew);

    const C = commitments(ristretto, coeffs).slice(1);
    const sealed = session.to.recipients.map(({ prekey }, at) => {
      const info = concat(lp(utf8(domainOf(session))), session.id, uint8(2), uint8(at + 1));
      const { enc, ct } = sealTo(prekey, info, concat(...C), sharesOf(at + 1), random);
      return concat(enc, ct);
    });
    const bad = signStep(the(world.members[1]).signer, session.id, 'deal', 2, concat(...C, ...sealed));
    const honest = dealBy(world, session, [1, 3, 4]).map(({ message }) => message);
    const { dealings, faults } = readDealings(ristretto, session, [bad, ...honest]);
    assert.deepEqual([dealings.length, faults.length], [4, 0], 'what everybody sees of it looks right');
    const complaints = world.members.map(({ signer, prekey }, at) => {
      const found = openDealt(ristretto, session, at + 1, prekey.secretKey, dealings).complaints;
      assert.deepEqual(found, [2], 'whoever it was dealt to sees it');
      return complain(session, at + 1, signer, found);
    });
    const settled = valueOf(settle(ristretto, session, dealings, complaints, []));
    assert.deepEqual(settled.qual, [1, 3, 4]);
    assert.deepEqual(settled.keys.Y, world.keys.Y);
  });

  test('harvest now, decrypt later: dealings from an archive, and every key that the member has afterwards', () => {
    const world = generate(ristrettoSuite(ristretto), 2, newMembers(3));
    const session = sessionFor(world);
    const messages = dealBy(world, session, [1, 2, 3]).map(({ message }) => message);
    const { dealings } = readDealings(ristretto, session, messages);
    const { prekey } = the(world.members[0]);
    // Control: the prekey of that epoch opens them.
    assert.equal(openDealt(ristretto, session, 1, prekey.secretKey, dealings).shares.length, 3);
    const later = [
      generateKeyPair(random).secretKey,
      the(world.members[1]).prekey.secretKey,
      the(world.shares[0]),
    ];
    for (const key of later) {
      const { shares, complaints } = openDealt(ristretto, session, 1, key, dealings);
      assert.deepEqual([shares.length, complaints], [0, [1, 2, 3]]);
    }
    const [first] = the(dealings[0]).sealed;
    assert.throws(
      () =>
        openWith(prekey.secretKey, the(first).enc, utf8('another session'), new Uint8Array(0), the(first).ct),
      (error) => isHoldfastError(error, 'DECRYPT_FAILED'),
    );
    // Its next generation's shares tell nothing of these: only together with what was added.
    assert.notDeepEqual(refreshed(world, [1, 2]).shares[0], world.shares[0]);
  });

  test('a snapshot: the volume of the shares is put back to before they were erased', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'holdfast-snapshot-'));
    try {
      const path = join(dir, 'sealing.key');
      await createSealingKeyFile(path);
      const disks = {
        shares: new PowerCutDisk('shares', new Fuse()),
        keys: new PowerCutDisk('keys', new Fuse()),
      };
      const open = (given: typeof disks, create = false) =>
        ShareStore.open({ ...given, sealing: { source: 'key-file', path }, owner: 'me', create });
      const store = await open(disks, true);
      const world = generate(ristrettoSuite(ristretto), 2, newMembers(3));
      const { t, n, Y, C, Yi } = world.keys;
      const facts = { index: 1, t, n, publicKey: Y, commitments: C, verificationShares: Yi };
      const secret = the(world.shares[0]);
      const ref = (gen: number) => ({ cg: 'cg', kekVer: 1, gen });
      for (const gen of [1, 2]) {
        await store.stage(ref(gen), 'kek', { facts, secret: gen === 1 ? secret : random(32), beat: gen });
        await store.activate(ref(gen), { beat: gen, certificate: random(32) });
      }
      const snapshot = disks.shares.afterCut('everything', new Fuse());
      const everything = disks.keys.afterCut('everything', new Fuse());
      await store.erase(ref(1));
      // Control: with the sealing keys of then as well, the old share is back: so they lie where nothing is kept.
      const { secret: back } = await (await open({ shares: snapshot, keys: everything })).openShare(
        ref(1),
        'kek',
      );
      assert.deepEqual(back, secret);
      const again = await open({ shares: snapshot, keys: disks.keys });
      await assert.rejects(again.openShare(ref(1), 'kek'), { code: 'RECORD_CORRUPT' });
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});

function interpolated(shares: readonly Scalar[], quorum: readonly number[]): Scalar {
  return quorum
    .map((i) => scalar.mul(lagrange(ristretto, quorum, i), the(shares[i - 1])))
    .reduce((sum, part) => scalar.add(sum, part));
}
