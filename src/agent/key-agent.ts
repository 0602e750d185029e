// A key agent: asks the custodians for branch keys under its own capability, and hands out the key of one object to
// whoever may read exactly that.
//
//   request ─▶ for us, for now, not seen before ─▶ manifest and key records, from the registry, verified
//           ─▶ capability, prefix, class, budget ─▶ branch key, asked for or kept for at most a bar
//           ─▶ content key, proven by the object's header ─▶ leaf on the disk ─▶ sealed to who asked
//
// The branch key never leaves. What the object is, is believed for what its own header is sealed with, not for what the
// registry says: the key that is handed out opens a stream that names this address.

import { concat, sameBytes, toHex, utf8 } from '../core/bytes.ts';
import { Gate } from '../core/concurrency.ts';
import { describeError, HoldfastError } from '../core/errors.ts';
import { sha256, type Signer } from '../core/hash.ts';
import type { AuditEntry } from '../custody/audit-leaf.ts';
import type { AuditLog } from '../custody/audit-log.ts';
import { Budgets } from '../custody/budget.ts';
import type { Grant } from '../custody/capability.ts';
import type { BeatNow } from '../custody/freshness.ts';
import type { BranchKeys } from '../custody/keyring.ts';
import { type OpenedKeyRequest, openKeyRequest, sealObjectKey } from '../custody/object-key.ts';
import type { PolicyBody } from '../custody/policy.ts';
import { isRefusal, type Refusal } from '../custody/refusal.ts';
import { admitRequest, type AskedContent, releaseProblem, type ReleaseTerms } from '../custody/release.ts';
import { ReplaySet } from '../custody/replay.ts';
import type { Revocations } from '../custody/revocation.ts';
import { parseAad } from '../envelope/aad.ts';
import { contentKeyOf, type KeyRecords, keyRecords, type ObjectRecords, provenKey } from '../flows/get.ts';
import { type ManifestBody, openManifest } from '../manifest/manifest.ts';
import type { SignedRecord } from '../manifest/record.ts';
import { parseAddress } from '../ucxl/address.ts';

/** What is known of the custody group now. */
export interface AgentRules {
  readonly cg: string;
  readonly policy: PolicyBody | undefined;
  readonly revocations: Revocations;
  readonly now: BeatNow;
}

export interface KeyAgentPorts {
  /** The agent's identity: asks custodians, signs answers. */
  readonly signer: Signer;
  readonly log: AuditLog;
  /** Branch keys open now: single-flight, bounded, gone after a bar. */
  readonly keys: Pick<BranchKeys, 'open' | 'forgetOpened'>;
  /** Policy, revocations and beat of now. Throws KEY_UNAVAILABLE when they cannot be had fresh enough to decide by. */
  readonly rules: (signal: AbortSignal) => Promise<AgentRules>;
  /** The records of one version. */
  readonly records: (address: string, version: number, signal: AbortSignal) => Promise<ObjectRecords>;
  /** Wall clock, milliseconds since 1970. */
  readonly now: () => number;
}

const windowBeats = 2;
/** Requests under way and waiting: each waits for the registry, and for custodians where the branch key is not open. */
const underwayMax = 64;
const waitingMax = 1024;
/** Refusals that are written down in one bar: whoever may speak to us must not fill the disk by asking. */
const refusedLeavesPerBarMax = 1024;
/** So much of an address goes into the words of a leaf; its digest is whole. */
const addressShown = 400;

export class KeyAgent {
  readonly #ports: KeyAgentPorts;
  readonly #gate = new Gate(underwayMax);
  readonly #replay = new ReplaySet();
  readonly #budgets = new Budgets();
  #refused = { bar: -1, leaves: 0 };
  /** The group of the last request. */
  #cg: string | undefined;

  constructor(ports: KeyAgentPorts) {
    this.#ports = ports;
  }

  /**
   * Answers a signed request (`signKeyRequest`) with the sealed key of its object (`sealObjectKey`).
   *
   * @throws RECORD_INVALID, FORBIDDEN with the reason, RATE_LIMITED, NOT_FOUND, GONE, KEY_UNAVAILABLE (custodians are
   * missing, the rules are not known, or the log takes no entry), DECRYPT_FAILED
   */
  async release(message: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    if (this.#gate.waiting >= waitingMax)
      throw new HoldfastError('RATE_LIMITED', `${waitingMax} requests wait at this key agent; retry later`);
    return this.#gate.run(() => this.#release(openKeyRequest(message), signal));
  }

  async #release(opened: OpenedKeyRequest, signal: AbortSignal): Promise<Uint8Array> {
    const { signer, rules } = this.#ports;
    const found = await rules(signal);
    this.#goOver(found.cg);
    const terms: ReleaseTerms = {
      ...found,
      agent: signer.publicKey,
      windowBeats,
      replay: this.#replay,
      budgets: this.#budgets,
    };
    const grant = admitRequest(opened, terms);
    if (isRefusal(grant)) throw await this.#refuse(opened, found, grant);
    const asked = await this.#look(opened, signal);
    const problem = releaseProblem(opened.request.by, asked.content, grant, terms);
    if (problem !== undefined) throw await this.#refuse(opened, found, problem, asked.keys);
    const dek = await this.#open(asked, found.now.beat, signal);
    try {
      await this.#note(opened, found, { decision: 'granted', reason: shown(opened) }, asked.keys, grant);
      return sealObjectKey(opened.hash, dek, opened.request.epk, signer);
    } finally {
      dek.fill(0);
    }
  }

