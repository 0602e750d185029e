// Pages of switched wraps as the group certifies them: what is listed opens and may be switched again, nothing else.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  certificateRecord,
  cg,
  someLabel,
  someUnsignedKek,
  signedKek,
  steward,
} from '../../test/support/custody-records.ts';
import { generate, newMembers, type World } from '../../test/support/custody-world.ts';
import { random, the } from '../../test/support/threshold.ts';
import type { CID } from '../core/block.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { encodeLabel } from '../envelope/label.ts';
import type { SwitchedWrap, TdecWrap } from '../envelope/wraps.ts';
import { ristrettoSuite } from '../threshold/dkg-suite.ts';
import type { Point } from '../threshold/group.ts';
import { loadRistretto } from '../threshold/group-sodium.ts';
import { applySwitch, contribute, readContribution } from '../threshold/key-switch.ts';
import { combine, encrypt } from '../threshold/tdh2.ts';
import { listsWrap, type RotationCertificate } from './certificate.ts';
import {
  certifiedPage,
  encodePage,
  type PageItem,
  parsePage,
  type RotationPage,
  switchable,
  switchPage,
} from './rotation-page.ts';

const group = await loadRistretto();
const suite = ristrettoSuite(group);
const worlds = [3, 4, 2].map((t, at) => generate(suite, t, newMembers(t + 1), at + 1));
const keks = worlds.map(({ keys: { t, n, Y, C, Yi } }, at) =>
  signedKek(someUnsignedKek({ ver: at + 1, t, n, Y, C, Yi })),
);

/** A wrap of a fresh element under version 1. */
function wrapped(bkId: Uint8Array): { readonly item: PageItem; readonly element: Point } {
  const label = encodeLabel(someLabel({ bkId, cg }));
  const { wrap, element } = encrypt(group, the(worlds[0]).keys.Y, label, random);
  return { item: { bkId, wrap: { t: 'tdec', cg, kekVer: 1, label, ...wrap } satisfies TdecWrap }, element };
}

interface Switched {
  readonly certificate: RotationCertificate;
  readonly cert: CID;
  readonly wraps: readonly SwitchedWrap[];
}

/** One page, done by the quorum 1…t of the old version. */
function switched(
  [from, old]: readonly [TdecKek, World],
  to: TdecKek,
  items: readonly PageItem[],
  certificate: (cid: CID) => RotationCertificate | undefined = () => undefined,
): Switched {
  const quorum = Array.from({ length: from.t }, (_, at) => at + 1);
  const common = { cg, fromVer: from.ver, toVer: to.ver, n: 1, prev: null, beat: 9 };
  const page: RotationPage = parsePage(encodePage({ ...common, quorum, items }));
  const terms = { group, from, to, certificate };
  const opened = switchPage(
    group,
    page,
    from,
    to,
    items.map((item) => switchable(terms, item)),
  );
  const given = quorum.map((index) => ({
    index,
    bytes: contribute(group, opened, index, the(old.shares[index - 1]), random),
  }));
  const read = given.map(({ index, bytes }) => the(readContribution(group, opened, index, bytes)));
  const done = applySwitch(group, opened, read);
  const certified = certifiedPage(page, done, given);
  const { body, cid } = certificateRecord({ ...certified.certificate, writer: steward.publicKey });
  assert.ok(body.what === 'rotation');
  const wraps = done.map(({ label, U, V }, index): SwitchedWrap => {
    const proof = the(certified.proofs[index]);
    return { t: 'tdec-ks', cg, kekVer: to.ver, label, U, V, cert: cid, index, proof, prev: cid };
  });
  return { certificate: body, cert: cid, wraps };
}

const ids = Array.from({ length: 4 }, () => random(16));
const sources = ids.map((id) => wrapped(id));
const [first, second, third] = [the(keks[0]), the(keks[1]), the(keks[2])];
const one = switched(
  [first, the(worlds[0])],
  second,
  sources.map(({ item }) => item),
);

test('a certificate lists each wrap in its place under its branch key, and no other', () => {
  for (const [at, wrap] of one.wraps.entries()) {
    const id = the(ids[at]);
    const lists = (change: Partial<SwitchedWrap>, bkId = id, certificate = one.certificate): boolean =>
      listsWrap(certificate, bkId, { ...wrap, ...change });
    assert.ok(lists({}));
    assert.ok(!lists({ index: (at + 1) % 4 }));
    assert.ok(!lists({ label: encodeLabel(someLabel({ bkId: id, kekVer: 2, cls: 'public' })) }));
    assert.ok(!lists({ V: wrap.U }));
    assert.ok(!lists({ kekVer: 3 }));
    assert.ok(!lists({ cg: 'other' }));
    assert.ok(!lists({}, random(16)));
    assert.ok(!lists({}, id, { ...one.certificate, root: random(32) }));
    assert.ok(!lists({}, id, { ...one.certificate, count: at }));
  }
});

test('a switched wrap is switched again only by its certificate, and opens the same element', () => {
  const items = one.wraps.map((wrap, at) => ({ bkId: the(ids[at]), wrap }));
  const known = (cid: CID) => (cid.equals(one.cert) ? one.certificate : undefined);
  const two = switched([second, the(worlds[1])], third, items, known);
  for (const [at, { U, V }] of two.wraps.entries()) {
    const partials = [1, 3].map((index) => ({
      index,
      D: group.mul(the(the(worlds[2]).shares[index - 1]), U),
    }));
    assert.deepEqual(combine(group, V, partials), the(sources[at]).element);
  }
  const refused = { code: 'RECORD_INVALID', message: /without its certificate/ };
  const terms = { group, from: second, to: third };
  const [item] = items;
  assert.throws(() => switchable({ ...terms, certificate: () => undefined }, the(item)), refused);
  const misplaced = { bkId: the(item).bkId, wrap: { ...the(one.wraps[0]), proof: the(one.wraps[1]).proof } };
  assert.throws(() => switchable({ ...terms, certificate: known }, misplaced), refused);
  const policy = certificateRecord(one.certificate).cid; // any record's
  const label = encodeLabel(someLabel({ bkId: the(ids[0]), cg, policy }));
  const before = encrypt(group, first.Y, label, random).wrap;
  const older: PageItem = { bkId: the(ids[0]), wrap: { t: 'tdec', cg, kekVer: 1, label, ...before } };
  const moving = { group, from: first, to: second, certificate: known };
  assert.throws(() => switchable(moving, older), /bound to another policy/);
  assert.deepEqual(switchable({ ...moving, takenOver: [policy] }, older).bkId, ids[0]);
  const mauled = {
    bkId: the(ids[0]),
    wrap: { ...the(sources[0]).item.wrap, V: the(sources[1]).item.wrap.V },
  };
  assert.throws(
    () => switchable({ group, from: first, to: second, certificate: known }, mauled),
    /proof does not verify/,
  );
});
