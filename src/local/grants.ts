// What the operator of a local cluster lets its own processes ask of custodians: the writer everything, the door what
// it needs to seal for plain HTTP callers and to let a canary fly. For a while only: what is half over is renewed by each
// `up`, and by the supervisor of a cluster that runs on.

import { join } from 'node:path';
import { pulseFile } from '../backbeat/pulse-file.ts';
import { encodeCbor } from '../core/block.ts';
import { sameBytes } from '../core/bytes.ts';
import { day } from '../core/clock.ts';
import { describeError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { type CapabilityLink, parseCapability, signCapability } from '../custody/capability.ts';
import { formatCapabilityFile, parseCapabilityFile } from '../custody/capability-file.ts';
import { fullCapability } from '../custody/default-policy.ts';
import { parsePin } from '../custody/directory-pin.ts';
import { groupNameOf, isSuccessorName } from '../custody/group-name.ts';
import { makeDirectory, readSmallIfThere, writeWhole } from '../files/whole.ts';
import { openIdentity, publicKeyOfPeer } from '../node/identity.ts';
import { type Layout, layoutPaths } from './layout.ts';

const lifeMs = 30 * day;
/** Far more often than fifteen days, so that a failure can be seen and mended before anything ends. */
const renewMs = day;

/** Signs what is missing, or more than half over. Nothing to do in a cluster without custodians. Throws as reading the keys does. */
export async function renewGrants(layout: Layout): Promise<void> {
  const { dir, file } = layout;
  const paths = layoutPaths(dir);
  const door = file.processes.find(({ role }) => role === 'door');
  if (!file.processes.some(({ role }) => role === 'custodian') || door === undefined) return;
  await makeDirectory(paths.custody);
  await makeDirectory(join(paths.custody, 'capabilities'));
  const { signer: operator } = await openIdentity(paths.operatorKey);
  const { signer: writer } = await openIdentity(paths.writerKey);
  const beat = await lastBeat(paths.data('steward'));
  const lifeBeats = Math.ceil(lifeMs / file.settings.beatMs);
  const cg = presentGroup(layout);
  const grant = { cg, iss: operator.publicKey, nbf: 0, exp: beat + lifeBeats };
  const full = fullCapability({ ...grant, aud: writer.publicKey });
  const own = fullCapability({ ...grant, aud: publicKeyOfPeer(door.peer), cls: 'confidential' });
  const half = beat + lifeBeats / 2;
  await renew(paths.capability('writer'), full, operator, half);
  await renew(paths.capability('door'), { ...own, ops: ['read', 'write', 'audit'] }, operator, half);
}

/** The custody group of now, as the command line has last seen it; the first one of the cluster before that. Throws RECORD_INVALID. */
export function presentGroup({ dir, file }: Layout): string {
  const first = groupNameOf(file.cluster);
  const text = readSmallIfThere(layoutPaths(dir).custodyPin);
  const pinned = text === undefined ? first : parsePin(text).cg;
  return isSuccessorName(pinned, first) ? pinned : first;
}

/** Renews once a day until disposed. `onTrouble` is told of each time that failed, in words; the next day it is tried again. */
export function keepGrants(layout: Layout, onTrouble: (text: string) => void): AsyncDisposable {
  let renewing: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    renewing = renewing
      .then(() => renewGrants(layout))
      .catch((error: unknown) =>
        onTrouble(`leave to ask custodians cannot be renewed: ${describeError(error)}`),
      );
  }, renewMs).unref();
  return {
    [Symbol.asyncDispose]: () => {
      clearInterval(timer);
      return renewing;
    },
  };
}

async function renew(path: string, wanted: CapabilityLink, operator: Signer, half: number): Promise<void> {
  const links = await readLinks(path);
  const [present] = links.map(parseCapability);
  // A chain, one for another key, or one that gives something else was put there by a person.
  const isEarlier = present !== undefined && isSuccessorName(wanted.cg, present.cg);
  const terms = present && termsOf(isEarlier ? { ...present, cg: wanted.cg } : present);
  const isOurs = links.length <= 1 && (terms === undefined || sameBytes(terms, termsOf(wanted)));
  if (!isOurs || (present !== undefined && !isEarlier && present.exp > half)) return;
  await writeWhole(path, formatCapabilityFile([signCapability(wanted, operator)]), 0o600);
}

async function readLinks(path: string): Promise<readonly Uint8Array[]> {
  try {
    return await readCapability(path);
  } catch (error) {
    if (isHoldfastError(error, 'RECORD_INVALID')) return []; // it is of no use: the operator signs it anew
    throw error;
  }
}

/** To whom a link gives what: all but how long. */
function termsOf({ cg, aud, scope, ops, max }: CapabilityLink): Uint8Array {
  return encodeCbor({ cg, aud, scope, ops, max });
}

/** The capability in a file; no links when there is no file. Throws RECORD_INVALID for a damaged one. */
export async function readCapability(path: string): Promise<readonly Uint8Array[]> {
  const text = readSmallIfThere(path);
  return text === undefined ? [] : parseCapabilityFile(text);
}

/** The beat that the cluster's pulse had written down when it stopped; 0 before its first start. */
async function lastBeat(stewardData: string): Promise<number> {
  // A damaged one is begun anew by the Pulse, at 0.
  const record = await pulseFile(join(stewardData, 'pulse.json'), () => undefined).read();
  return record?.nextIndex ?? 0;
}
