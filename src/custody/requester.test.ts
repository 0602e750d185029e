// What stands around the provider: the feed of records, the choice by tag, capabilities as files, the canary.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { TestGroup } from '../../test/support/custody-group.ts';
import { random, the } from '../../test/support/threshold.ts';
import { makeKey, readRequest } from '../../test/suites/key-provider.ts';
import { Canary } from './canary.ts';
import { formatCapabilityFile, parseCapabilityFile } from './capability-file.ts';
import { openDevFile } from './dev-file.ts';
import { groupNameOf } from './group-name.ts';
import { CustodyFeed, type FeedCursor } from './feed.ts';
import type { CustodyRecordBytes } from './directory.ts';
import { ProviderSet } from './provider-set.ts';

const request = { ...readRequest, beat: 100 };

/** A registry of records that can be cut short. */
function registry(group: TestGroup, pins: { text?: string } = {}) {
  const records = (): (CustodyRecordBytes & FeedCursor)[] =>
    group.records.map((record, at) => ({ ...record, revision: at + 1, index: 0 }));
  let reads = 0;
  const read = async (since: FeedCursor) => {
    reads++;
    const all = records();
    const rest = all.filter(({ revision }) => revision > since.revision);
    return { head: all.length, records: rest.slice(0, 2), done: rest.length <= 2 };
  };
  const custodians = () =>
    new Map(group.custodians.map(({ peer, signer }) => [peer, signer.publicKey] as const));
  const feed = CustodyFeed.open({
    cg: group.cg,
    operator: group.authority.publicKey,
    custodians,
    read,
    pins: {
      load: async () => pins.text,
      save: async (text) => {
        pins.text = text;
      },
    },
  });
  return { feed, pins, reads: () => reads };
}

describe('the feed of custody', () => {
  it('reads on where it stopped, page by page, for many callers at once', async () => {
    await using group = await TestGroup.create();
    const { feed: opening, reads } = registry(group);
    const feed = await opening;
    assert.equal(feed.directory().initialised, false);
    await Promise.all([feed.reload(), feed.reload(), feed.reload()]);
    assert.equal(reads(), 2);
    assert.equal(feed.directory().active()?.shareGen, 1);
    await group.refresh(false);
    await feed.reload();
    assert.equal(reads(), 3);
    assert.equal(feed.directory().active()?.shareGen, 2);
  });

  it('does not follow a registry that was set back, in this process or the next, until it has caught up', async () => {
    await using group = await TestGroup.create();
    await group.refresh(false);
    const { feed: opening, pins } = registry(group);
    const feed = await opening;
    await feed.reload();
    const all = group.records;
    group.records = all.slice(0, 3);
    await feed.reload();
    assert.match(feed.directory().problem ?? '', /set back/);
    const next = await registry(group, pins).feed;
    await next.reload();
    assert.match(next.directory().problem ?? '', /set back/);
    group.records = all;
    for (const each of [feed, next]) {
      await each.reload();
      assert.equal(each.directory().active()?.shareGen, 2);
    }
  });

  it('says what is wrong with what it remembered', async () => {
    await using group = await TestGroup.create();
    await assert.rejects(registry(group, { text: '{"v":2}' }).feed, { code: 'RECORD_INVALID' });
  });

  it('names the group after the cluster', () => {
    assert.equal(groupNameOf('local-a885bfd768516436'), 'cg-a885bfd7');
  });
});

