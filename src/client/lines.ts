// Text streams cut into what they are made of: lines of JSON, and server-sent events.

import { HoldfastError } from '../core/errors.ts';

/** No line is longer: a report with its problems. */
const lineCharsMax = 16 * 1024 * 1024;

/** The lines of a UTF-8 stream, without their ends; an empty rest is not a line. Throws TOO_LARGE. */
export async function* readLines(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of bytes) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split(/\r\n|\n/);
    rest = lines.pop() ?? '';
    yield* lines;
    if (rest.length > lineCharsMax)
      throw new HoldfastError('TOO_LARGE', `a line of more than ${lineCharsMax} characters`);
  }
  rest += decoder.decode();
  if (rest !== '') yield rest;
}

export interface ServerEvent {
  readonly id: string;
  readonly event: string;
  readonly data: string;
}

/** The events of a `text/event-stream` that carry data; comments and what the end cuts off are dropped. */
export async function* readEvents(
  bytes: AsyncIterable<Uint8Array>,
): AsyncGenerator<ServerEvent, void, undefined> {
  let fields: Record<string, string> = {};
  let data: string[] = [];
  for await (const line of readLines(bytes)) {
    if (line === '') {
      if (data.length > 0)
        yield { id: fields['id'] ?? '', event: fields['event'] ?? 'message', data: data.join('\n') };
      fields = {};
      data = [];
      continue;
    }
    const [, name = '', value = ''] = /^([^:]*):? ?(.*)$/su.exec(line) ?? [];
    if (name === 'data') data.push(value);
    else fields[name] = value;
  }
}
