import { relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CustodyStatus } from '../../api/types.ts';
import { minute, second } from '../../core/clock.ts';
import { describeError, HoldfastError } from '../../core/errors.ts';
import type { ClusterState } from '../../local/control-types.ts';
import {
  defaultDirectory,
  defaultDoorPort,
  devKeyPath,
  layoutPaths,
  multiaddrOf,
} from '../../local/layout.ts';
import type { LayoutOptions, OpenedLayout } from '../../local/layout-create.ts';
import type { SupervisorEvent } from '../../local/supervisor.ts';
import type { Command, Context } from '../command.ts';
import { openDoor } from '../connect.ts';
import { streamSettings } from '../beacon-option.ts';
import { docsRoot, storeFirstDocuments } from '../first-documents.ts';
import { table } from '../screen.ts';

/** How long the custodians may take to make their key before the start goes on without it. */
const keysMs = minute;
/** Who was stopped on purpose is not waited for longer than the others need. */
const heardMs = 10 * second;
const pollMs = 200;

export const up: Command = {
  name: 'up',
  usage:
    '[--nodes N] [--zones N] [--custodians N] [--stewards N] [--port P] [--beacon SERVERS] [--replace NAME,…] [--detach] [--no-docs]',
  summary: 'Start the local cluster, creating it at the first time; Ctrl-C stops it in order',
  options: {
    nodes: { type: 'string', value: 'N', text: 'storage nodes (default 5; may grow later)' },
    zones: { type: 'string', value: 'N', text: 'zones they are spread over (default 3)' },
    custodians: {
      type: 'string',
      value: 'N',
      text: 'processes that hold shares of the keys (default 5; may grow later; 0: a development key file)',
    },
    stewards: {
      type: 'string',
      value: 'N',
      text: 'processes that heal, dividing the work (default 1; may grow later)',
    },
    port: {
      type: 'string',
      value: 'P',
      text: `HTTP port of the door (default ${defaultDoorPort}; 0: any free one)`,
    },
    beacon: {
      type: 'string',
      value: 'SERVERS',
      text: 'keep a new Beacon in a stream on these NATS servers (nats://host:port, with commas between)',
    },
    'beacon-login': { type: 'string', value: 'FILE', text: 'NATS credentials, or one line user:password' },
    'beacon-system': {
      type: 'string',
      value: 'FILE',
      text: 'the same for the system account of the servers',
    },
    replace: {
      type: 'string',
      value: 'NAME,…',
      text: 'custodians that are lost with their directories: others, with new identities, get their places',
    },
    detach: { type: 'boolean', text: 'return when the cluster is ready; stop it with `holdfast down`' },
    'no-docs': { type: 'boolean', text: 'do not store the documents of this project at the first start' },
  },
  positionals: [0, 0],
  ownSignals: true,
  notes: 'What is stored survives a restart, with the same peer ids. A second Ctrl-C does not wait.',
  async run(context) {
    const options = readOptions(context);
    const layout = await openLayout(context, options);
    return context.flag('detach') ? detached(context, layout) : foreground(context, layout);
  },
};

function readOptions(context: Context): LayoutOptions {
  const [nodes, zones, custodians, stewards, port] = [
    context.whole('nodes', { min: 1, max: 248 }),
    context.whole('zones', { min: 1, max: 26 }),
    context.whole('custodians', { min: 0, max: 32 }),
    context.whole('stewards', { min: 1, max: 8 }),
    context.whole('port', { min: 0, max: 65_535 }),
  ];
  const replace = context.text('replace');
  return {
    ...(nodes === undefined ? {} : { nodes }),
    ...(zones === undefined ? {} : { zones }),
    ...(custodians === undefined ? {} : { custodians }),
    ...(stewards === undefined ? {} : { stewards }),
    ...(port === undefined ? {} : { port }),
    ...(replace === undefined ? {} : { replace: [...new Set(replace.split(','))] }),
    ...beaconOption(context),
  };
}

function beaconOption(context: Context): LayoutOptions {
  const servers = context.text('beacon');
  const login = { credentials: context.text('beacon-login'), system: context.text('beacon-system') };
  if (servers === undefined) {
    if (login.credentials === undefined && login.system === undefined) return {};
    throw new HoldfastError('ARGUMENT_MISSING', '--beacon-login and --beacon-system go with --beacon');
  }
  return { settings: { beacon: streamSettings(servers, login) } };
}

/**
 * The directory; where no custodians make the keys, with the development key: made while nothing can have been
 * sealed with another one, and never a second time.
 */
async function openLayout({ data }: Context, options: LayoutOptions): Promise<OpenedLayout> {
  const [{ createOrOpenLayout }, { readStateFile }, { openDevFile }] = await Promise.all([
    import('../../local/layout-create.ts'),
    import('../../local/state-file.ts'),
    import('../../custody/dev-file.ts'),
  ]);
  const layout = await createOrOpenLayout(data, options);
  if (layout.file.processes.some(({ role }) => role === 'custodian')) return layout;
  const paths = layoutPaths(layout.dir);
  const { processes } = await readStateFile(paths.state);
  const neverRan = Object.values(processes).every(({ bornAt }) => bornAt === undefined);
  const clock = { now: Date.now, monotonic: () => performance.now() };
  const path = devKeyPath({ keysDir: paths.keys });
  await using _provider = await openDevFile({ path, clock, create: layout.created || neverRan });
  return layout;
}

async function detached(context: Context, layout: OpenedLayout): Promise<number> {
  const { startDetached } = await import('../../local/detach.ts');
  const startedMs = performance.now();
  sayBeginning(context, layout);
  const state = await startDetached(layout.dir, {
    // The documents are stored from here: whoever waits for the cluster finds them in it.
    command: [process.execPath, context.mainPath, 'up', '--data', layout.dir, '--no-docs'],
    signal: context.signal,
  });
  sayReady(context, startedMs);
  const keys = await untilKeys(context, layout);
  await storeDocuments(context, layout);
  present(context, layout, state, keys);
  return 0;
}

