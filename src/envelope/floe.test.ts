import assert from 'node:assert/strict';
import { createCipheriv, createHmac, randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import * as fc from 'fast-check';
import { concat, sameBytes, uint32, uint64, utf8 } from '../core/bytes.ts';
import { isHoldfastError } from '../core/errors.ts';
import {
  ciphertextBytes,
  type FloeParameters,
  floeDecryptor,
  floeEncryptor,
  floeHeaderBytes,
  floeStandard,
  headerTagOf,
  plaintextSegmentBytes,
  segmentHeadBytes,
  segmentOverheadBytes,
  segmentsOf,
} from './floe.ts';
import { loadGcm } from './gcm.ts';

const small: FloeParameters = { segmentBytes: 64, rotationBits: 20 };
const rotating: FloeParameters = { segmentBytes: 40, rotationBits: 2 };
const aad = utf8('what this is for');

// All of this by the quicker engine where there is one: gcm.test.ts holds the two against each other.
await loadGcm();

test('a stream comes back as it was, segment by segment and from any place', () => {
  const dek = randomBytes(32);
  const plaintext = randomBytes(2 * plaintextSegmentBytes() + 5);
  const stream = seal(dek, aad, plaintext);
  assert.equal(stream.header.length, 74);
  assert.deepEqual(
    stream.segments.map((segment) => segment.length),
    [262_144, 262_144, 5 + segmentOverheadBytes],
  );
  const decryptor = floeDecryptor(dek, aad, stream.header);
  for (const position of [2, 0, 1]) {
    const opened = decryptor.decryptSegment(position, at(stream.segments, position), position === 2);
    const start = position * plaintextSegmentBytes();
    assert.ok(sameBytes(opened, plaintext.subarray(start, start + plaintextSegmentBytes())));
  }
});

const vectorsFolder = `${process.env['HOLDFAST_VECTORS'] ?? '../shared/vectors'}/floe`;
const skip = existsSync(vectorsFolder) ? false : `vectors absent: ${vectorsFolder}`;

describe('published vectors', { skip }, () => {
  const files = skip === false ? readdirSync(vectorsFolder) : [];
  const names = files
    .filter((file) => file.endsWith('_ct.txt'))
    .map((file) => file.slice(0, -'_ct.txt'.length));
  test('are all there', () => assert.equal(names.length, 17));
  for (const name of names) {
    test(name, () => {
      const plaintext = readHex(`${vectorsFolder}/${name}_pt.txt`);
      const ciphertext = readHex(`${vectorsFolder}/${name}_ct.txt`);
      const opened = openAll(
        new Uint8Array(32),
        utf8('This is AAD'),
        split(ciphertext, parametersOf(name)),
        parametersOf(name),
      );
      assert.deepEqual(opened, plaintext);
    });
  }
});

describe('properties', () => {
  test('every length, AAD and parameter comes back, has the length foretold, and equals a second implementation', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.uint8Array({ maxLength: 80 }),
        fc.integer({ min: 33, max: 90 }),
        fc.integer({ min: 0, max: 4 }),
        (plaintext, aad, segmentBytes, rotationBits) => {
          const parameters = { segmentBytes, rotationBits };
          const dek = randomBytes(32);
          const stream = seal(dek, aad, plaintext, parameters);
          const body = concat(...stream.segments);
          assert.equal(body.length, ciphertextBytes(plaintext.length, parameters));
          assert.equal(stream.segments.length, segmentsOf(plaintext.length, parameters));
          assert.deepEqual(openAll(dek, aad, stream, parameters), new Uint8Array(plaintext));
          const dumb = new DumbFloe(dek, aad, stream.header, parameters);
          assert.deepEqual(stream.header, dumb.header);
          stream.segments.forEach((segment, position) => {
            const start = position * plaintextSegmentBytes(parameters);
            const piece = plaintext.subarray(start, start + plaintextSegmentBytes(parameters));
            const isFinal = position === stream.segments.length - 1;
            assert.deepEqual(segment, dumb.seal(position, segment.slice(4, 16), piece, isFinal));
          });
        },
      ),
      { numRuns: 150 },
    );
  });

  test('the key changes where the specification says, up to the last position there is', () => {
    const dek = randomBytes(32);
    const { header } = seal(dek, aad, new Uint8Array(0), small);
    const decryptor = floeDecryptor(dek, aad, header, small);
    const dumb = new DumbFloe(dek, aad, header, small);
    for (const position of [0, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 1, 2 ** 32, 2 ** 33 + 7, 2 ** 40 - 1]) {
      const segment = dumb.seal(position, randomBytes(12), utf8(`segment ${position}`), true);
      assert.deepEqual(decryptor.decryptSegment(position, segment, true), utf8(`segment ${position}`));
    }
    assert.equal(dumb.epochs.size, 5);
  });

  test('two streams of the same content share no byte worth comparing', () => {
    const dek = randomBytes(32);
    const one = seal(dek, aad, new Uint8Array(100), small);
    const two = seal(dek, aad, new Uint8Array(100), small);
    assert.notDeepEqual(one.header, two.header);
    assert.notDeepEqual(one.segments[0], two.segments[0]);
  });
});

