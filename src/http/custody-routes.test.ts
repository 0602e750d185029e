import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { TestGroup } from '../../test/support/custody-group.ts';
import { random, the } from '../../test/support/threshold.ts';
import { makeKey, readRequest } from '../../test/suites/key-provider.ts';
import { CustodyRelay } from '../client/custody-relay.ts';
import { DoorClient } from '../client/door-client.ts';
import { HoldfastError } from '../core/errors.ts';
import { custodiansMax, custodyRequestBytesMax } from '../core/limits.ts';
import { CustodyFeed } from '../custody/feed.ts';
import { custodyRoutes } from './custody-routes.ts';
import type { DoorPorts } from './door-ports.ts';
import { HttpDoor } from './server.ts';

const token = 'a token of a test, long enough';
const clock = { now: () => Date.now(), monotonic: () => performance.now() };
const request = { ...readRequest, beat: 100 };

/** A door over a group in this process; what it carries is seen. */
class Relay implements AsyncDisposable {
  readonly group: TestGroup;
  readonly client: DoorClient;
  readonly seen: Uint8Array[];
  readonly filed: Uint8Array[];
  readonly faults: unknown[];
  readonly #door: HttpDoor;

  private constructor(
    group: TestGroup,
    door: HttpDoor,
    { seen, filed, faults }: Pick<Relay, 'seen' | 'filed' | 'faults'>,
  ) {
    this.group = group;
    this.#door = door;
    this.seen = seen;
    this.filed = filed;
    this.faults = faults;
    this.client = new DoorClient({ url: `http://127.0.0.1:${door.port}`, token });
  }

  static async open(): Promise<Relay> {
    const group = await TestGroup.create();
    const [seen, filed]: Uint8Array[][] = [[], []];
    const faults: unknown[] = [];
    const custody = {
      group: group.cg,
      records: async () => ({
        head: 9,
        done: true,
        records: group.records.map((record, index) => ({ ...record, revision: 9, index })),
      }),
      membership: async () => '{}',
      relay: async (peer: string, message: Uint8Array) => {
        const found = group.custodians.find((each) => each.peer === peer);
        if (peer === 'hung') await new Promise(() => undefined);
        if (found === undefined) throw new HoldfastError('FORBIDDEN', `${peer} is no custodian`);
        if (found.isDown) throw new HoldfastError('PEER_UNREACHABLE', 'not there');
        const answer = await found.answers(message);
        the(seen).push(message, answer);
        return answer;
      },
      file: async (record: Uint8Array) => the(filed).push(record),
      async *order(order: Uint8Array) {
        if (order.length === 1) throw new HoldfastError('RECORD_INVALID', 'no order');
        yield { progress: 'asking' };
        if (order.length === 2) throw new HoldfastError('FORBIDDEN', 'the policy stays');
        yield { result: { carried: order.length } };
      },
      status: async () => assert.fail('not asked for'),
      lately: async () => assert.fail('not asked for'),
      log: async (name: string, from: number, count: number) => {
        const found = the(group.custodians.find((each) => each.name === name));
        const leaves = await found.log.leaves(from, count);
        return {
          custodian: name,
          peer: found.peer,
          note: found.log.checkpoint,
          cosigned: null,
          leaves: leaves.map((leaf) => Buffer.from(leaf).toString('base64')),
        };
      },
    } satisfies NonNullable<DoorPorts['custody']>;
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the routes of custody read no more of it
    const ports = { cluster: 'local-test', clock, custody } as unknown as DoorPorts;
    const door = await HttpDoor.listen({
      host: '127.0.0.1',
      port: 0,
      token,
      clock,
      routes: custodyRoutes(ports),
      onAnswered: () => undefined,
      onFault: (_, error) => void faults.push(error),
    });
    return new Relay(group, door, { seen: the(seen), filed: the(filed), faults });
  }

