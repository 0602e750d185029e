// The stream and its servers as the engine sees them: the only file of this room that speaks to NATS.
//
// What a server answers is sorted into what it proves. That a message is stored at a place is proof, and so is that
// another one is; silence, a lost connection or an absent message prove nothing.

import { setTimeout as delay } from 'node:timers/promises';
import {
  DiscardPolicy,
  type ConsumerMessages,
  DeliverPolicy,
  jetstream,
  JetStreamApiError,
  type JetStreamClient,
  jetstreamManager,
  type JetStreamManager,
  RetentionPolicy,
  StorageType,
  type StreamConfig,
  type StreamInfo,
} from '@nats-io/jetstream';
import {
  type Authenticator,
  AuthorizationError,
  connect,
  credsAuthenticator,
  nanos,
  type NatsConnection,
  type NodeConnectionOptions,
  PermissionViolationError,
  RequestError,
} from '@nats-io/transport-node';
import { second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { type NatsLogin, readNatsLogin } from '../files/nats-login.ts';
import { duplicateWindowMs, type ServerFacts, type StreamFacts } from './jetstream-settings.ts';

/** Who we are: said, or in a file (files/nats-login.ts) that is read for every connection. */
export type Login = { readonly user: string; readonly password: string } | { readonly path: string };

export interface StreamAccess {
  /** `host:port` or `nats://host:port` of some of the servers; they tell of the others. */
  readonly servers: readonly string[];
  readonly login?: Login;
  /** User of the system account that may publish `$SYS.REQ.SERVER.PING.VARZ`: tells whether servers sync. */
  readonly system?: Login;
  /** PEM files; without `caFile` the system's authorities count. Absent: TLS where a server is `tls://…` only. */
  readonly tls?: { readonly caFile?: string; readonly certFile?: string; readonly keyFile?: string };
  /** Name of the stream; its one subject is `<name>.log`. */
  readonly stream: string;
  /** An answer takes at most so long, ms. */
  readonly timeoutMs: number;
}

/** What the server that leads the stream says of it. */
export interface StreamState {
  readonly facts: StreamFacts;
  readonly firstSequence: number;
  readonly lastSequence: number;
  readonly deletedCount: number;
  readonly messagesCount: number;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface StreamMessage {
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

/** `stored`: at `sequence`. `repeated`: the server knows the id. `refused`: not the expected place. */
export type PublishOutcome =
  | { readonly kind: 'stored'; readonly sequence: number }
  | { readonly kind: 'repeated' | 'refused' }
  | { readonly kind: 'unknown'; readonly cause: unknown };

export class Stream implements AsyncDisposable {
  readonly #access: StreamAccess;
  readonly #nats: NatsConnection;
  readonly #client: JetStreamClient;
  readonly #manager: JetStreamManager;

  private constructor(access: StreamAccess, nats: NatsConnection, manager: JetStreamManager) {
    this.#access = access;
    this.#nats = nats;
    this.#client = jetstream(nats, { timeout: access.timeoutMs });
    this.#manager = manager;
  }

  /**
   * Throws BEACON_UNAVAILABLE when no server can be reached. Reconnects for ever afterwards.
   * Here and below, details `unanswered` says that nobody has refused: it may answer in a moment.
   */
  static async connect(access: StreamAccess): Promise<Stream> {
    const nats = await reached(access, () => connect(connectionOptions(access, access.login)));
    try {
      const manager = await jetstreamManager(nats, { timeout: access.timeoutMs, checkAPI: false });
      return new Stream(access, nats, manager);
    } catch (cause) {
      await nats.close();
      throw unreachable(access, cause);
    }
  }

  get subject(): string {
    return `${this.#access.stream}.log`;
  }

  get maxPayloadBytes(): number {
    return this.#nats.info?.max_payload ?? 0;
  }

  /** State of the stream; undefined when there is none. Throws BEACON_UNAVAILABLE when nobody leads it. */
  async state(): Promise<StreamState | undefined> {
    try {
      return stateOf(await this.#manager.streams.info(this.#access.stream));
    } catch (cause) {
      if (cause instanceof JetStreamApiError && cause.code === streamNotFound) return undefined;
      throw unreachable(this.#access, cause);
    }
  }

  /** Makes the stream. Throws BEACON_UNAVAILABLE, also when it is there with other settings. */
  async create(replicas: number, metadata: Readonly<Record<string, string>>): Promise<void> {
    const config = {
      ...newStream,
      name: this.#access.stream,
      subjects: [this.subject],
      num_replicas: replicas,
    };
    await reached(this.#access, () => this.#manager.streams.add({ ...config, metadata: { ...metadata } }));
  }

  /** Sends a message that is to be number `expectedLast + 1`. Never throws. */
  async publish(bytes: Uint8Array, id: string, expectedLast: number): Promise<PublishOutcome> {
    const expect = { lastSubjectSequence: expectedLast, streamName: this.#access.stream };
    try {
      const ack = await this.#client.publish(this.subject, bytes, { msgID: id, expect, retries: 1 });
      return ack.duplicate ? { kind: 'repeated' } : { kind: 'stored', sequence: ack.seq };
    } catch (cause) {
      if (!(cause instanceof JetStreamApiError)) return { kind: 'unknown', cause };
      if (cause.code === wrongLastSequence || cause.code === wrongLastSequenceUnknown)
        return { kind: 'refused' };
      return cause.code === sameIdUnderWay ? { kind: 'repeated' } : { kind: 'unknown', cause };
    }
  }

  /** Message `sequence` from the server that leads; undefined when it has none. Throws BEACON_UNAVAILABLE. */
  async message(sequence: number): Promise<Uint8Array | undefined> {
    const { stream } = this.#access;
    const found = await reached(this.#access, () =>
      this.#manager.streams.getMessage(stream, { seq: sequence }),
    );
    return found?.data;
  }

  /** Messages from `sequence` on, in order, as they come, until `signal` aborts or the connection is lost for good. */
  async *follow(sequence: number, signal: AbortSignal): AsyncGenerator<StreamMessage> {
    const messages = await this.#consume(sequence);
    const stop = (): void => messages.stop();
    signal.addEventListener('abort', stop, { once: true });
    try {
      if (signal.aborted) return;
      for await (const { seq, data } of messages) yield { sequence: seq, bytes: data };
    } finally {
      signal.removeEventListener('abort', stop);
      await messages.close();
    }
  }

  /** Calls `onBack` after each reconnection, until the end. */
  async watchConnection(onBack: () => void): Promise<void> {
    for await (const { type } of this.#nats.status()) if (type === 'reconnect') onBack();
  }

  /** Whether each server can be asked for its settings. */
  get asksServers(): boolean {
    return this.#access.system !== undefined;
  }

  /**
   * What servers tell of themselves: with a login of the system account those of these `names` that answer in time,
   * else the one we talk to.
   */
  async servers(names: readonly string[]): Promise<ServerFacts[]> {
    const { system, timeoutMs } = this.#access;
    if (system === undefined) return [this.#connectedServer()];
    const nats = await reached(this.#access, () => connect(connectionOptions(this.#access, system)));
    try {
      const options = { strategy: 'timer', maxWait: timeoutMs } as const;
      const answers = await reached(this.#access, () => nats.requestMany(serverQuestion, '', options));
      const facts: ServerFacts[] = [];
      for await (const answer of answers) {
        facts.push(serverOf(answer.json()));
        if (names.every((name) => facts.some((each) => each.name === name))) break;
      }
      return facts;
    } finally {
      await nats.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#nats.close();
  }

  #connectedServer(): ServerFacts {
    const { info } = this.#nats;
    const [name = '', version = ''] = [info?.server_name, info?.version];
    return { name, version, maxPayloadBytes: this.maxPayloadBytes, syncAlways: undefined };
  }

  async #consume(sequence: number): Promise<ConsumerMessages> {
    return reached(this.#access, async () => {
      const place = { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: sequence };
      const consumer = await this.#client.consumers.get(this.#access.stream, place);
      // Few large messages or many small ones: what waits here is bounded by bytes.
      return consumer.consume({ max_bytes: followedBytesMax, idle_heartbeat: second });
    });
  }
}

/** What `work` gives, tried again until `giveUpAt` while all that speaks against it is silence. */
export async function patiently<Result>(
  work: () => Promise<Result>,
  giveUpAt: number,
  signal?: AbortSignal,
): Promise<Result> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const isSilence = isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['unanswered'] === true;
      if (!isSilence || performance.now() >= giveUpAt || signal?.aborted === true) throw error;
      await delay(patientPauseMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
    }
  }
}

const patientPauseMs = 250;
/** Messages on their way to us that nobody took yet. Room for two of the largest. */
const followedBytesMax = 8 * 1024 * 1024;
const serverQuestion = '$SYS.REQ.SERVER.PING.VARZ';

const streamNotFound = 10059;
const wrongLastSequence = 10071;
const wrongLastSequenceUnknown = 10164;
/** The same id was sent before and is being stored: whether it will be is open. */
const sameIdUnderWay = 10158;
/** The servers that are to hold a new stream have not all found each other. */
const noPeersYet = 10005;

/** Append-only, without any limit that lets a server forget. */
const newStream = {
  retention: RetentionPolicy.Limits,
  storage: StorageType.File,
  discard: DiscardPolicy.New,
  max_msgs: -1,
  max_bytes: -1,
  max_msgs_per_subject: -1,
  max_msg_size: -1,
  max_age: 0,
  duplicate_window: nanos(duplicateWindowMs),
  allow_direct: false,
  allow_rollup_hdrs: false,
  deny_delete: true,
  deny_purge: true,
} as const satisfies Partial<StreamConfig>;

function connectionOptions(access: StreamAccess, login: Login | undefined): NodeConnectionOptions {
  const { servers, tls, timeoutMs } = access;
  const isTls = servers.some((each) => each.startsWith('tls://'));
  return {
    servers: [...servers],
    timeout: timeoutMs,
    maxReconnectAttempts: -1,
    ignoreAuthErrorAbort: true,
    reconnectTimeWait: 250,
    // A server that does not answer within two of these is left for another one.
    pingInterval: 5 * second,
    name: 'holdfast-beacon',
    ...(login === undefined ? {} : { authenticator: (nonce?: string) => authOf(login, nonce) }),
    ...(tls === undefined && !isTls ? {} : { tls: { ...tls } }),
  };
}

function authOf(login: Login, nonce: string | undefined): ReturnType<Authenticator> {
  const read: NatsLogin = 'path' in login ? readNatsLogin(login.path) : login;
  if ('credentials' in read) return credsAuthenticator(read.credentials)(nonce);
  return { user: read.user, pass: read.password };
}

function stateOf({ config, state, cluster }: StreamInfo): StreamState {
  const others = cluster?.replicas ?? [];
  const names = [cluster?.leader, ...others.map(({ name }) => name)];
  // Killed servers stay on line for minutes in the eyes of the others; what they do not do is follow the leader.
  const away = others.filter(({ offline, current }) => offline || !current);
  return {
    facts: {
      subjects: config.subjects,
      storage: config.storage,
      retention: config.retention,
      replicas: config.num_replicas,
      maxMessages: config.max_msgs,
      maxBytes: config.max_bytes,
      maxMessageBytes: config.max_msg_size,
      maxPerSubject: config.max_msgs_per_subject,
      maxAgeNs: config.max_age,
      denyDelete: config.deny_delete,
      denyPurge: config.deny_purge,
      allowRollup: config.allow_rollup_hdrs,
      allowTtl: config.allow_msg_ttl ?? false,
      noAck: config.no_ack ?? false,
      persistMode: typeof config.persist_mode === 'string' ? config.persist_mode : undefined,
      hasForeignSource: hasForeignSource(config),
      servers: names.filter((name) => name !== undefined),
      away: away.map(({ name }) => name),
    },
    firstSequence: state.first_seq,
    lastSequence: state.last_seq,
    deletedCount: state.num_deleted ?? 0,
    messagesCount: state.messages,
    metadata: config.metadata ?? {},
  };
}

function hasForeignSource(config: StreamConfig): boolean {
  const { mirror, sources, republish, subject_transform: transform } = config;
  return [mirror, republish, transform].some((each) => each !== undefined) || (sources ?? []).length > 0;
}

/** A server's answer to `serverQuestion`. */
function serverOf(answer: unknown): ServerFacts {
  const data = fieldOf(answer, 'data');
  const [name, version] = [fieldOf(data, 'server_name'), fieldOf(data, 'version')];
  const maxPayload = fieldOf(data, 'max_payload');
  const store = fieldOf(fieldOf(data, 'jetstream'), 'config');
  return {
    name: typeof name === 'string' ? name : '',
    version: typeof version === 'string' ? version : '',
    maxPayloadBytes: typeof maxPayload === 'number' ? maxPayload : 0,
    // Servers leave a false flag out of a config that they have.
    syncAlways: store === undefined ? undefined : fieldOf(store, 'sync_always') === true,
  };
}

async function reached<Result>(access: StreamAccess, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (cause) {
    throw unreachable(access, cause);
  }
}

function unreachable({ servers, stream }: StreamAccess, cause: unknown): HoldfastError {
  const message = `stream ${stream} on ${servers.join(', ')} does not answer as it should`;
  const unanswered = isRefusal(cause) ? {} : { unanswered: true };
  return new HoldfastError('BEACON_UNAVAILABLE', message, { details: { stream, ...unanswered }, cause });
}

/** True for an answer that will be the same in a moment. All else may be an election, a start, or a busy server. */
function isRefusal(cause: unknown): boolean {
  if (cause instanceof JetStreamApiError) return cause.status < 500 && cause.code !== noPeersYet;
  const source = cause instanceof RequestError ? cause.cause : cause;
  return source instanceof AuthorizationError || source instanceof PermissionViolationError;
}
