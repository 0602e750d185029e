// Custody by shares out of the safe, for when too few custodians are left: t exports of the present generation open what
// the group can open. Each is opened once, in a process of its own (cold-share.ts) that lives until this is disposed of:
// opening takes most of the time, and a recovery has many pages. Only partial decryptions meet here. It makes no keys:
// what it opens is brought to another provider (migrate.ts).

import { HoldfastError, describeError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { parseLabel } from '../envelope/label.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import type { HashGroup, Point, RandomBytes } from '../threshold/group.ts';
import { branchKeyOf, combiner, verifyWrap } from '../threshold/tdh2.ts';
import { listsWrap } from './certificate.ts';
import type { ColdItem, ColdPartials, OpenedColdShare } from './cold-share.ts';
import { matched } from './combined.ts';
import type { CustodyDirectory } from './directory.ts';
import { type FoundExport, falsehood, groupOf, misfit, type OpenExport } from './drill.ts';
import { assertBatch, legsOf, refusedKey } from './legs.ts';
import type { KekProvider, NewKey, ProviderDescription, ProviderHealth, Unwrapped } from './provider.ts';
import { readShareHead, type ShareHead } from './share-export.ts';

export interface ColdCustodyOptions {
  readonly directory: Pick<CustodyDirectory, 'certificate'>;
  /** The version of the key, as the group has signed it. */
  readonly kek: TdecKek;
  /** In any order, also of other versions: those that fit are used. */
  readonly exports: readonly FoundExport[];
  readonly open: OpenExport;
  /** Default: libsodium's ristretto255. */
  readonly group?: () => Promise<HashGroup>;
  readonly random: RandomBytes;
}

interface Item {
  readonly at: number;
  readonly label: Uint8Array;
  readonly wrap: ColdItem['wrap'] & { readonly V: Point };
}

interface Contribution {
  readonly index: number;
  readonly D: readonly Point[];
}

/** An export that has served, and whoever has it open. */
interface Seat {
  readonly found: FoundExport;
  readonly index: number;
  readonly share: OpenedColdShare;
}

export class ColdCustody implements KekProvider {
  readonly kind = 'tdec';
  readonly id: string;
  readonly #options: ColdCustodyOptions;
  /** At most t. */
  #seats: readonly Seat[] = [];
  /** Exports that do not serve, and why: they are not opened again for every page. */
  readonly #refused = new Map<FoundExport, string>();
  /** One page at a time: a share that is open has one task. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ColdCustodyOptions) {
    this.#options = options;
    this.id = `tdec:${options.kek.cg}:${options.kek.ver}, out of the safe`;
  }

  /** Throws KEY_UNAVAILABLE, always. */
  async createKey(): Promise<NewKey> {
    throw new HoldfastError('KEY_UNAVAILABLE', 'no keys are made with shares out of the safe');
  }

  /** Rejects with KEY_UNAVAILABLE saying what is wrong with each export when fewer than t serve. */
  async unwrap(records: readonly BranchKeyBody[]): Promise<readonly Unwrapped[]> {
    assertBatch(records);
    const answers = new Map<number, Unwrapped>();
    const items: Item[] = [];
    const group = await groupOf(this.#options);
    for (const [at, record] of records.entries()) {
      const found = this.#wrapOf(group, record);
      if (typeof found === 'string') answers.set(at, refusedKey(record, 'KEY_UNAVAILABLE', found));
      else items.push({ at, ...found });
    }
    if (items.length > 0) {
      const done = this.#turn.then(() => this.#open(group, records, items, answers));
      this.#turn = done.catch(() => undefined); // its caller has the error
      await done;
    }
    return records.map((record, at) => answers.get(at) ?? refusedKey(record, 'INTERNAL', 'no answer'));
  }

  describe(): ProviderDescription {
    const { t, cg, ver } = this.#options.kek;
    const text = `${t} shares of version ${ver} of group ${cg}, out of the safe: they open what is stored, and make nothing.`;
    return { kind: this.kind, production: false, text };
  }

  async health(): Promise<ProviderHealth> {
    return { ok: true, text: this.describe().text };
  }

  kek(): TdecKek {
    return this.#options.kek;
  }

  /** Ends the processes. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turn;
    const seats = this.#seats;
    this.#seats = [];
    await Promise.all(seats.map(({ share }) => share[Symbol.asyncDispose]()));
  }

  async #open(
    group: HashGroup,
    records: readonly BranchKeyBody[],
    items: readonly Item[],
    answers: Map<number, Unwrapped>,
  ): Promise<void> {
    const from = await this.#contributions(group, items);
    const combineOf = combiner(
      group,
      from.map(({ index }) => index),
    );
    try {
      for (const [place, { at, label: bytes, wrap }] of items.entries()) {
        const record = records[at];
        if (record === undefined) continue;
        const partials = from.flatMap(({ D }) => D[place] ?? []);
        const element = combineOf(wrap.V, partials);
        const label = parseLabel(bytes);
        const opened: Unwrapped = { ok: true, branchKey: branchKeyOf(element, label.bkId, label.bkVer) };
        element.fill(0);
        answers.set(at, record.combiner === 'all' ? opened : matched(record, opened));
      }
    } finally {
      for (const { D } of from) for (const point of D) point.fill(0);
    }
  }

  /** Of exactly t custodians, each proven: those that have served before, at once, and others in the place of one that fails. */
  async #contributions(group: HashGroup, items: readonly Item[]): Promise<readonly Contribution[]> {
    const { kek, exports } = this.#options;
    const asked = await Promise.all(this.#seats.map((seat) => this.#again(group, seat, items)));
    const from = asked.filter((given) => given !== undefined);
    for (const found of exports) {
      if (from.length === kek.t) return from;
      if (this.#refused.has(found) || this.#seats.some((seat) => seat.found === found)) continue;
      const head = readShareHead(found.message);
      if (head.cg !== kek.cg || head.kekVer !== kek.ver) continue;
      const given = misfit(head, kek, from) ?? (await this.#first(group, found, head, items));
      if (typeof given === 'string') this.#refused.set(found, given);
      else from.push(given);
    }
    if (from.length === kek.t) return from;
    throw this.#tooFew(from.length);
  }

  /** What was wrong may pass, a busy machine for instance: who asks again after this tries all of them again. */
  #tooFew(served: number): HoldfastError {
    const { kek } = this.#options;
    const problems = [...this.#refused].map(([found, why]) => `${found.from}: ${why}`);
    this.#refused.clear();
    const said = [`${served} of ${kek.t} shares of version ${kek.ver} serve`, ...problems].join('; ');
    return new HoldfastError('KEY_UNAVAILABLE', said, { details: { needed: kek.t, found: served } });
  }

  /** Of one that is open. One whose process has ended is opened again; one that gives false parts is not. */
  async #again(group: HashGroup, seat: Seat, items: readonly Item[]): Promise<Contribution | undefined> {
    try {
      const given = await this.#ask(group, seat.share, seat.index, items);
      if (typeof given !== 'string') return given;
      this.#refused.set(seat.found, given);
    } catch {
      // Opening it again tells what is wrong.
    }
    this.#seats = this.#seats.filter((each) => each !== seat);
    await seat.share[Symbol.asyncDispose]();
    return undefined;
  }

  /** Opens an export; it stays open once it has served. */
  async #first(
    group: HashGroup,
    found: FoundExport,
    { i: index, by }: Pick<ShareHead, 'i' | 'by'>,
    items: readonly Item[],
  ): Promise<Contribution | string> {
    const { open, kek } = this.#options;
    try {
      await using stack = new AsyncDisposableStack();
      const opening = { purpose: 'recovery', message: found.message, by, Y: kek.Y } as const;
      const share = stack.use(await open(found, opening));
      const given = await this.#ask(group, share, index, items);
      if (typeof given === 'string') return given;
      this.#seats = [...this.#seats, { found, index, share }];
      stack.move();
      return given;
    } catch (error) {
      return describeError(error);
    }
  }

  /** Its parts, or why they are not those of the share that the group has signed for. */
  async #ask(
    group: HashGroup,
    share: OpenedColdShare,
    index: number,
    items: readonly Item[],
  ): Promise<Contribution | string> {
    const { kek, random } = this.#options;
    const task = { nonce: random(32), items: items.map(({ label, wrap }) => ({ label, wrap })) };
    const cold: ColdPartials = await share.use(task);
    return falsehood(group, kek, index, task, cold) ?? { index, D: cold.D };
  }

  /** The wrap of a record under this version, or why there is none to open: a false one must not stop those beside it. */
  #wrapOf(group: HashGroup, record: BranchKeyBody): Pick<Item, 'label' | 'wrap'> | string {
    const { kek, directory } = this.#options;
    const wrap = legsOf(record)
      .filter((each) => each.t === 'tdec' || each.t === 'tdec-ks')
      .find(({ cg, kekVer }) => cg === kek.cg && kekVer === kek.ver);
    if (wrap === undefined) return `it has no wrap under version ${kek.ver} of group ${kek.cg}`;
    const { label, U, V } = wrap;
    const { cg, kekVer } = parseLabel(label);
    if (cg !== kek.cg || kekVer !== kek.ver) return 'the label of its wrap names another key';
    if (wrap.t === 'tdec') {
      const whole = { U, V, Ubar: wrap.Ubar, e: wrap.e, f: wrap.f };
      return verifyWrap(group, kek.Y, label, whole)
        ? { label, wrap: whole }
        : 'the proof of its wrap does not verify';
    }
    const certificate = directory.certificate(wrap.cert);
    if (certificate === undefined) return 'the certificate of its rotation is not known';
    if (!listsWrap(certificate, record.bkId, wrap)) return 'the certificate of its rotation does not list it';
    return { label, wrap: { U, V } };
  }
}
