// Moving a live registry from one log to another, of whatever engine: the same history, entry by entry.
//
//     copy what there is ─▶ copy what came meanwhile ─▶ close the old log ─▶ copy the rest ─▶ compare ─▶ put in force
//
// Everything before the last step can be interrupted and begun again: the new log shows by its head and chain how far
// the move has come. Until the last step the old log counts; it takes no appends only for the rest, which is small.
// Equal chains at equal revisions are equal histories, so nothing is lost and nothing doubled when the heads agree.

import { sameBytes } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { BeaconLog, LogEntry, LogPosition } from './log.ts';
import { appendEntries, type TransferOptions, type TransferReport } from './transfer.ts';

export interface MigratePorts {
  readonly from: BeaconLog;
  /** Empty, or holding the beginning of the same history. Nobody else appends to it. */
  readonly to: BeaconLog;
  /** From when it resolves `from` takes no appends any more, and those under way have ended; reading goes on. */
  readonly close: () => Promise<void>;
  /** Makes `to` the log that counts, for this process and every later one. On disk when it resolves. */
  readonly putInForce: (position: LogPosition) => Promise<void>;
}

/**
 * Moves the registry. Throws VERSION_CONFLICT when `to` holds another history or somebody else appends to it, and what
 * the logs throw; then `from` still counts, and moving can be tried again.
 */
export async function migrateLog(
  ports: MigratePorts,
  options: TransferOptions = {},
): Promise<TransferReport> {
  const { from, to } = ports;
  let entries = 0;
  const copy = async (): Promise<number> => {
    const report = await copyLog(from, to, options);
    entries += report.entries;
    return report.entries;
  };
  // A source that grows faster than it is copied is closed all the same; that just takes longer then.
  for (let round = 0; round < roundsMax; round++) if ((await copy()) < restMax) break;
  await ports.close();
  await copy();
  const [source, position] = [await from.head(), await to.head()];
  if (!samePosition(source, position))
    throw foreign(
      `the logs end at ${source.revision} and ${position.revision}: somebody else appends to one`,
    );
  options.signal?.throwIfAborted();
  await ports.putInForce({ revision: position.revision, chain: position.chain });
  return { entries, position };
}

/**
 * Appends to `to` what it lacks of the history of `from` as of now.
 * Throws VERSION_CONFLICT when `to` holds another history, and what the logs throw.
 */
export async function copyLog(
  from: Pick<BeaconLog, 'head' | 'read'>,
  to: BeaconLog,
  options: TransferOptions = {},
): Promise<TransferReport> {
  const head = await to.head();
  const source = await from.head();
  if (source.revision < head.revision)
    throw foreign(`the log to move to is ahead: ${head.revision} > ${source.revision}`);
  return appendEntries(entriesBehind(from, head, options.signal), to, options);
}

const restMax = 1000;
const roundsMax = 20;

/** Entries of `from` behind `head`, once the entry at `head` was seen to be the same. */
async function* entriesBehind(
  from: Pick<BeaconLog, 'read'>,
  head: LogPosition,
  signal: AbortSignal | undefined,
): AsyncGenerator<LogEntry> {
  for await (const entry of from.read(Math.max(1, head.revision), signal === undefined ? {} : { signal })) {
    if (entry.revision > head.revision) yield entry;
    else if (!samePosition(entry, head))
      throw foreign(`the log to move to holds another history at revision ${head.revision}`);
  }
}

function samePosition(left: LogPosition, right: LogPosition): boolean {
  return left.revision === right.revision && sameBytes(left.chain, right.chain);
}

function foreign(message: string): HoldfastError {
  return new HoldfastError('VERSION_CONFLICT', message);
}
