// Everything that grows has its bound here, each with the reason.

/** One FLOE segment with its overhead: one raw block (docs/formats.md, Content encryption). */
export const segmentBytes = 262_144;
/** No block is larger. Room for an index block of 4,096 links; under the 2 MiB message ceiling of bitswap. */
export const blockBytesMax = 1_048_576;
/** A signed record (manifest, envelope, branch key, KEK). Large ones are a mistake or an attack. */
export const recordBytesMax = 65_536;
/** Content up to this size travels with the records of its version: one request, and one call to each node. */
export const togetherBytesMax = 65_536;
/** Links in one index block: 4,096 × about 40 B stays below a segment. */
export const indexLinksMax = 4096;
/** Records in one Beacon append. */
export const appendRecordsMax = 16;
/** One RPC head (CBOR) and one RPC body (a block and a little). */
export const rpcHeadBytesMax = 262_144;
export const rpcBodyBytesMax = blockBytesMax + 1024;
/** Length of an address and of one of its parts, in UTF-8 bytes. */
export const addressBytesMax = 4096;
export const addressPartBytesMax = 256;
/** Members of one cluster: the algorithms sort all of them per block. */
export const membersMax = 256;
/** One Beacon append, encoded: it travels as one RPC body. */
export const appendBytesMax = 1024 * 1024;
/** A Beacon subject or record key: an address and its prefix. */
export const subjectBytesMax = addressBytesMax + 64;
/** Compliance tags and citations of one manifest: together with the rest they must stay below `recordBytesMax`. */
export const manifestTagsMax = 64;
export const manifestCitesMax = 128;
/** DEKs under one branch key: bounds what its leak exposes and keeps a nonce collision at 2^-73. */
export const branchKeyUsesMax = 4096;
/** Branch keys a reader keeps open. A million objects have about a thousand; each costs under 1 KiB. */
export const branchKeysOpenMax = 1024;
/** Branch keys in one request to custodians. */
export const unwrapItemsMax = 256;
/** Bytes of requests that one peer may have with us before we give credit. Bulk: a few blocks hide a round trip. */
export const rpcRequestWindowBytes = { control: 2 * 1_048_576, bulk: 4 * 1_048_576 } as const;
/** Bytes of items of one stream on the way to a consumer that does not take them; one item more may follow. */
export const rpcItemWindowBytes = 1_048_576;
/** Bytes of one libp2p stream on the way to a receiver that has not said that it took them. */
export const streamWindowBytes = 4 * 1_048_576;
/** Handlers of one peer running or with an answer not written yet; × `rpcBodyBytesMax` is what it can make us hold. */
export const rpcHandlersMax = { control: 256, bulk: 32 } as const;
/** Streams of one peer and lane that we serve at once. */
export const rpcStreamsMax = 256;
/** Calls to one peer and lane that wait for credit: their bodies are the callers' memory. */
export const rpcWaitingMax = 65_536;
/** Files of one stored directory, and its list: about 400 B each, held in memory as a whole. */
export const treeEntriesMax = 100_000;
export const treeBytesMax = 64 * 1024 * 1024;
/** Custodians of one custody group: they are organisational units, and every ceremony sends n² sealed shares. */
export const custodiansMax = 32;
/** Points of the signing key's group that a process remembers to be elements: the commitments of the largest ceremony, n² of them, several times. */
export const pointsKnownMax = 4096;
/** Depth of the tree of one page of switched wraps: a page holds `unwrapItemsMax` of them, with room for more. */
export const wrapProofMax = 16;
/** One sealed share of a key generation with its payload: the size every implementation should take (c2sp.org/cocktail-dkg). */
export const dkgCiphertextBytesMax = 65_536;
/** Keys and capability links revoked by one record, and in one custody group: each decision looks them up in memory. */
export const revokedPerRecordMax = 256;
export const revocationsMax = 65_536;
/** Links of one capability chain, and one link: an address prefix and a little. */
export const capabilityLinksMax = 3;
export const capabilityBytesMax = addressBytesMax + 1024;
/** A request to custodians: `unwrapItemsMax` wraps with their labels and proofs; it is an RPC head with room to spare. */
export const custodyRequestBytesMax = 253_952;
/** An order to custodians: the members of a group and what is to become of them. */
export const custodyOrderBytesMax = 32_768;
/** Signatures that one request can bring from approvers. */
export const approvalsMax = 16;
/** Ids of requests and orders remembered against a second use: 128 B each. */
export const replayIdsMax = 65_536;
/** Requesters, and projects with a class, that one custodian counts in one bar. */
export const budgetCountersMax = 65_536;
/** Policy families of one custody group that a custodian looks at: one counts, the others are mistakes. */
export const policyFamiliesMax = 64;
/** Records of which a reader remembers the highest version: 200 B each. */
export const highWaterMarksMax = 65_536;
/** Blocks that a node is asked to prove in one call: it reads them all before it answers. */
export const challengeBlocksMax = 256;

/** One message of a ceremony: hellos, dealings and complaints of the most custodians there may be. */
export const ceremonyMessageBytesMax = 65_536;
