// The birth and growth of a local cluster's directory.
//
// Every file appears whole, and `cluster.json` last: a crash before it leaves the marker `creating`, and the
// next attempt goes on with the keys that are there. A crash while growing leaves newcomers without a seat
// in `cluster.json`, or a membership one version behind it; both are completed at the next opening.

import { randomBytes } from 'node:crypto';
import { chmod, readdir, readFile, rm } from 'node:fs/promises';
import { toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { openIdentity, openOrCreateIdentity } from '../node/identity.ts';
import { type Member, type Membership, openMembership, signMembership } from '../node/membership.ts';
import { claimDirectory } from './claim.ts';
import {
  type ClusterFile,
  type ClusterSettings,
  custodianZones,
  defaultCustodians,
  defaultSettings,
  joinZones,
  type LocalRole,
  newClusterFile,
  nodesMax,
  type ProcessEntry,
  spreadZones,
  stewardsMax,
} from './cluster-file.ts';
import { errnoOf, fileError, makeDirectory, writeWhole } from '../files/whole.ts';
import {
  defaultDoorPort,
  type Layout,
  layoutPaths,
  multiaddrOf,
  mustExist,
  readLayout,
  readToken,
} from './layout.ts';
import { orderFirstKey } from './first-key.ts';
import { renewGrants } from './grants.ts';
import { withReplaced } from './layout-replace.ts';
import { choosePorts } from './ports.ts';

export interface LayoutOptions {
  /** Storage nodes. Default 5, on an existing layout what it has. May grow, never shrink. */
  readonly nodes?: number;
  /** Zones the nodes are spread over. Default 3 or the number of nodes if smaller; may grow, never shrink. */
  readonly zones?: number;
  /**
   * Custodians that hold shares of the keys. Default 5, on an existing layout what it has. May grow, never shrink.
   * 0 = none: keys come from a development key file.
   */
  readonly custodians?: number;
  /** Stewards, which divide the work. Default 1, on an existing layout what it has. May grow, never shrink. */
  readonly stewards?: number;
  /** HTTP port of the door. Default 7440, on an existing layout what it has. 0 = any that is free, kept from then on. */
  readonly port?: number;
  /** Custodians that are lost with their directories: others get their places. Default none. */
  readonly replace?: readonly string[];
  /** Tempo and grace. Default 1 s and 10 s, on an existing layout what it has. */
  readonly settings?: Partial<ClusterSettings>;
}

export interface OpenedLayout extends Layout {
  /** True when the cluster was born by this call. */
  readonly created: boolean;
  /** Names of the nodes and custodians that joined an existing cluster by this call. */
  readonly joined: readonly string[];
}

/**
 * Opens the cluster in `dir`, creates it when there is none, lets it grow when more nodes are asked for.
 * No cluster may be running there. Throws ARGUMENT_INVALID (numbers that cannot be, or fewer nodes than
 * there are), DATA_DIR_LOCKED, DATA_DIR_FOREIGN, DATA_DIR_NEWER, DATA_DIR_DAMAGED, FILE_UNREADABLE, DISK_FULL.
 */
export async function createOrOpenLayout(dir: string, options: LayoutOptions = {}): Promise<OpenedLayout> {
  const paths = layoutPaths(dir);
  checkOptions(options, await whatIsThere(dir));
  await makeDirectory(paths.run);
  await using _claim = await claimDirectory(paths.root, paths.run);
  const layout = await ((await whatIsThere(dir)) === 'cluster'
    ? openLayout(dir, options)
    : createLayout(dir, options));
  await renewGrants(layout);
  await orderFirstKey(layout);
  return layout;
}

// Before anything is written.
function checkOptions(options: LayoutOptions, there: 'cluster' | 'nothing'): void {
  const { port = defaultDoorPort, stewards = 1 } = options;
  if (!Number.isSafeInteger(stewards) || stewards < 1 || stewards > stewardsMax) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${stewards} stewards: a whole number from 1 to ${stewardsMax} expected`,
    );
  }
  if (there === 'nothing') {
    const [nodes, zones] = countsOf(options);
    spreadZones(nodes, zones);
    custodianZones(1, options.custodians ?? defaultCustodians, zones, nodes);
  }
  if (!Number.isSafeInteger(port) || port < 0 || port > 65_535) {
    throw new HoldfastError('ARGUMENT_INVALID', `port ${port}: a whole number from 0 to 65535 expected`);
  }
}

function countsOf({ nodes = 5, zones = Math.min(3, nodes) }: LayoutOptions): [nodes: number, zones: number] {
  return [nodes, zones];
}

// A directory without cluster.json is only ours to fill when it is empty or when we were filling it.
async function whatIsThere(dir: string): Promise<'cluster' | 'nothing'> {
  const paths = layoutPaths(dir);
  const names: string[] = await readdir(paths.root).catch((cause: unknown) => {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw fileError(paths.root, 'cannot be read as a directory', cause);
  });
  if (names.includes('cluster.json')) return 'cluster';
  if (names.includes('creating') || names.every((name) => name === 'run')) return 'nothing';
  if (names.includes('membership.json') || names.includes('operator.key')) {
    throw new HoldfastError(
      'DATA_DIR_DAMAGED',
      `${paths.root} held a cluster, but its cluster.json is gone; restore it from a backup: it is not replaced by a new cluster`,
      { details: { path: paths.cluster } },
    );
  }
  throw new HoldfastError(
    'DATA_DIR_FOREIGN',
    `${paths.root} is not empty and holds no cluster; choose an empty directory`,
    { details: { path: paths.root } },
  );
}

async function createLayout(dir: string, options: LayoutOptions): Promise<OpenedLayout> {
  const paths = layoutPaths(dir);
  const [nodes, zones] = countsOf(options);
  const { custodians = defaultCustodians } = options;
  const seats = [
    ...newSeats(spreadZones(nodes, zones), 1),
    ...newStewardSeats(zones, 2, options.stewards ?? 1),
    ...newCustodianSeats(custodianZones(1, custodians, zones, nodes), 1),
  ];
  await chmod(paths.root, 0o700);
  await writeWhole(paths.creating, 'A cluster is being created here.\n', 0o600);
  await Promise.all([paths.keys, paths.logs].map(makeDirectory));
  const operator = (await openOrCreateIdentity(paths.operatorKey)).signer;
  await openOrCreateIdentity(paths.writerKey);
  await writeWhole(paths.token, `${randomBytes(32).toString('base64url')}\n`, 0o600);
  const doorPort = await chooseDoorPort(options.port ?? defaultDoorPort, []);
  const file = newClusterFile({
    cluster: `local-${randomBytes(8).toString('hex')}`,
    createdAt: new Date().toISOString(),
    operator: toHex(operator.publicKey),
    membershipVersion: 1,
    zones,
    custodians,
    doorPort,
    settings: { ...defaultSettings, ...options.settings },
    processes: await seatProcesses(dir, seats, [doorPort]),
  });
  await writeMembership(
    dir,
    { v: 1, cluster: file.cluster, version: 1, members: ownMembers(file) },
    operator,
  );
  await writeClusterFile(dir, file);
  await rm(paths.creating, { force: true });
  return { dir: paths.root, file, created: true, joined: [] };
}

async function openLayout(dir: string, options: LayoutOptions): Promise<OpenedLayout> {
  const paths = layoutPaths(dir);
  const { file: present } = await readLayout(dir);
  refuseOtherBeacon(present, options);
  await rm(paths.creating, { force: true });
  const file = await withReplaced(dir, present, options.replace ?? [], {
    read: async (path) => (await openIdentity(path)).name,
    make: async (path) => (await openOrCreateIdentity(path)).name,
  });
  if (file !== present) await writeClusterFile(dir, file);
  await checkFiles(dir, file);
  const grown = await grow(dir, file, options);
  const peers = new Set(present.processes.map(({ peer }) => peer));
  const joined = grown.processes.filter(({ peer }) => !peers.has(peer)).map(({ name }) => name);
  return { dir: paths.root, file: grown, created: false, joined };
}

/** Throws DATA_DIR_DAMAGED when a key, the token or the membership is gone or does not belong here. */
async function checkFiles(dir: string, file: ClusterFile): Promise<void> {
  const paths = layoutPaths(dir);
  await Promise.all([paths.operatorKey, paths.writerKey, paths.membership].map(mustExist));
  await readToken(dir);
  await Promise.all(file.processes.map(({ name }) => mustExist(paths.identity(name))));
  await completeMembership(dir, file);
}

// The operator may have signed a newer membership with peers of their own; those stay.
async function completeMembership(dir: string, file: ClusterFile): Promise<void> {
  const present = await readMembership(dir, file);
  if (present.version < file.membershipVersion) {
    return writeMembership(dir, withMembers(present, file), await openOperator(dir, file));
  }
  const { members } = withMembers(present, file);
  if (JSON.stringify(members) === JSON.stringify(present.members)) return;
  throw new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${layoutPaths(dir).membership} (version ${present.version}) and cluster.json do not describe the same processes; restore both from one backup`,
  );
}

