// The Beacon log on a JetStream stream: any number of writers, three servers, and a copy beside each writer.
//
// The stream has one subject. A writer judges a group of appends by its copy, computes their chain, and publishes them
// as one message that says which message it follows; the server takes it only right behind that one. So the history is
// one chain, whoever writes, and a writer that was too late takes what came before it and judges again.
//
// The copy (level.ts) is what makes the stream answerable: every message that counts is on a disk of ours as well, in a
// store that checks itself. It bounds memory, serves all reading, and knows how far the stream had come. A stream that
// ends before that, or tells it differently, is named and not followed; appends and reads fail until a person decides.
//
// A publication that is not answered may have been stored, may be stored later, or never. It is sent again, the same,
// until its place in the stream is taken: by itself, or by another message, after which no server takes it any more.

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { sameBytes } from '../core/bytes.ts';
import { second } from '../core/clock.ts';
import { Gate } from '../core/concurrency.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { isThere, writeWhole } from '../files/whole.ts';
import { Bell, eventOrAbort } from './bell.ts';
import {
  decodeGroup,
  encodeGroup,
  groupBytesMax,
  type GroupMessage,
  messageBytesMax,
  messageId,
  type StreamWord,
} from './jetstream-message.ts';
import { findPlace } from './jetstream-place.ts';
import { notDurable, refuse, type ServerFacts, unusable } from './jetstream-settings.ts';
import {
  patiently,
  type PublishOutcome,
  Stream,
  type StreamAccess,
  type StreamState,
} from './jetstream-stream.ts';
import { LevelLog } from './level.ts';
import { lineageField, lineageIn } from './lineage.ts';
import type { Append, LogEntry, LogHead, LogHealth, LogLineage, LogPosition, RecallingLog } from './log.ts';

export interface JetStreamLogOptions extends Omit<StreamAccess, 'timeoutMs'> {
  /** Directory of the copy. One process at a time. */
  readonly directory: string;
  /**
   * Makes the stream when there is none and the copy is empty, too. Absent: a missing stream is an error. `closed`: it
   * begins closed, and takes appends from everybody once somebody has said `open` (jetstream-word.ts).
   */
  readonly create?: { readonly replicas: number; readonly lineage?: LogLineage; readonly closed?: boolean };
  /** Appends to a closed stream: for whoever fills it before it is opened. Default false. */
  readonly fills?: boolean;
  /** Takes a stream whose acknowledgements may be lost with a server or a disk: for trials. Default false. */
  readonly acceptNotDurable?: boolean;
  /** Ends an opening that is under way. */
  readonly signal?: AbortSignal;
  /** A server must answer within this time, ms. Default 5 s. */
  readonly timeoutMs?: number;
  /**
   * How long opening goes on while servers do not answer, have not chosen who leads, or have not told their settings,
   * as after the death of one of them, ms. Default 15 s; 0: each is asked once.
   */
  readonly openMs?: number;
  /** How long a group is sent again before its appends fail, ms. Default 15 s. */
  readonly retryMs?: number;
  /** How long a stream may be behind the copy, as a new leader is for moments, before that counts as loss, ms. Default 15 s. */
  readonly behindMs?: number;
}

export class JetStreamLog implements RecallingLog {
  readonly #options: Required<Pick<JetStreamLogOptions, 'acceptNotDurable' | 'retryMs' | 'behindMs'>> &
    JetStreamLogOptions;
  readonly #stream: Stream;
  readonly #closing = new AbortController();
  /** Aborted by a divergence. */
  readonly #lost = new AbortController();
  readonly #taking = new Gate(1);
  readonly #bell = new Bell();
  #copy: LevelLog | undefined;
  #lineage: LogLineage | undefined;
  /** All up to message `sequence`, which ends at `revision`, is in the copy. */
  #at = { sequence: 0, revision: 0 };
  /** Stored as a message of ours; in the copy in a moment. */
  #published = { sequence: 0, revision: 0 };
  /** When the end of the copy was last seen in the stream. */
  #provenAt = Number.NEGATIVE_INFINITY;
  readonly #servers = new Map<string, ServerFacts>();
  /** A server that holds the stream has never told its settings. */
  #isUnheard = false;
  #durabilityProblems: readonly string[] = [];
  #word: StreamWord | undefined;
  #divergence = '';
  #background: Promise<unknown> = Promise.resolve();

