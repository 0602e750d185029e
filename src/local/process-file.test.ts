import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { loadCustodianConfig } from './custodian-config.ts';
import { loadAgentConfig } from './key-agent-config.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-process-file-'));
});
after(() => rm(dir, { recursive: true }));

const common = {
  version: 1,
  cluster: 'local-1',
  operator: 'ab'.repeat(32),
  host: '127.0.0.1',
  port: 4010,
  identity: 'identity.key',
  membership: '/etc/membership.json',
  dataDir: 'data',
};
const custodian = {
  ...common,
  format: 'holdfast-custodian',
  name: 'custodian-6',
  zone: 'c',
  passphrase: 'secret/passphrase',
  sealingKey: 'sealing.key',
};
const agent = {
  ...common,
  format: 'holdfast-key-agent',
  name: 'agent-a',
  door: 'http://127.0.0.1:7440',
  token: 'token',
  capability: 'agent.cap',
};

async function written(value: unknown): Promise<string> {
  const path = join(dir, 'process.json');
  await writeFile(path, typeof value === 'string' ? value : JSON.stringify(value));
  return path;
}

test('what runs by itself is told where everything is, beside its file or anywhere', async () => {
  const one = await loadCustodianConfig(await written(custodian));
  assert.deepEqual(
    [one.name, one.zone, one.port, one.dataDir, one.membershipPath, one.custodian?.passphrasePath],
    ['custodian-6', 'c', 4010, join(dir, 'data'), '/etc/membership.json', join(dir, 'secret/passphrase')],
  );
  const other = await loadAgentConfig(await written({ ...agent, port: 0 }));
  assert.deepEqual(
    [other.name, other.port, other.tokenPath, Buffer.from(other.operator).toString('hex')],
    ['agent-a', 0, join(dir, 'token'), 'ab'.repeat(32)],
  );
});

test('what is wrong with the file is said by its name', async () => {
  const wrong: readonly [unknown, string, RegExp][] = [
    ['{', 'ARGUMENT_INVALID', /not valid JSON/],
    [agent, 'ARGUMENT_INVALID', /no configuration of a custodian: "format" must be "holdfast-custodian"/],
    [{ ...custodian, version: 2 }, 'DATA_DIR_NEWER', /has format 2; this program reads up to 1/],
    [{ ...custodian, version: 0 }, 'ARGUMENT_INVALID', /version 1 expected/],
    [{ ...custodian, port: 0 }, 'ARGUMENT_INVALID', /port must be a whole number from 1 to 65535/],
    [{ ...custodian, port: 65_536 }, 'ARGUMENT_INVALID', /port must be/],
    [{ ...custodian, zone: 'C' }, 'ARGUMENT_INVALID', /zone must be text like/],
    [{ ...custodian, operator: 'AB'.repeat(32) }, 'ARGUMENT_INVALID', /operator must be text like/],
    [{ ...custodian, sealingKey: '' }, 'ARGUMENT_INVALID', /sealingKey must be text like/],
  ];
  for (const [value, code, message] of wrong)
    await assert.rejects(loadCustodianConfig(await written(value)), { code, message });
  await assert.rejects(loadAgentConfig(await written({ ...agent, port: -1 })), { message: /0 \(any\) to/ });
  await assert.rejects(loadAgentConfig(join(dir, 'none')), { code: 'FILE_NOT_FOUND' });
});
