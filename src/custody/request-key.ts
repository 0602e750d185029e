// The X25519 key that lives as long as one request: what is answered is sealed to it.

import { randomBytes } from 'node:crypto';
import { generateKeyPair, type HpkeKeyPair } from '../threshold/hpke.ts';

/** The caller zeroes the secret half. */
export function generateRequestKey(): HpkeKeyPair {
  return generateKeyPair((sizeBytes) => new Uint8Array(randomBytes(sizeBytes)));
}
