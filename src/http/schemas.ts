// What the `data` of an envelope holds, as JSON Schema 2020-12 for the OpenAPI document.
//
// Only what a caller may rely on is required; more may come. Written against src/api/types.ts; the test of the
// door on a real cluster holds every answer against it.

type Schema = Readonly<Record<string, unknown>>;

const text: Schema = { type: 'string' };
const base64: Schema = { type: 'string', contentEncoding: 'base64' };
const count: Schema = { type: 'integer', minimum: 0 };
const nullable = (schema: Schema): Schema => ({ anyOf: [schema, { type: 'null' }] });
const list = (items: Schema): Schema => ({ type: 'array', items });

/** An object with these fields, all of them required but those whose name ends in `?`. */
function fields(shape: Readonly<Record<string, Schema>>): Schema {
  const entries = Object.entries(shape).map(([name, schema]) => [name.replace('?', ''), schema] as const);
  const required = Object.keys(shape).filter((name) => !name.endsWith('?'));
  return { type: 'object', required, properties: Object.fromEntries(entries) };
}

const address: Schema = { type: 'string', pattern: '^ucxl://' };
const state: Schema = { enum: ['ok', 'degraded', 'failed'] };
const versionType: Schema = { enum: ['object', 'tree', 'tombstone'] };
const revision: Schema = { type: 'integer', minimum: 1 };

const version = fields({
  address,
  key: address,
  version: revision,
  cid: text,
  type: versionType,
  sizeBytes: count,
  media: text,
  cls: text,
  tags: list(text),
  generatedBy: text,
  generatedAt: { type: 'string', format: 'date-time' },
  root: nullable(text),
  revision,
});

const registered = { address, version: revision, cid: text, revision };

const door = fields({
  sealing: { type: 'boolean' },
  sealingText: text,
  peersConnected: count,
  beacon: fields({
    state: text,
    reason: text,
    refused: nullable(text),
    revision: count,
    addresses: count,
    versions: count,
    sizeBytes: count,
  }),
});

const custodyStatus = fields({
  group: text,
  serves: text,
  servesText: text,
  problem: nullable(text),
  key: nullable(fields({ version: revision, t: count, n: count, shareGen: count, createdAt: text })),
  versions: list(
    fields({
      version: revision,
      state: text,
      shareGen: count,
      createdAt: text,
      holders: nullable(count),
      margin: nullable({ type: 'integer' }),
    }),
  ),
  custodians: list(fields({ name: text, peer: text, state: text, text, holds: list(revision) })),
  alive: count,
  margin: nullable({ type: 'integer' }),
  next: nullable(text),
  trouble: nullable(text),
  canary: nullable(fields({ ok: { type: 'boolean' }, text, beat: count })),
  inPlaceOf: nullable(fields({ group: text, reason: text, beat: count })),
  unerased: list(fields({ custodian: text, version: revision, text })),
  misconduct: list(text),
  warnings: list(text),
  beat: count,
});

export const schemas = {
  query: fields({ items: list(version), 'next?': text }),
  navigate: fields({
    key: address,
    newest: count,
    newestCid: nullable(text),
    tombstone: { type: 'boolean' },
    selected: nullable(version),
    previous: nullable(address),
    following: nullable(address),
  }),
  history: fields({
    key: address,
    items: list(
      fields({
        version: revision,
        type: { enum: ['object', 'tree', 'tombstone', 'missing'] },
        cid: nullable(text),
        at: { type: 'string', format: 'date-time' },
        revision,
      }),
    ),
    'next?': text,
  }),
  stat: fields({
    version,
    newest: revision,
    manifest: { type: 'object' },
    replicas: {},
    'replicasError?': text,
  }),
  put: fields({ ...registered, sizeBytes: count, copies: count, wanted: count, short: { type: 'boolean' } }),
  registered: fields({ ...registered, 'copies?': count, 'wanted?': count }),
  stored: fields({ blocks: count, copies: count, wanted: count }),
  announced: fields({ providers: count }),
  discovered: fields({ providers: list(fields({ peer: text, addrs: list(text) })) }),
  beat: fields({ index: count, state: text, kekPolicy: text }),
  status: fields({
    cluster: text,
    at: count,
    door,
    steward: nullable({ type: 'object' }),
    'custody?': custodyStatus,
    'stewardError?': text,
  }),
  health: fields({ status: state }),
  checks: fields({ status: state, checks: list(fields({ name: text, status: state, text })) }),
  custodyRecords: fields({
    cluster: text,
    group: text,
    head: count,
    done: { type: 'boolean' },
    records: list(fields({ key: text, revision: count, index: count, bytes: base64 })),
    membership: text,
  }),
  custodyStatus,
  custodyLog: fields({
    custodian: text,
    peer: text,
    note: text,
    cosigned: nullable(text),
    leaves: list(base64),
  }),
  custodyFiled: fields({ revision }),
  wrappedKeys: fields({ records: list(base64), 'next?': text, opens: nullable(list(text)) }),
  keyObjects: fields({ items: list(fields({ envelope: base64, manifest: base64 })), 'next?': text }),
  filedKeys: fields({ revision: count }),
  imported: fields({ entries: count, revision: count }),
  accepted: fields({ log: text }),
} as const;
