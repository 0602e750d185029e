// One of three NATS servers finds its files of the stream damaged while writers append. More of this, with every other
// fault: bench/beacon-faults.bench.ts.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BeaconScene } from '../support/beacon-scene.ts';
import { type Damage, damageOne, ofStream } from '../support/nats-damage.ts';
import { natsSkip } from '../support/nats-server.ts';

const writers = 6;
const appends = 100;

describe('a stream that one server has damaged', { skip: await natsSkip() }, () => {
  test('by flipped bits loses and doubles nothing', (t) => survives('flip', (line) => t.diagnostic(line)));
  test('by halved files loses and doubles nothing', (t) => survives('halve', (line) => t.diagnostic(line)));
});

/** The scene throws what was lost, taken twice, read stale, or is told differently by a copy or a view. */
async function survives(damage: Damage, tell: (line: string) => void): Promise<void> {
  await using scene = await BeaconScene.make({ writers, withDisks: false });
  await scene.begin();
  await scene.more(appends);
  await damageOne(scene.cluster, scene.stream, damage, ofStream(scene.stream));
  await scene.more(appends);
  const entries = await scene.finish();
  const { length } = scene.acknowledged;
  assert.ok(length >= 2 * appends && entries >= length);
  tell(`${length} acknowledged of ${entries}, ${scene.summary()}`);
}
