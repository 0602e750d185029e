// The port through which everything keeps time: a follower of the beats on the bus implements it.

import type { BeatFrame } from './beat.ts';

/**
 * `waiting`: nothing heard since start, ticking locally. `locked`: beats come from Pulse.
 * `degraded`: Pulse has fallen silent, ticking locally at the default tempo.
 */
export type TempoState = 'waiting' | 'locked' | 'degraded';

/** One beat as its listeners see it: never repeated, never out of order, also when Pulse starts again at 0. */
export interface Beat {
  /** Rises by one with every beat delivered in this process. Order by this, not by the frame. */
  readonly sequence: number;
  /** The frame heard, or, when `source` is `local`, one continued from the last frame heard. */
  readonly frame: BeatFrame;
  readonly source: 'pulse' | 'local';
  /** The frame's flag, or a window that changed although its downbeat was never heard. */
  readonly downbeat: boolean;
}

export interface TempoView {
  readonly state: TempoState;
  /** Undefined until the first beat. */
  readonly beat: Beat | undefined;
  /** Milliseconds between beats as now expected. */
  readonly intervalMs: number;
  /** Wall clock ms when `state` began. */
  readonly since: number;
}

export interface Tempo {
  current(): TempoView;
  /** Calls `listener` on every beat until the returned function is called. A listener must not throw or block. */
  onBeat(listener: (beat: Beat) => void): () => void;
}
