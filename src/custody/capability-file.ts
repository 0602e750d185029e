// A chain of capability links as a file: who holds it may pass it on, narrower; who finds it can do nothing with it
// without the private key it is made out to.
//
//   # holdfast capability: …        lines for people
//   <base64url of one link>         outermost first

import { HoldfastError } from '../core/errors.ts';
import { capabilityLinksMax } from '../core/limits.ts';
import { toHex } from '../core/bytes.ts';
import { type CapabilityLink, parseCapability } from './capability.ts';

/** The file of a chain. Throws RECORD_INVALID for a link that cannot be read. */
export function formatCapabilityFile(chain: readonly Uint8Array[]): string {
  const links = chain.map(parseCapability);
  const last = links.at(-1);
  const head =
    last === undefined ? '# holdfast capability: none' : `# holdfast capability: ${capabilityText(last)}`;
  return `${[head, ...chain.map((link) => Buffer.from(link).toString('base64url'))].join('\n')}\n`;
}

/** The links of a file, their signatures verified. Throws RECORD_INVALID. */
export function parseCapabilityFile(text: string): readonly Uint8Array[] {
  const lines = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (lines.length === 0 || lines.length > capabilityLinksMax)
    throw new HoldfastError('RECORD_INVALID', `a capability file holds 1 to ${capabilityLinksMax} links`);
  const chain = lines.map((line) => new Uint8Array(Buffer.from(line, 'base64url')));
  chain.forEach(parseCapability);
  return chain;
}

/** What a link allows, in words. */
function capabilityText({ cg, aud, scope, ops, nbf, exp }: CapabilityLink): string {
  const prefix = scope.prefix === '' ? '' : ` under ${scope.prefix}`;
  return `${ops.join(', ')} of project ${scope.project}${prefix} up to ${scope.cls}, custody group ${cg}, for key ${toHex(aud)}, beats ${nbf} to ${exp}`;
}
