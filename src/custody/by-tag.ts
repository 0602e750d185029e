// Custodians beside a development key file, for a cluster that has moved from one to the other: each record is opened
// by whoever wrapped it, and new keys are made by one of the two.

import { HoldfastError } from '../core/errors.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { assertBatch, refusedKey } from './legs.ts';
import type {
  KekProvider,
  ProviderDescription,
  ProviderHealth,
  Unwrapped,
  UnwrapRequest,
} from './provider.ts';

export interface ByTagOptions {
  readonly custodians: KekProvider;
  /** Undefined where there never was one. */
  readonly file: KekProvider | undefined;
  /** True once the custodians are to make the keys, be they able to or not: nothing falls back to the file by itself. */
  readonly custodiansMake: () => boolean;
}

/** A provider that opens by the tag of the wrap. Owns both. */
export function byTag(options: ByTagOptions): KekProvider {
  return new ByTag(options);
}

class ByTag implements KekProvider {
  readonly #options: ByTagOptions;

  constructor(options: ByTagOptions) {
    this.#options = options;
  }

  get id(): string {
    return this.#maker().id;
  }

  get kind(): string {
    return this.#maker().kind;
  }

  createKey(scope: Parameters<KekProvider['createKey']>[0]): ReturnType<KekProvider['createKey']> {
    return this.#maker().createKey(scope);
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    assertBatch(records);
    const { custodians, file } = this.#options;
    const answers = new Map<number, Unwrapped>();
    await ask(custodians, records, placesOf(records, isCustodians), request, answers);
    const left = placesOf(records, isFile).filter((at) => answers.get(at)?.ok !== true);
    if (file !== undefined) await ask(file, records, left, request, answers);
    return records.map(
      (record, at) =>
        answers.get(at) ??
        refusedKey(record, 'KEY_UNAVAILABLE', 'neither the custodians nor a key file of here wrapped it'),
    );
  }

  describe(): ProviderDescription {
    const maker = this.#maker();
    const { file } = this.#options;
    const { kind, production, text } = maker.describe();
    if (file === undefined || maker === file) return { kind, production, text };
    return {
      kind,
      production,
      text: `${text} What was stored before is still under a development key file: move it with \`holdfast custody migrate\`.`,
    };
  }

  async health(): Promise<ProviderHealth> {
    return this.#maker().health();
  }

  kek(): ReturnType<KekProvider['kek']> {
    return this.#maker().kek();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#options.custodians[Symbol.asyncDispose]();
    await this.#options.file?.[Symbol.asyncDispose]();
  }

  #maker(): KekProvider {
    const { custodians, file, custodiansMake } = this.#options;
    if (custodiansMake()) return custodians;
    if (file !== undefined) return file;
    throw new HoldfastError('KEY_UNAVAILABLE', 'this cluster has no custodians and no development key file');
  }
}

async function ask(
  provider: KekProvider,
  records: readonly BranchKeyBody[],
  places: readonly number[],
  request: UnwrapRequest,
  answers: Map<number, Unwrapped>,
): Promise<void> {
  if (places.length === 0) return;
  const wanted = places.flatMap((at) => records[at] ?? []);
  const given = await provider.unwrap(wanted, request);
  for (const [index, at] of places.entries()) {
    const answer = given[index];
    // What the custodians said is worth more than that a file of here does not know it either.
    if (answer !== undefined && (answer.ok || !answers.has(at))) answers.set(at, answer);
  }
}

function placesOf(
  records: readonly BranchKeyBody[],
  takes: (record: BranchKeyBody) => boolean,
): readonly number[] {
  return [...records.entries()].filter(([, record]) => takes(record)).map(([at]) => at);
}

function isCustodians({ wraps }: BranchKeyBody): boolean {
  return wraps.some(({ t }) => t === 'tdec' || t === 'tdec-ks');
}

function isFile({ wraps }: BranchKeyBody): boolean {
  return wraps.some(({ t }) => t === 'dev');
}