describe('nothing else opens', () => {
  const dek = randomBytes(32);
  const plaintext = randomBytes(150);
  const stream = seal(dek, aad, plaintext, small);

  test('a flipped bit anywhere in header or segments', () => {
    let refused = 0;
    for (let byte = 0; byte < stream.header.length; byte++) {
      for (const bit of [0, 7]) {
        const header = flipped(stream.header, byte, bit);
        refuses(() => floeDecryptor(dek, aad, header, small), 'header');
        refused++;
      }
    }
    const decryptor = floeDecryptor(dek, aad, stream.header, small);
    stream.segments.forEach((segment, position) => {
      for (let byte = 0; byte < segment.length; byte++) {
        for (const bit of [0, 7]) {
          const bad = flipped(segment, byte, bit);
          refuses(
            () => decryptor.decryptSegment(position, bad, position === stream.segments.length - 1),
            'segment',
            position,
          );
          refused++;
        }
      }
    });
    assert.equal(refused, 2 * (stream.header.length + concat(...stream.segments).length));
  });

  test('another AAD: each byte flipped, shortened, lengthened', () => {
    for (let byte = 0; byte < aad.length; byte++) {
      refuses(() => floeDecryptor(dek, flipped(aad, byte, 0), stream.header, small), 'header');
    }
    refuses(() => floeDecryptor(dek, aad.subarray(1), stream.header, small), 'header');
    refuses(() => floeDecryptor(dek, concat(aad, Uint8Array.of(0)), stream.header, small), 'header');
  });

  test('segments reordered, repeated, cut, extended, made final, or made not final', () => {
    const decryptor = floeDecryptor(dek, aad, stream.header, small);
    const [first, second] = [at(stream.segments, 0), at(stream.segments, 1)];
    const last = stream.segments.length - 1;
    const final = at(stream.segments, last);
    refuses(() => decryptor.decryptSegment(1, first, false), 'segment', 1);
    refuses(() => decryptor.decryptSegment(0, second, false), 'segment', 0);
    refuses(() => decryptor.decryptSegment(0, first, true), 'segment', 0);
    refuses(() => decryptor.decryptSegment(0, relabelled(first, first.length), true), 'segment', 0);
    refuses(() => decryptor.decryptSegment(last, final, false), 'segment', last);
    refuses(() => decryptor.decryptSegment(last - 1, final, true), 'segment', last - 1);
    for (let length = 0; length < final.length; length++) {
      refuses(() => decryptor.decryptSegment(last, final.subarray(0, length), true), 'segment', last);
      const shorter = final.slice(0, length);
      if (length >= 4)
        refuses(() => decryptor.decryptSegment(last, relabelled(shorter, length), true), 'segment', last);
    }
    refuses(() => decryptor.decryptSegment(last, concat(final, Uint8Array.of(0)), true), 'segment', last);
    refuses(() => decryptor.decryptSegment(0, concat(first, Uint8Array.of(0)), false), 'segment', 0);
    refuses(() => decryptor.decryptSegment(last, new Uint8Array(65), true), 'segment', last);
  });

  test('a segment from another stream, even under the same key and AAD', () => {
    const other = seal(dek, aad, plaintext, small);
    const decryptor = floeDecryptor(dek, aad, stream.header, small);
    other.segments.forEach((segment, position) => {
      refuses(
        () => decryptor.decryptSegment(position, segment, position === other.segments.length - 1),
        'segment',
        position,
      );
    });
  });

  test('headers cut, extended or of other parameters', () => {
    for (const length of [0, 10, 73]) {
      refuses(() => floeDecryptor(dek, aad, stream.header.subarray(0, length), small), 'header');
    }
    refuses(() => floeDecryptor(dek, aad, concat(stream.header, Uint8Array.of(0)), small), 'header');
    refuses(() => floeDecryptor(dek, aad, stream.header), 'header');
  });

  // A ciphertext that opens under two keys ("salamander") exists for plain GCM; here the header tag stops it.
  test('another key, before any segment is looked at', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (other) => {
        refuses(() => floeDecryptor(other, aad, stream.header, small), 'header');
      }),
    );
    for (let byte = 0; byte < 32; byte++) {
      refuses(() => floeDecryptor(flipped(dek, byte, 3), aad, stream.header, small), 'header');
    }
  });

  test('a segment crafted under a second key does not open through the first one’s header', () => {
    const second = randomBytes(32);
    const crafted = new DumbFloe(second, aad, stream.header, small);
    const segment = crafted.seal(0, randomBytes(12), utf8('salamander'), true);
    refuses(() => floeDecryptor(second, aad, stream.header, small), 'header');
    refuses(
      () => floeDecryptor(dek, aad, stream.header, small).decryptSegment(0, segment, true),
      'segment',
      0,
    );
  });
});

