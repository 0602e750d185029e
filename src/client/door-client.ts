// Everything a door answers that needs no key: registry, status, healing, the Beacon as a whole.
//
// It reads its own writes: the highest revision that a write of this client was given travels with each
// later read, and the door waits until it sees that far.

import type {
  BeatAnswer,
  ChangeEvent,
  CustodyLogAnswer,
  CustodyRecordsAnswer,
  CustodyRelayLine,
  CustodyStatus,
  FiledAnswer,
  HealthAnswer,
  HistoryAnswer,
  HistoryLine,
  KeyObjectsAnswer,
  NavigateAnswer,
  ProviderInfo,
  QueryAnswer,
  StatAnswer,
  StatusAnswer,
  StrandedAct,
  StrandedFinding,
  StrandedOrder,
  StrandedResult,
  ToldError,
  VersionInfo,
  WrappedKeysAnswer,
} from '../api/types.ts';
import type { Block } from '../core/block.ts';
import { second } from '../core/clock.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { FeedCursor, FeedPage } from '../custody/feed.ts';
import { carHeader, carSection } from '../manifest/car.ts';
import { isErrorCode } from './failure.ts';
import { type Answer, type Call, DoorHttp, type DoorOptions } from './http.ts';
import { readEvents, readLines } from './lines.ts';

interface Signalled {
  readonly signal?: AbortSignal | undefined;
}

export interface PageRequest extends Signalled {
  /** Items asked for at a time, 1…1,000. Default 1,000. */
  readonly pageSize?: number;
}

export interface SubscribeRequest extends Signalled {
  /** Tell only of addresses that match. Default all. */
  readonly pattern?: string;
  /** First Beacon revision to tell. Default: what comes from now on. */
  readonly from?: number;
}

export interface WatchedRequest extends Signalled {
  /** Told how far it is: a text, or numbers by name. Must not throw. */
  readonly onProgress?: (progress: unknown) => void;
}

/** What a verification found; more facts may stand beside these. */
export interface VerifyReport {
  readonly ok: boolean;
  /** Beacon revision that was verified. */
  readonly revision: number;
  /** Blocks looked up. */
  readonly blocks: number;
  readonly problems: readonly string[];
}

export interface AuditRequest extends WatchedRequest {
  /** What is to be done about it; without `plan` it is only said. */
  readonly order?: StrandedOrder;
  /** Hash of the plan of that order, as an audit before it said. */
  readonly plan?: string;
  /** Told each finding and each act as they come. Must not throw. */
  readonly onFinding?: (finding: StrandedFinding) => void;
  readonly onAct?: (act: StrandedAct) => void;
}

export class DoorClient implements AsyncDisposable {
  protected readonly http: DoorHttp;
  #revision = 0;

  constructor(options: DoorOptions) {
    this.http = new DoorHttp(options);
  }

  /** Closes the idle connections. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.http[Symbol.dispose]();
  }

  /** Where the door is. */
  get url(): string {
    return this.http.url.origin;
  }

  /** Highest Beacon revision that a write of this client was given; 0 before the first. */
  get revision(): number {
    return this.#revision;
  }

  /** Says that later reads must see `revision`. */
  protected wrote(revision: number): void {
    this.#revision = Math.max(this.#revision, revision);
  }

  /** For the query of a read: `revision`, once something was written. */
  protected seen(): { readonly revision?: number } {
    return this.#revision === 0 ? {} : { revision: this.#revision };
  }

  /** Current versions of the addresses that match, page by page as they are taken. Throws ADDRESS_INVALID. */
  async *query(pattern: string, options: PageRequest = {}): AsyncGenerator<VersionInfo, void, undefined> {
    let after: string | undefined;
    do {
      const query = { pattern, limit: options.pageSize ?? 1000, after, ...this.seen() };
      const page = await this.#get<QueryAnswer>('/ucxi/v1/query', query, options);
      yield* page.items;
      after = page.next;
    } while (after !== undefined);
  }

  /** The history of an address, newest first. Throws NOT_FOUND. */
  async *log(address: string, options: PageRequest = {}): AsyncGenerator<HistoryLine, void, undefined> {
    await this.#untilSeen(address, options);
    let after: string | undefined;
    do {
      const query = { address, limit: options.pageSize ?? 1000, after };
      const page = await this.#get<HistoryAnswer>('/ucxi/v1/log', query, options);
      yield* page.items;
      after = page.next;
    } while (after !== undefined);
  }

