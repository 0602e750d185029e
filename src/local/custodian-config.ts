// The configuration of a custodian that runs by itself, on a machine of its own: a JSON file, paths relative to it.
//
//   {
//     "format": "holdfast-custodian", "version": 1,
//     "cluster": "local-0011223344556677", "operator": "64 hex digits: the key that signs the membership",
//     "name": "custodian-6", "zone": "c", "host": "0.0.0.0", "port": 4010,
//     "dataDir": "data", "identity": "identity.key", "membership": "membership.json",
//     "passphrase": "/run/secrets/custodian", "sealingKey": "sealing.key"
//   }
//
// No field holds a secret: `passphrase` and `sealingKey` say where one is. The first is used when the file is there;
// a credential `holdfast-sealing` of the service manager comes before both. The sealing key is made when neither is.

import { dirname, resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import { readIfThere } from '../files/whole.ts';
import { defaultSettings } from './cluster-file.ts';
import type { ProcessConfig } from './layout.ts';

const format = 'holdfast-custodian';
const version = 1;

/** All but the peer id, which the identity key tells. */
export type StandaloneConfig = Omit<ProcessConfig, 'peer'>;

/**
 * Reads the configuration at `path`. Throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_DIR_NEWER for a newer format,
 * ARGUMENT_INVALID naming the field that is wrong.
 */
export async function loadCustodianConfig(path: string): Promise<StandaloneConfig> {
  const text = await readIfThere(path);
  if (text === undefined)
    throw new HoldfastError('FILE_NOT_FOUND', `${path}: no configuration of a custodian here`);
  const base = dirname(resolve(path));
  const field = fieldsOf(parse(text, path), path);
  const at = (name: string): string => resolve(base, field.text(name, /^[^\0]{1,4096}$/));
  const identityPath = at('identity');
  const port = field.port('port');
  const host = field.text('host', /^[A-Za-z0-9.:]{1,64}$/);
  return {
    dir: base,
    cluster: field.text('cluster', /^[a-z0-9][a-z0-9-]{0,62}$/),
    operator: new Uint8Array(Buffer.from(field.text('operator', /^[0-9a-f]{64}$/), 'hex')),
    name: field.text('name', /^[a-z0-9][a-z0-9-]{0,62}$/),
    roles: ['custodian'],
    zone: field.text('zone', /^[a-z0-9][a-z0-9-]{0,62}$/),
    dataDir: at('dataDir'),
    born: (await readIfThere(bornPath(identityPath))) !== undefined,
    joins: false,
    identityPath,
    membershipPath: at('membership'),
    host,
    listen: [`/ip${host.includes(':') ? 6 : 4}/${host}/tcp/${port}`],
    port,
    custodian: { passphrasePath: at('passphrase'), sealingKeyPath: at('sealingKey') },
    settings: defaultSettings,
  };
}

/** Says beside the identity that its custodian has stored something: an absent data directory is damage then. */
export function bornPath(identityPath: string): string {
  return `${identityPath}.born`;
}

function parse(text: string, path: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `${path} is not valid JSON`, { cause });
  }
  if (!isMap(value) || value['format'] !== format)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${path} is no configuration of a custodian: "format" must be "${format}"`,
    );
  const found = value['version'];
  if (typeof found === 'number' && found > version)
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${path} has format ${found}; this program reads up to ${version}`,
    );
  if (found !== version) throw new HoldfastError('ARGUMENT_INVALID', `${path}: version ${version} expected`);
  return value;
}

function fieldsOf(value: Readonly<Record<string, unknown>>, path: string) {
  return {
    text(name: string, pattern: RegExp): string {
      const found = value[name];
      if (typeof found === 'string' && pattern.test(found)) return found;
      throw new HoldfastError('ARGUMENT_INVALID', `${path}: ${name} must be text like ${pattern.source}`);
    },
    port(name: string): number {
      const found = value[name];
      if (typeof found === 'number' && Number.isSafeInteger(found) && found >= 1 && found <= 65_535)
        return found;
      throw new HoldfastError('ARGUMENT_INVALID', `${path}: ${name} must be a whole number from 1 to 65535`);
    },
  };
}
