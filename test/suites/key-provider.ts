// What every provider of branch keys must do, whatever its keys are kept in.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { inspect } from 'node:util';
import { encodeCbor } from '../../src/core/block.ts';
import { toHex } from '../../src/core/bytes.ts';
import { unwrapItemsMax } from '../../src/core/limits.ts';
import {
  type KekProvider,
  type NewKeyScope,
  renewsWraps,
  type UnwrapRequest,
  wrapsGivenKeys,
} from '../../src/custody/provider.ts';
import { type BkLabel, encodeLabel, parseLabel } from '../../src/envelope/label.ts';
import { type BkWrap, type BranchKeyBody, parseBranchKey, parseKek } from '../../src/envelope/records.ts';
import { commitmentOf, matchesCommitment } from '../../src/envelope/wrap.ts';

/** A provider at work and another of its kind with another key. Disposing the fixture disposes both. */
export interface ProviderFixture extends AsyncDisposable {
  readonly provider: KekProvider;
  readonly foreign: KekProvider;
  /** Another instance over the same key, as after a restart. */
  reopen?(): Promise<KekProvider>;
}

/** A record with a fresh key of `provider`, and that key. */
export interface MadeKey {
  readonly branchKey: Uint8Array;
  readonly body: BranchKeyBody;
}

export interface ProviderSuiteOptions {
  /** Why the suite cannot run here. */
  readonly skip?: string | undefined;
}

const writer = fresh(32);
export const readRequest: UnwrapRequest = { purpose: 'read', requester: writer, beat: 1 };

/** A scope for one more branch key. */
export function someScope(more: Partial<NewKeyScope> = {}): NewKeyScope {
  const scope = { project: 'bzzz', cls: 'internal', writer, window: [1, 120] } as const;
  return { ...scope, bkId: fresh(16), bkVer: 1, policy: null, ...more };
}

/** The record that a writer would make of these wraps. */
export function recordOf(
  { bkId, bkVer, project, cls, window, writer: owner }: NewKeyScope,
  branchKey: Uint8Array,
  wraps: readonly BkWrap[],
  combiner: BranchKeyBody['combiner'] = 'any',
): BranchKeyBody {
  const scope = { project, cls, writer: owner, window };
  const commit = commitmentOf(branchKey);
  const head = { kind: 'branch-key', v: 1, writer: owner, prev: null } as const;
  return parseBranchKey({ ...head, bkId, bkVer, scope, maxWraps: 4096, commit, combiner, wraps });
}

export async function makeKey(provider: KekProvider, scope: NewKeyScope = someScope()): Promise<MadeKey> {
  const { branchKey, wraps, combiner } = await provider.createKey(scope);
  return { branchKey, body: recordOf(scope, branchKey, wraps, combiner) };
}

/** The key of a record; fails the test when it is refused. */
export async function unwrapped(provider: KekProvider, body: BranchKeyBody): Promise<Uint8Array> {
  const [answer] = await provider.unwrap([body], readRequest);
  assert(answer !== undefined);
  if (!answer.ok) throw answer.error;
  return answer.branchKey;
}

/** The record with the labels of its wraps changed, and the record itself changed with them. */
export function relabelled(body: BranchKeyBody, change: Partial<BkLabel>): BranchKeyBody {
  const wraps = body.wraps.map((wrap) => ({
    ...wrap,
    label: encodeLabel({ ...parseLabel(wrap.label), ...change }),
  }));
  return { ...body, bkId: change.bkId ?? body.bkId, wraps };
}

