// A custodian takes its shares out for the safe: written down first, sealed here, so that nothing but the sealed form
// ever leaves. The share of the signing key goes along: with it a group can be put together again that also signs.

import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { PeerName } from '../core/rpc.ts';
import { entryOf } from './audit-leaf.ts';
import type { AuditLog } from './audit-log.ts';
import type { CustodyBooks } from './books.ts';
import type { BeatNow } from './freshness.ts';
import { whyOver } from './over.ts';
import { exportShare, type ShareRecipient } from './share-export.ts';
import type { ShareEntry } from './share-state.ts';
import type { ShareStore } from './share-store.ts';

export interface ExportPorts {
  readonly shares: ShareStore;
  readonly log: AuditLog;
  readonly books: CustodyBooks;
  readonly peer: PeerName;
  /** The custodian's identity. */
  readonly signer: Signer;
  readonly beat: () => BeatNow;
  /** Wall clock, milliseconds since 1970. */
  readonly now: () => number;
}

/**
 * The active shares of each version of each key, sealed to `to` and signed (share-export.ts). The secret of an export
 * is the share of the key, 32 bytes, and behind it that of the signing key.
 *
 * Shares that the registry says are over stay where they are until they are erased.
 *
 * @throws KEY_UNAVAILABLE when there are none, or the audit log takes no entry: then nothing leaves; RECORD_CORRUPT,
 * and what `exportShare` throws
 */
export async function exportShares(ports: ExportPorts, to: ShareRecipient): Promise<readonly Uint8Array[]> {
  const active = ports.shares
    .shares()
    .filter(({ key, status }) => key === 'kek' && status === 'active')
    .filter((entry) => whyOver(ports.books, ports.peer, entry) === undefined)
    .toSorted((a, b) => a.kekVer - b.kekVer);
  if (active.length === 0)
    throw new HoldfastError('KEY_UNAVAILABLE', 'this custodian holds no shares that are in use');
  for (const entry of active) await note(ports, entry, to);
  return Promise.all(active.map((entry) => exportOne(ports, entry, to)));
}

async function exportOne(
  { shares, signer, beat }: ExportPorts,
  { cg, kekVer, gen, index }: ShareEntry,
  to: ShareRecipient,
): Promise<Uint8Array> {
  const ref = { cg, kekVer, gen };
  const kek = await shares.openShare(ref, 'kek');
  const frost = await shares.openShare(ref, 'frost');
  const secret = concat(kek.secret, frost.secret);
  try {
    return await exportShare({ cg, kekVer, shareGen: gen, i: index, beat: beat().beat }, secret, to, signer);
  } finally {
    for (const bytes of [kek.secret, frost.secret, secret]) bytes.fill(0);
  }
}

async function note(
  { log, beat, now }: ExportPorts,
  { cg, kekVer, gen }: ShareEntry,
  to: ShareRecipient,
): Promise<void> {
  const about = { cg, kekVer, shareGen: gen, purpose: 'backup' };
  const reason = 'passphrase' in to ? 'sealed to a passphrase' : 'sealed to a key';
  try {
    await log.append(entryOf({ op: 'export', beat: beat().beat, at: now(), ...about, reason }));
  } catch (cause) {
    throw new HoldfastError('KEY_UNAVAILABLE', 'no share leaves that is not written down', { cause });
  }
}
