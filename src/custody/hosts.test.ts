import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sharedHostWarning } from './hosts.ts';

const on = (host: string, address: string) => ({ name: host, host, addrs: [`/ip4/${address}/tcp/1`] });

test('a threshold of custodians on one machine is told, whatever the machine is called', () => {
  const local = ['a', 'b', 'c'].map((host) => on(host, '127.0.0.1'));
  assert.match(sharedHostWarning(local, 3) ?? '', /3 of 3 custodians run on this machine, and 3 suffice/);
  assert.equal(sharedHostWarning(local, 4), undefined);
  const spread = [on('a', '10.0.0.1'), on('a', '10.0.0.2'), on('b', '10.0.0.3')];
  assert.match(sharedHostWarning(spread, 2) ?? '', /run on a,/);
  assert.equal(sharedHostWarning(spread, 3), undefined);
  assert.equal(sharedHostWarning([], 2), undefined);
});