  /** What the group before has opened for us is worth nothing in one that has come into its place: it must be asked. */
  #goOver(cg: string): void {
    if (this.#cg !== undefined && this.#cg !== cg) this.#ports.keys.forgetOpened();
    this.#cg = cg;
  }

  async #look({ request }: OpenedKeyRequest, signal: AbortSignal): Promise<Asked> {
    const { address, version } = request;
    const records = await this.#ports.records(address, version, signal);
    const manifest = openManifest(records.manifest);
    const { body, cid } = manifest;
    if (!sameBytes(cid.bytes, request.manifest.bytes) || body.ucxl_address !== address)
      throw new HoldfastError('RECORD_INVALID', `version ${version} of ${address} has another manifest`);
    const keys = keyRecords(body, records);
    if (body.encryption === null)
      throw new HoldfastError('RECORD_INVALID', `${address}: content without encryption`);
    // What decides is what the content was sealed as; that the manifest says the same is checked with the key.
    const { ucxl, cls } = parseAad(body.encryption.aad);
    const { project, path } = parseAddress(ucxl, { profile: 'lenient' });
    return { manifest, keys, content: { project, cls, path } };
  }

  /** The content key, proven by the header that names the address; zeroed by the caller. */
  async #open({ manifest, keys }: Asked, beat: number, signal: AbortSignal): Promise<Uint8Array> {
    const { signer } = this.#ports;
    const request = { purpose: 'read', requester: signer.publicKey, beat, signal } as const;
    using branchKey = await this.#ports.keys.open(keys.branchKey, request);
    const dek = contentKeyOf(manifest.body, keys.envelope, branchKey);
    const tried = new Uint8Array(dek); // zeroed by who tries it
    provenKey(manifest.body, tried)[Symbol.dispose]();
    return dek;
  }

  async #refuse(
    opened: OpenedKeyRequest,
    { now, ...rules }: AgentRules,
    refused: Refusal,
    keys?: KeyRecords,
  ): Promise<HoldfastError> {
    if (now.bar !== this.#refused.bar) this.#refused = { bar: now.bar, leaves: 0 };
    if (this.#refused.leaves++ >= refusedLeavesPerBarMax)
      return new HoldfastError('RATE_LIMITED', 'too many requests were refused in this bar');
    const reason = `${refused.code}: ${refused.reason}; ${shown(opened)}`;
    await this.#note(opened, { now, ...rules }, { decision: 'refused', reason }, keys);
    return new HoldfastError('FORBIDDEN', refused.reason, { details: { code: refused.code } });
  }

  /** On the disk before a key leaves. Throws KEY_UNAVAILABLE: then none does. */
  async #note(
    { request, hash }: OpenedKeyRequest,
    { cg, now }: AgentRules,
    what: Pick<AuditEntry, 'decision' | 'reason'>,
    keys?: KeyRecords,
    grant?: Grant,
  ): Promise<void> {
    const granted = what.decision === 'granted';
    try {
      await this.#ports.log.append({
        op: 'release',
        beat: now.beat,
        at: this.#ports.now(),
        cg,
        kekVer: 0,
        shareGen: 0,
        reqHash: hash,
        requester: request.by,
        capRoot: grant?.root ?? new Uint8Array(0),
        labels: sha256(concat(utf8(request.address), utf8(`\n${request.version}`))),
        purpose: 'read',
        items: keys === undefined ? [] : [{ bkId: keys.branchKey.bkId, granted }],
        ...what,
      });
    } catch (cause) {
      throw new HoldfastError(
        'KEY_UNAVAILABLE',
        `no key is handed out that is not written down: ${describeError(cause)}`,
        { cause },
      );
    }
  }
}

interface Asked {
  readonly manifest: SignedRecord<ManifestBody>;
  readonly keys: KeyRecords;
  readonly content: AskedContent;
}

/** Which object, in words of a leaf. */
function shown({ request: { address, version, by } }: OpenedKeyRequest): string {
  const cut = address.length > addressShown ? `${address.slice(0, addressShown)}…` : address;
  return `version ${version} of ${cut} for ${toHex(by.subarray(0, 8))}`;
}
