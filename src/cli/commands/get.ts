import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { basename } from 'node:path';
import type { HoldfastClient, OpenedVersion } from '../../client/client.ts';
import { mapInOrder } from '../../core/concurrency.ts';
import { HoldfastError } from '../../core/errors.ts';
import { parseAddress } from '../../ucxl/address.ts';
import type { Command, Context } from '../command.ts';
import { approvalsOf, approveOption } from '../approvals.ts';
import { openClient } from '../connect.ts';
import { keyAgentOf } from '../key-agent-access.ts';
import { bytesText, type Progress } from '../screen.ts';

export const get: Command = {
  name: 'get',
  usage: 'ADDRESS [-o FILE] [--range A-B]',
  summary: 'Fetch and open a version: to standard output, a file, or a directory',
  options: {
    output: {
      type: 'string',
      short: 'o',
      value: 'FILE',
      text: 'where to; a directory for a stored directory',
    },
    range: { type: 'string', value: 'A-B', text: 'bytes A to B, both inclusive, from 0; A- for the rest' },
    force: { type: 'boolean', text: 'replace files that exist' },
    agent: { type: 'string', value: 'URL', text: 'have a key agent give the key of each object' },
    'agent-key': { type: 'string', value: 'KEY', text: 'its Ed25519 key, 64 hex digits' },
    capability: { type: 'string', value: 'FILE', text: 'what is shown to it (default that of the writer)' },
    as: { type: 'string', value: 'KEY-FILE', text: 'identity key of who asks it (default the writer)' },
    ...approveOption,
  },
  positionals: [1, 1],
  notes: [
    'The temporal segment says which version: *^ or none the newest, *~3 version 3, ~~1 the one before, an',
    'instant such as 2026-01-31T12:00:00Z the one current then. A file appears whole or not at all.',
  ].join('\n'),
  async run(context) {
    const address = parseAddress(context.positionals[0] ?? '', { profile: 'lenient' });
    const range = readRange(context.text('range'));
    const output = context.text('output');
    if (context.json && output === undefined)
      throw new HoldfastError(
        'ARGUMENT_INVALID',
        '--json needs -o FILE: the content itself goes to standard output',
      );
    const [keyAgent, approve] = [await keyAgentOf(context), await approvalsOf(context)];
    await using client = await openClient(context, 'holdfast/cli', {
      ...(keyAgent === undefined ? {} : { keyAgent }),
      ...(approve === undefined ? {} : { approve }),
    });
    const opened = await client.get(address, {
      signal: context.signal,
      ...(range === undefined ? {} : { range }),
    });
    if (opened.type === 'tree') return await getTree(context, client, opened, output, range !== undefined);
    using progress = context.screen.progress(basename(opened.key), opened.lengthBytes);
    const bytes = counted(opened.bytes, progress);
    if (output === undefined) {
      await pipeline(Readable.from(bytes, { objectMode: false }), context.screen.streams.stdout, {
        end: false,
      });
      return;
    }
    const { writeFileWhole } = await import('../../client/directory.ts');
    await writeFileWhole(output, bytes, { force: context.flag('force') });
    if (context.json) context.screen.value({ ...facts(opened), lengthBytes: opened.lengthBytes, output });
    else context.screen.line(`${output}: ${bytesText(opened.lengthBytes)} of ${opened.address}`);
  },
};

/** Files of a directory under way at a time. */
const filesUnderway = 4;

async function getTree(
  context: Context,
  client: HoldfastClient,
  opened: OpenedVersion,
  output: string | undefined,
  ranged: boolean,
): Promise<void> {
  const { screen, signal, json } = context;
  if (output === undefined || ranged)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `${opened.address} is a directory: name the one to create with -o DIR${ranged ? ', without --range' : ''}`,
    );
  const { entries, address } = await client.getTree(opened.address, { signal });
  const { DirectoryWriter } = await import('../../client/directory.ts');
  const writer = await DirectoryWriter.open(output, { force: context.flag('force') });
  const sizeBytes = entries.reduce((sum, { size }) => sum + size, 0);
  using progress = screen.progress(basename(output), sizeBytes);
  const written = mapInOrder(entries, filesUnderway, async (entry) => {
    const file = await client.getEntry(entry, { signal });
    await writer.write(entry.name, counted(file.bytes, progress));
  });
  for await (const _ of written); // the first failure ends it; files that are there are whole
  if (json) screen.value({ ...facts(opened), files: entries.length, output });
  else screen.line(`${output}: ${entries.length} files, ${bytesText(sizeBytes)}, of ${address}`);
}

function facts({
  address,
  key,
  version,
  cid,
  type,
  media,
  sizeBytes,
}: OpenedVersion): Record<string, unknown> {
  return { address, key, version, cid: cid.toString(), type, media, sizeBytes };
}

async function* counted(
  bytes: AsyncIterable<Uint8Array>,
  progress: Progress,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const part of bytes) {
    yield part;
    progress.add(part.length);
  }
}

function readRange(text: string | undefined): { first: number; last: number } | undefined {
  if (text === undefined) return undefined;
  const found = /^(\d{1,15})-(\d{0,15})$/.exec(text);
  const first = Number(found?.[1]);
  const last = found?.[2] === '' ? Number.MAX_SAFE_INTEGER : Number(found?.[2]);
  if (found !== null && first <= last) return { first, last };
  throw new HoldfastError(
    'ARGUMENT_INVALID',
    `--range takes A-B with A ≤ B, or A-, not ${JSON.stringify(text)}`,
  );
}
