import assert from 'node:assert/strict';
import { appendFile, mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Fuse, PowerCutDisk } from '../../test/support/power-cut-disk.ts';
import { sameBytes, toHex } from '../core/bytes.ts';
import { signerFromSeed } from '../core/hash.ts';
import { leafHash, MerkleTree, rootOf, verifyConsistency, verifyInclusion } from '../threshold/merkle.ts';
import { readFrames } from './audit-frames.ts';
import { AuditIndex } from './audit-index.ts';
import { type AuditEntry, parseLeaf } from './audit-leaf.ts';
import { AuditLog } from './audit-log.ts';
import { openings, reconcile, verifyLog } from './audit-verify.ts';
import { cosign, cosignaturesOf, openCheckpoint, openNote, signCheckpoint } from './checkpoint.ts';
import { Witness } from './witness.ts';

const signer = signerFromSeed(new Uint8Array(32).fill(1));
const origin = 'local-1/custodian-1';
const log = { name: origin, publicKey: signer.publicKey };
const empty = new Uint8Array(0);

function entry(number: number, fields: Partial<AuditEntry> = {}): AuditEntry {
  return {
    op: 'unwrap',
    beat: number,
    at: 1_000_000 + number,
    cg: 'main',
    kekVer: 1,
    shareGen: 0,
    reqHash: new Uint8Array(64).fill(number),
    requester: new Uint8Array(32).fill(7),
    capRoot: empty,
    labels: empty,
    purpose: 'read',
    items: [{ bkId: new Uint8Array(16).fill(number), granted: true }],
    decision: 'granted',
    reason: '-',
    ...fields,
  };
}

let root = '';
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'holdfast-audit-'));
});
after(() => rm(root, { recursive: true, force: true }));

const fresh = (): Promise<string> => mkdtemp(join(root, 'log-'));
const openLog = (path: string, create = false): Promise<AuditLog> =>
  AuditLog.open({ path, origin, signer, create });

async function filled(path: string, count: number): Promise<AuditLog> {
  const audit = await openLog(path, true);
  await Promise.all(Array.from({ length: count }, (_, number) => audit.append(entry(number % 200))));
  return audit;
}

describe('checkpoints', () => {
  test('a signed note of another implementation opens, and not under another key', () => {
    // The example in the documentation of golang.org/x/mod/sumdb/note.
    const key = Buffer.from('ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW', 'base64').subarray(1);
    const text =
      "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const note = `${text}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n`;
    assert.equal(openNote(note, { name: 'PeterNeumann', publicKey: key }), text);
    assert.throws(() => openNote(note.replace('your', 'my'), { name: 'PeterNeumann', publicKey: key }), {
      code: 'RECORD_INVALID',
    });
    assert.throws(() => openNote(note, { name: 'PeterNeumann', publicKey: signer.publicKey }), {
      code: 'RECORD_INVALID',
    });
  });

  test('a checkpoint says what was signed; cosignatures are found and checked', () => {
    const note = signCheckpoint({ origin, size: 3, root: new Uint8Array(32).fill(9) }, signer);
    const { text, size } = openCheckpoint(note, log);
    assert.equal(size, 3);
    const other = signerFromSeed(new Uint8Array(32).fill(2));
    const witness = { name: 'local-1/custodian-2', publicKey: other.publicKey };
    const signed = note + cosign(text, witness.name, 1700, other);
    assert.deepEqual(cosignaturesOf(signed, [witness]), [{ name: witness.name, time: 1700 }]);
    assert.deepEqual(cosignaturesOf(note, [witness]), []);
    assert.deepEqual(openCheckpoint(signed, log).root, new Uint8Array(32).fill(9));
    const forged = note + cosign(text.replace('\n3\n', '\n4\n'), witness.name, 1700, other);
    assert.throws(() => cosignaturesOf(forged, [witness]), { code: 'RECORD_INVALID' });
  });

  test('malformed notes are refused', () => {
    const note = signCheckpoint({ origin, size: 3, root: new Uint8Array(32) }, signer);
    const wrong = [
      '',
      'text',
      note.slice(0, -1),
      note.replace('\n3\n', '\n03\n'),
      note.replace('\n3\n', '\n4\n'),
      note.replace('— ', '- '),
      note.replace('custodian-1', 'custodian-2'),
      `${note}\u0007\n`,
      note + '— a AAAA\n'.repeat(40),
      `x${note}`,
    ];
    for (const each of wrong)
      assert.throws(() => openCheckpoint(each, log), { code: 'RECORD_INVALID' }, each);
  });
});

