import assert from 'node:assert/strict';
import { test } from 'node:test';
import { noHealing, noObjects } from '../../test/support/steward-status.ts';
import type { StatusAnswer } from '../api/types.ts';
import type { StewardStatus } from '../steward/status.ts';
import type { Paint } from './screen.ts';
import { statusPage, verdictOf } from './status-page.ts';

/** Colours that a test can read. */
const paint: Paint = (style, text) => (style === 'red' ? `<${text}>` : text);

test('a healthy cluster: one screen, nothing red, and every warning about custody', () => {
  const page = statusPage(answer({}), 'http://127.0.0.1:7440', paint).join('\n');
  assert.equal(verdictOf(answer({})), 'well');
  assert.doesNotMatch(page, /[<>]/);
  assert.match(page, /7 objects: 0 lost · .* · 7 healthy/);
  assert.match(page, /seals for plain HTTP callers/);
  assert.match(page, /DEVELOPMENT KEY FILE/);
  assert.match(page, /node-1 +a +up +3 +1\.0 KiB +5\.0 KiB +0\.2 s ago/);
  assert.ok(page.split('\n').length < 24);
});

test('a loss is loud, and says what not to do', () => {
  const lost = answer({ lost: 2 });
  const page = statusPage(lost, 'u', paint);
  assert.equal(verdictOf(lost), 'problem');
  assert.match(page[2] ?? '', /^<!!! 2 of 7 objects are LOST/);
  assert.match(page.join('\n'), /do not wipe/);
});

test('the last copy and too few copies are problems; short and healing are not', () => {
  assert.equal(verdictOf(answer({ lastCopy: 1 })), 'problem');
  assert.equal(verdictOf(answer({ belowMin: 1 })), 'problem');
  assert.equal(verdictOf(answer({ short: 1, healing: 3 })), 'well');
});

test('without a steward the page says so and shows what the door knows', () => {
  const silent = { ...answer({}), steward: null, stewardError: 'it sleeps' };
  assert.equal(verdictOf(silent), 'unknown');
  const page = statusPage(silent, 'u', paint).join('\n');
  assert.match(page, /<The steward does not answer: it sleeps>/);
  assert.match(page, /revision 9/);
});

test('a steward without a Beacon to go by is not well, whatever it counts', () => {
  const { steward, ...rest } = answer({});
  if (steward === null) throw new TypeError('a steward was made');
  const catalogue = { ...steward.catalogue, fresh: false, reason: 'damaged: log lost' };
  const blind = { ...rest, steward: { ...steward, catalogue } };
  assert.equal(verdictOf(blind), 'unknown');
  const lines = statusPage(blind, 'u', paint);
  assert.ok(
    lines.includes('<The steward cannot know what ought to exist now: damaged: log lost>'),
    lines.join('\n'),
  );
});

test('the log line says whether the views are alike', () => {
  const page = (differing: { name: string; kinds: string[] }[]): string => {
    const { steward, ...rest } = answer({});
    if (steward === null) throw new TypeError('a steward was made');
    const views = { revision: 9, at: 0, equal: ['steward', 'door'], differing, unknown: [] };
    const beacon = { engine: 'leveldb', text: 'the log', state: 'ready', reason: '' } as const;
    const full = { ...steward, beacon: { ...beacon, durable: true, problems: [], views } };
    return statusPage({ ...rest, steward: full }, 'u', paint).join('\n');
  };
  assert.match(page([]), /Log +the log · 2 views alike at revision 9/);
  assert.match(page([{ name: 'door-2', kinds: ['tag'] }]), /<unlike at revision 9: door-2>/);
});

function answer(objects: Partial<StewardStatus['objects']>): StatusAnswer<StewardStatus> {
  const steward: StewardStatus = {
    at: 0,
    startedAt: 0,
    beat: { index: 4, sequence: 4, tempo: 'locked', intervalMs: 1000 },
    catalogue: { revision: 9, fresh: true, reason: '', indexesPending: 0 },
    objects: { ...noObjects, healthy: 7, total: 7, ...objects },
    blocks: { total: 3, deficient: 0, misplaced: 0, surplus: 0, unreferenced: 0 },
    nodes: [
      {
        name: 'node-1',
        peer: 'p',
        zone: 'a',
        host: 'h',
        up: true,
        liveness: 'up',
        since: 0,
        blocks: 3,
        bytes: 1024,
        freeBytes: 5120,
        state: 'ready',
        reason: '',
        lastBeatMs: 200,
        lastError: '',
      },
    ],
    queue: { waiting: 0, underway: 0, backingOff: 0 },
    healing: noHealing,
    proofs: { asked: 0, proven: 0, failed: 0, unanswered: 0 },
    unable: [],
    unableTotal: 0,
    problems: [],
    alarms: [],
    timing: { planMs: 0, roundMs: 0 },
  };
  return {
    cluster: 'local-1',
    at: 0,
    door: {
      sealing: true,
      sealingText: 'DEVELOPMENT KEY FILE, NOT FOR PRODUCTION',
      peersConnected: 6,
      beacon: {
        state: 'following',
        reason: '',
        refused: null,
        revision: 9,
        addresses: 7,
        removed: 0,
        versions: 8,
        sizeBytes: 10,
        rejected: 0,
        missing: 0,
      },
    },
    steward,
  };
}
