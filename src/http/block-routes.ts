// Blocks and records as they are, sealed: what the client speaks, which keeps plaintext and keys to itself.

import type { StoredAnswer } from '../api/types.ts';
import { type Block, type CID, codecRaw, parseCid, supportedCid } from '../core/block.ts';
import { HeldBytes } from '../core/concurrency.ts';
import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import { recordBytesMax, segmentBytes, togetherBytesMax } from '../core/limits.ts';
import { Slabs } from '../core/slabs.ts';
import { type CarMemory, carHeader, carSection, readCar } from '../manifest/car.ts';
import type { DoorPorts } from './door-ports.ts';
import { registeredAnswer } from './facts.ts';
import { addressParameter, policyParameters, revisionParameter } from './parameters.ts';
import { readPolicy, seenRevision } from './read.ts';
import { recordsReply } from './records.ts';
import { readAddress, resolveVersion } from './resolve.ts';
import { schemas } from './schemas.ts';
import type { Request, Route } from './server.ts';

/** Blocks fetched or stored by one request. */
const fetchCidsMax = 1024;
const uploadBytesMax = 64 * 1024 * 1024;
/** Blocks that one request stores or loads together: with the two or three of one caller none of the nodes is idle. */
const batchBlocks = 8;
/** Content that all requests of one direction hold together before they go on block by block. */
const heldBytesMax = 6 * 1024 * 1024;
const slabsKept = heldBytesMax / segmentBytes;
/** A door that has taken no upload for so long gives its slabs back. */
const slabsIdleMs = 2000;

class Uploads {
  readonly held = new HeldBytes(heldBytesMax);
  readonly slabs = new Slabs(slabsKept);
  #underway = 0;
  #idle: NodeJS.Timeout | undefined;