describe('audit log', () => {
  test('entries of one moment share a flush, keep their order, and are covered by the checkpoint they get', async () => {
    const path = await fresh();
    await using audit = await openLog(path, true);
    const logged = await Promise.all([1, 2, 3].map((number) => audit.append(entry(number))));
    assert.deepEqual(
      logged.map(({ seq }) => seq),
      [0, 1, 2],
    );
    assert.equal(new Set(logged.map(({ checkpoint }) => checkpoint)).size, 1, 'one checkpoint for all three');
    const leaves = await audit.leaves(0, 10);
    const { leaves: parsed } = verifyLog(log, logged[0]?.checkpoint ?? '', leaves);
    assert.deepEqual(
      parsed.map(({ beat }) => beat),
      [1, 2, 3],
    );
  });

  test('an entry is on the disk with its checkpoint before it is promised', async () => {
    const path = await fresh();
    await using audit = await openLog(path, true);
    const { seq } = await audit.append(entry(5));
    const file = await open(join(path, 'log'), 'r');
    const types: string[] = [];
    for await (const { type } of readFrames(file, 0)) types.push(type);
    await file.close();
    assert.deepEqual([seq, types], [0, ['header', 'commit', 'leaf', 'commit']]);
  });

  test('it goes on after a restart, with proofs over all of it', async () => {
    const path = await fresh();
    await (await filled(path, 300))[Symbol.asyncDispose]();
    await using audit = await openLog(path);
    assert.equal(audit.size, 300);
    await Promise.all(Array.from({ length: 400 }, (_, number) => audit.append(entry(number % 100))));
    const leaves = await audit.leaves(0, 1000);
    verifyLog(log, audit.checkpoint, leaves);
    const hashes = leaves.map(leafHash);
    for (const [index, size] of [
      [0, 1],
      [0, 700],
      [255, 256],
      [256, 257],
      [511, 700],
      [699, 700],
      [300, 513],
    ] as const) {
      const at = rootOf(hashes.slice(0, size));
      assert.ok(sameBytes(await audit.root(size), at));
      const proof = await audit.inclusionProof(index, size);
      assert.ok(verifyInclusion(hashes[index] ?? empty, index, size, proof, at), `${index} in ${size}`);
    }
    for (const [older, size] of [
      [1, 2],
      [300, 700],
      [256, 512],
      [255, 700],
      [512, 513],
    ] as const) {
      const proof = await audit.consistencyProof(older, size);
      const roots = [older, size].map((each) => rootOf(hashes.slice(0, each)));
      assert.ok(
        verifyConsistency(older, roots[0] ?? empty, size, roots[1] ?? empty, proof),
        `${older} in ${size}`,
      );
    }
    assert.equal((await audit.leaf(299))?.seq, 299);
  });

  test('a file torn anywhere after the last checkpoint opens without what was torn', async () => {
    const path = await fresh();
    const audit = await filled(path, 5);
    const whole = (await stat(join(path, 'log'))).size;
    const index = await readFile(join(path, 'index')); // it is written after the log was flushed
    await audit.append(entry(9));
    await audit[Symbol.asyncDispose]();
    const bytes = await readFile(join(path, 'log'));
    for (let length = whole; length < bytes.length; length += 13) {
      await writeFile(join(path, 'log'), bytes.subarray(0, length));
      await writeFile(join(path, 'index'), index);
      const torn = await openLog(path);
      assert.equal(torn.size, 5, `torn to ${length}`);
      assert.equal((await torn.append(entry(8))).seq, 5);
      await torn[Symbol.asyncDispose]();
    }
    await writeFile(join(path, 'log'), bytes);
    await using again = await openLog(path);
    assert.equal(again.size, 6, 'the whole file has them all');
  });

  test('a lost, short or wrong index is made anew', async () => {
    const path = await fresh();
    await (await filled(path, 20))[Symbol.asyncDispose]();
    const index = await readFile(join(path, 'index'));
    const wrong = [
      Buffer.alloc(0),
      index.subarray(0, 333),
      Buffer.concat([index.subarray(0, 100), Buffer.alloc(700)]),
    ];
    for (const bytes of wrong) {
      await writeFile(join(path, 'index'), bytes);
      await using audit = await openLog(path);
      assert.equal(audit.size, 20);
      verifyLog(log, audit.checkpoint, await audit.leaves(0, 20));
    }
    await rm(join(path, 'index'));
    await using audit = await openLog(path);
    assert.equal(audit.size, 20);
  });

  test('a log that lost entries it had, or is damaged before its end, is refused', async () => {
    const path = await fresh();
    const audit = await filled(path, 3);
    const short = (await stat(join(path, 'log'))).size;
    await audit.append(entry(4));
    await audit.keepCheckpoint();
    await audit[Symbol.asyncDispose]();
    const bytes = await readFile(join(path, 'log'));
    await truncate(join(path, 'log'), short);
    const shorter = { code: 'DATA_DIR_DAMAGED', message: /ends after 3 entries, and had 4/ };
    await assert.rejects(openLog(path), shorter);
    await assert.rejects(openLog(path), shorter, 'the refusal changed nothing');
    await rm(join(path, 'checkpoint'));
    await assert.rejects(openLog(path), shorter, 'the index knows');
    const flipped = Buffer.from(bytes);
    flipped[600] = (flipped[600] ?? 0) ^ 1;
    await writeFile(join(path, 'log'), flipped);
    {
      await using opened = await openLog(path); // the damage lies before what an opening reads
      await assert.rejects(opened.leaves(0, 4), { code: 'DATA_DIR_DAMAGED' });
    }
    const index = await readFile(join(path, 'index'));
    await writeFile(join(path, 'index'), Buffer.alloc(index.length));
    await assert.rejects(openLog(path), { code: 'DATA_DIR_DAMAGED' });
    await writeFile(join(path, 'index'), index);
    await writeFile(join(path, 'log'), bytes);
    await appendFile(join(path, 'log'), Buffer.alloc(3 * 1024 * 1024));
    await assert.rejects(openLog(path), { code: 'DATA_DIR_DAMAGED', message: /do not read/ });
    await rm(join(path, 'log'));
    await assert.rejects(openLog(path), { code: 'DATA_DIR_DAMAGED', message: /is gone/ });
  });

  test('the log of another custodian is refused', async () => {
    const path = await fresh();
    await (await filled(path, 1))[Symbol.asyncDispose]();
    const other = signerFromSeed(new Uint8Array(32).fill(3));
    await assert.rejects(AuditLog.open({ path, origin, signer: other, create: false }), {
      code: 'DATA_DIR_FOREIGN',
    });
    await assert.rejects(AuditLog.open({ path, origin: 'another', signer, create: false }), {
      code: 'DATA_DIR_FOREIGN',
    });
  });

  test('an entry that no leaf can hold is refused alone; a strange reason is cleaned', async () => {
    const path = await fresh();
    await using audit = await openLog(path, true);
    const wrong = audit.append(entry(1, { reqHash: new Uint8Array(5) }));
    const right = audit.append(entry(2, { reason: `a\n${'b'.repeat(900)}` }));
    await assert.rejects(wrong, { code: 'RECORD_INVALID' });
    assert.equal((await right).seq, 0);
    assert.match(parseLeaf((await audit.leaves(0, 1))[0] ?? empty).reason, /^a b+$/);
  });

  test('the index agrees with the tree in memory at every size', async () => {
    const file = await open(join(await fresh(), 'index'), 'w+');
    const index = await AuditIndex.load(file);
    const tree = new MerkleTree();
    for (let size = 0; size < 530; size += 53) {
      const records = Array.from({ length: 53 }, (_, at) => ({
        offset: size + at,
        hash: leafHash(Uint8Array.of(at, size % 256)),
      }));
      await index.append(records);
      for (const { hash } of records) tree.append(hash);
      for (const older of [0, 1, 64, 256, 300].filter((each) => each <= tree.size)) {
        assert.ok(sameBytes(await index.root(older), tree.root(older)));
        assert.deepEqual(
          (await index.consistencyProof(older, tree.size)).map(toHex),
          tree.consistencyProof(older).map(toHex),
        );
        if (older === 0) continue;
        assert.deepEqual(
          (await index.inclusionProof(older - 1, tree.size)).map(toHex),
          tree.inclusionProof(older - 1).map(toHex),
        );
      }
    }
    await file.close();
  });
});

