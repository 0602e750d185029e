// The configuration of a key agent: a JSON file, paths relative to it.
//
//   {
//     "format": "holdfast-key-agent", "version": 1,
//     "cluster": "local-0011223344556677", "operator": "64 hex digits: the key that signs the membership",
//     "name": "agent-a", "host": "127.0.0.1", "port": 7460,
//     "door": "http://127.0.0.1:7440", "token": "token",
//     "identity": "identity.key", "membership": "membership.json", "capability": "agent.cap", "dataDir": "data"
//   }
//
// No field holds a secret. `token` is the file with the bearer token of the door, `capability` what an authority has
// granted the agent: without a prefix, up to the classes that it serves.

import { ProcessFile } from './process-file.ts';

export interface AgentConfig {
  readonly name: string;
  readonly cluster: string;
  /** Ed25519 key that signs the membership. */
  readonly operator: Uint8Array;
  readonly host: string;
  readonly port: number;
  readonly door: string;
  readonly tokenPath: string;
  readonly identityPath: string;
  readonly membershipPath: string;
  readonly capabilityPath: string;
  readonly dataDir: string;
}

const kind = { format: 'holdfast-key-agent', version: 1, of: 'a key agent' } as const;

/** Throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_DIR_NEWER for a newer format, ARGUMENT_INVALID naming the field. */
export async function loadAgentConfig(path: string): Promise<AgentConfig> {
  const file = await ProcessFile.read(path, kind);
  return {
    name: file.name('name'),
    cluster: file.name('cluster'),
    operator: file.key('operator'),
    host: file.host('host'),
    port: file.port('port', 0),
    door: file.text('door', /^https?:\/\/[^\s]{1,1024}$/),
    tokenPath: file.path('token'),
    identityPath: file.path('identity'),
    membershipPath: file.path('membership'),
    capabilityPath: file.path('capability'),
    dataDir: file.path('dataDir'),
  };
}