  begin(): Disposable {
    clearTimeout(this.#idle);
    this.#underway += 1;
    return { [Symbol.dispose]: () => this.#end() };
  }

  #end(): void {
    this.#underway -= 1;
    if (this.#underway === 0) this.#idle = setTimeout(() => this.slabs.clear(), slabsIdleMs).unref();
  }
}

export function blockRoutes(ports: DoorPorts): Route[] {
  const uploads = new Uploads();
  const answers = new HeldBytes(heldBytesMax);
  const car = 'application/vnd.ipld.car';
  return [
    {
      method: 'POST',
      path: '/ucxi/v1/blocks',
      operationId: 'storeBlocks',
      data: schemas.stored,
      summary: 'Store sealed blocks (CAR v1) on enough disks',
      tag: 'blocks',
      parameters: policyParameters,
      accepts: car,
      statuses: [201],
      handle: async (request) => {
        const data = await storeUpload(ports, request, uploads);
        return { status: 201, message: `${data.blocks} blocks stored`, data };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/blocks/{cid}',
      operationId: 'block',
      summary: 'One block as it is: ciphertext or a signed record',
      tag: 'blocks',
      parameters: [{ name: 'cid', in: 'path', required: true, text: 'CID' }],
      produces: 'application/vnd.ipld.raw',
      statuses: [200],
      handle: async (request) => {
        const cid = parseCid(request.path['cid'] ?? '');
        const [block] = await ports.load([cid], request.signal);
        if (block === undefined)
          throw new HoldfastError('BLOCK_UNAVAILABLE', `block ${cid.toString()} was not delivered`);
        return {
          status: 200,
          headers: {
            'content-type': 'application/vnd.ipld.raw',
            etag: `"${cid.toString()}"`,
            'cache-control': 'public, max-age=29030400, immutable',
          },
          bytes: block.bytes,
        };
      },
    },
    {
      method: 'POST',
      path: '/ucxi/v1/blocks/fetch',
      operationId: 'fetchBlocks',
      bodySchema: {
        type: 'object',
        required: ['cids'],
        properties: {
          cids: { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: fetchCidsMax },
        },
      },
      summary: `Blocks by CID, in the order asked (JSON {"cids": […]}, at most ${fetchCidsMax})`,
      tag: 'blocks',
      accepts: 'application/json',
      produces: car,
      statuses: [200],
      handle: async (request) => {
        const cids = cidList(await request.json());
        const bytes = carOf(ports, cids, request.signal, answers);
        return { status: 200, headers: { 'content-type': car }, bytes };
      },
    },
    {
      method: 'GET',
      path: '/ucxi/v1/records',
      operationId: 'records',
      summary: 'The signed records of one version: manifest, envelope, branch key (CAR v1)',
      tag: 'blocks',
      parameters: [addressParameter, revisionParameter],
      produces: car,
      statuses: [200],
      handle: async (request) => {
        await seenRevision(ports, request);
        const found = await resolveVersion(ports.view, readAddress(request.need('address')));
        return recordsReply(ports.view, found);
      },
    },
    {
      method: 'POST',
      path: '/ucxi/v1/register',
      operationId: 'register',
      data: schemas.registered,
      summary: `Register a version: its signed records (CAR v1); its blocks are stored, or are one of at most ${togetherBytesMax} bytes beside them`,
      tag: 'blocks',
      accepts: car,
      statuses: [201],
      handle: async (request) => {
        const { records, content } = await registration(request);
        const data = registeredAnswer(await ports.register(records, content));
        return { status: 201, message: 'registered', data, headers: { location: encodeURI(data.address) } };
      },
    },
  ];
}

/** Signed records, and at most one block of content. */
async function registration(
  request: Request,
): Promise<{ readonly records: readonly Uint8Array[]; readonly content?: Block }> {
  const records: Uint8Array[] = [];
  let content: Block | undefined;
  for await (const block of uploadedBlocks(request, 8 * recordBytesMax)) {
    if (block.cid.code !== codecRaw) records.push(block.bytes);
    else if (content === undefined && block.bytes.length <= togetherBytesMax) content = block;
    else
      throw new HoldfastError('ARGUMENT_INVALID', 'larger content is stored before it is registered', {
        details: { field: 'car' },
      });
  }
  return content === undefined ? { records } : { records, content };
}

async function storeUpload(ports: DoorPorts, request: Request, uploads: Uploads): Promise<StoredAnswer> {
  const policy = readPolicy(ports, request);
  using _ = uploads.begin();
  let stored: StoredAnswer | undefined;
  for await (const blocks of batches(uploadedBlocks(request, uploadBytesMax, uploads.slabs), uploads)) {
    for (const { cid } of blocks) supportedCid(cid);
    const { copies, wanted } = await ports.storeBlocks(blocks, policy);
    stored = {
      blocks: (stored?.blocks ?? 0) + blocks.length,
      copies: Math.min(stored?.copies ?? copies, copies),
      wanted,
    };
  }
  if (stored === undefined) throw new HoldfastError('ARGUMENT_INVALID', 'the CAR holds no block');
  return stored;
}

/** Lists of blocks. While others hold much, a list is as short as it must be: a slow sender keeps nobody waiting. */
async function* batches(
  blocks: AsyncIterable<Block>,
  { held, slabs }: Uploads,
): AsyncGenerator<Block[], void, undefined> {
  let batch: Block[] = [];
  let bytes = 0;
  try {
    for await (const block of blocks) {
      batch.push(block);
      bytes += block.bytes.length;
      held.take(block.bytes.length);
      if (batch.length < batchBlocks && !held.isFull) continue;
      yield batch;
      // Stored. A push to a slow node that was given up may still send other bytes: that node refuses them.
      for (const each of batch) slabs.give(each.bytes);
      held.give(bytes);
      batch = [];
      bytes = 0;
    }
    if (batch.length > 0) yield batch;
  } finally {
    held.give(bytes);
  }
}

/** The blocks of an uploaded CAR. One that does not hash to its CID is the caller's damage, not ours. */
async function* uploadedBlocks(
  request: Request,
  maxBytes: number,
  memory?: CarMemory,
): AsyncGenerator<Block, void, undefined> {
  try {
    yield* readCar(request.body(maxBytes), memory);
  } catch (cause) {
    if (!isHoldfastError(cause, 'BLOCK_CORRUPT')) throw cause;
    throw new HoldfastError('ARGUMENT_INVALID', cause.message, { details: { field: 'car' }, cause });
  }
}

async function* carOf(
  ports: DoorPorts,
  cids: readonly CID[],
  signal: AbortSignal,
  held: HeldBytes,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield carHeader([]);
  let done = 0;
  while (done < cids.length) {
    const batch = cids.slice(done, done + (held.isFull ? 1 : batchBlocks));
    const bytes = batch.length * segmentBytes;
    held.take(bytes);
    try {
      for (const block of await ports.load(batch, signal)) yield* carSection(block);
    } finally {
      held.give(bytes);
    }
    done += batch.length;
  }
}

function cidList(body: unknown): CID[] {
  const cids = typeof body === 'object' && body !== null && 'cids' in body ? body.cids : undefined;
  if (!Array.isArray(cids) || cids.length === 0 || cids.length > fetchCidsMax)
    throw new HoldfastError('ARGUMENT_INVALID', `"cids" must be a list of 1 to ${fetchCidsMax} CIDs`, {
      details: { field: 'cids' },
    });
  return cids.map((cid: unknown) => parseCid(String(cid)));
}
