// What nodes answer, checked before anything believes it. Every reader throws RECORD_INVALID naming the field.

import { CID, supportedCid } from '../core/block.ts';
import { HoldfastError } from '../core/errors.ts';
import { fieldOf } from '../core/shape.ts';

export interface InventoryChange {
  readonly cid: CID;
  readonly op: 'add' | 'del' | 'corrupt';
  readonly sizeBytes: number;
}

export interface NodeUsage {
  readonly freeBytes: number;
  readonly state: 'ready' | 'read-only';
  readonly reason: string;
}

export interface BeatAnswer {
  readonly epoch: string;
  readonly seq: number;
  readonly reset: boolean;
  readonly changes: readonly InventoryChange[];
  readonly more: boolean;
  readonly usage: NodeUsage;
  readonly digest: { readonly count: number; readonly sum: Uint8Array };
  readonly chores: NodeChores;
}

/** What a node does by itself, as far as it says. */
export interface NodeChores {
  /** Blocks it announces, and those of them that it has still to announce. */
  readonly ownRecords: number;
  readonly dueRecords: number;
  /** End of its last whole pass of reading its blocks again, wall clock ms; undefined = none yet. */
  readonly scrubbedAt: number | undefined;
  /** Blocks it found damaged since it started, and why reading stopped, else ''. */
  readonly corruptCount: number;
  readonly scrubTrouble: string;
}

export interface ListAnswer {
  readonly cids: readonly { readonly cid: CID; readonly sizeBytes: number }[];
  readonly done: boolean;
}

/** Entries in one answer, whatever was asked for. */
const entriesMax = 4096;

export function readBeatAnswer(head: unknown): BeatAnswer {
  const fields = mapOf(head, 'node.beat');
  const usage = mapOf(fields['usage'], 'usage');
  const digest = mapOf(fields['digest'], 'digest');
  return {
    epoch: textOf(fields['epoch'], 'epoch'),
    seq: countOf(fields['seq'], 'seq'),
    reset: fields['reset'] === true,
    changes: listOf(fields['changes'], 'changes').map(readChange),
    more: fields['more'] === true,
    usage: {
      freeBytes: countOf(usage['freeBytes'], 'usage.freeBytes'),
      state: usage['state'] === 'read-only' ? 'read-only' : 'ready',
      reason: typeof usage['reason'] === 'string' ? usage['reason'] : '',
    },
    digest: {
      count: countOf(digest['count'], 'digest.count'),
      sum: bytesOf(digest['sum'], 'digest.sum', 32),
    },
    chores: readChores(fields['scrub'], fields['providers']),
  };
}

/** Only told to people: what is missing or odd is left out and fails nothing. */
function readChores(scrub: unknown, providers: unknown): NodeChores {
  const count = (from: unknown, name: string): number => {
    const value = fieldOf(from, name);
    return typeof value === 'number' && value >= 0 ? value : 0;
  };
  const trouble = fieldOf(scrub, 'trouble');
  return {
    ownRecords: count(providers, 'own'),
    dueRecords: count(providers, 'due'),
    scrubbedAt: count(scrub, 'passEndedAt') || undefined,
    corruptCount: count(scrub, 'corruptCount'),
    scrubTrouble: typeof trouble === 'string' ? trouble : '',
  };
}

export function readListAnswer(head: unknown): ListAnswer {
  const fields = mapOf(head, 'block.list');
  const cids = listOf(fields['cids'], 'cids').map((entry) => {
    const block = mapOf(entry, 'cids[]');
    return { cid: cidOfField(block['cid'], 'cids[].cid'), sizeBytes: countOf(block['size'], 'cids[].size') };
  });
  return { cids, done: fields['done'] === true };
}

/** The answer to a possession challenge; null when the node says that it has no such block. */
export function readChallengeAnswer(head: unknown): Uint8Array | null {
  const { answer } = mapOf(head, 'node.challenge');
  return answer === null ? null : bytesOf(answer, 'answer', 32);
}

/** The answers to `count` challenges with one nonce, in their order. */
export function readChallengeAnswers(head: unknown, count: number): readonly (Uint8Array | null)[] {
  const { answers } = mapOf(head, 'node.challenges');
  if (!Array.isArray(answers) || answers.length !== count) throw invalid('answers', `${count} of them`);
  return answers.map((answer: unknown) => (answer === null ? null : bytesOf(answer, 'answers', 32)));
}

export function readPullAnswer(head: unknown): {
  readonly result: 'stored' | 'present' | 'failed';
  readonly reason: string;
} {
  const { result, reason } = mapOf(head, 'block.pull');
  if (result !== 'stored' && result !== 'present' && result !== 'failed')
    throw invalid('result', 'stored, present or failed');
  return { result, reason: typeof reason === 'string' ? reason.slice(0, 500) : '' };
}

export function readFound(head: unknown): boolean {
  return mapOf(head, 'block.get')['found'] === true;
}

/** The `cids` of a request, at most `max`. */
export function readCids(head: unknown, max: number): CID[] {
  const list = listOf(mapOf(head, 'request')['cids'], 'cids');
  if (list.length > max)
    throw new HoldfastError('TOO_LARGE', `cids: at most ${max} expected, got ${list.length}`);
  return list.map((value) => cidOfField(value, 'cids[]'));
}

export function readManifest(head: unknown): CID {
  return cidOfField(mapOf(head, 'request')['manifest'], 'manifest');
}

function readChange(value: unknown): InventoryChange {
  const fields = mapOf(value, 'changes[]');
  const { op } = fields;
  if (op !== 'add' && op !== 'del' && op !== 'corrupt') throw invalid('changes[].op', 'add, del or corrupt');
  return {
    cid: cidOfField(fields['cid'], 'changes[].cid'),
    op,
    sizeBytes: countOf(fields['size'], 'changes[].size'),
  };
}

function mapOf(value: unknown, field: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalid(field, 'a map');
  return Object.fromEntries(Object.entries(value));
}

function listOf(value: unknown, field: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > entriesMax)
    throw invalid(field, `a list of at most ${entriesMax}`);
  return value;
}

function textOf(value: unknown, field: string): string {
  if (typeof value !== 'string' || value.length > 256) throw invalid(field, 'a short text');
  return value;
}

function countOf(value: unknown, field: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw invalid(field, 'an integer from 0');
  return value;
}

function bytesOf(value: unknown, field: string, length: number): Uint8Array {
  if (!(value instanceof Uint8Array) || value.length !== length) throw invalid(field, `${length} bytes`);
  return value;
}

function cidOfField(value: unknown, field: string): CID {
  const cid = CID.asCID(value);
  if (cid === null) throw invalid(field, 'a CID');
  return supportedCid(cid);
}

function invalid(field: string, expected: string): HoldfastError {
  return new HoldfastError('RECORD_INVALID', `${field}: ${expected} expected`, { details: { field } });
}
