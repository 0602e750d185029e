import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import {
  type ClusterFile,
  defaultSettings,
  joinZones,
  newClusterFile,
  parseClusterFile,
  type ProcessEntry,
  spreadZones,
} from './cluster-file.ts';

const base58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';

function entry(name: string, index: number): ProcessEntry {
  const role = name === 'steward' || name === 'door' ? name : 'node';
  const digits = `${base58[index % 58]}${base58[Math.floor(index / 58)]}`;
  return { name, role, zone: 'a', peer: `12D3KooW${digits.padEnd(44, '1')}`, port: 20_000 + index };
}

function example(): ClusterFile {
  return newClusterFile({
    cluster: 'local-0011223344556677',
    createdAt: '2026-01-02T03:04:05.678Z',
    operator: 'ab'.repeat(32),
    membershipVersion: 1,
    zones: 1,
    custodians: 0,
    doorPort: 7440,
    settings: defaultSettings,
    processes: ['node-1', 'node-2', 'steward', 'door'].map(entry),
  });
}

describe('zones', () => {
  test('five nodes over three zones are a a b b c', () => {
    assert.equal(spreadZones(5, 3).join(' '), 'a a b b c');
  });

  test('newcomers go where the fewest are, and nobody moves', () => {
    assert.deepEqual(joinZones(['a', 'a', 'b', 'b', 'c'], 7, 3), ['c', 'a']);
    assert.deepEqual(joinZones(['a', 'a'], 4, 3), ['b', 'c']);
    assert.deepEqual(joinZones(['a', 'b'], 2, 2), []);
  });

  test('a zone that would stay empty is refused', () => {
    assert.throws(() => spreadZones(2, 3), {
      code: 'ARGUMENT_INVALID',
      message: /2 nodes cannot fill 3 zones/,
    });
    assert.throws(() => spreadZones(0, 1), { code: 'ARGUMENT_INVALID' });
    assert.throws(() => spreadZones(1.5, 1), { code: 'ARGUMENT_INVALID' });
    assert.throws(() => spreadZones(40, 27), { code: 'ARGUMENT_INVALID' });
  });

  test('property: every zone is used and no two differ by more than one node, at birth and after growth', () => {
    const counts = fc.integer({ min: 1, max: 26 }).chain((zones) =>
      fc.record({
        zones: fc.constant(zones),
        nodes: fc.integer({ min: zones, max: 100 }),
        more: fc.integer({ min: 0, max: 100 }),
      }),
    );
    fc.assert(
      fc.property(counts, ({ zones, nodes, more }) => {
        const born = spreadZones(nodes, zones);
        for (const all of [born, [...born, ...joinZones(born, nodes + more, zones)]]) {
          const sizes = [...Map.groupBy(all, (zone) => zone).values()].map((group) => group.length);
          assert.equal(sizes.length, zones);
          assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, sizes.join());
        }
      }),
    );
  });
});

describe('cluster.json', () => {
  test('is read as it was written', () => {
    assert.deepEqual(parseClusterFile(JSON.stringify(example()), 'x'), example());
  });

  for (const name of Object.keys(defaultSettings))
    test(`of an older program, without ${name}, has the default of it`, () => {
      const settings = { beatMs: 500, graceMs: 5000, leaseMs: 1000, scrubMs: 2000 };
      const older = Object.entries(settings).filter(([key]) => key !== name);
      const text = JSON.stringify({ ...example(), settings: Object.fromEntries(older) });
      const expected = { ...defaultSettings, ...Object.fromEntries(older) };
      assert.deepEqual(parseClusterFile(text, 'x').settings, expected);
    });

  test('a setting of a newer program is left alone, one that is wrong is not', () => {
    const withSettings = (more: Record<string, unknown>): string =>
      JSON.stringify({ ...example(), settings: { ...defaultSettings, ...more } });
    assert.deepEqual(parseClusterFile(withSettings({ colour: 'blue' }), 'x').settings, defaultSettings);
    for (const beatMs of [null, '1000', 19, 0.5])
      assert.throws(() => parseClusterFile(withSettings({ beatMs }), 'x'), { code: 'DATA_DIR_DAMAGED' });
  });

  const wrong: readonly [string, (file: Record<string, unknown>) => unknown, string, RegExp][] = [
    ['another format', (file) => ({ ...file, format: 'tar' }), 'DATA_DIR_FOREIGN', /not the description/],
    ['a newer format', (file) => ({ ...file, version: 3 }), 'DATA_DIR_NEWER', /format 3.*up to 2/],
    ['no version', (file) => ({ ...file, version: undefined }), 'DATA_DIR_DAMAGED', /version/],
    ['a bad port', (file) => ({ ...file, doorPort: 70_000 }), 'DATA_DIR_DAMAGED', /doorPort is 70000/],
    ['a bad key', (file) => ({ ...file, operator: 'abc' }), 'DATA_DIR_DAMAGED', /operator/],
    ['no settings', (file) => ({ ...file, settings: null }), 'DATA_DIR_DAMAGED', /settings/],
    ['no processes', (file) => ({ ...file, processes: {} }), 'DATA_DIR_DAMAGED', /processes/],
    [
      'no steward',
      (file) => ({ ...file, processes: [entry('node-1', 1), entry('door', 2)] }),
      'DATA_DIR_DAMAGED',
      /steward is missing/,
    ],
    [
      'one port twice',
      (file) => ({ ...file, processes: [...example().processes, { ...entry('node-3', 9), port: 20_000 }] }),
      'DATA_DIR_DAMAGED',
      /port 20000 occurs twice/,
    ],
    [
      'a role that is not its own',
      (file) => ({ ...file, processes: [{ ...entry('node-1', 1), role: 'door' }] }),
      'DATA_DIR_DAMAGED',
      /must have the role node/,
    ],
  ];
  for (const [what, change, code, message] of wrong) {
    test(`${what} is ${code}`, () => {
      const text = JSON.stringify(change({ ...example() }));
      assert.throws(() => parseClusterFile(text, 'the-file'), { code, message });
    });
  }

  test('property: a file that was cut is never read as a cluster', () => {
    const text = JSON.stringify(example());
    fc.assert(
      fc.property(fc.integer({ min: 0, max: text.length - 1 }), (length) => {
        assert.throws(() => parseClusterFile(text.slice(0, length), 'x'), { code: 'DATA_DIR_DAMAGED' });
      }),
    );
  });
});