  /** Which version an address means, and its neighbours in time. */
  async navigate(address: string, options: Signalled = {}): Promise<NavigateAnswer> {
    return this.#get('/ucxi/v1/navigate', { address, ...this.seen() }, options);
  }

  /** Manifest, holders and proofs of one version. Throws NOT_FOUND. */
  async stat(address: string, options: Signalled = {}): Promise<StatAnswer> {
    return this.#get('/ucxi/v1/stat', { address, ...this.seen() }, options);
  }

  async status<Steward = unknown>(options: Signalled = {}): Promise<StatusAnswer<Steward>> {
    return this.#get('/ucxi/v1/status', {}, options);
  }

  /** Has the steward look for deficits now. */
  async heal(options: Signalled = {}): Promise<void> {
    await this.http.data({ method: 'POST', path: '/ucxi/v1/heal', idempotent: true, ...options });
  }

  /** The current beat and the key policy. Throws BEACON_UNAVAILABLE before the first one was heard. */
  async beat(options: Signalled = {}): Promise<BeatAnswer> {
    return this.#get('/ucxi/v1/beat', {}, options);
  }

  async health(options: Signalled = {}): Promise<HealthAnswer> {
    return this.#get('/health/checks', {}, options);
  }

  /** Has the holders of a block announce it again; resolves with how many do. */
  async announce(cid: string, options: Signalled = {}): Promise<number> {
    const call = { method: 'POST', path: '/ucxi/v1/announce', query: { cid }, idempotent: true } as const;
    return (await this.http.data<{ providers: number }>({ ...call, ...options })).providers;
  }

  /** Peers that announce a block in the DHT. */
  async discover(cid: string, options: Signalled = {}): Promise<readonly ProviderInfo[]> {
    const answer = await this.#get<{ providers: ProviderInfo[] }>('/ucxi/v1/discover', { cid }, options);
    return answer.providers;
  }

  /**
   * New versions as they are registered, from the next one or from `from`, for as long as it is iterated. A
   * lost connection is taken up again where it broke. Throws what the door refuses, and the reason of `signal`.
   */
  async *subscribe(options: SubscribeRequest = {}): AsyncGenerator<ChangeEvent, void, undefined> {
    let from = options.from ?? (await this.status(options)).door.beacon.revision + 1;
    for (;;) {
      try {
        for await (const event of this.#events({ ...options, from })) {
          yield event;
          from = event.revision + 1;
        }
      } catch (error) {
        options.signal?.throwIfAborted();
        if (!isHoldfastError(error, 'PEER_UNREACHABLE') && !isHoldfastError(error, 'TIMEOUT')) throw error;
      }
    }
  }

  /** Proves that chain, view and blocks agree. A disagreement is in the report, not thrown. */
  async beaconVerify(options: WatchedRequest = {}): Promise<VerifyReport> {
    return this.#follow('/ucxi/v1/beacon/verify', options);
  }

  /**
   * Reconstructs the registry from the records in the blockstores of all storage nodes but `without`, by name.
   * Resolves with what was found. Throws PEER_UNREACHABLE naming the nodes that cannot be asked.
   */
  async beaconRebuild(
    without: readonly string[] = [],
    options: WatchedRequest = {},
  ): Promise<Readonly<Record<string, unknown>>> {
    const query = new URLSearchParams();
    for (const name of without) query.append('without', name);
    return this.#follow(`/ucxi/v1/beacon/rebuild?${query.toString()}`, options);
  }

