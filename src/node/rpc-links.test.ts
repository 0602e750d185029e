import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection, Stream } from '@libp2p/interface';
import { Links } from './rpc-links.ts';

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

function linksOf() {
  const links = new Links({
    self: 'peer-b',
    protocol: '/test',
    handlers: { calls: new Map(), streams: new Map() } as never,
    tap: undefined,
    silentTicksMax,
    onUp: () => assert.fail('nobody said hello'),
    onDown: () => undefined,
  });
  const connection = { remotePeer: { toString: () => 'peer-a' } } as unknown as Connection;
  return {
    links,
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
