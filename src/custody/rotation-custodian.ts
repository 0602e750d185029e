// A custodian's part in moving branch keys to the next version of its group's key, and in ending the old one.
//
//   switch   hello   from which version to which      open    a page: each wrap proven or listed, a leaf in the
//            commit  nonces for its certificate               audit log, and then our contribution, if we are asked
//            sign    a share of the signature         certify all contributions: each verified, the certificate
//                                                             computed from them
//   change   hello   what is to become of a version   propose  our vote for the record, as we compute it ourselves;
//                                                             then what is agreed on by (ceremony-ballot.ts)
//
// It signs a page only when it has itself verified every wrap and every contribution in it: a certificate makes a
// wrap openable, so one that nobody checked would make of the custodians whatever its author likes.

import { concat } from '../core/bytes.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { custodiansMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { TdecKek } from '../envelope/kek.ts';
import type { HashGroup } from '../threshold/group.ts';
import {
  applySwitch,
  contribute,
  type Contribution,
  readContribution,
  type SwitchItem,
  type SwitchPage,
} from '../threshold/key-switch.ts';
import type { CustodyBook } from './book.ts';
import { headsOf } from './ballot.ts';
import { activeOf, Poll } from './ceremony-ballot.ts';
import type { CeremonyDesk, OwnShares, Session } from './ceremony-desk.ts';
import { committed, keySetOfEntry, Signing } from './ceremony-signing.ts';
import type { Begin } from './ceremony-steps.ts';
import { certificatePreimage } from './certificate.ts';
import { isSealed } from './custodian.ts';
import { keepEnded } from './ended.ts';
import { eraseVersion } from './erase-version.ts';
import { beginRotate } from './rotation-keygen.ts';
import {
  destroyTooEarly,
  type DestroyWaits,
  destroyWaits,
  lastUseOf,
  noteVersions,
  versionsOf,
} from './rotation-marks.ts';
import {
  certifiedPage,
  contributionBytesMax,
  parsePage,
  type RotationPage,
  switchable,
  switchPage,
} from './rotation-page.ts';
import { changedKeks, changeProblem, keyChanges } from './rotation-plan.ts';
import type { ShareEntry } from './share-state.ts';

/** What the rotation asks of a custodian beside its desk. */
export interface RotationDuties {
  /** Beat at which this custodian last gave a key of that version to somebody; 0 for never since its start. */
  readonly lastUse: (cg: string, kekVer: number) => number;
  /** Default: `destroyWaits`. */
  readonly waits?: DestroyWaits;
}

/** Wraps verified between two breaths: about 5 ms. */
const sliceItems = 8;
/** Pages that a custodian works on at once: each is some hundred kilobytes. */
const pagesOpenMax = 4;

/** The protocols of a rotation, by name. */
export function rotationProtocols(duties: RotationDuties): Readonly<Record<string, Begin>> {
  return {
    rotate: beginRotate,
    switch: beginSwitch,
    change: (desk, payload) => beginChange(desk, duties, payload),
  };
}

async function beginSwitch(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'switch.hello', ['cg', 'fromVer', 'toVer']);
  const [cg, fromVer, toVer] = [
    fields.text('cg', 64),
    fields.integer('fromVer', 1),
    fields.integer('toVer', 2),
  ];
  await desk.ports.follow();
  const book = bookOf(desk, cg);
  const [from, to] = [book.kek(fromVer), book.kek(toVer)];
  requireOpen(desk, cg);
  if (from === undefined || (from.state !== 'decrypt-only' && from.state !== 'retired'))
    throw new HoldfastError(
      'FORBIDDEN',
      `version ${fromVer} is ${from?.state ?? 'not known here'}: its keys stay`,
    );
  if (to?.state !== 'active' || to.ver <= from.ver)
    throw new HoldfastError(
      'FORBIDDEN',
      `version ${toVer} is ${to?.state ?? 'not known here'}: no keys move to it`,
    );
  const { kek: group } = await desk.ports.groups();
  const part = new SwitchPart({ desk, group, book, from, to, own: desk.own(to) });
  return part.session();
}

