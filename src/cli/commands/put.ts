import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { HoldfastClient, PutRequest } from '../../client/client.ts';
import { HoldfastError } from '../../core/errors.ts';
import type { PutResult } from '../../flows/put.ts';
import { parseAddress } from '../../ucxl/address.ts';
import type { Command, Context } from '../command.ts';
import { openClient } from '../connect.ts';
import { bytesText } from '../screen.ts';

const classes = ['public', 'internal', 'confidential', 'restricted'] as const;

export const put: Command = {
  name: 'put',
  usage: 'ADDRESS FILE|DIR|-',
  summary: 'Seal and store a file, a directory or standard input as the next version of an address',
  options: {
    media: {
      type: 'string',
      value: 'TYPE',
      text: 'media type (default by the name of the file, or of the address)',
    },
    class: { type: 'string', value: 'CLASS', text: `one of ${classes.join(', ')} (default internal)` },
    tags: { type: 'string', value: 'A,B', text: 'compliance tags' },
    by: { type: 'string', value: 'NAME', text: 'who made it (default: agent:role of the address)' },
    expect: { type: 'string', value: 'N', text: 'only if N is the newest version now; 0: none yet' },
    min: { type: 'string', value: 'N', text: 'fewest copies (default 3)' },
    max: { type: 'string', value: 'N', text: 'most copies (default 5)' },
  },
  positionals: [2, 2],
  notes: [
    'Prints the immutable address of exactly this version (…/*~N/…): cite that one.',
    'A directory gets one address per file below ADDRESS, and a list of them at ADDRESS. Symbolic links are',
    'not followed. Sealing happens here: the cluster never sees the content.',
  ].join('\n'),
  async run(context) {
    const [text = '', path = ''] = context.positionals;
    const address = parseAddress(text, { profile: 'lenient' });
    const request = readRequest(context);
    const source = await sourceOf(path);
    await using client = await openClient(context, context.text('by') ?? `${address.agent}:${address.role}`);
    if (source.type === 'directory') return await putDirectory(context, client, path, request);
    using progress = context.screen.progress(basename(path), source.sizeBytes);
    const { readFileBytes } = await import('../../client/directory.ts');
    const { mediaOf } = await import('../../core/media.ts');
    const bytes = source.type === 'stdin' ? standardInput(context) : readFileBytes(path, { follow: true });
    const media = context.text('media') ?? mediaOf(source.type === 'stdin' ? address.path : path);
    const result = await client.put(address, bytes, {
      ...request,
      media,
      onStored: (more) => progress.add(more),
    });
    if (context.json) context.screen.value(plain(result));
    else for (const line of resultLines(result)) context.screen.line(line);
  },
};

async function putDirectory(
  context: Context,
  client: HoldfastClient,
  path: string,
  request: PutRequest,
): Promise<void> {
  const { screen, positionals, json } = context;
  const { readDirectory } = await import('../../client/directory.ts');
  const source = await readDirectory(path);
  for (const { name, reason } of source.skipped) screen.say(`left out: ${name} (${reason})`);
  using progress = screen.progress(basename(path), source.sizeBytes);
  const { tree, files } = await client.putDirectory(positionals[0] ?? '', source.files, {
    ...request,
    onStored: (more) => progress.add(more),
  });
  if (json) {
    screen.value({
      ...plain(tree),
      files: files.map((file) => ({ name: file.name, ...plain(file) })),
      skipped: source.skipped,
    });
    return;
  }
  screen.line(`${files.length} files, ${bytesText(source.sizeBytes)}, listed at`);
  for (const line of resultLines(tree)) screen.line(line);
  const short = files.filter((file) => file.short).length;
  if (short > 0)
    screen.line(`short: ${short} of the files have fewer copies than wanted for now; healing makes the rest`);
}

function resultLines(result: PutResult): string[] {
  const { address, cid, sizeBytes, copies, wanted, short } = result;
  return [
    address,
    `${cid.toString()} · ${bytesText(sizeBytes)} · ${copies} copies`,
    ...(short
      ? [`short: ${copies} of ${wanted} copies for now; healing makes the rest when more nodes are there`]
      : []),
  ];
}

function plain({ cid, ...rest }: PutResult): Record<string, unknown> {
  return { ...rest, cid: cid.toString() };
}

function readRequest(context: Context): PutRequest {
  const [cls, tags] = [context.text('class'), context.text('tags')];
  const known = classes.find((each) => each === cls);
  if (cls !== undefined && known === undefined)
    throw new HoldfastError(
      'ARGUMENT_INVALID',
      `--class takes one of ${classes.join(', ')}, not ${JSON.stringify(cls)}`,
    );
  const expected = context.whole('expect', { min: 0, max: Number.MAX_SAFE_INTEGER });
  const [min, max] = [context.whole('min', { min: 1, max: 256 }), context.whole('max', { min: 1, max: 256 })];
  return {
    signal: context.signal,
    replication: { ...(min === undefined ? {} : { min }), ...(max === undefined ? {} : { max }) },
    ...(known === undefined ? {} : { cls: known }),
    ...(tags === undefined ? {} : { tags: tags.split(',').map((tag) => tag.trim()) }),
    ...(expected === undefined ? {} : { expectedVersion: expected }),
  };
}

type Source = { readonly type: 'file' | 'directory' | 'stdin'; readonly sizeBytes: number | undefined };

async function sourceOf(path: string): Promise<Source> {
  if (path === '-') return { type: 'stdin', sizeBytes: undefined };
  const { fileError } = await import('../../files/whole.ts');
  const facts = await stat(path).catch((cause: unknown) => {
    throw fileError(path, 'cannot be read', cause);
  });
  if (facts.isDirectory()) return { type: 'directory', sizeBytes: undefined };
  // A pipe or device has no size to go by, but it can be read.
  return { type: 'file', sizeBytes: facts.isFile() ? facts.size : undefined };
}

async function* standardInput({ screen }: Context): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of screen.streams.stdin)
    yield typeof chunk === 'string' ? Buffer.from(chunk) : chunk;
}
