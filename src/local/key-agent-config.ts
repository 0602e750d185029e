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

import { dirname, resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import { readIfThere } from '../files/whole.ts';

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

const format = 'holdfast-key-agent';
const version = 1;
const path = /^[^\0]{1,4096}$/;

/** Throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_DIR_NEWER for a newer format, ARGUMENT_INVALID naming the field. */
export async function loadAgentConfig(file: string): Promise<AgentConfig> {
  const text = await readIfThere(file);
  if (text === undefined)
    throw new HoldfastError('FILE_NOT_FOUND', `${file}: no configuration of a key agent here`);
  const value = parse(text, file);
  const field = (name: string, pattern: RegExp): string => {
    const found = value[name];
    if (typeof found === 'string' && pattern.test(found)) return found;
    throw new HoldfastError('ARGUMENT_INVALID', `${file}: ${name} must be text like ${pattern.source}`);
  };
  const base = dirname(resolve(file));
  const at = (name: string): string => resolve(base, field(name, path));
  const { port } = value;
  if (typeof port !== 'number' || !Number.isSafeInteger(port) || port < 0 || port > 65_535)
    throw new HoldfastError('ARGUMENT_INVALID', `${file}: port must be a whole number from 0 (any) to 65535`);
  return {
    name: field('name', /^[a-z0-9][a-z0-9-]{0,62}$/),
    cluster: field('cluster', /^[a-z0-9][a-z0-9-]{0,62}$/),
    operator: new Uint8Array(Buffer.from(field('operator', /^[0-9a-f]{64}$/), 'hex')),
    host: field('host', /^[A-Za-z0-9.:]{1,64}$/),
    port,
    door: field('door', /^https?:\/\/[^\s]{1,1024}$/),
    tokenPath: at('token'),
    identityPath: at('identity'),
    membershipPath: at('membership'),
    capabilityPath: at('capability'),
    dataDir: at('dataDir'),
  };
}

function parse(text: string, file: string): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `${file} is not valid JSON`, { cause });
  }
  if (!isMap(value) || value['format'] !== format)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${file} is no configuration of a key agent: "format" must be "${format}"`,
    );
  const found = value['version'];
  if (typeof found === 'number' && found > version)
    throw new HoldfastError(
      'DATA_DIR_NEWER',
      `${file} has format ${found}; this program reads up to ${version}`,
    );
  if (found !== version) throw new HoldfastError('ARGUMENT_INVALID', `${file}: version ${version} expected`);
  return value;
}