/** A page on its way here. */
interface OpenedPage {
  readonly page: RotationPage;
  readonly switching: SwitchPage;
  /** Our own contribution, when we made one: it needs no verification. */
  readonly own: { readonly bytes: Uint8Array; readonly read: Contribution } | undefined;
  signing?: Signing;
}

interface SwitchTerms {
  readonly desk: CeremonyDesk;
  readonly group: HashGroup;
  readonly book: CustodyBook;
  readonly from: TdecKek;
  readonly to: TdecKek;
  /** Our shares of the new version, by which we sign; who has none may still contribute. */
  readonly own: OwnShares | undefined;
}

class SwitchPart {
  readonly #terms: SwitchTerms;
  readonly #pages = new Map<number, OpenedPage>();

  constructor(terms: SwitchTerms) {
    this.#terms = terms;
  }

  session(): Session {
    const { from, own } = this.#terms;
    const share = this.#share();
    return {
      cg: from.cg,
      begun: { from: share?.index ?? 0, to: own?.frost.index ?? 0 },
      steps: {
        open: (payload) => this.#openPage(payload),
        certify: (payload) => this.#certify(payload),
        commit: (payload) => this.#commit(payload),
        sign: (payload) => this.#sign(payload),
        learn: () => this.#learn(),
      },
      close: () => {
        for (const { signing } of this.#pages.values()) signing?.close();
        this.#pages.clear();
      },
    };
  }

  async #openPage(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'switch.open', ['page', 'contribute']);
    const page = parsePage(fields.any('page'));
    const { desk, group, from, to } = this.#terms;
    if (page.cg !== from.cg || page.fromVer !== from.ver || page.toVer !== to.ver)
      throw new HoldfastError('RECORD_INVALID', 'the page is of another rotation');
    requireOpen(desk, from.cg);
    const switching = switchPage(group, page, from, to, await this.#items(page));
    const share = fields.boolean('contribute') ? this.#share() : undefined;
    await this.#note(page, share === undefined ? 'verified' : 'moved');
    const own = share === undefined ? undefined : await this.#contribute(switching, share);
    this.#keep({ page, switching, own });
    return { contribution: own?.bytes ?? null };
  }

  async #items({ items }: RotationPage): Promise<SwitchItem[]> {
    const { group, from, to, book } = this.#terms;
    const { takenOver } = book;
    const terms = { group, from, to, takenOver, certificate: book.certificate.bind(book) };
    const out: SwitchItem[] = [];
    for (const [at, item] of items.entries()) {
      if (at % sliceItems === sliceItems - 1) await breath();
      out.push(switchable(terms, item));
    }
    return out;
  }

