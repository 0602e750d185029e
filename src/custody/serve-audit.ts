// The audit log of a custodian over RPC: its checkpoints, entries and proofs, and vouching for those of others.
//
//   custody.checkpoint {}                      → {note, cosigned}
//   custody.leaves {from, count}               → {size, sizes} + the entries in a row
//   custody.proof {seq, size} | {older, size}  → {proof}
//   custody.witness {note, older, proof}       → {line}

import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import type { PeerName, RpcServer } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { merkleHashBytes } from '../threshold/merkle.ts';
import type { AuditLog } from './audit-log.ts';
import { type NoteKey, noteBytesMax } from './checkpoint.ts';
import type { Witness } from './witness.ts';

export interface AuditServicePorts {
  readonly log: AuditLog;
  readonly witness: Witness;
  /** The newest checkpoint that others have cosigned; undefined before there is one. */
  readonly cosigned: () => string | undefined;
  /** Throws FORBIDDEN for a peer that may not read the log. */
  readonly allowReader: (peer: PeerName) => void;
  /** The log that `peer` keeps. Throws FORBIDDEN when it is no custodian. */
  readonly logOf: (peer: PeerName) => NoteKey;
}

/** Entries in one answer: with their largest size they fit into one RPC body. */
const leavesMax = 64;
const proofHashesMax = 64;

/** Registers the methods of the audit log. */
export function serveAudit(server: RpcServer, ports: AuditServicePorts): void {
  const { log, witness } = ports;
  server.handle('custody.checkpoint', async (_, { peer }) => {
    ports.allowReader(peer);
    return { head: { note: log.checkpoint, cosigned: ports.cosigned() ?? null } };
  });
  server.handle('custody.leaves', async ({ head }, { peer }) => {
    ports.allowReader(peer);
    const leaves = await log.leaves(countOf(head, 'from'), Math.min(leavesMax, countOf(head, 'count')));
    return { head: { size: log.size, sizes: leaves.map(({ length }) => length) }, body: concat(...leaves) };
  });
  server.handle('custody.proof', async ({ head }, { peer }) => {
    ports.allowReader(peer);
    const size = countOf(head, 'size');
    const proof =
      fieldOf(head, 'seq') === undefined
        ? await log.consistencyProof(countOf(head, 'older'), size)
        : await log.inclusionProof(countOf(head, 'seq'), size);
    return { head: { proof } };
  });
  server.handle('custody.witness', async ({ head }, { peer }) => {
    const line = await witness.cosign(
      ports.logOf(peer),
      noteOf(head),
      countOf(head, 'older'),
      hashesOf(fieldOf(head, 'proof')),
    );
    return { head: { line } };
  });
}

function countOf(head: unknown, field: string): number {
  const value = fieldOf(head, field);
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw new HoldfastError('ARGUMENT_INVALID', `${field}: a whole number expected`);
}

function noteOf(head: unknown): string {
  const note = fieldOf(head, 'note');
  if (typeof note === 'string' && note.length <= noteBytesMax) return note;
  throw new HoldfastError('ARGUMENT_INVALID', 'note: a signed note expected');
}

function hashesOf(value: unknown): Uint8Array[] {
  if (Array.isArray(value) && value.length <= proofHashesMax) {
    const hashes = value.filter(
      (each): each is Uint8Array => each instanceof Uint8Array && each.length === merkleHashBytes,
    );
    if (hashes.length === value.length) return hashes;
  }
  throw new HoldfastError('ARGUMENT_INVALID', 'proof: a list of hashes expected');
}
