// What a custodian does on a word from its own machine (host-commands.ts), and never over the network.
//
//   POST /export {passphraseFile} | {publicKey}  → {exports}     its shares, sealed, for the safe
//
// One at a time. A path is read by this process: no secret travels.

import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { type ExportPorts, exportShares } from '../custody/export-shares.ts';
import { readSecretFile } from '../custody/secret-file.ts';
import type { ShareRecipient } from '../custody/share-export.ts';
import type { LoopbackRoute } from '../local/loopback.ts';

export function custodianCommands(ports: ExportPorts): LoopbackRoute {
  let turn: Promise<unknown> = Promise.resolve();
  return (method, url, body) => {
    const done = turn.then(() => obey(ports, `${method} ${url}`, body));
    turn = done.catch(() => undefined); // its caller has the error
    return done;
  };
}

async function obey(ports: ExportPorts, command: string, body: unknown): Promise<[number, unknown]> {
  if (command !== 'POST /export')
    throw new HoldfastError('NOT_FOUND', `a custodian does not know ${command.slice(0, 200)}`);
  const to = await recipientOf(body);
  try {
    const exports = await exportShares(ports, to);
    return [200, { exports: exports.map((each) => Buffer.from(each).toString('base64')) }];
  } finally {
    if ('passphrase' in to) to.passphrase.fill(0);
  }
}

async function recipientOf(body: unknown): Promise<ShareRecipient> {
  const [path, key] = [fieldOf(body, 'passphraseFile'), fieldOf(body, 'publicKey')];
  if (typeof path === 'string' && key === undefined)
    return { passphrase: await readSecretFile(path, 'passphrase') };
  if (typeof key === 'string' && /^[0-9a-f]{64}$/.test(key) && path === undefined)
    return { publicKey: new Uint8Array(Buffer.from(key, 'hex')) };
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    'a passphrase file or the 64 hex digits of an X25519 key expected, and one of them only',
  );
}
