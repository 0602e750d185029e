// Damage to what one NATS server keeps, while it is down, and waiting until it has recovered from that.

import assert from 'node:assert/strict';
import { open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { PeerInfo } from '@nats-io/jetstream';
import { minute } from '../../src/core/clock.ts';
import { manage, type NatsCluster } from './nats-cluster.ts';

export type Damage = 'flip' | 'halve';

/** Smaller files hold nothing that damage could reach. */
const sizeBytesMin = 64;

/**
 * Damages those files of one server that `isMeant` is true of, while it is down; where it does not start with them, or
 * never follows the leader again, it starts with none, as who operates it would do. Then another one is killed, so that
 * the damaged one is needed for a majority, and started again.
 */
export async function damageOne(
  cluster: NatsCluster,
  stream: string,
  damage: Damage,
  isMeant: (path: string) => boolean = () => true,
): Promise<void> {
  const index = Math.floor(Math.random() * 3);
  await cluster.end(index);
  const store = cluster.storeOf(index);
  let count = 0;
  for (const entry of await readdir(store, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile() && isMeant(path) && (await damageFile(path, damage))) count++;
  }
  assert(count > 0, 'no files to damage');
  if (!(await startsWith(cluster, index)) || !(await isCaughtUp(cluster, stream, minute))) {
    await cluster.end(index);
    await rm(store, { recursive: true });
    await cluster.start(index); // the others fill it
  }
  await caughtUp(cluster, stream);
  const other = (index + 1) % 3;
  await cluster.end(other);
  await delay(5000);
  await cluster.start(other);
  await caughtUp(cluster, stream);
}

/** Files that hold the messages of `stream`, and nothing else that a server keeps. */
export function ofStream(stream: string): (path: string) => boolean {
  return (path) => path.includes(`/streams/${stream}/`);
}

/** False when it refuses to start with what is left. */
async function startsWith(cluster: NatsCluster, index: number): Promise<boolean> {
  try {
    await cluster.start(index);
    return true;
  } catch (error) {
    if (String(error).includes("Can't start JetStream")) return false;
    throw error;
  }
}

/** Twenty bits of it somewhere, or its second half. False for one that holds next to nothing. */
async function damageFile(path: string, damage: Damage): Promise<boolean> {
  await using file = await open(path, 'r+');
  const { size } = await file.stat();
  if (size < sizeBytesMin) return false;
  if (damage === 'halve') await file.truncate(Math.floor(size / 2));
  else
    for (let count = 0; count < 20; count++) {
      const at = Math.floor(Math.random() * size);
      const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
      await file.write(Buffer.of((buffer[0] ?? 0) ^ (1 << (count % 8))), 0, 1, at);
    }
  return true;
}

/** Resolves when every server that holds the stream follows its leader. */
async function caughtUp(cluster: NatsCluster, stream: string): Promise<void> {
  assert(await isCaughtUp(cluster, stream, 3 * minute), 'a server does not catch up');
}

async function isCaughtUp(cluster: NatsCluster, stream: string, patienceMs: number): Promise<boolean> {
  const giveUpAt = performance.now() + patienceMs;
  while (!(await allFollow(cluster, stream))) {
    if (performance.now() >= giveUpAt) return false;
    await delay(200);
  }
  return true;
}

async function allFollow(cluster: NatsCluster, stream: string): Promise<boolean> {
  const replicas: PeerInfo[] = [];
  try {
    await manage(cluster, async (manager) => {
      replicas.push(...((await manager.streams.info(stream)).cluster?.replicas ?? []));
    });
  } catch {
    return false; // nobody leads it now
  }
  return replicas.length === 2 && replicas.every(({ current, offline }) => current && !offline);
}
