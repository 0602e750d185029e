// What the steps of ceremonies carry: read where it comes in, on either side.

import { custodiansMax } from '../core/limits.ts';
import { type Fields, fieldsOf } from '../envelope/fields.ts';

/** A participant of each kind sends at most one message a step: the present members and those who join. */
const messagesMax = 2 * custodiansMax;

/** `{[field]: [bytes…]}`, messages of at most `sizeBytesMax` each. */
export function readMessages(payload: unknown, field: string, sizeBytesMax: number): readonly Uint8Array[] {
  return readByteList(fieldsOf(payload, 'step', [field]), field, sizeBytesMax);
}

/** A list of byte strings in one field. */
export function readByteList(fields: Fields, field: string, sizeBytesMax: number): readonly Uint8Array[] {
  return fields.list(field, messagesMax).map((value, at) => {
    if (value instanceof Uint8Array && value.length <= sizeBytesMax) return value;
    return fields.refuse(`${field}[${at}]`, `at most ${sizeBytesMax} bytes expected`);
  });
}

/** `{i, sig}` by rising index. */
export function readAttestations(
  fields: Fields,
  field: string,
): readonly { readonly i: number; readonly sig: Uint8Array }[] {
  const list = fields.list(field, custodiansMax).map((value, at) => {
    const row = fieldsOf(value, `${field}[${at}]`, ['i', 'sig']);
    return { i: row.integer('i', 1, custodiansMax), sig: row.bytes('sig', 64) };
  });
  if (list.some(({ i }, at) => i <= (list[at - 1]?.i ?? 0))) fields.refuse(field, 'rising indices expected');
  return list;
}
