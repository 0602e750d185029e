// A word about a stream, put behind everything that is in it: by whoever moves the log elsewhere, or makes another one in
// its place, in the order of the log itself, so that no writer can miss it.
//
// It needs no copy and trusts no history: a stream that lost something can be closed as well. Then its last message says
// where it ends; where that cannot be read, the word stands behind nothing, and every follower names it.
// And what a stream says of itself, for whoever looks at one that may not be there.

import { setTimeout as delay } from 'node:timers/promises';
import { second } from '../core/clock.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { decodeGroup, encodeWord, type StreamWord } from './jetstream-message.ts';
import { patiently, Stream, type StreamAccess } from './jetstream-stream.ts';
import { lineageIn } from './lineage.ts';
import { emptyPosition, type LogLineage, type LogPosition } from './log.ts';

const tryMs = 15 * second;
const pauseMs = 100;

/**
 * Says `word` in the stream. False when there is no stream. Whoever appended before is in front of it.
 * Throws BEACON_UNAVAILABLE when no majority answers.
 */
export async function sayInStream(
  access: Omit<StreamAccess, 'timeoutMs'> & { readonly timeoutMs?: number },
  word: StreamWord,
): Promise<boolean> {
  const giveUpAt = performance.now() + tryMs;
  const timeoutMs = access.timeoutMs ?? 5 * second;
  await using stream = await patiently(() => Stream.connect({ ...access, timeoutMs }), giveUpAt);
  for (;;) {
    const state = await patiently(() => stream.state(), giveUpAt);
    if (state === undefined) return false;
    const sequence = state.lastSequence + 1;
    const bytes = encodeWord(sequence, await endOf(stream, state.lastSequence), word);
    const outcome = await stream.publish(
      bytes,
      `word-${sequence}-${toHex(bytes.subarray(0, 8))}`,
      sequence - 1,
    );
    if (outcome.kind === 'stored') return true;
    const there = await stream.message(sequence).catch(() => undefined);
    if (there !== undefined && sameBytes(there, bytes)) return true;
    if (performance.now() >= giveUpAt)
      throw new HoldfastError('BEACON_UNAVAILABLE', `stream ${access.stream} takes no word`, {
        cause: outcome.kind === 'unknown' ? outcome.cause : undefined,
      });
    await delay(pauseMs);
  }
}

/**
 * Which log a stream says it is; undefined when there is none, or none that says so. Asks once, and leaves nothing behind.
 * Throws BEACON_UNAVAILABLE, details `unanswered` when nobody answers.
 */
export async function lineageOfStream(
  access: Omit<StreamAccess, 'timeoutMs'> & { readonly timeoutMs?: number },
): Promise<LogLineage | undefined> {
  await using stream = await Stream.connect({ ...access, timeoutMs: access.timeoutMs ?? 5 * second });
  const state = await stream.state();
  return state === undefined ? undefined : lineageIn(state.metadata);
}

async function endOf(stream: Stream, sequence: number): Promise<LogPosition> {
  const bytes = sequence === 0 ? undefined : await stream.message(sequence).catch(() => undefined);
  if (bytes === undefined) return emptyPosition;
  try {
    return decodeGroup(sequence, bytes).end;
  } catch (error) {
    if (isHoldfastError(error)) return emptyPosition;
    throw error;
  }
}
