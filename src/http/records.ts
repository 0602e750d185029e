// The signed records of one version: for opening it here, or as a CAR for who opens it himself.

import type { BeaconQueries, RegisteredVersion } from '../beacon/queries.ts';
import type { Block } from '../core/block.ts';
import type { ObjectRecords } from '../flows/get.ts';
import { carHeader, carSection } from '../manifest/car.ts';
import type { Reply } from './answer.ts';

export async function recordsReply(view: BeaconQueries, found: RegisteredVersion): Promise<Reply> {
  const records = await objectRecords(view, found);
  const parts: Uint8Array[] = [carHeader([found.record.cid]), ...carSection(found.record.block)];
  if (records.envelopeBlock !== undefined) parts.push(...carSection(records.envelopeBlock));
  if (records.branchKeyBlock !== undefined) parts.push(...carSection(records.branchKeyBlock));
  return {
    status: 200,
    headers: { 'content-type': 'application/vnd.ipld.car', etag: `"${found.record.cid.toString()}"` },
    bytes: Buffer.concat(parts),
  };
}

/** What opening needs. A tombstone, and an envelope that is not known here, leave only the manifest. */
export async function objectRecords(
  view: BeaconQueries,
  found: RegisteredVersion,
): Promise<ObjectRecords & { readonly envelopeBlock?: Block; readonly branchKeyBlock?: Block }> {
  const { encryption } = found.record.body;
  const manifest = found.record.block.bytes;
  if (encryption === null) return { manifest };
  const envelope = await view.envelope(encryption.objId);
  if (envelope === undefined) return { manifest };
  const { body, block } = envelope.record;
  if (body.mode === 'direct') return { manifest, envelope: block.bytes, envelopeBlock: block };
  const branchKey = await view.branchKey(body.bkId);
  if (branchKey === undefined) return { manifest };
  return {
    manifest,
    envelope: block.bytes,
    branchKey: branchKey.record.block.bytes,
    envelopeBlock: block,
    branchKeyBlock: branchKey.record.block,
  };
}
