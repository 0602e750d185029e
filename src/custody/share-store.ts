// A custodian's secrets on disk: shares of the group's keys by generation, prekeys, the key of key generations.
//
//   shares/state       what there is (share-state.ts), sealed and authenticated; replaced whole
//   shares/ID.sealed   one secret, AES-256-GCM under a sealing key of its own
//   keys/ID.key        that sealing key, AES-256-GCM under the master key (sealing-key.ts)
//
// Erasing a secret removes its sealing key. Overwriting would be theatre: volumes are snapshotted and flash copies.
// So `keys` may lie on another volume than `shares`, one without snapshots; with both on one that has them, whoever
// gets an old snapshot and the master key gets the old share, and only rotating the master helps.
//
// Order makes it safe: a secret is on the disk before the state names it, and the state has forgotten it before its
// files go. What a crash leaves behind unnamed is removed at the next opening, keys first.
//
// What it cannot notice is the whole directory put back to an earlier day: the others in the group do, because they
// ask for a share generation that is not there.

import { copied, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, takeKey } from '../core/hash.ts';
import type { Ballot } from './ballot.ts';
import type { ChainPin, ChainPins } from './book.ts';
import { codeOf, type Disk, removeFiles, replaceFile } from './disk.ts';
import { random } from './random.ts';
import type { SealingConfig, SealingSource } from './sealing-key.ts';
import {
  activated,
  decodeState,
  emptyState,
  encodeState,
  erased,
  hasServed,
  type KeyPairEntry,
  left,
  nameOf,
  pinned,
  raised,
  repaired,
  retired,
  type SecretEntry,
  type ShareEntry,
  type ShareFacts,
  type ShareKey,
  type ShareRef,
  type ShareState,
  staged,
  versionsIn,
  withBallot,
  withKeyPair,
  withNonce,
  withoutPrekeysBefore,
} from './share-state.ts';
import {
  damaged,
  type Header,
  importMaster,
  type MasterKeys,
  openMaster,
  parseStateFile,
  seal,
  stateAad,
  stateFile,
  unseal,
} from './share-store-file.ts';

export interface ShareStoreOptions {
  /** Where the state and the sealed secrets lie. */
  readonly shares: Disk;
  /** Where the sealing keys lie. May be the same directory. */
  readonly keys: Disk;
  readonly sealing: SealingConfig;
  /** Text that names the custodian; a store of another one is refused. */
  readonly owner: string;
  /** True only before the store was ever made: an absent one is damage otherwise. */
  readonly create: boolean;
}

/** A share as its holder uses it. Whoever gets it zeroes `secret`. */
export interface OpenShare {
  readonly entry: ShareEntry;
  /** Scalar, 32 bytes little-endian. */
  readonly secret: Uint8Array;
}

export class ShareStore {
  readonly #options: ShareStoreOptions;
  #header: Header;
  #masterKeys: MasterKeys;
  #state: ShareState;
  /** Names that secrets had before the last sealing anew, and have now: for who was just reading one. */
  #renamed: ReadonlyMap<string, string> = new Map();
  #writing: Promise<unknown> = Promise.resolve();
  #failure: unknown;

  private constructor(options: ShareStoreOptions, header: Header, keys: MasterKeys, state: ShareState) {
    this.#options = options;
    this.#header = header;
    this.#masterKeys = keys;
    this.#state = state;
  }

  /**
   * Opens the store, makes it when `create` says that there never was one, and removes what a crash left over.
   *
   * @throws DATA_DIR_FOREIGN (another custodian's), DATA_DIR_NEWER, DATA_DIR_DAMAGED (the state is gone or unreadable),
   * KEY_UNAVAILABLE (sealed from another kind of source than configured), DECRYPT_FAILED (another master key),
   * FILE_UNREADABLE, and what readMasterKey throws
   */
  static async open(options: ShareStoreOptions): Promise<ShareStore> {
    const bytes = await options.shares.read(stateName);
    if (bytes === undefined) return ShareStore.#create(options);
    const { header, sealed } = parseStateFile(bytes, options.shares.path, options.owner);
    const keys = await openMaster(options.sealing, header);
    const plain = unseal(keys.state, sealed, stateAad(header));
    if (plain === undefined) throw damaged(options.shares.path, 'its state does not authenticate');
    const store = new ShareStore(options, header, keys, decodeState(plain));
    await store.#removeLeftovers();
    return store;
  }

