// StatusClaim v1, what an agent says of one of its tasks: emitted strictly, read leniently.
//
// Agents of the field write states that the schema does not know, percents for parts and notes that are too
// long. None of that is a reason to hear nothing of them: it is mapped or cut, and noted.

import { type Fields, fieldsOf, hlcForm, isObject, parseJson } from './fields.ts';

export const statusClaimType = 'backbeat.statusclaim.v1';

export const claimStates = [
  'idle',
  'planning',
  'executing',
  'reviewing',
  'completed',
  'failed',
  'blocked',
  'helping',
] as const;
export type ClaimState = (typeof claimStates)[number];

export interface StatusClaim {
  readonly type: typeof statusClaimType;
  /** 1 to 128 of `a-z A-Z 0-9 _ : -`; so is `task_id`. */
  readonly agent_id: string;
  readonly task_id?: string;
  readonly beat_index: number;
  readonly state: ClaimState;
  /** 0…1000. */
  readonly beats_left?: number;
  /** 0…1. */
  readonly progress?: number;
  /** At most 256 characters. */
  readonly notes?: string;
  readonly hlc: string;
  /** Known members: cpu_percent, memory_mb, disk_io_ops, network_kb. */
  readonly resources?: Readonly<Record<string, unknown>>;
  readonly dependencies?: readonly string[];
  readonly metadata?: Readonly<Record<string, unknown>>;
}

/** What was accepted although the schema says otherwise. */
export type ClaimNote =
  | 'state-mapped'
  | 'number-clamped'
  | 'notes-cut'
  | 'field-dropped'
  | 'extra-field'
  | 'metadata-dropped';

export interface ParsedClaim {
  readonly claim: StatusClaim;
  readonly notes: readonly ClaimNote[];
}

const notesCharsMax = 256;
export const beatsLeftMax = 1000;

/** Throws RECORD_INVALID naming the field. */
export function parseClaimText(text: string): ParsedClaim {
  return parseClaim(parseJson(text, label));
}

/** Throws RECORD_INVALID naming the field. */
export function parseClaim(value: unknown): ParsedClaim {
  const fields = fieldsOf(value, label, statusClaimType);
  const notes: ClaimNote[] = [];
  const claim: StatusClaim = {
    type: statusClaimType,
    agent_id: fields.text('agent_id', idForm, idExpected),
    beat_index: fields.index('beat_index'),
    state: parseState(fields, notes),
    hlc: fields.text('hlc', hlcForm, 'three groups of 4 hex digits').toLowerCase(),
    ...optional('task_id', parseTask(fields, notes)),
    ...optional('beats_left', parseBeatsLeft(fields, notes)),
    ...optional('progress', clamped(fields, 'progress', 1, notes)),
    ...optional('notes', parseNotes(fields, notes)),
    ...optional('resources', parseResources(fields, notes)),
    ...optional('dependencies', parseDependencies(fields, notes)),
    ...optional('metadata', fields.metadata(known, notes)),
  };
  return { claim, notes };
}

/** The claim as JSON text. A claim that breaks the schema is a mistake of ours and throws TypeError. */
export function encodeClaim(claim: StatusClaim): string {
  const { notes } = parseClaim(claim);
  if (notes.length > 0) throw new TypeError(`claim is not strict: ${notes.join(', ')}`);
  return JSON.stringify(claim);
}

/** Cuts text to what `notes` may hold, and never through the middle of a character. */
export function cutNotes(text: string): string {
  const characters = Array.from(text);
  return characters.length <= notesCharsMax ? text : `${characters.slice(0, notesCharsMax - 1).join('')}…`;
}

const label = 'status claim';
const idForm = /^[a-zA-Z0-9_:-]{1,128}$/;
const idExpected = '1 to 128 letters, digits, _, : or -';
/** Dependencies beyond this many are not kept: a message is small. */
const dependenciesMax = 100;
const mappedStates: Readonly<Record<string, ClaimState>> = {
  waiting: 'blocked',
  review: 'reviewing',
  done: 'completed',
};
const known = new Set([
  'type',
  'agent_id',
  'task_id',
  'beat_index',
  'state',
  'beats_left',
  'progress',
  'notes',
  'hlc',
  'resources',
  'dependencies',
  'metadata',
]);

function parseState(fields: Fields, notes: ClaimNote[]): ClaimState {
  const value = fields.get('state');
  const state = claimStates.find((each) => each === value);
  if (state !== undefined) return state;
  const mapped =
    typeof value === 'string' && Object.hasOwn(mappedStates, value) ? mappedStates[value] : undefined;
  if (mapped === undefined) throw fields.invalid('state', claimStates.join(', '));
  notes.push('state-mapped');
  return mapped;
}

function parseTask(fields: Fields, notes: ClaimNote[]): string | undefined {
  const value = fields.get('task_id');
  if (value === undefined) return undefined;
  if (typeof value === 'string' && idForm.test(value)) return value;
  notes.push('field-dropped');
  return undefined;
}

function parseBeatsLeft(fields: Fields, notes: ClaimNote[]): number | undefined {
  const value = clamped(fields, 'beats_left', beatsLeftMax, notes);
  if (value === undefined || Number.isInteger(value)) return value;
  notes.push('number-clamped');
  return Math.ceil(value);
}

function clamped(fields: Fields, name: string, max: number, notes: ClaimNote[]): number | undefined {
  const value = fields.get(name);
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    notes.push('field-dropped');
    return undefined;
  }
  if (value >= 0 && value <= max) return value;
  notes.push('number-clamped');
  return value < 0 ? 0 : max;
}

function parseNotes(fields: Fields, notes: ClaimNote[]): string | undefined {
  const value = fields.get('notes');
  if (value === undefined) return undefined;
  if (typeof value !== 'string') {
    notes.push('field-dropped');
    return undefined;
  }
  const cut = cutNotes(value);
  if (cut !== value) notes.push('notes-cut');
  return cut;
}

function parseResources(fields: Fields, notes: ClaimNote[]): Readonly<Record<string, unknown>> | undefined {
  const value = fields.get('resources');
  if (value === undefined || isObject(value)) return value;
  notes.push('field-dropped');
  return undefined;
}

function parseDependencies(fields: Fields, notes: ClaimNote[]): readonly string[] | undefined {
  const value = fields.get('dependencies');
  if (value === undefined) return undefined;
  const list = Array.isArray(value) ? value : [];
  const texts = list.filter((each): each is string => typeof each === 'string').slice(0, dependenciesMax);
  if (!Array.isArray(value) || texts.length < value.length) notes.push('field-dropped');
  return texts;
}

/** `{ name: value }`, or nothing to spread where there is no value. */
function optional<Name extends string, Value>(
  name: Name,
  value: Value | undefined,
): Partial<Record<Name, Value>> {
  const pair: Partial<Record<Name, Value>> = {};
  if (value !== undefined) pair[name] = value;
  return pair;
}
