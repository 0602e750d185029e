// How a process says who it is to a NATS server: a file with either the credentials that NATS tools write, or one line
// `user:password`.

import { readFileSync } from 'node:fs';
import { fromUtf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';

export type NatsLogin =
  | { readonly user: string; readonly password: string }
  /** A JWT and the key that answers the server's question: the whole file. */
  | { readonly credentials: Uint8Array };

/**
 * Reads the file anew, for every connection that is made: credentials are replaced now and then.
 * Throws FILE_UNREADABLE, and ARGUMENT_INVALID for a file that holds neither.
 */
export function readNatsLogin(path: string): NatsLogin {
  const bytes = bytesOf(path);
  const text = fromUtf8(bytes);
  if (text.includes('BEGIN NATS USER JWT')) return { credentials: bytes };
  const [, user, password] = /^([^:\s]+):(\S+)\s*$/.exec(text) ?? [];
  if (user === undefined || password === undefined)
    throw new HoldfastError('ARGUMENT_INVALID', `${path} holds neither NATS credentials nor user:password`);
  return { user, password };
}

function bytesOf(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `cannot read ${path}`, { cause });
  }
}
