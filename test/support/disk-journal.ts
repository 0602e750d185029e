// What a disk holds after a power cut, made from the journal of disk-shim.c.
//
// The model is a journalling file system as ext4, XFS and btrfs are, at its worst within its promises:
//
// - Bytes of a file are kept once a sync of that file, begun after they were written, succeeded. Others may be kept,
//   lost, torn, replaced by zeros, or kept in part.
// - Names (created, renamed, removed) are kept in their order, at least up to the last sync of anything that succeeded,
//   at most all.
// - What a failed sync did not write is lost, and no later sync brings it back: the kernel calls those pages clean.

import { execFileSync, spawn } from 'node:child_process';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { dirname, join, relative } from 'node:path';
import { createInterface } from 'node:readline';

/** What of the unsynced is on the disk. */
export interface Cut {
  readonly names: 'synced' | 'all';
  readonly bytes: 'synced' | 'torn' | 'zeros' | 'holes' | 'all';
}

/** From the poorest disk to one that lost nothing but what a failed sync lost. */
export const cuts: readonly Cut[] = [
  { names: 'synced', bytes: 'synced' },
  { names: 'all', bytes: 'synced' },
  { names: 'all', bytes: 'torn' },
  { names: 'all', bytes: 'zeros' },
  { names: 'all', bytes: 'holes' },
  { names: 'all', bytes: 'all' },
];

/** Compiles the shim into `directory`. Returns its path, or undefined where there is no compiler or no LD_PRELOAD. */
export function compileShim(directory: string): string | undefined {
  if (process.platform !== 'linux') return undefined;
  const library = join(directory, 'disk-shim.so');
  const source = join(import.meta.dirname, 'disk-shim.c');
  try {
    execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl', '-lpthread'], {
      stdio: 'ignore',
    });
    return library;
  } catch {
    return undefined;
  }
}

/**
 * Runs a Node script over the files in `root` with its disk written down. `onLine` gets its output line by line.
 * Throws when it ends otherwise than with 0.
 */
export async function runOnDisk(
  library: string,
  { root, journal, script, args }: { root: string; journal: string; script: string; args: readonly string[] },
): Promise<void> {
  const env = {
    ...process.env,
    LD_PRELOAD: library,
    HOLDFAST_DISK_ROOT: root,
    HOLDFAST_DISK_JOURNAL: journal,
  };
  const child = spawn(process.execPath, [script, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout })) process.stdout.write(`${line}\n`);
  const [code]: unknown[] = await exited;
  if (code !== 0) throw new Error(`the child ended with ${String(code)}`);
}

interface Request {
  readonly op: number;
  readonly fd: number;
  readonly number: number;
  readonly a: Buffer;
  readonly b: Buffer;
}

type Change =
  | { readonly at: number; readonly bytes: Buffer; isLost: boolean }
  | { readonly truncate: number; isLost: boolean };

class FileState {
  synced: Buffer = Buffer.alloc(0);
  pending: Change[] = [];
}

type NameChange =
  | { readonly type: 'create'; readonly path: string; readonly file: FileState | 'directory' }
  | { readonly type: 'rename'; readonly from: string; readonly to: string }
  | { readonly type: 'remove'; readonly path: string };

type Names = Map<string, FileState | 'directory'>;

/** The disk while the journal is played: ask `step` for the next request, and `write` for what a cut would leave. */
export class PlayedDisk {
  readonly #root: string;
  readonly #requests: readonly Request[];
  #next = 0;
  /** What the running program sees. */
  readonly #names: Names = new Map();
  /** What is certain to be kept. */
  readonly #keptNames: Names = new Map();
  #pendingNames: NameChange[] = [];
  readonly #fds = new Map<number, { file: FileState | 'directory'; path: string }>();
  readonly #begun = new Map<number, { changes: number; names: number }>();
  readonly #marks: string[] = [];

  private constructor(root: string, requests: readonly Request[]) {
    this.#root = root;
    this.#requests = requests;
  }

  static async load(root: string, journal: string): Promise<PlayedDisk> {
    return new PlayedDisk(root, parse(await readFile(journal)));
  }

  get length(): number {
    return this.#requests.length;
  }

  /** Lines that the program wrote to `<root>/.mark` so far: what it was told is kept. */
  get marks(): readonly string[] {
    return this.#marks;
  }

  /** Plays one more request. False at the end. */
  step(): boolean {
    const request = this.#requests[this.#next++];
    if (request === undefined) return false;
    this.#play(request);
    return true;
  }

