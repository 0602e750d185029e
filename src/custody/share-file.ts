// A custodian's exported shares as a file for the safe: one for each version of the key that opens wraps.
//
//   # holdfast share: …             lines for people
//   <base64url of one export>       oldest version first (share-export.ts)

import { HoldfastError } from '../core/errors.ts';
import { toHex } from '../core/bytes.ts';
import { readShareHead, type ShareHead } from './share-export.ts';

/** Versions of one key of which a custodian holds shares at once: one comes, one goes, and some that are not destroyed yet. */
const exportsMax = 16;

/** The file of these exports. Throws RECORD_INVALID for one that cannot be read. */
export function formatShareFile(custodian: string, exports: readonly Uint8Array[]): string {
  const lines = exports.flatMap((message) => [
    `# holdfast share: ${custodian}, ${shareText(readShareHead(message))}`,
    Buffer.from(message).toString('base64url'),
  ]);
  return `${lines.join('\n')}\n`;
}

/** The exports in a file, their signatures proven by the keys that they name. Throws RECORD_INVALID. */
export function parseShareFile(text: string): readonly Uint8Array[] {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0 || lines.length > exportsMax)
    throw new HoldfastError('RECORD_INVALID', `a share file holds 1 to ${exportsMax} exports`);
  const exports = lines.map((line) => new Uint8Array(Buffer.from(line, 'base64url')));
  exports.forEach(readShareHead);
  return exports;
}

/** Which share it is, in words. */
export function shareText({ cg, kekVer, shareGen, i, beat, by }: ShareHead): string {
  return `group ${cg}, key ${kekVer}, generation ${shareGen}, index ${i}, taken out at beat ${beat} by key ${toHex(by)}`;
}
