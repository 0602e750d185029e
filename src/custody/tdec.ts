// Threshold custody as a provider of branch keys: made with the group's public key alone, given back by t custodians.
//
//   create   encrypt a random element to Y, derive the key from it                       nobody is asked
//   unwrap   one signed request for a batch ─▶ the t quickest custodians ─▶ combine ─▶ match the commitment
//
// The request goes to each custodian as it is, whoever carries it; the answers are sealed to a key that lives as long
// as the request. Nothing of the group's private key, and no other partial than these, is ever here.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { encodeCbor } from '../core/block.ts';
import { toHex } from '../core/bytes.ts';
import { type Clock, second } from '../core/clock.ts';
import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { Signer } from '../core/hash.ts';
import { custodyRequestBytesMax, unwrapItemsMax } from '../core/limits.ts';
import type { PeerName } from '../core/rpc.ts';
import type { KekCustodian, TdecKek } from '../envelope/kek.ts';
import { type BkLabel, encodeLabel, parseLabel } from '../envelope/label.ts';
import type { BranchKeyBody } from '../envelope/records.ts';
import type { HashGroup, RandomBytes } from '../threshold/group.ts';
import { hpkeKeyBytes, openerOf } from '../threshold/hpke.ts';
import { branchKeyOf, encrypt } from '../threshold/tdh2.ts';
import { answerOpener, openAnswerFirst } from './answer.ts';
import { listsWrap } from './certificate.ts';
import type { CustodyDirectory } from './directory.ts';
import { gather, Speeds } from './gather.ts';
import { assertBatch, legsOf, refusedKey } from './legs.ts';
import type { Misconduct } from './misconduct.ts';
import type {
  KekProvider,
  NewKey,
  NewKeyScope,
  ProviderDescription,
  ProviderHealth,
  Unwrapped,
  UnwrapRequest,
} from './provider.ts';
import { type Approval, encodeRequest, requestHash, signRequest } from './request.ts';
import { type Again, otherGeneration, Tally, type TallyItem } from './tally.ts';

/** What is known of the group, from where it is kept. */
export interface CustodySource {
  /** As it is known now. */
  directory(): CustodyDirectory;
  /** Reads again what the registry has. Throws what reading it throws. */
  reload(signal?: AbortSignal): Promise<void>;
}

/** The way to custodians: directly, or through somebody who relays. */
export interface CustodyTransport {
  /** Sends a signed request and resolves with the sealed answer. Throws PEER_UNREACHABLE, TIMEOUT, and what the custodian throws. */
  ask(peer: PeerName, request: Uint8Array, signal: AbortSignal): Promise<Uint8Array>;
  /** Name of a custodian for people. */
  nameOf(peer: PeerName): string;
}

/**
 * Gives signatures of others under a request that is about to be sent, for the keys that these labels name. Each try is
 * another request, good for two beats.
 */
export type Approve = (encoded: Uint8Array, labels: readonly BkLabel[]) => Promise<readonly Approval[]>;

export interface TdecOptions {
  readonly source: CustodySource;
  readonly transport: CustodyTransport;
  /** Who asks: signs requests. */
  readonly signer: Signer;
  /** Capability links of who asks, outermost first; used when a request brings none. */
  readonly chain: () => Promise<readonly Uint8Array[]>;
  /** Default: nobody approves anything. */
  readonly approve?: Approve | undefined;
  /** The beat of now, for a second try when the first was dated too early. Default: that of the request. */
  readonly beat?: (signal: AbortSignal | undefined) => Promise<number>;
  /** Default: libsodium's ristretto255, loaded when it is first needed. */
  readonly group?: () => Promise<HashGroup>;
  readonly random: RandomBytes;
  readonly clock: Pick<Clock, 'monotonic'>;
  /** Verifies each proof before it uses a partial. Default false: only when a key does not match its commitment. */
  readonly eager?: boolean;
  /** After this long without an answer further custodians are asked, ms; and a little for each item. Default 40. */
  readonly hedgeMs?: number;
  /**
   * Told of each request by which keys were opened, with the peers whose answers were used. The keys are given when it
   * resolves: nobody has one whose receipt is not written. Must not reject.
   */
  readonly onOpened?: (opened: Opened) => Promise<void>;
  /** Told once of each custodian that was caught. Must not throw. */
  readonly onMisconduct?: (evidence: Misconduct) => void;
}

