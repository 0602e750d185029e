// One step of the scrub: a stretch of the store, read and judged. How much and how often is not decided here (scrub.ts).
//
// It walks in a circle in the order of the keys, and where it is stands in the index: a process that ends in the middle
// of a round takes nothing from the next one, and what was checked longest ago always comes next.

import type { CID } from '../core/block.ts';
import type { Admission } from './block-admission.ts';
import type { BlockContents } from './block-contents.ts';
import type { BlockInventory } from './block-inventory.ts';
import { type BlockKey, cidOfKey, keyText } from './block-key.ts';
import type { ScrubStep } from './block-ports.ts';

/** What a step reads, and where it remembers how far it came. */
export interface ScrubParts {
  readonly inventory: BlockInventory;
  readonly contents: BlockContents;
  readonly admission: Admission;
}

const beginning = new Uint8Array(0);

/** Checks blocks until at least `budgetBytes` were read or the round is over. Throws FILE_UNREADABLE. */
export async function scrubStep(parts: ScrubParts, budgetBytes: number): Promise<ScrubStep> {
  const { inventory, contents } = parts;
  const corrupt: CID[] = [];
  let cursor = await inventory.scrubCursor();
  let checked = 0;
  let checkedBytes = 0;
  let done = true;
  for await (const [key] of inventory.entries(cursor)) {
    if (checkedBytes >= budgetBytes) {
      done = false;
      break;
    }
    const found = await contents.recheck(key);
    cursor = key;
    if (found === undefined) continue; // deleted meanwhile
    if (!found.isWhole) corrupt.push(cidOfKey(key));
    checked++;
    checkedBytes += found.sizeBytes;
  }
  const next = done ? beginning : (cursor ?? beginning);
  await remember(parts, next);
  return { checked, checkedBytes, corrupt, cursor: keyText(next), done };
}

/** When it cannot be written, the next step reads the same stretch again. */
async function remember({ inventory, admission }: ScrubParts, cursor: BlockKey): Promise<void> {
  await inventory.saveScrubCursor(cursor).catch((error: unknown) => admission.failed(error));
}
