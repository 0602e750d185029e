// node:http and node:https, without undici.
//
// `import … from 'node:http'` looks at every export of the module once, and one of them (WebSocket) loads the whole
// of undici then: 72 ms of processor time in each process, against 6 ms this way (Node 24).

import type { Agent, ClientRequest, RequestOptions } from 'node:http';
import type { AgentOptions } from 'node:https';

export const http = process.getBuiltinModule('node:http');

/** The parts of either module that a call needs. */
export interface Transport {
  readonly agent: Agent;
  request(url: URL, options: RequestOptions): ClientRequest;
}

/**
 * The module that speaks the protocol of `url`, and connections of its own. node:https brings all of TLS along, so it
 * is loaded when it is needed.
 */
export function transportOf(url: URL, options: AgentOptions): Transport {
  const { Agent, request } = url.protocol === 'https:' ? process.getBuiltinModule('node:https') : http;
  return { agent: new Agent({ keepAlive: true, ...options }), request };
}