async function readMembership(dir: string, file: ClusterFile): Promise<Membership> {
  const path = layoutPaths(dir).membership;
  const bytes = await readFile(path).catch((cause: unknown) => {
    throw fileError(path, 'cannot be read', cause);
  });
  try {
    return openMembership(bytes, Buffer.from(file.operator, 'hex'));
  } catch (cause) {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is damaged; restore it from a backup`, {
      details: { path },
      cause,
    });
  }
}

async function grow(dir: string, file: ClusterFile, options: LayoutOptions): Promise<ClusterFile> {
  const present = file.processes.filter(({ role }) => role === 'node');
  const { nodes = present.length, zones = file.zones } = options;
  const there = file.processes.filter(({ role }) => role === 'custodian').length;
  // A layout of a time before custodians gets them as a new one would.
  const { custodians = file.custodians ?? defaultCustodians } = options;
  const presentStewards = file.processes.filter(({ role }) => role === 'steward').length;
  const { stewards = presentStewards } = options;
  if (stewards < presentStewards) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `the cluster has ${presentStewards} stewards; \`node stop\` takes one down for a while`,
      { details: { present: presentStewards, asked: stewards } },
    );
  }
  refuseShrinking(file, { nodes: present.length, custodians: there }, { nodes, zones, custodians });
  const nodeZones = joinZones(
    present.map(({ zone }) => zone),
    nodes,
    zones,
  );
  const seats = [
    ...newNodeSeats(nodeZones, present.length + 1),
    ...newStewardSeats(zones, presentStewards + 1, stewards),
    ...newCustodianSeats(custodianZones(there + 1, custodians, zones, nodes), there + 1),
  ];
  const ports = [file.doorPort, ...file.processes.map(({ port }) => port)];
  const doorPort = options.port === undefined ? file.doorPort : await chooseDoorPort(options.port, ports);
  const settings = { ...file.settings, ...options.settings };
  const joined = await seatProcesses(dir, seats, [...ports, doorPort]);
  const membership = await readMembership(dir, file);
  const membershipVersion = joined.length > 0 ? membership.version + 1 : file.membershipVersion;
  const grown = {
    ...file,
    zones,
    custodians,
    doorPort,
    settings,
    membershipVersion,
    processes: [...file.processes, ...joined],
  };
  if (JSON.stringify(grown) === JSON.stringify(file)) return file;
  await writeClusterFile(dir, grown);
  if (joined.length > 0)
    await writeMembership(dir, withMembers(membership, grown), await openOperator(dir, file));
  return grown;
}

