// Where the key comes from that seals a custodian's shares at rest. Configured as a place, never as a value: what
// stands in arguments or in the environment can be read by others and ends up in logs.
//
//   credential        a file that the service manager hands over in $CREDENTIALS_DIRECTORY, decrypted for this
//                     service only (systemd LoadCredentialEncrypted=, which may be bound to a TPM)
//   passphrase-file   a file with a passphrase, on another medium if you like
//   key-file          32 random bytes beside the shares: whoever copies the whole disk has both
//
// The first two pass through scrypt (RFC 7914), because people choose them; the last does not need it. A store
// remembers its kind: when the credential is missing, the next kind is not tried in its place.

import { constants } from 'node:fs';
import { type FileHandle, link, open, rename, unlink } from 'node:fs/promises';
import { hkdfSync, randomBytes, scrypt } from 'node:crypto';
import { basename, dirname, join } from 'node:path';
import { asBuffer, fromUtf8, toHex, utf8 } from '../core/bytes.ts';
import { HoldfastError } from '../core/errors.ts';
import { preimage, sha256 } from '../core/hash.ts';
import { codeOf } from './disk.ts';

export const sealingSources = ['credential', 'passphrase-file', 'key-file'] as const;
export type SealingSource = (typeof sealingSources)[number];

/** Where the master key of a share store comes from. */
export interface SealingConfig {
  readonly source: SealingSource;
  /** File to read. */
  readonly path: string;
}

/** Where the secrets of each kind lie. A new one of the same kind lies beside the old one, its name ending in `.next`. */
export interface SealingPlaces {
  /** $CREDENTIALS_DIRECTORY. */
  readonly credentialsDir?: string | undefined;
  readonly passphrasePath: string;
  readonly keyPath: string;
}

/** Name of the credential that a unit file passes on, and of the one that shall follow it. */
const credentialName = 'holdfast-sealing';
const nextCredentialName = 'holdfast-sealing-next';
const nextEnding = '.next';
const magic = 'holdfast-sealing-key-1';
const secretBytesMax = 4096;
const passphraseBytesMin = 12;
/** 32 MiB for a moment, three times over: what OWASP asks for where memory is short. */
const scryptCost = { N: 2 ** 15, r: 8, p: 3, maxmem: 64 * 1024 * 1024 } as const;

/**
 * The best source there is: the credential if the service manager hands one over, else the passphrase file if there
 * is one, else the key file.
 */
export async function chooseSealing(places: SealingPlaces): Promise<SealingConfig> {
  const { credentialsDir, passphrasePath, keyPath } = places;
  const credential = credentialsDir === undefined ? undefined : join(credentialsDir, credentialName);
  if (credential !== undefined && (await isThere(credential)))
    return { source: 'credential', path: credential };
  if (await isThere(passphrasePath)) return { source: 'passphrase-file', path: passphrasePath };
  return { source: 'key-file', path: keyPath };
}

/**
 * Secrets of that kind which are there, the present one first: a store that was being sealed anew when the power went
 * opens with one of the two.
 */
export async function sealingCandidates(
  places: SealingPlaces,
  source: SealingSource,
): Promise<readonly SealingConfig[]> {
  const found: SealingConfig[] = [];
  for (const path of pathsOf(places, source)) if (await isThere(path)) found.push({ source, path });
  return found;
}

/**
 * What a store that is sealed with a `from` shall be sealed with next, when that is to be a `to`: the secret that an
 * operator has put there, or a fresh key file.
 *
 * @throws ARGUMENT_MISSING saying where the new secret is to be put, FILE_UNREADABLE
 */
export async function nextSealing(
  places: SealingPlaces,
  from: SealingSource,
  to: SealingSource,
): Promise<SealingConfig> {
  const [present, next] = pathsOf(places, to);
  if (to === 'key-file' && next !== undefined) {
    await createSealingKeyFile(next); // one that an interrupted try has left serves as well
    return { source: to, path: next };
  }
  if (next !== undefined && (await isThere(next))) return { source: to, path: next };
  if (from !== to && present !== undefined && (await isThere(present))) return { source: to, path: present };
  const where =
    to === 'credential'
      ? `no credential ${from === to ? nextCredentialName : credentialName} is handed over by the service manager: add it to the unit and start the custodian again`
      : `put the new passphrase into ${next ?? ''}, mode 600`;
  throw new HoldfastError('ARGUMENT_MISSING', where);
}

/** Moves the secret that a store is sealed with now to the place of the present one. Throws FILE_UNREADABLE. */
export async function settleSealing(sealing: SealingConfig): Promise<SealingConfig> {
  const { source, path } = sealing;
  if (source === 'credential' || !path.endsWith(nextEnding)) return sealing;
  const present = path.slice(0, -nextEnding.length);
  try {
    await rename(path, present);
    await using directory = await open(dirname(path), 'r');
    await directory.sync();
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `${path} cannot be moved to ${present}`, { cause });
  }
  return { source, path: present };
}

function pathsOf(places: SealingPlaces, source: SealingSource): readonly string[] {
  const { credentialsDir, passphrasePath, keyPath } = places;
  if (source === 'passphrase-file') return [passphrasePath, `${passphrasePath}${nextEnding}`];
  if (source === 'key-file') return [keyPath, `${keyPath}${nextEnding}`];
  return credentialsDir === undefined
    ? []
    : [join(credentialsDir, credentialName), join(credentialsDir, nextCredentialName)];
}

/** What an operator must know about a source, in words. */
export function describeSealing({ source, path }: SealingConfig): string {
  switch (source) {
    case 'credential':
      return `shares are sealed under the credential ${basename(path)} of the service manager`;
    case 'passphrase-file':
      return `shares are sealed under the passphrase in ${path}; keep that file on another medium than the shares`;
    default:
      return `shares are sealed under ${path}, which lies on the same machine: whoever copies the whole disk has both. Fit for trying out; use a systemd credential or a passphrase file for secrets`;
  }
}

