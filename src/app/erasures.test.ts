import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { OverShares } from '../custody/directory.ts';
import type { CustodianStatus, HeldShare } from '../custody/wire.ts';
import { Erasures } from './erasures.ts';

let dir = '';
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'holdfast-erasures-'));
});
after(() => rm(dir, { recursive: true, force: true }));

const cg = 'prod';
const left: OverShares = { version: 2, peer: 'gone', gen: 3, why: 'left' };
const destroyed: OverShares = { version: 1, peer: 'gone', gen: 7, why: 'destroyed' };

function directory(...over: OverShares[]) {
  return { cg, initialised: true, over: () => over };
}

function held(kekVer: number, gen: number, status: HeldShare['status'] = 'active'): HeldShare {
  return { cg, kekVer, gen, key: 'kek', status, index: 1, t: 2, n: 3 };
}

function said(...shares: HeldShare[]): ReadonlyMap<string, CustodianStatus> {
  const audit = { entries: 0, cosigned: 0, witnesses: [] };
  const about = { v: 1, name: 'custodian-1', beat: 9, timeLost: null, sealingSource: 'key-file' } as const;
  return new Map([
    ['gone', { ...about, shares, sealed: [], audit, waiting: 0, givenInBar: 0, warnings: [] }],
  ]);
}

const silent: ReadonlyMap<string, CustodianStatus> = new Map();

describe('erasing', () => {
  test('is confirmed by who says that it has none of those shares, for good, and not by silence', async () => {
    const path = join(dir, 'kept');
    const erasures = await Erasures.open(path);
    const [asked] = await erasures.unconfirmed(directory(left), silent);
    assert.match(
      asked?.text ?? '',
      /does not answer, and has not said .*of whose members it is none any more/,
    );
    const [still] = await erasures.unconfirmed(directory(left), said(held(2, 3)));
    assert.match(still?.text ?? '', /has shares of it still/);
    assert.deepEqual(await erasures.unconfirmed(directory(left), said(held(1, 3))), []);
    for (const each of [erasures, await Erasures.open(path)])
      assert.deepEqual(await each.unconfirmed(directory(left), silent), []);
  });

  test('is asked for again of who was a member once more, and of each version by itself', async () => {
    const erasures = await Erasures.open(join(dir, 'again'));
    assert.deepEqual(await erasures.unconfirmed(directory(left), said()), []);
    const later = { ...left, gen: 5 };
    assert.equal((await erasures.unconfirmed(directory(later), silent)).length, 1);
    assert.equal((await erasures.unconfirmed(directory(destroyed, left), silent)).length, 1);
    const other = { ...directory(left), cg: 'another' };
    assert.equal((await erasures.unconfirmed(other, silent)).length, 1);
  });

  test('of who left leaves what it has put by to join again; of a version that is destroyed it leaves nothing', async () => {
    const erasures = await Erasures.open(join(dir, 'staged'));
    const staged = said(held(2, 4, 'staged'), held(1, 7, 'staged'));
    assert.deepEqual(
      (await erasures.unconfirmed(directory(left, destroyed), staged)).map(({ version }) => version),
      [1],
    );
    assert.equal((await erasures.unconfirmed(directory(left), said(held(2, 2, 'previous')))).length, 1);
  });

  test('is shown of who has shares of a group before this one', async () => {
    const erasures = await Erasures.open(join(dir, 'ended'));
    const now = { ...directory(), cg: 'prod.2' };
    const [one, ...rest] = await erasures.unconfirmed(now, said(held(1, 3), held(1, 2, 'previous')));
    assert.match(one?.text ?? '', /has shares of group prod still, which has ended/);
    assert.deepEqual(rest, []);
    assert.deepEqual(await erasures.unconfirmed(directory(), said(held(1, 3))), []);
  });

  test('is not judged by a group that is not believed, and a damaged file is told', async () => {
    const path = join(dir, 'damaged');
    await writeFile(path, '{"v":1,"erased":{"prod/2/gone":"x"}}');
    await assert.rejects(Erasures.open(path), {
      code: 'RECORD_INVALID',
      message: /damaged has another form/,
    });
    await writeFile(path, 'no json');
    await assert.rejects(Erasures.open(path), { code: 'RECORD_INVALID' });
    const erasures = await Erasures.open(join(dir, 'unbelieved'));
    const unbelieved = { ...directory(left), initialised: false };
    assert.deepEqual(await erasures.unconfirmed(unbelieved, said()), []);
    await assert.rejects(readFile(join(dir, 'unbelieved')), { code: 'ENOENT' });
  });
});
