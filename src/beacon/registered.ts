// Records out of a view's rows, as the answers to questions carry them.

import { type Block, type CID, cidOf, codecDagCbor } from '../core/block.ts';
import type { ManifestBody } from '../manifest/manifest.ts';
import type { SignedRecord } from '../manifest/record.ts';
import type { Registered, RegisteredVersion } from './queries.ts';
import { type AnyBody, trustedBody } from './records.ts';
import { type Head, partNumber } from './rows.ts';
import { corrupt } from './seal.ts';

/** The version of `address` at `pointer`, whose record is `bytes`; content is kept from version `keptFrom` on. */
export function registeredVersion(
  address: string,
  pointer: Head,
  bytes: Uint8Array,
  keptFrom: number,
): RegisteredVersion {
  const { version, at } = pointer;
  return {
    ...registered<ManifestBody>(pointer, bytes, 'manifest'),
    address,
    at,
    retained: version >= keptFrom,
  };
}

/** The version of a chain of key records at a pointer, whose record is `bytes`. */
export function registered<Body extends AnyBody>(
  { version, revision, cid }: Head,
  bytes: Uint8Array,
  kind: Body['kind'],
): Registered<Body> {
  return {
    version,
    revision,
    record: new StoredRecord<Body>(cid ?? cidOf(bytes, codecDagCbor), bytes, kind),
  };
}

/** A record out of a verified row. Its body is decoded when somebody looks at it: many want only the CID. */
class StoredRecord<Body extends AnyBody> implements SignedRecord<Body> {
  readonly block: Block;
  readonly cid: CID;
  readonly #kind: Body['kind'];
  #body: Body | undefined;

  constructor(cid: CID, bytes: Uint8Array, kind: Body['kind']) {
    this.block = { cid, bytes };
    this.cid = cid;
    this.#kind = kind;
  }

  get body(): Body {
    this.#body ??= bodyOfKind<Body>(this.block.bytes, this.#kind);
    return this.#body;
  }
}

function bodyOfKind<Body extends AnyBody>(bytes: Uint8Array, kind: Body['kind']): Body {
  const body = trustedBody(bytes);
  if (isOfKind<Body>(body, kind)) return body;
  throw corrupt(`a ${kind} record`, `is a ${body.kind}`);
}

/** The kind decides the type. */
function isOfKind<Body extends AnyBody>(body: AnyBody, kind: Body['kind']): body is Body {
  return body.kind === kind;
}

/** What index keys end with: `address␀version`. */
export function addressAndVersion(text: string): { readonly address: string; readonly version: number } {
  const [address = '', version] = text.split('\0');
  return { address, version: partNumber(version) };
}
