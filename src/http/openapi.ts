// The OpenAPI 3.1 document, made from the route table.

import { errorCatalogue } from '../core/errors.ts';
import type { Parameter, Route } from './server.ts';

const envelopes = {
  Response: {
    type: 'object',
    required: ['response'],
    properties: {
      response: {
        type: 'object',
        required: ['code', 'message', 'request_id', 'timestamp'],
        properties: {
          code: { type: 'string', pattern: '^UCXL-\\d{3}-[A-Z_]+$' },
          message: { type: 'string' },
          data: {},
          details: { type: 'object' },
          request_id: { type: 'string' },
          timestamp: { type: 'string', format: 'date-time' },
        },
      },
    },
  },
  Error: {
    type: 'object',
    required: ['error'],
    properties: {
      error: {
        type: 'object',
        required: ['code', 'message', 'details', 'source', 'path', 'request_id', 'timestamp'],
        properties: {
          code: { type: 'string', pattern: '^UCXL-\\d{3}-[A-Z_]+$' },
          message: { type: 'string' },
          details: {
            type: 'object',
            required: ['reason'],
            properties: { reason: { enum: Object.keys(errorCatalogue) } },
          },
          source: { type: 'string' },
          path: { type: 'string' },
          request_id: { type: 'string' },
          timestamp: { type: 'string', format: 'date-time' },
          cause: { type: 'string' },
        },
      },
    },
  },
} as const;

/** The document served at /openapi.json. */
export function openApi(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = (paths[route.path] ??= {});
    path[route.method.toLowerCase()] = operation(route);
    if (route.head === true) path['head'] = headOperation(route);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Holdfast door (UCXI)',
      version,
      description:
        'Put, get and find decision records by UCXL address; see what is lost, at risk and healing.',
    },
    paths,
    components: {
      schemas: envelopes,
      securitySchemes: { token: { type: 'http', scheme: 'bearer' } },
    },
    security: [{ token: [] }],
  };
}

function operation(route: Route): Record<string, unknown> {
  const media = route.produces ?? 'application/json';
  const schema = media === 'application/json' ? responseSchema(route) : binary;
  const good = Object.fromEntries(
    route.statuses.map((status) => [
      status,
      { description: route.summary, ...(status === 304 ? {} : { content: { [media]: { schema } } }) },
    ]),
  );
  return {
    operationId: route.operationId,
    summary: route.summary,
    tags: [route.tag],
    ...(route.token === false ? { security: [] } : {}),
    ...(route.parameters === undefined ? {} : { parameters: route.parameters.map(parameter) }),
    ...(route.accepts === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { [route.accepts]: { schema: route.bodySchema ?? binary } },
          },
        }),
    responses: {
      ...good,
      default: {
        description: 'Any failure',
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
      },
    },
  };
}

/** HEAD is answered for every GET; it is documented where it is of use by itself. */
function headOperation(route: Route): Record<string, unknown> {
  const ok = { description: 'The headers that GET would have' };
  const responses = { 200: ok, 304: ok, default: { description: 'Any failure' } };
  return { ...operation({ ...route, operationId: `${route.operationId}Head` }), responses };
}

const binary = { type: 'string', format: 'binary' } as const;

function responseSchema({ data }: Route): Record<string, unknown> {
  const envelope = { $ref: '#/components/schemas/Response' };
  if (data === undefined) return envelope;
  const response = { type: 'object', required: ['data'], properties: { data } };
  return { allOf: [envelope, { type: 'object', properties: { response } }] };
}

function parameter(value: Parameter): Record<string, unknown> {
  return {
    name: value.name,
    in: value.in,
    required: value.required === true || value.in === 'path',
    description: value.text,
    schema: value.schema ?? { type: 'string' },
  };
}
