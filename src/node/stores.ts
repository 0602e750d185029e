// The data directory of one process: whose it is, what it must contain, and who has it open.
//
//   birth.json        owner, format, and the stores that were born here; checksummed, replaced atomically
//   lock/             a LevelDB that holds nothing: its fcntl lock on lock/LOCK is ours, and dies with us
//   stores/<name>/    one directory per store
//   stores/<name>.open   there while a LevelDB store is open: found at start, the last run ended badly
//
// LevelDB replaces a database that lost its CURRENT file by an empty one, deletes the old tables, and
// serves flipped bits in silence. So a store is created exactly once, before its name stands in the birth
// marker; afterwards a missing store is damage and never an occasion to begin anew. Values carry their own
// checksums (sealValue, openValue). A pid file would need a story for reused pids; a kernel lock does not.

import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, readFile, realpath, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { ClassicLevel } from 'classic-level';
import { asBuffer, concat, utf8 } from '../core/bytes.ts';
import { minute } from '../core/clock.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { preimage, sha256 } from '../core/hash.ts';
import { isAbsent, isDiskFull, isPresent, syncDirectory, writeFileDurably } from './block-disk.ts';

/** Who owns a data directory; another owner is refused. */
export interface DataDirOwner {
  /** Configured name of the node. */
  readonly node: string;
  /** Its peer id. */
  readonly peer: string;
  /** Cluster id. */
  readonly cluster: string;
}

/** An open, locked data directory. Disposing releases the lock; close the stores in it first. */
export interface DataDir extends AsyncDisposable {
  readonly path: string;
  readonly owner: DataDirOwner;
  /** True when this call made it. */
  readonly fresh: boolean;
  /** Where the store `name` lives: lower case letters, digits and dashes. */
  storePath(name: string): string;
  /** True once `markBorn` was called for it, in this process or an earlier one. */
  isBorn(name: string): boolean;
  /** Writes down that the store now exists: from now on its loss is damage. Durable when it resolves. */
  markBorn(name: string): Promise<void>;
}

/** Version of the directory layout that this program writes, and the newest that it reads. */
export const dataDirFormat = 1;

/**
 * Opens the data directory at `path` for `owner`, making it when there is none, and locks it until disposed.
 * Throws DATA_DIR_FOREIGN (another owner), DATA_DIR_NEWER (a format this program does not know),
 * DATA_DIR_DAMAGED (the birth marker is lost or unreadable), DATA_DIR_LOCKED (open elsewhere; details.pid
 * when known), DISK_FULL, FILE_UNREADABLE. A directory that is refused is left as it was.
 */
export async function openDataDir(path: string, owner: DataDirOwner): Promise<DataDir> {
  const dir = resolve(path);
  await readBirth(dir, owner); // refuse strangers before touching anything
  await makeDirectory(dir);
  const lock = await takeLockHere(dir);
  try {
    const found = await readBirth(dir, owner);
    const birth = found ?? { format: dataDirFormat, ...owner, stores: [] };
    if (found === undefined) await writeBirth(dir, birth);
    await mkdir(join(dir, 'stores'), { recursive: true });
    await syncDirectory(dir);
    return new OpenDataDir(dir, birth, found === undefined, lock);
  } catch (error) {
    await lock.close();
    throw asHoldfastError(
      error,
      isDiskFull(error) ? 'DISK_FULL' : 'FILE_UNREADABLE',
      `${dir}: cannot be opened`,
    );
  }
}