  private constructor(options: JetStreamLogOptions, stream: Stream) {
    this.#options = { acceptNotDurable: false, retryMs: 15 * second, behindMs: 15 * second, ...options };
    this.#stream = stream;
  }

  /**
   * Connects, checks the settings of stream and servers, compares the stream with the copy, and catches up.
   * Throws BEACON_UNAVAILABLE when no server answers for a while, when a setting is not as it must be (details:
   * settings), or when the stream lost or changed what the copy holds (details: diverged); and what LevelLog.open throws.
   */
  static async open(options: JetStreamLogOptions): Promise<JetStreamLog> {
    const { signal, openMs = 15 * second } = options;
    const giveUpAt = performance.now() + openMs;
    const access = { ...options, timeoutMs: options.timeoutMs ?? 5 * second };
    const stream = await patiently(() => Stream.connect(access), giveUpAt, signal);
    const log = new JetStreamLog(options, stream);
    const end = (): void => log.#closing.abort();
    options.signal?.addEventListener('abort', end, { once: true });
    try {
      options.signal?.throwIfAborted();
      await log.#begin(giveUpAt);
      return log;
    } catch (error) {
      await log[Symbol.asyncDispose]();
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', end);
    }
  }

  /** `durable` as the settings promise it, and what speaks against it. */
  durability(): { readonly durable: boolean; readonly problems: readonly string[] } {
    return { durable: this.#durabilityProblems.length === 0, problems: this.#durabilityProblems };
  }

  /** Aborts once the stream was seen to have lost or changed something: this log is of no use any more. */
  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  /** Which log the stream is; undefined when it does not say. */
  get lineage(): LogLineage | undefined {
    return this.#lineage;
  }

  /** Who closed the stream and why; undefined while it is open. */
  get closed(): StreamWord | undefined {
    return this.#word?.kind === 'closed' ? this.#word : undefined;
  }

  health(): LogHealth {
    if (this.#divergence !== '') return { state: 'read-only', reason: this.#divergence };
    if (this.closed !== undefined) return { state: 'read-only', reason: this.#closedText(this.closed) };
    return this.#copy?.health() ?? { state: 'read-only', reason: 'it is not open' };
  }

  async append(append: Append, options?: { readonly signal?: AbortSignal }): Promise<LogEntry> {
    return this.#usable().append(append, options);
  }

  /** What is in the copy: all that a view of this log shows. */
  async recall(id: Uint8Array): Promise<LogEntry | undefined> {
    return this.#usable().recall(id);
  }

  async *read(from: number, options: { readonly signal?: AbortSignal } = {}): AsyncGenerator<LogEntry> {
    await this.#catchUp();
    yield* this.#usable().read(from, options);
  }

  /** Ends with an error, details `diverged`, when the stream turns out to have lost or changed something. */
  async *watch(from: number, { signal }: { readonly signal: AbortSignal }): AsyncGenerator<LogEntry> {
    const copy = this.#usable();
    yield* copy.watch(from, { signal: AbortSignal.any([signal, this.#closing.signal, this.#lost.signal]) });
    if (!signal.aborted) this.#usable();
  }

  /** Where the leader of the stream says that it ends, once that is in the copy. Never behind what was acknowledged here. */
  async head(): Promise<LogHead> {
    await this.#catchUp();
    const head = await this.#usable().head();
    return { ...head, ...(this.#lineage === undefined ? {} : { lineage: this.#lineage }) };
  }

  /** Appends under way are finished first. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#copy?.[Symbol.asyncDispose]();
    this.#closing.abort();
    await this.#stream[Symbol.asyncDispose]();
    await this.#background;
  }

  async #begin(giveUpAt: number): Promise<void> {
    const { directory } = this.#options;
    const copy = await LevelLog.open(directory, {
      original: {
        groupBytesMax,
        publish: (before, entries) => this.#publish(before, entries),
        catchUp: () => this.#catchUp(),
      },
    });
    this.#copy = copy;
    const found = async (): Promise<StreamState> => {
      if ((await this.#stream.state()) === undefined) await this.#create(await copy.head());
      await this.#checkSettings();
      return this.#meet();
    };
    const { lastSequence, metadata } = await patiently(found, giveUpAt, this.#closing.signal);
    this.#lineage = lineageIn(metadata);
    if (metadata[closedField] !== undefined && !(await this.#wasOpened()))
      this.#word = { kind: 'closed', by: metadata[closedField], why: 'it is being filled' };
    this.#background = Promise.all([
      this.#follow(),
      this.#reviewSettings(),
      this.#lookNowAndThen(),
      this.#meetAgain(),
    ]);
    await this.#reach(lastSequence);
  }

  /**
   * Whether somebody opened a stream that is born closed in front of where the copy ends: words from there on are heard
   * while catching up. Whoever has heard it has written so down; a copy that was made before that was done looks for it.
   */
  async #wasOpened(): Promise<boolean> {
    if (await isThere(this.#openedPath)) return true;
    for (let sequence = 1; sequence <= this.#at.sequence; sequence++)
      if ((await this.#message(sequence)).word?.kind === 'open') {
        await this.#keepOpened();
        return true;
      }
    return false;
  }

  async #keepOpened(): Promise<void> {
    await writeWhole(this.#openedPath, 'open\n', 0o600);
  }

  get #openedPath(): string {
    return join(this.#options.directory, 'opened');
  }

  async #create({ revision }: LogPosition): Promise<void> {
    const { create, stream } = this.#options;
    // Never a new stream in place of a lost one.
    if (revision > 0) return;
    if (create === undefined) throw new HoldfastError('BEACON_UNAVAILABLE', `there is no stream ${stream}`);
    const { replicas, lineage, closed = false } = create;
    await this.#stream.create(replicas, {
      ...(lineage === undefined ? {} : { [lineageField]: JSON.stringify(lineage) }),
      ...(closed ? { [closedField]: 'its maker' } : {}),
    });
  }

  /** Throws BEACON_UNAVAILABLE with every setting that is wrong. */
  async #checkSettings(): Promise<void> {
    const { stream, acceptNotDurable } = this.#options;
    const facts = (await this.#stream.state())?.facts;
    if (facts === undefined) return; // gone: the comparison with the copy says so
    const { maxPayloadBytes } = this.#stream;
    const fatal = unusable(facts, this.#stream.subject);
    if (maxPayloadBytes < messageBytesMax)
      fatal.push(`the server needs max_payload: ${messageBytesMax} or more, not ${maxPayloadBytes}`);
    // Who does not answer in time, or is only starting, is taken at its last word; who never gave one is a problem.
    for (const server of await this.#stream.servers(facts.servers))
      if (server.syncAlways !== undefined || !this.#stream.asksServers)
        this.#servers.set(server.name, server);
    const heard = facts.servers.filter((name) => this.#servers.has(name));
    this.#isUnheard = heard.length < facts.servers.length;
    this.#durabilityProblems = notDurable(facts, [...this.#servers.values()]);
    if (fatal.length > 0) refuse(stream, [...fatal, ...this.#durabilityProblems]);
    if (acceptNotDurable || this.#durabilityProblems.length === 0) return;
    const isHeardBad = notDurable({ ...facts, servers: heard }, [...this.#servers.values()]).length > 0;
    refuse(stream, this.#durabilityProblems, this.#stream.asksServers && !isHeardBad);
  }

  /** A server may come back with other settings, or was away when all were asked. */
  async #reviewSettings(): Promise<void> {
    const { signal } = this.#closing;
    while (await paused(this.#isUnheard ? lookMs : settingsMs, signal)) {
      await this.#checkSettings().catch(() => undefined); // what was found stands in `durability`, and stops appends
    }
  }

  /** A stream that lost something is named although nobody appends. */
  async #lookNowAndThen(): Promise<void> {
    const { signal } = this.#closing;
    while (this.#divergence === '' && (await paused(lookMs, signal))) {
      const isFresh = performance.now() - this.#provenAt < lookMs;
      if (!isFresh) await this.#meet().catch(() => undefined); // remembered, or nobody answers
    }
  }

  /** A lost connection may mean that servers were restarted, with what is left of their disks. */
  async #meetAgain(): Promise<void> {
    await this.#stream.watchConnection(() => {
      this.#provenAt = Number.NEGATIVE_INFINITY;
      // Nobody waits for it: who cannot be reached is met before the next append, and divergence is remembered.
      void this.#meet().catch(() => undefined);
    });
  }

  /** Compares stream and copy. Throws BEACON_UNAVAILABLE, details `diverged` when the stream lost or changed something. */
  async #meet(): Promise<StreamState> {
    const giveUpAt = performance.now() + this.#options.behindMs;
    for (;;) {
      const state = await this.#stream.state();
      const loss = await this.#lossIn(state);
      if (loss === undefined && state !== undefined) return state;
      if (performance.now() >= giveUpAt) throw this.#diverge(loss ?? 'it is gone');
      if (!(await paused(behindPauseMs, this.#closing.signal))) throw this.#closed();
    }
  }

  /** What a stream that should hold the copy's history lacks. Throws when it tells another one. */
  async #lossIn(state: StreamState | undefined): Promise<string | undefined> {
    if (state === undefined) return 'it is gone';
    const { firstSequence, lastSequence, deletedCount, messagesCount } = state;
    if (deletedCount > 0) return `${deletedCount} of its messages were deleted`;
    if (lastSequence > 0 && (firstSequence !== 1 || messagesCount !== lastSequence))
      return `it holds ${messagesCount} of ${lastSequence} messages, from message ${firstSequence} on`;
    const end = await this.#opened().head();
    const place = await findPlace((sequence) => this.#message(sequence), lastSequence, end);
    if (place.kind === 'behind')
      return `it ends at revision ${place.revision}; it had acknowledged ${end.revision}`;
    if (place.kind === 'other')
      throw this.#diverge(`message ${place.sequence} tells another history of revision ${end.revision}`);
    // Words behind the last entry were heard already.
    const wasBehind = place.revision === this.#at.revision && this.#at.sequence > place.sequence;
    if (wasBehind && this.#at.sequence > lastSequence)
      return `it ends at message ${lastSequence}; it had acknowledged ${this.#at.sequence}`;
    // Another look may have been quicker.
    const isPast = place.revision < this.#at.revision;
    if (!wasBehind && !isPast) this.#at = { sequence: place.sequence, revision: place.revision };
    this.#provenAt = performance.now();
    return undefined;
  }

  /** Message `sequence`, which must be there. Throws BEACON_UNAVAILABLE. */
  async #message(sequence: number): Promise<GroupMessage> {
    const bytes = await this.#stream.message(sequence);
    if (bytes !== undefined) return this.#decode(sequence, bytes);
    throw new HoldfastError(
      'BEACON_UNAVAILABLE',
      `no server has message ${sequence} of ${this.#options.stream} now`,
      { details: { unanswered: true } },
    );
  }

  #decode(sequence: number, bytes: Uint8Array): GroupMessage {
    try {
      return decodeGroup(sequence, bytes);
    } catch (error) {
      throw this.#diverge(describeError(error));
    }
  }

  /** See `Original`. Runs while nothing else writes to the copy, which ends at `before`. */
  async #publish(before: LogPosition, entries: readonly LogEntry[]): Promise<'written' | 'moved'> {
    this.#usable();
    this.#checkOpen();
    if (!this.#options.acceptNotDurable && this.#durabilityProblems.length > 0)
      refuse(this.#options.stream, this.#durabilityProblems);
    await this.#prove(before);
    const sequence = this.#at.sequence + 1;
    const end = entries.at(-1) ?? before;
    const bytes = encodeGroup(sequence, before, entries);
    const giveUpAt = performance.now() + this.#options.retryMs;
    for (let pause = publishPauseMs; ; pause = Math.min(2 * pause, second)) {
      const outcome = await this.#stream.publish(bytes, messageId(end), sequence - 1);
      const result = await this.#resultOf(outcome, sequence, bytes);
      if (result === 'written') this.#published = { sequence, revision: end.revision };
      // Restarted servers have not said yes at once, so what was known of the place in front still holds.
      if (outcome.kind === 'stored') this.#provenAt = performance.now();
      if (result !== undefined) return result;
      if (performance.now() + pause >= giveUpAt) throw this.#unanswered(outcome);
      if (!(await paused(pause, this.#closing.signal))) throw this.#closed();
    }
  }

  /** What became of a message; undefined while its place in the stream may still be taken by it. */
  async #resultOf(
    outcome: PublishOutcome,
    sequence: number,
    bytes: Uint8Array,
  ): Promise<'written' | 'moved' | undefined> {
    if (outcome.kind === 'stored') {
      if (outcome.sequence === sequence) return 'written';
      throw this.#diverge(`it took as message ${outcome.sequence} what was to be ${sequence}`);
    }
    this.#provenAt = Number.NEGATIVE_INFINITY; // no plain yes: servers may have been restarted
    let there: Uint8Array | undefined;
    try {
      there = await this.#stream.message(sequence);
    } catch {
      return undefined; // silence proves nothing
    }
    if (there !== undefined) return sameBytes(there, bytes) ? 'written' : 'moved';
    if (outcome.kind === 'refused') await this.#meet(); // refused for what is not there: has something been lost?
    return undefined;
  }

  /** Makes sure, about once a second, that the message which the next one is to follow is the one that we know. */
  async #prove(end: LogPosition): Promise<void> {
    const isOurs = this.#published.revision === end.revision && this.#published.sequence > this.#at.sequence;
    if (isOurs) this.#at = this.#published;
    const isFresh = performance.now() - this.#provenAt < provenMs && this.#at.revision === end.revision;
    if (!isFresh) await this.#meet();
  }

  /** See `Original`. */
  async #catchUp(): Promise<void> {
    this.#usable();
    const state = await this.#stream.state();
    const isBehind = state === undefined || state.lastSequence < this.#at.sequence;
    const { lastSequence } = isBehind ? await this.#meet() : state;
    await this.#take(lastSequence);
  }

  /** Takes the messages up to `sequence` into the copy; `bytes` spares fetching the last one. */
  async #take(sequence: number, bytes?: Uint8Array): Promise<void> {
    await this.#taking.run(async () => {
      while (this.#at.sequence < sequence) {
        this.#usable();
        const next = this.#at.sequence + 1;
        const group =
          next === sequence && bytes !== undefined ? this.#decode(next, bytes) : await this.#message(next);
        await this.#takeOne(next, group);
      }
    });
  }

  async #takeOne(sequence: number, { before, entries, end, word }: GroupMessage): Promise<void> {
    const copy = this.#opened();
    const head = await copy.head();
    const isNext = before.revision === this.#at.revision;
    const isOurs = before.revision !== head.revision || sameBytes(before.chain, head.chain);
    // A place that was found anew meanwhile is not a gap.
    if (this.#at.sequence + 1 !== sequence) return;
    if (!isNext || !isOurs) {
      throw this.#diverge(
        `message ${sequence} continues another history than that of revision ${head.revision}`,
      );
    }
    await copy.take(entries).catch((error: unknown) => {
      throw isHoldfastError(error, 'RECORD_CORRUPT') ? this.#diverge(describeError(error)) : error;
    });
    if (word?.kind === 'open') await this.#keepOpened();
    if (this.#at.sequence < sequence) this.#at = { sequence, revision: end.revision };
    this.#word = word ?? this.#word;
    this.#bell.ring();
  }

  /** Takes messages as they come, until the end or until the stream turns out to be another one. */
  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    do {
      try {
        for await (const { sequence, bytes } of this.#stream.follow(this.#at.sequence + 1, signal)) {
          await this.#take(sequence, bytes);
        }
      } catch {
        // A lost leader, a full disk of ours, a divergence, which is remembered: begin again from where the copy ends.
      }
    } while (this.#divergence === '' && (await paused(followPauseMs, signal)));
  }

  /** Resolves when the copy has message `sequence`. */
  async #reach(sequence: number): Promise<void> {
    while (this.#at.sequence < sequence) {
      const grown = this.#bell.next();
      this.#usable();
      const stalled = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(stalledMs)]);
      if (this.#at.sequence < sequence) await eventOrAbort(grown, stalled);
      // Following may not work, for want of a permission say: then this throws, or goes on step by step.
      if (stalled.aborted) await this.#take(this.#at.sequence + 1);
    }
  }

  #diverge(problem: string): HoldfastError {
    if (this.#divergence === '') this.#divergence = `stream ${this.#options.stream}: ${problem}`;
    this.#lost.abort();
    this.#bell.ring();
    return this.#diverged();
  }

  #diverged(): HoldfastError {
    const message = `${this.#divergence}; it is not followed`;
    return new HoldfastError('BEACON_UNAVAILABLE', message, { details: { diverged: true } });
  }

  #checkOpen(): void {
    const { closed } = this;
    if (closed === undefined || this.#options.fills === true) return;
    // Whoever waits a moment finds it where it was moved to, or open again.
    const details = { moving: true, by: closed.by };
    throw new HoldfastError('BEACON_UNAVAILABLE', this.#closedText(closed), { details });
  }

  #closedText({ why }: StreamWord): string {
    return `stream ${this.#options.stream} is closed: ${why}`;
  }

  #unanswered(outcome: PublishOutcome): HoldfastError {
    const message = `stream ${this.#options.stream} did not answer; the appends may have taken effect, sending them again with the same id is safe`;
    return new HoldfastError('BEACON_UNAVAILABLE', message, {
      cause: outcome.kind === 'unknown' ? outcome.cause : undefined,
    });
  }

  #closed(): HoldfastError {
    return new HoldfastError('BEACON_UNAVAILABLE', `stream ${this.#options.stream} is closed`);
  }

  #usable(): LevelLog {
    if (this.#divergence !== '') throw this.#diverged();
    return this.#opened();
  }

  #opened(): LevelLog {
    if (this.#copy === undefined || this.#closing.signal.aborted) throw this.#closed();
    return this.#copy;
  }
}

/** On a stream that is born closed. */
const closedField = 'holdfast-closed';
/** Longer than servers take from being killed to taking a message, so that no message follows one that such a restart lost. */
const provenMs = second;
const settingsMs = 60 * second;
const lookMs = 5 * second;
const stalledMs = 5 * second;
const publishPauseMs = 20;
const behindPauseMs = 200;
const followPauseMs = 250;

/** False when `signal` aborted before `ms` went by. */
async function paused(ms: number, signal: AbortSignal): Promise<boolean> {
  return delay(ms, true, { signal }).catch(() => false);
}