  /** Puts the disk after a power cut right now into the directory `target`. */
  async write(target: string, cut: Cut): Promise<void> {
    await rm(target, { recursive: true, force: true });
    await mkdir(target, { recursive: true });
    const names = cut.names === 'all' ? this.#names : this.#keptNames;
    for (const [path, file] of [...names].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const place = join(target, relative(this.#root, path));
      if (file === 'directory') await mkdir(place, { recursive: true });
      else {
        await mkdir(dirname(place), { recursive: true });
        await writeFile(place, contents(file, cut.bytes));
      }
    }
  }

  /** Every file as the running program sees it, by its path below the root. */
  files(): ReadonlyMap<string, Buffer> {
    const files = new Map<string, Buffer>();
    for (const [path, file] of this.#names) {
      if (file !== 'directory') files.set(relative(this.#root, path), contents(file, 'all', true));
    }
    return files;
  }

  #play({ op, fd, number, a, b }: Request): void {
    if (op === 1) this.#open(fd, number, a.toString());
    else if (op === 2) this.#write(fd, number, a);
    else if (op === 3) this.#begin(fd);
    else if (op === 4) this.#end(fd, number);
    else if (op === 5) this.#name({ type: 'rename', from: a.toString(), to: b.toString() });
    else if (op === 6) this.#name({ type: 'remove', path: a.toString() });
    else if (op === 7) this.#name({ type: 'create', path: a.toString(), file: 'directory' });
    else if (op === 8) this.#change(fd, { truncate: number, isLost: false });
  }

  #open(fd: number, flags: number, path: string): void {
    let file = this.#names.get(path);
    if (file === undefined) {
      const isCreated = (flags & createFlag) !== 0;
      file = isCreated ? new FileState() : 'directory';
      if (isCreated && !path.endsWith('/.mark')) this.#name({ type: 'create', path, file });
    }
    this.#fds.set(fd, { file, path });
    if ((flags & truncateFlag) !== 0) this.#change(fd, { truncate: 0, isLost: false });
  }

  #write(fd: number, at: number, bytes: Buffer): void {
    if (this.#fds.get(fd)?.path.endsWith('/.mark') === true) {
      this.#marks.push(
        ...bytes
          .toString()
          .split('\n')
          .filter((line) => line !== ''),
      );
    } else this.#change(fd, { at, bytes, isLost: false });
  }

  #change(fd: number, change: Change): void {
    const file = this.#fds.get(fd)?.file;
    if (file instanceof FileState) file.pending.push(change);
  }

  #begin(fd: number): void {
    const file = this.#fds.get(fd)?.file;
    const changes = file instanceof FileState ? file.pending.length : 0;
    this.#begun.set(fd, { changes, names: this.#pendingNames.length });
  }

  #end(fd: number, error: number): void {
    const begun = this.#begun.get(fd) ?? { changes: 0, names: 0 };
    const file = this.#fds.get(fd)?.file;
    if (error !== 0) {
      if (file instanceof FileState)
        for (const change of file.pending.slice(0, begun.changes)) change.isLost = true;
      return;
    }
    if (file instanceof FileState) {
      file.synced = applied(
        file.synced,
        file.pending.slice(0, begun.changes).filter(({ isLost }) => !isLost),
      );
      file.pending = file.pending.filter((change, index) => index >= begun.changes || change.isLost);
    }
    for (const change of this.#pendingNames.splice(0, begun.names)) rename(this.#keptNames, change);
  }

  #name(change: NameChange): void {
    rename(this.#names, change);
    this.#pendingNames.push(change);
  }
}

const createFlag = 0o100;
const truncateFlag = 0o1000;

function rename(names: Names, change: NameChange): void {
  if (change.type === 'create') names.set(change.path, change.file);
  else if (change.type === 'remove') names.delete(change.path);
  else {
    for (const [path, file] of Array.from(names)) {
      if (path !== change.from && !path.startsWith(`${change.from}/`)) continue;
      names.delete(path);
      names.set(change.to + path.slice(change.from.length), file);
    }
  }
}

/** `isLive`: as the page cache has it, which still shows what a failed sync lost. */
function contents({ synced, pending }: FileState, kept: Cut['bytes'], isLive = false): Buffer {
  const changes = pending.filter(({ isLost }) => isLive || !isLost);
  if (kept === 'synced') return synced;
  if (kept === 'all') return applied(synced, changes);
  if (kept === 'torn')
    return applied(
      synced,
      changes.map((change, index) => (index === changes.length - 1 ? half(change) : change)),
    );
  if (kept === 'holes')
    return applied(
      synced,
      changes.map((change, index) => (index % 2 === 0 ? zeros(change) : change)),
    );
  return applied(synced, changes.map(zeros));
}

function half(change: Change): Change {
  if ('truncate' in change) return change;
  return { ...change, bytes: change.bytes.subarray(0, change.bytes.length >> 1) };
}

function zeros(change: Change): Change {
  return 'truncate' in change ? change : { ...change, bytes: Buffer.alloc(change.bytes.length) };
}

function applied(base: Buffer, changes: readonly Change[]): Buffer {
  let bytes = base;
  for (const change of changes) {
    const sizeBytes =
      'truncate' in change ? change.truncate : Math.max(bytes.length, change.at + change.bytes.length);
    const next = Buffer.alloc(sizeBytes);
    bytes.copy(next);
    if (!('truncate' in change)) change.bytes.copy(next, change.at);
    bytes = next;
  }
  return bytes;
}

function parse(journal: Buffer): Request[] {
  const requests: Request[] = [];
  for (let at = 0; at < journal.length; ) {
    const aBytes = journal.readUInt32LE(at + 13);
    const bBytes = journal.readUInt32LE(at + 17);
    const body = at + 21;
    requests.push({
      op: journal.readUInt8(at),
      fd: journal.readInt32LE(at + 1),
      number: Number(journal.readBigInt64LE(at + 5)),
      a: journal.subarray(body, body + aBytes),
      b: journal.subarray(body + aBytes, body + aBytes + bBytes),
    });
    at = body + aBytes + bBytes;
  }
  return requests;
}
