// Large blocks: one file each, named for its CID, in 64 directories.
//
//   files/3f/<digest and codec in hex>     complete and flushed before it has this name
//   tmp/<number>                           being written; removed at start
//   quarantine/<name>                      damaged blocks, for the curious; the oldest make room

import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { DirectorySyncs, isPresent, syncDirectory, writeSynced } from './block-disk.ts';
import { type BlockKey, keyFromText, keyText } from './block-key.ts';

/** Few enough that concurrent writers share directory syncs, enough for millions of files. */
export const shardsCount = 64;
/** Damaged blocks kept: enough to study a failing disk, at most 64 MiB of it. */
const quarantineMax = 64;

export class BlockFiles {
  readonly #dir: string;
  readonly #syncs = new DirectorySyncs();
  #temporaries = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Makes the directories, durably. */
  async create(): Promise<void> {
    for (let shard = 0; shard < shardsCount; shard++) await mkdir(this.#shardDir(shard), { recursive: true });
    await mkdir(join(this.#dir, 'tmp'), { recursive: true });
    await mkdir(join(this.#dir, 'quarantine'), { recursive: true });
    await syncDirectory(join(this.#dir, 'files'));
    await syncDirectory(this.#dir);
  }

  /** Throws DATA_DIR_DAMAGED when a directory is gone: then blocks are, and nobody deleted them. */
  async verifyPresent(): Promise<void> {
    const wanted = [
      'tmp',
      'quarantine',
      ...Array.from({ length: shardsCount }, (_, at) => this.#shardDir(at)),
    ];
    for (const name of wanted) {
      const path = resolve(this.#dir, name);
      if (!(await isPresent(path)))
        throw new HoldfastError('DATA_DIR_DAMAGED', `${path} is gone`, { details: { path } });
    }
  }

  /** Removes what an earlier process was writing. */
  async clearTemporaries(): Promise<void> {
    const dir = join(this.#dir, 'tmp');
    for (const name of await readdir(dir)) await rm(join(dir, name), { force: true });
  }

  /** Durable under its name when it resolves; nothing is left behind when it fails. */
  async write(key: BlockKey, bytes: Uint8Array): Promise<void> {
    const temporary = join(this.#dir, 'tmp', String(++this.#temporaries));
    const path = this.#path(key);
    try {
      await writeSynced(temporary, bytes);
      await rename(temporary, path);
      await this.#syncs.sync(this.#shardDir(shardOf(key)));
    } catch (error) {
      await rm(temporary, { force: true });
      await rm(path, { force: true });
      throw error;
    }
  }

  /** The first `sizeBytes` bytes of the file, fewer when it is shorter. Throws what the file system says. */
  async read(key: BlockKey, sizeBytes: number): Promise<Uint8Array> {
    await using file = await open(this.#path(key), 'r');
    return await readFully(file, 0, sizeBytes); // awaited here: the file must stay open until then
  }

  async sizeOf(key: BlockKey): Promise<number> {
    return (await stat(this.#path(key))).size;
  }

  /** Gone from the directory; durable with the next sync of the file system. */
  async remove(key: BlockKey): Promise<void> {
    await rm(this.#path(key), { force: true });
  }

  /** Keys of the files of one shard (0…63), sorted. Names that are no keys are left out. */
  async listShard(shard: number): Promise<BlockKey[]> {
    const names = await readdir(this.#shardDir(shard));
    return names
      .sort()
      .map(keyFromText)
      .filter((key) => key !== undefined);
  }

  /** Moves a damaged file out of the way. */
  async quarantine(key: BlockKey): Promise<void> {
    await rename(this.#path(key), join(this.#dir, 'quarantine', keyText(key)));
    await this.#boundQuarantine();
  }

  /** Keeps damaged bytes that were no file. */
  async quarantineBytes(key: BlockKey, bytes: Uint8Array): Promise<void> {
    await writeSynced(join(this.#dir, 'quarantine', keyText(key)), bytes);
    await this.#boundQuarantine();
  }

  async #boundQuarantine(): Promise<void> {
    const dir = join(this.#dir, 'quarantine');
    const names = await readdir(dir);
    if (names.length <= quarantineMax) return;
    const aged = await Promise.all(
      names.map(async (name) => ({ name, at: (await stat(join(dir, name))).ctimeMs })),
    );
    aged.sort((a, b) => b.at - a.at);
    for (const { name } of aged.slice(quarantineMax)) await rm(join(dir, name), { force: true });
  }

  #path(key: BlockKey): string {
    return join(this.#shardDir(shardOf(key)), keyText(key));
  }

  #shardDir(shard: number): string {
    return join(this.#dir, 'files', shard.toString(16).padStart(2, '0'));
  }
}

/** The directory of a key: its digest's first six bits, so that shards are ranges of the index. */
function shardOf(key: BlockKey): number {
  return (key[0] ?? 0) >> 2;
}

interface Readable {
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
}

/** Reads until `sizeBytes` or the end of the file. */
export async function readFully(file: Readable, position: number, sizeBytes: number): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafeSlow(sizeBytes);
  let filled = 0;
  while (filled < sizeBytes) {
    const { bytesRead } = await file.read(bytes, filled, sizeBytes - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}
