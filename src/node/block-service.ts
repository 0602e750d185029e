// What a storage node does for other members: the `block.*` and `node.*` methods.
//
// Every caller is a member, proven by its key; what it may do depends on its role. Nodes obey stewards
// (delete, pull, beat), take content from doors and stewards, and show any member what they have. All
// input is bounded before it costs anything.

import { type Block, type CID, codecDagCbor } from '../core/block.ts';
import { concat } from '../core/bytes.ts';
import { Gate } from '../core/concurrency.ts';
import { readEpoch } from '../core/epoch.ts';
import { asHoldfastError, describeError, HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { challengeBlocksMax, recordBytesMax } from '../core/limits.ts';
import type { PeerName, RpcContext, RpcHandler, RpcMessage, RpcServer } from '../core/rpc.ts';
import { isRecordBytes } from '../manifest/record.ts';
import { cidField, cidList, field, journalField, limitField, nonceField, peerList } from './block-request.ts';
import type { BlockStore } from './block-ports.ts';
import type { StewardEpochs } from './epochs.ts';
import type { Exchange } from './exchange.ts';
import { hasRole, type Membership, memberOf } from './membership.ts';
import type { Providers } from './providers.ts';
import { batchBlocksMax, pushTogetherBytesMax } from './push-batch.ts';
import type { Scrubber } from './scrub.ts';

export interface BlockServicePorts {
  readonly self: PeerName;
  readonly rpc: RpcServer;
  membership(): Membership;
  readonly store: BlockStore;
  readonly exchange: Exchange;
  readonly providers: Providers;
  readonly scrubber: Scrubber;
  readonly epochs: StewardEpochs;
  /** A steward brought a beat. */
  onBeat(beat: unknown): void;
}

/** CIDs in one request or list. */
const cidsMax = 1024;
const listMax = 4096;
/** Changes in one beat's answer: about 67 bytes each, below the bound of an RPC head. */
const changesMax = 3000;
/** Blocks read or written at once for others: memory stays below this times the largest block. */
const blocksAtOnce = 16;

type Message = Required<RpcMessage>;

/** Registers the methods. Each is named in the plan of the node room and documented in the reference. */
export function serveBlocks(ports: BlockServicePorts): void {
  const gate = new Gate(blocksAtOnce);
  const allow =
    (...roles: readonly ('steward' | 'door')[]) =>
    (context: RpcContext, method: string) =>
      requireRole(ports.membership(), context.peer, roles, method);
  const stewards = allow('steward');
  const writers = allow('steward', 'door');
  const anybody = allow();
  const on = (
    method: string,
    check: (context: RpcContext, method: string) => void,
    answer: (ports: BlockServicePorts, message: Message, context: RpcContext) => Promise<RpcMessage>,
  ) => {
    const handler: RpcHandler = async (message, context) => {
      check(context, method);
      return answer(ports, message, context);
    };
    ports.rpc.handle(method, handler, { borrows: true }); // what is stored is on disk when it is answered
  };

  on('block.put', writers, (ports, message) => gate.run(() => putBlock(ports, message)));
  on('block.putMany', writers, (ports, message) => gate.run(() => putBlocks(ports, message)));
  on('block.get', anybody, (ports, message) => gate.run(() => getBlock(ports, message)));
  on('block.has', anybody, hasBlocks);
  on('block.list', anybody, listBlocks);
  on('block.announce', writers, announceBlocks);
  on('block.delete', stewards, deleteBlocks);
  on('block.pull', stewards, pullBlock);
  on('node.beat', stewards, beat);
  on('node.epoch', stewards, epoch);
  on('node.challenge', anybody, (ports, message) => gate.run(() => challenge(ports, message)));
  on('node.challenges', stewards, (ports, message) => gate.run(() => challenges(ports, message)));
  ports.rpc.handleStream('block.records', (_message, context) => {
    writers(context, 'block.records');
    return records(ports, context.signal);
  });
}

async function putBlock({ store, providers }: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const cid = cidField(message.head, 'cid');
  const result = await store.put(cid, message.body);
  providers.soon(cid);
  return { head: { result } };
}

/** Small blocks, one after the other in the body. Each is stored, or refused, by itself; they share a flush. */
async function putBlocks({ store, providers }: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const blocks = blockSlices(message);
  const outcomes = await Promise.allSettled(blocks.map(({ cid, bytes }) => store.put(cid, bytes)));
  const results = outcomes.map((outcome, index) => {
    const cid = blocks[index]?.cid;
    if (outcome.status === 'fulfilled') {
      if (cid !== undefined) providers.soon(cid);
      return outcome.value;
    }
    const error = asHoldfastError(outcome.reason, 'INTERNAL', 'the block could not be stored');
    return { code: error.code, message: describeError(error) };
  });
  return { head: { results } };
}

function blockSlices({ head, body }: Message): Block[] {
  const listed = field(head, 'blocks');
  if (!Array.isArray(listed) || listed.length === 0 || listed.length > batchBlocksMax)
    throw new HoldfastError('ARGUMENT_INVALID', `blocks: a list of 1 to ${batchBlocksMax} expected`);
  let offset = 0;
  const blocks = listed.map((each: unknown) => {
    const size = limitField(each, 'size', pushTogetherBytesMax);
    offset += size;
    return { cid: cidField(each, 'cid'), bytes: body.subarray(offset - size, offset) };
  });
  if (offset !== body.length)
    throw new HoldfastError('ARGUMENT_INVALID', `blocks: ${offset} bytes listed, ${body.length} sent`);
  return blocks;
}

async function getBlock({ store, providers }: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const cid = cidField(message.head, 'cid');
  const known = await store.has(cid);
  const bytes = known ? await store.get(cid) : undefined;
  if (bytes !== undefined) return { head: { found: true }, body: bytes };
  if (!known) return { head: { found: false } };
  await providers.remove([cid]); // it was there and is damaged: the store has put it aside
  return { head: { found: false, corrupt: true } };
}

async function hasBlocks({ store }: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const have: boolean[] = [];
  for (const cid of cidList(message.head, 'cids', cidsMax)) have.push(await store.has(cid));
  return { head: { have } };
}

/** Sees to it that what is held of these is on record and announced; how many that are. */
async function announceBlocks(
  { store, providers }: BlockServicePorts,
  message: Message,
): Promise<RpcMessage> {
  const held: CID[] = [];
  for (const cid of cidList(message.head, 'cids', cidsMax)) if (await store.has(cid)) held.push(cid);
  await providers.add(held);
  return { head: { announced: held.length } };
}

async function listBlocks({ store }: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const after = field(message.head, 'after') === null ? undefined : cidField(message.head, 'after');
  const limit = limitField(message.head, 'limit', listMax);
  const blocks = await store.listSizes(after, limit);
  const cids = blocks.map(({ cid, sizeBytes }) => ({ cid, size: sizeBytes }));
  return { head: { cids, done: blocks.length < limit } };
}

async function deleteBlocks(
  { store, providers, epochs }: BlockServicePorts,
  message: Message,
  { peer }: RpcContext,
): Promise<RpcMessage> {
  const cids = cidList(message.head, 'cids', cidsMax);
  await epochs.obey(
    peer,
    readEpoch(field(message.head, 'epoch')),
    cids.map((cid) => cid.multihash.digest),
  );
  const deleted: CID[] = [];
  try {
    for (const cid of cids) if (await store.delete(cid)) deleted.push(cid);
  } finally {
    await providers.remove(deleted);
  }
  return { head: { deleted: deleted.length } };
}

async function pullBlock(
  ports: BlockServicePorts,
  message: Message,
  context: RpcContext,
): Promise<RpcMessage> {
  const { store, exchange, providers } = ports;
  const cid = cidField(message.head, 'cid');
  await ports.epochs.obey(context.peer, readEpoch(field(message.head, 'epoch')), [cid.multihash.digest]);
  const membership = ports.membership();
  const sources = peerList(message.head, 'from').filter(
    (peer) => peer !== ports.self && memberOf(membership, peer),
  );
  if (await store.has(cid)) return { head: { result: 'present' } };
  try {
    const block = await exchange.fetchBlock(cid, sources, { signal: context.signal });
    if (block === undefined) return failed(`none of ${sources.length} sources gave the block`);
    const result = await store.put(cid, block.bytes);
    providers.soon(cid);
    return { head: { result } };
  } catch (error) {
    return failed(describeError(error));
  }
}

function failed(reason: string): RpcMessage {
  return { head: { result: 'failed', reason: reason.slice(0, 512) } };
}

async function beat(ports: BlockServicePorts, message: Message): Promise<RpcMessage> {
  ports.onBeat(field(message.head, 'beat'));
  const { store, providers, scrubber } = ports;
  const asked = journalField(message.head, 'journal');
  const { own, due } = await providers.status();
  // From here on without a pause: changes and digest must describe the same moment.
  const { epoch, seq } = store.changes;
  const since = asked.epoch === epoch ? store.changes.since(asked.seq, changesMax) : 'reset';
  const reset = since === 'reset';
  const changes = reset
    ? []
    : since.changes.map(({ seq, cid, op, sizeBytes }) => ({ seq, cid, op, size: sizeBytes }));
  const told = changes.at(-1)?.seq ?? (reset ? seq : asked.seq);
  return {
    head: {
      epoch,
      seq: told,
      reset,
      changes: changes.map(({ cid, op, size }) => ({ cid, op, size })),
      more: told < seq,
      usage: plain(store.usage()),
      digest: plain(store.digest()),
      scrub: plain(scrubber.status()),
      providers: { own, due },
    },
  };
}

/** Who looks after what: a steward proposes an epoch, or only asks. */
async function epoch(
  { epochs }: BlockServicePorts,
  message: Message,
  { peer }: RpcContext,
): Promise<RpcMessage> {
  const held = await epochs.call(peer, readEpoch(field(message.head, 'propose')));
  return {
    head: {
      held: held === undefined ? null : { ...held, members: [...held.members] },
      heard: epochs.heard(),
    },
  };
}

/** The answer proves that the bytes are on this disk now: the nonce cannot be known before. */
async function challenge(ports: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const nonce = nonceField(message.head, 'nonce');
  return { head: { answer: await possession(ports, cidField(message.head, 'cid'), nonce) } };
}

/** Many blocks and one nonce, one after the other: a node that returns with many blocks is soon believed. */
async function challenges(ports: BlockServicePorts, message: Message): Promise<RpcMessage> {
  const nonce = nonceField(message.head, 'nonce');
  const answers: (Uint8Array | null)[] = [];
  for (const cid of cidList(message.head, 'cids', challengeBlocksMax))
    answers.push(await possession(ports, cid, nonce));
  return { head: { answers } };
}

async function possession(
  { store, providers }: BlockServicePorts,
  cid: CID,
  nonce: Uint8Array,
): Promise<Uint8Array | null> {
  const known = await store.has(cid);
  const bytes = known ? await store.get(cid) : undefined;
  if (bytes === undefined && known) await providers.remove([cid]);
  return bytes === undefined ? null : sha256(concat(nonce, bytes));
}

/** Every signed record here: what a lost Beacon is rebuilt from. */
async function* records(ports: BlockServicePorts, signal: AbortSignal): AsyncGenerator<RpcMessage> {
  let after: CID | undefined;
  for (;;) {
    const page = await ports.store.listSizes(after, cidsMax);
    for (const { cid, sizeBytes } of page) {
      signal.throwIfAborted();
      if (cid.code !== codecDagCbor || sizeBytes > recordBytesMax) continue;
      const bytes = await ports.store.get(cid);
      if (bytes !== undefined && isRecordBytes(bytes)) yield { head: { cid }, body: bytes };
    }
    after = page.at(-1)?.cid;
    if (page.length < cidsMax || after === undefined) return;
  }
}

function requireRole(
  membership: Membership,
  peer: PeerName,
  roles: readonly ('steward' | 'door')[],
  method: string,
): void {
  const member = memberOf(membership, peer);
  if (member !== undefined && (roles.length === 0 || roles.some((role) => hasRole(membership, peer, role))))
    return;
  const who = member === undefined ? 'not a member' : `a member as ${member.roles.join(', ') || 'guest'}`;
  const needed = roles.length === 0 ? 'members' : roles.join(' or ');
  throw new HoldfastError('FORBIDDEN', `${method}: ${peer} is ${who}; only ${needed} may`, {
    details: { peer, method },
  });
}

// DAG-CBOR knows no `undefined`: absent fields are left out.
function plain(value: object): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== undefined));
}
