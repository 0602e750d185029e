// BACKBEAT over NATS: the channel on core subjects, and the lease register of our Pulses on a small stream. The only
// file of this room that knows NATS.
//
// The connection is never given up: the first one is tried every second, a lost one again after a second, for ever,
// and also when the server refuses the credentials, which may be repaired meanwhile. Nothing is sent while there is
// none: the client would keep it and send it later, and a beat that comes late is worse than none.

import { setTimeout as wait } from 'node:timers/promises';
import {
  DiscardPolicy,
  jetstream,
  JetStreamApiCodes,
  JetStreamApiError,
  jetstreamManager,
  RetentionPolicy,
  StorageType,
} from '@nats-io/jetstream';
import {
  connect,
  credsAuthenticator,
  headers as natsHeaders,
  type NatsConnection,
  type NodeConnectionOptions,
} from '@nats-io/transport-node';
import { fromUtf8, utf8 } from '../core/bytes.ts';
import { type Clock, second } from '../core/clock.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { readNatsLogin } from '../files/nats-login.ts';
import type { Channel, ChannelMessage, ChannelState } from './channel.ts';
import { encodeLease, type LeaseEntry, type LeaseRecord, type LeaseRegister, parseLease } from './lease.ts';
import { leaseStreamOf, type MessageKind, type Subjects } from './subjects.ts';

export interface NatsOptions {
  /** `nats://host:port` or `tls://host:port` of some of the servers; they tell of the others. */
  readonly servers: readonly string[];
  /** A file with either the credentials that NATS tools write (JWT and key), or one line `user:password`. */
  readonly credentialsPath?: string | undefined;
  /** PEM file of the authority that the servers' certificates are checked against; absent: the system's. */
  readonly caPath?: string | undefined;
  readonly clusterId: string;
  readonly subjects: Subjects;
  /** Shown in the server's lists of connections. */
  readonly name: string;
  readonly clock: Clock;
}

/** As upstream's subscribers. */
const reconnectMs = 1 * second;
/** A server that hangs is noticed after two of these. */
const pingMs = 5 * second;
const dialMs = 5 * second;
/** One write or read of the lease register: well below how long a lease lasts. */
const registerMs = 2 * second;
/** Lease records kept for whoever wants to see who led: half an hour at one in two seconds. */
const leaseRecordsMax = 1000;

export class NatsChannel implements Channel, LeaseRegister {
  readonly #options: NatsOptions;
  readonly #listeners = new Map<MessageKind, Set<(message: ChannelMessage) => void>>();
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;
  #nats: NatsConnection | undefined;
  #hasStream = false;
  #state: ChannelState;

