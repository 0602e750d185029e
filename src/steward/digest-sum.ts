// The sum of digests modulo 2^256: two sets are the same when count and sum are, whatever the order.

export class DigestSum {
  /** Eight 32-bit limbs, most significant first. */
  readonly #limbs = new Uint32Array(8);

  add(digest: Uint8Array): void {
    let carry = 0;
    for (let limb = 7; limb >= 0; limb--) {
      const sum = (this.#limbs[limb] ?? 0) + word(digest, limb) + carry;
      this.#limbs[limb] = sum; // modulo 2^32 by the array
      carry = sum > 0xffff_ffff ? 1 : 0;
    }
  }

  subtract(digest: Uint8Array): void {
    let borrow = 0;
    for (let limb = 7; limb >= 0; limb--) {
      const difference = (this.#limbs[limb] ?? 0) - word(digest, limb) - borrow;
      this.#limbs[limb] = difference;
      borrow = difference < 0 ? 1 : 0;
    }
  }

  /** 32 bytes, big-endian. */
  bytes(): Uint8Array {
    const out = new Uint8Array(32);
    const view = new DataView(out.buffer);
    for (const [limb, value] of this.#limbs.entries()) view.setUint32(4 * limb, value);
    return out;
  }
}

function word(digest: Uint8Array, limb: number): number {
  const at = 4 * limb;
  return (
    (((digest[at] ?? 0) << 24) |
      ((digest[at + 1] ?? 0) << 16) |
      ((digest[at + 2] ?? 0) << 8) |
      (digest[at + 3] ?? 0)) >>>
    0
  );
}