describe('witness', () => {
  const other = signerFromSeed(new Uint8Array(32).fill(2));
  const witnessKey = { name: 'local-1/custodian-2', publicKey: other.publicKey };
  const disk = () => new PowerCutDisk('witness', new Fuse());
  const newWitness = (at = disk()) =>
    new Witness({ disk: at, name: witnessKey.name, signer: other, now: () => 1_700_000_000_000 });
  const hashes = Array.from({ length: 8 }, (_, at) => leafHash(Uint8Array.of(at)));
  const tree = (list: readonly Uint8Array[]) => {
    const made = new MerkleTree();
    for (const hash of list) made.append(hash);
    return made;
  };
  const noteOf = (list: readonly Uint8Array[]) =>
    signCheckpoint({ origin, size: list.length, root: rootOf(list) }, signer);

  test('it follows a log that grows, and remembers over a restart', async () => {
    const at = disk();
    const line = await newWitness(at).cosign(log, noteOf(hashes.slice(0, 3)), 0, []);
    assert.deepEqual(cosignaturesOf(noteOf(hashes.slice(0, 3)) + line, [witnessKey]), [
      { name: witnessKey.name, time: 1_700_000_000 },
    ]);
    const again = newWitness(at);
    assert.equal(await again.cosigned(log), 3);
    await again.cosign(log, noteOf(hashes), 3, tree(hashes).consistencyProof(3));
    await again.cosign(log, noteOf(hashes), 8, []);
    assert.equal(await again.cosigned(log), 8);
  });

  test('it cosigns nothing shorter, nothing from another size, nothing unproven', async () => {
    const witness = newWitness();
    await witness.cosign(log, noteOf(hashes.slice(0, 5)), 0, []);
    await assert.rejects(witness.cosign(log, noteOf(hashes.slice(0, 3)), 5, []), {
      code: 'VERSION_CONFLICT',
    });
    await assert.rejects(witness.cosign(log, noteOf(hashes), 3, tree(hashes).consistencyProof(3)), {
      code: 'VERSION_CONFLICT',
      details: { current: 5, origin },
    });
    const rewritten = [...hashes.slice(0, 4), leafHash(Uint8Array.of(99)), ...hashes.slice(5)];
    await assert.rejects(witness.cosign(log, noteOf(rewritten), 5, tree(rewritten).consistencyProof(5)), {
      code: 'RECORD_INVALID',
    });
    await assert.rejects(witness.cosign({ ...log, publicKey: other.publicKey }, noteOf(hashes), 0, []), {
      code: 'RECORD_INVALID',
    });
    assert.equal(await witness.cosigned(log), 5);
  });

  test('two histories of one size are a fork: refused, named, kept, and never cosigned again', async () => {
    const at = disk();
    const witness = newWitness(at);
    await witness.cosign(log, noteOf(hashes), 0, []);
    const forked = [...hashes.slice(0, 7), leafHash(Uint8Array.of(99))];
    await assert.rejects(witness.cosign(log, noteOf(forked), 8, []), {
      code: 'FORBIDDEN',
      message: /is forked/,
    });
    const evidence = await newWitness(at).fork(log);
    assert.equal(evidence?.origin, origin);
    for (const note of evidence?.notes ?? []) assert.equal(openCheckpoint(note, log).size, 8);
    await assert.rejects(newWitness(at).cosign(log, noteOf(hashes), 8, []), { code: 'FORBIDDEN' });
  });

  test('what it cosigned is on the disk before it is given out', async () => {
    for (let cut = 0; ; cut++) {
      const fuse = new Fuse();
      const at = new PowerCutDisk('witness', fuse);
      fuse.at = cut;
      const line = await newWitness(at)
        .cosign(log, noteOf(hashes), 0, [])
        .catch(() => undefined);
      const left = newWitness(at.afterCut('nothing', new Fuse()));
      if (line !== undefined) {
        assert.equal(await left.cosigned(log), 8);
        return;
      }
      assert.ok([0, 8].includes(await left.cosigned(log)), `cut before step ${cut}`);
    }
  });
});

