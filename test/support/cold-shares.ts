// Shares out of the safe that are open in this process, for tests of what they are used for.

import { ColdShare, type ColdPartials, type ColdTask } from '../../src/custody/cold-share.ts';
import type { FoundExport, OpenExport } from '../../src/custody/drill.ts';
import { groups, random } from './ceremony-world.ts';

/** What is asked of one open share; `use` is what it would give. */
type Using = (
  found: FoundExport,
  task: ColdTask,
  use: (task: ColdTask) => ColdPartials,
) => ColdPartials | Promise<ColdPartials>;

/** Opens exports with the X25519 key that they are sealed to. `using` may answer otherwise than a true one would. */
export function openHere(secretKey: Uint8Array, using: Using = (_, task, use) => use(task)): OpenExport {
  return async (found, opening) => {
    const share = await ColdShare.open(opening, { secretKey }, groups, random);
    return {
      use: async (task) => using(found, task, (each) => share.use(each)),
      [Symbol.asyncDispose]: async () => share[Symbol.dispose](),
    };
  };
}
