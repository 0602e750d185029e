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
  const { servers, ...access } = parseNatsAccess(value, 'nats', fail);
  if (servers === undefined) throw fail(`nats.servers must be a list of 1 to ${serversMax}`);
  const { subjects } = value;
  return {
    servers,
    ...access,
    ...(subjects === undefined ? {} : { subjects: parseSubjects(subjects, fail) }),
  };
}

/** Where servers are and what is shown to them; every field may be absent. `where` names the setting in messages. */
export function parseNatsAccess(
  value: Readonly<Record<string, unknown>>,
  where: string,
  fail: (why: string) => Error,
): Partial<Record<'credentials' | 'system' | 'ca', string>> & { readonly servers?: readonly string[] } {
  const { servers } = value;
  const count = Array.isArray(servers) ? servers.length : 0;
  if (servers !== undefined && (count < 1 || count > serversMax))
    throw fail(`${where}.servers must be a list of 1 to ${serversMax}`);
  const paths = (['credentials', 'system', 'ca'] as const).filter((name) => value[name] !== undefined);
  return {
    ...(Array.isArray(servers)
      ? { servers: servers.map((each: unknown) => text(each, serverForm, `${where}.servers`, fail)) }
      : {}),
    ...Object.fromEntries(paths.map((name) => [name, text(value[name], pathForm, `${where}.${name}`, fail)])),
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

export function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 80);
}
