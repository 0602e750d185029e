// Makes secrets, each in another way, has the collector run while they live, zeroes them, and says so. Whoever started
// it then looks for them in its memory. Secrets are named by texts, so that nothing but the work itself makes them.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { encodeCbor } from '../../src/core/block.ts';
import { copied } from '../../src/core/bytes.ts';
import { loadRistretto } from '../../src/threshold/group-sodium.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as (options: { type: 'minor' }) => void;
const group = await loadRistretto();
const seed = (name: string): Uint8Array => createHash('sha512').update(name).digest();

const made: Readonly<Record<string, () => Uint8Array>> = {
  'made by its length': () => {
    const bytes = new Uint8Array(32);
    const from = seed('made by its length');
    bytes.set(from.subarray(0, 32));
    from.fill(0);
    return bytes;
  },
  'a scalar': () => zeroing(seed('a scalar'), (wide) => group.scalar.reduce(wide)),
  'a copy': () => zeroing(seed('a copy'), (wide) => copied(wide.subarray(0, 32))),
  'a short encoding': () => zeroing(seed('a short encoding'), (wide) => encodeCbor(wide.subarray(0, 32))),
};
for (const make of Object.values(made)) {
  const secret = make();
  collect({ type: 'minor' });
  secret.fill(0);
}
process.send?.('zeroed');
await once(process, 'disconnect');

function zeroing(from: Uint8Array, make: (from: Uint8Array) => Uint8Array): Uint8Array {
  try {
    return make(from);
  } finally {
    from.fill(0);
  }
}
