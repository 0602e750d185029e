// Branch keys in memory: the one a writer uses now, and the ones a reader has open.
//
// A branch key's own bytes exist between two lines: made or unwrapped, matched with the commitment, turned
// into a wrapping key, zeroed. What stays is a wrapping key that can be used and not read. A writer drops
// his when its window is over, so whoever breaks in later finds nothing of before.
//
// Keys are lent out: `using key = await keys.current(…)`. A key that is retired while lent out serves its
// borrowers to the end and is gone with the last one.

import assert from 'node:assert/strict';
import type { CID } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { unlessAborted } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import { branchKeysOpenMax, branchKeyUsesMax } from '../core/limits.ts';
import type { ContentClass } from '../envelope/aad.ts';
import { branchKeyIdBytes } from '../envelope/label.ts';
import type { RandomBytes } from '../envelope/primitives.ts';
import { type BranchKeyBody, parseBranchKey } from '../envelope/records.ts';
import { commitmentOf, matchesCommitment, WrappingKey } from '../envelope/wrap.ts';
import type { KekProvider, UnwrapRequest } from './provider.ts';

export interface BranchKeysOptions {
  readonly provider: KekProvider;
  /** Ed25519 public key of who writes and signs the records. */
  readonly writer: Uint8Array;
  readonly random: RandomBytes;
  /** Beats that one branch key of a writer serves, from its first use; and that a reader keeps one open. At least 1; default 120, one bar. */
  readonly windowBeats?: number;
  /** DEKs under one branch key: 1…4,096, the default. */
  readonly usesMax?: number;
  /** Keys kept open, for readers and for writers each; the one unused for longest goes first. At least 1; default 1,024. */
  readonly openMax?: number;
}

/** For which writes a key is wanted. */
export interface WriterScope {
  readonly project: string;
  readonly cls: ContentClass;
  readonly policy: CID | null;
  /** Current beat. */
  readonly beat: number;
  /** Id of the object that gets a key of its own, used once. Absent: the key of the window serves. */
  readonly objId?: Uint8Array;
}

/** A branch key on loan: dispose it when the DEK is wrapped or unwrapped. */
export interface BranchKey extends Disposable {
  readonly bkId: Uint8Array;
  readonly bkVer: number;
  readonly key: WrappingKey;
  readonly body: BranchKeyBody;
}

/** A loan for exactly one wrapped DEK. */
export interface WriterKey extends BranchKey {
  /** What must be signed and registered together with the first envelope; undefined as soon as that has happened. */
  readonly unregistered: BranchKeyBody | undefined;
  /** Says that the record is in the Beacon. */
  registered(): void;
}

export class BranchKeys implements AsyncDisposable {
  readonly #options: Required<BranchKeysOptions>;
  readonly #slots = new Map<string, WriterSlot>();
  readonly #opened = new Map<string, OpenedKey>();
  #closed = false;

  constructor(options: BranchKeysOptions) {
    const full = { windowBeats: 120, usesMax: branchKeyUsesMax, openMax: branchKeysOpenMax, ...options };
    assert(full.windowBeats >= 1, 'windowBeats: at least 1');
    assert(full.usesMax >= 1 && full.usesMax <= branchKeyUsesMax, `usesMax: 1 to ${branchKeyUsesMax}`);
    assert(full.openMax >= 1, 'openMax: at least 1');
    this.#options = full;
  }

