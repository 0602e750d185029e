// rewrap: a newer record for a key that is filed already, checked at the door. The content, the manifest and their
// CIDs stay; what changes is who gives the key back.
//
// Taken are newer versions of branch keys and envelopes, signed by who wrote the one before or by the operator, and
// beside them what they need: the KEK record of a provider that is new here, and new branch keys that objects are
// about to move under. A branch key itself never changes: one that committed to another key would make everything
// under it unreadable, so that is refused here, whoever signed it.

import type { CID } from '../core/block.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { appendRecordsMax } from '../core/limits.ts';
import { type BranchKeyBody, type EnvelopeBody, type KekBody, parseKeyRecord } from '../envelope/records.ts';
import { openRecord, type SignedRecord } from '../manifest/record.ts';
import type { ReplicationPolicy } from '../manifest/manifest.ts';
import type { Copies } from './put.ts';
import type { KeyedRecord } from './register.ts';

/** The newest record of a key. */
export interface Newest<Body> {
  readonly version: number;
  readonly cid: CID;
  readonly body: Body;
}

export interface RewrapPorts {
  /** Ed25519 key of the operator, who may take the place of any writer. */
  readonly operator: Uint8Array;
  branchKey(bkId: Uint8Array): Promise<Newest<BranchKeyBody> | undefined>;
  envelope(objId: Uint8Array): Promise<Newest<EnvelopeBody> | undefined>;
  /** True when that version of a group's key is registered. */
  knowsKek(group: string, version: number): Promise<boolean>;
  /** Stores a record block on several nodes. */
  storeRecord(block: SignedRecord<unknown>['block'], policy: ReplicationPolicy): Promise<Copies>;
  /** Appends with compare-and-set of the chains; resolves once reads here see it. Throws VERSION_CONFLICT. */
  append(subject: string, records: readonly KeyedRecord[]): Promise<number>;
}

/** Key records get as many copies as there may be: without them content is noise. */
export const keyCopies: ReplicationPolicy = { min: 2, max: 5, zones: 3 };

/**
 * Files 1…16 records together and resolves with the revision at which reads here see them; 0 when nothing was new.
 *
 * @throws RECORD_INVALID, FORBIDDEN for another signer, VERSION_CONFLICT when somebody was first, QUORUM_UNAVAILABLE,
 *   BEACON_UNAVAILABLE
 */
export async function rewrapKeys(ports: RewrapPorts, blocks: readonly Uint8Array[]): Promise<number> {
  if (blocks.length < 1 || blocks.length > appendRecordsMax)
    throw invalid(`${blocks.length} records: 1 to ${appendRecordsMax} expected`);
  const taken: { readonly key: string; readonly record: ReturnType<typeof openRecord> }[] = [];
  for (const bytes of blocks) {
    const record = openRecord(bytes);
    const key = await checked(ports, record);
    if (key !== undefined) taken.push({ key, record });
  }
  const last = taken.at(-1);
  if (last === undefined) return 0;
  await Promise.all(taken.map(({ record }) => ports.storeRecord(record.block, keyCopies)));
  const keyed = taken.map(({ key, record }) => ({ key, bytes: record.block.bytes }));
  const revision = await ports.append(last.key, keyed);
  // The fold skips what lost a race that the append did not see.
  for (const { record } of taken) await seen(ports, record);
  return revision;
}

/** The key under which it is filed; undefined when it need not be. */
async function checked(ports: RewrapPorts, record: SignedRecord<unknown>): Promise<string | undefined> {
  const body = parseKeyRecord(record.body);
  if (body.kind === 'kek') return checkedKek(ports, body);
  if (body.kind === 'envelope') {
    const current = await ports.envelope(body.objId);
    if (current === undefined) throw invalid('an envelope of an object that is not registered');
    checkStep(ports, `envelope ${toHex(body.objId)}`, current, body, body.envVer);
    return `env/${toHex(body.objId)}`;
  }
  const key = `bk/${toHex(body.bkId)}`;
  const current = await ports.branchKey(body.bkId);
  if (current !== undefined) {
    checkStep(ports, `branch key ${toHex(body.bkId)}`, current, body, body.bkVer);
    if (!sameBytes(current.body.commit, body.commit))
      throw invalid(`branch key ${toHex(body.bkId)}: a newer record must commit to the same key`);
  } else if (body.bkVer !== 1 || body.prev !== null) {
    throw invalid(`branch key ${toHex(body.bkId)} is not registered, so its record must be the first`);
  }
  return key;
}

async function checkedKek(ports: RewrapPorts, { cg, ver, provider }: KekBody): Promise<string | undefined> {
  if (provider === 'tdec') throw invalid('the record of a custody group beside rewrapped keys');
  if (ver !== 1) throw invalid(`key ${cg}: version 1 expected`);
  return (await ports.knowsKek(cg, ver)) ? undefined : `kek/${cg}/${ver}`;
}

function checkStep(
  { operator }: RewrapPorts,
  what: string,
  current: Newest<BranchKeyBody | EnvelopeBody>,
  body: BranchKeyBody | EnvelopeBody,
  version: number,
): void {
  if (version !== current.version + 1 || body.prev?.equals(current.cid) !== true)
    throw new HoldfastError(
      'VERSION_CONFLICT',
      `${what} is at version ${current.version}; what was given does not follow it`,
      { details: { current: current.version } },
    );
  if (!sameBytes(body.writer, current.body.writer) && !sameBytes(body.writer, operator))
    throw new HoldfastError('FORBIDDEN', `${what}: only its writer or the operator may sign a newer record`);
}

async function seen(ports: RewrapPorts, record: SignedRecord<unknown>): Promise<void> {
  const body = parseKeyRecord(record.body);
  if (body.kind === 'kek') return;
  const current = await (body.kind === 'envelope' ? ports.envelope(body.objId) : ports.branchKey(body.bkId));
  if (current?.cid.equals(record.cid) === true) return;
  const id = toHex(body.kind === 'envelope' ? body.objId : body.bkId);
  throw new HoldfastError('VERSION_CONFLICT', `${body.kind} ${id} was changed by somebody else meanwhile`);
}

function invalid(message: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', message);
}
