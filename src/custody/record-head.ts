// What the bodies of custody's records begin with.

import type { CID } from '../core/block.ts';
import type { Fields } from '../envelope/fields.ts';

export type CustodyKind = 'policy' | 'revocation' | 'certificate';

/** Reads kind, version, writer and predecessor. */
export function readCustodyHead<Kind extends CustodyKind>(
  fields: Fields,
  kind: Kind,
): { readonly kind: Kind; readonly v: 1; readonly writer: Uint8Array; readonly prev: CID | null } {
  return {
    kind: fields.oneOf('kind', [kind]),
    v: fields.oneOf('v', [1]),
    writer: fields.bytes('writer', 32),
    prev: fields.cidOrNull('prev'),
  };
}
