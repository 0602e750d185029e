// A directory in memory that knows what is on the disk and what only in the cache, and whose power can be cut.

import type { Disk } from '../../src/custody/disk.ts';

interface File {
  bytes: Uint8Array;
  /** What a power cut leaves of the data. */
  flushed: Uint8Array;
}

/**
 * What of the unflushed survives. `nothing`: neither names nor data. `names`: names do and data does not, which is
 * what a file system may do that orders nothing. `everything`: as after a killed process.
 */
export const survivals = ['nothing', 'names', 'everything'] as const;
export type Survival = (typeof survivals)[number];

class PowerCut extends Error {}

/** Counts the steps of several disks together and cuts the power before step `at`. */
export class Fuse {
  steps = 0;
  at = Number.POSITIVE_INFINITY;

  burn(): void {
    if (this.steps++ >= this.at) throw new PowerCut(`power cut before step ${this.at}`);
  }
}

export class PowerCutDisk implements Disk {
  readonly path: string;
  readonly #fuse: Fuse;
  #names = new Map<string, File>();
  #flushedNames = new Map<string, File>();

  constructor(path: string, fuse: Fuse) {
    this.path = path;
    this.#fuse = fuse;
  }

  /** The disk as it is found when the power is back. */
  afterCut(survival: Survival, fuse: Fuse): PowerCutDisk {
    const disk = new PowerCutDisk(this.path, fuse);
    const names = survival === 'nothing' ? this.#flushedNames : this.#names;
    for (const [name, file] of names) {
      const bytes = survival === 'everything' ? file.bytes : file.flushed;
      const copy = { bytes, flushed: bytes };
      disk.#names.set(name, copy);
      disk.#flushedNames.set(name, copy);
    }
    return disk;
  }

  /** Changes a file behind the back of whoever uses the disk; without `bytes` it is removed. */
  tamper(name: string, bytes?: Uint8Array): void {
    if (bytes === undefined) this.#names.delete(name);
    else this.#names.set(name, { bytes, flushed: bytes });
  }

  async list(): Promise<string[]> {
    return [...this.#names.keys()];
  }

  async read(name: string): Promise<Uint8Array | undefined> {
    const bytes = this.#names.get(name)?.bytes;
    return bytes === undefined ? undefined : new Uint8Array(bytes);
  }

  async create(name: string, bytes: Uint8Array): Promise<void> {
    this.#fuse.burn();
    const file = this.#names.get(name) ?? { bytes: new Uint8Array(0), flushed: new Uint8Array(0) };
    file.bytes = new Uint8Array(bytes);
    this.#names.set(name, file);
  }

  async flush(name: string): Promise<void> {
    this.#fuse.burn();
    const file = this.#file(name);
    file.flushed = file.bytes;
  }

  async rename(from: string, to: string): Promise<void> {
    this.#fuse.burn();
    this.#names.set(to, this.#file(from));
    this.#names.delete(from);
  }

  async unlink(name: string): Promise<void> {
    this.#fuse.burn();
    this.#names.delete(name);
  }

  async flushNames(): Promise<void> {
    this.#fuse.burn();
    this.#flushedNames = new Map(this.#names);
  }

  #file(name: string): File {
    const file = this.#names.get(name);
    if (file === undefined) throw Object.assign(new Error(`no file ${name}`), { code: 'ENOENT' });
    return file;
  }
}
