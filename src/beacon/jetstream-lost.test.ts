// Streams that lost, changed or replaced what they had acknowledged: each is named, and none is followed.

import assert from 'node:assert/strict';
import { cp, rm } from 'node:fs/promises';
import { after, describe, it } from 'node:test';
import { collect, entriesOf, someAppend } from '../../test/suites/beacon-log.suite.ts';
import { jetStreamRoom, openWhenUp } from '../../test/support/jetstream-logs.ts';
import { manage, type NatsCluster, startNatsCluster } from '../../test/support/nats-cluster.ts';
import { natsSkip } from '../../test/support/nats-server.ts';
import { isHoldfastError } from '../core/errors.ts';
import { encodeGroup } from './jetstream-message.ts';
import { JetStreamLog, type JetStreamLogOptions } from './jetstream.ts';
import { LevelLog } from './level.ts';
import { emptyPosition, type LogEntry, nextEntry } from './log.ts';

const room = await jetStreamRoom();
after(() => room.end());

describe('a stream that is not what it was', { skip: await natsSkip() }, () => {
  it('is gone: no new one is begun in its place', async () => {
    const { cluster, options } = await filled(3);
    await manage(cluster, (manager) => manager.streams.delete(options.stream));
    await refused(options, /it is gone/);
  });

  it('is an older copy of itself, as a disk restored from a backup is', async () => {
    const { cluster, options, log } = await filled(3, { keepOpen: true });
    const [store, backup] = [cluster.storeOf(0), `${cluster.storeOf(0)}-backup`];
    await log[Symbol.asyncDispose]();
    await cluster.end(0, 'SIGTERM');
    await cp(store, backup, { recursive: true });
    await cluster.start(0);
    await using again = await openWhenUp(options);
    await again.append(someAppend('later'));
    await cluster.end(0);
    await rm(store, { recursive: true });
    await cp(backup, store, { recursive: true });
    await cluster.start(0);
    // The log that was open all the time notices as well, when it is to write.
    await assert.rejects(untilNamed(again), /it ends at revision 3; it had acknowledged 4/);
    await assert.rejects(collect(again.watch(1, { signal: AbortSignal.timeout(5000) })), diverged);
    assert.equal(again.health().state, 'read-only');
    await again[Symbol.asyncDispose]();
    await refused(options, /it ends at revision 3; it had acknowledged 4/);
    // What the stream lost is in the copy.
    await using copy = await LevelLog.open(options.directory);
    assert.equal((await entriesOf(copy)).length, 4);
  });

  it('tells another history of the same length', async () => {
    const { cluster, options } = await filled(3);
    await replace(cluster, options, await history(3, 'other'));
    await refused(options, /message 3 tells another history of revision 3/);
  });

  it('goes on with a message that does not follow, or that was changed, or is not ours at all', async () => {
    const entries = await history(4, 'addr');
    const [one, , three] = entries;
    assert(one !== undefined && three !== undefined);
    const cases: [Uint8Array, RegExp][] = [
      [encodeGroup(2, emptyPosition, [one]), /message 2 continues another history/],
      [encodeGroup(2, three, entries.slice(3)), /message 2 continues another history/],
      [encodeGroup(3, one, entries.slice(1)), /message 2 of the stream does not match its checksum/],
      [new Uint8Array(100), /message 2 of the stream does not match its checksum/],
    ];
    const cluster = await startNatsCluster(room, { size: 1 });
    for (const [message, named] of cases) {
      const options = quick(cluster);
      const log = await JetStreamLog.open(options);
      await log.append(one);
      // It may end before the publication is acknowledged.
      const seen = assert.rejects(collect(log.watch(1, { signal: AbortSignal.timeout(10_000) })), named);
      await Promise.all([
        seen,
        manage(cluster, (_manager, client) => client.publish(`${options.stream}.log`, message)),
      ]);
      await assert.rejects(log.append(someAppend('addr/x')), diverged);
      await assert.rejects(log.head(), diverged);
      await log[Symbol.asyncDispose]();
    }
  });

  it('lost a message in the middle, or all of them but not their number', async () => {
    const { cluster, options } = await filled(3, { mayDelete: true });
    await manage(cluster, (manager) => manager.streams.deleteMessage(options.stream, 2));
    await refused(options, /1 of its messages were deleted/);
    await manage(cluster, (manager) => manager.streams.purge(options.stream));
    await refused(options, /it holds 0 of 3 messages/);
  });
});

const diverged = (error: unknown): boolean =>
  isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['diverged'] === true;

/** A stream that is behind counts as lost soon. */
function quick(cluster: NatsCluster): JetStreamLogOptions {
  return room.options(cluster, { timeoutMs: 1000, behindMs: 500, retryMs: 3000 });
}

/** A server of its own with a log of `count` messages. */
async function filled(
  count: number,
  { keepOpen = false, mayDelete = false } = {},
): Promise<{ cluster: NatsCluster; options: JetStreamLogOptions; log: JetStreamLog }> {
  const cluster = await startNatsCluster(room, { size: 1 });
  const options = quick(cluster);
  if (mayDelete) {
    const config = { name: options.stream, subjects: [`${options.stream}.log`] };
    await manage(cluster, (manager) => manager.streams.add(config));
  }
  const log = await JetStreamLog.open(options);
  for (let index = 0; index < count; index++) await log.append(someAppend(`addr/${index}`));
  if (!keepOpen) await log[Symbol.asyncDispose]();
  return { cluster, options, log };
}

async function refused(options: JetStreamLogOptions, problem: RegExp): Promise<void> {
  const opening = openWhenUp(options);
  await assert.rejects(opening, problem);
  await assert.rejects(opening, diverged);
}

/** Appends until the log says what it found. */
async function untilNamed(log: JetStreamLog): Promise<never> {
  for (;;) {
    try {
      await log.append(someAppend('addr/new'));
    } catch (error) {
      if (diverged(error)) throw error;
    }
  }
}

/** `count` entries, each right after the one before. */
async function history(count: number, name: string): Promise<LogEntry[]> {
  const entries: LogEntry[] = [];
  for (let index = 0; index < count; index++)
    entries.push(nextEntry(entries.at(-1) ?? emptyPosition, someAppend(`${name}/${index}`)));
  return entries;
}

/** Puts a stream of the same name in the place of another, with a message per entry. */
async function replace(
  cluster: NatsCluster,
  { stream }: JetStreamLogOptions,
  entries: readonly LogEntry[],
): Promise<void> {
  await manage(cluster, async (manager, client) => {
    const { config } = await manager.streams.info(stream);
    await manager.streams.delete(stream);
    await manager.streams.add(config);
    let before = emptyPosition;
    for (const [index, entry] of entries.entries()) {
      await client.publish(`${stream}.log`, encodeGroup(index + 1, before, [entry]));
      before = entry;
    }
  });
}
