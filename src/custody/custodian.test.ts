import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  authority,
  bytes32,
  cg,
  group as groupSigner,
  kekRecord,
  requester,
  rootPolicy,
  signedKek,
  someLabel,
  someRequest,
  someRevocation,
  someSigner,
  someUnsignedKek,
} from '../../test/support/custody-records.ts';
import { Fuse, PowerCutDisk } from '../../test/support/power-cut-disk.ts';
import type { CID } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { encodeLabel, type BkLabel } from '../envelope/label.ts';
import type { TdecWrap } from '../envelope/wraps.ts';
import { verifyDleq } from '../threshold/dleq.ts';
import type { HashGroup, Point, Scalar } from '../threshold/group.ts';
import { loadRistretto } from '../threshold/group-sodium.ts';
import { generateKeyPair, openerOf } from '../threshold/hpke.ts';
import { type KeySet, keySetOf } from '../threshold/key-set.ts';
import { commitments, evaluate } from '../threshold/polynomial.ts';
import { combine, encrypt } from '../threshold/tdh2.ts';
import { type CustodyAnswer, openAnswer, proofContext } from './answer.ts';
import { AuditLog } from './audit-log.ts';
import { openings, verifyLog } from './audit-verify.ts';
import { CustodyBooks } from './books.ts';
import { Custodian } from './custodian.ts';
import { CustodianOrders } from './custodian-orders.ts';
import { beatAt } from './freshness.ts';
import { type OrderOp, signOrder } from './order.ts';
import { type CustodyRequest, encodeRequest, requestHash, signRequest } from './request.ts';
import { createSealingKeyFile } from './sealing-key.ts';
import { ShareStore } from './share-store.ts';

const random = (sizeBytes: number): Uint8Array => new Uint8Array(randomBytes(sizeBytes));
const operator = someSigner('operator');
const t = 2;
let dir = '';
let ristretto: HashGroup;
let world: { readonly keys: KeySet; readonly shares: readonly Scalar[] };

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-custodian-'));
  await createSealingKeyFile(join(dir, 'sealing.key'));
  ristretto = await loadRistretto();
  const { scalar } = ristretto;
  const coefficients = Array.from({ length: t }, () => scalar.random(random));
  const shares = [1, 2, 3].map((x) => evaluate(ristretto, coefficients, x));
  world = { keys: keySetOf(ristretto, commitments(ristretto, coefficients), 3), shares };
});
after(() => rm(dir, { recursive: true, force: true }));

/** The KEK record of the world's key. */
function kek(changes = {}) {
  const { Y, C, Yi } = world.keys;
  return kekRecord(signedKek(someUnsignedKek({ t, n: 3, Y, C, Yi, ...changes })));
}

interface Parts {
  readonly shares: ShareStore;
  readonly log: AuditLog;
  readonly books: CustodyBooks;
  readonly custodian: Custodian;
  readonly orders: CustodianOrders;
}

/** A custodian without the network around it. */
class Desk implements AsyncDisposable {
  readonly index: number;
  readonly signer;
  readonly disk = new PowerCutDisk('shares', new Fuse());
  readonly #path: string;
  beat = 100;
  breaths = 0;
  #parts: Parts | undefined;

  constructor(index: number, path: string) {
    this.index = index;
    this.signer = someSigner(`custodian ${index}`);
    this.#path = path;
  }

  static async of(index: number): Promise<Desk> {
    const desk = new Desk(index, await mkdtemp(join(dir, 'log-')));
    await desk.start(true);
    await desk.give(1);
    await desk.read(rootPolicy.block.bytes, kek().block.bytes);
    return desk;
  }

  get origin(): string {
    return `local/custodian-${this.index}`;
  }