/**
 * The 32-byte master key of a store with this `salt` (16 bytes). Whoever gets it zeroes it.
 *
 * @throws FILE_NOT_FOUND, FILE_UNREADABLE; FORBIDDEN when others may read or write the file; RECORD_CORRUPT for a
 * damaged key file; ARGUMENT_INVALID for a passphrase under 12 bytes
 */
export async function readMasterKey(config: SealingConfig, salt: Uint8Array): Promise<Uint8Array> {
  const secret = await readClosedFile(config);
  try {
    if (config.source === 'key-file') {
      const key = parseKeyFile(secret, config.path);
      const master = new Uint8Array(hkdfSync('sha512', key, salt, utf8('CHORUS-SLURP-SEAL-v1'), 32));
      key.fill(0);
      return master;
    }
    const passphrase = withoutLineEnd(secret);
    if (passphrase.length < passphraseBytesMin) {
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        `${config.path} holds a passphrase of ${passphrase.length} bytes; at least ${passphraseBytesMin} expected`,
      );
    }
    return await derive(passphrase, salt);
  } finally {
    secret.fill(0);
  }
}

/**
 * Makes the key file at `path` with 32 random bytes, mode 600, unless one is there.
 *
 * @throws FILE_UNREADABLE when it cannot be written
 */
export async function createSealingKeyFile(path: string): Promise<void> {
  const temporary = `${path}.${process.pid}.${randomBytes(6).toString('hex')}.new`;
  const key = randomBytes(32);
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.chmod(0o600);
      await file.writeFile(`${magic}\n${toHex(key)}\n${checkOf(key)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    // A link never replaces: two that create at once share the first one's key.
    await link(temporary, path).catch((error: unknown) => {
      if (codeOf(error) !== 'EEXIST') throw error;
    });
    await using directory = await open(dirname(path), 'r');
    await directory.sync();
  } catch (cause) {
    throw new HoldfastError('FILE_UNREADABLE', `${path}: the sealing key cannot be created`, { cause });
  } finally {
    key.fill(0);
    await unlink(temporary).catch(() => undefined); // absent when it could not be written
  }
}

/** Reads a file only its owner may read, checked on the open handle so that nothing is exchanged in between. */
async function readClosedFile({ source, path }: SealingConfig): Promise<Uint8Array> {
  const file = await openPlain(path);
  try {
    const { mode, size } = await file.stat();
    if ((mode & constants.S_IFMT) !== constants.S_IFREG)
      throw new HoldfastError('FILE_UNREADABLE', `${path} is no plain file`);
    // systemd shows a credential to its service with mode 440 and keeps others out by the directory above.
    const closed = source === 'credential' ? 0o337 : 0o177;
    if ((mode & 0o7777 & closed) !== 0) {
      throw new HoldfastError(
        'FORBIDDEN',
        `${path}: mode ${(mode & 0o7777).toString(8)} lets others at the secret that seals the shares; set it to 600`,
        { details: { path } },
      );
    }
    if (size > secretBytesMax)
      throw new HoldfastError('RECORD_CORRUPT', `${path}: ${size} bytes, at most ${secretBytesMax} expected`);
    const bytes = new Uint8Array(size);
    const { bytesRead } = await file.read(bytes, 0, size, 0);
    return bytes.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function openPlain(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    throw codeOf(cause) === 'ENOENT'
      ? new HoldfastError('FILE_NOT_FOUND', `${path} is gone: without it the shares cannot be opened`, {
          details: { path },
          cause,
        })
      : new HoldfastError('FILE_UNREADABLE', `${path} cannot be read as a plain file`, { cause });
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await (await open(path, constants.O_RDONLY | constants.O_NONBLOCK)).close();
    return true;
  } catch (error) {
    return codeOf(error) !== 'ENOENT'; // there but unreadable is an error for later, not a reason to pass over it
  }
}

function parseKeyFile(bytes: Uint8Array, path: string): Uint8Array {
  const found = /^([^\n]*)\n([0-9a-f]{64})\n([0-9a-f]{16})\n$/.exec(textOf(bytes, path));
  if (found?.[1] !== magic) throw damaged(path, `it does not look like ${magic}`);
  const key = new Uint8Array(Buffer.from(found[2] ?? '', 'hex'));
  if (checkOf(key) !== found[3]) throw damaged(path, 'its checksum does not match');
  return key;
}

function textOf(bytes: Uint8Array, path: string): string {
  try {
    return fromUtf8(bytes);
  } catch {
    throw damaged(path, 'it is not text'); // without the cause, which may quote the bytes
  }
}

function damaged(path: string, why: string): HoldfastError {
  return new HoldfastError(
    'RECORD_CORRUPT',
    `${path}: the sealing key is damaged (${why}); restore it from a backup`,
  );
}

function checkOf(key: Uint8Array): string {
  return toHex(sha256(preimage('holdfast/sealing-key/v1', key))).slice(0, 16);
}

function withoutLineEnd(bytes: Uint8Array): Uint8Array {
  let end = bytes.length;
  while (end > 0 && (bytes[end - 1] === 0x0a || bytes[end - 1] === 0x0d)) end--;
  return bytes.subarray(0, end);
}

function derive(passphrase: Uint8Array, salt: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    scrypt(asBuffer(passphrase), salt, 32, scryptCost, (error, key) => {
      if (error === null) resolve(new Uint8Array(key.buffer, key.byteOffset, key.length));
      else reject(error);
    });
  });
}
