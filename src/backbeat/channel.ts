// What carries texts between those who keep time together: at most once, in any order, now and then twice.

import type { MessageKind } from './subjects.ts';

export interface ChannelMessage {
  /** JSON text, as it was sent. */
  readonly text: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface ChannelState {
  readonly connected: boolean;
  /** Wall clock ms when `connected` last changed. */
  readonly since: number;
  /** Where it is connected to, or why it is not. */
  readonly text: string;
  readonly reconnectsCount: number;
  /** Messages not sent because there was no connection. A beat that comes late is worse than none. */
  readonly droppedCount: number;
}

export interface Channel extends AsyncDisposable {
  /** Sends to every subscriber, the sender's own included. Never waits and never throws for the network. */
  publish(kind: MessageKind, message: ChannelMessage): void;
  /** Calls `listener`, which must not throw, until the returned function is called; also over lost connections. */
  subscribe(kind: MessageKind, listener: (message: ChannelMessage) => void): () => void;
  state(): ChannelState;
}

/** The embedded channel: one process, nothing between. */
export class LocalChannel implements Channel {
  readonly #listeners = new Map<MessageKind, Set<(message: ChannelMessage) => void>>();
  readonly #since: number;

  /** `now`: wall clock ms. */
  constructor(now: number) {
    this.#since = now;
  }

  publish(kind: MessageKind, message: ChannelMessage): void {
    for (const listener of this.#listeners.get(kind) ?? []) listener(message);
  }

  subscribe(kind: MessageKind, listener: (message: ChannelMessage) => void): () => void {
    const listeners = this.#listeners.get(kind) ?? new Set();
    this.#listeners.set(kind, listeners);
    const own = (message: ChannelMessage): void => listener(message);
    listeners.add(own);
    return () => void listeners.delete(own);
  }

  state(): ChannelState {
    return { connected: true, since: this.#since, text: 'embedded', reconnectsCount: 0, droppedCount: 0 };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listeners.clear();
  }
}
