// A token of SoftHSM in a directory of its own. The library reads its configuration once per process, when it is
// first initialized, so a test file makes all its tokens before it opens one.

import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const places = [
  '/usr/lib/softhsm/libsofthsm2.so',
  '/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so',
  '/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so',
  '/usr/lib64/pkcs11/libsofthsm2.so',
  '/opt/homebrew/lib/softhsm/libsofthsm2.so',
];

/** Path of SoftHSM's module, or of the one that HOLDFAST_SOFTHSM names; undefined when there is none. */
export const softTokenModule = [process.env['HOLDFAST_SOFTHSM'] ?? '', ...places].find(
  (path) => path !== '' && existsSync(path),
);

export const softTokenSkip =
  softTokenModule === undefined ? 'SoftHSM2 is not installed (Debian: softhsm2)' : undefined;

export interface SoftTokens extends AsyncDisposable {
  readonly modulePath: string;
  /** Of a token that `labels` named; every one has the same PIN. */
  readonly pinFile: string;
  readonly folder: string;
}

/** Makes one token per label and points this process to them. */
export async function makeSoftTokens(labels: readonly string[]): Promise<SoftTokens> {
  const folder = await mkdtemp(join(tmpdir(), 'holdfast-token-'));
  const config = join(folder, 'softhsm2.conf');
  const pinFile = join(folder, 'pin');
  await mkdir(join(folder, 'tokens'));
  await writeFile(config, `directories.tokendir = ${join(folder, 'tokens')}\nlog.level = ERROR\n`);
  await writeFile(pinFile, '93175\n', { mode: 0o600 });
  process.env['SOFTHSM2_CONF'] = config;
  for (const label of labels)
    await promisify(execFile)(
      'softhsm2-util',
      `--init-token --free --so-pin 0123456789 --pin 93175 --label ${label}`.split(' '),
    );
  return {
    modulePath: softTokenModule ?? '',
    pinFile,
    folder,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
