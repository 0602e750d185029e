// What a local cluster consists of: one JSON document, `cluster.json`, written once and only ever extended.
//
// It names every process, its zone, its ports and its peer id. Nothing here is secret and nothing changes
// while the cluster runs. Pure: the files around it are in layout.ts and layout-create.ts.

import { day, hour, minute, second } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { custodiansMax, membersMax } from '../core/limits.ts';
import { type BeaconSettings, parseBeaconSettings } from './beacon-settings.ts';
import { parseTempoSettings, type TempoSettings } from './nats-settings.ts';

/** Format of the directory and of `cluster.json`. A higher number on disk is refused with DATA_DIR_NEWER. */
const layoutVersion = 2;
/** Without custodians: still read, and written anew as soon as anything changes. */
const layoutVersionBefore = 1;
const formatName = 'holdfast-local-cluster';

export type LocalRole = 'node' | 'steward' | 'door' | 'custodian';

export interface ProcessEntry {
  /** `node-1` … `node-N`, `steward`, `steward-2` …, `door`, `custodian-1` … `custodian-N`: also the name of its directory and its log. */
  readonly name: string;
  readonly role: LocalRole;
  /** Failure domain the process stands for. */
  readonly zone: string;
  /** Text peer id of its identity key. */
  readonly peer: string;
  /** libp2p TCP port on 127.0.0.1, fixed for life: other peers remember it. */
  readonly port: number;
}

/** Every field has a default, which an older file that lacks it gets. */
export interface ClusterSettings extends TempoSettings {
  /** Time from one beat to the next, milliseconds, 20 … 3,600,000. Default 1,000. */
  readonly beatMs: number;
  /** A node silent for less than this moves nothing, milliseconds, 0 … 86,400,000. Default 10,000. */
  readonly graceMs: number;
  /** A block that no entry names is kept at least this long, milliseconds, 0 … 30 days: an upload may still name it. Default 6 h. */
  readonly leaseMs: number;
  /** False: what no entry names is deleted only by `audit stranded --collect`. Default true. */
  readonly collects: boolean;
  /** Every block is read and checked once in this time, milliseconds, 1,000 … 90 days. Default one day. */
  readonly scrubMs: number;
  /** Where the Beacon is kept. Absent: in LevelDB, by the one steward. */
  readonly beacon?: BeaconSettings;
  /** From the retirement of a replaced key until its shares are erased, when an operator ordered it, milliseconds, 1,000 … 30 days. Default 2 min. */
  readonly retiredMs: number;
}

export interface ClusterFile {
  readonly format: typeof formatName;
  readonly version: typeof layoutVersion;
  /** Cluster id, part of every protocol name: `local-` and 16 hex digits. */
  readonly cluster: string;
  /** RFC 3339. */
  readonly createdAt: string;
  /** Public key that signs the membership, 64 hex digits. */
  readonly operator: string;
  /** Version of the signed membership file that lists exactly these processes. */
  readonly membershipVersion: number;
  /** How many zones the nodes are spread over. */
  readonly zones: number;
  /** Custodians that hold shares of the keys. 0 = a development key file; null = of a time before there were any. */
  readonly custodians: number | null;
  /** HTTP port of the door on 127.0.0.1. */
  readonly doorPort: number;
  readonly settings: ClusterSettings;
  readonly processes: readonly ProcessEntry[];
}

export const defaultSettings: ClusterSettings = {
  beatMs: 1000,
  graceMs: 10_000,
  leaseMs: 6 * hour,
  collects: true,
  scrubMs: day,
  retiredMs: 2 * minute,
};

/** Zones have one letter each. */
const zonesMax = 26;
/** Nodes of one local cluster: all members but the steward and the door, and room for operators. */
export const nodesMax = membersMax - 8;
export const defaultCustodians = 5;
/** Stewards of one local cluster: each keeps the whole registry, and a ledger of every block. */
export const stewardsMax = 8;

export function newClusterFile(fields: Omit<ClusterFile, 'format' | 'version'>): ClusterFile {
  return { format: formatName, version: layoutVersion, ...fields };
}