  /**
   * The branch key for one more DEK of this scope; a new one when there is none, its window is over, it is
   * used up, or the KEK changed. Throws what the provider throws when it cannot make one.
   */
  async current(scope: WriterScope): Promise<WriterKey> {
    this.#assertOpen();
    const id = scopeId(scope);
    // The key of one object is not kept: this loan is all there is, and the key goes when it ends.
    const slot = scope.objId === undefined ? this.#slotFor(id, scope) : this.#newSlot(scope);
    slot.usesLeft--;
    const loan = slot.shared.lend();
    if (scope.objId !== undefined) slot.shared.retire();
    try {
      const { key, body } = await slot.shared.ready;
      return writerLoan(slot, key, body, loan);
    } catch (error) {
      loan[Symbol.dispose]();
      if (this.#slots.get(id) === slot) this.#slots.delete(id);
      throw error;
    }
  }

  /**
   * The key of a branch-key record (parsed and its signature checked by the caller). Many callers make one
   * request. Throws KEY_UNAVAILABLE, FORBIDDEN or TIMEOUT from the provider, DECRYPT_FAILED when it gave
   * another key than the record commits to, or the reason of `request.signal`.
   */
  async open(body: BranchKeyBody, request: UnwrapRequest): Promise<BranchKey> {
    this.#assertOpen();
    const opened = this.#openedFor(body, request);
    const loan = opened.shared.lend();
    if (isAskedEachTime(body)) opened.shared.retire();
    try {
      const { key } = await unlessAborted(opened.shared.ready, request.signal);
      return {
        bkId: body.bkId,
        bkVer: body.bkVer,
        key,
        body,
        [Symbol.dispose]: () => loan[Symbol.dispose](),
      };
    } catch (error) {
      loan[Symbol.dispose]();
      throw error;
    }
  }

  /** How many keys are held, for health checks. */
  get held(): { readonly writing: number; readonly reading: number } {
    return { writing: this.#slots.size, reading: this.#opened.size };
  }

  /** Retires what a reader has had open for longer than its beats, whether or not somebody comes for it again. */
  expire(beat: number): void {
    for (const [id, opened] of this.#opened) {
      if (this.#isFresh(opened, beat)) continue;
      this.#opened.delete(id);
      opened.shared.retire();
    }
  }

  /** Retires what a reader has open: another one than those who gave it decides from now on. */
  forgetOpened(): void {
    this.expire(Number.POSITIVE_INFINITY);
  }

  /** Retires every key. The provider stays open: it belongs to whoever made it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const held = [...this.#slots.values(), ...this.#opened.values()].map(({ shared }) => shared);
    this.#slots.clear();
    this.#opened.clear();
    for (const shared of held) shared.retire();
    await Promise.allSettled(held.map((shared) => shared.ready));
  }

  #slotFor(id: string, scope: WriterScope): WriterSlot {
    const present = this.#slots.get(id);
    if (present !== undefined && this.#serves(present, scope.beat)) return touched(this.#slots, id, present);
    present?.shared.retire();
    const slot = this.#newSlot(scope);
    keep(this.#slots, id, slot, this.#options.openMax);
    return slot;
  }

  #newSlot(scope: WriterScope): WriterSlot {
    const kek = this.#options.provider.kek();
    return {
      shared: new SharedKey(this.#make(scope)),
      window: [scope.beat, scope.beat + this.#options.windowBeats - 1],
      kek: `${kek.cg}/${kek.ver}`,
      usesLeft: this.#options.usesMax,
      registered: false,
    };
  }

  #serves(slot: WriterSlot, beat: number): boolean {
    const { cg, ver } = this.#options.provider.kek();
    return (
      slot.usesLeft > 0 && beat >= slot.window[0] && beat <= slot.window[1] && slot.kek === `${cg}/${ver}`
    );
  }

  async #make({ project, cls, policy, beat, objId }: WriterScope): Promise<HeldKey> {
    const { provider, writer, random, windowBeats, usesMax } = this.#options;
    const scope = { project, cls, writer, window: [beat, beat + windowBeats - 1] } as const;
    const bkId = objId ?? random(branchKeyIdBytes);
    const { branchKey, wraps, combiner } = await provider.createKey({ ...scope, bkId, bkVer: 1, policy });
    try {
      const commit = commitmentOf(branchKey);
      const head = { kind: 'branch-key', v: 1, writer, prev: null } as const;
      const body = parseBranchKey({
        ...head,
        bkId,
        bkVer: 1,
        scope,
        maxWraps: objId === undefined ? usesMax : 1,
        commit,
        combiner,
        wraps,
      });
      return { key: new WrappingKey(branchKey, bkId), body };
    } finally {
      branchKey.fill(0);
    }
  }

  #openedFor(body: BranchKeyBody, request: UnwrapRequest): OpenedKey {
    if (isAskedEachTime(body))
      return { shared: new SharedKey(this.#unwrap(body, request)), beat: request.beat };
    const id = `${toHex(body.bkId)}/${toHex(body.commit)}`;
    const present = this.#opened.get(id);
    if (present !== undefined && this.#isFresh(present, request.beat))
      return touched(this.#opened, id, present);
    present?.shared.retire();
    const opened: OpenedKey = { shared: new SharedKey(this.#unwrap(body, request)), beat: request.beat };
    keep(this.#opened, id, opened, this.#options.openMax);
    opened.shared.ready.catch(() => {
      if (this.#opened.get(id) === opened) this.#opened.delete(id); // the next caller asks anew
    });
    return opened;
  }

  /** After a bar the custodians are asked again: a permission withdrawn must come to have an effect. */
  #isFresh(opened: OpenedKey, beat: number): boolean {
    return beat >= opened.beat && beat < opened.beat + this.#options.windowBeats;
  }

  async #unwrap(body: BranchKeyBody, request: UnwrapRequest): Promise<HeldKey> {
    const [answer] = await this.#options.provider.unwrap([body], unsignalled(request));
    assert(answer !== undefined, 'provider: an answer for each record');
    if (!answer.ok) throw answer.error;
    try {
      if (!matchesCommitment(answer.branchKey, body.commit)) throw wrongKey(body);
      return { key: new WrappingKey(answer.branchKey, body.bkId), body };
    } finally {
      answer.branchKey.fill(0);
    }
  }

  #assertOpen(): void {
    assert(!this.#closed, 'branch keys: used after disposal');
  }
}

interface HeldKey {
  readonly key: WrappingKey;
  readonly body: BranchKeyBody;
}

interface WriterSlot {
  readonly shared: SharedKey;
  readonly window: readonly [from: number, to: number];
  /** Group and version that wrapped it. */
  readonly kek: string;
  usesLeft: number;
  registered: boolean;
}

interface OpenedKey {
  readonly shared: SharedKey;
  /** When the provider was asked. */
  readonly beat: number;
}

/** A key, perhaps still on its way, that goes when it is retired and nobody holds it any more. */
class SharedKey {
  readonly ready: Promise<HeldKey>;
  #loansCount = 0;
  #retired = false;

