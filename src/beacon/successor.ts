// May a log be followed in the place of another?
//
// Whoever serves a log can name any ancestor, and who rebuilt one after its disk was lost can name none. So names prove
// nothing: a view of the old log is the evidence of what was acknowledged, and the new log is followed only where its own
// view holds every version of every record that the old one holds, by CID. What the new log adds is another matter:
// records are signed by their writers.

import { grouped } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import type { BeaconLog } from './log.ts';
import type { BeaconView } from './view.ts';
import type { HeldVersion } from './view-queries.ts';

/** Versions looked up at a time. */
const comparedPerRead = 256;

/** What `before` holds and `after` does not, in words, the first of it; undefined when `after` holds it all. */
export async function lostIn(
  before: BeaconView,
  after: BeaconView,
  signal: AbortSignal,
): Promise<string | undefined> {
  for await (const group of grouped(before.heldVersions({ signal }), comparedPerRead)) {
    const lost = await firstLost(group, after);
    if (lost !== undefined) return lost;
  }
  return undefined;
}

async function firstLost(group: readonly HeldVersion[], after: BeaconView): Promise<string | undefined> {
  const held = await after.cidsOf(group);
  const index = group.findIndex(({ cid }, at) => held[at]?.equals(cid) !== true);
  const lost = group[index];
  if (lost === undefined) return undefined;
  const instead = held[index];
  return `version ${lost.version} of ${lost.chainId} is ${instead === undefined ? 'not in it' : 'another one in it'}`;
}

/**
 * Folds `log` into `view` up to `revision`. Throws BEACON_UNAVAILABLE when nothing comes for `stallMs`, and what the
 * view throws of what it holds.
 */
export async function foldUpTo(
  view: BeaconView,
  log: BeaconLog,
  revision: number,
  { signal, stallMs }: { readonly signal: AbortSignal; readonly stallMs: number },
): Promise<void> {
  const stop = new AbortController();
  const following = view.follow(log, AbortSignal.any([signal, stop.signal]));
  try {
    for (let before = -1; view.position().revision < revision; ) {
      if (view.position().revision === before) throw stalled(view, revision);
      before = view.position().revision;
      const patience = AbortSignal.timeout(stallMs);
      await view.waitFor(revision, AbortSignal.any([signal, patience])).catch((error: unknown) => {
        if (!patience.aborted || signal.aborted) throw error;
      });
    }
  } finally {
    stop.abort();
    await following;
  }
}

function stalled(view: BeaconView, revision: number): HoldfastError {
  const { reason } = view.health();
  return new HoldfastError(
    'BEACON_UNAVAILABLE',
    `a log that says it ends at revision ${revision} gives nothing behind ${view.position().revision}`,
    { details: { reason } },
  );
}