/**
 * The zone letters of `nodes` nodes over `zones` zones, as even as can be and in order: 5 over 3 is a a b b c.
 * Throws ARGUMENT_INVALID when a zone would stay empty or a number is out of range.
 */
export function spreadZones(nodes: number, zones: number): string[] {
  checkCounts(nodes, zones);
  return Array.from({ length: nodes }, (_, index) => zoneName(Math.floor((index * zones) / nodes)));
}

/**
 * The zones of the nodes that join when a cluster grows to `nodes`: nobody moves, every newcomer goes to the
 * zone with the fewest nodes, the first such in the alphabet. Throws ARGUMENT_INVALID like spreadZones.
 */
export function joinZones(present: readonly string[], nodes: number, zones: number): string[] {
  checkCounts(nodes, zones);
  const counts = Array.from(
    { length: zones },
    (_, index) => present.filter((zone) => zone === zoneName(index)).length,
  );
  const joined: string[] = [];
  for (let node = present.length; node < nodes; node++) {
    const emptiest = counts.indexOf(Math.min(...counts));
    counts[emptiest] = (counts[emptiest] ?? 0) + 1;
    joined.push(zoneName(emptiest));
  }
  return joined;
}

/**
 * The zones of custodians `first` (from 1) … `count`: in turn, so that as few as can be fail with one zone.
 * Throws ARGUMENT_INVALID for a number out of range, or more members than a cluster has.
 */
export function custodianZones(first: number, count: number, zones: number, nodes: number): string[] {
  if (!Number.isSafeInteger(count) || count < 0 || count > custodiansMax || nodes + count > membersMax - 2) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${count} custodians: a whole number from 0 to ${custodiansMax} expected, and with ${nodes} nodes at most ${membersMax - 2 - nodes}`,
    );
  }
  return Array.from({ length: Math.max(0, count - first + 1) }, (_, at) =>
    zoneName((first - 1 + at) % zones),
  );
}

/**
 * Reads `cluster.json`; `where` is its path, for messages. Throws DATA_DIR_FOREIGN for another kind of file,
 * DATA_DIR_NEWER for a newer format, DATA_DIR_DAMAGED naming the first field that is wrong.
 */
export function parseClusterFile(text: string, where: string): ClusterFile {
  const value = parseObject(text, where);
  if (value['format'] !== formatName) {
    throw new HoldfastError(
      'DATA_DIR_FOREIGN',
      `${where} is not the description of a local Holdfast cluster`,
    );
  }
  checkVersion(value['version'], where);
  const field = reader(value, where);
  const processes = field
    .list('processes')
    .map((entry, index) => parseProcess(entry, `${where}: processes[${index}]`));
  return refuseDuplicates(
    newClusterFile({
      cluster: field.text('cluster', /^[a-z0-9][a-z0-9-]{0,62}$/),
      createdAt: field.text('createdAt', /^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      operator: field.text('operator', /^[0-9a-f]{64}$/),
      membershipVersion: field.integer('membershipVersion', 1, Number.MAX_SAFE_INTEGER),
      zones: field.integer('zones', 1, zonesMax),
      custodians:
        value['version'] === layoutVersionBefore ? null : field.integer('custodians', 0, custodiansMax),
      doorPort: field.integer('doorPort', 1, 65_535),
      settings: parseSettings(value['settings'], `${where}: settings`),
      processes,
    }),
    where,
  );
}

/** A setting that an older program did not know has its default: no reason for a new version of the file. */
function parseSettings(value: unknown, where: string): ClusterSettings {
  const fields = { ...defaultSettings, ...asObject(value, where) };
  const field = reader(fields, where);
  const fail = (why: string): HoldfastError => damaged(where, why);
  const tempo = parseTempoSettings(fields, fail);
  const beacon = parseBeaconSettings(fields.beacon, tempo.nats, fail);
  return {
    beatMs: field.integer('beatMs', 20, hour),
    graceMs: field.integer('graceMs', 0, day),
    leaseMs: field.integer('leaseMs', 0, 30 * day),
    collects: field.flag('collects'),
    scrubMs: field.integer('scrubMs', second, 90 * day),
    retiredMs: field.integer('retiredMs', second, 30 * day),
    ...tempo,
    ...(beacon === undefined ? {} : { beacon }),
  };
}

function parseProcess(value: unknown, where: string): ProcessEntry {
  const field = reader(asObject(value, where), where);
  const name = field.text(
    'name',
    /^(?:(?:node|custodian)-[1-9]\d{0,2}|steward(?:-(?:[2-9]|[1-9]\d))?|door)$/,
  );
  const role = roleOf(name);
  if (field.text('role', /^[a-z]+$/) !== role) throw damaged(where, `${name} must have the role ${role}`);
  return {
    name,
    role,
    zone: field.text('zone', /^[a-z]$/),
    peer: field.text('peer', /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/),
    port: field.integer('port', 1, 65_535),
  };
}

function roleOf(name: string): LocalRole {
  if (name === 'door') return name;
  if (name.startsWith('steward')) return 'steward';
  return name.startsWith('custodian-') ? 'custodian' : 'node';
}

function refuseDuplicates(file: ClusterFile, where: string): ClusterFile {
  const seen = new Set<string>([`port ${file.doorPort}`]);
  for (const { name, peer, port } of file.processes) {
    for (const key of [`name ${name}`, `peer ${peer}`, `port ${port}`]) {
      if (seen.has(key)) throw damaged(where, `the ${key} occurs twice`);
      seen.add(key);
    }
  }
  for (const name of ['steward', 'door', 'node-1']) {
    if (!seen.has(`name ${name}`)) throw damaged(where, `${name} is missing`);
  }
  return file;
}

function checkCounts(nodes: number, zones: number): void {
  if (!Number.isSafeInteger(nodes) || nodes < 1 || nodes > nodesMax) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${nodes} nodes: a whole number from 1 to ${nodesMax} expected`,
    );
  }
  if (!Number.isSafeInteger(zones) || zones < 1 || zones > zonesMax) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${zones} zones: a whole number from 1 to ${zonesMax} expected`,
    );
  }
  if (zones > nodes) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${nodes} nodes cannot fill ${zones} zones: at most one zone per node`,
    );
  }
}

