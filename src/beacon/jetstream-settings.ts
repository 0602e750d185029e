// What a stream and its servers must be for the Beacon to call it durable. Every server default but one is wrong for
// us: JetStream acknowledges what is in memory, and forgets what its limits tell it to.

import { HoldfastError } from '../core/errors.ts';
import { messageBytesMax } from './jetstream-message.ts';

/** Older servers lose acknowledged messages in known ways, or do not judge expected sequences across a cluster. */
const versionMin = [2, 12, 3] as const;
/** A majority of them survives the loss of one. */
const replicasMin = 3;
/** How long a server knows the id of a message, ms: longer than anybody sends one again. */
export const duplicateWindowMs = 120_000;

/** The stream as it is configured; names as on the wire. A server leaves out what has its zero value. */
export interface StreamFacts {
  readonly subjects: readonly string[];
  readonly storage: string;
  readonly retention: string;
  readonly replicas: number;
  readonly maxMessages: number;
  readonly maxBytes: number;
  readonly maxMessageBytes: number;
  readonly maxPerSubject: number;
  readonly maxAgeNs: number;
  readonly denyDelete: boolean;
  readonly denyPurge: boolean;
  readonly allowRollup: boolean;
  readonly allowTtl: boolean;
  readonly noAck: boolean;
  readonly persistMode: string | undefined;
  readonly hasForeignSource: boolean;
  /** Names of the servers that hold a copy. */
  readonly servers: readonly string[];
  /** Those of them that do not follow the leader now: they acknowledge nothing, and may be unable to answer. */
  readonly away: readonly string[];
}

/** What a server says about itself. */
export interface ServerFacts {
  readonly name: string;
  readonly version: string;
  readonly maxPayloadBytes: number;
  /** Whether it syncs before it acknowledges; undefined where nobody could ask. */
  readonly syncAlways: boolean | undefined;
}

/** Settings that make the stream unusable as a Beacon at all: it could lose or refuse appends while all servers live. */
export function unusable(stream: StreamFacts, subject: string): string[] {
  const wrong = wrongUnless([
    [stream.subjects.length === 1 && stream.subjects[0] === subject, `subjects: exactly ${subject}`],
    [stream.retention === 'limits', 'retention: limits'],
    [stream.maxMessages <= 0, 'max_msgs: -1'],
    [stream.maxBytes <= 0, 'max_bytes: -1'],
    [stream.maxPerSubject <= 0, 'max_msgs_per_subject: -1'],
    [stream.maxAgeNs === 0, 'max_age: 0'],
    [stream.maxMessageBytes <= 0 || stream.maxMessageBytes >= messageBytesMax, 'max_msg_size: -1'],
    [!stream.allowRollup, 'allow_rollup_hdrs: false'],
    [!stream.allowTtl, 'allow_msg_ttl: false'],
    [!stream.noAck, 'no_ack: false'],
    [!stream.hasForeignSource, 'no mirror, sources, republish or subject_transform'],
  ]);
  return wrong.map((setting) => `the stream needs ${setting}`);
}

/** Settings for want of which an acknowledged append could be lost when a server or a disk is. */
export function notDurable(stream: StreamFacts, servers: readonly ServerFacts[]): string[] {
  const wrong = wrongUnless([
    [stream.storage === 'file', 'storage: file'],
    [stream.replicas >= replicasMin, `num_replicas: ${replicasMin} or more, not ${stream.replicas}`],
    [stream.denyDelete, 'deny_delete: true'],
    [stream.denyPurge, 'deny_purge: true'],
    [stream.persistMode === undefined || stream.persistMode === 'default', 'persist_mode: default'],
  ]);
  const problems = wrong.map((setting) => `the stream needs ${setting}`);
  for (const name of stream.servers.toSorted()) {
    const server = servers.find((each) => each.name === name);
    // Who is away is asked when it is back.
    if (server !== undefined || !stream.away.includes(name)) problems.push(...serverProblems(name, server));
  }
  return problems;
}

/**
 * Throws BEACON_UNAVAILABLE naming every setting in `problems`. `mayTell`: all that speaks against the stream is that
 * servers have not told their settings yet, and asking again may help.
 */
export function refuse(stream: string, problems: readonly string[], mayTell = false): never {
  throw new HoldfastError(
    'BEACON_UNAVAILABLE',
    `stream ${stream} is no durable log: ${problems.join('; ')}`,
    {
      details: { stream, settings: problems, ...(mayTell ? { unanswered: true } : {}) },
    },
  );
}

function serverProblems(name: string, server: ServerFacts | undefined): string[] {
  const who = name === '' ? 'the server' : `server ${name}`;
  if (server?.syncAlways === undefined)
    return [`${who} does not tell its settings (system account): sync_interval is unknown`];
  const { syncAlways, version, maxPayloadBytes } = server;
  return wrongUnless([
    [syncAlways, 'sync_interval: always'],
    [isRecent(version), `version ${versionMin.join('.')} or newer, not ${version}`],
    [maxPayloadBytes >= messageBytesMax, `max_payload: ${messageBytesMax} or more, not ${maxPayloadBytes}`],
  ]).map((setting) => `${who} needs ${setting}`);
}

/** True for `versionMin` and what is newer; a pre-release counts as the release before it. */
function isRecent(version: string): boolean {
  const match = /^(\d+)\.(\d+)\.(\d+)(-.+)?$/.exec(version);
  if (match === null) return false;
  const parts = match.slice(1, 4).map(Number);
  for (const [index, wanted] of versionMin.entries()) {
    const part = parts[index] ?? 0;
    if (part !== wanted) return part > wanted;
  }
  return match[4] === undefined;
}

/** The wants of those rows that do not hold. */
function wrongUnless(rows: readonly (readonly [holds: boolean, wanted: string])[]): string[] {
  return rows.filter(([holds]) => !holds).map(([, wanted]) => wanted);
}
