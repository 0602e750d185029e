// The replicated Beacon while everything happens to its servers: three NATS servers, writers with compare-and-set on
// three logs with a copy and a view each (test/support/beacon-scene.ts), and one fault after the other.
//
//   node bench/beacon-faults.bench.ts [--writers 50] [--cuts 10] [--rounds 3] [--appends 300] [--only power-all,control]
//
// Power cuts need root and loop devices: every server keeps its files on an ext4 of its own in an image; the servers are
// stopped, the images copied (they hold what was flushed), the servers killed, and started on the copies. `control` does
// the same with servers that do not sync: it must be seen to lose, to be named, and to be filled again from the copies.
// Exits with 1 when anything acknowledged was lost, accepted twice, or read stale, when views differ at the end, or when
// the control lost nothing.

import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { isHoldfastError } from '../src/core/errors.ts';
import { manage, type NatsCluster } from '../test/support/nats-cluster.ts';
import { damageOne, ofStream } from '../test/support/nats-damage.ts';
import { BeaconScene } from '../test/support/beacon-scene.ts';

const { values } = parseArgs({
  options: {
    writers: { type: 'string', default: '50' },
    cuts: { type: 'string', default: '10' },
    rounds: { type: 'string', default: '3' },
    appends: { type: 'string', default: '300' },
    only: { type: 'string' },
  },
});
const [writers, cuts, rounds, appends] = [values.writers, values.cuts, values.rounds, values.appends].map(
  Number,
) as [number, number, number, number];

/** Each leaves all servers running, and the stream to recover by itself. */
const faults: Readonly<Record<string, (scene: BeaconScene) => Promise<void>>> = {
  'kill-leader': async ({ cluster, stream }) => {
    const leader = await leaderOf(cluster, stream);
    await cluster.end(leader);
    await delay(3000);
    await cluster.start(leader);
  },
  'kill-all': async ({ cluster }) => {
    await Promise.all([0, 1, 2].map((index) => cluster.end(index)));
    await Promise.all([0, 1, 2].map((index) => cluster.start(index)));
  },
  pause: async ({ cluster, stream }) => {
    const leader = await leaderOf(cluster, stream);
    cluster.signal(leader, 'SIGSTOP');
    await delay(12_000);
    cluster.signal(leader, 'SIGCONT');
  },
  partition: async ({ cluster, stream }) => {
    const leader = await leaderOf(cluster, stream);
    cluster.isolate(leader);
    await delay(15_000);
    cluster.join();
  },
  'power-one': (scene) => scene.cut([Math.floor(Math.random() * 3)]),
  'power-all': (scene) => scene.cut([0, 1, 2]),
  // The stream's messages; then everything that the server keeps, its votes and its place in them too.
  'bit-flips': ({ cluster, stream }) => damageOne(cluster, stream, 'flip', ofStream(stream)),
  truncation: ({ cluster, stream }) => damageOne(cluster, stream, 'halve', ofStream(stream)),
  'bit-flips-everywhere': ({ cluster, stream }) => damageOne(cluster, stream, 'flip'),
  'truncation-everywhere': ({ cluster, stream }) => damageOne(cluster, stream, 'halve'),
};
const needsDisks = ['power-one', 'power-all'];
const controls = 3;

const all = [...Object.keys(faults), 'stream-gone', 'control'];
const wanted = values.only === undefined ? all : values.only.split(',');
for (const name of wanted) assert(all.includes(name), `no fault ${name}: ${all.join(', ')}`);
let failed = 0;
for (const name of wanted) {
  const begun = performance.now();
  try {
    const said = await outcome(name);
    console.log(`${name}: ${said}, ${((performance.now() - begun) / 1000).toFixed(0)} s`);
  } catch (error) {
    failed++;
    console.log(`${name}: FAILED`, error);
  }
}
process.exitCode = failed === 0 ? 0 : 1;

async function outcome(name: string): Promise<string> {
  if (name === 'control') return control();
  if (name === 'stream-gone') return streamGone();
  const fault = faults[name];
  assert(fault !== undefined);
  const withDisks = needsDisks.includes(name);
  const repeats = withDisks ? cuts : rounds;
  await using scene = await BeaconScene.make({ writers, withDisks });
  await scene.begin();
  for (let round = 0; round < repeats; round++) {
    await scene.more(appends);
    await fault(scene);
    await scene.more(appends);
  }
  const entries = await scene.finish();
  return `×${repeats}: ${kept(scene, entries)}`;
}

/** The stream is deleted under its writers: every log names it, nobody begins another, until the copies fill one. */
async function streamGone(): Promise<string> {
  await using scene = await BeaconScene.make({ writers, withDisks: false });
  await scene.begin();
  await scene.more(appends);
  await manage(scene.cluster, (manager) => manager.streams.delete(scene.stream));
  await scene.named();
  await scene.abandon();
  return `named by all three logs, filled again from a copy; ${await goOn(scene)}`;
}

/** Servers that do not sync: what they lose is named, and filled again. */
async function control(): Promise<string> {
  let lost = 0;
  const lines: string[] = [];
  for (let round = 0; round < controls; round++) {
    await using scene = await BeaconScene.make({ writers, withDisks: true, syncInterval: '2m' });
    await scene.begin();
    await scene.more(2 * appends);
    await scene.cut([0, 1, 2], () => scene.abandon());
    const problems = (await scene.opened()).map((result) =>
      result.status === 'rejected' ? namedLoss(result.reason) : 'kept',
    );
    if (!problems.every((problem) => problem === 'kept')) lost++;
    lines.push(`\n  ${problems[0]}: filled again, ${await goOn(scene)}`);
  }
  assert(lost > 0, 'servers without sync lost nothing: the test is blind');
  return `×${controls}: ${lost} lost what they had acknowledged${lines.join('')}`;
}

/** Fills another stream from the copies, and lets everybody write there. */
async function goOn(scene: BeaconScene): Promise<string> {
  await scene.reseed();
  await scene.begin();
  await scene.more(appends);
  return kept(scene, await scene.finish());
}

function kept(scene: BeaconScene, entries: number): string {
  const { length } = scene.acknowledged;
  return `${length} acknowledged of ${entries}, 0 lost, 0 twice, ${scene.summary()}, all copies and views equal`;
}

/** How a stream that lost something was refused. Anything but the alarm for that is thrown. */
function namedLoss(error: unknown): string {
  const isNamed = isHoldfastError(error, 'BEACON_UNAVAILABLE') && error.details['diverged'] === true;
  if (!isNamed) throw error;
  return error.message;
}

async function leaderOf(cluster: NatsCluster, stream: string): Promise<number> {
  for (;;) {
    const leader = await cluster.leaderOf(stream);
    if (leader !== undefined) return leader;
    await delay(100);
  }
}