function checkVersion(version: unknown, where: string): void {
  if (version === layoutVersion || version === layoutVersionBefore) return;
  if (typeof version === 'number' && version > layoutVersion) {
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${where} has format ${version}; this program reads up to ${layoutVersion}: use the newer program that wrote it`,
      { details: { path: where, found: version, supported: layoutVersion } },
    );
  }
  throw damaged(where, `version is ${JSON.stringify(version)}`);
}

function zoneName(index: number): string {
  return String.fromCodePoint('a'.charCodeAt(0) + index);
}

function parseObject(text: string, where: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${where} is not valid JSON; restore it from a backup`, {
      cause,
    });
  }
  return asObject(value, where);
}

function asObject(value: unknown, where: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw damaged(where, 'not an object');
  return { ...value };
}

interface FieldReader {
  text(key: string, pattern: RegExp): string;
  integer(key: string, min: number, max: number): number;
  flag(key: string): boolean;
  list(key: string): readonly unknown[];
}

function reader(fields: Record<string, unknown>, where: string): FieldReader {
  return {
    text(key, pattern) {
      const value = fields[key];
      if (typeof value === 'string' && pattern.test(value)) return value;
      throw damaged(where, `${key} is ${JSON.stringify(value)?.slice(0, 80)}, ${pattern.source} expected`);
    },
    integer(key, min, max) {
      const value = fields[key];
      if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max)
        return value;
      throw damaged(
        where,
        `${key} is ${JSON.stringify(value)?.slice(0, 80)}, a whole number from ${min} to ${max} expected`,
      );
    },
    flag(key) {
      const value = fields[key];
      if (typeof value === 'boolean') return value;
      throw damaged(where, `${key} is ${JSON.stringify(value)?.slice(0, 80)}, true or false expected`);
    },
    list(key) {
      const value = fields[key];
      if (Array.isArray(value) && value.length <= membersMax) return value;
      throw damaged(where, `${key} must be a list of at most ${membersMax}`);
    },
  };
}

function damaged(where: string, why: string): HoldfastError {
  return new HoldfastError('DATA_DIR_DAMAGED', `${where} is damaged (${why}); restore it from a backup`, {
    details: { path: where },
  });
}