  async start(create = false): Promise<void> {
    const sealing = { source: 'key-file', path: join(dir, 'sealing.key') } as const;
    const disks = { shares: this.disk, keys: this.disk };
    const shares = await ShareStore.open({ ...disks, sealing, owner: this.origin, create });
    const log = await AuditLog.open({ path: this.#path, origin: this.origin, signer: this.signer, create });
    const books = new CustodyBooks(shares, { operator: this.signer.publicKey, custodians: () => new Map() });
    const beat = () => beatAt({ beat: this.beat, atMs: 0 }, 0, { beatMs: 1000, beatsPerBar: 10 });
    const ports = {
      shares,
      log,
      books,
      signer: this.signer,
      group: async () => ristretto,
      random,
      beat,
      now: () => 1_700_000_000_000,
      breathe: async () => void this.breaths++,
    };
    const orders = new CustodianOrders({
      ...ports,
      peer: `peer-${this.index}`,
      operator: operator.publicKey,
      executors: [],
    });
    this.#parts = { shares, log, books, custodian: new Custodian(ports), orders };
  }

  get parts(): Parts {
    assert.ok(this.#parts !== undefined, 'started');
    return this.#parts;
  }

  get shares(): ShareStore {
    return this.parts.shares;
  }

  get log(): AuditLog {
    return this.parts.log;
  }

  get books(): CustodyBooks {
    return this.parts.books;
  }

  get custodian(): Custodian {
    return this.parts.custodian;
  }

  get orders(): CustodianOrders {
    return this.parts.orders;
  }

  async give(gen: number): Promise<void> {
    const { Y, C, Yi } = world.keys;
    const facts = { index: this.index, t, n: 3, publicKey: Y, commitments: C, verificationShares: Yi };
    const secret = world.shares[this.index - 1] ?? bytes32('none');
    const ref = { cg, kekVer: 1, gen };
    await this.shares.stage(ref, 'kek', { facts, secret, beat: this.beat });
    // The signing key of the group: pins who may sign its records.
    const frost = { ...facts, publicKey: groupSigner.publicKey };
    await this.shares.stage(ref, 'frost', { facts: frost, secret: bytes32('frost share'), beat: this.beat });
    await this.shares.activate(ref, { beat: this.beat, certificate: bytes32('certificate') });
  }

  async read(...records: Uint8Array[]): Promise<void> {
    for (const bytes of records) this.books.take({ key: 'x', bytes });
    await this.books.comparedAt(this.beat);
  }

  async stop(): Promise<void> {
    await this.log[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

interface Wrapped {
  readonly label: BkLabel;
  readonly wrap: TdecWrap;
  readonly element: Point;
}

function wrapped(changes: Partial<BkLabel> = {}): Wrapped {
  const label = someLabel({ bkId: random(16), ...changes });
  const bytes = encodeLabel(label);
  const { wrap, element } = encrypt(ristretto, world.keys.Y, bytes, random);
  return { label, wrap: { t: 'tdec', cg, kekVer: 1, label: bytes, ...wrap }, element };
}

function asked(items: readonly Wrapped[], changes: Partial<CustodyRequest> = {}) {
  const { secretKey, publicKey: epk } = generateKeyPair(random);
  const list = items.map(({ label, wrap }) => ({ bkId: label.bkId, wrap }));
  const encoded = encodeRequest(someRequest({ items: list, epk, reqId: random(32), ...changes }));
  const message = signRequest(encoded, requester);
  return { message, secretKey, hash: requestHash(encoded), count: items.length };
}

async function answerOf(desk: Desk, request: ReturnType<typeof asked>, shareGen = 1): Promise<CustodyAnswer> {
  const sealed = await desk.custodian.unwrap(request.message);
  const terms = { reqHash: request.hash, i: desk.index, shareGen, itemsCount: request.count };
  return openAnswer(sealed, openerOf(request.secretKey), { ...terms, sigPk: desk.signer.publicKey });
}

const codes = ({ results }: CustodyAnswer): string[] =>
  results.map((result) => (result.granted ? 'granted' : result.code));

function ordered(op: OrderOp, by = operator, changes = {}): Uint8Array {
  const order = {
    v: 1,
    cg,
    op,
    args: {},
    nonce: random(32),
    beat: 100,
    exp: 110,
    by: by.publicKey,
    ...changes,
  };
  return signOrder(order as Parameters<typeof signOrder>[0], by);
}

describe('a custodian', () => {
  test('any two of three open what was wrapped, with proofs that verify, and their logs say so', async () => {
    await using one = await Desk.of(1);
    await using three = await Desk.of(3);
    const items = Array.from({ length: 20 }, () => wrapped());
    const request = asked(items);
    const answers = [await answerOf(one, request), await answerOf(three, request)];
    assert.ok(one.breaths > 0, 'other work had its turn');
    for (const [at, { label: _, wrap, element }] of items.entries()) {
      const partials = answers.map(({ i, results }) => {
        const result = results[at];
        assert.ok(result?.granted === true);
        return { index: i, D: result.D };
      });
      assert.ok(sameBytes(combine(ristretto, wrap.V, partials), element));
    }
    for (const { i, results, proof } of answers) {
      const D = results.flatMap((result) => (result.granted ? [result.D] : []));
      const B = world.keys.Yi[i - 1] ?? bytes32('none');
      const statement = { context: proofContext(request.hash), B, C: items.map(({ wrap }) => wrap.U), D };
      assert.ok(proof !== null && verifyDleq(ristretto, statement, proof));
    }
    const logs = await Promise.all(
      [one, three].map(async ({ log, origin, signer }) =>
        verifyLog({ name: origin, publicKey: signer.publicKey }, log.checkpoint, await log.leaves(0, 10)),
      ),
    );
    const told = openings(logs);
    assert.equal(told.length, items.length);
    assert.ok(told.every(({ custodians }) => custodians.length === 2));
  });

  test('gives nothing that it cannot write down', async () => {
    const desk = await Desk.of(1);
    await desk.stop();
    await assert.rejects(desk.custodian.unwrap(asked([wrapped()]).message), {
      code: 'KEY_UNAVAILABLE',
      message: /not written down/,
    });
  });

  test('refuses a wrap whose proof does not verify, and gives the others', async () => {
    await using desk = await Desk.of(1);
    const [good, moved, mauled] = [wrapped(), wrapped(), wrapped()];
    const laxer = {
      ...moved,
      wrap: { ...moved.wrap, label: encodeLabel({ ...moved.label, cls: 'public' as const }) },
    };
    const shifted = {
      ...mauled,
      wrap: { ...mauled.wrap, U: ristretto.add(mauled.wrap.U, ristretto.base(ristretto.scalar.fromInt(1))) },
    };
    const answer = await answerOf(desk, asked([laxer, good, shifted]));
    assert.deepEqual(codes(answer), ['wrap', 'granted', 'wrap']);
    assert.equal((await desk.log.leaf(desk.log.size - 1))?.decision, 'partly');
  });

  test('writes refusals down too, and says why', async () => {
    await using desk = await Desk.of(2);
    const answer = await answerOf(desk, asked([wrapped()], { chain: [] }));
    assert.deepEqual(codes(answer), ['capability']);
    const leaf = await desk.log.leaf(0);
    assert.equal(leaf?.decision, 'refused');
    assert.match(leaf?.reason ?? '', /^capability: /);
    await assert.rejects(desk.custodian.unwrap(asked([wrapped()]).message.fill(0, 200, 210)), {
      code: 'RECORD_INVALID',
    });
  });

  test('answers once', async () => {
    await using desk = await Desk.of(2);
    const request = asked([wrapped()]);
    assert.deepEqual(codes(await answerOf(desk, request)), ['granted']);
    assert.deepEqual(codes(await answerOf(desk, request)), ['replayed']);
  });

  test('without the share that is asked for it says so', async () => {
    await using desk = await Desk.of(1);
    await assert.rejects(desk.custodian.unwrap(asked([wrapped()], { shareGen: 2 }).message), {
      code: 'KEY_UNAVAILABLE',
    });
    assert.equal((await desk.log.leaf(0))?.decision, 'refused');
  });

  test('two generations overlap until the older one is erased', async () => {
    await using desk = await Desk.of(1);
    await desk.give(2);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['granted']);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()], { shareGen: 2 }), 2)), ['granted']);
    await desk.shares.erase({ cg, kekVer: 1, gen: 1 });
    await assert.rejects(desk.custodian.unwrap(asked([wrapped()]).message), { code: 'KEY_UNAVAILABLE' });
  });

  test('more requests than it can hold are sent away', async () => {
    await using desk = await Desk.of(1);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 80 }, () => desk.custodian.unwrap(asked([wrapped()]).message)),
    );
    const refused = outcomes.filter(({ status }) => status === 'rejected');
    assert.equal(refused.length, 80 - 66);
    for (const each of refused) assert.equal(each.status === 'rejected' && each.reason.code, 'RATE_LIMITED');
  });
});

