// Parameters that several routes take, once for the router and the OpenAPI document alike.

import { contentClasses } from '../envelope/aad.ts';
import type { Parameter } from './server.ts';

export const addressParameter: Parameter = {
  name: 'address',
  in: 'query',
  required: true,
  text: 'UCXL address; the temporal segment selects the version, default the latest',
};
export const patternParameter: Parameter = {
  name: 'pattern',
  in: 'query',
  required: true,
  text: 'UCXL address with wildcards',
};
export const limitParameter: Parameter = {
  name: 'limit',
  in: 'query',
  text: 'most items to return, default 100',
  schema: { type: 'integer', minimum: 1, maximum: 1000 },
};
export const afterParameter: Parameter = { name: 'after', in: 'query', text: '`next` of the page before' };
export const cidParameter: Parameter = { name: 'cid', in: 'query', required: true, text: 'CID of a block' };
export const logParameter: Parameter = {
  name: 'log',
  in: 'query',
  required: true,
  text: 'id of a Beacon log',
};
export const withoutParameter: Parameter = {
  name: 'without',
  in: 'query',
  text: 'storage node that never comes back, and is not asked; may be repeated',
  schema: { type: 'array', items: { type: 'string' } },
};
export const revisionParameter: Parameter = {
  name: 'revision',
  in: 'query',
  text: 'wait until this Beacon revision is visible here, so that you read your own write',
  schema: { type: 'integer', minimum: 0 },
};
export const policyParameters: readonly Parameter[] = (['min', 'max', 'zones'] as const).map((name) => ({
  name,
  in: 'query',
  text: { min: 'fewest copies', max: 'most copies', zones: 'fewest zones' }[name],
  schema: { type: 'integer', minimum: 1, maximum: 256 },
}));
export const putParameters: readonly Parameter[] = [
  addressParameter,
  ...policyParameters,
  { name: 'cls', in: 'query', text: 'class of confidentiality', schema: { enum: [...contentClasses] } },
  {
    name: 'tag',
    in: 'query',
    text: 'compliance tag; may be repeated',
    schema: { type: 'array', items: { type: 'string' } },
  },
  { name: 'generated_by', in: 'query', text: 'who made it; default the caller' },
  {
    name: 'expected',
    in: 'query',
    text: 'write only if this is the newest version (0: none yet)',
    schema: { type: 'integer', minimum: 0 },
  },
  { name: 'idempotency-key', in: 'header', text: 'the same key and body twice is one write' },
];
export const rangeParameter: Parameter = { name: 'range', in: 'header', text: 'bytes=a-b, one range' };
