// Whoever holds a door's token may bring any record; a place that belongs to a custody group it does not get.

import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { catchUp } from '../../test/suites/beacon-view.suite.ts';
import { someKek } from '../../test/suites/beacon-records.ts';
import { TestGroup } from '../../test/support/custody-group.ts';
import {
  authority,
  bytes32,
  cg,
  kekRecord,
  rootPolicy,
  signedKek,
  someRevocation,
  someSigner,
  someUnsignedKek,
} from '../../test/support/custody-records.ts';
import { certificatePreimage } from '../custody/certificate.ts';
import { signRecord, type SignedRecord } from '../manifest/record.ts';
import { checkEntitled, type Entitled } from './entitled.ts';
import type { Append, LogRecord } from './log.ts';
import { MemoryLog } from './memory.ts';
import { rebuildBeacon } from './rebuild.ts';
import { openRegistryRecord, recordKey } from './records.ts';
import { BeaconView } from './view.ts';
import { checkAppend } from './check-append.ts';
import { MemoryKv } from './view-memory.ts';

const mallory = someSigner('mallory');

describe('a place of a custody group', () => {
  let group: TestGroup;
  let entitled: Entitled;
  /** What its ceremony files: root policy, first KEK record, certificate of birth. */
  let founding: readonly LogRecord[];

  before(async () => {
    group = await TestGroup.create({ t: 2, n: 3 });
    const custodians = new Map(group.custodians.map(({ peer, signer }) => [peer, signer.publicKey] as const));
    entitled = { group: group.cg, custodians: () => custodians };
    founding = group.records;
  });
  after(() => group[Symbol.asyncDispose]());

  it('is given to the group that the custodians of the membership made', async () => {
    await using view = await BeaconView.open(new MemoryKv());
    await checkAppend(view, appendOf(...founding), entitled);
  });

  for (const [name, which] of [
    ['without the certificate of its birth', (records: readonly LogRecord[]) => records.slice(0, 2)],
    ['made by custodians that the membership does not name', (records: readonly LogRecord[]) => records],
  ] as const)
    it(`is not given to a group ${name}`, async () => {
      await using view = await BeaconView.open(new MemoryKv());
      const strangers = name.startsWith('made')
        ? { ...entitled, custodians: () => strangersOf(entitled) }
        : entitled;
      await assert.rejects(checkAppend(view, appendOf(...which(founding)), strangers), { code: 'FORBIDDEN' });
    });

  it('is not given on a certificate that the group has not signed, and on that of no other group', async () => {
    await using view = await BeaconView.open(new MemoryKv());
    const [policy, kek, birth] = founding;
    assert.ok(policy !== undefined && kek !== undefined && birth !== undefined);
    const { body } = openRegistryRecord(birth.bytes);
    assert.ok(body.kind === 'certificate');
    const own = { ...body, writer: mallory.publicKey };
    const frostSig = mallory.sign(certificatePreimage(own));
    const forged = keyed(signRecord({ ...own, frostSig }, mallory));
    // As it is asked of an import, of which the fold has the last word.
    await assert.rejects(checkEntitled(view, appendOf(policy, kek, forged), entitled), {
      code: 'FORBIDDEN',
      message: /is not signed by the group/,
    });
    const ofOther = keyed(signRecord({ ...own, cg: 'cg-other' }, mallory));
    await checkEntitled(view, appendOf(ofOther, ...founding), entitled);
    await assert.rejects(checkEntitled(view, appendOf(policy, kek, ofOther), entitled), {
      message: /comes with the certificate of its birth/,
    });
  });

  it('is given again where a log is moved that was rebuilt from blocks', async () => {
    await using log = new MemoryLog();
    const blocks = founding.map(({ bytes }) => bytes).toReversed();
    const report = await rebuildBeacon({ blocks: Readable.from(blocks), log, scratch: new MemoryKv() });
    assert.deepEqual([report.records, report.forks, report.missing], [3, [], []]);
    await using target = new MemoryLog();
    await using view = await BeaconView.open(new MemoryKv());
    for await (const entry of log.read(1)) {
      await checkEntitled(view, entry, entitled);
      await target.append(entry);
      await catchUp(view, target);
    }
    assert.equal(view.counts().rejected, 0);
    assert.notEqual(await view.kek(group.cg, 1), undefined);
  });

  it('is not given to a key that somebody made for himself, under its own name or another', async () => {
    await using view = await BeaconView.open(new MemoryKv());
    for (const name of [cg, group.cg]) {
      const own = signedKek(someUnsignedKek({ cg: name, frostPk: mallory.publicKey }), mallory);
      await assert.rejects(checkAppend(view, appendOf(keyed(kekRecord(own))), entitled), {
        code: 'FORBIDDEN',
        message: /certificate of its birth/,
      });
    }
  });

  it('is not given to the key of another provider under the name of the group', async () => {
    await using view = await BeaconView.open(new MemoryKv());
    await assert.rejects(checkAppend(view, appendOf(keyed(someKek(group.cg))), entitled), {
      code: 'FORBIDDEN',
      message: /name is kept/,
    });
    await checkAppend(view, appendOf(keyed(someKek('vault'))), entitled);
  });

  it('is not given to a policy that no key names', async () => {
    await using view = await BeaconView.open(new MemoryKv());
    await assert.rejects(checkAppend(view, appendOf(keyed(rootPolicy)), entitled), {
      code: 'FORBIDDEN',
      message: /names this policy/,
    });
  });

  it('is not given to a revocation by nobody in particular', async () => {
    await using log = new MemoryLog();
    await using view = await BeaconView.open(new MemoryKv());
    await log.append(
      appendOf(
        keyed(rootPolicy),
        keyed(kekRecord(signedKek(someUnsignedKek({ policyRoot: rootPolicy.cid })))),
      ),
    );
    await catchUp(view, log);
    assert.equal(view.counts().rejected, 0);
    const good = someRevocation(1, [{ what: 'key', id: bytes32('k') }]);
    await checkAppend(view, appendOf(keyed(good)), entitled);
    const bad = someRevocation(1, [{ what: 'key', id: bytes32('k') }], null, mallory);
    await assert.rejects(checkAppend(view, appendOf(keyed(bad)), entitled), {
      code: 'FORBIDDEN',
      message: /no authority/,
    });
    assert.notDeepEqual(mallory.publicKey, authority.publicKey);
  });
});

function strangersOf(entitled: Entitled): Map<string, Uint8Array> {
  return new Map(
    [...entitled.custodians().keys()].map((peer) => [peer, someSigner(peer).publicKey] as const),
  );
}

function keyed(record: SignedRecord<unknown>): LogRecord {
  const { bytes } = record.block;
  return { key: recordKey(openRegistryRecord(bytes).body), bytes };
}

function appendOf(...records: readonly LogRecord[]): Append {
  return { subject: records.at(-1)?.key ?? '', expected: -1, records, at: 5 };
}
