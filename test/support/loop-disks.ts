// File systems of their own in image files, whose power can be cut: needs root and loop devices.
//
// An image holds what its file system has flushed. So its copy, taken while whoever writes is stopped, is the disk as a
// power cut leaves it; mounting the copy replays the file system's journal, as after a real one.

import { execFile } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Ending } from './nats-server.ts';

const run = promisify(execFile);
const imageMegabytes = 192;

export class LoopDisks {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  /** `count` empty disks, mounted; they end with `t`, after what was started later. */
  static async make(t: Ending, count: number): Promise<LoopDisks> {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-disks-'));
    const disks = new LoopDisks(directory);
    t.after(async () => {
      for (let index = 0; index < count; index++) await disks.#unmount(index).catch(() => undefined);
      await rm(directory, { recursive: true, force: true });
    });
    for (let index = 0; index < count; index++) {
      await mkdir(disks.pathOf(index));
      await run('truncate', ['-s', `${imageMegabytes}M`, disks.#image(index)]);
      await run('mkfs.ext4', ['-q', '-F', disks.#image(index)]);
      await disks.#mount(index);
    }
    return disks;
  }

  pathOf(index: number): string {
    return join(this.#directory, `disk-${index}`);
  }

  /** What the power would leave now. Whoever writes must be stopped. */
  async snapshot(index: number): Promise<void> {
    await copyFile(this.#image(index), `${this.#image(index)}.cut`);
  }

  /** Puts the snapshot in the place of the disk. Nobody may use it. */
  async restore(index: number): Promise<void> {
    await this.#unmount(index);
    await rename(`${this.#image(index)}.cut`, this.#image(index));
    await this.#mount(index);
  }

  async #mount(index: number): Promise<void> {
    await run('mount', ['-o', 'loop', this.#image(index), this.pathOf(index)]);
  }

  async #unmount(index: number): Promise<void> {
    await run('umount', [this.pathOf(index)]);
  }

  #image(index: number): string {
    return join(this.#directory, `disk-${index}.img`);
  }
}
