// Custody by shares out of the safe, for when too few custodians are left: t exports of the present generation open what
// the group can open. Each is used in a process of its own (cold-share.ts); only partial decryptions meet here. It makes
// no keys: what it opens is brought to another provider (migrate.ts).

import { HoldfastError, describeError } from '../core/errors.ts';
import type { TdecKek } from '../envelope/kek.ts';
import { parseLabel } from '../envelope/label.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import type { HashGroup, Point, RandomBytes } from '../threshold/group.ts';
import { branchKeyOf, combiner } from '../threshold/tdh2.ts';
import { listsWrap } from './certificate.ts';
import type { ColdPartials, ColdTask } from './cold-share.ts';
import { matched } from './combined.ts';
import type { CustodyDirectory } from './directory.ts';
import { type FoundExport, falsehood, groupOf, misfit } from './drill.ts';
import { assertBatch, legsOf, refusedKey } from './legs.ts';
import type { KekProvider, NewKey, ProviderDescription, ProviderHealth, Unwrapped } from './provider.ts';
import { readShareHead } from './share-export.ts';

export interface ColdCustodyOptions {
  readonly directory: Pick<CustodyDirectory, 'certificate'>;
  /** The version of the key, as the group has signed it. */
  readonly kek: TdecKek;
  /** In any order, also of other versions: those that fit are used. */
  readonly exports: readonly FoundExport[];
  /** Restores one export in a process of its own and ends it. Throws what is wrong with it. */
  readonly use: (found: FoundExport, task: ColdTask) => Promise<ColdPartials>;
  /** Default: libsodium's ristretto255. */
  readonly group?: () => Promise<HashGroup>;
  readonly random: RandomBytes;
}

interface Item {
  readonly at: number;
  readonly label: Uint8Array;
  readonly wrap: ColdTask['items'][number]['wrap'] & { readonly V: Point };
}

interface Contribution {
  readonly index: number;
  readonly D: readonly Point[];
}

export class ColdCustody implements KekProvider {
  readonly kind = 'tdec';
  readonly id: string;
  readonly #options: ColdCustodyOptions;

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
    for (const [at, record] of records.entries()) {
      const found = this.#wrapOf(record);
      if (typeof found === 'string') answers.set(at, refusedKey(record, 'KEY_UNAVAILABLE', found));
      else items.push({ at, ...found });
    }
    if (items.length > 0) await this.#open(records, items, answers);
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

  async [Symbol.asyncDispose](): Promise<void> {
    // It holds nothing.
  }

  async #open(
    records: readonly BranchKeyBody[],
    items: readonly Item[],
    answers: Map<number, Unwrapped>,
  ): Promise<void> {
    const group = await groupOf(this.#options);
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

  /** Of exactly t custodians, each proven. */
  async #contributions(group: HashGroup, items: readonly Item[]): Promise<readonly Contribution[]> {
    const { kek, exports } = this.#options;
    const from: Contribution[] = [];
    const problems: string[] = [];
    for (const found of exports) {
      if (from.length === kek.t) break;
      const head = readShareHead(found.message);
      if (head.cg !== kek.cg || head.kekVer !== kek.ver) continue;
      const given = misfit(head, kek, from) ?? (await this.#contribution(group, found, head, items));
      if (typeof given === 'string') problems.push(`${found.from}: ${given}`);
      else from.push(given);
    }
    if (from.length === kek.t) return from;
    const said = [`${from.length} of ${kek.t} shares of version ${kek.ver} serve`, ...problems].join('; ');
    throw new HoldfastError('KEY_UNAVAILABLE', said, { details: { needed: kek.t, found: from.length } });
  }

  async #contribution(
    group: HashGroup,
    found: FoundExport,
    { i, by }: { readonly i: number; readonly by: Uint8Array },
    items: readonly Item[],
  ): Promise<Contribution | string> {
    const { kek, random, use } = this.#options;
    const task: ColdTask = {
      purpose: 'recovery',
      message: found.message,
      by,
      nonce: random(32),
      Y: kek.Y,
      items: items.map(({ label, wrap }) => ({ label, wrap })),
    };
    let cold: ColdPartials;
    try {
      cold = await use(found, task);
    } catch (error) {
      return describeError(error);
    }
    return falsehood(group, kek, i, task, cold) ?? { index: i, D: cold.D };
  }

  /** The wrap of a record under this version, or why there is none to open. */
  #wrapOf(record: BranchKeyBody): Pick<Item, 'label' | 'wrap'> | string {
    const { kek, directory } = this.#options;
    const wrap = legsOf(record)
      .filter((each) => each.t === 'tdec' || each.t === 'tdec-ks')
      .find(({ cg, kekVer }) => cg === kek.cg && kekVer === kek.ver);
    if (wrap === undefined) return `it has no wrap under version ${kek.ver} of group ${kek.cg}`;
    const { label, U, V } = wrap;
    if (wrap.t === 'tdec') return { label, wrap: { U, V, Ubar: wrap.Ubar, e: wrap.e, f: wrap.f } };
    const certificate = directory.certificate(wrap.cert);
    if (certificate === undefined) return 'the certificate of its rotation is not known';
    if (!listsWrap(certificate, record.bkId, wrap)) return 'the certificate of its rotation does not list it';
    return { label, wrap: { U, V } };
  }
}
