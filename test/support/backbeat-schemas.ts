// The published schemas of the three BACKBEAT messages, compiled: what the project emits must satisfy them.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Ajv } from 'ajv';
import addFormats from 'ajv-formats';

const ajv = new Ajv({ allErrors: true, strict: true });
addFormats.default(ajv);

const validators = {
  beat: compiled('beatframe-v1'),
  status: compiled('statusclaim-v1'),
  report: compiled('barreport-v1'),
};

/** Throws unless `text`, a message as sent, satisfies the schema of its kind. */
export function assertSchema(kind: keyof typeof validators, text: string): void {
  const isValid = validators[kind](JSON.parse(text));
  assert.ok(isValid, `${kind}: ${ajv.errorsText(validators[kind].errors)}: ${text}`);
}

function compiled(name: string) {
  const url = new URL(`../../docs/schemas/backbeat/${name}.schema.json`, import.meta.url);
  return ajv.compile(JSON.parse(readFileSync(url, 'utf8')) as object);
}