describe('records', () => {
  test('what was revoked opens nothing', async () => {
    await using desk = await Desk.of(1);
    const revocation = someRevocation(1, [{ what: 'key', id: requester.publicKey }]);
    await desk.read(revocation.block.bytes);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['revoked']);
  });

  test('revocations that were not compared for three beats open nothing', async () => {
    await using desk = await Desk.of(1);
    desk.beat = 103;
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()], { beat: 102, exp: 104 }))), ['unread']);
  });

  test('a registry that gives fewer records after a restart than before is not believed', async () => {
    const desk = await Desk.of(1);
    desk.books.take({
      key: `rev/${cg}/1`,
      bytes: someRevocation(1, [{ what: 'key', id: bytes32('x') }]).block.bytes,
    });
    await desk.books.comparedAt(100);
    await desk.stop();
    await desk.start();
    await desk.read(rootPolicy.block.bytes, kek().block.bytes); // without the revocation
    assert.match(desk.books.problem(cg) ?? '', /0 records of rev.*, which had 1/);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['unread']);
    await desk.stop();
  });

  test('a registry that is asked before it has its records is believed once it has them', async () => {
    const desk = await Desk.of(1);
    await desk.stop();
    await desk.start();
    await desk.books.comparedAt(100);
    assert.match(desk.books.problem(cg) ?? '', /gives 0 records of kek.*, which had 1/);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['unread']);
    await desk.read(rootPolicy.block.bytes, kek().block.bytes);
    assert.equal(desk.books.problem(cg), undefined);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['granted']);
    await desk.stop();
  });

  test('a registry that leaves one revocation out and puts another in its place is not believed', async () => {
    const desk = await Desk.of(1);
    const revoked = (n: number, name: string, prev: CID | null = null) =>
      someRevocation(n, [{ what: 'key', id: bytes32(name) }], prev);
    const one = revoked(1, 'x');
    desk.books.take({ key: `rev/${cg}/1`, bytes: one.block.bytes });
    await desk.books.comparedAt(100);
    for (const others of [[revoked(1, 'y')], [revoked(1, 'y'), revoked(2, 'z')]]) {
      await desk.stop();
      await desk.start();
      await desk.read(rootPolicy.block.bytes, kek().block.bytes);
      const [first, second] = others;
      for (const record of [first, second && revoked(2, 'z', first?.cid ?? null)])
        if (record !== undefined)
          desk.books.take({ key: `rev/${cg}/${record.body.n}`, bytes: record.block.bytes });
      await desk.books.comparedAt(100);
      assert.match(desk.books.problem(cg) ?? '', /rev.*(?:another record|had 1)/);
      assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['unread']);
    }
    await desk.stop();
  });

  test('a KEK record that the group did not sign is not believed', async () => {
    await using desk = await Desk.of(1);
    const forged = kekRecord(signedKek(someUnsignedKek({ ver: 2 }), someSigner('mallory')));
    await desk.read(forged.block.bytes);
    assert.match(desk.books.problem(cg) ?? '', /without the signature of the group/);
  });
});

