// Asking the custodians of a test group by hand, as an attacker with a network card does.

import { openAnswer, type CustodyAnswer } from '../../src/custody/answer.ts';
import {
  type CustodyRequest,
  encodeRequest,
  requestHash,
  type RequestItem,
  signRequest,
} from '../../src/custody/request.ts';
import type { Signer } from '../../src/core/hash.ts';
import { type BkLabel, encodeLabel } from '../../src/envelope/label.ts';
import type { TdecWrap } from '../../src/envelope/wraps.ts';
import type { Point } from '../../src/threshold/group.ts';
import { generateKeyPair, openerOf } from '../../src/threshold/hpke.ts';
import { combine, encrypt, type Partial, partial } from '../../src/threshold/tdh2.ts';
import type { TestCustodian, TestGroup } from './custody-group.ts';
import type { World } from './custody-world.ts';
import { random, the } from './threshold.ts';

export interface Asked {
  readonly items: readonly RequestItem[];
  readonly encoded: Uint8Array;
  readonly message: Uint8Array;
  readonly hash: Uint8Array;
  readonly shareGen: number;
  /** Opens the answers. */
  readonly secretKey: Uint8Array;
}

export interface Victim {
  readonly label: BkLabel;
  readonly wrap: TdecWrap;
  /** What an attacker is after. */
  readonly element: Point;
}

export function labelFor(group: TestGroup, changes: Some<BkLabel> = {}): BkLabel {
  return {
    v: 1,
    cg: group.cg,
    kekVer: 1,
    bkId: random(16),
    bkVer: 1,
    project: 'merger',
    cls: 'confidential',
    policy: group.kek.policyRoot,
    window: [90, 209],
    writer: group.authority.publicKey,
    ...changes,
  };
}

type Some<T> = { readonly [K in keyof T]?: T[K] };

/** A branch key wrapped as its writer wraps it. */
export function wrappedBy(group: TestGroup, label: BkLabel): Victim {
  const bytes = encodeLabel(label);
  const { wrap, element } = encrypt(group.ristretto, group.kek.Y, bytes, random);
  return { label, wrap: { t: 'tdec', cg: group.cg, kekVer: 1, label: bytes, ...wrap }, element };
}

export function itemOf({ label, wrap }: Pick<Victim, 'label' | 'wrap'>): RequestItem {
  return { bkId: label.bkId, wrap };
}

/** A signed request for `items`; by the group's requester unless `by` and `chain` say otherwise. */
export function ask(
  group: TestGroup,
  items: readonly RequestItem[],
  given: { readonly by?: Signer; readonly changes?: Some<CustodyRequest> } = {},
): Asked {
  const { by = group.requester, changes = {} } = given;
  const { publicKey: epk, secretKey } = generateKeyPair(random);
  const { shareGen = group.kek.shareGen } = changes;
  const encoded = encodeRequest({
    v: 1,
    reqId: random(32),
    cg: group.cg,
    kekVer: 1,
    shareGen,
    items,
    purpose: 'read',
    beat: group.beat,
    exp: group.beat + 2,
    chain: [group.capability],
    epk,
    by: by.publicKey,
    ...changes,
  });
  const hash = requestHash(encoded);
  return { items, encoded, message: signRequest(encoded, by), hash, shareGen, secretKey };
}

/** What a custodian answered, opened by who asked. */
export async function answerOf(custodian: TestCustodian, asked: Asked): Promise<CustodyAnswer> {
  return opened(custodian, asked, await custodian.answers(asked.message));
}

export function opened(custodian: TestCustodian, asked: Asked, sealed: Uint8Array): CustodyAnswer {
  const { hash: reqHash, shareGen, items, secretKey } = asked;
  const terms = { reqHash, i: custodian.i, shareGen, itemsCount: items.length };
  return openAnswer(sealed, openerOf(secretKey), { ...terms, sigPk: custodian.signer.publicKey });
}

/** What all custodians answered to the first item: `granted`, or the code of the refusal. */
export async function verdicts(group: TestGroup, asked: Asked): Promise<string[]> {
  const answers = await Promise.all(group.custodians.map((each) => answerOf(each, asked)));
  return answers.map(({ results }) => {
    const result = the(results[0]);
    return result.granted ? 'granted' : result.code;
  });
}

/** The partial in an answer's first item. */
export function partialIn({ i, results }: CustodyAnswer): Partial {
  const result = the(results[0]);
  if (!result.granted) throw new TypeError('a partial expected');
  return { index: i, D: result.D };
}

/** What the shares themselves make of any (U, V), with nobody asking what it is: the attack without the checks. */
export function byShares(
  group: TestGroup,
  { U, V }: { readonly U: Point; readonly V: Point },
  members: readonly number[],
  worlds: World | ((i: number) => World) = group.world,
): Point {
  const worldOf = typeof worlds === 'function' ? worlds : () => worlds;
  const partials = members.map((index) => ({
    index,
    D: partial(group.ristretto, the(worldOf(index).shares[index - 1]), U),
  }));
  return combine(group.ristretto, V, partials);
}