describe('a Beacon', () => {
  const parsed = (settings: Record<string, unknown>) =>
    parseClusterFile(
      JSON.stringify({ ...example(), settings: { ...defaultSettings, ...settings } }),
      'cluster.json',
    ).settings;

  test('says where the Beacon is kept', () => {
    const nats = { servers: ['nats://10.0.0.1:4222'] };
    const full = {
      engine: 'jetstream',
      stream: 'registry',
      servers: ['nats://10.0.0.2:4222', 'tls://[::1]:4222'],
      credentials: 'beacon.login',
      system: 'system.login',
      ca: 'ca.pem',
      replicas: 5,
      acceptNotDurable: true,
    } as const;
    assert.equal(parsed({}).beacon, undefined);
    assert.deepEqual(parsed({ beacon: full }).beacon, full);
    assert.deepEqual(parsed({ beacon: { engine: 'leveldb' } }).beacon, { engine: 'leveldb' });
    assert.deepEqual(parsed({ nats, beacon: { engine: 'jetstream' } }).beacon, {
      engine: 'jetstream',
      stream: 'holdfast',
    });
    for (const [beacon, problem] of [
      ['jetstream', /beacon must be an object/],
      [{ engine: 'etcd' }, /beacon\.engine is "etcd"/],
      [{ engine: 'jetstream' }, /neither beacon\.servers nor nats\.servers/],
      [{ ...full, servers: [] }, /beacon\.servers/],
      [{ ...full, stream: 'a.b' }, /beacon\.stream is "a\.b"/],
      [{ ...full, replicas: 2 }, /beacon\.replicas is 2/],
      [{ ...full, acceptNotDurable: 'yes' }, /beacon\.acceptNotDurable/],
      [{ ...full, password: 'x' }, /beacon has "password"/],
    ] as const)
      assert.throws(() => parsed({ beacon }), problem);
  });
});

describe('tempo over a network', () => {
  const parsed = (settings: Record<string, unknown>) =>
    parseClusterFile(
      JSON.stringify({ ...example(), settings: { ...defaultSettings, ...settings } }),
      'cluster.json',
    ).settings;

  test('absent is embedded; what is there comes back as it was', () => {
    assert.deepEqual(parsed({}), defaultSettings);
    const nats = {
      servers: ['nats://10.0.0.1:4222', 'tls://[::1]:4222', 'nats.example'],
      credentials: 'nats.creds',
      ca: '/etc/ca.pem',
      subjects: { beat: 'tempo.{cluster_id}.beat' },
    };
    assert.deepEqual(parsed({ nats, pulse: 'external' }), { ...defaultSettings, nats, pulse: 'external' });
  });

  test('a wrong one is named', () => {
    const bad: readonly (readonly [Record<string, unknown>, RegExp])[] = [
      [{ pulse: 'external' }, /nats is absent/],
      [{ pulse: 'mine' }, /pulse is "mine"/],
      [{ nats: [] }, /nats must be an object/],
      [{ nats: { servers: [] } }, /nats\.servers/],
      [{ nats: { servers: ['http://a b'] } }, /nats\.servers/],
      [{ nats: { servers: ['a'], credentials: 3 } }, /nats\.credentials/],
      [{ nats: { servers: ['a'], subjects: { beats: 'x' } } }, /nats\.subjects has "beats"/],
      [{ nats: { servers: ['a'], subjects: { beat: 'a.>' } } }, /nats\.subjects\.beat/],
    ];
    for (const [settings, message] of bad)
      assert.throws(() => parsed(settings), { code: 'DATA_DIR_DAMAGED', message });
  });
});
