// The configuration of a process that runs by itself, on a machine of its own: a JSON file that names its format and
// version, with paths relative to it.

import { dirname, resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { isMap } from '../core/shape.ts';
import { readIfThere } from '../files/whole.ts';

export interface ProcessFileKind {
  readonly format: string;
  readonly version: number;
  /** What runs by it, for people: `a custodian`. */
  readonly of: string;
}

/** Fields of such a file. Each throws ARGUMENT_INVALID naming the file, the field and what may stand there. */
export class ProcessFile {
  /** Where the file is. */
  readonly base: string;
  readonly #path: string;
  readonly #value: Readonly<Record<string, unknown>>;

  private constructor(path: string, value: Readonly<Record<string, unknown>>) {
    this.base = dirname(resolve(path));
    this.#path = path;
    this.#value = value;
  }

  /** Throws FILE_NOT_FOUND, FILE_UNREADABLE, DATA_DIR_NEWER for a newer format, ARGUMENT_INVALID for another one. */
  static async read(path: string, kind: ProcessFileKind): Promise<ProcessFile> {
    const text = await readIfThere(path);
    if (text === undefined)
      throw new HoldfastError('FILE_NOT_FOUND', `${path}: no configuration of ${kind.of} here`);
    return new ProcessFile(path, parse(text, path, kind));
  }

  text(name: string, pattern: RegExp): string {
    const found = this.#value[name];
    if (typeof found === 'string' && pattern.test(found)) return found;
    throw new HoldfastError('ARGUMENT_INVALID', `${this.#path}: ${name} must be text like ${pattern.source}`);
  }

  /** A name as clusters, members and zones have one. */
  name(field: string): string {
    return this.text(field, /^[a-z0-9][a-z0-9-]{0,62}$/);
  }

  /** An Ed25519 key. */
  key(field: string): Uint8Array {
    return new Uint8Array(Buffer.from(this.text(field, /^[0-9a-f]{64}$/), 'hex'));
  }

  host(field: string): string {
    return this.text(field, /^[A-Za-z0-9.:]{1,64}$/);
  }

  /** An absolute path. */
  path(field: string): string {
    return resolve(this.base, this.text(field, /^[^\0]{1,4096}$/));
  }

  /** `least`: 0 where any free port will do. */
  port(field: string, least: 0 | 1): number {
    const found = this.#value[field];
    if (typeof found === 'number' && Number.isSafeInteger(found) && found >= least && found <= 65_535)
      return found;
    const range = least === 0 ? '0 (any)' : '1';
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${this.#path}: ${field} must be a whole number from ${range} to 65535`,
    );
  }
}

function parse(
  text: string,
  path: string,
  { format, version, of }: ProcessFileKind,
): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new HoldfastError('ARGUMENT_INVALID', `${path} is not valid JSON`, { cause });
  }
  if (!isMap(value) || value['format'] !== format)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${path} is no configuration of ${of}: "format" must be "${format}"`,
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
