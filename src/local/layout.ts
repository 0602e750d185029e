// The directory of a local cluster, and what each of its processes needs to know from it.
//
//   DIR/cluster.json      what the cluster consists of (cluster-file.ts); written last, so it marks a complete birth
//   DIR/membership.json   the allow-list, signed with operator.key
//   DIR/operator.key      600
//   DIR/token             600: the bearer token of the door
//   DIR/custody/          what the operator signed for custodians: capabilities, the order to make the key; and
//                         provider.json, 600, where other key providers are to be used (docs/key-providers.md)
//   DIR/keys/             700: writer.key, and the key files of the development key provider
//   DIR/state.json        which processes shall run, and which data directories have been born (state-file.ts)
//   DIR/NAME/identity.key 600, kept for ever: the address of the process depends on it
//   DIR/NAME/data/        everything the process stores; `node wipe` deletes this and nothing else
//   DIR/custodian-N/sealing.key   600: what its shares are sealed under, unless there is a better place for it
//   DIR/custodian-N/passphrase    600, put there by an operator: used instead of sealing.key
//   DIR/run/              700: of the running supervisor only
//   DIR/logs/             one per process, bounded
//   DIR/cache/            compiled code of this program, for quicker starts; may be deleted
//
// Reading the layout loads no network library; creating one (layout-create.ts) makes keys and does.

import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import {
  type ClusterFile,
  type ClusterSettings,
  type LocalRole,
  parseClusterFile,
  type ProcessEntry,
} from './cluster-file.ts';
import { readIfThere, writeWhole } from '../files/whole.ts';
import type { BeaconSettings } from './beacon-settings.ts';
import { readStateFile } from './state-file.ts';

export const defaultDirectory = './.holdfast';
export const defaultDoorPort = 7440;

export interface Layout {
  /** Absolute path. */
  readonly dir: string;
  readonly file: ClusterFile;
}

/** All that one process of the cluster reads at its start. */
export interface ProcessConfig {
  readonly dir: string;
  readonly cluster: string;
  /** Public key that signs the membership, 32 bytes. */
  readonly operator: Uint8Array;
  readonly name: string;
  readonly roles: readonly LocalRole[];
  readonly zone: string;
  /** Text peer id that the identity key must have. */
  readonly peer: PeerName;
  /** Where the process keeps everything it stores. */
  readonly dataDir: string;
  /**
   * True when this process has been ready on its data directory before: an absent or empty one is then
   * damage (DATA_DIR_DAMAGED), never a reason to create a new one.
   */
  readonly born: boolean;
  /** True for a steward when another one begins the Beacon, or has been ready before: it is there, whatever is here. */
  readonly joins: boolean;
  readonly identityPath: string;
  readonly membershipPath: string;
  /** Address to listen on. Absent = 127.0.0.1: every process of a local cluster. */
  readonly host?: string;
  /** libp2p multiaddrs to listen on. */
  readonly listen: readonly string[];
  readonly port: number;
  /** HTTP of the door. Only in the process with the role `door`. */
  readonly door?: DoorConfig;
  /** Only in a process with the role `custodian`. */
  readonly custodian?: CustodianConfig;
  readonly settings: ClusterSettings;
}

export interface DoorConfig {
  readonly host: string;
  readonly port: number;
  /** The bearer token itself. */
  readonly token: string;
  readonly tokenPath: string;
  /** What this door may ask of custodians. */
  readonly capabilityPath: string;
  /** There once the custodians are to make the keys. */
  readonly initOrderPath: string;
  /** Which key providers there are beside the cluster's own; need not be there. */
  readonly providersPath: string;
  /** Development key provider and writer's signing key live here. */
  readonly keysDir: string;
  readonly writerKeyPath: string;
}

/** Where a custodian finds what its shares are sealed under, beside a credential of the service manager. */
export interface CustodianConfig {
  /** A passphrase; used when the file is there. */
  readonly passphrasePath: string;
  /** A random key, made at the first start. */
  readonly sealingKeyPath: string;
}

/** The key file of the development provider of a door. */
export function devKeyPath(door: Pick<DoorConfig, 'keysDir'>): string {
  return join(door.keysDir, 'development-kek.json');
}

/** Paths inside a layout's directory. */
export function layoutPaths(dir: string) {
  const root = resolve(dir);
  return {
    root,
    cluster: join(root, 'cluster.json'),
    creating: join(root, 'creating'),
    membership: join(root, 'membership.json'),
    operatorKey: join(root, 'operator.key'),
    token: join(root, 'token'),
    state: join(root, 'state.json'),
    keys: join(root, 'keys'),
    writerKey: join(root, 'keys', 'writer.key'),
    custody: join(root, 'custody'),
    /** The order to make the key of the custody group: from then on custodians make the branch keys. */
    custodyInitOrder: join(root, 'custody', 'init-order'),
    /** Which key providers there are beside the cluster's own. */
    keyProviders: join(root, 'custody', 'provider.json'),
    /** Uses of the recovery key, a line each. */
    recoveryAlarms: join(root, 'custody', 'recovery-alarms'),
    /** How far keys have been moved from one provider to another. */
    migration: join(root, 'custody', 'migration.json'),
    /** Capabilities that were granted from here (cli/granted.ts). */
    granted: join(root, 'custody', 'granted'),
    /** What the command line remembers of the custody group. */
    custodyPin: join(root, 'custody', 'pin.json'),
    /** What the command line opened. */
    custodyReceipts: join(root, 'custody', 'receipts'),
    /** What `writer` or the door may ask of custodians. */
    capability: (name: string) => join(root, 'custody', 'capabilities', `${name}.cap`),
    run: join(root, 'run'),
    logs: join(root, 'logs'),
    compileCache: join(root, 'cache'),
    process: (name: string) => join(root, name),
    identity: (name: string) => join(root, name, 'identity.key'),
    data: (name: string) => join(root, name, 'data'),
    passphrase: (name: string) => join(root, name, 'passphrase'),
    sealingKey: (name: string) => join(root, name, 'sealing.key'),
    log: (name: string) => join(root, 'logs', `${name}.log`),
  } as const;
}

