// A provider outside of the cluster, opened when it is first needed: a server or token that is away must not keep a
// process from starting that may well do without it.

import type { Clock } from '../core/clock.ts';
import { second } from '../core/clock.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { BkWrap, BranchKeyBody, KekFields } from '../envelope/records.ts';
import { isPkcs11Error, pinRefused } from './pkcs11-codes.ts';
import type {
  KekProvider,
  KeyWrapper,
  NewKey,
  NewKeyScope,
  ProviderDescription,
  ProviderHealth,
  Renewed,
  Unwrapped,
  UnwrapRequest,
  WrapRenewer,
} from './provider.ts';

export interface DeferredOptions {
  readonly id: string;
  readonly fields: KekFields;
  /** One line for people, good before it was ever opened. */
  readonly text: string;
  readonly clock: Pick<Clock, 'monotonic'>;
  open(): Promise<KekProvider & KeyWrapper & Partial<WrapRenewer>>;
}

type Opened = KekProvider & KeyWrapper & Partial<WrapRenewer>;

/** After a failure it is not tried again for so long. */
const patienceMs = 5 * second;

export class DeferredProvider implements KekProvider, KeyWrapper {
  readonly id: string;
  readonly kind: string;
  readonly #options: DeferredOptions;
  #opening: Promise<Opened> | undefined;
  #opened: Opened | undefined;
  #failure: { readonly error: unknown; readonly untilMs: number } | undefined;
  #disposed = false;

  constructor(options: DeferredOptions) {
    this.#options = options;
    this.id = options.id;
    this.kind = options.fields.provider;
  }

  async createKey(scope: NewKeyScope): Promise<NewKey> {
    return (await this.#provider()).createKey(scope);
  }

  async wrapKey(scope: NewKeyScope, branchKey: Uint8Array): Promise<readonly BkWrap[]> {
    return (await this.#provider()).wrapKey(scope, branchKey);
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    return (await this.#provider()).unwrap(records, request);
  }

  /** Nothing to renew where the provider has one version of its key only. */
  async renew(records: readonly BranchKeyBody[], signal?: AbortSignal): Promise<readonly Renewed[]> {
    const provider = await this.#provider();
    return provider.renew?.(records, signal) ?? records.map(() => ({ ok: true, wraps: undefined }));
  }

  describe(): ProviderDescription {
    return this.#opened?.describe() ?? { kind: this.kind, production: true, text: this.#options.text };
  }

  async health(): Promise<ProviderHealth> {
    try {
      return await (await this.#provider()).health();
    } catch (error) {
      return { ok: false, text: describeError(error) };
    }
  }

  kek(): KekFields {
    return this.#options.fields;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    await this.#opening?.catch(() => undefined); // a failed opening has nothing to close
    await this.#opened?.[Symbol.asyncDispose]();
    this.#opened = undefined;
  }

  async #provider(): Promise<Opened> {
    if (this.#disposed) throw new HoldfastError('KEY_UNAVAILABLE', `${this.id} is not configured any more`);
    if (this.#opened !== undefined) return this.#opened;
    const failure = this.#failure;
    if (failure !== undefined && this.#options.clock.monotonic() < failure.untilMs)
      throw asError(this.id, failure.error);
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #open(): Promise<Opened> {
    try {
      this.#failure = undefined;
      return (this.#opened = await this.#options.open());
    } catch (error) {
      // A wrong PIN sent again and again locks the token for everybody.
      const forGood = error instanceof Error && isPkcs11Error(error.cause, pinRefused);
      const untilMs = forGood ? Infinity : this.#options.clock.monotonic() + patienceMs;
      this.#failure = { error, untilMs };
      throw asError(this.id, error);
    }
  }
}

/** Each caller gets an error of his own, with the first one as its cause. */
function asError(id: string, cause: unknown): HoldfastError {
  const code = isHoldfastError(cause) ? cause.code : 'KEY_UNAVAILABLE';
  return new HoldfastError(code, `key provider ${id} cannot be used`, { cause });
}