describe('orders', () => {
  test('sealed, it opens nothing, over a restart too, until it is unsealed', async () => {
    const desk = await Desk.of(1);
    await desk.orders.obey(ordered('seal'));
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['sealed']);
    await desk.stop();
    await desk.start();
    await desk.read(rootPolicy.block.bytes, kek().block.bytes);
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['sealed']);
    await desk.orders.obey(ordered('unseal', authority));
    assert.deepEqual(codes(await answerOf(desk, asked([wrapped()]))), ['granted']);
    const { size } = desk.log;
    const ops = await Promise.all(
      Array.from({ length: size }, async (_, at) => (await desk.log.leaf(at))?.op),
    );
    assert.deepEqual(ops, ['seal', 'unwrap', 'unwrap', 'unseal', 'unwrap']);
    await desk.stop();
  });

  test('an order is followed once, over a restart too', async () => {
    const desk = await Desk.of(1);
    const seal = ordered('seal');
    await desk.orders.obey(seal);
    await desk.orders.obey(ordered('unseal'));
    await assert.rejects(desk.orders.obey(seal), { code: 'FORBIDDEN' });
    await desk.stop();
    await desk.start();
    await assert.rejects(desk.orders.obey(seal), { code: 'FORBIDDEN', message: /given before/ });
    await desk.stop();
  });

  test('orders of strangers, out of their time, or that nobody carries out, are refused', async () => {
    await using desk = await Desk.of(1);
    await assert.rejects(desk.orders.obey(ordered('seal', requester)), { code: 'FORBIDDEN' });
    await assert.rejects(desk.orders.obey(ordered('unseal', operator, { beat: 1, exp: 2 })), {
      code: 'FORBIDDEN',
    });
    await assert.rejects(desk.orders.obey(ordered('rotate')), { code: 'ARGUMENT_INVALID' });
    assert.equal(desk.log.size, 1, 'only what somebody with a say signed is written down');
  });
});
