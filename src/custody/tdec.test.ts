import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { TestGroup } from '../../test/support/custody-group.ts';
import { someSigner } from '../../test/support/custody-records.ts';
import { random, the } from '../../test/support/threshold.ts';
import {
  keyProviderSuite,
  makeKey,
  readRequest,
  recordOf,
  someScope,
} from '../../test/suites/key-provider.ts';
import { isHoldfastError } from '../core/errors.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import { openRecord } from '../manifest/record.ts';
import { defaultPolicy } from './default-policy.ts';
import { CustodyDirectory } from './directory.ts';
import { mergePins, parsePin } from './directory-pin.ts';
import { encodeMisconduct, type Misconduct, parseMisconduct, provesMisconduct } from './misconduct.ts';
import type { KekProvider, UnwrapRequest } from './provider.ts';
import { approveRequest, openRequest } from './request.ts';
import { type CustodyAnswer, sealAnswer } from './answer.ts';
import { refusal } from './refusal.ts';
import { reconcile, verifyLog } from './audit-verify.ts';
import { parseReceipts, ReceiptFile } from './receipts.ts';
import type { Opened } from './tdec.ts';
import { switchedLeaf } from './certificate.ts';
import { encodeLabel, parseLabel, switchedLabel } from '../envelope/label.ts';
import { leafHash } from '../threshold/merkle.ts';

const request: UnwrapRequest = { ...readRequest, beat: 100 };

/** The suite asks at beat 1; a group of custodians stands at one beat. */
keyProviderSuite('threshold custody', async () => {
  const [group, other] = [await TestGroup.create(), await TestGroup.create({ cg: 'cg-other' })];
  for (const each of [group, other]) {
    each.beat = 1;
    await each.tellCustodians();
  }
  const [provider, foreign] = [group.provider(), other.provider()];
  return {
    provider,
    foreign,
    reopen: async () => group.provider(),
    [Symbol.asyncDispose]: async () => {
      for (const each of [provider, foreign, group, other]) await each[Symbol.asyncDispose]();
    },
  };
});

async function failure(provider: KekProvider, body: BranchKeyBody) {
  const [answer] = await provider.unwrap([body], request);
  assert(answer?.ok === false, 'a refusal expected');
  return answer.error;
}

async function open(provider: KekProvider, body: BranchKeyBody): Promise<Uint8Array> {
  const [answer] = await provider.unwrap([body], request);
  assert(answer !== undefined);
  if (!answer.ok) throw answer.error;
  return answer.branchKey;
}

/** Answers with other points than its share gives, well formed and signed. */
function lie(group: TestGroup, i: number): void {
  const liar = the(group.custodians[i - 1]);
  liar.answers = async (message) => {
    const { request: asked, hash } = openRequest(message);
    const D = () => group.ristretto.base(group.ristretto.scalar.random(random));
    const results = asked.items.map(() => ({ granted: true, D: D() }) as const);
    const answer = { v: 1, reqHash: hash, i, shareGen: asked.shareGen, results, proof: random(64) } as const;
    return sealAnswer(answer, asked.epk, liar.signer);
  };
}

/** Somebody on the way answers in the place of a custodian: well formed, sealed to who asked, signed by another key. */
function forge(group: TestGroup, i: number, result: () => CustodyAnswer['results'][number]): void {
  the(group.custodians[i - 1]).answers = async (message) => {
    const { request: asked, hash } = openRequest(message);
    const results = asked.items.map(result);
    const proof = results.every(({ granted }) => granted) ? random(64) : null;
    const answer = { v: 1, reqHash: hash, i, shareGen: asked.shareGen, results, proof } as const;
    return sealAnswer(answer, asked.epk, someSigner('on the way'));
  };
}

