import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noHealing, noObjects } from '../../test/support/steward-status.ts';
import { readExposition } from '../../test/support/prometheus.ts';
import type { BeaconQueries } from '../beacon/queries.ts';
import { DoorMetrics } from './metrics.ts';

const view: Pick<BeaconQueries, 'position'> = {
  position: () => ({ revision: 7, chain: new Uint8Array(32) }),
};

test('the exposition is one that a strict scraper takes, with and without traffic', async () => {
  const metrics = new DoorMetrics();
  readExposition(await metrics.text(view, undefined));
  metrics.answered('get', 200, 0.0007);
  metrics.answered('get', 404, 90);
  metrics.answered('put', 201, 1);
  const families = readExposition(await metrics.text(view, undefined));
  assert.equal(families.get('holdfast_door_requests_total')?.samples.length, 3);
  assert.equal(families.get('holdfast_beacon_revision')?.samples[0]?.value, 7);
});

test('without a steward its gauges vanish rather than freeze', async () => {
  const families = readExposition(await new DoorMetrics().text(view, undefined));
  assert.deepEqual(families.get('holdfast_objects')?.samples, []);
  assert.equal(families.get('holdfast_steward_up')?.samples[0]?.value, 0);
});

test('a view that is unlike the others is 1, the others are 0', async () => {
  const views = {
    revision: 7,
    at: 0,
    equal: ['steward', 'door-1'],
    differing: [{ name: 'door-2', kinds: ['tag'] }],
    unknown: [],
  };
  const text = await new DoorMetrics().text(view, {
    objects: noObjects,
    healing: noHealing,
    nodes: [],
    beacon: { engine: 'leveldb', text: '', state: 'ready', reason: '', durable: true, problems: [], views },
  });
  const samples = readExposition(text).get('holdfast_beacon_view_differs')?.samples;
  assert.deepEqual(
    samples?.map(({ labels, value }) => [labels.get('member'), value]),
    [
      ['steward', 0],
      ['door-1', 0],
      ['door-2', 1],
    ],
  );
});

test('the reader bites', () => {
  const good = '# HELP a Text.\n# TYPE a gauge\na{b="c"} 1\n';
  readExposition(good);
  const histogram = (rest: string) => `# HELP h Text.\n# TYPE h histogram\n${rest}`;
  for (const bad of [
    good.trimEnd(),
    'a 1\n',
    good.replace('# HELP a Text.\n', ''),
    `${good}a{b="c"} 2\n`,
    `${good}${good}`,
    good.replace('a{', 'b{'),
    good.replace('} 1', '} one'),
    good.replace('"c"', '"c'),
    histogram('h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n'),
    histogram('h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n'),
    histogram('h_bucket{le="+Inf"} 1\nh_sum 1\nh_count 2\n'),
  ])
    assert.throws(() => readExposition(bad), assert.AssertionError, bad);
});
