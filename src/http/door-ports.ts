// What the routes of a door need of the rest of the process; the app joins it to the real parts.

import type {
  BeatAnswer,
  CustodyLogAnswer,
  CustodyStatus,
  HealthCheck,
  ProviderInfo,
  StrandedOrder,
} from '../api/types.ts';
import type { BeaconQueries, CustodyCursor, CustodyPage } from '../beacon/queries.ts';
import type { Block, CID } from '../core/block.ts';
import type { Clock } from '../core/clock.ts';
import type { GetPorts } from '../flows/get.ts';
import type { Copies, PutPorts } from '../flows/put.ts';
import type { RegisteredObject } from '../flows/register.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import type { ObjectReport, StewardStatus } from '../steward/status.ts';
import type { DoorMetrics } from './metrics.ts';

export interface DoorPorts {
  readonly cluster: string;
  readonly version: string;
  readonly clock: Clock;
  readonly view: BeaconQueries;
  readonly metrics: DoorMetrics;
  readonly defaults: ReplicationPolicy;
  /** Largest object that PUT takes, bytes. */
  readonly objectBytesMax: number;
  storeBlocks(blocks: readonly Block[], policy: ReplicationPolicy): Promise<Copies>;
  load(cids: readonly CID[], signal: AbortSignal): Promise<readonly Block[]>;
  register(records: readonly Uint8Array[], content?: Block): Promise<RegisteredObject>;
  /** Present when this door seals for plain HTTP callers. */
  readonly sealing?: { readonly put: PutPorts; readonly get: GetPorts; readonly text: string };
  readonly steward: {
    status(): Promise<StewardStatus>;
    object(manifest: CID): Promise<ObjectReport>;
    heal(): Promise<void>;
  };
  readonly dht: {
    /** Asks the nodes that hold the block to announce it again now; how many do. */
    announce(cid: CID): Promise<number>;
    discover(cid: CID, signal: AbortSignal): Promise<readonly ProviderInfo[]>;
  };
  /** Work on the Beacon as a whole; each yields progress and ends with the result. */
  readonly beacon: {
    verify(signal: AbortSignal): AsyncIterable<unknown>;
    rebuild(without: readonly string[], signal: AbortSignal): AsyncIterable<unknown>;
    reseed(signal: AbortSignal): AsyncIterable<unknown>;
    /** Id of the log that the view of this door refused, because it lacks something. */
    refused(): string | undefined;
    /** Makes this door follow that log; it starts again on it. Throws VERSION_CONFLICT for any other. */
    accept(log: string): Promise<void>;
    /** `to`: `settings.beacon` of cluster.json, as the new log is to be kept. */
    migrate(to: unknown, signal: AbortSignal): AsyncIterable<unknown>;
    export(signal: AbortSignal): AsyncIterable<Uint8Array>;
    import(body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<unknown>;
  };
  readonly audit: {
    /** Yields progress, findings and acts, and ends with the result (app/door-audit.ts). */
    stranded(
      request: { readonly order?: StrandedOrder; readonly plan?: string },
      signal: AbortSignal,
    ): AsyncIterable<unknown>;
  };
  /** The way to the custodians; absent where there are none to be reached. */
  readonly custody?: {
    readonly group: string;
    /** Public records behind a place, for somebody who verifies them himself. */
    records(since: CustodyCursor): Promise<CustodyPage>;
    /** The membership as the operator signed it. */
    membership(): Promise<string>;
    /** Carries a signed request to a custodian and its sealed answer back; understands neither. */
    relay(peer: string, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
    /** Files a revocation that an authority signed; its revision. */
    file(record: Uint8Array): Promise<number>;
    /** Has a signed order carried out: what is told on the way as `{progress}`, at last `{result}`. */
    order(order: Uint8Array, signal: AbortSignal): AsyncIterable<unknown>;
    status(): Promise<CustodyStatus>;
    /** The status of a moment ago. */
    lately(): Promise<CustodyStatus>;
    log(name: string, from: number, count: number, signal: AbortSignal): Promise<CustodyLogAnswer>;
  };
  /** Moving keys between providers; absent where nothing is filed. */
  readonly keys?: {
    /** Files newer records of keys; the revision at which reads here see them. */
    file(records: readonly Uint8Array[]): Promise<number>;
    /** Custody groups by whose wraps this door opens content; null when it opens none. */
    opens(): readonly string[] | null;
  };
  /** How long a subscription may be silent, ms. Default 15,000. */
  readonly heartbeatMs?: number;
  beat(): BeatAnswer | undefined;
  peersConnected(): number;
  health(): Promise<readonly HealthCheck[]>;
}
