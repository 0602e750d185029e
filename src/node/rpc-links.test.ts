import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { Connection, Stream } from '@libp2p/interface';
import { frameBytes, helloFrame } from './rpc-frames.ts';
import { Links } from './rpc-links.ts';
import type { Lane } from './rpc-stream.ts';

const silentTicksMax = 3;

/** As much of a stream as a lane uses, that never says anything. */
class SilentStream extends EventTarget {
  status: string;
  sent = 0;

  constructor(status: string) {
    super();
    this.status = status;
  }

  send(): boolean {
    this.sent += 1;
    return true;
  }

  abort(): void {
    this.status = 'aborted';
  }
}

/** A stream of which only the greeting is heard. */
class GreetingStream extends SilentStream {
  greet(lane: Lane): void {
    const hello = { v: 1, lane, link: 'ab'.repeat(16), requestWindow: 1000, itemWindow: 1000 } as const;
    this.dispatchEvent(Object.assign(new Event('message'), { data: frameBytes(helloFrame(hello)) }));
  }
}

function linksOf(onUp: () => void = () => assert.fail('nobody said hello')) {
  let isCut = false;
  const links = new Links({
    self: 'peer-b',
    protocol: '/test',
    handlers: { calls: new Map(), streams: new Map() } as never,
    tap: undefined,
    silentTicksMax,
    onUp,
    onDown: () => undefined,
  });
  const connection = {
    remotePeer: { toString: () => 'peer-a' },
    abort: () => void (isCut = true),
  } as unknown as Connection;
  return {
    links,
    isCut: () => isCut,
    accept: (stream: SilentStream): void => links.accept(stream as unknown as Stream, connection),
  };
}

test('streams that had ended before anybody listened take no place of later ones', () => {
  const { accept } = linksOf();
  for (const status of ['aborted', 'reset', 'closed', 'aborted', 'aborted', 'closed'])
    accept(new SilentStream(status));
  const live = new SilentStream('open');
  accept(live);
  assert.equal(live.status, 'open', 'it is heard');
});

test('streams that say nothing are given up after some ticks, and too many at once are refused', () => {
  const { links, accept } = linksOf();
  const silent = Array.from({ length: 4 }, () => new SilentStream('open'));
  for (const stream of silent) accept(stream);
  const fifth = new SilentStream('open');
  accept(fifth);
  assert.equal(fifth.status, 'aborted');
  for (let tick = 0; tick < silentTicksMax; tick++) links.tick();
  assert.deepEqual(
    silent.map(({ status }) => status),
    Array(4).fill('open'),
  );
  links.tick();
  assert.deepEqual(
    silent.map(({ status }) => status),
    Array(4).fill('aborted'),
  );
  const later = new SilentStream('open');
  accept(later);
  assert.equal(later.status, 'open');
});

test('a silent peer is asked over one lane, and lost with its connection', async () => {
  const { links, accept, isCut } = linksOf(() => undefined);
  const [control, bulk] = [new GreetingStream('open'), new GreetingStream('open')];
  for (const stream of [control, bulk]) accept(stream);
  control.greet('control');
  bulk.greet('bulk');
  assert.ok(links.isUp('peer-a'));
  const tick = (): Promise<void> => {
    links.tick();
    return setImmediate(); // Frames are written at the end of a turn.
  };
  await tick();
  const [greeted, greetedBulk] = [control.sent, bulk.sent];
  for (let n = 1; n <= silentTicksMax; n++) {
    await tick();
    assert.equal(control.sent - greeted, n);
  }
  assert.equal(bulk.sent, greetedBulk, 'nothing is under way there');
  assert.ok(links.isUp('peer-a'));
  links.tick();
  assert.ok(!links.isUp('peer-a') && isCut());
});
