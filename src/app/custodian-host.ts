// What a custodian does on a word from its own machine (host-commands.ts), and never over the network.
//
//   POST /export {passphraseFile} | {publicKey}  → {exports}     its shares, sealed, for the safe
//   POST /reseal {to}                            → {from, now}   its store under another secret
//
// One at a time. A path is read by this process: no secret travels.

import { keyOfHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';
import { entryOf } from '../custody/audit-leaf.ts';
import { type ExportPorts, exportShares } from '../custody/export-shares.ts';
import type { Resealing } from '../custody/open-shares.ts';
import { sealingSources } from '../custody/sealing-key.ts';
import { readSecretFile } from '../custody/secret-file.ts';
import type { ShareRecipient } from '../custody/share-export.ts';
import type { LoopbackRoute } from '../local/loopback.ts';

export interface HostPorts extends ExportPorts {
  readonly resealing: Resealing;
}

export function custodianCommands(ports: HostPorts): LoopbackRoute {
  let turn: Promise<unknown> = Promise.resolve();
  return (method, url, body) => {
    const done = turn.then(() => obey(ports, `${method} ${url}`, body));
    turn = done.catch(() => undefined); // its caller has the error
    return done;
  };
}

async function obey(ports: HostPorts, command: string, body: unknown): Promise<[number, unknown]> {
  if (command === 'POST /export') return [200, await exported(ports, body)];
  if (command === 'POST /reseal') return [200, await resealed(ports, body)];
  throw new HoldfastError('NOT_FOUND', `a custodian does not know ${command.slice(0, 200)}`);
}

async function exported(ports: HostPorts, body: unknown): Promise<unknown> {
  const to = await recipientOf(body);
  try {
    const exports = await exportShares(ports, to);
    return { exports: exports.map((each) => Buffer.from(each).toString('base64')) };
  } finally {
    if ('passphrase' in to) to.passphrase.fill(0);
  }
}

async function resealed({ resealing, log, beat, now }: HostPorts, body: unknown): Promise<unknown> {
  const to = sealingSources.find((each) => each === fieldOf(body, 'to'));
  if (to === undefined)
    throw new HoldfastError('ARGUMENT_INVALID', `one of ${sealingSources.join(', ')} expected`);
  const reason = `from ${resealing.sealing.source} to ${to}`;
  await log.append(entryOf({ op: 'reseal', beat: beat().beat, at: now(), reason }));
  return resealing.to(to);
}

async function recipientOf(body: unknown): Promise<ShareRecipient> {
  const [path, key] = [fieldOf(body, 'passphraseFile'), fieldOf(body, 'publicKey')];
  if (typeof path === 'string' && key === undefined)
    return { passphrase: await readSecretFile(path, 'passphrase') };
  const publicKey = keyOfHex(key);
  if (publicKey !== undefined && path === undefined) return { publicKey };
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    'a passphrase file or the 64 hex digits of an X25519 key expected, and one of them only',
  );
}