  async #contribute(switching: SwitchPage, entry: ShareEntry) {
    const { desk, group, from } = this.#terms;
    const ref = { cg: from.cg, kekVer: from.ver, gen: from.shareGen };
    const { secret } = await desk.ports.shares.openShare(ref, 'kek');
    try {
      const bytes = contribute(group, switching, entry.index, secret, desk.ports.random);
      return { bytes, read: ownContribution(switching, entry.index, bytes) };
    } finally {
      secret.fill(0);
    }
  }

  async #certify(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'switch.certify', ['n', 'contributions']);
    const opened = this.#opened(fields.integer('n', 1));
    const { desk, group, to, own } = this.#terms;
    if (own === undefined) throw new HoldfastError('KEY_UNAVAILABLE', 'no share of the new key is here');
    const given = fields.list('contributions', custodiansMax).map((row, at) => {
      const one = fieldsOf(row, `switch.contributions[${at}]`, ['index', 'bytes']);
      return {
        index: one.integer('index', 1, custodiansMax),
        bytes: one.bytesUpTo('bytes', contributionBytesMax),
      };
    });
    const read: Contribution[] = [];
    for (const { index, bytes } of given) {
      await breath();
      const isOwn = opened.own?.read.index === index && Buffer.compare(opened.own.bytes, bytes) === 0;
      const one = isOwn ? opened.own?.read : readContribution(group, opened.switching, index, bytes);
      if (one === undefined)
        throw new HoldfastError('RECORD_INVALID', `the contribution of custodian ${index} does not verify`, {
          details: { culprit: index },
        });
      read.push(one);
    }
    const { certificate } = certifiedPage(opened.page, applySwitch(group, opened.switching, read), given);
    opened.signing?.close();
    opened.signing = new Signing(
      desk,
      { cg: to.cg, kekVer: to.ver, gen: to.shareGen },
      own.frost.index,
      keySetOfEntry(own.frost),
      [certificatePreimage(certificate)],
    );
    await desk.note(
      'sign',
      { cg: to.cg, kekVer: to.ver, shareGen: to.shareGen },
      `page ${opened.page.n} of a rotation`,
    );
    return {};
  }

  async #commit(payload: unknown): Promise<unknown> {
    const { own } = this.#terms;
    const { signing } = this.#opened(fieldsOf(payload, 'switch.commit', ['n']).integer('n', 1));
    if (signing === undefined || own === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', 'this page was not certified here');
    return committed(signing, own.frost);
  }

  async #sign(payload: unknown): Promise<unknown> {
    const fields = fieldsOf(payload, 'switch.sign', ['n', 'commitments']);
    const n = fields.integer('n', 1);
    const { signing } = this.#opened(n);
    if (signing === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', 'this page was not certified here');
    return signing.sign({ commitments: fields.any('commitments') });
  }

  /** Certificates must be known here before anybody asks for what they list. */
  async #learn(): Promise<unknown> {
    await this.#terms.desk.ports.follow();
    return {};
  }

  #share(): ShareEntry | undefined {
    const { desk, from } = this.#terms;
    return desk.own(from)?.kek;
  }

  #opened(n: number): OpenedPage {
    const found = this.#pages.get(n);
    if (found !== undefined) return found;
    throw new HoldfastError('ARGUMENT_INVALID', `page ${n} is not open here`);
  }

  #keep(opened: OpenedPage): void {
    this.#pages.delete(opened.page.n);
    this.#pages.set(opened.page.n, opened);
    const [oldest] = this.#pages.keys();
    if (oldest === undefined || this.#pages.size <= pagesOpenMax) return;
    this.#pages.get(oldest)?.signing?.close();
    this.#pages.delete(oldest);
  }

  /** On the disk before a contribution leaves. Throws KEY_UNAVAILABLE: then none does. */
  async #note({ items, n, fromVer, toVer }: RotationPage, what: string): Promise<void> {
    const { desk, from } = this.#terms;
    const empty = new Uint8Array(0);
    try {
      await desk.ports.log.append({
        op: 'rotate',
        beat: desk.ports.beat().beat,
        at: desk.ports.now(),
        cg: from.cg,
        kekVer: from.ver,
        shareGen: from.shareGen,
        reqHash: empty,
        requester: empty,
        capRoot: empty,
        labels: sha256(concat(...items.map(({ wrap }) => wrap.label))),
        purpose: 'rotate',
        items: items.map(({ bkId }) => ({ bkId, granted: true })),
        decision: 'granted',
        reason: `page ${n} ${what}, version ${fromVer} to ${toVer}`,
      });
    } catch (cause) {
      throw new HoldfastError(
        'KEY_UNAVAILABLE',
        `no key moves that is not written down: ${describeError(cause)}`,
        {
          cause,
        },
      );
    }
  }
}

