// The records of threshold groups over RPC, for those who keep no view of their own: custodians.
//
//   beacon.custody  {since: {revision, index}} → {head, done, records: [{key, revision, index, size}]} + bytes in a row
//
// What comes is to be judged by who asked: every record carries its own signatures, and a host that leaves some
// out is noticed by the gap in a chain, or by how long ago it last said that there is nothing new.

import { concat } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { recordBytesMax } from '../core/limits.ts';
import type { PeerName, RpcCallOptions, RpcClient, RpcServer } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import type { BeaconQueries, CustodyCursor, CustodyPage, CustodyRecord } from './queries.ts';

/** Where reading begins. */
export const custodyStart: CustodyCursor = { revision: 0, index: 0 };

/** Registers `beacon.custody`, answered out of `view`. For everybody that the transport lets in. */
export function serveCustody(server: RpcServer, view: Pick<BeaconQueries, 'custodyRecords'>): void {
  server.handle('beacon.custody', async ({ head }) => {
    const page = await view.custodyRecords(cursorOf(fieldOf(head, 'since'), 'ARGUMENT_INVALID'));
    const records = page.records.map(({ key, revision, index, bytes }) => ({
      key,
      revision,
      index,
      size: bytes.length,
    }));
    return {
      head: { head: page.head, done: page.done, records },
      body: concat(...page.records.map(({ bytes }) => bytes)),
    };
  });
}

/**
 * The next records behind `since`, of `peer`. Ask again with the cursor of the last one while `done` is false.
 * Throws RECORD_INVALID for an answer of another form, PEER_UNREACHABLE, TIMEOUT, BEACON_UNAVAILABLE.
 */
export async function readCustody(
  client: RpcClient,
  peer: PeerName,
  since: CustodyCursor,
  options: RpcCallOptions = {},
): Promise<CustodyPage> {
  const { revision, index } = since;
  const answer = await client.call(peer, 'beacon.custody', { head: { since: { revision, index } } }, options);
  return pageOf(answer.head, answer.body, since);
}

function pageOf(head: unknown, body: Uint8Array, since: CustodyCursor): CustodyPage {
  const revision = fieldOf(head, 'head');
  const done = fieldOf(head, 'done');
  const list = fieldOf(head, 'records');
  if (!isCount(revision) || typeof done !== 'boolean' || !Array.isArray(list)) throw malformed('its head');
  const records: CustodyRecord[] = [];
  let offset = 0;
  let before = since;
  for (const item of list as readonly unknown[]) {
    const cursor = cursorOf(item, 'RECORD_INVALID');
    const key = fieldOf(item, 'key');
    const size = fieldOf(item, 'size');
    if (typeof key !== 'string' || !isCount(size) || size === 0 || size > recordBytesMax)
      throw malformed('a record of it');
    if (!isBehind(cursor, before) || cursor.revision > revision) throw malformed('its order');
    if (offset + size > body.length) throw malformed('its length');
    records.push({ key, ...cursor, bytes: body.subarray(offset, offset + size) });
    offset += size;
    before = cursor;
  }
  if (offset !== body.length || (!done && records.length === 0)) throw malformed('its length');
  return { head: revision, records, done };
}

function cursorOf(value: unknown, code: 'ARGUMENT_INVALID' | 'RECORD_INVALID'): CustodyCursor {
  const revision = fieldOf(value, 'revision');
  const index = fieldOf(value, 'index');
  if (isCount(revision) && isCount(index)) return { revision, index };
  throw new HoldfastError(code, 'a place among custody’s records is {revision, index}');
}

function isBehind(a: CustodyCursor, b: CustodyCursor): boolean {
  return a.revision > b.revision || (a.revision === b.revision && a.index > b.index);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function malformed(part: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `the answer to beacon.custody has another form: ${part}`);
}