describe('auditing', () => {
  async function logOf(name: string, entries: readonly AuditEntry[]) {
    const own = signerFromSeed(new Uint8Array(32).fill(name.charCodeAt(0)));
    await using audit = await AuditLog.open({ path: await fresh(), origin: name, signer: own, create: true });
    for (const each of entries) await audit.append(each);
    const key = { name, publicKey: own.publicKey };
    return verifyLog(key, audit.checkpoint, await audit.leaves(0, 100));
  }

  test('who opened what, from three logs, and what does not agree with the receipts', async () => {
    const logs = await Promise.all([
      logOf('a', [entry(1), entry(2), entry(3)]),
      logOf('b', [entry(1), entry(2)]),
      logOf('c', [
        entry(1, { items: [{ bkId: new Uint8Array(16).fill(1), granted: false }], decision: 'refused' }),
      ]),
    ]);
    const all = openings(logs);
    assert.deepEqual(
      all.map(({ beat, custodians }) => [beat, ...custodians]),
      [
        [1, 'a', 'b'],
        [2, 'a', 'b'],
        [3, 'a'],
      ],
    );
    assert.equal(openings(logs, '02'.repeat(16)).length, 1);
    const receipt = (number: number, custodians: readonly string[]) => ({
      reqHash: new Uint8Array(64).fill(number),
      bkIds: [new Uint8Array(16).fill(number)],
      custodians,
      threshold: 2,
    });
    assert.deepEqual(reconcile(logs, [receipt(1, ['a', 'b']), receipt(2, ['a', 'b'])], 2), []);
    const findings = reconcile(logs, [receipt(1, ['a', 'c']), receipt(3, ['a', 'b'])], 2);
    assert.deepEqual(
      findings.map(({ kind }) => kind),
      ['leaf-missing', 'leaf-missing', 'too-few-leaves', 'receipt-missing'],
    );
  });

  test('a log with a leaf changed, left out or moved does not verify', async () => {
    const path = await fresh();
    await using audit = await filled(path, 4);
    const leaves = await audit.leaves(0, 4);
    const changed = leaves.map((leaf, at) =>
      at === 2 ? leaf.map((byte, place) => (place === 9 ? byte ^ 1 : byte)) : leaf,
    );
    const [first = empty, second = empty, ...rest] = leaves;
    for (const wrong of [changed, leaves.slice(1), [second, first, ...rest]])
      assert.throws(() => verifyLog(log, audit.checkpoint, wrong), { code: 'RECORD_INVALID' });
  });
});