  static async #create(options: ShareStoreOptions): Promise<ShareStore> {
    if (!options.create) throw damaged(options.shares.path, 'its state is gone');
    const left = [...(await options.shares.list()), ...(await options.keys.list())];
    if (left.some((name) => /\.(?:key|sealed)$/.test(name)))
      throw damaged(options.shares.path, 'it holds sealed secrets but no state');
    const salt = random(16);
    const { source } = options.sealing;
    const keys = await importMaster(options.sealing, salt);
    const header = { owner: options.owner, source, salt, check: keys.check };
    const store = new ShareStore(options, header, keys, emptyState);
    await store.#persist(emptyState);
    return store;
  }

  /** What a store on `shares` is sealed with; undefined when there is none. Throws as `open` for what is no store. */
  static async sealedWith(
    options: Pick<ShareStoreOptions, 'shares' | 'owner'>,
  ): Promise<SealingSource | undefined> {
    const bytes = await options.shares.read(stateName);
    return bytes === undefined
      ? undefined
      : parseStateFile(bytes, options.shares.path, options.owner).header.source;
  }

  /** Where the master key came from. */
  get source(): SealingSource {
    return this.#header.source;
  }

  /** All that is here, without secrets. */
  entries(): readonly SecretEntry[] {
    return this.#state.entries;
  }

  shares(): ShareEntry[] {
    return this.#state.entries.filter((entry) => entry.kind === 'share');
  }

  keyPairs(): KeyPairEntry[] {
    return this.#state.entries.filter((entry): entry is KeyPairEntry => entry.kind !== 'share');
  }

  // Shares

  /**
   * Puts a verified share by for the next generation; one staged before it in its place is dropped. `secret` stays
   * the caller's, who zeroes it.
   *
   * @throws VERSION_CONFLICT for a generation that has been active, DISK_FULL, FILE_UNREADABLE
   */
  async stage(
    ref: ShareRef,
    key: ShareKey,
    {
      facts,
      secret,
      beat,
    }: { readonly facts: ShareFacts; readonly secret: Uint8Array; readonly beat: number },
  ): Promise<void> {
    const entry = { ...shareOf(ref, key, facts), status: 'staged', since: beat, certificate: null } as const;
    await this.#change((state, id) => staged(state, { ...entry, id }), secret);
  }

  /**
   * Puts a verified share of the present generation in place, active at once: the holder had lost it, or had slept
   * through the ceremony that made it. All others of that key and version go. `secret` stays the caller's.
   *
   * @throws VERSION_CONFLICT for an older generation than has been, DISK_FULL, FILE_UNREADABLE
   */
  async repair(
    ref: ShareRef,
    key: ShareKey,
    {
      facts,
      secret,
      beat,
      certificate,
    }: {
      readonly facts: ShareFacts;
      readonly secret: Uint8Array;
      readonly beat: number;
      readonly certificate: Uint8Array;
    },
  ): Promise<void> {
    const entry = { ...shareOf(ref, key, facts), status: 'active', since: beat, certificate } as const;
    await this.#change((state, id) => repaired(state, { ...entry, id }), secret);
  }

  /**
   * Makes the staged shares of `ref` the active ones; the active ones become previous and stay usable until
   * `erase`. `certificate`: hash of what entitles to it.
   *
   * @throws NOT_FOUND when nothing is staged, DISK_FULL, FILE_UNREADABLE
   */
  async activate(
    ref: ShareRef,
    by: { readonly beat: number; readonly certificate: Uint8Array },
  ): Promise<void> {
    await this.#change((state) => activated(state, ref, by));
  }

  /**
   * Erases the staged or previous shares of `ref`; nothing when there are none. An active share is not erased.
   * @param id only the share that has these files: another one may have taken its place
   */
  async erase(ref: ShareRef, id?: string): Promise<void> {
    await this.#change((state) => erased(state, ref, id));
  }

  /** Erases every share of a key version, also the active one, for good. */
  async retire(ref: Pick<ShareRef, 'cg' | 'kekVer'>): Promise<void> {
    await this.#change((state) => retired(state, ref));
  }

  /** Erases every share of a key version of a group that this custodian has left; it may join again later. */
  async leave(ref: Pick<ShareRef, 'cg' | 'kekVer'>): Promise<void> {
    await this.#change((state) => left(state, ref));
  }

  /**
   * The share of `ref`, whatever its status.
   *
   * @throws KEY_UNAVAILABLE when there is none, RECORD_CORRUPT when its files are damaged or gone
   */
  async openShare(ref: ShareRef, key: ShareKey): Promise<OpenShare> {
    const entry = this.shares().find(
      (each) => each.key === key && each.cg === ref.cg && each.kekVer === ref.kekVer && each.gen === ref.gen,
    );
    if (entry === undefined) {
      throw new HoldfastError(
        'KEY_UNAVAILABLE',
        `no ${key} share of generation ${ref.gen} of ${nameOf(ref)} is here`,
      );
    }
    return { entry, secret: await this.#read(entry) };
  }

  /** Versions of a group's key of which there are shares, or something is remembered. */
  versions(cg: string): readonly number[] {
    return versionsIn(this.#state, cg);
  }

  /** True when shares of a group's key were in use here once, also when nothing is left of them. */
  hasServed(cg: string): boolean {
    return hasServed(this.#state, cg);
  }

  // Key pairs

  /**
   * Keeps an X25519 key pair; `secret` (32 bytes) stays the caller's, who zeroes it.
   *
   * @throws VERSION_CONFLICT when there is one of that kind and epoch
   */
  async addKeyPair(
    pair: Pick<KeyPairEntry, 'kind' | 'epoch' | 'publicKey'>,
    secret: Uint8Array,
  ): Promise<void> {
    await this.#change((state, id) => withKeyPair(state, { ...pair, id }), secret);
  }

  /** The secret of a key pair, 32 bytes, which the caller zeroes. Throws KEY_UNAVAILABLE, RECORD_CORRUPT. */
  async openKeyPair(kind: KeyPairEntry['kind'], epoch = 0): Promise<Uint8Array> {
    const entry = this.keyPairs().find((each) => each.kind === kind && each.epoch === epoch);
    if (entry === undefined)
      throw new HoldfastError('KEY_UNAVAILABLE', `no ${kind} key of epoch ${epoch} is here`);
    return this.#read(entry);
  }

  async erasePrekeysBefore(epoch: number): Promise<void> {
    await this.#change((state) => withoutPrekeysBefore(state, epoch));
  }

  // Memory

  /** The highest value `name` has had; 0 when it never had one. */
  mark(name: string): number {
    return this.#state.marks[name] ?? 0;
  }

  /** Raises a high-water mark; durable when it resolves. Throws VERSION_CONFLICT when it is higher already. */
  async raise(name: string, value: number): Promise<void> {
    await this.#change((state) => raised(state, name, value));
  }

  /**
   * True once per nonce, durably: false when it was used before. It is remembered until `lastBeat`, the last at
   * which whoever calls would still accept it; `now` is the present beat.
   *
   * @throws RATE_LIMITED when too many are remembered
   */
  async useNonce(nonce: Uint8Array, lastBeat: number, now: number): Promise<boolean> {
    let fresh = false;
    await this.#change((state) => {
      const next = withNonce(state, toHex(nonce), lastBeat, now);
      fresh = next !== undefined;
      return next ?? state;
    });
    return fresh;
  }

  /** Where the chains of records of a group stood when they were last compared. */
  pins(cg: string): ChainPins {
    return this.#state.pins[cg] ?? {};
  }

  /** Pins them where they stand now; durable when it resolves. */
  async pin(cg: string, positions: ReadonlyMap<string, ChainPin>): Promise<void> {
    await this.#change((state) => pinned(state, cg, positions));
  }

  /** How this custodian is voting in a group; undefined before it ever did. */
  ballot(cg: string): Ballot | undefined {
    return this.#state.ballots[cg];
  }

  /** The ballot as `step` moves it on; durable when it resolves. Throws what `step` throws: then nothing changed. */
  async vote(cg: string, step: (ballot: Ballot | undefined) => Ballot): Promise<Ballot> {
    let after: Ballot | undefined;
    await this.#change((state) => {
      const before = state.ballots[cg];
      after = step(before);
      return after === before ? state : withBallot(state, cg, after);
    });
    if (after !== undefined) return after;
    throw new HoldfastError('INTERNAL', 'no ballot after a vote');
  }

  /**
   * Seals everything anew, under another master key: each secret under a fresh sealing key in new files, then the
   * state, which is replaced in one step and names them; only then the old files go. A crash finds the store sealed
   * with the old secret or with the new one, whole. What was sealed before opens nothing that is here afterwards.
   *
   * @throws RECORD_CORRUPT when a secret cannot be read, then nothing has changed; DISK_FULL, FILE_UNREADABLE, and what
   * readMasterKey throws
   */
  async reseal(sealing: SealingConfig): Promise<void> {
    const done = this.#writing.then(() => this.#resealNow(sealing));
    this.#writing = done.catch(() => undefined); // its caller has the error
    return done;
  }

  async #resealNow(sealing: SealingConfig): Promise<void> {
    this.#assertWritable();
    const salt = random(16);
    const masterKeys = await importMaster(sealing, salt);
    const { owner } = this.#header;
    const header = { owner, source: sealing.source, salt, check: masterKeys.check };
    const before = this.#state;
    const renamed = new Map<string, string>();
    const entries: SecretEntry[] = [];
    for (const entry of before.entries) {
      const id = toHex(random(16));
      const secret = await this.#read(entry);
      try {
        await this.#written(() => this.#write(id, secret, masterKeys));
      } finally {
        secret.fill(0);
      }
      renamed.set(entry.id, id);
      entries.push({ ...entry, id });
    }
    const after = { ...before, entries };
    await this.#written(async () => {
      await this.#persist(after, header, masterKeys);
      this.#header = header;
      this.#masterKeys = masterKeys;
      this.#state = after;
      this.#renamed = renamed;
      await this.#removeSecrets(before.entries.map(({ id }) => id));
    });
  }

  // Writing

  /**
   * One change at a time: the secret first, then the state that names it, then nobody needs the files of what the
   * state no longer names. After a failed write the disk may hold either state, so nothing more is written until
   * the store is opened again; reading goes on.
   */
  #change(step: (state: ShareState, id: string) => ShareState, secret?: Uint8Array): Promise<void> {
    const copy = secret === undefined ? undefined : copied(secret);
    const done = this.#writing.then(async () => {
      try {
        await this.#changeNow(step, copy);
      } finally {
        copy?.fill(0);
      }
    });
    this.#writing = done.catch(() => undefined); // its caller has the error
    return done;
  }

  async #changeNow(
    step: (state: ShareState, id: string) => ShareState,
    secret: Uint8Array | undefined,
  ): Promise<void> {
    this.#assertWritable();
    const id = toHex(random(16));
    const before = this.#state;
    const after = step(before, id);
    if (after === before) return;
    await this.#written(async () => {
      if (secret !== undefined) await this.#write(id, secret);
      await this.#persist(after);
      this.#state = after;
      const kept = new Set(after.entries.map((entry) => entry.id));
      await this.#removeSecrets(
        before.entries.filter((entry) => !kept.has(entry.id)).map((entry) => entry.id),
      );
    });
  }

  #assertWritable(): void {
    if (this.#failure === undefined) return;
    throw new HoldfastError('FILE_UNREADABLE', `${this.#path} takes no more changes since a write failed`, {
      cause: this.#failure,
    });
  }

  async #written(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      this.#failure = cause;
      const full = codeOf(cause) === 'ENOSPC' || codeOf(cause) === 'EDQUOT';
      throw new HoldfastError(full ? 'DISK_FULL' : 'FILE_UNREADABLE', `${this.#path} cannot be written`, {
        cause,
      });
    }
  }

  async #persist(state: ShareState, header = this.#header, masterKeys = this.#masterKeys): Promise<void> {
    const sealed = seal(masterKeys.state, encodeState(state), stateAad(header));
    await replaceFile(this.#options.shares, stateName, stateFile(header, sealed));
  }

  async #write(id: string, secret: Uint8Array, masterKeys = this.#masterKeys): Promise<void> {
    const { shares, keys } = this.#options;
    const raw = random(32);
    const sealedKey = seal(masterKeys.keys, raw, this.#aad(id));
    await replaceFile(shares, `${id}.sealed`, seal(takeKey(raw), secret, this.#aad(id)));
    await replaceFile(keys, `${id}.key`, sealedKey);
  }

  async #read({ id }: Pick<SecretEntry, 'id'>): Promise<Uint8Array> {
    try {
      return await this.#readFiles(id);
    } catch (error) {
      const now = this.#renamed.get(id); // it was sealed anew while it was being read
      if (now === undefined) throw error;
      return this.#readFiles(now);
    }
  }

  async #readFiles(id: string): Promise<Uint8Array> {
    const { shares, keys } = this.#options;
    const [sealed, sealedKey] = await Promise.all([shares.read(`${id}.sealed`), keys.read(`${id}.key`)]);
    const raw = sealedKey && unseal(this.#masterKeys.keys, sealedKey, this.#aad(id));
    const secret = raw && sealed && unseal(takeKey(raw), sealed, this.#aad(id));
    if (secret !== undefined) return secret;
    const what = sealedKey === undefined || sealed === undefined ? 'gone' : 'damaged';
    throw new HoldfastError(
      'RECORD_CORRUPT',
      `${this.#path}: the sealed secret ${id} is ${what}; restore it from a backup or repair the share from the others`,
      { details: { id } },
    );
  }

  async #removeSecrets(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const { shares, keys } = this.#options;
    await removeFiles(
      keys,
      ids.map((id) => `${id}.key`),
    );
    await removeFiles(
      shares,
      ids.map((id) => `${id}.sealed`),
    );
  }

  /** What a crash left between two steps, and temporary files. */
  async #removeLeftovers(): Promise<void> {
    const { shares, keys } = this.#options;
    const named = new Set(this.#state.entries.map((entry) => entry.id));
    for (const disk of new Set([keys, shares])) {
      const left = (await disk.list()).filter((name) => {
        const [, id, ending] = /^([0-9a-f]{32})\.(key|sealed)(?:\.new)?$/.exec(name) ?? [];
        return name.endsWith('.new') || (ending !== undefined && id !== undefined && !named.has(id));
      });
      if (left.length > 0) await removeFiles(disk, left);
    }
  }

  #aad(id: string): Uint8Array {
    return preimage('holdfast/sealed-secret/v1', utf8(this.#header.owner), utf8(id));
  }

  get #path(): string {
    return this.#options.shares.path;
  }
}

const stateName = 'state';

function shareOf({ cg, kekVer, gen }: ShareRef, key: ShareKey, facts: ShareFacts) {
  const { index, t, n, publicKey, commitments, verificationShares } = facts;
  const known = { index, t, n, publicKey, commitments, verificationShares };
  return { kind: 'share', key, cg, kekVer, gen, ...known } as const;
}
