// Prometheus text. Names end in their unit, times are seconds. One registry a process, filled on scrape.

import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { BeaconQueries } from '../beacon/queries.ts';
import { objectStatuses, type StewardStatus } from '../steward/status.ts';

/** What is shown of what a steward says. */
type Counted = Pick<StewardStatus, 'objects' | 'nodes' | 'healing' | 'beacon'>;

export class DoorMetrics {
  readonly #registry = new Registry();
  readonly #requests: Counter;
  readonly #seconds: Histogram;
  readonly #objects: Gauge;
  readonly #nodesUp: Gauge;
  readonly #nodeBytes: Gauge;
  readonly #healingBytes: Gauge;
  readonly #beacon: Gauge;
  readonly #viewDiffers: Gauge;
  readonly #stewardUp: Gauge;

  constructor() {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#requests = new Counter({
      name: 'holdfast_door_requests_total',
      help: 'Requests answered, by operation and status.',
      labelNames: ['operation', 'status'],
      registers,
    });
    this.#seconds = new Histogram({
      name: 'holdfast_door_request_duration_seconds',
      help: 'From the request line to the last byte of the answer.',
      labelNames: ['operation'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60],
      registers,
    });
    this.#objects = new Gauge({
      name: 'holdfast_objects',
      help: 'Objects by status, as the steward counts them.',
      labelNames: ['status'],
      registers,
    });
    this.#nodesUp = new Gauge({
      name: 'holdfast_node_up',
      help: '1 when the node answered lately.',
      labelNames: ['node', 'zone'],
      registers,
    });
    this.#nodeBytes = new Gauge({
      name: 'holdfast_node_stored_bytes',
      help: 'Bytes of blocks the ledger counts on the node.',
      labelNames: ['node', 'zone'],
      registers,
    });
    this.#healingBytes = new Gauge({
      name: 'holdfast_healing_pending_bytes',
      help: 'Bytes still to be copied.',
      registers,
    });
    this.#beacon = new Gauge({
      name: 'holdfast_beacon_revision',
      help: 'Revision of the Beacon log that this door has folded.',
      registers,
    });
    this.#viewDiffers = new Gauge({
      name: 'holdfast_beacon_view_differs',
      help: '1 when the rows of the view were unlike those of the others when they were compared last.',
      labelNames: ['member'],
      registers,
    });
    this.#stewardUp = new Gauge({
      name: 'holdfast_steward_up',
      help: '1 when the steward answered this scrape.',
      registers,
    });
  }

  answered(operation: string, status: number, seconds: number): void {
    this.#requests.inc({ operation, status });
    this.#seconds.observe({ operation }, seconds);
  }

  /** The exposition. `steward` is undefined when it could not be asked: its gauges then vanish, they do not freeze. */
  async text(view: Pick<BeaconQueries, 'position'>, steward: Counted | undefined): Promise<string> {
    this.#beacon.set(view.position().revision);
    this.#stewardUp.set(steward === undefined ? 0 : 1);
    for (const gauge of [this.#objects, this.#nodesUp, this.#nodeBytes, this.#viewDiffers]) gauge.reset();
    this.#healingBytes.set(steward?.healing.pendingBytes ?? Number.NaN);
    if (steward !== undefined) {
      for (const status of objectStatuses) this.#objects.set({ status }, steward.objects[status]);
      for (const node of steward.nodes) {
        const labels = { node: node.name, zone: node.zone };
        this.#nodesUp.set(labels, node.up ? 1 : 0);
        this.#nodeBytes.set(labels, node.bytes);
      }
      const { equal = [], differing = [] } = steward.beacon?.views ?? {};
      for (const member of equal) this.#viewDiffers.set({ member }, 0);
      for (const { name: member } of differing) this.#viewDiffers.set({ member }, 1);
    }
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