describe('threshold custody', () => {
  it('opens with any t custodians and says who is missing when fewer are there', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, body } = await makeKey(provider);
    for (const down of [
      [1, 2],
      [4, 5],
      [1, 5],
      [2, 3],
    ]) {
      for (const each of group.custodians) each.isDown = down.includes(each.i);
      assert.deepEqual(await open(provider, body), branchKey);
    }
    for (const each of group.custodians) each.isDown = each.i === 2;
    await group.seal(4);
    the(group.custodians[4]).isDown = true;
    const error = await failure(provider, body);
    assert.equal(error.code, 'KEY_UNAVAILABLE');
    assert.match(
      error.message,
      /2 of 3 partial decryptions: custodian-2 unreachable, custodian-4 is sealed, custodian-5 unreachable/,
    );
    assert.deepEqual([error.details['have'], error.details['needed']], [2, 3]);
    assert.equal((await provider.health()).ok, false);
    for (const each of group.custodians) each.isDown = false;
    assert.deepEqual(await open(provider, body), branchKey);
    assert.equal((await provider.health()).ok, true);
  });

  it('asks t, and others only for those that fail or take long; the quick ones first', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider({ hedgeMs: 5 });
    const { branchKey, body } = await makeKey(provider);
    for (const each of group.custodians) each.hangs = each.i <= 2;
    assert.deepEqual(await open(provider, body), branchKey);
    const hesitant = group.provider({ hedgeMs: 60_000 });
    for (const each of group.custodians) {
      each.hangs = false;
      each.isDown = each.i === 1;
      each.askedCount = 0;
    }
    assert.deepEqual(await open(hesitant, body), branchKey);
    assert.equal(
      group.custodians.reduce((sum, { askedCount }) => sum + askedCount, 0),
      3,
    );
  });

  it('leaves a receipt that fits the logs of those who helped', async () => {
    await using group = await TestGroup.create();
    const opened: Opened[] = [];
    const onOpened = async (each: Opened): Promise<void> => {
      await new Promise(setImmediate); // the keys wait for it
      opened.push(each);
    };
    const provider = group.provider({ hedgeMs: 60_000, onOpened });
    const made = [await makeKey(provider), await makeKey(provider)];
    await provider.unwrap(
      made.map(({ body }) => body),
      request,
    );
    const dir = await mkdtemp(join(tmpdir(), 'holdfast-receipts-'));
    try {
      const { peers, ...rest } = the(opened[0]);
      const origins = new Map(group.custodians.map(({ peer, log }) => [peer, log.origin]));
      const custodians = peers.map((peer) => origins.get(peer) ?? '');
      const path = join(dir, 'receipts');
      await new ReceiptFile(path).append({ ...rest, custodians, at: 1 });
      const receipts = parseReceipts(`${await readFile(path, 'utf8')}{"at":1,`);
      const logs = await Promise.all(
        group.custodians.map(async ({ log, signer }) => {
          const key = { name: log.origin, publicKey: signer.publicKey };
          return verifyLog(key, log.checkpoint, await log.leaves(0, 64));
        }),
      );
      assert.equal(custodians.length, 3);
      assert.deepEqual(reconcile(logs, receipts, 3), []);
      const silent = logs.map((log) =>
        log.checkpoint.origin === custodians[0] ? { ...log, leaves: [] } : log,
      );
      assert.deepEqual(
        reconcile(silent, receipts, 3).map(({ kind }) => kind),
        ['leaf-missing', 'too-few-leaves', 'leaf-missing', 'too-few-leaves'],
      );
      assert.equal(reconcile(logs, [], 3).length, 2, 'openings without a receipt');
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });

  it('gives the reason of the custodians when they refuse', async () => {
    await using group = await TestGroup.create();
    const { body } = await makeKey(group.provider());
    const stranger = group.provider({ chain: async () => [] });
    const error = await failure(stranger, body);
    assert.equal(error.code, 'FORBIDDEN');
    assert.match(error.message, /3 of 5 custodians refuse: the request brings no capability/);
  });

  for (const eager of [false, true])
    it(`names who lies, with evidence for everybody, and opens by the others (${eager ? 'eager' : 'lazy'})`, async () => {
      await using group = await TestGroup.create();
      const told: Misconduct[] = [];
      const provider = group.provider({ eager, onMisconduct: (evidence) => void told.push(evidence) });
      const { branchKey, body } = await makeKey(provider);
      lie(group, 1);
      the(group.custodians[1]).isDown = true;
      assert.deepEqual(await open(provider, body), branchKey);
      const evidence = parseMisconduct(encodeMisconduct(the(told[0])));
      assert.deepEqual([told.length, evidence.i, evidence.peer], [1, 1, the(group.custodians[0]).peer]);
      assert.equal(provesMisconduct(group.ristretto, group.kek, evidence), true);
      assert.match((await provider.health()).text, /custodian-1/);
      // It proves nothing against anybody else, and nothing when a byte is changed.
      const other = { ...evidence, i: 3, peer: the(group.custodians[2]).peer };
      assert.equal(provesMisconduct(group.ristretto, group.kek, other), false);
      for (const part of ['request', 'answer', 'opener'] as const) {
        const bytes = Uint8Array.from(evidence[part]);
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
        assert.equal(provesMisconduct(group.ristretto, group.kek, { ...evidence, [part]: bytes }), false);
      }
    });

  for (const eager of [false, true])
    it(`answers that somebody on the way made count for nothing, and accuse nobody (${eager ? 'eager' : 'lazy'})`, async () => {
      await using group = await TestGroup.create();
      const provider = group.provider({ eager });
      const { branchKey, body } = await makeKey(provider);
      const D = () => group.ristretto.base(group.ristretto.scalar.random(random));
      for (const i of [1, 2]) forge(group, i, () => ({ granted: true, D: D() }));
      assert.deepEqual(await open(provider, body), branchKey);
      for (const each of group.custodians) each.askedCount = 0;
      assert.deepEqual(await open(provider, body), branchKey);
      const counts = group.custodians.map(({ askedCount }) => askedCount);
      assert.deepEqual(counts, [0, 0, 1, 1, 1], 'who is spoken for is asked last');
      assert.equal(provider.misconduct.length, 0);
      the(group.custodians[4]).isDown = true;
      const short = await failure(provider, body);
      assert.match(
        short.message,
        /2 of 3 .*custodian-1 failed \(its answer is not signed by it\), custodian-2 failed \(its answer/,
      );
      for (const i of [2, 3]) the(group.custodians[i - 1]).isDown = true;
      assert.match((await failure(provider, body)).message, /1 of 3 .*custodian-1 failed \(its answer/);
      for (const i of [2, 3]) the(group.custodians[i - 1]).isDown = false;
      for (const i of [1, 2, 3]) forge(group, i, () => refusal('capability', 'no'));
      const refused = await failure(provider, body);
      assert.equal(refused.code, 'KEY_UNAVAILABLE', 'nobody refused it');
      assert.match(refused.message, /1 of 3 .*custodian-3 failed \(its answer is not signed by it\)/);
    });

  it('makes no evidence against the honest', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { body } = await makeKey(provider);
    const commit = random(body.commit.length);
    const error = await failure(provider, { ...body, commit });
    assert.equal(error.code, 'DECRYPT_FAILED');
    assert.match(error.message, /another key than its record commits to/);
    assert.equal(provider.misconduct.length, 0);
  });

  it('two of five who lie and t who do not: opened; one honest short: said', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, body } = await makeKey(provider);
    lie(group, 1);
    lie(group, 2);
    assert.deepEqual(await open(provider, body), branchKey);
    the(group.custodians[4]).isDown = true;
    const error = await failure(provider, body);
    assert.equal(error.code, 'KEY_UNAVAILABLE');
    assert.match(error.message, /2 of 3 .*custodian-1 gave a partial decryption whose proof fails/);
  });

  it('goes on with the next generation of shares', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const made = [await makeKey(provider), await makeKey(provider)];
    await group.refresh();
    assert.equal(group.reloads, 1);
    const answers = await provider.unwrap(
      made.map(({ body }) => body),
      request,
    );
    assert.deepEqual(
      answers.map((answer) => answer.ok && answer.branchKey),
      made.map(({ branchKey }) => branchKey),
    );
    assert.equal(group.reloads, 2);
    await unwrappedAt(provider, the(made[0]).body);
    assert.equal(group.reloads, 2, 'known now');
  });

  it('asks again with the beat of now when the first request was dated too early', async () => {
    await using group = await TestGroup.create();
    const late = group.provider();
    const { branchKey, body } = await makeKey(late);
    group.beat += 5;
    await group.tellCustodians();
    assert.match((await failure(late, body)).message, /the request is ended with beat 102, now is 105/);
    assert.deepEqual(await open(group.provider({ beat: async () => group.beat }), body), branchKey);
  });

  it('waits a moment for custodians that have not read yet what it has', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, body } = await makeKey(provider);
    for (const each of group.custodians) {
      each.forget();
      for (const record of group.records.slice(0, 1)) each.books.take(record);
      await each.books.comparedAt(group.beat);
    }
    const reload = async (): Promise<void> => {
      await group.tellCustodians();
      await group.reload();
    };
    assert.deepEqual(
      await open(group.provider({ source: { directory: () => group.known, reload } }), body),
      branchKey,
    );
  });

  it('says at once by a canary that custodians have read nothing since their start', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { body } = await makeKey(provider);
    for (const each of group.custodians) each.forget();
    const [answer] = await provider.unwrap([body], { ...request, purpose: 'canary' });
    assert.match(answer?.ok === false ? answer.error.message : '', /were not read to their end yet/);
    // As often as for any passing trouble: waiting for them would be thirty times.
    for (const each of group.custodians) assert.ok(each.askedCount <= 5, `${each.name}: ${each.askedCount}`);
  });

  it('waits longer for custodians that have read nothing since their start', async () => {
    await using group = await TestGroup.create();
    const { branchKey, body } = await makeKey(group.provider());
    for (const each of group.custodians) {
      each.forget();
      for (const record of group.records) each.books.take(record); // and do not know whether that is all
    }
    let reloads = 0;
    const reload = async (): Promise<void> => {
      if (++reloads === 6) await group.tellCustodians();
      await group.reload();
    };
    const provider = group.provider({ source: { directory: () => group.known, reload } });
    assert.deepEqual(await open(provider, body), branchKey);
    assert.equal(reloads, 6);
  });

  it('is answered by custodians that read a replaced registry, out of what they had compared before', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, body } = await makeKey(provider);
    for (const { books } of group.custodians) {
      books.restart();
      for (const record of group.records.slice(0, 1)) books.take(record);
    }
    assert.deepEqual(await open(provider, body), branchKey);
    assert.equal(group.reloads, 1, 'nothing had to be asked again');
    await group.tellCustodians();
    assert.deepEqual(await open(provider, body), branchKey);
  });

  it('is answered at once by custodians that read on when they are asked for a key they have no record of', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, body } = await makeKey(provider);
    for (const each of group.custodians) {
      each.forget();
      each.catchUp = () => group.tellCustodians();
    }
    const { reloads } = group;
    assert.deepEqual(await open(provider, body), branchKey);
    assert.equal(group.reloads, reloads, 'nothing had to be asked again');
  });

  /** A key whose wrap was switched, and the page of the rotation that lists it, which is not filed. */
  async function switchedKey(group: TestGroup, provider = group.provider()) {
    const { branchKey, body } = await makeKey(provider);
    await group.secondVersion();
    const [before] = body.wraps;
    assert(before?.t === 'tdec');
    const label = encodeLabel(switchedLabel(parseLabel(before.label), 2));
    const leaf = leafHash(switchedLeaf(body.bkId, { label, U: before.U, V: before.V }));
    const page = group.rotation(leaf, 1);
    const head = { t: 'tdec-ks', cg: group.cg, kekVer: 2, label, U: before.U, V: before.V } as const;
    const wrap = { ...head, cert: page.cid, index: 0, proof: [], prev: page.cid };
    return { branchKey, before, page, wrap, switched: { ...body, bkVer: 2, wraps: [wrap] } };
  }

  it('is answered at once by custodians that were not told of the page that a wrap was switched in', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, page, switched } = await switchedKey(group, provider);
    group.file(`cert/${group.cg}/2/1`, page);
    await group.reload();
    for (const each of group.custodians) each.catchUp = () => group.tellCustodians();
    const { reloads } = group;
    assert.deepEqual(await open(provider, switched), branchKey);
    assert.equal(group.reloads, reloads, 'nothing had to be asked again');
  });

  it('opens switched wraps, and only those that a certificate of the group lists', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { branchKey, before, page, wrap, switched } = await switchedKey(group, provider);
    assert.match((await failure(provider, switched)).message, /certificate of its rotation is not known/);
    group.file(`cert/${group.cg}/2/1`, page);
    await group.tellCustodians();
    assert.deepEqual(await open(provider, switched), branchKey, 'the certificate came with the next reading');
    const asked = group.custodians.reduce((sum, { askedCount }) => sum + askedCount, 0);
    const swapped = { ...wrap, V: before.U };
    const refused = await failure(provider, { ...switched, wraps: [swapped] });
    assert.equal(refused.code, 'DECRYPT_FAILED');
    assert.match(refused.message, /does not list it/);
    assert.equal(
      group.custodians.reduce((sum, { askedCount }) => sum + askedCount, 0),
      asked,
      'nobody was asked',
    );
    assert.equal(provider.kek().ver, 2);
  });

  it('does not take a rotation that the group has not signed', async () => {
    await using group = await TestGroup.create();
    await group.secondVersion();
    group.file(`cert/${group.cg}/2/1`, group.rotation(random(32), 1, group.authority));
    await group.reload();
    await assert.rejects(makeKey(group.provider()), {
      code: 'KEY_UNAVAILABLE',
      message: /without the signature of the group/,
    });
  });

  it('stops when its caller gives up', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const { body } = await makeKey(provider);
    for (const each of group.custodians) each.hangs = true;
    const reason = new Error('enough');
    const aborted = new AbortController();
    const asked = provider.unwrap([body], { ...request, signal: aborted.signal });
    setImmediate(() => aborted.abort(reason));
    await assert.rejects(asked, (error) => error === reason);
  });

  it('a part of a combined key is made of proven partials only', async () => {
    await using group = await TestGroup.create();
    const provider = group.provider();
    const scope = someScope();
    await assert.rejects(
      provider.createKey({ ...scope, policy: openRecord(group.records[1]?.bytes ?? random(1)).cid }),
      {
        code: 'ARGUMENT_INVALID',
        message: /opens nothing under policy/,
      },
    );
    const { branchKey, wraps } = await provider.createKey(scope);
    const body = recordOf(scope, random(32), wraps, 'all');
    lie(group, 3);
    assert.deepEqual(await open(provider, body), branchKey);
  });

  it('refuses to make keys before there is one to make them with', async () => {
    await using group = await TestGroup.create();
    const empty = group.newDirectory();
    empty.settle();
    const provider = group.provider({ source: { directory: () => empty, reload: async () => undefined } });
    await assert.rejects(makeKey(provider), { code: 'KEY_UNAVAILABLE', message: /no key to seal under yet/ });
    assert.match(provider.describe().text, /WITHOUT A KEY YET/);
    assert.equal((await provider.health()).ok, false);
  });
});