export function keyProviderSuite(
  name: string,
  create: () => Promise<ProviderFixture>,
  { skip }: ProviderSuiteOptions = {},
): void {
  describe(`key provider: ${name}`, { skip: skip ?? false }, () => {
    it('gives back the keys that it made, each another one', async () => {
      await using fixture = await create();
      const { provider } = fixture;
      const made = [await makeKey(provider), await makeKey(provider)];
      assert.notDeepEqual(made[0]?.branchKey, made[1]?.branchKey);
      for (const { branchKey, body } of made) {
        assert.equal(branchKey.length, 32);
        const again = await unwrapped(provider, body);
        assert.deepEqual(again, branchKey);
        assert(matchesCommitment(again, body.commit));
      }
    });

    it('gives them back after a restart', async (context) => {
      await using fixture = await create();
      if (fixture.reopen === undefined) return context.diagnostic('nothing outlives this one');
      const { branchKey, body } = await makeKey(fixture.provider);
      await using reopened = await fixture.reopen();
      assert.deepEqual(await unwrapped(reopened, body), branchKey);
    });

    it('binds every wrap to its label', async () => {
      await using fixture = await create();
      const { body } = await makeKey(fixture.provider);
      const changes: Partial<BkLabel>[] = [
        { bkId: fresh(16) },
        { bkVer: 7 },
        { project: 'other' },
        { cls: 'public' },
        { window: [1, 121] },
        { writer: fresh(32) },
      ];
      const changed = changes.map((change) => relabelled(body, change));
      for (const answer of await fixture.provider.unwrap(changed, readRequest)) {
        assert(!answer.ok, 'a changed label was accepted');
        assert.equal(answer.error.code, 'DECRYPT_FAILED');
      }
    });

    it('refuses wraps of another key', async () => {
      await using fixture = await create();
      const { body } = await makeKey(fixture.foreign);
      const [answer] = await fixture.provider.unwrap([body], readRequest);
      assert(answer?.ok === false, 'a foreign wrap was opened');
      assert.match(answer.error.code, /^(KEY_UNAVAILABLE|DECRYPT_FAILED)$/);
      assert.match(answer.error.message, new RegExp(toHex(body.bkId)));
    });

    it('answers each item of a request by itself, in order', async () => {
      await using fixture = await create();
      const one = await makeKey(fixture.provider);
      const two = await makeKey(fixture.provider);
      const foreign = await makeKey(fixture.foreign);
      const bad = relabelled(one.body, { project: 'other' });
      const asked = [one.body, bad, foreign.body, two.body, one.body];
      const answers = await fixture.provider.unwrap(asked, readRequest);
      assert.deepEqual(
        answers.map((answer) => (answer.ok ? toHex(answer.branchKey) : undefined)),
        [toHex(one.branchKey), undefined, undefined, toHex(two.branchKey), toHex(one.branchKey)],
      );
    });

    it('takes as many as a request may hold, and no others', async () => {
      await using fixture = await create();
      const { branchKey, body } = await makeKey(fixture.provider);
      const full = await fixture.provider.unwrap(
        Array<BranchKeyBody>(unwrapItemsMax).fill(body),
        readRequest,
      );
      assert.equal(full.length, unwrapItemsMax);
      assert(full.every((answer) => answer.ok && toHex(answer.branchKey) === toHex(branchKey)));
      await assert.rejects(fixture.provider.unwrap([], readRequest), /1 to 256/);
      const tooMany = Array<BranchKeyBody>(unwrapItemsMax + 1).fill(body);
      await assert.rejects(fixture.provider.unwrap(tooMany, readRequest), /1 to 256/);
    });

    it('wraps a given key, if it can', async (context) => {
      await using fixture = await create();
      const { provider } = fixture;
      if (!wrapsGivenKeys(provider)) return context.diagnostic('its keys cannot be chosen');
      const scope = someScope();
      const branchKey = fresh(32);
      const before = new Uint8Array(branchKey);
      const wraps = await provider.wrapKey(scope, branchKey);
      assert.deepEqual(branchKey, before);
      assert.deepEqual(await unwrapped(provider, recordOf(scope, branchKey, wraps)), branchKey);
    });

    it('renews its wraps under the same label, if it can', async (context) => {
      await using fixture = await create();
      const { provider } = fixture;
      if (!renewsWraps(provider)) return context.diagnostic('it renews nothing by itself');
      const { branchKey, body } = await makeKey(provider);
      const foreign = await makeKey(fixture.foreign);
      const [renewed, refused] = await provider.renew([body, foreign.body]);
      assert(renewed?.ok === true);
      const wraps = renewed.wraps ?? body.wraps;
      assert.deepEqual(
        wraps.map(({ label }) => toHex(label)),
        body.wraps.map(({ label }) => toHex(label)),
      );
      assert.deepEqual(await unwrapped(provider, { ...body, wraps }), branchKey);
      assert(refused?.ok !== true || refused.wraps === undefined);
    });

    it('describes itself, its health and its key', async () => {
      await using fixture = await create();
      const { provider } = fixture;
      const { kind, text } = provider.describe();
      assert.equal(kind, provider.kind);
      assert(text.length > 40);
      const health = await provider.health();
      assert(health.ok, health.text);
      const body = { kind: 'kek', v: 1, writer, prev: null, ...provider.kek() };
      const { cg, ver } = parseKek(body);
      const made = await makeKey(provider);
      const labels = made.body.wraps.map(({ label }) => parseLabel(label));
      assert(labels.some((label) => label.cg === cg && label.kekVer === ver));
    });

    it('shows no key to whoever looks at it', async () => {
      await using fixture = await create();
      const { provider } = fixture;
      const { branchKey, body } = await makeKey(provider);
      const bad = relabelled(body, { project: 'other' });
      const answers = await provider.unwrap([bad], readRequest);
      const shown = [provider, provider.describe(), await provider.health(), provider.kek(), answers]
        .map((item) => inspect(item, { showHidden: true, depth: 12, maxArrayLength: null }))
        .join('');
      assert(!shown.includes(toHex(branchKey).slice(0, 12)));
      assert(!shown.includes(Buffer.from(branchKey).toString('base64').slice(0, 10)));
      assert(!shown.includes([...branchKey.subarray(0, 5)].join(', ')));
      assert(!toHex(encodeCbor(body)).includes(toHex(branchKey).slice(0, 16)));
    });

    it('is of no use after disposal, and disposes twice', async () => {
      await using fixture = await create();
      const { body } = await makeKey(fixture.provider);
      await fixture.provider[Symbol.asyncDispose]();
      await assert.rejects(makeKey(fixture.provider));
      const answers = await fixture.provider.unwrap([body], readRequest).catch(() => []);
      assert(answers.every((answer) => !answer.ok));
      await fixture.provider[Symbol.asyncDispose]();
    });
  });
}

function fresh(sizeBytes: number): Uint8Array {
  return new Uint8Array(randomBytes(sizeBytes));
}
