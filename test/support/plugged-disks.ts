// The disks of a world's custodians, in memory, each to be cut off at any of its writes.

import type { Disk } from '../../src/custody/disk.ts';
import { Fuse, PowerCutDisk, type Survival } from './power-cut-disk.ts';

export class PluggedDisks {
  /** Asked before each write of a custodian; true cuts its disk off. */
  cut: (name: string) => boolean = () => false;
  /** What of the unflushed is there afterwards. */
  survival: Survival = 'nothing';
  readonly #disks = new Map<string, { readonly disk: PowerCutDisk; readonly plug: Plug }>();

  /** The disk as the custodian finds it when it starts. */
  open(name: string): Disk {
    const before = this.#disks.get(name);
    const plug = new Plug(() => this.cut(name));
    // Without a power cut the system keeps what a killed process has written.
    const survival = before?.plug.isOut === true ? this.survival : 'everything';
    const disk = before?.disk.afterCut(survival, plug) ?? new PowerCutDisk(name, plug);
    this.#disks.set(name, { disk, plug });
    return disk;
  }

  /** What is on the disk now, for `replace`. */
  copy(name: string): PowerCutDisk | undefined {
    return this.#disks.get(name)?.disk.afterCut('everything', new Fuse());
  }

  /** Another disk in its place, which the custodian finds when it starts: an earlier copy, or an empty one. */
  replace(name: string, copy?: PowerCutDisk): void {
    if (copy === undefined) this.#disks.delete(name);
    else this.#disks.set(name, { disk: copy, plug: new Plug(() => false) });
  }

  isOut(name: string): boolean {
    return this.#disks.get(name)?.plug.isOut === true;
  }

  async files(name: string): Promise<string[]> {
    return (await this.#disks.get(name)?.disk.list()) ?? [];
  }
}

class Plug extends Fuse {
  isOut = false;
  readonly #cut: () => boolean;

  constructor(cut: () => boolean) {
    super();
    this.#cut = cut;
  }

  override burn(): void {
    this.isOut ||= this.#cut();
    if (this.isOut) throw new Error('the disk has gone away');
  }
}
