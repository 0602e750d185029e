// A custody group in the place of one that has lost too many custodians. The operator's order to make the new key names
// the group that ends and why; it lies in the certificate of birth, so the end of the one is registered in the same
// moment as the key of the other, and there is nothing between the two.
//
//   operator ─signs─▶ order: make cg.2 in the place of cg ─in─▶ certificate of birth ─signed by─▶ all custodians of cg.2
//
// Whoever reads it verifies both: that the operator ordered it, and that custodians of the operator's membership made the
// key. Who has only the order, or only the registry, ends nothing.

import { CID } from '../core/block.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { sameBytes } from '../core/bytes.ts';
import type { PeerName } from '../core/rpc.ts';
import { type Fields, fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { readGroup } from '../envelope/label.ts';
import { parseKek } from '../envelope/records.ts';
import { openRecord } from '../manifest/record.ts';
import { birthProblem } from './birth.ts';
import { type BirthCertificate, parseCertificate, verifyCertificate } from './certificate.ts';
import { isSuccessorName, successorNameOf } from './group-name.ts';
import { type CustodyOrder, openOrder } from './order.ts';

/** Field of the arguments of an order to begin a group. */
export interface InPlaceOf {
  /** The group that ends. */
  readonly cg: string;
  /** Why, for people: at most `endReasonBytesMax`. */
  readonly reason: string;
  /**
   * First versions of the policies that groups before this one had, at most `policiesMax`: content keeps the policy that
   * it was sealed under, and is judged by the newest version of this group's from now on.
   */
  readonly policies: readonly CID[];
}

/** A group that has come into the place of another. */
export interface Succession {
  /** The group that has ended. */
  readonly of: string;
  /** The one in its place. */
  readonly to: string;
  readonly reason: string;
  /** Policies of groups before it that the new one takes over. */
  readonly policies: readonly CID[];
  /** Beat at which the key of the new one was made. */
  readonly beat: number;
}

const endReasonBytesMax = 256;
const policiesMax = 16;
/** Groups of which a first record is kept while their certificate has not come: both come in one entry. */
const waitingMax = 16;

/** What an order to begin group `cg` says of the one before it. Throws RECORD_INVALID for a place that is not its own. */
export function readInPlaceOf(fields: Fields, cg: string): InPlaceOf {
  const inner = fieldsOf(fields.any('inPlaceOf'), 'order.args.inPlaceOf', ['cg', 'reason', 'policies']);
  const ended = readGroup(inner, 'cg');
  const reason = inner.text('reason', endReasonBytesMax);
  if (reason.trim() === '') inner.refuse('reason', 'a reason expected');
  if (successorNameOf(ended) !== cg)
    inner.refuse('cg', `the group in the place of ${ended} is named ${successorNameOf(ended)}, not ${cg}`);
  const policies = inner.list('policies', policiesMax).map((value, at) => {
    // Not CID.asCID: that also takes a crafted map for a CID.
    return value instanceof CID ? value : inner.refuse('policies', `a CID expected in place ${at}`);
  });
  return { cg: ended, reason, policies };
}

/** The same out of an order; undefined for one that ends nothing. Throws RECORD_INVALID. */
export function inPlaceOf({ op, cg, args }: CustodyOrder): InPlaceOf | undefined {
  if (op !== 'init' || args['inPlaceOf'] === undefined) return undefined;
  return readInPlaceOf(fieldsOf({ inPlaceOf: args['inPlaceOf'] }, 'order.args', ['inPlaceOf']), cg);
}

/** The same of a group that is believed already, by the certificate of its birth; none for the first one of a cluster. */
export function policiesTakenOver(birth: BirthCertificate): readonly CID[] {
  return birth.order === undefined ? [] : (inPlaceOf(openOrder(birth.order).order)?.policies ?? []);
}

/** What the certificate of a group's birth says of the group before it; undefined when `operator` has not ordered it. */
export function successionOf(birth: BirthCertificate, operator: Uint8Array): Succession | undefined {
  if (birth.order === undefined) return undefined;
  try {
    const { order } = openOrder(birth.order);
    const ended = inPlaceOf(order);
    if (ended === undefined || order.cg !== birth.cg || !sameBytes(order.by, operator)) return undefined;
    const { reason, policies } = ended;
    return { of: ended.cg, to: birth.cg, reason, policies, beat: birth.beat };
  } catch (error) {
    if (error instanceof HoldfastError) return undefined; // it says nothing that could be believed
    throw error;
  }
}

export interface SuccessionTerms {
  /** Ed25519 key of the operator of the cluster. */
  readonly operator: Uint8Array;
  /** Custodians that the operator's membership names, with their Ed25519 keys. */
  readonly custodians: () => ReadonlyMap<PeerName, Uint8Array>;
}

/** Which groups have ended, out of the records of custody as they come. */
export class Successions {
  readonly #terms: SuccessionTerms;
  readonly #waiting = new Map<string, TdecKek>();
  /** By the name of the group that has come. */
  readonly #come = new Map<string, Succession>();

  constructor(terms: SuccessionTerms) {
    this.#terms = terms;
  }

  /**
   * The group in the place of `cg`, the latest of them; undefined while that stands. Those between may have been made by
   * custodians that nobody knows any more.
   */
  of(cg: string): Succession | undefined {
    const later = [...this.#come.values()].filter(({ to }) => isSuccessorName(to, cg));
    return later.reduce<Succession | undefined>(
      (latest, each) => (latest === undefined || isSuccessorName(each.to, latest.to) ? each : latest),
      undefined,
    );
  }

  /** Takes one record, as the registry gives them. Never throws for one that is no good: that ends nothing. */
  take({ key, bytes }: { readonly key: string; readonly bytes: Uint8Array }): void {
    if (!/^(?:kek\/[^/]+\/1|cert\/[^/]+\/1\/1)$/.test(key)) return;
    try {
      const { body } = openRecord(bytes);
      if (body.kind === 'kek') this.#takeFirst(body);
      else if (body.kind === 'certificate') this.#takeBirth(body);
    } catch (error) {
      if (!isHoldfastError(error)) throw error;
    }
  }

  #takeFirst(body: unknown): void {
    const kek = parseKek(body);
    if (kek.provider !== 'tdec' || kek.ver !== 1 || kek.seq !== 1) return;
    this.#waiting.delete(kek.cg);
    this.#waiting.set(kek.cg, kek);
    const [oldest] = this.#waiting.keys();
    if (oldest !== undefined && this.#waiting.size > waitingMax) this.#waiting.delete(oldest);
  }

  #takeBirth(body: unknown): void {
    const birth = parseCertificate(body);
    if (birth.what !== 'birth') return;
    const first = this.#waiting.get(birth.cg);
    const succession = successionOf(birth, this.#terms.operator);
    if (first === undefined || succession === undefined) return;
    const isBorn =
      verifyCertificate(birth, first.frostPk) &&
      birthProblem(first, birth, this.#terms.custodians()) === undefined;
    if (isBorn) this.#come.set(succession.to, succession);
  }
}
