import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stopOnSignals } from './signals.ts';

test('one press that arrives twice stops, the next press hurries, and a disposed one lets go', (t) => {
  let now = 1000;
  t.mock.method(performance, 'now', () => now);
  const listeners = process.listenerCount('SIGINT');
  {
    using signals = stopOnSignals();
    process.emit('SIGINT', 'SIGINT');
    now += 30;
    process.emit('SIGINT', 'SIGINT');
    assert.equal(signals.stop.aborted, true);
    assert.match(String(signals.stop.reason), /received SIGINT/);
    assert.equal(signals.hurry.aborted, false);
    now += 500;
    process.emit('SIGTERM', 'SIGTERM');
    assert.equal(signals.hurry.aborted, true);
  }
  assert.equal(process.listenerCount('SIGINT'), listeners);
});
