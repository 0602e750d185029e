// The pages of a rotation on the coordinator's side: take some keys that are under the old version, have them
// switched and certified, file them, and so on until none is left.
//
//   open at each ─▶ contributions of the quorum ─▶ verified by each signer ─▶ certificate, filed
//        ─▶ all custodians read it ─▶ the switched records, filed in groups by compare-and-set
//
// The certificate is known to the custodians before a record points at it, so that a reader is never refused. The
// coordinator verifies nothing: each custodian that signs does, and whoever was wrong is named and left out. A record
// that somebody changed meanwhile is left as it is; if it is still under the old version, it comes up again.

import type { CID } from '../core/block.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { appendRecordsMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { encodeLabel, parseLabel, switchedLabel } from '../envelope/label.ts';
import type { BkWrap, BranchKeyBody, DirectEnvelope } from '../envelope/records.ts';
import type { SwitchedWrap } from '../envelope/wraps.ts';
import { type RecordBody, type SignedRecord, signRecord } from '../manifest/record.ts';
import {
  applySwitch,
  type Contribution,
  readContribution,
  type SwitchItem,
  type SwitchPage,
} from '../threshold/key-switch.ts';
import type { CustodyGroups } from './ceremony.ts';
import { certificatePreimage, parseCertificate } from './certificate.ts';
import type { RotationRegistry } from './rotation-coordinator.ts';
import {
  certifiedPage,
  contributionBytesMax,
  encodePage,
  firstPage,
  type PageItem,
  type RotationPage,
  switchPage,
} from './rotation-page.ts';
import { groupSignatures, type Signatory } from './rotation-signing.ts';

/** The newest record of a branch key, or of an envelope with a key of its own. */
export interface StoredWraps {
  readonly cid: CID;
  readonly body: BranchKeyBody | DirectEnvelope;
}

export interface PageKit {
  readonly cg: string;
  readonly registry: RotationRegistry;
  readonly signer: Signer;
  readonly beat: () => number;
  readonly groups: CustodyGroups;
  readonly from: TdecKek;
  readonly to: TdecKek;
  readonly pageItems: number;
  readonly members: readonly Signatory[];
}

/** A custodian in the session, with its index in either version; 0 where it has no share. */
interface Mover extends Signatory {
  readonly from: number;
  readonly to: number;
}

/** An item with the record that it is from. */
interface Due extends PageItem {
  readonly stored: StoredWraps;
}

/** A contribution as its custodian sent it. */
interface Given {
  readonly index: number;
  readonly bytes: Uint8Array;
}

interface Certified {
  readonly record: SignedRecord<RecordBody>;
  readonly switched: readonly SwitchItem[];
  readonly proofs: readonly (readonly Uint8Array[])[];
}

/** Every custodian may fail once, and others file certificates of the same version now and then. */
const attemptsMax = 40;

export class SwitchRun {
  readonly #kit: PageKit;
  #movers: readonly Mover[] = [];
  readonly #out: string[] = [];

  constructor(kit: PageKit) {
    this.#kit = kit;
  }

  /** Switches what is under the old version now. Throws KEY_UNAVAILABLE when too few custodians take part. */
  async run(signal: AbortSignal): Promise<void> {
    const { registry, from, pageItems } = this.#kit;
    this.#movers = await this.#greet();
    let filing: Promise<void> = Promise.resolve();
    let after: string | undefined;
    try {
      do {
        signal.throwIfAborted();
        const found = await registry.wrapsUnder(from.ver, pageItems, after);
        const due = found.items.flatMap((stored) => this.#dueOf(stored));
        for (let rest = due; rest.length > 0; ) {
          const items = firstPage(rest);
          rest = rest.slice(items.length);
          const certified = await this.#certify(items, signal);
          // The next page is computed while this one is filed.
          await filing;
          filing = this.#file(items, certified, signal);
          filing.catch(() => undefined); // awaited below
        }
        after = found.next;
      } while (after !== undefined);
    } finally {
      await filing;
    }
  }

  async #greet(): Promise<Mover[]> {
    const { cg, from, to, members } = this.#kit;
    const payload = { cg, fromVer: from.ver, toVer: to.ver };
    const done = await Promise.allSettled(members.map(({ ask }) => ask('hello', payload)));
    return members.flatMap((member, at) => {
      const outcome = done[at];
      if (outcome?.status === 'fulfilled') {
        const fields = fieldsOf(outcome.value, 'switch.hello', ['from', 'to']);
        return [{ ...member, from: fields.integer('from', 0, from.n), to: fields.integer('to', 0, to.n) }];
      }
      this.#out.push(`${member.name}: ${describeError(outcome?.reason)}`);
      return [];
    });
  }

