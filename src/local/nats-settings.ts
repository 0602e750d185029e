// How a cluster keeps time with others: `settings.nats` and `settings.pulse` of cluster.json, both absent for one that
// keeps time by itself. Pure; no field holds a secret, `credentials` says where one is.
//
//   "nats": {
//     "servers": ["nats://10.0.0.1:4222", "nats://10.0.0.2:4222"],
//     "credentials": "nats.creds", "ca": "ca.pem",
//     "subjects": { "beat": "backbeat.{cluster_id}.beat" }
//   },
//   "pulse": "external"

import { isMap } from '../core/shape.ts';

export interface NatsSettings {
  /** `nats://host:port`, `tls://host:port` or `host:port` of 1 to 16 servers. */
  readonly servers: readonly string[];
  /** Path of a file with NATS credentials or `user:password`, relative to the cluster's directory. */
  readonly credentials?: string;
  /** Path of the PEM file of the authority that the servers' certificates are checked against. */
  readonly ca?: string;
  /** Other subjects than the default ones; `{cluster_id}` stands for the cluster's id. */
  readonly subjects?: Readonly<Partial<Record<'beat' | 'status' | 'report' | 'lease', string>>>;
}

export interface TempoSettings {
  readonly nats?: NatsSettings;
  /** `external`: another program sends the beats of this cluster over NATS, and ours is silent. Absent: `own`. */
  readonly pulse?: 'own' | 'external';
}

const serversMax = 16;
const serverForm = /^((nats|tls):\/\/)?[A-Za-z0-9_.:[\]-]{1,255}$/;
const pathForm = /^[^\0]{1,4096}$/;
const subjectForm = /^[A-Za-z0-9_.{}-]{1,255}$/;

/** Reads both settings. `fail` makes the error for what is wrong, naming the field. */
export function parseTempoSettings(
  settings: Readonly<Record<string, unknown>>,
  fail: (why: string) => Error,
): TempoSettings {
  const { nats, pulse } = settings;
  if (pulse !== undefined && pulse !== 'own' && pulse !== 'external')
    throw fail(`pulse is ${shown(pulse)}, "own" or "external" expected`);
  if (pulse === 'external' && nats === undefined)
    throw fail('pulse is "external" and nats is absent: nobody would send beats');
  return {
    ...(nats === undefined ? {} : { nats: parseNats(nats, fail) }),
    ...(pulse === undefined ? {} : { pulse }),
  };
}

function parseNats(value: unknown, fail: (why: string) => Error): NatsSettings {
  if (!isMap(value)) throw fail('nats must be an object');
  const { servers, credentials, ca, subjects } = value;
  if (!Array.isArray(servers) || servers.length < 1 || servers.length > serversMax)
    throw fail(`nats.servers must be a list of 1 to ${serversMax}`);
  return {
    servers: servers.map((each: unknown) => text(each, serverForm, 'nats.servers', fail)),
    ...(credentials === undefined
      ? {}
      : { credentials: text(credentials, pathForm, 'nats.credentials', fail) }),
    ...(ca === undefined ? {} : { ca: text(ca, pathForm, 'nats.ca', fail) }),
    ...(subjects === undefined ? {} : { subjects: parseSubjects(subjects, fail) }),
  };
}

function parseSubjects(value: unknown, fail: (why: string) => Error): NonNullable<NatsSettings['subjects']> {
  if (!isMap(value)) throw fail('nats.subjects must be an object');
  const names = ['beat', 'status', 'report', 'lease'] as const;
  const unknown = Object.keys(value).find((name) => !names.some((each) => each === name));
  if (unknown !== undefined) throw fail(`nats.subjects has ${shown(unknown)}: ${names.join(', ')} expected`);
  return Object.fromEntries(
    names
      .filter((name) => value[name] !== undefined)
      .map((name) => [name, text(value[name], subjectForm, `nats.subjects.${name}`, fail)]),
  );
}

function text(value: unknown, form: RegExp, name: string, fail: (why: string) => Error): string {
  if (typeof value === 'string' && form.test(value)) return value;
  throw fail(`${name} is ${shown(value)}, ${form.source} expected`);
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 80);
}
