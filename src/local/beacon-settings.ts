// Where a cluster keeps its Beacon: `settings.beacon` of cluster.json, absent for the log on the steward's own disk.
// Pure; no field holds a secret, `credentials` and `system` say where one is.
//
//   "beacon": {
//     "engine": "jetstream", "stream": "holdfast",
//     "servers": ["nats://10.0.0.1:4222", "nats://10.0.0.2:4222", "nats://10.0.0.3:4222"],
//     "credentials": "beacon.login", "system": "system.login", "ca": "ca.pem"
//   }
//
// Which log is in force stands in the steward's data directory (app/beacon-generations.ts); this is where a new one is
// begun, and how its servers are reached.

import { isMap } from '../core/shape.ts';
import { type NatsSettings, parseNatsAccess, shown } from './nats-settings.ts';

export type BeaconSettings = { readonly engine: 'leveldb' } | JetStreamSettings;

export interface JetStreamSettings {
  readonly engine: 'jetstream';
  /** Name of the stream, letters, digits, `-` and `_`. Default `holdfast`. */
  readonly stream: string;
  /** As `nats.servers`, whose value is the default. */
  readonly servers?: readonly string[];
  /** As `nats.credentials`, whose value is the default. */
  readonly credentials?: string;
  /** Path of the login of the system account, relative to the cluster's directory: it can ask whether servers sync. */
  readonly system?: string;
  /** As `nats.ca`, whose value is the default. */
  readonly ca?: string;
  /** Servers that hold a new stream, 1, 3 or 5. Default 3. */
  readonly replicas?: number;
  /** True: take a stream whose acknowledgements may be lost with a server or a disk, for trials. Default false. */
  readonly acceptNotDurable?: boolean;
}

export const defaultStream = 'holdfast';
const streamForm = /^[A-Za-z0-9_-]{1,128}$/;
const fields = ['engine', 'stream', 'servers', 'credentials', 'system', 'ca', 'replicas', 'acceptNotDurable'];

/** Reads `settings.beacon`. `fail` makes the error for what is wrong, naming the field. */
export function parseBeaconSettings(
  value: unknown,
  nats: NatsSettings | undefined,
  fail: (why: string) => Error,
): BeaconSettings | undefined {
  if (value === undefined) return undefined;
  if (!isMap(value)) throw fail('beacon must be an object');
  if (value['engine'] === 'leveldb') return { engine: 'leveldb' };
  if (value['engine'] !== 'jetstream')
    throw fail(`beacon.engine is ${shown(value['engine'])}, "leveldb" or "jetstream" expected`);
  const unknown = Object.keys(value).find((name) => !fields.includes(name));
  if (unknown !== undefined) throw fail(`beacon has ${shown(unknown)}: ${fields.join(', ')} expected`);
  const { stream = defaultStream, replicas, acceptNotDurable } = value;
  if (typeof stream !== 'string' || !streamForm.test(stream))
    throw fail(`beacon.stream is ${shown(stream)}, ${streamForm.source} expected`);
  if (value['servers'] === undefined && nats === undefined)
    throw fail('beacon.engine is "jetstream" and neither beacon.servers nor nats.servers is there');
  if (replicas !== undefined && ![1, 3, 5].includes(Number(replicas)))
    throw fail(`beacon.replicas is ${shown(replicas)}, 1, 3 or 5 expected`);
  if (acceptNotDurable !== undefined && typeof acceptNotDurable !== 'boolean')
    throw fail(`beacon.acceptNotDurable is ${shown(acceptNotDurable)}, true or false expected`);
  return {
    engine: 'jetstream',
    stream,
    ...parseNatsAccess(value, 'beacon', fail),
    ...(replicas === undefined ? {} : { replicas: Number(replicas) }),
    ...(acceptNotDurable === undefined ? {} : { acceptNotDurable }),
  };
}