describe('the encryptor', () => {
  test('takes positions in order, once, and nothing after the final one', () => {
    const encryptor = floeEncryptor(randomBytes(32), aad, randomBytes, small);
    const full = new Uint8Array(plaintextSegmentBytes(small));
    assert.throws(() => encryptor.encryptSegment(1, full, false), /position: the next one/);
    encryptor.encryptSegment(0, full, false);
    assert.throws(() => encryptor.encryptSegment(0, full, false), /position: the next one/);
    assert.throws(() => encryptor.encryptSegment(1, full.subarray(1), false), /plaintext/);
    assert.throws(() => encryptor.encryptSegment(1, new Uint8Array(full.length + 1), true), /plaintext/);
    encryptor.encryptSegment(1, full, true);
    assert.throws(() => encryptor.encryptSegment(2, full, true), /after it was closed/);
  });

  test('does not keep or change what it is given', () => {
    const dek = randomBytes(32);
    const kept = new Uint8Array(dek);
    const changingAad = new Uint8Array(aad);
    const encryptor = floeEncryptor(dek, changingAad, randomBytes, small);
    assert.ok(sameBytes(dek, kept));
    dek.fill(0);
    changingAad.fill(0);
    const segment = encryptor.encryptSegment(0, utf8('x'), true);
    const opened = floeDecryptor(kept, aad, encryptor.header, small).decryptSegment(0, segment, true);
    assert.deepEqual(opened, utf8('x'));
    assert.deepEqual(encryptor.headerTag, headerTagOf(encryptor.header));
  });

  test('writes into a target that it is given, and only there', () => {
    const dek = randomBytes(32);
    const encryptor = floeEncryptor(dek, aad, randomBytes, small);
    assert.throws(() => encryptor.encryptSegment(0, utf8('x'), true, new Uint8Array(32)), /target/);
    const memory = new Uint8Array(60).fill(7);
    const segment = encryptor.encryptSegment(0, utf8('x'), true, memory.subarray(10, 50));
    assert.equal(segment.buffer, memory.buffer);
    assert.equal(segment.length, 33);
    assert.deepEqual(memory.subarray(0, 10), new Uint8Array(10).fill(7));
    assert.deepEqual(memory.subarray(43), new Uint8Array(17).fill(7));
    assert.deepEqual(
      floeDecryptor(dek, aad, encryptor.header, small).decryptSegment(0, segment, true),
      utf8('x'),
    );
  });

  test('refuses keys and parameters that are none', () => {
    assert.throws(() => floeEncryptor(new Uint8Array(31), aad, randomBytes), /dek/);
    assert.throws(() => floeEncryptor(new Uint8Array(33), aad, randomBytes), /dek/);
    assert.throws(
      () => floeEncryptor(new Uint8Array(32), aad, randomBytes, { segmentBytes: 32, rotationBits: 20 }),
      /segmentBytes/,
    );
    assert.throws(() => floeEncryptor(new Uint8Array(32), aad, () => new Uint8Array(31)), /iv/);
  });
});

