import assert from 'node:assert/strict';
import { it } from 'node:test';
import { viewsText } from './summary.ts';

const some = { revision: 9, at: 0, unknown: [] };

it('says which views are unlike, in what, and unlike whom', () => {
  assert.equal(viewsText({ ...some, equal: ['steward', 'door'], differing: [] }), '');
  const one = { name: 'door-2', kinds: ['path', 'tag'] };
  assert.match(
    viewsText({ ...some, equal: ['steward', 'door-1'], differing: [one] }),
    /at revision 9: door-2 in rows of path, tag; alike are steward, door-1\./,
  );
  const both = [one, { name: 'steward', kinds: ['path', 'tag'] }];
  assert.match(viewsText({ ...some, equal: [], differing: both }), /door-2 .*; steward .*; no opinion has/);
});