  /** Compares the blocks of all nodes with the registry (docs/operating/stranded.md). Throws VERSION_CONFLICT for another plan. */
  async auditStranded(request: AuditRequest = {}): Promise<StrandedResult> {
    const { order, plan, onFinding, onAct } = request;
    const query = new URLSearchParams({
      ...(order === undefined ? {} : { order }),
      ...(plan === undefined ? {} : { plan }),
    }).toString();
    const path = `/ucxi/v1/audit/stranded${query === '' ? '' : `?${query}`}`;
    return this.#follow(path, request, undefined, (line) => {
      if (line.finding !== undefined) onFinding?.(line.finding);
      if (line.act !== undefined) onAct?.(line.act);
    });
  }

  /** Begins a new log with what the views hold. Resolves with where it came from. */
  async beaconReseed(options: WatchedRequest = {}): Promise<Readonly<Record<string, unknown>>> {
    return this.#follow('/ucxi/v1/beacon/reseed', options);
  }

  /** Moves the registry to where `to` says (`settings.beacon` of cluster.json). Resolves with how much was copied. */
  async beaconMigrate(to: unknown, options: WatchedRequest = {}): Promise<Readonly<Record<string, unknown>>> {
    const body = new TextEncoder().encode(JSON.stringify({ to }));
    return this.#follow('/ucxi/v1/beacon/migrate', options, body, undefined, 'application/json');
  }

  /** The whole log as one checksummed file. */
  async *beaconExport(options: Signalled = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const call = { method: 'GET', path: '/ucxi/v1/beacon/export', idleMs: 0 } as const;
    const answer = await this.http.open({ ...call, ...options });
    yield* answer.bytes;
  }

  /**
   * Has the door follow the log `id`, which it refused because it lacks something; it starts again on it.
   * Throws VERSION_CONFLICT when that log is not waiting for it.
   */
  async beaconAccept(id: string, options: Signalled = {}): Promise<unknown> {
    const path = `/ucxi/v1/beacon/accept?${new URLSearchParams({ log: id }).toString()}`;
    return this.http.data({ method: 'POST', path, ...options });
  }

  /** Takes an exported log into an empty Beacon, or goes on with the same one. Resolves with the report. */
  async beaconImport(source: AsyncIterable<Uint8Array>, options: Signalled = {}): Promise<unknown> {
    const call = { method: 'POST', path: '/ucxi/v1/beacon/import', body: source, idleMs: 0 } as const;
    return this.http.data({ ...call, ...options });
  }

  /** Public records of custody behind `after` (`revision.index`), for the caller to verify. */
  async custodyRecords(after: string, options: Signalled = {}): Promise<CustodyRecordsAnswer> {
    return this.#get('/v1/custody', { after }, options);
  }

  /** The same behind `since`, as a feed takes them (custody/feed.ts). */
  async custodyPage({ revision, index }: FeedCursor, options: Signalled = {}): Promise<FeedPage> {
    const { head, done, records } = await this.custodyRecords(`${revision}.${index}`, options);
    const decoded = records.map(({ bytes, ...place }) => ({
      ...place,
      bytes: new Uint8Array(Buffer.from(bytes, 'base64')),
    }));
    return { head, done, records: decoded };
  }

  async custodyStatus(options: Signalled = {}): Promise<CustodyStatus> {
    return this.#get('/v1/custody/status', {}, options);
  }

  /**
   * Has the door carry a signed request to custodians, and gives for each its sealed answer, or why there is none, in
   * the order in which they come. Throws what the door throws.
   */
  async *custodyRelay(
    peers: readonly string[],
    request: Uint8Array,
    options: Signalled = {},
  ): AsyncGenerator<RelayedAnswer> {
    const call = {
      method: 'POST',
      path: '/v1/custody/relay',
      query: { peer: peers },
      body: [request],
    } as const;
    const { bytes } = await this.http.open({ ...call, headers: octets, ...options });
    for await (const line of readLines(bytes)) yield relayedAnswer(line);
  }

  /** A part of the audit log of a custodian, for the caller to verify. Throws NOT_FOUND, PEER_UNREACHABLE. */
  async custodyLog(
    name: string,
    page: { readonly from: number; readonly count: number },
    options: Signalled = {},
  ): Promise<CustodyLogAnswer> {
    return this.#get(`/v1/custody/log/${encodeURIComponent(name)}`, page, options);
  }

  /** Has a signed order carried out. Throws what the custodians or the coordinator throw. */
  async custodyOrder<Result>(order: Uint8Array, options: WatchedRequest = {}): Promise<Result> {
    return this.#follow('/v1/custody/orders', options, order);
  }

  /** Records of wrapped keys, for the caller to verify. */
  async wrappedKeys(
    after: string | undefined,
    limit: number,
    options: Signalled = {},
  ): Promise<WrappedKeysAnswer> {
    return this.#get('/v1/custody/keys', { after, limit, ...this.seen() }, options);
  }

  /** Envelopes under a branch key with their manifests, for the caller to verify. */
  async keyObjects(
    key: string,
    after: string | undefined,
    options: Signalled = {},
  ): Promise<KeyObjectsAnswer> {
    return this.#get('/v1/custody/objects', { key, after, limit: 64, ...this.seen() }, options);
  }

  /** Files newer records of wrapped keys. Throws VERSION_CONFLICT, FORBIDDEN, RECORD_INVALID. */
  async rewrapKeys(records: readonly Block[], options: Signalled = {}): Promise<void> {
    const body = [carHeader([]), ...records.flatMap((block) => carSection(block))];
    const headers = { 'content-type': 'application/vnd.ipld.car' };
    const call = { method: 'POST', path: '/v1/custody/keys', body, headers } as const;
    this.wrote((await this.http.data<FiledAnswer>({ ...call, ...options })).revision);
  }

  /** Files a revocation that an authority signed. Throws FORBIDDEN, VERSION_CONFLICT. */
  async custodyFile(record: Uint8Array, options: Signalled = {}): Promise<{ readonly revision: number }> {
    const call = { method: 'POST', path: '/v1/custody/records', body: [record], headers: octets } as const;
    return this.http.data({ ...call, ...options });
  }

  async *#events(options: SubscribeRequest & { readonly from: number }): AsyncGenerator<ChangeEvent> {
    const { pattern, from, signal } = options;
    const answer = await this.http.open({
      method: 'GET',
      path: '/ucxi/v1/subscribe',
      query: { pattern, from },
      headers: { accept: 'text/event-stream' },
      idleMs: 60 * second, // the door sends a comment every 15 s
      signal,
    });
    for await (const { data } of readEvents(answer.bytes)) {
      const event: ChangeEvent = JSON.parse(data);
      yield event;
    }
  }

  /** Lines `{progress}`, then one `{result}`. */
  async #follow<T>(
    path: string,
    { signal, onProgress }: WatchedRequest,
    bytes?: Uint8Array,
    onLine?: (line: StreamLine<T>) => void,
    type = octets['content-type'],
  ): Promise<T> {
    const sent = bytes === undefined ? {} : { body: [bytes], headers: { 'content-type': type } };
    const answer: Answer = await this.http.open({ method: 'POST', path, idleMs: 0, signal, ...sent });
    let last: StreamLine<T> = {};
    for await (const line of readLines(answer.bytes)) {
      last = JSON.parse(line);
      throwIfFailed(last);
      if (last.progress !== undefined) onProgress?.(last.progress);
      onLine?.(last);
    }
    if (last.result === undefined)
      throw new HoldfastError('PEER_REFUSED', `${this.url}${path} ended without a result`);
    return last.result;
  }

  async #untilSeen(address: string, options: Signalled): Promise<void> {
    if (this.#revision > 0) await this.navigate(address, options);
  }

  async #get<T>(path: string, query: NonNullable<Call['query']>, { signal }: Signalled): Promise<T> {
    return this.http.data({ method: 'GET', path, query, signal });
  }
}

