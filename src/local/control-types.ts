// What the supervisor tells about itself, on its control endpoint and to its callers.

import type { ErrorCode } from '../core/errors.ts';
import type { LocalRole } from './cluster-file.ts';
import type { DownReason } from './state-file.ts';

export type ClusterPhase = 'starting' | 'running' | 'stopping';

/**
 * starting → ready → stopping → down; ready → waiting → starting when it ended by itself;
 * starting → failed when its error would only repeat (a foreign or damaged data directory).
 */
export type ProcessStatus = 'starting' | 'ready' | 'waiting' | 'stopping' | 'down' | 'failed';

/** What a child tells with `ready`: JSON, for `state` only. */
export type ChildInfo = Readonly<Record<string, string | number | boolean | null | readonly string[]>>;

export interface ProcessState {
  readonly name: string;
  readonly role: LocalRole;
  readonly zone: string;
  /** Text peer id. */
  readonly peer: string;
  /** libp2p port on 127.0.0.1. */
  readonly port: number;
  readonly status: ProcessStatus;
  /** One sentence for people: why it is in this status and what to do about it. */
  readonly text: string;
  /** When it entered this status, milliseconds since 1970. */
  readonly since: number;
  /** Of the running process. */
  readonly pid?: number;
  /** How often it was started again after it had ended by itself, since the supervisor started. */
  readonly restarts: number;
  /** Set when the operator took it down; it stays down until `node start`, over restarts of the cluster too. */
  readonly downBy?: DownReason;
  /** Of the last failure, if it has one of the catalogue. */
  readonly error?: { readonly code: ErrorCode; readonly message: string };
  /** What the process said when it became ready. */
  readonly info?: ChildInfo;
}

export interface ClusterState {
  readonly cluster: string;
  /** Absolute path of the layout. */
  readonly dir: string;
  /** Of the supervisor. */
  readonly pid: number;
  /** Milliseconds since 1970. */
  readonly startedAt: number;
  readonly phase: ClusterPhase;
  /** URL of the door's HTTP. */
  readonly doorUrl: string;
  readonly processes: readonly ProcessState[];
}

/** What an operator may do to one process. `wipe` deletes what a storage node stores and starts it empty. */
export const nodeActions = ['stop', 'kill', 'start', 'wipe'] as const;
export type NodeAction = (typeof nodeActions)[number];

/** The running supervisor of one layout. All methods throw CLUSTER_NOT_RUNNING when it has gone. */
export interface ControlClient {
  state(): Promise<ClusterState>;
  /** Ends the process gracefully; it stays down. Resolves when it has ended. */
  stopNode(name: string): Promise<ProcessState>;
  /** Ends the process at once, as a crash would; it stays down. Resolves when it has ended. */
  killNode(name: string): Promise<ProcessState>;
  /** Starts the process again. Resolves when it is ready, or failed (the state says why). */
  startNode(name: string): Promise<ProcessState>;
  /** Storage nodes only: kill, delete what the node stores (its identity stays), start it empty. */
  wipeNode(name: string): Promise<ProcessState>;
  /** Stops the whole cluster. Resolves when the supervisor process has ended. */
  down(): Promise<void>;
}