async function unwrappedAt(provider: KekProvider, body: BranchKeyBody): Promise<void> {
  (await open(provider, body)).fill(0);
}

describe('the custody group as it is known', () => {
  function read(group: TestGroup, directory: CustodyDirectory, records = group.records): CustodyDirectory {
    for (const record of records) directory.take(record);
    directory.settle();
    return directory;
  }

  it('is believed by the signatures of its custodians', async () => {
    await using group = await TestGroup.create();
    const directory = read(group, group.newDirectory());
    assert.equal(directory.problem, undefined);
    assert.equal(directory.active()?.ver, 1);
    assert.equal(directory.policy()?.ver, 1);
  });

  it('is not believed without all of them, of others, or of too few that the operator knows', async () => {
    await using group = await TestGroup.create();
    const [policy, kek] = group.records;
    const partial = {
      key: `cert/${group.cg}/1/1`,
      bytes: group.birth(group.custodians.slice(1)).block.bytes,
    };
    const without = read(group, group.newDirectory(), [the(policy), the(kek)]);
    assert.match(without.problem ?? '', /no certificate of its birth/);
    assert.throws(() => without.active(), { code: 'KEY_UNAVAILABLE' });
    const some = read(group, group.newDirectory(), [the(policy), the(kek), partial]);
    assert.match(some.problem ?? '', /custodian 1 .* has not signed/);
    const known = (count: number) => () =>
      new Map(
        group.custodians.map(
          ({ peer, signer }, at) => [at < count ? peer : `other-${at}`, signer.publicKey] as const,
        ),
      );
    assert.match(read(group, group.newDirectory({ custodians: known(2) })).problem ?? '', /2 of the 5/);
    assert.equal(read(group, group.newDirectory({ custodians: known(3) })).problem, undefined);
  });

  it('is pinned: another one in its place, or fewer records than before, are refused', async () => {
    await using group = await TestGroup.create();
    const before = read(group, group.newDirectory());
    await group.refresh(false);
    const pin = parsePin(JSON.stringify(the(read(group, group.newDirectory()).pin())));
    assert.equal(mergePins(pin, the(before.pin())).marks[`kek/${group.cg}/1`], 2);
    const rolled = read(group, group.newDirectory({ pin }), group.records.slice(0, 3));
    assert.match(rolled.problem ?? '', /1 records of kek\/cg-test\/1 and had 2: it was set back/);
    const other = { ...pin, frostPk: '11'.repeat(32) };
    assert.match(read(group, group.newDirectory({ pin: other })).problem ?? '', /without the signature/);
    assert.throws(() => mergePins(pin, other), isHoldfastError);
    const gone = read(group, group.newDirectory({ pin, custodians: () => new Map() }));
    assert.equal(gone.problem, undefined, 'known before its custodians left');
  });
});