/** What became of a request at one custodian. */
export type RelayedAnswer =
  | { readonly peer: string; readonly answer: Uint8Array }
  | { readonly peer: string; readonly error: HoldfastError };

function relayedAnswer(line: string): RelayedAnswer {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the door is written against the same type
  const { peer, ...outcome } = JSON.parse(line) as CustodyRelayLine;
  if ('answer' in outcome) return { peer, answer: new Uint8Array(Buffer.from(outcome.answer, 'base64')) };
  return { peer, error: errorOfLine(outcome.error) };
}

/** What a line of a long answer may carry. */
interface StreamLine<Result> {
  readonly progress?: unknown;
  readonly finding?: StrandedFinding;
  readonly act?: StrandedAct;
  readonly result?: Result;
}

const octets = { 'content-type': 'application/octet-stream' };

/** A stream that has begun can report a failure only in its last line. */
function throwIfFailed(value: unknown): void {
  const error = typeof value === 'object' && value !== null && 'error' in value ? value.error : undefined;
  if (typeof error !== 'object' || error === null || !('reason' in error) || !('message' in error)) return;
  const { reason, message } = error;
  throw errorOfLine({ reason: String(reason), message: String(message) });
}

function errorOfLine({ reason, message }: ToldError): HoldfastError {
  return new HoldfastError(isErrorCode(reason) ? reason : 'INTERNAL', message);
}