/** A change in the life of a version, signed when its time has come by our own records and clock. */
async function beginChange(desk: CeremonyDesk, duties: RotationDuties, payload: unknown): Promise<Session> {
  const fields = fieldsOf(payload, 'change.hello', ['cg', 'change', 'ver']);
  const [cg, ver] = [fields.text('cg', 64), fields.integer('ver', 1)];
  const change = fields.oneOf('change', keyChanges);
  await desk.ports.follow();
  requireOpen(desk, cg);
  const { ports } = desk;
  const allowed = async (): Promise<TdecKek[]> => {
    await noteVersions(desk, cg, duties.lastUse);
    const keks = versionsOf(bookOf(desk, cg));
    const lastUse = lastUseOf(desk, cg, ver, duties.lastUse(cg, ver));
    const problem = changeProblem(change, ver, keks, ports.beat(), ports.beatsPerBar(), lastUse);
    if (problem === undefined) return keks;
    throw new HoldfastError('FORBIDDEN', problem);
  };
  const keks = await allowed();
  const wasUsed = keks.some((kek) => kek.ver === ver && kek.state !== 'pre-active');
  const early =
    change === 'destroy' && wasUsed
      ? destroyTooEarly(desk, cg, ver, duties.waits ?? destroyWaits)
      : undefined;
  if (early !== undefined) return { cg, begun: { early }, steps: {}, close: () => undefined };
  const active = activeOf(keks);
  if (change === 'activate') requireShare(desk, keks, ver);
  const poll = new Poll(desk, { active, own: () => desk.own(active), heads: headsOf(keks), leftOut: 0 });
  return {
    cg,
    begun: { early: null },
    steps: {
      propose: async () => {
        // Time has passed since the session began.
        const now = await allowed();
        return poll.propose({ keks: changedKeks(change, ver, now), certificates: [] });
      },
      ...poll.steps(),
    },
    close: () => poll.close(),
  };
}

/** A key whose share is not here is not for us to put in use: with too few that have it, nothing could be opened. */
function requireShare(desk: CeremonyDesk, keks: readonly TdecKek[], ver: number): void {
  const kek = keks.find((each) => each.ver === ver);
  if (kek === undefined || desk.own(kek) === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', `no share of version ${ver} is active here`);
}

/**
 * What a beat brings: writes down what is new about versions on their way out, and erases the shares of every one
 * that the group has declared destroyed, and of a group that ended a day ago. A version that is only retired keeps them:
 * its end is not signed yet.
 */
export async function keepVersions(
  desk: Pick<CeremonyDesk, 'ports' | 'note'>,
  lastUse: RotationDuties['lastUse'],
): Promise<void> {
  const { books } = desk.ports;
  for (const cg of books.groups()) await noteVersions(desk, cg, lastUse);
  await eraseDestroyed(desk);
  await keepEnded(desk, destroyWaits.scheduledMs);
}

/** Written down, then erased for good; also by who was away, or has left, and hears of it only now. */
async function eraseDestroyed(desk: Pick<CeremonyDesk, 'ports' | 'note'>): Promise<void> {
  const { shares, books } = desk.ports;
  for (const cg of books.groups())
    for (const kekVer of shares.versions(cg))
      if (books.book(cg)?.kek(kekVer)?.state === 'destroyed')
        await eraseVersion(desk, { cg, kekVer }, 'the version is destroyed');
}

function bookOf(desk: CeremonyDesk, cg: string): CustodyBook {
  const book = desk.ports.books.book(cg);
  const problem = desk.ports.books.problem(cg);
  if (book !== undefined && problem === undefined) return book;
  throw new HoldfastError('KEY_UNAVAILABLE', problem ?? `group ${cg} is not known here`);
}

function requireOpen(desk: CeremonyDesk, cg: string): void {
  desk.requireStanding(cg);
  if (isSealed(desk.ports.shares, cg))
    throw new HoldfastError('FORBIDDEN', 'this custodian is sealed; an operator must unseal it');
  const { lost } = desk.ports.beat();
  if (lost !== undefined) throw new HoldfastError('FORBIDDEN', `time is not known: ${lost}`);
}

/** What we have just computed ourselves, read as others read it. */
function ownContribution(page: SwitchPage, index: number, bytes: Uint8Array): Contribution {
  const point = (at: number): Uint8Array => bytes.subarray(32 * at, 32 * at + 32);
  return {
    index,
    R: page.items.map((_, at) => point(2 * at)),
    W: page.items.map((_, at) => point(2 * at + 1)),
  };
}

/** Requests of readers come between two slices of arithmetic. */
function breath(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
