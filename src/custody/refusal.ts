// Why a custodian gives nothing: a code for programs, and a sentence for whoever has to do something about it.
// Neither says anything that the one who asks did not know or could not look up.

export const refusalCodes = [
  'sealed',
  'clock',
  'group',
  'generation',
  'stale',
  'unread',
  'replayed',
  'capability',
  'revoked',
  'policy',
  'approval',
  'budget',
  'breaker',
  'wrap',
  'overloaded',
] as const;
export type RefusalCode = (typeof refusalCodes)[number];

export interface Refusal {
  readonly granted: false;
  readonly code: RefusalCode;
  readonly reason: string;
}

export const reasonBytesMax = 256;

export function refusal(code: RefusalCode, reason: string): Refusal {
  return { granted: false, code, reason: reason.slice(0, reasonBytesMax) };
}

export function isRefusal(value: object): value is Refusal {
  return 'granted' in value && value.granted === false;
}