  async feed(): Promise<CustodyFeed> {
    let pin: string | undefined;
    return CustodyFeed.open({
      cg: this.group.cg,
      operator: this.group.authority.publicKey,
      custodians: () => new Map(this.group.custodians.map(({ peer, signer }) => [peer, signer.publicKey])),
      read: (since) => this.client.custodyPage(since),
      pins: {
        load: async () => pin,
        save: async (text) => {
          pin = text;
        },
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client[Symbol.asyncDispose]();
    await this.#door[Symbol.asyncDispose]();
    await this.group[Symbol.asyncDispose]();
  }
}

describe('custody through a door', () => {
  it('a client verifies the group for itself and opens by custodians it cannot reach', async () => {
    await using relay = await Relay.open();
    const { group, client } = relay;
    const feed = await relay.feed();
    await feed.reload();
    assert.equal(feed.directory().problem, undefined);
    const custodyRelay = new CustodyRelay(client);
    const transport = {
      ask: (peer: string, message: Uint8Array, signal: AbortSignal) =>
        custodyRelay.ask(peer, message, signal),
      nameOf: (peer: string) => the(group.custodians.find((each) => each.peer === peer)).name,
    };
    const provider = group.provider({ source: feed, transport });
    const { branchKey, body } = await makeKey(provider);
    the(group.custodians[0]).isDown = true;
    const [answer] = await provider.unwrap([body], request);
    assert.deepEqual(answer?.ok === true ? answer.branchKey : answer?.error, branchKey);
    const carried = Buffer.concat(relay.seen);
    assert.ok(carried.length > 1000 && !carried.includes(Buffer.from(branchKey)), 'the door saw no key');
    for (const each of group.custodians) each.isDown = each.i <= 3;
    const [refused] = await provider.unwrap([body], request);
    assert.ok(refused?.ok === false);
    assert.match(refused.error.message, /2 of 3 partial decryptions: custodian-1 unreachable/);
  });

  it('carries to custodians only, and not what is too large', async () => {
    await using relay = await Relay.open();
    const peer = the(relay.group.custodians[0]).peer;
    const { signal } = new AbortController();
    const ask = (to: string, sizeBytes: number) =>
      new CustodyRelay(relay.client).ask(to, random(sizeBytes), signal);
    await assert.rejects(ask('somebody', 10), { code: 'FORBIDDEN', message: /^somebody is no custodian/ });
    await assert.rejects(ask(peer, custodyRequestBytesMax + 1), { code: 'TOO_LARGE' });
    await assert.rejects(ask(peer, 100), { code: 'RECORD_INVALID' });
    await assert.rejects(relay.client.custodyRecords('x'), { code: 'ARGUMENT_INVALID' });
  });

  it('takes more custodians in a call than there can be for a mistake, and one that is named twice as one', async () => {
    await using relay = await Relay.open();
    const { client, group } = relay;
    const call = (peers: readonly string[]) => Array.fromAsync(client.custodyRelay(peers, random(100)));
    const many = Array.from({ length: custodiansMax + 1 }, (_, at) => `peer-${at}`);
    await assert.rejects(call(many), { code: 'TOO_LARGE' });
    await assert.rejects(call([]), { code: 'ARGUMENT_MISSING' });
    const { peer } = the(group.custodians[0]);
    assert.deepEqual(
      (await call([peer, peer, 'x'])).map((each) => each.peer).toSorted(),
      [peer, 'x'].toSorted(),
    );
  });

  it('gives an answer on as it comes, and writes down what a caller cannot mend', async () => {
    await using relay = await Relay.open();
    const { client, group, faults } = relay;
    const [up, down] = [the(group.custodians[0]), the(group.custodians[1])];
    down.isDown = true;
    const answers = client.custodyRelay(['hung', up.peer, down.peer], random(100));
    const first = [await answers.next(), await answers.next()];
    const told = first.map(({ done, value }) => (done === true ? '' : value.peer));
    assert.deepEqual(told.toSorted(), [up.peer, down.peer].toSorted());
    await answers.return(undefined);
    // What was wrong with the request is the caller's; that nobody is there is ours.
    assert.deepEqual(
      faults.map((error) => error instanceof HoldfastError && error.code),
      ['PEER_UNREACHABLE'],
    );
  });

  it('answers an order that fails at once with a status, and one that fails later in its last line', async () => {
    await using relay = await Relay.open();
    const { client } = relay;
    const post = (size: number): Promise<Response> =>
      fetch(`${client.url}/v1/custody/orders`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
        body: random(size),
      });
    const [atOnce, later] = [await post(1), await post(2)];
    const { error } = (await atOnce.json()) as { error: { details: { reason: string } } };
    assert.deepEqual([atOnce.status, error.details.reason], [422, 'RECORD_INVALID']);
    assert.equal(later.status, 200);
    const lines = (await later.text()).trim().split('\n');
    assert.deepEqual(JSON.parse(lines[0] ?? ''), { progress: 'asking' });
    assert.equal(JSON.parse(lines[1] ?? '').error.reason, 'FORBIDDEN');
    await assert.rejects(client.custodyOrder(random(1)), { code: 'RECORD_INVALID', message: 'no order' });
    await assert.rejects(client.custodyOrder(random(2)), { code: 'FORBIDDEN', message: 'the policy stays' });
  });

  it('hands out logs page by page and takes revocations', async () => {
    await using relay = await Relay.open();
    const provider = relay.group.provider();
    const { body } = await makeKey(provider);
    await provider.unwrap([body], request);
    const page = await relay.client.custodyLog('custodian-1', { from: 0, count: 1 });
    assert.equal(page.leaves.length, 1);
    assert.match(page.note, /cg-test\/custodian-1/);
    const said: unknown[] = [];
    const onProgress = (text: unknown): void => void said.push(text);
    const carried = await relay.client.custodyOrder(random(5), { onProgress });
    assert.deepEqual([carried, said], [{ carried: 5 }, ['asking']]);
    assert.equal((await relay.client.custodyFile(Uint8Array.of(1, 2, 3))).revision, 1);
    assert.deepEqual([...the(relay.filed[0])], [1, 2, 3]);
  });
});
