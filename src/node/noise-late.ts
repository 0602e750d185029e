// Noise for those that do not speak TLS: loaded when the first of them comes. Members of ours never need it.

import {
  type ComponentLogger,
  type ConnectionEncrypter,
  type MessageStream,
  type PeerId,
  type PrivateKey,
  type SecureConnectionOptions,
  serviceCapabilities,
  type Upgrader,
} from '@libp2p/interface';

interface Components {
  readonly peerId: PeerId;
  readonly privateKey: PrivateKey;
  readonly logger: ComponentLogger;
  readonly upgrader: Upgrader;
}

/** For `connectionEncrypters`. */
export function noiseLate(): (components: Components) => ConnectionEncrypter {
  return (components) => {
    let loaded: Promise<ConnectionEncrypter> | undefined;
    const load = (): Promise<ConnectionEncrypter> => {
      loaded ??= import('@libp2p/noise').then(({ noise }) => noise()(components));
      return loaded;
    };
    const encrypter = {
      protocol: '/noise',
      secureInbound: async (stream: MessageStream, options?: SecureConnectionOptions) =>
        (await load()).secureInbound(stream, options),
      secureOutbound: async (stream: MessageStream, options?: SecureConnectionOptions) =>
        (await load()).secureOutbound(stream, options),
      [serviceCapabilities]: ['@libp2p/connection-encryption'],
    };
    return encrypter;
  };
}
