// The coordinator's half of ceremonies: it carries messages, collects them, and files what the group has signed.
//
// It is trusted with nothing but to carry on: what it could change, leave out or repeat, custodians notice, and the
// worst that comes of it is that the ceremony fails. It keeps no state: what has been reached stands in the registry
// and in the custodians' stores, so another one, or the same after a crash, goes on from there.

import type { CID } from '../core/block.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import type { PeerName } from '../core/rpc.ts';
import type { TdecKek, UnsignedKek } from '../envelope/kek.ts';
import type { SignedRecord } from '../manifest/record.ts';
import type { RandomBytes } from '../threshold/group.ts';
import type { CustodyGroups } from './ceremony.ts';
import type { PolicyBody } from './policy.ts';
import type { CustodianStatus } from './wire.ts';

/** A record that is to be filed, with its place. */
export interface FiledAs {
  readonly key: string;
  readonly record: Pick<SignedRecord<unknown>, 'block'>;
}

/** The newest record of a version of a group's key as the registry has it. */
export interface FiledKek {
  readonly cid: CID;
  readonly bytes: Uint8Array;
  readonly kek: TdecKek;
}

export interface NewestKek extends FiledKek {
  /** For compare-and-set of what follows it. */
  readonly revision: number;
}

export interface CoordinatorPorts {
  readonly custodians: {
    /** One step of a session (ceremony-steps.ts). Throws what the custodian throws, PEER_UNREACHABLE, TIMEOUT. */
    step(
      peer: PeerName,
      at: { readonly session: Uint8Array; readonly protocol: string; readonly step: string },
      payload: unknown,
    ): Promise<unknown>;
    /** Shows a signed record; true when its shares are active there. */
    activate(peer: PeerName, record: Uint8Array): Promise<boolean>;
    order(peer: PeerName, order: Uint8Array): Promise<void>;
    status(peer: PeerName): Promise<CustodianStatus>;
    /** All of the cluster. */
    all(): readonly PeerName[];
    nameOf(peer: PeerName): string;
    /** Ed25519 key. Throws FORBIDDEN for a peer that is no custodian of the cluster. */
    keyOf(peer: PeerName): Uint8Array;
  };
  readonly registry: {
    /** Of the active key; undefined while the group has none. */
    kek(cg: string): Promise<NewestKek | undefined>;
    /** The newest record of each version, oldest version first. */
    versions(cg: string): Promise<readonly NewestKek[]>;
    /** The newest version of the policy that begins with `root`. */
    policy(root: CID | null): Promise<Pick<PolicyBody, 'refreshEveryBars'> | undefined>;
    /** First record and certificate of birth. */
    birth(cg: string): Promise<{ readonly kek: Uint8Array; readonly certificate: Uint8Array } | undefined>;
    lastCertificate(cg: string, ver: number): Promise<{ readonly n: number; readonly cid: CID } | undefined>;
    /** When the shares of a version were dealt (`CustodyBook.dealtBeat`). */
    dealtBeat(cg: string, ver: number): Promise<number | undefined>;
    /** Stores the blocks, then appends all together. Throws VERSION_CONFLICT when `subject` is not at `expected`. */
    file(subject: string, expected: number, records: readonly FiledAs[]): Promise<void>;
  };
  /** Signs the records' envelopes: who files them, not who vouches for them. */
  readonly signer: Signer;
  readonly groups: () => Promise<CustodyGroups>;
  readonly random: RandomBytes;
  /** Wall clock, ms since 1970. */
  readonly now: () => number;
  readonly beat: () => number;
}

/** Tells whoever waits how far it is. */
export type Say = (text: string) => void;

/** What came of a ceremony, for people and programs. */
export interface CeremonyResult {
  readonly ceremony: string;
  readonly cg: string;
  readonly kekVer: number;
  readonly shareGen: number;
  readonly t: number;
  readonly n: number;
  /** Names of the custodians whose shares of the generation are active. */
  readonly active: readonly string[];
  /** Names of those that will be repaired when they answer. */
  readonly behind: readonly string[];
  readonly tookMs: number;
}

/** Answers by place (from 1) and reasons by place. */
export interface Answers<T> {
  readonly given: ReadonlyMap<number, T>;
  readonly missing: ReadonlyMap<number, string>;
}

/** One session with its participants. */
export class Round {
  readonly ports: CoordinatorPorts;
  readonly session: Uint8Array;
  readonly protocol: string;
  readonly peers: readonly PeerName[];

  constructor(ports: CoordinatorPorts, protocol: string, peers: readonly PeerName[]) {
    this.ports = ports;
    this.session = ports.random(32);
    this.protocol = protocol;
    this.peers = peers;
  }

  /** The same payload to the participants at `places`, all at once. Never rejects. */
  async ask<T>(
    places: Iterable<number>,
    step: string,
    payload: unknown,
    read: (answer: unknown) => T,
  ): Promise<Answers<T>> {
    const given = new Map<number, T>();
    const missing = new Map<number, string>();
    await Promise.all(
      [...places].map(async (place) => {
        const peer = this.peers[place - 1] ?? '';
        try {
          const at = { session: this.session, protocol: this.protocol, step };
          given.set(place, read(await this.ports.custodians.step(peer, at, payload)));
        } catch (error) {
          missing.set(place, `${this.ports.custodians.nameOf(peer)}: ${describeError(error)}`);
        }
      }),
    );
    return { given: new Map([...given].toSorted(([a], [b]) => a - b)), missing };
  }
}

/** Throws KEY_UNAVAILABLE saying who is missing when fewer than `needed` answered. */
export function requireAnswers<T>(answers: Answers<T>, needed: number, what: string): ReadonlyMap<number, T> {
  if (answers.given.size >= needed) return answers.given;
  const why = [...answers.missing.values()].join('; ');
  throw new HoldfastError(
    'KEY_UNAVAILABLE',
    `${what}: ${answers.given.size} custodians did it, ${needed} are needed${why === '' ? '' : ` (${why})`}`,
    { details: { answered: answers.given.size, needed } },
  );
}

/** Shows the members the record that makes their shares active. Who does not answer takes it from the registry. */
export async function activateAll(
  ports: CoordinatorPorts,
  kek: UnsignedKek,
  record: Uint8Array,
): Promise<{ readonly active: readonly string[]; readonly behind: readonly string[] }> {
  const done = await Promise.all(
    kek.custodians.map(async ({ peer }) => {
      const name = ports.custodians.nameOf(peer);
      try {
        return { name, active: await ports.custodians.activate(peer, record) };
      } catch {
        return { name, active: false }; // it is behind, and shown as such
      }
    }),
  );
  const names = (active: boolean): string[] =>
    done.filter((each) => each.active === active).map(({ name }) => name);
  return { active: names(true), behind: names(false) };
}
