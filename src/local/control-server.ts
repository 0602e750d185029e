// The control endpoint of the supervisor, for commands of this machine (loopback.ts).
//
//   GET  /state                                → ClusterState
//   POST /node/<name>/{stop,kill,start,wipe}   → ProcessState, when it is done
//   POST /down                                 → 202; the supervisor ends soon after

import { HoldfastError } from '../core/errors.ts';
import { type ClusterState, type NodeAction, nodeActions, type ProcessState } from './control-types.ts';
import { type LoopbackServer, serveLoopback } from './loopback.ts';

export interface Controlled {
  state(): ClusterState;
  act(name: string, action: NodeAction): Promise<ProcessState>;
  /** Begins to stop; what comes of it is seen by the end of the process. */
  requestStop(): void;
}

/** Listens on 127.0.0.1 until disposed. */
export function serveControl(controlled: Controlled): Promise<LoopbackServer> {
  return serveLoopback('the supervisor', (method, url) => route(controlled, method, url));
}

async function route(controlled: Controlled, method: string, url: string): Promise<[number, unknown]> {
  const [, first, name = '', verb, ...rest] = url.split('/');
  if (method === 'GET' && url === '/state') return [200, controlled.state()];
  if (method === 'POST' && url === '/down') {
    controlled.requestStop();
    return [202, {}];
  }
  const action = nodeActions.find((each) => each === verb);
  if (method === 'POST' && first === 'node' && action !== undefined && rest.length === 0) {
    return [200, await controlled.act(decodeURIComponent(name), action)];
  }
  throw new HoldfastError('NOT_FOUND', `the supervisor does not know ${method} ${url.slice(0, 200)}`);
}
