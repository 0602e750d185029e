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

import { readIfThere } from '../files/whole.ts';
import { defaultSettings } from './cluster-file.ts';
import type { ProcessConfig } from './layout.ts';
import { ProcessFile } from './process-file.ts';

const kind = { format: 'holdfast-custodian', version: 1, of: 'a custodian' } as const;

/** All but the peer id, which the identity key tells. */
export type StandaloneConfig = Omit<ProcessConfig, 'peer'>;

/**
 * Reads the configuration at `path`. Throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_DIR_NEWER for a newer format,
 * ARGUMENT_INVALID naming the field that is wrong.
 */
export async function loadCustodianConfig(path: string): Promise<StandaloneConfig> {
  const file = await ProcessFile.read(path, kind);
  const identityPath = file.path('identity');
  const [host, port] = [file.host('host'), file.port('port', 1)];
  return {
    dir: file.base,
    cluster: file.name('cluster'),
    operator: file.key('operator'),
    name: file.name('name'),
    roles: ['custodian'],
    zone: file.name('zone'),
    dataDir: file.path('dataDir'),
    born: (await readIfThere(bornPath(identityPath))) !== undefined,
    joins: false,
    identityPath,
    membershipPath: file.path('membership'),
    host,
    listen: [`/ip${host.includes(':') ? 6 : 4}/${host}/tcp/${port}`],
    port,
    custodian: { passphrasePath: file.path('passphrase'), sealingKeyPath: file.path('sealingKey') },
    settings: defaultSettings,
  };
}

/** Says beside the identity that its custodian has stored something: an absent data directory is damage then. */
export function bornPath(identityPath: string): string {
  return `${identityPath}.born`;
}
