// All key providers of a cluster as one: whoever wrapped a key gives it back, and the configured one makes new keys.
// Without a configuration that is threshold custody once it has begun, else the development key file.
//
// The configuration is read again while the process runs, so that moving from one provider to another needs no
// restart. A changed one that is no good leaves everything as it was, and shows in the health until it is mended.

import type { Clock } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { BranchKeyBody, KekFields } from '../envelope/records.ts';
import { groupOf, unwrapByWrap } from './by-wrap.ts';
import { combineAll } from './combine-all.ts';
import { combineAny } from './combine-any.ts';
import { openEntry, readProviderConfig } from './open-provider.ts';
import type {
  KekProvider,
  NewKey,
  NewKeyScope,
  ProviderDescription,
  ProviderHealth,
  Unwrapped,
  UnwrapRequest,
} from './provider.ts';
import {
  type MakeChoice,
  noProviderConfig,
  parseProviderConfig,
  type ProviderConfig,
} from './provider-config.ts';
import { random } from './random.ts';
import { recoveryKid, withRecovery } from './recovery.ts';

export interface ProviderSetOptions {
  /** The configuration; it need not be there. */
  readonly path: string;
  readonly clock: Clock;
  /** Threshold custody; undefined where there is none or it must not be asked. Owned from here on, as is `file`. */
  readonly custodians: KekProvider | undefined;
  /** The development key file of the cluster; undefined where there is none. */
  readonly file: KekProvider | undefined;
  /** Looks with each `reload` for a key file where there was none: a recovery may make one. Never rejects. */
  readonly lateFile?: () => Promise<KekProvider | undefined>;
  /** True once custodians are to make the keys, be they able to or not: nothing falls back to the file by itself. */
  readonly custodiansMake: () => boolean;
  /** What the newest policy says of recovery keys; undefined where there is no policy: then the configuration decides. */
  readonly recovery: () => 'none' | 'any' | undefined;
  /** Authorities of that policy. */
  readonly authorities?: () => readonly Uint8Array[] | undefined;
}

interface Opened {
  /** The entry as text: with another one it is another provider. */
  readonly said: string;
  readonly provider: KekProvider;
}

export class ProviderSet implements KekProvider {
  readonly #options: ProviderSetOptions;
  #file: KekProvider | undefined;
  #text: string | undefined;
  #config: ProviderConfig = noProviderConfig;
  #entries: ReadonlyMap<string, Opened> = new Map();
  #makers = new Map<string, KekProvider>();
  #trouble = '';
  #reloading: Promise<void> | undefined;

  private constructor(options: ProviderSetOptions) {
    this.#options = options;
    this.#file = options.file;
  }

  /** Reads the configuration. Throws what is wrong with it: ARGUMENT_INVALID, FILE_UNREADABLE, DATA_DIR_NEWER. */
  static async open(options: ProviderSetOptions): Promise<ProviderSet> {
    const set = new ProviderSet(options);
    await set.#load();
    return set;
  }

  get id(): string {
    return this.maker().id;
  }

  get kind(): string {
    return this.maker().kind;
  }

  /** True where there is a configuration, good or not. */
  get isConfigured(): boolean {
    return this.#text !== undefined || this.#trouble !== '';
  }

