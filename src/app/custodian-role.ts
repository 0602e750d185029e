// The custodian role: shares of the keys, sealed at rest, an audit log, and nothing else.

import { describeError, HoldfastError } from '../core/errors.ts';
import type { PeerName } from '../core/rpc.ts';
import { fieldOf } from '../core/shape.ts';
import { AuditLog } from '../custody/audit-log.ts';
import type { NoteKey } from '../custody/checkpoint.ts';
import { Cosigning, type WitnessPeer } from '../custody/cosigning.ts';
import { type Disk, openFolder } from '../custody/disk.ts';
import { chooseSealing, createSealingKeyFile, describeSealing } from '../custody/sealing-key.ts';
import { serveAudit } from '../custody/serve-audit.ts';
import { ShareStore } from '../custody/share-store.ts';
import { Witness } from '../custody/witness.ts';
import { mustExist, type ProcessConfig } from '../local/layout.ts';
import { publicKeyOfPeer } from '../node/identity.ts';
import { memberOf } from '../node/membership.ts';
import type { DataDir } from '../node/stores.ts';
import { CustodianTempo } from './custodian-tempo.ts';
import type { RunningRole } from './daemon.ts';
import { type Member, peersWithRole, type RoleOptions, startMember, systemClock } from './member.ts';

/** Name in the share store of the highest beat heard; it is written once in so many beats. */
const beatMark = 'beat';
const beatMarkEvery = 60;

