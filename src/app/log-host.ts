// Who keeps the log where only one steward does: the others say it, and whoever asked goes on to that one.

import { HoldfastError, isHoldfastError } from '../core/errors.ts';
import type { PeerName, RpcClient } from '../core/rpc.ts';

interface Host {
  readonly peer: PeerName;
  readonly name: string;
}

/** What a steward answers that does not keep the log, to what only the host of the log can do. */
export function notHost({ peer, name }: Host): HoldfastError {
  const text = `the log is kept by ${name}, which alone answers this`;
  return new HoldfastError('BEACON_UNAVAILABLE', text, { details: { host: peer, name } });
}

/**
 * Calls and streams that follow such an answer, once: a door that has lost sight of the host for a moment and turned to
 * another steward is not to refuse what the host would take. `mayHost`: who is believed to be one. `isGone`: who has not
 * answered for so long that it is not to be tried again. Throws what `rpc` throws, and names the host that does not
 * answer: BEACON_UNAVAILABLE when it is gone.
 */
export function throughHost(
  rpc: RpcClient,
  { mayHost, isGone }: Readonly<Record<'mayHost' | 'isGone', (peer: PeerName) => boolean>>,
): RpcClient {
  const named = (error: unknown, { peer, name }: Host): unknown => {
    if (!isHoldfastError(error, 'PEER_UNREACHABLE') && !isHoldfastError(error, 'TIMEOUT')) return error;
    const code = isGone(peer) ? 'BEACON_UNAVAILABLE' : error.code;
    return new HoldfastError(code, `the log is kept by ${name}, which does not answer`, { cause: error });
  };
  const hostIn = (error: unknown, asked: PeerName): Host => {
    const { host: peer, name } = isHoldfastError(error, 'BEACON_UNAVAILABLE') ? error.details : {};
    if (typeof peer !== 'string' || typeof name !== 'string' || peer === asked || !mayHost(peer)) throw error;
    return { peer, name };
  };
  return {
    call: async (peer, ...asked) => {
      try {
        return await rpc.call(peer, ...asked);
      } catch (refusal) {
        const host = hostIn(refusal, peer);
        return rpc.call(host.peer, ...asked).catch((error: unknown) => {
          throw named(error, host);
        });
      }
    },
    stream: async function* (peer, ...asked) {
      let isBegun = false;
      let host: Host;
      try {
        for await (const item of rpc.stream(peer, ...asked)) {
          isBegun = true;
          yield item;
        }
        return;
      } catch (refusal) {
        if (isBegun) throw refusal;
        host = hostIn(refusal, peer);
      }
      try {
        yield* rpc.stream(host.peer, ...asked);
      } catch (error) {
        throw named(error, host);
      }
    },
  };
}