/** What an auditor holds against the custodians' logs. */
export interface Opened {
  /** SHA-512 of the request. */
  readonly reqHash: Uint8Array;
  readonly bkIds: readonly Uint8Array[];
  readonly peers: readonly PeerName[];
  readonly threshold: number;
}

/** Beats for which a request is good: the most that a custodian takes. */
const lifeBeats = 2;
/** Tries of one unwrap, and the pause before one that waits for custodians to read on: they do so once a beat. */
const attemptsMax = 4;
const soonMs = 500;
/** Custodians that have not read the registry since their start do so within a beat of reaching the steward. */
const readingMsMax = 15 * second;
/** Encoded items of one request: the rest is room for capabilities, approvals and the frame. */
const itemsBytesMax = custodyRequestBytesMax - 32_768;
/** What a custodian on a slow machine needs for one item: a large request is not late because it is large. */
const itemMs = 3;
/** Evidence that is kept, the newest: one for each custodian of a group and some more. */
const evidenceMax = 64;

export class TdecProvider implements KekProvider {
  readonly kind = 'tdec';
  readonly #options: TdecOptions;
  readonly #speeds = new Speeds();
  #evidence: readonly Misconduct[] = [];
  #lastProblem = '';
  #disposed = false;

  constructor(options: TdecOptions) {
    this.#options = options;
  }

  get id(): string {
    return `tdec:${this.#options.source.directory().cg}`;
  }

