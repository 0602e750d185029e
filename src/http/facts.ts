// Facts of the registry as callers get them: JSON types made of records.

import type { RegisteredAnswer, VersionInfo } from '../api/types.ts';
import type { RegisteredVersion } from '../beacon/queries.ts';
import { CID } from '../core/block.ts';
import type { RegisteredObject } from '../flows/register.ts';
import { withVersion } from '../ucxl/address.ts';
import { readAddress } from './resolve.ts';

export function versionInfo(found: RegisteredVersion): VersionInfo {
  const { body, cid } = found.record;
  return {
    address: withVersion(readAddress(found.address), found.version),
    key: found.address,
    version: found.version,
    cid: cid.toString(),
    type: body.type,
    sizeBytes: body.size,
    media: body.media,
    cls: body.cls,
    tags: body.compliance_tags,
    generatedBy: body.generated_by,
    generatedAt: body.generated_at,
    root: body.cid?.toString() ?? null,
    revision: found.revision,
  };
}

export function registeredAnswer(done: RegisteredObject): RegisteredAnswer {
  return {
    address: withVersion(readAddress(done.address), done.version),
    version: done.version,
    cid: done.manifest.toString(),
    revision: done.revision,
    ...done.copies,
  };
}

/** Links as text, bytes as base64: what JSON can hold. */
export function plainJson(value: unknown): unknown {
  const link = CID.asCID(value);
  if (link !== null) return link.toString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (Array.isArray(value)) return value.map(plainJson);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, plainJson(each)]));
  return value;
}
