// NATS servers as they are named on the command line.

import { resolve } from 'node:path';
import { HoldfastError } from '../core/errors.ts';
import { defaultStream, type JetStreamSettings, parseBeaconSettings } from '../local/beacon-settings.ts';

/** Settings for a Beacon on `servers`, which has commas between them. Throws ARGUMENT_INVALID. */
export function streamSettings(
  servers: string,
  {
    stream = defaultStream,
    credentials,
    system,
    ca,
  }: Partial<Record<'stream' | 'credentials' | 'system' | 'ca', string | undefined>>,
): JetStreamSettings {
  const paths = Object.entries({ credentials, system, ca }).filter(([, path]) => path !== undefined);
  const settings = parseBeaconSettings(
    {
      engine: 'jetstream',
      stream,
      servers: servers.split(','),
      // The processes run elsewhere than this command.
      ...Object.fromEntries(paths.map(([name, path]) => [name, resolve(path ?? '')])),
    },
    undefined,
    (why) => new HoldfastError('ARGUMENT_INVALID', why),
  );
  if (settings?.engine === 'jetstream') return settings;
  throw new TypeError('streamSettings: these are settings of a stream');
}
