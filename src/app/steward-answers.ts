// What the steward answers, parsed as far as its callers rely on it.

import { HoldfastError } from '../core/errors.ts';
import { fieldOf, isMap } from '../core/shape.ts';
import type { HoldersReport, ObjectReport, StewardStatus } from '../steward/status.ts';

export function readStatus(head: unknown): StewardStatus {
  return checked(head, 'steward.status', isStatus);
}

export function readObject(head: unknown): ObjectReport {
  return checked(head, 'steward.object', isObjectReport);
}

export function readHolders(head: unknown): HoldersReport {
  return checked(head, 'steward.holders', isHolders);
}

function isStatus(head: unknown): head is StewardStatus {
  const maps = ['beat', 'catalogue', 'objects', 'blocks', 'queue', 'healing', 'proofs', 'timing'];
  const lists = ['nodes', 'unable', 'problems', 'alarms'];
  return (
    maps.every((name) => isMap(fieldOf(head, name))) &&
    lists.every((name) => Array.isArray(fieldOf(head, name)))
  );
}

function isObjectReport(head: unknown): head is ObjectReport {
  return typeof fieldOf(head, 'status') === 'string' && Array.isArray(fieldOf(head, 'holders'));
}

function isHolders(head: unknown): head is HoldersReport {
  const holders = fieldOf(head, 'holders');
  return Array.isArray(holders) && holders.every((each) => Array.isArray(each));
}

function checked<T>(head: unknown, method: string, isRight: (head: unknown) => head is T): T {
  if (isRight(head)) return head;
  throw new HoldfastError(
    'PEER_REFUSED',
    `the steward's answer to ${method} is not what this version expects`,
  );
}