  /**
   * Under the active version of the key; another one is for who tries whether it still opens.
   * Throws KEY_UNAVAILABLE while there is no such key, or the group is not believed.
   */
  async createKey(scope: NewKeyScope, version?: number): Promise<NewKey> {
    assert(!this.#disposed, 'threshold custody: used after disposal');
    const { cg, ver: kekVer, Y, policyRoot } = this.kek(version);
    const policy = scope.policy ?? policyRoot;
    const roots = [policyRoot, ...this.#options.source.directory().takenOver];
    if (policy !== null && !roots.some((root) => root?.equals(policy) === true))
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        `group ${cg} opens nothing under policy ${policy.toString()}: it is neither its own nor one that it has taken over`,
      );
    const label = encodeLabel({ v: 1, cg, kekVer, ...scope, policy });
    const group = await this.#group();
    const { wrap, element } = encrypt(group, Y, label, this.#options.random);
    const branchKey = branchKeyOf(element, scope.bkId, scope.bkVer);
    element.fill(0);
    return { branchKey, wraps: [{ t: 'tdec', cg, kekVer, label, ...wrap }], combiner: 'any' };
  }

  async unwrap(records: readonly BranchKeyBody[], request: UnwrapRequest): Promise<readonly Unwrapped[]> {
    assert(!this.#disposed, 'threshold custody: used after disposal');
    assertBatch(records);
    const answers = new Map<number, Unwrapped>();
    let wanted: readonly number[] = [...records.keys()];
    let { beat } = request;
    // A canary is to say how it is now.
    const readingUntil = performance.now() + (request.purpose === 'canary' ? 0 : readingMsMax);
    for (let attempt = 1; wanted.length > 0; ) {
      const left = await this.#round(records, wanted, { ...request, beat }, answers);
      wanted = left.places;
      if (left.again !== 'reading' || performance.now() > readingUntil) attempt++;
      if (wanted.length === 0 || attempt > attemptsMax) break;
      // The shares moved on, a rotation was completed, or beats went by, since the group's records were read.
      if (left.again !== 'now') await sleep(soonMs, undefined, signalled(request.signal));
      await this.#options.source.reload(request.signal);
      beat = (await this.#options.beat?.(request.signal)) ?? beat;
    }
    const all = records.map(
      (record, at) => answers.get(at) ?? refusedKey(record, 'KEY_UNAVAILABLE', 'no answer'),
    );
    const failed = all.find(
      (answer) => !answer.ok && answer.error.code === 'KEY_UNAVAILABLE' && 'needed' in answer.error.details,
    );
    this.#lastProblem = failed?.ok === false ? failed.error.message : '';
    return all;
  }

  describe(): ProviderDescription {
    const directory = this.#options.source.directory();
    const kek = directory.initialised ? directory.active() : undefined;
    const text =
      kek === undefined
        ? `THRESHOLD CUSTODY, WITHOUT A KEY YET: ${directory.problem ?? `custody group ${directory.cg} has not made its key`}. Nothing can be sealed until it has.`
        : `Threshold custody: ${kek.t} of the ${kek.n} custodians of group ${kek.cg} together give a key back, each by its own decision and each in its audit log. The group's private key exists nowhere.`;
    return { kind: this.kind, production: true, text };
  }

  /** What is known without asking anybody: `canary.ts` tries it. */
  async health(): Promise<ProviderHealth> {
    const directory = this.#options.source.directory();
    if (!directory.initialised)
      return {
        ok: false,
        text: directory.problem ?? `custody group ${directory.cg} has not made its key yet`,
      };
    if (this.#lastProblem !== '') return { ok: false, text: this.#lastProblem };
    const liars = this.#evidence.map(({ peer }) => this.#options.transport.nameOf(peer));
    const caught =
      liars.length === 0 ? '' : `; caught with false partial decryptions: ${[...new Set(liars)].join(', ')}`;
    return { ok: liars.length === 0, text: `threshold custody by group ${directory.cg}${caught}` };
  }

  /** Versions of the key that open wraps, oldest first. Throws KEY_UNAVAILABLE while the group is not believed. */
  serving(): readonly number[] {
    const directory = this.#options.source.directory();
    this.kek();
    return directory
      .versions()
      .filter(isServing)
      .map(({ ver }) => ver);
  }

  /** The active version of the key, or the one that is named. Throws KEY_UNAVAILABLE. */
  kek(version?: number): TdecKek {
    const directory = this.#options.source.directory();
    const kek = version === undefined ? directory.active() : directory.kek(version);
    if (kek !== undefined) return kek;
    throw new HoldfastError(
      'KEY_UNAVAILABLE',
      `custody group ${directory.cg} has no key to seal under yet; the custodians make it together (\`holdfast custody status\` says how far they are)`,
      { details: { cg: directory.cg } },
    );
  }

  /** How long a custodian's answers take, a moving average, ms; undefined when it has not answered yet. */
  latencyMs(peer: PeerName): number | undefined {
    return this.#speeds.of(peer);
  }

  /** Evidence against custodians, for publication; the newest 64. */
  get misconduct(): readonly Misconduct[] {
    return this.#evidence;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
  }

  async #group(): Promise<HashGroup> {
    const { group } = this.#options;
    if (group !== undefined) return group();
    this.#sodium ??= import('../threshold/group-sodium.ts');
    return (await this.#sodium).loadRistretto();
  }

  /** Imported by the first request; each import of its own takes as long as three signatures. */
  #sodium: Promise<typeof import('../threshold/group-sodium.ts')> | undefined;

  /** Asks for the items `wanted` and puts the answers down; gives those for which newer records of the group may help. */
  async #round(
    records: readonly BranchKeyBody[],
    wanted: readonly number[],
    request: UnwrapRequest,
    answers: Map<number, Unwrapped>,
  ): Promise<{ readonly places: readonly number[]; readonly again: Again }> {
    const places: number[] = [];
    let again: Again = 'now';
    const byVersion = new Map<number, { kek: TdecKek; items: PlacedItem[] }>();
    for (const at of wanted) {
      const record = records[at];
      if (record === undefined) continue;
      const found = this.#itemOf(record);
      if ('unknown' in found) {
        if (found.mayBeNews) places.push(at);
        answers.set(at, refusedKey(record, found.code, found.unknown));
        continue;
      }
      const one = byVersion.get(found.kek.ver) ?? { kek: found.kek, items: [] };
      one.items.push({ at, item: found.item });
      byVersion.set(found.kek.ver, one);
    }
    const batches = [...byVersion.values()].flatMap(({ kek, items }) =>
      inBatches(items).map((part) => ({ kek, items: part })),
    );
    const done = await Promise.all(
      batches.map(async ({ kek, items }) => ({ items, ...(await this.#ask(kek, items, request)) })),
    );
    for (const { items, results, again: mayHelp } of done) {
      if (mayHelp === 'reading' || (mayHelp === 'soon' && again === 'now')) again = mayHelp;
      for (const [index, { at }] of items.entries()) {
        const answer = results[index];
        if (answer === undefined) continue;
        answers.set(at, answer);
        if (!answer.ok && mayHelp !== undefined) places.push(at);
      }
    }
    return { places, again };
  }

  /** The wrap of a record that this group opens, by the newest version of its key. */
  #itemOf(record: BranchKeyBody): Found {
    const directory = this.#options.source.directory();
    if (directory.problem !== undefined) return unknown(directory.problem, true);
    const mine = legsOf(record)
      .filter((wrap) => wrap.t === 'tdec' || wrap.t === 'tdec-ks')
      .filter(({ cg }) => cg === directory.cg)
      .toSorted((a, b) => b.kekVer - a.kekVer);
    const [first] = mine;
    if (first === undefined) return unknown(`custody group ${directory.cg} has not wrapped it`, false);
    const wrap = mine.find(({ kekVer }) => isServing(directory.kek(kekVer))) ?? first;
    const kek = directory.kek(wrap.kekVer);
    if (kek === undefined || !isServing(kek))
      return unknown(
        `version ${wrap.kekVer} of the key is ${kek?.state ?? 'not known'}`,
        kek === undefined || kek.state === 'pre-active', // it may have come into use since the records were read
      );
    if (wrap.t === 'tdec-ks') {
      const certificate = directory.certificate(wrap.cert);
      if (certificate === undefined) return unknown('the certificate of its rotation is not known', true);
      if (!listsWrap(certificate, record.bkId, wrap))
        return unknown('the certificate of its rotation does not list it', false, 'DECRYPT_FAILED');
    }
    const label = parseLabel(wrap.label);
    return { kek, item: { bkId: label.bkId, wrap, record, label } };
  }

  async #ask(kek: TdecKek, placed: readonly PlacedItem[], request: UnwrapRequest): Promise<Asked> {
    const { signer, random, transport, clock, onMisconduct } = this.#options;
    const items = placed.map(({ item }) => item);
    const group = await this.#group();
    const secretKey = random(hpkeKeyBytes);
    const own = openerOf(secretKey);
    secretKey.fill(0);
    const encoded = encodeRequest({
      v: 1,
      reqId: random(32),
      cg: kek.cg,
      kekVer: kek.ver,
      shareGen: kek.shareGen,
      items: items.map(({ bkId, wrap }) => ({ bkId, wrap })),
      purpose: request.purpose,
      beat: request.beat,
      exp: request.beat + lifeBeats,
      chain: request.capabilities ?? (await this.#options.chain()),
      epk: own.publicKey,
      by: signer.publicKey,
    });
    const labels = items.map(({ label }) => label);
    const message = signRequest(encoded, signer, await this.#options.approve?.(encoded, labels));
    const hash = requestHash(encoded);
    const sealed = new Map<number, Uint8Array>();
    const termsOf = ({ i, sigPk }: KekCustodian) => ({
      reqHash: hash,
      i,
      sigPk,
      shareGen: kek.shareGen,
      itemsCount: items.length,
    });
    const tally = new Tally({
      group,
      kek,
      items,
      hash,
      eager: this.#options.eager ?? false,
      nameOf: (i) => transport.nameOf(kek.custodians[i - 1]?.peer ?? String(i)),
      onLiar: ({ i }) => {
        const [custodian, answer] = [kek.custodians[i - 1], sealed.get(i)];
        if (custodian === undefined || answer === undefined) return;
        const opener = answerOpener(answer, own, termsOf(custodian));
        const evidence: Misconduct = {
          v: 1,
          cg: kek.cg,
          kekVer: kek.ver,
          shareGen: kek.shareGen,
          i,
          peer: custodian.peer,
          request: message,
          answer,
          opener,
        };
        this.#evidence = [...this.#evidence, evidence].slice(-evidenceMax);
        onMisconduct?.(evidence);
      },
      onForged: (i) => {
        const peer = kek.custodians[i - 1]?.peer;
        if (peer !== undefined) this.#speeds.failed(peer, clock.monotonic());
      },
    });
    const candidates = this.#speeds.order(kek.custodians, clock.monotonic());
    await gather({
      candidates,
      doubtful: this.#speeds.doubtful(candidates, kek.t),
      wanted: () => tally.wanted,
      hedgeMs: (this.#options.hedgeMs ?? 40) + items.length * itemMs,
      signal: request.signal,
      ask: async (custodian, signal) => {
        const startedMs = clock.monotonic();
        try {
          const answer = await transport.ask(custodian.peer, message, signal);
          if (signal.aborted) return;
          this.#speeds.answered(custodian.peer, clock.monotonic() - startedMs);
          sealed.set(custodian.i, answer);
          tally.add(openAnswerFirst(answer, own, termsOf(custodian)));
        } catch (error) {
          if (signal.aborted) return;
          this.#speeds.failed(custodian.peer, clock.monotonic());
          tally.fail(custodian.i, wordsOf(error));
        }
      },
    });
    const { helped, again } = tally;
    const results = tally.results();
    const opened = items.filter((_, at) => results[at]?.ok === true);
    if (opened.length > 0)
      await this.#options.onOpened?.({
        reqHash: hash,
        bkIds: opened.map(({ bkId }) => bkId),
        peers: helped.flatMap((i) => kek.custodians[i - 1]?.peer ?? []),
        threshold: kek.t,
      });
    return { results, again };
  }
}

interface PlacedItem {
  /** Place among the records asked for. */
  readonly at: number;
  readonly item: TallyItem;
}

interface Asked {
  readonly results: readonly Unwrapped[];
  readonly again: Again | undefined;
}

type Found =
  | { readonly kek: TdecKek; readonly item: TallyItem }
  | {
      readonly unknown: string;
      readonly code: 'KEY_UNAVAILABLE' | 'DECRYPT_FAILED';
      readonly mayBeNews: boolean;
    };

function unknown(
  why: string,
  mayBeNews: boolean,
  code: 'KEY_UNAVAILABLE' | 'DECRYPT_FAILED' = 'KEY_UNAVAILABLE',
): Found {
  return { unknown: why, code, mayBeNews };
}

function signalled(signal: AbortSignal | undefined): { readonly signal?: AbortSignal } {
  return signal === undefined ? {} : { signal };
}

function isServing(kek: TdecKek | undefined): boolean {
  return kek?.state === 'active' || kek?.state === 'decrypt-only';
}

/** Parts that fit into one request each. */
function inBatches(items: readonly PlacedItem[]): PlacedItem[][] {
  const batches: PlacedItem[][] = [];
  let room = 0;
  for (const placed of items) {
    const { bkId, wrap } = placed.item;
    const sizeBytes = encodeCbor({ bkId, wrap }).length;
    const last = batches.at(-1);
    if (last === undefined || last.length >= unwrapItemsMax || sizeBytes > room) {
      batches.push([placed]);
      room = itemsBytesMax - sizeBytes;
    } else {
      last.push(placed);
      room -= sizeBytes;
    }
  }
  return batches;
}

/** Why a custodian gave nothing, in a few words that follow its name. */
function wordsOf(error: unknown): string {
  if (!isHoldfastError(error)) return `failed (${describeError(error)})`;
  if (error.code === 'PEER_UNREACHABLE') return 'unreachable';
  if (error.code === 'TIMEOUT') return 'silent';
  if (error.code === 'RATE_LIMITED') return 'overloaded';
  if (error.code === 'KEY_UNAVAILABLE' && error.message.includes('holds no share'))
    return `${otherGeneration} (${error.message})`;
  return `failed (${error.message})`;
}

/** Evidence in a line, for a log. */
export function misconductText(evidence: Misconduct, name: string): string {
  const { i, peer, cg, kekVer, shareGen } = evidence;
  return `custodian ${i} (${name}, ${peer}) of group ${cg} signed a false partial decryption under key ${kekVer}, generation ${shareGen}; answer ${toHex(evidence.answer.subarray(0, 16))}…`;
}