test('plaintext where its ciphertext will lie, and back in the same place', () => {
  const dek = randomBytes(32);
  for (const size of [0, 1, 200, 30_000, plaintextSegmentBytes()]) {
    const plain = randomBytes(size);
    const encryptor = floeEncryptor(dek, aad, randomBytes);
    const frame = new Uint8Array(size + segmentOverheadBytes + 5);
    frame.set(plain, segmentHeadBytes);
    const within = frame.subarray(segmentHeadBytes, segmentHeadBytes + size);
    const segment = encryptor.encryptSegment(0, within, true, frame);
    const decryptor = floeDecryptor(dek, aad, encryptor.header);
    const apart = decryptor.decryptSegment(0, segment, true);
    assert.ok(sameBytes(apart, plain));
    assert.notEqual(apart.buffer, frame.buffer);
    const there = decryptor.decryptSegment(0, segment, true, true);
    assert.ok(sameBytes(there, plain));
    assert.equal(there.buffer, frame.buffer);
  }
});

test('what does not authenticate in place leaves no plaintext there', () => {
  const dek = randomBytes(32);
  const encryptor = floeEncryptor(dek, aad, randomBytes);
  const segment = Uint8Array.from(encryptor.encryptSegment(0, randomBytes(5000), true));
  segment[segment.length - 1] = (segment.at(-1) ?? 0) ^ 1;
  const decryptor = floeDecryptor(dek, aad, encryptor.header);
  assert.throws(
    () => decryptor.decryptSegment(0, segment, true, true),
    (error) => isHoldfastError(error, 'DECRYPT_FAILED'),
  );
  assert.ok(segment.subarray(segmentHeadBytes, segmentHeadBytes + 5000).every((byte) => byte === 0));
});

test('a disposed decryptor opens nothing any more', () => {
  const dek = randomBytes(32);
  const stream = seal(dek, aad, utf8('x'), small);
  const decryptor = floeDecryptor(dek, aad, stream.header, small);
  decryptor[Symbol.dispose]();
  assert.throws(() => decryptor.decryptSegment(0, at(stream.segments, 0), true), /after it was closed/);
});

test('lengths at the borders of a segment', () => {
  const full = plaintextSegmentBytes();
  assert.equal(full, 262_112);
  assert.deepEqual(
    [0, 1, full, full + 1, 2 * full].map((bytes) => segmentsOf(bytes)),
    [1, 1, 1, 2, 2],
  );
  assert.equal(ciphertextBytes(0), 32);
  assert.equal(ciphertextBytes(full), floeStandard.segmentBytes);
});

interface Stream {
  readonly header: Uint8Array;
  readonly segments: readonly Uint8Array[];
}

function seal(dek: Uint8Array, aad: Uint8Array, plaintext: Uint8Array, parameters = floeStandard): Stream {
  const encryptor = floeEncryptor(dek, aad, randomBytes, parameters);
  const full = plaintextSegmentBytes(parameters);
  const count = segmentsOf(plaintext.length, parameters);
  const segments = Array.from({ length: count }, (_, position) =>
    encryptor.encryptSegment(
      position,
      plaintext.subarray(position * full, (position + 1) * full),
      position === count - 1,
    ),
  );
  return { header: encryptor.header, segments };
}

