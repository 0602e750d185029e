// What waits to be written to one stream: frames in order, small ones coalesced into one write.
//
// One write per event-loop turn instead of one per frame is worth more than anything else here. A large
// body is handed over as it is. When the stream says it is full, nothing more is handed over until it drains:
// what waits is bounded by the credits and slots of those who put it here.

import { type Frame, frameBytes, frameHeader } from './rpc-frames.ts';

export interface OutboxPort {
  /** False: full, do not write before `drained()`. May throw when the stream is gone. */
  write(bytes: Uint8Array): boolean;
  /** Called before every flush: the moment to put credit in. */
  flushing(): void;
  /** A write threw. */
  failed(error: unknown): void;
  readonly tap?: ((frame: Uint8Array) => void) | undefined;
}

interface Waiting {
  readonly frame: Frame;
  /** Called when the frame was handed to the stream. */
  readonly written: (() => void) | undefined;
}

/** Bodies from here on are not copied; a coalesced write holds about this much. */
const coalesceBytesMax = 32_768;

export class Outbox {
  readonly #port: OutboxPort;
  #urgent: Waiting[] = [];
  /** In order, from `#next` on. A place that was taken is emptied at once: its frame may hold a whole block. */
  #waiting: (Waiting | undefined)[] = [];
  #next = 0;
  #scheduled = false;
  #isFull = false;
  #isClosed = false;

  constructor(port: OutboxPort) {
    this.#port = port;
  }

  push(frame: Frame, written?: () => void): void {
    if (this.#isClosed) return;
    this.#waiting.push({ frame, written });
    this.schedule();
  }

  /** Ahead of all that waits: credit, cancel, ping. Small frames only. */
  pushUrgent(frame: Frame): void {
    if (this.#isClosed) return;
    this.#urgent.push({ frame, written: undefined });
    this.schedule();
  }

  schedule(): void {
    if (this.#scheduled || this.#isFull || this.#isClosed) return;
    this.#scheduled = true;
    setImmediate(() => this.#flush());
  }

  drained(): void {
    this.#isFull = false;
    this.schedule();
  }

  /** Nothing is written any more; what waits is dropped, its callbacks are not called. */
  close(): void {
    this.#isClosed = true;
    this.#urgent = [];
    this.#waiting = [];
    this.#next = 0;
  }

  #flush(): void {
    this.#scheduled = false;
    if (this.#isClosed) return;
    this.#port.flushing();
    try {
      while (!this.#isFull && !this.#isClosed && this.#writeSome());
    } catch (error) {
      this.#port.failed(error);
    }
  }

  /** One write of up to about `coalesceBytesMax`, or one large body. False when nothing waits. */
  #writeSome(): boolean {
    const parts: Uint8Array[] = [];
    const done: (() => void)[] = [];
    let size = 0;
    let large: Uint8Array | undefined;
    while (size < coalesceBytesMax && large === undefined) {
      const next = this.#take();
      if (next === undefined) break;
      const { frame } = next;
      this.#port.tap?.(frameBytes(frame));
      if (next.written !== undefined) done.push(next.written);
      parts.push(frameHeader(frame), frame.head);
      if (frame.body.length >= coalesceBytesMax) large = frame.body;
      else parts.push(frame.body);
      size += frame.head.length + (large === undefined ? frame.body.length : 0);
    }
    if (parts.length === 0) return false;
    // The header must not be parted from its body by another frame, so both are written even when full.
    this.#isFull = !this.#port.write(Buffer.concat(parts));
    if (large !== undefined) this.#isFull = !this.#port.write(large);
    for (const written of done) written();
    return true;
  }

  #take(): Waiting | undefined {
    const urgent = this.#urgent.shift();
    if (urgent !== undefined) return urgent;
    const next = this.#waiting[this.#next];
    if (next === undefined) return undefined;
    this.#waiting[this.#next] = undefined;
    this.#next += 1;
    // A moving start instead of shift(): a thousand small frames must not cost a thousand copies each.
    if (this.#next === this.#waiting.length || this.#next >= 1024) {
      this.#waiting = this.#waiting.slice(this.#next);
      this.#next = 0;
    }
    return next;
  }
}