function refuseShrinking(
  file: ClusterFile,
  present: { readonly nodes: number; readonly custodians: number },
  { nodes, zones, custodians }: Required<Pick<LayoutOptions, 'nodes' | 'zones' | 'custodians'>>,
): void {
  if (nodes < present.nodes) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `the cluster has ${present.nodes} nodes; ${nodes} would leave out nodes that hold copies. Start it with ${present.nodes} or more (at most ${nodesMax}); \`node stop\` takes one down for a while`,
      { details: { present: present.nodes, asked: nodes } },
    );
  }
  if (custodians < present.custodians) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `the cluster has ${present.custodians} custodians; ${custodians} would leave out some that hold shares of the keys`,
      { details: { present: present.custodians, asked: custodians } },
    );
  }
  if (zones < file.zones) {
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `the cluster has ${file.zones} zones; the zone of a node does not change, so ${zones} cannot be had`,
      { details: { present: file.zones, asked: zones } },
    );
  }
}

/** Settings alone would leave the registry behind. */
function refuseOtherBeacon({ settings }: ClusterFile, { settings: wanted }: LayoutOptions): void {
  const [present = 'leveldb', asked] = [settings.beacon?.engine, wanted?.beacon?.engine];
  if (asked === undefined || asked === present) return;
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `the Beacon of this cluster is kept in ${present}; start it and move it with: holdfast beacon migrate`,
  );
}