function openAll(dek: Uint8Array, aad: Uint8Array, stream: Stream, parameters: FloeParameters): Uint8Array {
  const decryptor = floeDecryptor(dek, aad, stream.header, parameters);
  const last = stream.segments.length - 1;
  return concat(
    ...stream.segments.map((segment, position) =>
      decryptor.decryptSegment(position, segment, position === last),
    ),
  );
}

function split(ciphertext: Uint8Array, parameters: FloeParameters): Stream {
  const segments: Uint8Array[] = [];
  for (let offset = floeHeaderBytes; offset < ciphertext.length; offset += parameters.segmentBytes) {
    segments.push(ciphertext.subarray(offset, offset + parameters.segmentBytes));
  }
  return { header: ciphertext.subarray(0, floeHeaderBytes), segments };
}

function parametersOf(name: string): FloeParameters {
  if (name.endsWith('_4K')) return { segmentBytes: 4096, rotationBits: 20 };
  if (name.endsWith('_64')) return small;
  if (name.endsWith('_rotation')) return rotating;
  return { segmentBytes: 40, rotationBits: 20 };
}

function readHex(path: string): Uint8Array {
  return new Uint8Array(Buffer.from(readFileSync(path, 'utf8').trim(), 'hex'));
}

function flipped(bytes: Uint8Array, byte: number, bit: number): Uint8Array {
  const out = new Uint8Array(bytes);
  out[byte] = (out[byte] ?? 0) ^ (1 << bit);
  return out;
}

/** The segment with another length word. */
function relabelled(segment: Uint8Array, word: number): Uint8Array {
  return concat(uint32(word), segment.subarray(4));
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  assert.ok(item !== undefined);
  return item;
}

function refuses(open: () => unknown, part: 'header' | 'segment', position?: number): void {
  assert.throws(open, (error: unknown) => {
    assert.ok(isHoldfastError(error, 'DECRYPT_FAILED'));
    assert.equal(error.details['part'], part);
    assert.equal(error.details['position'], position);
    assert.match(error.message, part === 'header' ? /^header: / : new RegExp(`^segment ${position}: `));
    return true;
  });
}

/** FLOE once more, slowly and straight from the specification: no caching, no KeyObjects, raw HMAC. */
class DumbFloe {
  readonly epochs = new Set<string>();
  readonly #dek: Uint8Array;
  readonly #aad: Uint8Array;
  readonly #head: Uint8Array;
  readonly #rotationBits: bigint;

  constructor(dek: Uint8Array, aad: Uint8Array, header: Uint8Array, parameters: FloeParameters) {
    this.#dek = dek;
    this.#aad = aad;
    this.#head = concat(
      Uint8Array.of(0, 0),
      uint32(parameters.segmentBytes),
      uint32(32),
      header.subarray(10, 42),
    );
    this.#rotationBits = BigInt(parameters.rotationBits);
  }

  get header(): Uint8Array {
    return concat(this.#head, this.#kdf(this.#dek, utf8('HEADER_TAG:'), 32));
  }

  seal(position: number, nonce: Uint8Array, plaintext: Uint8Array, isFinal: boolean): Uint8Array {
    const epoch = (BigInt(position) >> this.#rotationBits) << this.#rotationBits;
    this.epochs.add(epoch.toString());
    const message = this.#kdf(this.#dek, utf8('MESSAGE_KEY:'), 48);
    const key = this.#kdf(message, concat(utf8('DEK:'), uint64(Number(epoch))), 32);
    const cipher = createCipheriv('aes-256-gcm', key, nonce);
    cipher.setAAD(concat(uint64(position), Uint8Array.of(isFinal ? 1 : 0)));
    const ciphertext = concat(cipher.update(plaintext), cipher.final());
    const word = isFinal ? ciphertext.length + segmentOverheadBytes : 0xffff_ffff;
    return concat(uint32(word), nonce, ciphertext, cipher.getAuthTag());
  }

  #kdf(key: Uint8Array, purpose: Uint8Array, sizeBytes: number): Uint8Array {
    const info = concat(this.#head, purpose, this.#aad, Uint8Array.of(1));
    return new Uint8Array(createHmac('sha384', key).update(info).digest().subarray(0, sizeBytes));
  }
}
