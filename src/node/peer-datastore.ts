// Where libp2p keeps what it knows of other peers. A cache: the membership names every address, so one that is
// damaged is moved aside and begun anew.

import { LevelDatastore } from 'datastore-level';
import { asHoldfastError } from '../core/errors.ts';
import type { PeerDatastore } from './peer.ts';
import { type DataDir, discardLevel } from './stores.ts';

const name = 'libp2p';

export interface OpenPeerDatastore extends AsyncDisposable {
  readonly datastore: PeerDatastore;
  /** Set when the one before was damaged. */
  readonly damage?: unknown;
}

/** Opens it, making it on first use. Throws FILE_UNREADABLE when neither works. */
export async function openPeerDatastore(dir: DataDir): Promise<OpenPeerDatastore> {
  try {
    return await openAt(dir, !dir.isBorn(name));
  } catch (damage) {
    await discardLevel(dir, name);
    try {
      return { ...(await openAt(dir, true)), damage };
    } catch (error) {
      throw asHoldfastError(error, 'FILE_UNREADABLE', `cannot open ${dir.storePath(name)}`);
    }
  }
}

async function openAt(dir: DataDir, createIfMissing: boolean): Promise<OpenPeerDatastore> {
  const datastore = new LevelDatastore(dir.storePath(name), { createIfMissing });
  await datastore.open();
  if (!dir.isBorn(name)) await dir.markBorn(name);
  return { datastore, [Symbol.asyncDispose]: () => datastore.close() };
}
