// The registry as the steward walks it: every version of every address, and which records have to be kept for it.

import type { CID } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import type { EnvelopeBody } from '../envelope/records.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import { prefixRange } from './kv.ts';
import { Lru } from './lru.ts';
import type { BeaconQueries, CatalogueEntry } from './queries.ts';
import { registeredVersion } from './registered.ts';
import { decodeHead, type Head, rowPrefix } from './rows.ts';
import type { ViewRows } from './view-rows.ts';

export interface CatalogueSource {
  readonly held: ViewRows;
  readonly queries: Pick<BeaconQueries, 'envelope'>;
}

/** Branch keys whose CIDs are remembered during one walk. */
export type BranchKeysSeen = Lru<readonly CID[]>;

export function noBranchKeysSeen(): BranchKeysSeen {
  return new Lru(branchKeysCached);
}

const branchKeysCached = 1024;

/** Every version of `address`, whose current one is `head`, with the records that it takes to read it. */
export async function* catalogueEntries(
  { held, queries }: CatalogueSource,
  address: string,
  head: Head,
  branchKeys: BranchKeysSeen,
): AsyncGenerator<CatalogueEntry> {
  for (let version = 1; version <= head.version; version++) {
    const isHead = version === head.version;
    const pointer = isHead ? head : await held.pointer(`addr/${address}`, version);
    if (pointer.cid === null) continue;
    await held.open([[`addr/${address}`, pointer]]);
    const bytes = isHead ? head.bytes : await held.bytesAt(pointer);
    const { record, retained } = registeredVersion(address, pointer, bytes, head.keptFrom);
    const { cid: manifestCid, body: manifest } = record;
    const keys = retained ? await keyCids({ held, queries }, manifest, branchKeys) : [];
    const { type } = manifest;
    yield {
      address,
      version,
      type,
      head: isHead,
      retained,
      manifestCid,
      manifest,
      records: [manifestCid, ...keys],
    };
  }
}

/** Every version of an object's envelope and of the branch key of its current one: a rebuild needs the chains. */
async function keyCids(
  { held, queries }: CatalogueSource,
  manifest: ManifestBody,
  branchKeys: BranchKeysSeen,
): Promise<readonly CID[]> {
  if (manifest.encryption === null) return [];
  const { objId } = manifest.encryption;
  const envelope = await queries.envelope(objId);
  if (envelope === undefined) return [];
  const keys = await branchKeyCids(held, envelope.record.body, branchKeys);
  const only = envelope.version === 1 ? [envelope.record.cid] : undefined;
  return [...(only ?? (await chainCids(held, `env/${toHex(objId)}`))), ...keys];
}

/** None where the object has a key of its own: that stands in the envelope. */
async function branchKeyCids(
  held: ViewRows,
  envelope: EnvelopeBody,
  branchKeys: BranchKeysSeen,
): Promise<readonly CID[]> {
  if (envelope.mode === 'direct') return [];
  const bkId = toHex(envelope.bkId);
  const keys = branchKeys.get(bkId) ?? (await chainCids(held, `bk/${bkId}`));
  branchKeys.set(bkId, keys);
  return keys;
}

async function chainCids(held: ViewRows, chainId: string): Promise<CID[]> {
  const cids: CID[] = [];
  for await (const [, value] of held.reader.range(prefixRange(rowPrefix('vers', chainId)))) {
    const { cid } = decodeHead(value);
    if (cid !== null) cids.push(cid);
  }
  return cids;
}