describe('custodians beside a key file', () => {
  it('each opens what it wrapped; nothing falls back to the file by itself', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'holdfast-providers-'));
    await using group = await TestGroup.create();
    try {
      const clock = { now: Date.now, monotonic: () => performance.now() };
      const file = await openDevFile({ path: join(dir, 'kek.json'), clock, create: true });
      let custodiansMake = false;
      const common = { path: join(dir, 'provider.json'), clock, recovery: () => undefined };
      await using both = await ProviderSet.open({
        ...common,
        custodians: group.provider(),
        file,
        custodiansMake: () => custodiansMake,
      });
      const old = await makeKey(both);
      assert.equal(both.kind, 'dev-file');
      custodiansMake = true;
      const young = await makeKey(both);
      assert.deepEqual([both.kind, both.id, young.body.wraps[0]?.t], ['tdec', `tdec:${group.cg}`, 'tdec']);
      assert.match(both.describe().text, /custody migrate/);
      const asked = [young.body, old.body, young.body];
      const answers = await both.unwrap(asked, request);
      assert.deepEqual(
        answers.map((answer) => answer.ok && answer.branchKey),
        [young.branchKey, old.branchKey, young.branchKey],
      );
      // A record on its way from one to the other has both wraps.
      const moving = { ...old.body, wraps: [...young.body.wraps, ...old.body.wraps] };
      const [either] = await both.unwrap([moving], request);
      assert.deepEqual(either?.ok === true && either.branchKey, old.branchKey);
      await using alone = await ProviderSet.open({
        ...common,
        custodians: group.provider(),
        file: undefined,
        custodiansMake: () => true,
      });
      const [refused] = await alone.unwrap([old.body], request);
      assert.ok(refused?.ok === false && refused.error.code === 'KEY_UNAVAILABLE');
      await using none = await ProviderSet.open({
        ...common,
        custodians: group.provider(),
        file: undefined,
        custodiansMake: () => false,
      });
      assert.throws(() => none.kek(), { code: 'KEY_UNAVAILABLE' });
    } finally {
      await rm(dir, { recursive: true, force: true });
    }
  });
});

describe('capability files', () => {
  it('are read as they were written, and not when damaged', async () => {
    await using group = await TestGroup.create();
    const text = formatCapabilityFile([group.capability]);
    assert.match(text, /^# holdfast capability: read, .*custody group cg-test/);
    assert.deepEqual(parseCapabilityFile(text), [group.capability]);
    for (const bad of ['', '# nothing\n', text.replace('omF', 'omG'), `${text}${text}${text}${text}`])
      assert.throws(() => parseCapabilityFile(bad), { code: 'RECORD_INVALID' });
  });
});

describe('a canary', () => {
  it('comes back while t custodians give keys, and is not sent out more often than said', async () => {
    await using group = await TestGroup.create();
    let beat = 100;
    const canary = new Canary({
      provider: group.provider(),
      requester: group.requester.publicKey,
      random,
      beat: () => beat,
      everyBeats: 60,
      now: () => performance.now(),
    });
    const asked = (): number => group.custodians.reduce((sum, { askedCount }) => sum + askedCount, 0);
    assert.equal((await canary.check()).ok, true);
    const once = asked();
    await Promise.all([canary.check(), canary.check()]);
    assert.equal(asked(), once);
    for (const each of group.custodians) each.isDown = each.i > 2;
    beat += 60;
    group.beat = beat;
    await group.tellCustodians();
    const silent = await canary.check();
    assert.equal(silent.ok, false);
    assert.match(silent.text, /2 of 3 partial decryptions/);
    for (const each of group.custodians) each.isDown = false;
    assert.equal((await canary.check()).ok, false, 'a moment later it is still said');
    beat += 2;
    group.beat = beat;
    await group.tellCustodians();
    assert.equal((await canary.check()).ok, true);
    assert.equal(the(canary.last).beat, beat);
  });

  it('is sent out under every version of the key that serves', async () => {
    await using group = await TestGroup.create();
    await group.secondVersion();
    const canary = new Canary({
      provider: group.provider(),
      requester: group.requester.publicKey,
      random,
      beat: () => group.beat,
      everyBeats: 1,
      now: () => performance.now(),
    });
    const both = await canary.check();
    assert.equal(both.ok, true, both.text);
    for (const each of group.custodians.slice(2)) await each.shares.leave({ cg: group.cg, kekVer: 1 });
    group.beat += 1;
    await group.tellCustodians();
    const { ok, text } = await canary.check();
    assert.equal(ok, false);
    assert.match(text, /^version 1: .*2 of 3 partial decryptions/);
    assert.doesNotMatch(text, /version 2/);
  });
});
