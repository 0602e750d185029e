// Are the rows of a view those that their own log gives? Asked of those that were taken from another view (snapshot.ts),
// and of all when views of one revision turn out to differ.
//
// All entries are folded once more, out of the view's copy of the log and with every signature checked first, into
// scratch, a few at a time. When the scratch has come as far as the view, nothing is folded in for a moment, in which
// the reading of both begins: from there on each shows the rows of that moment, and the two are compared.

import { setTimeout as delay } from 'node:timers/promises';
import { grouped } from '../core/concurrency.ts';
import { type Kv, startedRows } from './kv.ts';
import type { LogEntry } from './log.ts';
import { compareRows, Problems } from './verify.ts';
import { BeaconView } from './view.ts';

/** Entries folded before others get their turn: some milliseconds. */
const groupEntriesMax = 16;
/** How far behind the view the rest is folded while nothing else is. */
const closeEntries = 64;

/**
 * Proves `view`, or condemns it. `scratch`: an empty Kv, which belongs to the caller. Throws what reading throws; then
 * nothing is decided.
 */
export async function proveRows(view: BeaconView, scratch: Kv, signal: AbortSignal): Promise<void> {
  const again = await BeaconView.open(scratch);
  while (view.position().revision - again.position().revision > closeEntries)
    await foldSome(view, again, signal);
  const [left, right] = await view.standingStill(async () => {
    await foldSome(view, again, signal);
    const started = [startedRows(view.rows()), startedRows(again.rows())] as const;
    await Promise.all(started.map(({ first }) => first));
    return started;
  });
  const problems = new Problems();
  await compareRows(left.rows, right.rows, problems);
  signal.throwIfAborted();
  await view.settleProof(problems.list[0] ?? '');
}

async function foldSome(view: BeaconView, again: BeaconView, signal: AbortSignal): Promise<void> {
  const entries = view.entriesSince(again.position().revision + 1, { signal });
  for await (const group of grouped(entries, groupEntriesMax)) await foldPaced(again, group, signal);
}

/** With a pause as long as the work took. */
async function foldPaced(again: BeaconView, group: readonly LogEntry[], signal: AbortSignal): Promise<void> {
  const began = performance.now();
  await again.apply(group);
  await delay(performance.now() - began, undefined, { signal });
}
