// The way to the custodians for those who cannot reach them themselves. The door carries; it opens nothing.

import type { CustodyRecordsAnswer, CustodyRelayLine } from '../api/types.ts';
import { concat } from '../core/bytes.ts';
import { asTheyCome } from '../core/concurrency.ts';
import { HoldfastError } from '../core/errors.ts';
import {
  custodiansMax,
  custodyOrderBytesMax,
  custodyRequestBytesMax,
  recordBytesMax,
} from '../core/limits.ts';
import { isFault, toldError } from './envelope.ts';
import { linesReply } from './json-lines.ts';
import type { DoorPorts } from './door-ports.ts';
import { schemas } from './schemas.ts';
import type { Request, Route } from './server.ts';

/** Requests carried at once, one for each custodian: each is up to a quarter of a megabyte, and custodians work on two at a time. */
const relayedMax = 64;
/** Requests carried in one second on average, and at once after a pause: far more than custodians can answer. */
const relayedPerSecond = 1000;
const relayedBurst = 4000;
const leavesMax = 64;

export function custodyRoutes(ports: DoorPorts): Route[] {
  const allowance = new Allowance(() => ports.clock.monotonic());
  return [
    {
      method: 'GET',
      path: '/v1/custody',
      operationId: 'custodyRecords',
      data: schemas.custodyRecords,
      summary: 'Public records of the custody group, and the membership: what a client verifies for itself',
      tag: 'custody',
      parameters: [{ name: 'after', in: 'query', text: 'place of the last record read, `revision.index`' }],
      statuses: [200],
      handle: async (request) => {
        const data = await recordsAnswer(ports, request);
        return { status: 200, message: `${data.records.length} records`, data };
      },
    },
    {
      method: 'POST',
      path: '/v1/custody/relay',
      operationId: 'custodyRelay',
      summary:
        'Carry a signed request to custodians: their answers as JSON lines, as they come, each sealed to who asks',
      tag: 'custody',
      parameters: [
        {
          name: 'peer',
          in: 'query',
          required: true,
          text: 'peer id of a custodian; may be repeated',
          schema: { type: 'array', items: { type: 'string' }, minItems: 1, maxItems: custodiansMax },
        },
      ],
      accepts: 'application/octet-stream',
      produces: 'application/jsonl',
      statuses: [200],
      handle: async (request) => linesReply(relayed(ports, allowance, request), request),
    },
    {
      method: 'POST',
      path: '/v1/custody/records',
      operationId: 'custodyFile',
      data: schemas.custodyFiled,
      summary: 'File a revocation that an authority of the policy signed',
      tag: 'custody',
      accepts: 'application/octet-stream',
      statuses: [201],
      handle: async (request) => {
        const record = await wholeBody(request, recordBytesMax);
        return { status: 201, message: 'filed', data: { revision: await custodyOf(ports).file(record) } };
      },
    },
    {
      method: 'POST',
      path: '/v1/custody/orders',
      operationId: 'custodyOrder',
      summary:
        'Have an order carried out that the operator signed: progress as JSON lines, the last is the result',
      tag: 'custody',
      accepts: 'application/octet-stream',
      produces: 'application/jsonl',
      statuses: [200],
      handle: async (request) => {
        const order = await wholeBody(request, custodyOrderBytesMax);
        return linesReply(custodyOf(ports).order(order, request.signal), request);
      },
    },
    {
      method: 'GET',
      path: '/v1/custody/status',
      operationId: 'custodyStatus',
      data: schemas.custodyStatus,
      summary: 'The custody group: who is there, how old its key is, and whether keys come back',
      tag: 'custody',
      statuses: [200],
      handle: async () => ({ status: 200, message: 'custody', data: await custodyOf(ports).status() }),
    },
    {
      method: 'GET',
      path: '/v1/custody/log/{name}',
      operationId: 'custodyLog',
      data: schemas.custodyLog,
      summary: 'A part of the audit log of a custodian, to be verified by the caller',
      tag: 'custody',
      parameters: [
        { name: 'name', in: 'path', required: true, text: 'name of a custodian' },
        { name: 'from', in: 'query', text: 'first leaf, default 0', schema: { type: 'integer', minimum: 0 } },
        {
          name: 'count',
          in: 'query',
          text: `leaves at most, default ${leavesMax}`,
          schema: { type: 'integer', minimum: 0, maximum: leavesMax },
        },
      ],
      statuses: [200],
      handle: async (request) => {
        const from = wholeOf(request, 'from', 0);
        const count = Math.min(leavesMax, wholeOf(request, 'count', leavesMax));
        const data = await custodyOf(ports).log(request.path['name'] ?? '', from, count, request.signal);
        return { status: 200, message: `${data.leaves.length} leaves`, data };
      },
    },
  ];
}