  /** Begins to connect; never throws for a server that is not there. */
  constructor(options: NatsOptions) {
    this.#options = options;
    const since = options.clock.now();
    this.#state = {
      connected: false,
      since,
      text: 'not connected yet',
      reconnectsCount: 0,
      droppedCount: 0,
    };
    this.#loop = this.#run();
  }

  publish(kind: MessageKind, { text, headers }: ChannelMessage): void {
    if (this.#nats === undefined || !this.#state.connected) return this.#drop();
    const list = natsHeaders();
    for (const [name, value] of Object.entries(headers)) list.set(name, value);
    try {
      this.#nats.publish(this.#options.subjects[kind], utf8(text), { headers: list });
    } catch {
      this.#drop(); // closed between two events
    }
  }

  subscribe(kind: MessageKind, listener: (message: ChannelMessage) => void): () => void {
    const listeners = this.#listeners.get(kind) ?? new Set();
    this.#listeners.set(kind, listeners);
    const own = (message: ChannelMessage): void => listener(message);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  state(): ChannelState {
    return this.#state;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#listeners.clear();
    await this.#nats?.close();
    await this.#loop;
  }

  async read(): Promise<LeaseEntry | undefined> {
    const nats = this.#connected();
    const { clusterId, subjects } = this.#options;
    const manager = await jetstreamManager(nats, { timeout: registerMs, checkAPI: false });
    if (!this.#hasStream) await this.#ensureStream(nats);
    const found = await manager.streams
      .getMessage(leaseStreamOf(clusterId), { last_by_subj: subjects.lease })
      .catch((error: unknown) => this.#absent(error));
    if (found === null) return undefined;
    return { record: parseLease(fromUtf8(found.data)), revision: found.seq };
  }

  async write(record: LeaseRecord, expected: number): Promise<number | undefined> {
    const nats = this.#connected();
    const expect = { lastSubjectSequence: expected };
    try {
      const { seq } = await jetstream(nats, { timeout: registerMs }).publish(
        this.#options.subjects.lease,
        utf8(encodeLease(record)),
        { expect, timeout: registerMs, retries: 0 },
      );
      return seq;
    } catch (error) {
      const refusals: readonly number[] = [
        JetStreamApiCodes.StreamWrongLastSequence,
        JetStreamApiCodes.StreamWrongLastSequenceUnknown,
      ];
      if (error instanceof JetStreamApiError && refusals.includes(error.code)) return undefined;
      throw error;
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        const nats = await connect(this.#connectOptions());
        await this.#serve(nats);
      } catch (error) {
        this.#change(false, describeError(error));
      }
      await wait(reconnectMs, undefined, { signal }).catch(() => undefined);
    }
    this.#change(false, 'closed');
  }

  /** Until the connection is closed for good. */
  async #serve(nats: NatsConnection): Promise<void> {
    if (this.#stop.signal.aborted) return nats.close();
    this.#nats = nats;
    this.#hasStream = false;
    for (const kind of ['beat', 'status', 'report'] as const)
      nats.subscribe(this.#options.subjects[kind], {
        callback: (error, message) => {
          if (error === null) this.#hear(kind, message);
        },
      });
    this.#change(true, nats.getServer());
    const watching = this.#watch(nats);
    const why = await nats.closed();
    await watching;
    this.#nats = undefined;
    this.#change(false, why === undefined ? 'closed' : describeError(why));
  }

  async #watch(nats: NatsConnection): Promise<void> {
    for await (const event of nats.status()) {
      if (event.type === 'disconnect') this.#change(false, `connection to ${event.server} lost`);
      if (event.type !== 'reconnect') continue;
      this.#hasStream = false; // another server may know another state of it
      this.#state = { ...this.#state, reconnectsCount: this.#state.reconnectsCount + 1 };
      this.#change(true, event.server);
    }
  }

  #hear(
    kind: MessageKind,
    message: { readonly data: Uint8Array; readonly headers?: Iterable<[string, string[]]> },
  ) {
    const headers: Record<string, string> = {};
    for (const [name, values] of message.headers ?? []) headers[name] = values[0] ?? '';
    const heard = { text: Buffer.from(message.data).toString('utf8'), headers }; // no UTF-8 is no JSON either
    for (const listener of this.#listeners.get(kind) ?? []) listener(heard);
  }

  #change(connected: boolean, text: string): void {
    const since = connected === this.#state.connected ? this.#state.since : this.#options.clock.now();
    this.#state = { ...this.#state, connected, since, text };
  }

  #drop(): void {
    this.#state = { ...this.#state, droppedCount: this.#state.droppedCount + 1 };
  }

  #connected(): NatsConnection {
    if (this.#nats !== undefined && this.#state.connected) return this.#nats;
    throw new HoldfastError('PEER_UNREACHABLE', `no connection to NATS: ${this.#state.text}`);
  }

  /** Makes the stream of lease records where there is none: on three servers where there are several. */
  async #ensureStream(nats: NatsConnection): Promise<void> {
    const manager = await jetstreamManager(nats, { timeout: registerMs, checkAPI: false });
    const { clusterId, subjects } = this.#options;
    const name = leaseStreamOf(clusterId);
    const found = await manager.streams.info(name).catch((error: unknown) => this.#absent(error));
    if (found === null)
      await manager.streams.add({
        name,
        subjects: [subjects.lease],
        storage: StorageType.File,
        retention: RetentionPolicy.Limits,
        discard: DiscardPolicy.Old,
        max_msgs: leaseRecordsMax,
        num_replicas: nats.info?.cluster === undefined ? 1 : 3,
      });
    this.#hasStream = true;
  }

  /** Null when the stream or the record is not there; throws everything else. */
  #absent(error: unknown): null {
    const codes: readonly number[] = [JetStreamApiCodes.StreamNotFound, JetStreamApiCodes.NoMessageFound];
    if (error instanceof JetStreamApiError && codes.includes(error.code)) return null;
    throw error;
  }

  #connectOptions(): NodeConnectionOptions {
    const { servers, credentialsPath, caPath, name } = this.#options;
    const isTls = servers.some((each) => each.startsWith('tls://'));
    return {
      servers: [...servers],
      name,
      timeout: dialMs,
      pingInterval: pingMs,
      maxPingOut: 2,
      reconnect: true,
      maxReconnectAttempts: -1,
      reconnectTimeWait: reconnectMs,
      reconnectJitter: 50,
      reconnectJitterTLS: 50,
      ignoreAuthErrorAbort: true,
      ...(isTls ? { tls: caPath === undefined ? {} : { caFile: caPath } } : {}),
      ...(credentialsPath === undefined ? {} : loginOptions(credentialsPath)),
    };
  }
}

function loginOptions(path: string): NodeConnectionOptions {
  const login = readNatsLogin(path);
  if ('credentials' in login) return { authenticator: credsAuthenticator(login.credentials) };
  return { user: login.user, pass: login.password };
}
