import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAddress, parseAddress } from '../ucxl/address.ts';
import type { SourceFile } from './directory.ts';
import { planDirectory } from './put-directory.ts';

const root = parseAddress('ucxl://a:b@c:d/*^/dir', { profile: 'lenient' });

test('each file gets its address below the directory', () => {
  const plan = planDirectory(root, [file('x'), file('sub/y.md')]);
  assert.deepEqual(
    plan.map(({ address }) => formatAddress(address)),
    ['ucxl://a:b@c:d/*^/dir/x', 'ucxl://a:b@c:d/*^/dir/sub/y.md'],
  );
});

test('a directory may stand at the address without a path', () => {
  const bare = parseAddress('ucxl://a:b@c:d/*^/', { profile: 'lenient' });
  assert.equal(planDirectory(bare, [file('x')])[0]?.address.path, 'x');
});

test('a name that no address can hold is refused before anything is stored', () => {
  assert.throws(() => planDirectory(root, [file('fine'), file('a#b')]), {
    code: 'ADDRESS_INVALID',
    message: /a#b/,
  });
});

test('two spellings of one address are refused', () => {
  const names = ['\u00e9', 'e\u0301'];
  assert.throws(() => planDirectory(root, names.map(file)), { code: 'ARGUMENT_INVALID' });
});

function file(name: string): SourceFile {
  return { name, sizeBytes: 0, open: () => (async function* () {})() };
}