  constructor(ready: Promise<HeldKey>) {
    this.ready = ready;
    ready.catch(() => undefined); // each borrower gets the error from his own wait
  }

  lend(): Disposable {
    this.#loansCount++;
    let returned = false;
    return {
      [Symbol.dispose]: () => {
        if (returned) return;
        returned = true;
        this.#loansCount--;
        this.#dropIfUnused();
      },
    };
  }

  retire(): void {
    this.#retired = true;
    this.#dropIfUnused();
  }

  #dropIfUnused(): void {
    if (!this.#retired || this.#loansCount > 0) return;
    this.ready.then(
      ({ key }) => key[Symbol.dispose](),
      () => undefined, // there never was a key
    );
  }
}

/** Restricted content: every read is to be decided, and written down, by the custodians. */
function isAskedEachTime({ scope }: BranchKeyBody): boolean {
  return scope.cls === 'restricted';
}

function writerLoan(slot: WriterSlot, key: WrappingKey, body: BranchKeyBody, loan: Disposable): WriterKey {
  return {
    bkId: body.bkId,
    bkVer: body.bkVer,
    key,
    body,
    get unregistered() {
      return slot.registered ? undefined : body;
    },
    registered: () => {
      slot.registered = true;
    },
    [Symbol.dispose]: () => loan[Symbol.dispose](),
  };
}

/** Adds an entry as the newest and retires the oldest ones beyond `countMax`. */
function keep<T extends { readonly shared: SharedKey }>(
  entries: Map<string, T>,
  id: string,
  entry: T,
  countMax: number,
): void {
  touched(entries, id, entry);
  for (const [oldest, { shared }] of entries) {
    if (entries.size <= countMax) return;
    entries.delete(oldest);
    shared.retire();
  }
}

/** A Map iterates in order of insertion: inserted anew is newest. */
function touched<T>(entries: Map<string, T>, id: string, entry: T): T {
  entries.delete(id);
  entries.set(id, entry);
  return entry;
}

/** The request without its signal: that is one caller's, the answer is for all who wait. */
function unsignalled({ purpose, requester, beat, capabilities }: UnwrapRequest): UnwrapRequest {
  return { purpose, requester, beat, ...(capabilities === undefined ? {} : { capabilities }) };
}

function scopeId({ project, cls, policy }: WriterScope): string {
  return JSON.stringify([project, cls, policy?.toString() ?? null]);
}

function wrongKey(body: BranchKeyBody): HoldfastError {
  const bkId = toHex(body.bkId);
  return new HoldfastError(
    'DECRYPT_FAILED',
    `branch key ${bkId}: the provider gave another key than its record commits to`,
    {
      details: { part: 'branch-key', bkId },
    },
  );
}