  /** Names of all that keys can be read from, as the configuration calls them. */
  get names(): readonly string[] {
    const own = [
      ...(this.#options.custodians === undefined ? [] : ['custodians']),
      ...(this.#file === undefined ? [] : ['file']),
    ];
    return [...own, ...this.#entries.keys()];
  }

  /** Custody groups by whose wraps keys can be read. */
  get groups(): readonly string[] {
    return this.#all().flatMap((provider) => groupOf(provider) ?? []);
  }

  /** Names of who makes new keys, and how they are combined. */
  get making(): MakeChoice {
    if (this.#config.make !== undefined) return this.#config.make;
    return { combiner: 'one', names: [this.#options.custodiansMake() ? 'custodians' : 'file'] };
  }

  named(name: string): KekProvider | undefined {
    if (name === 'custodians') return this.#options.custodians;
    return name === 'file' ? this.#file : this.#entries.get(name)?.provider;
  }

  /** As `named`, to move keys to: sealing them to the recovery key too, where there is one and the policy allows it. */
  target(name: string): KekProvider | undefined {
    const provider = this.named(name);
    return provider === undefined ? undefined : this.#withRecovery(provider);
  }

  /** The custody group of one; undefined when it is not there or has no key yet. */
  groupOf(name: string): string | undefined {
    const provider = this.named(name);
    return provider === undefined ? undefined : groupOf(provider);
  }

  /** Names the configured recovery key. */
  get recoveryKid(): string | undefined {
    const { recoveryKey } = this.#config;
    return recoveryKey === undefined ? undefined : recoveryKid(recoveryKey);
  }

  /** Ed25519 keys of those of whom two may order a recovery. */
  get recoveryAuthorities(): readonly Uint8Array[] {
    return this.#config.recoveryAuthorities ?? this.#options.authorities?.() ?? [];
  }

  /** Makes the key of a configured provider in its server or token. Throws ARGUMENT_INVALID for another name, and what opening it throws. */
  async makeKeyOf(name: string): Promise<void> {
    const entry = this.#config.entries.find((each) => each.name === name);
    if (entry === undefined)
      throw new HoldfastError('ARGUMENT_INVALID', `${this.#options.path} configures no "${name}"`);
    await using provider = openEntry(entry, this.#options.clock, true);
    const { ok, text } = await provider.health();
    if (!ok) throw new HoldfastError('KEY_UNAVAILABLE', `"${name}": ${text}`);
  }

  /** Reads a configuration that has changed. Never rejects: what is wrong is said in the health. */
  async reload(): Promise<void> {
    this.#reloading ??= this.#load()
      .then(
        () => {
          this.#trouble = '';
        },
        (error: unknown) => {
          this.#trouble = `the key providers are as they were: ${describeError(error)}`;
        },
      )
      .finally(() => {
        this.#reloading = undefined;
      });
    await this.#reloading;
  }

  createKey(scope: NewKeyScope): Promise<NewKey> {
    return this.maker().createKey(scope);
  }

  unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    return unwrapByWrap(this.#all(), records, request);
  }

  describe(): ProviderDescription {
    const maker = this.maker().describe();
    const others = this.names.filter((name) => !this.making.names.includes(name));
    if (others.length === 0) return maker;
    const text = `${maker.text} Keys that were wrapped by ${others.map((name) => `"${name}"`).join(', ')} are read there until \`holdfast custody migrate\` moves them.`;
    return { ...maker, text };
  }

  /** Of who makes the keys, and what is wrong with the configuration. */
  async health(): Promise<ProviderHealth> {
    if (this.#trouble !== '') return { ok: false, text: this.#trouble };
    try {
      return await this.maker().health();
    } catch (error) {
      return { ok: false, text: describeError(error) };
    }
  }

  kek(): KekFields {
    return this.maker().kek();
  }

  /** Who makes new keys. Throws KEY_UNAVAILABLE when that is not there. */
  maker(): KekProvider {
    const { combiner, names } = this.making;
    const id = `${combiner} ${names.join(' ')}`;
    const present = this.#makers.get(id);
    if (present !== undefined) return present;
    const parts = names.map((name) => this.named(name) ?? absent(name, this.#options.path));
    const [first] = parts;
    if (first === undefined) return absent('nothing', this.#options.path);
    const combined = combiner === 'one' ? first : combiner === 'any' ? combineAny(parts) : combineAll(parts);
    const maker = this.#withRecovery(combined);
    this.#makers.set(id, maker);
    return maker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reloading;
    const entries = [...this.#entries.values()].map(({ provider }) => provider);
    const all = [this.#options.custodians, this.#file, ...entries].filter((each) => each !== undefined);
    await Promise.all(all.map((each) => each[Symbol.asyncDispose]()));
  }

  /** Those that make keys come first: most of what is read was made by them. */
  #all(): readonly KekProvider[] {
    const first = this.making.names;
    const ordered = [...first, ...this.names.filter((name) => !first.includes(name))];
    return ordered.flatMap((name) => this.named(name) ?? []);
  }

  #withRecovery(provider: KekProvider): KekProvider {
    const { recoveryKey: publicKey } = this.#config;
    if (publicKey === undefined) return provider;
    const policy = (): 'none' | 'any' => this.#options.recovery() ?? 'any';
    return withRecovery(provider, {
      publicKey,
      policy,
      random,
    });
  }

  async #load(): Promise<void> {
    const { path, clock, lateFile } = this.#options;
    this.#file ??= await lateFile?.();
    const text = await readProviderConfig(path);
    if (text === this.#text) return;
    const config = text === undefined ? noProviderConfig : parseProviderConfig(text, path);
    const entries = new Map<string, Opened>();
    for (const entry of config.entries) {
      const said = JSON.stringify(entry);
      const present = this.#entries.get(entry.name);
      const provider = present?.said === said ? present.provider : openEntry(entry, clock);
      entries.set(entry.name, { said, provider });
    }
    const gone = [...this.#entries.values()].filter(({ provider }) => {
      return ![...entries.values()].some((each) => each.provider === provider);
    });
    this.#entries = entries;
    this.#config = config;
    this.#text = text;
    this.#makers = new Map();
    await Promise.all(gone.map(({ provider }) => provider[Symbol.asyncDispose]()));
  }
}

function absent(name: string, path: string): never {
  const why =
    name === 'custodians'
      ? 'this cluster has no custodians that may be asked from here'
      : name === 'file'
        ? 'there is no development key file here'
        : `${path} does not name it`;
  throw new HoldfastError('KEY_UNAVAILABLE', `new keys are to be made by "${name}", but ${why}`);
}