interface Seat {
  readonly name: string;
  readonly role: LocalRole;
  readonly zone: string;
}

function newSeats(zones: readonly string[], first: number): Seat[] {
  return [
    ...newNodeSeats(zones, first),
    { name: 'steward', role: 'steward', zone: 'a' },
    { name: 'door', role: 'door', zone: 'a' },
  ];
}

function newNodeSeats(zones: readonly string[], first: number): Seat[] {
  return zones.map((zone, index) => ({ name: `node-${first + index}`, role: 'node', zone }));
}

/** The second and later ones, in other zones than the first. */
function newStewardSeats(zones: number, first: number, count: number): Seat[] {
  return Array.from({ length: Math.max(0, count - first + 1) }, (_, at) => ({
    name: `steward-${first + at}`,
    role: 'steward' as const,
    zone: String.fromCodePoint('a'.charCodeAt(0) + ((first + at - 1) % zones)),
  }));
}

function newCustodianSeats(zones: readonly string[], first: number): Seat[] {
  return zones.map((zone, index) => ({ name: `custodian-${first + index}`, role: 'custodian', zone }));
}

async function seatProcesses(
  dir: string,
  seats: readonly Seat[],
  takenPorts: readonly number[],
): Promise<ProcessEntry[]> {
  const ports = await choosePorts(seats.length, takenPorts);
  return Promise.all(seats.map((seat, index) => seatProcess(dir, seat, ports[index] ?? 0)));
}

async function seatProcess(dir: string, seat: Seat, port: number): Promise<ProcessEntry> {
  const paths = layoutPaths(dir);
  await makeDirectory(paths.process(seat.name));
  const identity = await openOrCreateIdentity(paths.identity(seat.name));
  return { ...seat, peer: identity.name, port };
}

async function chooseDoorPort(port: number, taken: readonly number[]): Promise<number> {
  if (port === 0) return (await choosePorts(1, taken))[0] ?? 0;
  if (!taken.includes(port) || taken[0] === port) return port;
  throw new HoldfastError('ARGUMENT_INVALID', `port ${port} belongs to another process of this cluster`);
}

/** `present` with the processes of `file` in their places, and everybody else as they were. */
function withMembers(present: Membership, file: ClusterFile): Membership {
  const own = new Map(ownMembers(file).map((member) => [member.name, member]));
  const kept = present.members.map((member) => own.get(member.name) ?? member);
  const names = new Set(kept.map(({ name }) => name));
  const added = [...own.values()].filter(({ name }) => !names.has(name));
  return { ...present, version: file.membershipVersion, members: [...kept, ...added] };
}

// Every process stands for a machine, so it is its own host: copies are placed as in a spread cluster.
function ownMembers(file: ClusterFile): Member[] {
  return file.processes.map((entry) => ({
    name: entry.name,
    peer: entry.peer,
    roles: [entry.role],
    zone: entry.zone,
    host: entry.name,
    addrs: [multiaddrOf(entry)],
  }));
}

async function writeMembership(dir: string, membership: Membership, operator: Signer): Promise<void> {
  await writeWhole(layoutPaths(dir).membership, signMembership(membership, operator), 0o644);
}

async function writeClusterFile(dir: string, file: ClusterFile): Promise<void> {
  await writeWhole(layoutPaths(dir).cluster, `${JSON.stringify(file, null, 2)}\n`, 0o644);
}

async function openOperator(dir: string, file: ClusterFile): Promise<Signer> {
  const path = layoutPaths(dir).operatorKey;
  const { signer } = await openIdentity(path);
  if (toHex(signer.publicKey) === file.operator) return signer;
  throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is not the key that signed this cluster's membership`);
}