/** A line for each custodian, as it answers. What is wrong with the request as a whole is thrown before the first. */
async function* relayed(
  ports: DoorPorts,
  allowance: Allowance,
  request: Request,
): AsyncGenerator<CustodyRelayLine> {
  const custody = custodyOf(ports);
  const peers = peersOf(request);
  using _places = allowance.take(peers.length);
  const message = await wholeBody(request, custodyRequestBytesMax);
  const lineOf = async (peer: string): Promise<CustodyRelayLine> => {
    try {
      const answer = await custody.relay(peer, message, request.signal);
      return { peer, answer: Buffer.from(answer).toString('base64') };
    } catch (error) {
      if (isFault(error) && !request.signal.aborted) request.onFault(error);
      return { peer, error: toldError(error) };
    }
  };
  yield* asTheyCome(peers.map(lineOf));
}

function peersOf(request: Request): readonly string[] {
  request.need('peer');
  const peers = [...new Set(request.url.searchParams.getAll('peer'))];
  if (peers.length <= custodiansMax) return peers;
  throw new HoldfastError('TOO_LARGE', `peer: at most ${custodiansMax} custodians expected`);
}

function custodyOf({ custody }: DoorPorts): NonNullable<DoorPorts['custody']> {
  if (custody !== undefined) return custody;
  throw new HoldfastError('KEY_UNAVAILABLE', 'this door knows no custodians');
}

async function recordsAnswer(ports: DoorPorts, request: Request): Promise<CustodyRecordsAnswer> {
  const custody = custodyOf(ports);
  const [page, membership] = await Promise.all([
    custody.records(placeOf(request.query('after'))),
    custody.membership(),
  ]);
  const records = page.records.map(({ key, revision, index, bytes }) => ({
    key,
    revision,
    index,
    bytes: Buffer.from(bytes).toString('base64'),
  }));
  return {
    cluster: ports.cluster,
    group: custody.group,
    head: page.head,
    done: page.done,
    records,
    membership,
  };
}

function placeOf(after: string | undefined): { readonly revision: number; readonly index: number } {
  const found = /^(\d{1,15})\.(\d{1,15})$/.exec(after ?? '0.0');
  if (found === null) throw new HoldfastError('ARGUMENT_INVALID', 'after: a place `revision.index` expected');
  return { revision: Number(found[1]), index: Number(found[2]) };
}

function wholeOf(request: Request, name: string, fallback: number): number {
  const text = request.query(name);
  if (text === undefined) return fallback;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new HoldfastError('ARGUMENT_INVALID', `${name}: a whole number expected`);
}

async function wholeBody(request: Request, sizeBytesMax: number): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  for await (const part of request.body(sizeBytesMax)) parts.push(part);
  return concat(...parts);
}

/** Places for what is carried: so many at once, and so many in a while. Throws RATE_LIMITED. */
class Allowance {
  readonly #nowMs: () => number;
  #underway = 0;
  #left = relayedBurst;
  #atMs: number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
    this.#atMs = nowMs();
  }

  take(count: number): Disposable {
    const nowMs = this.#nowMs();
    this.#left = Math.min(relayedBurst, this.#left + ((nowMs - this.#atMs) / 1000) * relayedPerSecond);
    this.#atMs = nowMs;
    if (this.#underway + count > relayedMax || this.#left < count)
      throw new HoldfastError('RATE_LIMITED', 'too many requests to custodians at once; retry later');
    this.#left -= count;
    this.#underway += count;
    return {
      [Symbol.dispose]: () => {
        this.#underway -= count;
      },
    };
  }
}
