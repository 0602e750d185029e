// The port between processes: framed calls over long-lived, authenticated streams.
//
// The network room implements it on libp2p; the Beacon, the steward and the flows use it and never see
// a socket. A call has a small CBOR head and an optional bulk body; an answer likewise. Errors cross the
// wire as HoldfastError codes with their details.

/** What identifies a peer everywhere: the text form of its Ed25519 libp2p peer id. */
export type PeerName = string;

export interface RpcMessage {
  /** Any DAG-CBOR value, at most `rpcHeadBytesMax` encoded. */
  readonly head: unknown;
  /** Bulk bytes, at most `rpcBodyBytesMax`. Absent = empty. */
  readonly body?: Uint8Array;
}

export interface RpcContext {
  /** Who calls: proven by the handshake. */
  readonly peer: PeerName;
  /** Aborted when the caller gives up or the connection is lost. */
  readonly signal: AbortSignal;
}

export interface RpcCallOptions {
  readonly signal?: AbortSignal;
  /** Gives up with TIMEOUT after this long without an answer (or, for a stream, without the next item). Default 10 s. */
  readonly timeoutMs?: number;
  /** `bulk` for bodies of blocks, so that they never delay `control`. Default control. */
  readonly lane?: 'control' | 'bulk';
  /** Of a stream: gives the memory for the body of an item. Default an array of its own for each. */
  readonly memory?: (sizeBytes: number) => Uint8Array;
}

export type RpcHandler = (message: Required<RpcMessage>, context: RpcContext) => Promise<RpcMessage>;
export type RpcStreamHandler = (
  message: Required<RpcMessage>,
  context: RpcContext,
) => AsyncIterable<RpcMessage>;

/** The calling side. Throws PEER_UNREACHABLE, TIMEOUT, or the error the other side threw. */
export interface RpcClient {
  call(
    peer: PeerName,
    method: string,
    message: RpcMessage,
    options?: RpcCallOptions,
  ): Promise<Required<RpcMessage>>;
  /** Items arrive in order, at the pace they are taken (credit). Leaving the loop early cancels the other side. */
  stream(
    peer: PeerName,
    method: string,
    message: RpcMessage,
    options?: RpcCallOptions,
  ): AsyncIterable<Required<RpcMessage>>;
}

/** The answering side. A method is named once; naming it twice is a fault of ours. */
export interface RpcServer {
  /** `borrows`: the handler is done with the body it was given once its promise settles; the memory is then used again. */
  handle(method: string, handler: RpcHandler, options?: { readonly borrows?: boolean }): void;
  handleStream(method: string, handler: RpcStreamHandler): void;
}

/** Answers every call of these methods, and of those that stream, with the error that `why` makes. */
export function refuseMethods(
  server: RpcServer,
  { calls, streams }: { readonly calls: readonly string[]; readonly streams: readonly string[] },
  why: () => Error,
): void {
  for (const method of calls) server.handle(method, () => Promise.reject(why()));
  for (const method of streams)
    server.handleStream(method, () => {
      throw why();
    });
}