class OpenDataDir implements DataDir {
  readonly path: string;
  readonly fresh: boolean;
  readonly #lock: Lock;
  #birth: Birth;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, birth: Birth, fresh: boolean, lock: Lock) {
    this.path = path;
    this.#birth = birth;
    this.fresh = fresh;
    this.#lock = lock;
  }

  get owner(): DataDirOwner {
    return this.#birth;
  }

  storePath(name: string): string {
    if (!/^[a-z0-9-]{1,64}$/.test(name))
      throw new TypeError(`storePath: ${JSON.stringify(name)} is no store name`);
    return join(this.path, 'stores', name);
  }

  isBorn(name: string): boolean {
    return this.#birth.stores.includes(name);
  }

  async markBorn(name: string): Promise<void> {
    this.storePath(name);
    const turn = this.#writing.then(() => this.#addStore(name));
    this.#writing = turn.catch(() => undefined); // told to its own caller; the next one tries for itself
    return turn;
  }

  async #addStore(name: string): Promise<void> {
    if (this.isBorn(name)) return;
    await syncDirectory(join(this.path, 'stores'));
    const birth = { ...this.#birth, stores: [...this.#birth.stores, name] };
    await writeBirth(this.path, birth);
    this.#birth = birth;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writing;
    await this.#lock.close();
  }
}

interface Birth extends DataDirOwner {
  readonly format: number;
  readonly stores: readonly string[];
}

async function readBirth(dir: string, owner: DataDirOwner): Promise<Birth | undefined> {
  const file = join(dir, 'birth.json');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if (!isAbsent(cause)) throw new HoldfastError('FILE_UNREADABLE', `${file} cannot be read`, { cause });
    return refuseOrphanedStores(dir);
  }
  const birth = parseBirth(text, file);
  for (const field of ['cluster', 'node', 'peer'] as const) {
    if (birth[field] === owner[field]) continue;
    throw new HoldfastError(
      'DATA_DIR_FOREIGN',
      `${dir} belongs to ${field} ${birth[field]}, not ${owner[field]}: give each node its own directory`,
      { details: { field, found: birth[field], expected: owner[field] } },
    );
  }
  return birth;
}

/** No marker: fine for a new directory, damage where stores lie. */
async function refuseOrphanedStores(dir: string): Promise<undefined> {
  const names = await readdir(join(dir, 'stores')).catch((error: unknown) => {
    if (isAbsent(error)) return [];
    throw new HoldfastError('FILE_UNREADABLE', `${dir} cannot be read`, { cause: error });
  });
  if (names.length === 0) return undefined;
  throw new HoldfastError(
    'DATA_DIR_DAMAGED',
    `${dir} has stores (${names.join(', ')}) but lost its birth.json`,
    {
      details: { missing: 'birth.json' },
    },
  );
}

