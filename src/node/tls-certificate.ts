// The certificate of a TLS connection between peers: a key of its own, and in an extension the peer's key that
// vouches for it (libp2p specs, tls/tls.md).
//
//   certificate ─ … the certificate's key … extension ─ the peer's public key, its signature
//
// The signature is over the certificate's key. TLS itself proves that the other side has that key, so the other
// side is the peer. Nobody else signs: whom to trust is told by the membership, which names peer ids.
//
// It is written and read here because the general libraries for certificates are more than a quarter of all the
// code that a process would load.

import { generateKeyPair, type KeyObject, randomBytes, sign, X509Certificate } from 'node:crypto';
import { promisify } from 'node:util';
import { publicKeyFromProtobuf, publicKeyToProtobuf } from '@libp2p/crypto/keys';
import type { PeerId, PrivateKey } from '@libp2p/interface';
import { peerIdFromPublicKey } from '@libp2p/peer-id';
import { concat, sameBytes, utf8 } from '../core/bytes.ts';
import { day } from '../core/clock.ts';
import { HoldfastError } from '../core/errors.ts';
import { bitString, type Der, der, integer, readAll, readDer, tags, time } from './der.ts';

export interface TlsCertificate {
  /** PEM. */
  readonly cert: string;
  /** Of the certificate, not of the peer. */
  readonly key: KeyObject;
}

/** The same for all: a clock that was wrong when the process began must not make a certificate nobody takes. */
const validFrom = Date.UTC(2000, 0, 1);
/** As long as other implementations have it: what ends is the membership. */
const validForMs = 36_500 * day;
const serialBytes = 8;
/** An empty serial number or one with a first bit set has two spellings. */
const serialFirst = 0x40;

const signaturePrefix = utf8('libp2p-tls-handshake:');
/** 1.3.6.1.4.1.53594.1.1 */
const peerKeyOid = Uint8Array.of(0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xa2, 0x5a, 0x01, 0x01);
/** ecdsa-with-SHA256, 1.2.840.10045.4.3.2 */
const algorithmOid = Uint8Array.of(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02);
/** commonName, 2.5.4.3 */
const nameOid = Uint8Array.of(0x55, 0x04, 0x03);
/** Explicit tags of a certificate's version and extensions (RFC 5280, 4.1). */
const versionTag = 0xa0;
const extensionsTag = 0xa3;
const version3 = 2;

/** A new certificate of the peer with `identity`, valid from the year 2000 until long after `now` (milliseconds since 1970). */
export async function makeCertificate(identity: PrivateKey, now: number): Promise<TlsCertificate> {
  const pair = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  const spki = spkiOf(pair.publicKey);
  const algorithm = der(tags.sequence, der(tags.oid, algorithmOid));
  const signed = der(
    tags.sequence,
    der(versionTag, integer(Uint8Array.of(version3))),
    integer(Uint8Array.of(serialFirst, ...randomBytes(serialBytes))),
    algorithm,
    name('libp2p'),
    der(tags.sequence, time(validFrom), time(now + validForMs)),
    name('libp2p'),
    spki,
    der(extensionsTag, der(tags.sequence, await extension(identity, spki))),
  );
  const signature = sign('sha256', signed, pair.privateKey);
  const bytes = der(tags.sequence, signed, algorithm, bitString(signature));
  return { cert: new X509Certificate(bytes).toString(), key: pair.privateKey };
}

/**
 * The peer whose certificate `raw` (DER) is, as it came in a handshake at `now` (milliseconds since 1970).
 * Throws RECORD_INVALID when it is malformed, not valid at that time, not signed by itself, or not vouched for.
 */
export async function peerOfCertificate(raw: Uint8Array, now: number): Promise<PeerId> {
  const certificate = parseCertificate(raw);
  // `!(… <= …)` refuses a date that cannot be read, too.
  if (!(Date.parse(certificate.validFrom) <= now)) throw invalid('it is not valid yet');
  if (!(now <= Date.parse(certificate.validTo))) throw invalid('it is not valid any more');
  if (!certificate.verify(certificate.publicKey)) throw invalid('it is not signed by its own key');
  const [key, signature, ...more] = readAll(readDer(peerKeyExtension(raw), tags.sequence));
  if (key?.tag !== tags.octetString || signature?.tag !== tags.octetString || more.length > 0)
    throw invalid('its peer key is malformed');
  const peerKey = parsePeerKey(key.content);
  // The key that TLS has proven: as OpenSSL reads it, not as it is spelt.
  const vouchedFor = concat(signaturePrefix, spkiOf(certificate.publicKey));
  if (!(await peerKey.verify(vouchedFor, signature.content)))
    throw invalid('the peer key does not vouch for it');
  return peerIdFromPublicKey(peerKey);
}

function parseCertificate(raw: Uint8Array): X509Certificate {
  try {
    return new X509Certificate(raw);
  } catch (cause) {
    throw invalid('it cannot be read', cause);
  }
}

function parsePeerKey(bytes: Uint8Array) {
  try {
    return publicKeyFromProtobuf(bytes);
  } catch (cause) {
    throw invalid('its peer key cannot be read', cause);
  }
}

/** The content of the extension. Any other one that is critical is refused, as the specification asks. */
function peerKeyExtension(raw: Uint8Array): Uint8Array {
  const [signed] = readAll(readDer(raw, tags.sequence));
  const parts = signed?.tag === tags.sequence ? readAll(signed.content) : [];
  const extensions = parts.find(({ tag }) => tag === extensionsTag);
  const all = extensions === undefined ? [] : readAll(readDer(extensions.content, tags.sequence));
  let found: Uint8Array | undefined;
  for (const { content } of all) {
    const fields = readAll(content);
    if (isPeerKey(fields[0])) {
      if (found !== undefined) throw invalid('it has two peer keys');
      found = fields.find(({ tag }) => tag === tags.octetString)?.content;
    } else if (fields.some(({ tag, content: [flag] }) => tag === tags.boolean && flag !== 0)) {
      throw invalid('it has a critical extension that is not known here');
    }
  }
  if (found === undefined) throw invalid('it has no peer key');
  return found;
}

function isPeerKey(oid: Der | undefined): boolean {
  return oid?.tag === tags.oid && sameBytes(oid.content, peerKeyOid);
}

async function extension(identity: PrivateKey, spki: Uint8Array): Promise<Uint8Array> {
  const signature = await identity.sign(concat(signaturePrefix, spki));
  const value = der(
    tags.sequence,
    der(tags.octetString, publicKeyToProtobuf(identity.publicKey)),
    der(tags.octetString, signature),
  );
  return der(
    tags.sequence,
    der(tags.oid, peerKeyOid),
    der(tags.boolean, Uint8Array.of(0xff)),
    der(tags.octetString, value),
  );
}

function name(text: string): Uint8Array {
  const common = der(tags.sequence, der(tags.oid, nameOid), der(tags.utf8String, utf8(text)));
  return der(tags.sequence, der(tags.set, common));
}

function spkiOf(key: KeyObject): Uint8Array {
  return new Uint8Array(key.export({ type: 'spki', format: 'der' }));
}

function invalid(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `certificate: ${message}`, { cause });
}