export async function startCustodianRole(
  config: ProcessConfig,
  options: RoleOptions = {},
): Promise<RunningRole> {
  await using stack = new AsyncDisposableStack();
  const member = stack.use(await startMember(config, 'client', options));
  const { sealing, shares } = await openShares(member);
  const log = stack.use(await openLog(member));
  const custodian = stack.use(await Custodian.start(member, shares, log));
  console.error(sealing);
  const owned = stack.move();
  return {
    info: { peer: member.peer.name, sealing: shares.source, ...custodian.facts() },
    ended: new Promise(() => undefined),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Opens the share store, or makes it on the first start of this custodian. */
async function openShares({ config, dir }: Member) {
  if (config.custodian === undefined)
    throw new HoldfastError('ARGUMENT_INVALID', `${config.name} is not configured as a custodian`);
  const { passphrasePath, sealingKeyPath } = config.custodian;
  const create = !dir.isBorn('shares');
  const sealing = await chooseSealing({
    credentialsDir: process.env['CREDENTIALS_DIRECTORY'],
    passphrasePath,
    keyPath: sealingKeyPath,
  });
  if (create && sealing.source === 'key-file') await createSealingKeyFile(sealing.path);
  const disk = await openStore(dir, 'shares');
  const shares = await ShareStore.open({ shares: disk, keys: disk, sealing, owner: config.peer, create });
  await dir.markBorn('shares');
  return { sealing: describeSealing(sealing), shares };
}

async function openLog({ config, dir, identity }: Member): Promise<AuditLog> {
  const log = await AuditLog.open({
    path: dir.storePath('audit'),
    origin: logName(config.cluster, config.name),
    signer: identity.signer,
    create: !dir.isBorn('audit'),
  });
  await dir.markBorn('audit');
  return log;
}

/** The directory of a store; one that was there before and is gone is damage, whatever it held. */
async function openStore(dir: DataDir, name: string): Promise<Disk> {
  const path = dir.storePath(name);
  if (dir.isBorn(name)) await mustExist(path);
  return openFolder(path);
}

/** Name of the log of a custodian, and of it as a witness of others. */
function logName(cluster: string, custodian: string): string {
  return `${cluster}/${custodian}`;
}

/** The parts of a custodian, joined: it hears the beat, and once a beat does what is due. */
class Custodian implements AsyncDisposable {
  readonly #member: Member;
  readonly #shares: ShareStore;
  readonly #log: AuditLog;
  readonly #tempo: CustodianTempo;
  readonly #cosigning: Cosigning;
  readonly #stop = new AbortController();
  #chores: Promise<void> = Promise.resolve();
  #busy = false;

  private constructor(member: Member, shares: ShareStore, log: AuditLog) {
    this.#member = member;
    this.#shares = shares;
    this.#log = log;
    this.#tempo = new CustodianTempo(systemClock, shares.mark(beatMark));
    this.#cosigning = new Cosigning(log, member.peer.rpc);
  }

  static async start(member: Member, shares: ShareStore, log: AuditLog): Promise<Custodian> {
    const custodian = new Custodian(member, shares, log);
    await custodian.#serve();
    await custodian.#noteStart();
    return custodian;
  }

  /** For the status of the process. */
  facts() {
    const held = this.#shares.shares().filter(({ status }) => status === 'active');
    return { auditEntries: this.#log.size, shares: held.length };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#chores;
  }

  async #serve(): Promise<void> {
    const { config, dir, identity, peer } = this.#member;
    const disk = await openStore(dir, 'witness');
    await dir.markBorn('witness');
    const witness = new Witness({
      disk,
      name: logName(config.cluster, config.name),
      signer: identity.signer,
      now: () => systemClock.now(),
    });
    serveAudit(peer.rpc, {
      log: this.#log,
      witness,
      cosigned: () => this.#cosigning.last?.note,
      allowReader: (from) => this.#allow(from, ['custodian', 'steward', 'door', 'operator']),
      logOf: (from) => this.#logOf(from),
    });
    peer.rpc.handle('custodian.beat', async ({ head }, { peer: from }) => {
      this.#allow(from, ['steward']);
      if (this.#tempo.hear(fieldOf(head, 'beat'))) this.#onBeat();
      return { head: {} };
    });
  }

  /** A start is an event like any other: shares become usable by it. */
  async #noteStart(): Promise<void> {
    const none = new Uint8Array(0);
    await this.#log.append({
      op: 'start',
      beat: this.#shares.mark(beatMark),
      at: systemClock.now(),
      cg: '-',
      kekVer: 0,
      shareGen: 0,
      reqHash: none,
      requester: none,
      capRoot: none,
      labels: none,
      purpose: '-',
      items: [],
      decision: 'granted',
      reason: '-',
    });
  }

  /** What a beat brings. One round at a time: a slow one skips beats, it does not pile up. */
  #onBeat(): void {
    if (this.#busy || this.#stop.signal.aborted) return;
    this.#busy = true;
    this.#chores = this.#round().finally(() => {
      this.#busy = false;
    });
  }

  /** Never rejects: what failed is said, and tried again with the next beat. */
  async #round(): Promise<void> {
    const { beat } = this.#tempo.now();
    const chores = [this.#keepBeat(beat), this.#haveCosigned()];
    for (const chore of await Promise.allSettled(chores))
      if (chore.status === 'rejected' && !this.#stop.signal.aborted)
        console.error(`beat ${beat}: ${describeError(chore.reason)}`);
  }

  async #keepBeat(beat: number): Promise<void> {
    if (beat >= this.#shares.mark(beatMark) + beatMarkEvery) await this.#shares.raise(beatMark, beat);
  }

  async #haveCosigned(): Promise<void> {
    const witnesses = this.#witnesses();
    if (!this.#cosigning.isDue(witnesses.length)) return;
    const { note } = await this.#cosigning.gather(witnesses, this.#stop.signal);
    await this.#log.keepCheckpoint(note);
  }

  /** The other custodians that are connected now. */
  #witnesses(): WitnessPeer[] {
    const { peer } = this.#member;
    const up = new Set(peer.connected());
    return peersWithRole(peer.membership(), 'custodian')
      .filter((other) => other !== peer.name && up.has(other))
      .map((other) => ({ peer: other, key: this.#logOf(other) }));
  }

  #logOf(peer: PeerName): NoteKey {
    const { name } = this.#allow(peer, ['custodian']);
    return { name: logName(this.#member.config.cluster, name), publicKey: publicKeyOfPeer(peer) };
  }

  #allow(peer: PeerName, roles: readonly string[]) {
    const found = memberOf(this.#member.peer.membership(), peer);
    if (found?.roles.some((role) => roles.includes(role)) === true) return found;
    throw new HoldfastError('FORBIDDEN', `${peer} is no ${roles.join(', ')} of this cluster`);
  }
}