function parseBirth(text: string, file: string): Birth {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('DATA_DIR_DAMAGED', `${file} is damaged: not JSON`, { cause });
  }
  const { format, node, peer, cluster, stores, check } = fieldsOf(value);
  if (Number.isSafeInteger(format) && Number(format) > dataDirFormat) {
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${file}: format ${String(format)}; this program reads up to ${dataDirFormat}`,
      {
        details: { found: Number(format), known: dataDirFormat },
      },
    );
  }
  if (
    typeof format === 'number' &&
    typeof node === 'string' &&
    typeof peer === 'string' &&
    typeof cluster === 'string' &&
    Array.isArray(stores)
  ) {
    const birth = { format, node, peer, cluster, stores: stores.map(String) };
    if (check === birthCheck(birth)) return birth;
  }
  throw new HoldfastError('DATA_DIR_DAMAGED', `${file} is damaged: its checksum does not match`);
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(Object(value)));
}

async function writeBirth(dir: string, birth: Birth): Promise<void> {
  const { format, node, peer, cluster, stores } = birth;
  const value = { format, node, peer, cluster, stores, check: birthCheck(birth) };
  await writeFileDurably(join(dir, 'birth.json'), utf8(`${JSON.stringify(value, null, 2)}\n`));
}

function birthCheck({ format, node, peer, cluster, stores }: Birth): string {
  const text = JSON.stringify([format, node, peer, cluster, stores]);
  return asBuffer(sha256(preimage('holdfast/birth/v1', utf8(text)))).toString('hex', 0, 16);
}

async function makeDirectory(dir: string): Promise<void> {
  try {
    if ((await mkdir(dir, { recursive: true, mode: 0o700 })) !== undefined) await syncDirectory(dirname(dir));
  } catch (cause) {
    throw new HoldfastError(isDiskFull(cause) ? 'DISK_FULL' : 'FILE_UNREADABLE', `${dir} cannot be made`, {
      cause,
    });
  }
}

interface Lock {
  close(): Promise<void>;
}

/**
 * What this process has open. LevelDB must not be asked about those: when it refuses a second opening in
 * one process it closes a handle of the lock file, and that makes the kernel drop the lock of the first.
 */
const openHere = new Set<string>();

async function takeLockHere(dir: string): Promise<Lock> {
  const path = await realpath(dir);
  if (openHere.has(path)) {
    throw new HoldfastError('DATA_DIR_LOCKED', `${dir} is in use by this process`, {
      details: { pid: process.pid },
    });
  }
  openHere.add(path);
  try {
    const level = await takeLock(path);
    return { close: () => level.close().finally(() => openHere.delete(path)) };
  } catch (error) {
    openHere.delete(path);
    throw error;
  }
}

/**
 * LevelDB takes its lock before it looks at anything else, so any failure but LEVEL_LOCKED means that
 * nobody holds it: what lies there is rubble of a power cut, and nobody's data.
 */
async function takeLock(dir: string): Promise<ClassicLevel> {
  const path = join(dir, 'lock');
  const level = new ClassicLevel(path);
  try {
    await level.open().catch(async (error: unknown) => {
      if (levelCode(error) === 'LEVEL_LOCKED' || isDiskFull(error)) throw error;
      for (const name of await readdir(path))
        if (name !== 'LOCK') await rm(join(path, name), { recursive: true });
      await level.open();
    });
  } catch (cause) {
    if (levelCode(cause) === 'LEVEL_LOCKED') throw await lockedError(dir, cause);
    throw new HoldfastError(isDiskFull(cause) ? 'DISK_FULL' : 'FILE_UNREADABLE', `${dir} cannot be locked`, {
      cause,
    });
  }
  await writeFile(join(dir, 'lock', 'holder'), `${process.pid}\n`).catch(() => undefined); // only for the message below
  return level;
}

async function lockedError(dir: string, cause: unknown): Promise<HoldfastError> {
  const pid = Number(await readFile(join(dir, 'lock', 'holder'), 'utf8').catch(() => Number.NaN));
  const who = Number.isInteger(pid) ? `process ${pid}` : 'another process';
  return new HoldfastError('DATA_DIR_LOCKED', `${dir} is in use by ${who}`, {
    cause,
    details: { pid: Number.isInteger(pid) ? pid : null },
  });
}

/** A LevelDB inside a data directory. Disposing closes it in good order. */
export interface LevelStore extends AsyncDisposable {
  readonly level: ClassicLevel<Uint8Array, Uint8Array>;
  /**
   * How it was found. `fresh`: made now. `clean`: closed in good order. `unclean`: the last run did not
   * close it. `rebuild`: it was damaged, was moved aside, and is empty now: fill it from what it indexes.
   */
  readonly condition: 'fresh' | 'clean' | 'unclean' | 'rebuild';
  /** Why `rebuild`. */
  readonly damage?: HoldfastError;
  /** Closes it but lets the next open find it `unclean`: after a failed write. */
  abandon(): Promise<void>;
}

export interface LevelStoreOptions {
  /**
   * True for an index that can be computed from other files: when damaged it is moved to `<name>.damaged`
   * (the one before is dropped) and begun anew, with condition `rebuild`. Default false: damage throws
   * DATA_DIR_DAMAGED, after what can be saved was copied to `<name>.salvage`.
   */
  readonly rebuildable?: boolean;
  /** Bytes LevelDB gathers in memory before it writes a table. Default 4 MiB. */
  readonly writeBufferSize?: number;
  /** Bytes of table cache. Default 8 MiB. */
  readonly cacheSize?: number;
}

/**
 * Opens the LevelDB `name` in `dir`; keys and values are bytes. Throws DATA_DIR_DAMAGED (details.salvaged:
 * where a repaired copy lies, details.intact of details.records passed their checksum), DISK_FULL,
 * FILE_UNREADABLE. A store left open by a crash is first opened and read through in a child process, because damage
 * can make LevelDB abort its process.
 */
export async function openLevel(
  dir: DataDir,
  name: string,
  options: LevelStoreOptions = {},
): Promise<LevelStore> {
  const path = dir.storePath(name);
  if (!dir.isBorn(name)) return createLevel(dir, name, options, 'fresh');
  const unclean = await isPresent(`${path}.open`);
  try {
    if (unclean) await runProbe('probe', path);
    const level = await openClassic(path, options, false);
    return await markOpen(path, level, unclean ? 'unclean' : 'clean');
  } catch (error) {
    if (!isDamage(error)) throw machineError(error, path);
    if (options.rebuildable !== true) throw await salvage(path, error);
    await discardLevel(dir, name);
    const damage = new HoldfastError('DATA_DIR_DAMAGED', `${path} is damaged and will be rebuilt`, {
      cause: error,
    });
    return createLevel(dir, name, options, 'rebuild', damage);
  }
}

/** Declares a closed, rebuildable store damaged: the next `openLevel` moves it aside and begins anew. */
export async function discardLevel(dir: DataDir, name: string): Promise<void> {
  const path = dir.storePath(name);
  if (!(await isPresent(path))) return;
  await rm(`${path}.damaged`, { recursive: true, force: true });
  await rename(path, `${path}.damaged`);
}

async function createLevel(
  dir: DataDir,
  name: string,
  options: LevelStoreOptions,
  condition: 'fresh' | 'rebuild',
  damage?: HoldfastError,
): Promise<LevelStore> {
  const path = dir.storePath(name);
  try {
    await rm(path, { recursive: true, force: true }); // half made before its birth was written down
    const level = await openClassic(path, options, true);
    await syncDirectory(path);
    const store = await markOpen(path, level, condition, damage);
    await dir.markBorn(name);
    return store;
  } catch (error) {
    throw machineError(error, path);
  }
}

async function openClassic(
  path: string,
  options: LevelStoreOptions,
  createIfMissing: boolean,
): Promise<ClassicLevel<Uint8Array, Uint8Array>> {
  const { rebuildable: _, ...tuning } = options;
  const level = new ClassicLevel<Uint8Array, Uint8Array>(path, {
    keyEncoding: 'view',
    valueEncoding: 'view',
  });
  await level.open({ ...tuning, createIfMissing, errorIfExists: createIfMissing });
  return level;
}

async function markOpen(
  path: string,
  level: ClassicLevel<Uint8Array, Uint8Array>,
  condition: LevelStore['condition'],
  damage?: HoldfastError,
): Promise<LevelStore> {
  const mark = `${path}.open`;
  try {
    await writeFileDurably(mark, utf8(`${process.pid}\n`));
  } catch (error) {
    await level.close();
    throw error;
  }
  return {
    level,
    condition,
    ...(damage === undefined ? {} : { damage }),
    abandon: () => level.close(),
    async [Symbol.asyncDispose]() {
      await level.close();
      await rm(mark, { force: true });
    },
  };
}

/** Copies a damaged store, repairs the copy and counts what is intact. Never touches the original. */
async function salvage(path: string, damage: unknown): Promise<HoldfastError> {
  const copy = `${path}.salvage`;
  const fail = (message: string, details: Record<string, string | number>, cause: unknown): HoldfastError =>
    new HoldfastError('DATA_DIR_DAMAGED', `${path} is damaged: ${message}`, {
      cause,
      details: { store: path, ...details },
    });
  if (!(await isPresent(path))) return fail('it is gone', {}, damage);
  try {
    if (!(await isPresent(copy))) await cp(path, copy, { recursive: true });
    const { records, intact } = await runProbe('repair', copy);
    return fail(
      `${intact} of ${records} records are intact in ${copy}`,
      { salvaged: copy, records, intact },
      damage,
    );
  } catch (cause) {
    return fail(`and could not be salvaged (${describeError(cause)})`, {}, damage);
  }
}

interface ProbeResult {
  readonly records: number;
  /** How many records open with `openValue`. */
  readonly intact: number;
}

/** Thrown when the child died or failed on the data, not on the machine. */
class ProbeFailed extends Error {}

async function runProbe(mode: 'probe' | 'repair', path: string): Promise<ProbeResult> {
  const script = fileURLToPath(new URL('./stores-probe.worker.ts', import.meta.url));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [script, mode, path], {
      timeout: probeTimeoutMs,
    });
    const { records, intact } = fieldsOf(JSON.parse(stdout));
    return { records: Number(records), intact: Number(intact) };
  } catch (cause) {
    const { stderr } = fieldsOf(cause);
    if (isDiskFull(cause) || (typeof stderr === 'string' && machineFault.test(stderr))) throw cause;
    throw new ProbeFailed(`a child process could not read ${path}`, { cause });
  }
}

/** Ten million records are read in about half of this. */
const probeTimeoutMs = 2 * minute;

/** What LevelDB says when the machine is at fault and the data is not. */
const machineFault =
  /No space left|quota exceeded|Too many open files|Permission denied|Read-only file system|ENOSPC/i;

function isDamage(error: unknown): boolean {
  if (error instanceof ProbeFailed) return true;
  const code = levelCode(error);
  return code !== undefined && code !== 'LEVEL_LOCKED' && !machineFault.test(describeError(error));
}

function machineError(error: unknown, path: string): HoldfastError {
  if (isDiskFull(error))
    return new HoldfastError('DISK_FULL', `${path}: no space to open it`, { cause: error });
  const locked = levelCode(error) === 'LEVEL_LOCKED';
  return asHoldfastError(error, locked ? 'DATA_DIR_LOCKED' : 'FILE_UNREADABLE', `${path} cannot be opened`);
}

/** The innermost LEVEL_… code, or undefined when LevelDB did not say it. */
function levelCode(error: unknown): string | undefined {
  let code: string | undefined;
  for (let at: unknown = error; at instanceof Error; at = at.cause) {
    const own = 'code' in at ? at.code : undefined;
    if (typeof own === 'string' && own.startsWith('LEVEL_')) code = own;
  }
  return code;
}

const checkBytes = 16;

/**
 * `value` with a checksum in front that also covers `key`: a flipped bit and a value under a wrong key are
 * both found. Not a MAC: it guards against machines, not against people.
 */
export function sealValue(key: Uint8Array, value: Uint8Array): Uint8Array {
  return concat(valueCheck(key, value), value);
}

/** The value that `sealValue` sealed under the same key. Throws RECORD_CORRUPT. */
export function openValue(key: Uint8Array, sealed: Uint8Array): Uint8Array {
  const value = sealed.subarray(checkBytes);
  if (
    sealed.length < checkBytes ||
    !asBuffer(valueCheck(key, value)).equals(sealed.subarray(0, checkBytes))
  ) {
    throw new HoldfastError('RECORD_CORRUPT', 'a stored value does not match its checksum', {
      details: { key: asBuffer(key).toString('hex', 0, 64), sizeBytes: sealed.length },
    });
  }
  return value;
}

function valueCheck(key: Uint8Array, value: Uint8Array): Uint8Array {
  return sha256(preimage('holdfast/value/v1', key, value)).subarray(0, checkBytes);
}