/**
 * Reads the layout in `dir` without changing anything. Throws FILE_NOT_FOUND when there is no cluster,
 * DATA_DIR_FOREIGN, DATA_DIR_NEWER, DATA_DIR_DAMAGED, FILE_UNREADABLE.
 */
export async function readLayout(dir: string): Promise<Layout> {
  const paths = layoutPaths(dir);
  const text = await readIfThere(paths.cluster);
  if (text === undefined) {
    throw new HoldfastError(
      'FILE_NOT_FOUND',
      `${paths.root} holds no cluster (no cluster.json); create one with \`up\``,
    );
  }
  return { dir: paths.root, file: parseClusterFile(text, paths.cluster) };
}

/**
 * What the process `name` of the cluster in `dir` reads at its start. Throws like readLayout, ARGUMENT_INVALID
 * for a name the cluster does not have, DATA_DIR_DAMAGED when its key, the membership or the token is gone.
 */
export async function loadProcessConfig(dir: string, name: string): Promise<ProcessConfig> {
  const layout = await readLayout(dir);
  const paths = layoutPaths(dir);
  const entry = processEntry(layout, name);
  await mustExist(paths.identity(name));
  await mustExist(paths.membership);
  const state = await readStateFile(paths.state);
  return {
    dir: layout.dir,
    cluster: layout.file.cluster,
    operator: new Uint8Array(Buffer.from(layout.file.operator, 'hex')),
    name,
    roles: [entry.role],
    zone: entry.zone,
    peer: entry.peer,
    dataDir: paths.data(name),
    born: state.processes[name]?.bornAt !== undefined,
    joins:
      (entry.role === 'steward' && name !== 'steward') ||
      layout.file.processes.some(
        (other) =>
          other.role === 'steward' &&
          other.name !== name &&
          state.processes[other.name]?.bornAt !== undefined,
      ),
    identityPath: paths.identity(name),
    membershipPath: paths.membership,
    listen: [multiaddrOf(entry)],
    port: entry.port,
    ...(entry.role === 'door' ? { door: await doorConfig(layout) } : {}),
    ...(entry.role === 'custodian'
      ? { custodian: { passphrasePath: paths.passphrase(name), sealingKeyPath: paths.sealingKey(name) } }
      : {}),
    settings: layout.file.settings,
  };
}

/** Writes down where the Beacon is kept from now on, for stewards that start later. Throws like readLayout. */
export async function writeBeaconSettings(dir: string, beacon: BeaconSettings): Promise<void> {
  const { file } = await readLayout(dir);
  const changed = { ...file, settings: { ...file.settings, beacon } };
  await writeWhole(layoutPaths(dir).cluster, `${JSON.stringify(changed, null, 2)}\n`, 0o644);
}

/** The entry of `name`. Throws ARGUMENT_INVALID naming what there is. */
export function processEntry(layout: Layout, name: string): ProcessEntry {
  const entry = layout.file.processes.find((each) => each.name === name);
  if (entry !== undefined) return entry;
  const names = layout.file.processes.map((each) => each.name).join(', ');
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `this cluster has no process ${JSON.stringify(name.slice(0, 80))}; it has ${names}`,
  );
}

/** URL of the door's HTTP. */
export function doorUrl(layout: Layout): string {
  return `http://127.0.0.1:${layout.file.doorPort}`;
}

/** The bearer token of the door. Throws DATA_DIR_DAMAGED when it is gone or malformed. */
export async function readToken(dir: string): Promise<string> {
  const path = layoutPaths(dir).token;
  const token = (await readIfThere(path))?.trim();
  if (token !== undefined && /^[A-Za-z0-9_-]{43}$/.test(token)) return token;
  throw new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${path} does not hold the door's token (43 base64url characters)`,
  );
}

export function multiaddrOf(entry: ProcessEntry): string {
  return `/ip4/127.0.0.1/tcp/${entry.port}`;
}

async function doorConfig(layout: Layout): Promise<DoorConfig> {
  const paths = layoutPaths(layout.dir);
  return {
    host: '127.0.0.1',
    port: layout.file.doorPort,
    token: await readToken(layout.dir),
    tokenPath: paths.token,
    capabilityPath: paths.capability('door'),
    initOrderPath: paths.custodyInitOrder,
    providersPath: paths.keyProviders,
    keysDir: paths.keys,
    writerKeyPath: paths.writerKey,
  };
}

/** Throws DATA_DIR_DAMAGED when there is no file `path`. */
export async function mustExist(path: string): Promise<void> {
  await stat(path).catch((cause: unknown) => {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is gone; restore it from a backup`, {
      details: { path },
      cause,
    });
  });
}