async function foreground(context: Context, layout: OpenedLayout): Promise<number> {
  const { screen, signal, hurry } = context;
  const [{ startSupervisor }, { daemonCommand }] = await Promise.all([
    import('../../local/supervisor.ts'),
    import('../../local/child.ts'),
  ]);
  const startedMs = performance.now();
  sayBeginning(context, layout);
  let ready = false;
  const onEvent = (event: SupervisorEvent): void => {
    const delayed = event.name === 'supervisor' && event.status === 'starting';
    if (ready || delayed || event.status === 'failed')
      screen.say(`${event.name} is ${event.status}: ${event.text}`);
  };
  await using supervisor = await startSupervisor(layout, {
    command: daemonCommand(context.mainPath),
    signal,
    hurry,
    onEvent,
  });
  sayReady(context, startedMs);
  const keys = await untilKeys(context, layout);
  await storeDocuments(context, layout);
  present(context, layout, supervisor.state(), keys);
  ready = true;
  await supervisor.ended;
  return 0;
}

function sayBeginning({ screen }: Context, { created, file, dir }: OpenedLayout): void {
  screen.say(`${created ? 'creating' : 'starting'} ${file.cluster} in ${dir} …`);
}

function sayReady({ screen }: Context, startedMs: number): void {
  screen.say(`ready after ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
}

/**
 * Waits for the custodians to make their key, where they are to, and for as many to be heard as give one back: until
 * then nothing can be sealed, and nothing read.
 */
async function untilKeys(
  { screen, signal }: Context,
  { dir }: OpenedLayout,
): Promise<CustodyStatus | undefined> {
  const deadline = performance.now() + keysMs;
  let isSaid = false;
  await using door = await openDoor({ data: dir });
  for (;;) {
    const { custody } = await door.status({ signal });
    if (custody === undefined || custody.serves !== 'tdec') return custody;
    const isHeard = (custody.margin ?? -1) >= 0 || performance.now() >= deadline - keysMs + heardMs;
    const isOpen = custody.key !== null && isHeard;
    if (isOpen || custody.problem !== null || performance.now() >= deadline) return custody;
    if (!isSaid && custody.key === null)
      screen.say(`the custodians make the key of group ${custody.group} …`);
    isSaid ||= custody.key === null;
    await sleep(pollMs, undefined, { signal });
  }
}

function keysLine(custody: CustodyStatus | undefined, { screen }: Context): string {
  if (custody?.serves !== 'tdec')
    return screen.paint('yellow', 'Keys   a development key file: fit for trying out, not for secrets');
  const { key, group, problem } = custody;
  if (key !== null)
    return `Keys   any ${key.t} of the ${key.n} custodians of group ${group} give one back; see holdfast custody status`;
  return screen.paint(
    'red',
    `Keys   none can be made: ${problem ?? `group ${group} has not made its own yet`}; see holdfast custody status`,
  );
}

/** A cluster without its own documents works as well; so a failure is said and not fatal. */
async function storeDocuments(context: Context, { dir }: OpenedLayout): Promise<void> {
  const { screen, signal } = context;
  if (context.flag('no-docs')) return;
  try {
    const stored = await storeFirstDocuments({ data: dir, screen, signal });
    if (stored !== undefined) screen.say(`stored ${stored} documents under ${docsRoot}`);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof HoldfastError)) throw error;
    screen.say(`the documents of the project could not be stored: ${describeError(error)}`);
  }
}

function present(
  context: Context,
  layout: OpenedLayout,
  state: ClusterState,
  keys: CustodyStatus | undefined,
): void {
  const { screen, json, data } = context;
  const paths = layoutPaths(layout.dir);
  if (json) {
    screen.value({ ...state, tokenPath: paths.token, created: layout.created, joined: layout.joined });
    return;
  }
  const zones = layout.file.processes.filter(({ role }) => role === 'node').map(({ zone }) => zone);
  const facts = [
    ['Door', `${state.doorUrl}  (API: /openapi.json, health: /health, metrics: /metrics)`],
    ['Token', `${paths.token}  (send it as "Authorization: Bearer …")`],
    ['Data', layout.dir],
    ['Nodes', `${zones.length} in zones ${zones.join(' ')}; bootstrap ${bootstrap(layout)}`],
  ];
  screen.line('');
  for (const line of table(facts)) screen.line(line);
  screen.line(keysLine(keys, context));
  screen.line('');
  screen.line('Try, in another terminal:');
  for (const line of nextCommands(data)) screen.line(`  ${line}`);
  screen.line('');
}

function bootstrap({ file }: OpenedLayout): string {
  const first = file.processes.find(({ role }) => role === 'node');
  return first === undefined ? '-' : `${multiaddrOf(first)}/p2p/${first.peer}`;
}

function nextCommands(data: string): string[] {
  const option =
    data === defaultDirectory || data === '.holdfast' ? '' : ` --data ${shellWord(relativeIfShorter(data))}`;
  const hello = "'ucxl://me:author@demo:notes/*^/hello.txt'";
  return [
    `npx holdfast ls '${docsRoot}'${option}`,
    `echo 'It stays.' | npx holdfast put ${hello} -${option}`,
    `npx holdfast node kill 2${option}`,
    `npx holdfast status --watch${option}`,
    `npx holdfast get ${hello}${option}`,
  ];
}

function relativeIfShorter(path: string): string {
  const short = relative(process.cwd(), path);
  return short !== '' && short.length < path.length ? short : path;
}

function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
