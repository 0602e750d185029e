// The X25519 key that lives as long as one request: what is answered is sealed to it.

import { generateKeyPair, type HpkeKeyPair } from '../threshold/hpke.ts';
import { random } from './random.ts';

/** The caller zeroes the secret half. */
export function generateRequestKey(): HpkeKeyPair {
  return generateKeyPair(random);
}