  #dueOf(stored: StoredWraps): Due[] {
    const { cg, from } = this.#kit;
    return wrapsOf(stored.body).flatMap((wrap) => {
      if (wrap.t !== 'tdec' && wrap.t !== 'tdec-ks') return [];
      return wrap.cg === cg && wrap.kekVer === from.ver
        ? [{ bkId: parseLabel(wrap.label).bkId, wrap, stored }]
        : [];
    });
  }

  /** The page with its certificate filed, by whoever is left when somebody fails. */
  async #certify(items: readonly Due[], signal: AbortSignal): Promise<Certified> {
    for (let attempts = 0; attempts < attemptsMax; attempts++) {
      signal.throwIfAborted();
      const done = await this.#tryPage(items, signal);
      if (done !== undefined) return done;
    }
    throw new HoldfastError('VERSION_CONFLICT', `a page of the rotation came too late ${attemptsMax} times`);
  }

  async #tryPage(items: readonly Due[], signal: AbortSignal): Promise<Certified | undefined> {
    const { registry, signer, from, to, groups } = this.#kit;
    const contributors = this.#need(from.t, ({ from: index }) => index > 0).toSorted(
      (a, b) => a.from - b.from,
    );
    const signers = this.#signers();
    const last = await registry.lastCertificate(to.ver);
    const page: RotationPage = {
      cg: this.#kit.cg,
      fromVer: from.ver,
      toVer: to.ver,
      n: (last?.n ?? 0) + 1,
      prev: last?.cid ?? null,
      beat: this.#kit.beat(),
      quorum: contributors.map(({ from: index }) => index),
      items,
    };
    const opened = await this.#open(page, contributors, signers);
    if (opened === undefined) return undefined;
    const switching = this.#switching(page);
    if (!(await this.#verified(signers, switching, page.n, opened))) return undefined;
    const read = opened.map(({ index, bytes }) => pointsOf(index, bytes, items.length));
    const switched = applySwitch(groups.kek, switching, read);
    const { certificate, proofs } = certifiedPage(page, switched, opened);
    const extra = { n: page.n };
    const [frostSig] = await groupSignatures(
      groups.frost,
      to,
      signers,
      [certificatePreimage(certificate)],
      extra,
    );
    const body = parseCertificate({ ...certificate, writer: signer.publicKey, frostSig });
    const record = signRecord(body, signer);
    // Another certificate of this version came in between: the page is made again behind it.
    return (await registry.append([record], signal)) ? { record, switched, proofs } : undefined;
  }

  /** Contributions in order of the quorum; undefined when somebody failed and is left out from now on. */
  async #open(page: RotationPage, contributors: readonly Mover[], signers: readonly Mover[]) {
    const asked = [...contributors, ...signers.filter((each) => !contributors.includes(each))];
    const encoded = encodePage(page);
    const done = await Promise.allSettled(
      asked.map((mover) => mover.ask('open', { page: encoded, contribute: contributors.includes(mover) })),
    );
    const contributions: Given[] = [];
    for (const [at, outcome] of done.entries()) {
      const mover = asked[at];
      if (mover === undefined) continue;
      if (outcome.status === 'rejected') this.#drop(mover, outcome.reason);
      else if (contributors.includes(mover)) {
        const fields = fieldsOf(outcome.value, 'switch.open', ['contribution']);
        contributions.push({
          index: mover.from,
          bytes: fields.bytesUpTo('contribution', contributionBytesMax),
        });
      }
    }
    return done.every(({ status }) => status === 'fulfilled') ? contributions : undefined;
  }

  /** True when all signers verified all contributions. Else who was wrong is left out: one who accuses falsely, too. */
  async #verified(
    signers: readonly Mover[],
    switching: SwitchPage,
    n: number,
    contributions: readonly Given[],
  ): Promise<boolean> {
    const done = await Promise.allSettled(signers.map(({ ask }) => ask('certify', { n, contributions })));
    for (const [at, outcome] of done.entries()) {
      const signer = signers[at];
      if (outcome.status === 'fulfilled' || signer === undefined) continue;
      const culprit = isHoldfastError(outcome.reason) ? outcome.reason.details['culprit'] : undefined;
      const given = contributions.find(({ index }) => index === culprit);
      const liar = this.#movers.find(({ from }) => from === given?.index);
      const isLie = given !== undefined && liar !== undefined && this.#isFalse(switching, given);
      this.#drop(isLie ? liar : signer, outcome.reason);
    }
    return done.every(({ status }) => status === 'fulfilled');
  }

  #isFalse(switching: SwitchPage, { index, bytes }: Given): boolean {
    return readContribution(this.#kit.groups.kek, switching, index, bytes) === undefined;
  }

  /** The page as the proofs are about it. The signers verify where its wraps come from. */
  #switching(page: RotationPage): SwitchPage {
    const { groups, from, to } = this.#kit;
    const items = page.items.map(({ bkId, wrap }) => {
      const label = encodeLabel(switchedLabel(parseLabel(wrap.label), to.ver));
      return { bkId, label, U: wrap.U, V: wrap.V };
    });
    return switchPage(groups.kek, page, from, to, items);
  }

  async #file(items: readonly Due[], certified: Certified, signal: AbortSignal): Promise<void> {
    const { registry } = this.#kit;
    await Promise.allSettled(this.#movers.map(({ ask }) => ask('learn', {})));
    const records = items.map((due, at) => this.#successor(due, certified, at));
    for (let at = 0; at < records.length; at += appendRecordsMax) {
      const group = records.slice(at, at + appendRecordsMax);
      if (await registry.append(group, signal)) continue;
      // Somebody changed one of them: that one is left, the others are not to wait for it.
      for (const record of group) await registry.append([record], signal);
    }
  }

  #successor(
    { stored, wrap }: Due,
    { record, switched, proofs }: Certified,
    at: number,
  ): SignedRecord<RecordBody> {
    const { signer, to } = this.#kit;
    const item = switched[at];
    if (item === undefined)
      throw new HoldfastError('INTERNAL', 'a page with fewer wraps than it was made of');
    const { label, U, V } = item;
    const { cid: prev, body } = stored;
    const next: SwitchedWrap = {
      t: 'tdec-ks',
      cg: to.cg,
      kekVer: to.ver,
      label,
      U,
      V,
      cert: record.cid,
      index: at,
      proof: proofs[at] ?? [],
      prev,
    };
    const wraps = wrapsOf(body).map((each) => (each === wrap ? next : each));
    const head = { writer: signer.publicKey, prev };
    // Its fields are read when the registry opens it, before anything is filed.
    if (body.kind === 'branch-key')
      return signRecord({ ...body, ...head, bkVer: body.bkVer + 1, wraps }, signer);
    return signRecord({ ...body, ...head, envVer: body.envVer + 1, key: { ...body.key, wraps } }, signer);
  }

  /** Signers that contribute too verify one contribution less: they come first. */
  #signers(): readonly Mover[] {
    const { from, to } = this.#kit;
    const quorum = new Set(this.#need(from.t, ({ from: index }) => index > 0));
    const able = this.#movers.filter(({ to: index }) => index > 0);
    const ordered = [...able.filter((each) => quorum.has(each)), ...able.filter((each) => !quorum.has(each))];
    if (ordered.length < to.t) throw this.#tooFew(to.t, ordered.length);
    return ordered.slice(0, to.t);
  }

  #need(count: number, able: (mover: Mover) => boolean): readonly Mover[] {
    const found = this.#movers.filter(able).slice(0, count);
    if (found.length === count) return found;
    throw this.#tooFew(count, found.length);
  }

  #drop(mover: Mover, why: unknown): void {
    if (!this.#movers.includes(mover)) return;
    this.#movers = this.#movers.filter((each) => each !== mover);
    this.#out.push(`${mover.name}: ${describeError(why)}`);
  }

  #tooFew(needed: number, there: number): HoldfastError {
    return new HoldfastError(
      'KEY_UNAVAILABLE',
      `moving keys needs ${needed} custodians, ${there} take part; ${this.#out.join(', ')}`,
    );
  }
}

function wrapsOf(body: BranchKeyBody | DirectEnvelope): readonly BkWrap[] {
  return body.kind === 'branch-key' ? body.wraps : body.key.wraps;
}

/** The points of a contribution, whose proof others verify. */
function pointsOf(index: number, bytes: Uint8Array, count: number): Contribution {
  const point = (at: number): Uint8Array => bytes.subarray(32 * at, 32 * at + 32);
  const each = Array.from({ length: count }, (_, at) => at);
  return { index, R: each.map((at) => point(2 * at)), W: each.map((at) => point(2 * at + 1)) };
}
