// `holdfast/client`: what programs use to store and read documents.

export type {
  BeatAnswer,
  ChangeEvent,
  HealthAnswer,
  HistoryLine,
  NavigateAnswer,
  ProviderInfo,
  StatAnswer,
  StatusAnswer,
  VersionInfo,
} from '../api/types.ts';
export { type ErrorCode, errorCatalogue, HoldfastError, isHoldfastError } from '../core/errors.ts';
export { type Signer, signerFromKey, signerFromSeed } from '../core/hash.ts';
export { openDevFile } from '../custody/dev-file.ts';
export type { KekProvider } from '../custody/provider.ts';
export type { ByteRange } from '../flows/get.ts';
export type { PutResult } from '../flows/put.ts';
export type { ReplicationPolicy } from '../manifest/manifest.ts';
export type { TreeEntry } from '../manifest/tree.ts';
export {
  type ClientOptions,
  defaultReplication,
  type DirectoryPutRequest,
  type GetRequest,
  HoldfastClient,
  type OpenedTree,
  type OpenedVersion,
  type PutRequest,
} from './client.ts';
export {
  DirectoryWriter,
  readDirectory,
  readFileBytes,
  type SourceDirectory,
  type SourceFile,
  writeFileWhole,
  type WriteOptions,
} from './directory.ts';
export {
  DoorClient,
  type PageRequest,
  type SubscribeRequest,
  type VerifyReport,
  type WatchedRequest,
} from './door-client.ts';
export type { DoorOptions } from './http.ts';
export type { DirectoryPut, StoredFile } from './put-directory.ts';