describe('approvals', () => {
  it('are brought where the policy wants them, under each request anew', async () => {
    const [one, two] = [someSigner('first approver'), someSigner('second approver')];
    const of = [one.publicKey, two.publicKey];
    const writer = one.publicKey;
    const { classes } = defaultPolicy({ cg: 'cg-test', family: random(16), writer, authorities: [writer] });
    const internal = { ...classes.internal, approvals: { k: 2, of } };
    await using group = await TestGroup.create({ policy: { classes: { ...classes, internal } } });
    await using alone = group.provider();
    const { body, branchKey } = await makeKey(alone);
    const refused = await failure(alone, body);
    assert.match(refused.message, /needs 2 approvals for this, the request brings 0/);
    await using half = group.provider({ approve: async (encoded) => [approveRequest(encoded, one)] });
    assert.match((await failure(half, body)).message, /the request brings 1/);
    const told: string[] = [];
    let first: Uint8Array | undefined;
    await using both = group.provider({
      approve: async (encoded, labels) => {
        told.push(...labels.map(({ project, cls }) => `${cls} of ${project}`));
        first ??= encoded;
        return [approveRequest(first, one), approveRequest(first, two)];
      },
    });
    assert.deepEqual(await open(both, body), branchKey);
    assert.deepEqual(told, ['internal of bzzz']);
    // What was signed for one request is worth nothing for the next.
    await assert.rejects(open(both, body), /signatures over this request expected/);
  });
});
