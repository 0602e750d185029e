// A certificate for 127.0.0.1 that signs itself (RFC 5280), made anew for each test: no private key lies in the
// repository and nothing expires.

import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';

/** Private key and certificate, both PEM. */
export function selfSigned(): { key: string; cert: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = sequence(oid('2a8648ce3d040302')); // ecdsa-with-SHA256
  const name = sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from('holdfast test')))));
  const validity = sequence(time('20200101000000Z'), time('21200101000000Z'));
  const address = der(0x87, Buffer.from([127, 0, 0, 1]));
  const basic = sequence(oid('551d13'), der(0x04, sequence(der(0x01, Buffer.from([0xff]))))); // a CA
  const alternative = sequence(oid('551d11'), der(0x04, sequence(address)));
  const serial = der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)]));
  const version = der(0xa0, der(0x02, Buffer.from([2])));
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  const extensions = der(0xa3, sequence(basic, alternative));
  const body = sequence(version, serial, algorithm, name, validity, name, spki, extensions);
  const signature = Buffer.concat([Buffer.from([0]), sign('sha256', body, privateKey)]);
  const certificate = sequence(body, algorithm, der(0x03, signature));
  const lines = certificate.toString('base64').match(/.{1,64}/g) ?? [];
  return {
    key: privateKey.export({ format: 'pem', type: 'pkcs8' }).toString(),
    cert: ['-----BEGIN CERTIFICATE-----', ...lines, '-----END CERTIFICATE-----', ''].join('\n'),
  };
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, ...parts);
}

function oid(hex: string): Buffer {
  return der(0x06, Buffer.from(hex, 'hex'));
}

function time(text: string): Buffer {
  return der(0x18, Buffer.from(text));
}

function der(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const size = content.length;
  const head =
    size < 128 ? [tag, size] : size < 256 ? [tag, 0x81, size] : [tag, 0x82, size >> 8, size & 0xff];
  return Buffer.concat([Buffer.from(head), content]);
}
