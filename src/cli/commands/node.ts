import type { ControlClient, NodeAction, ProcessState } from '../../local/control-types.ts';
import type { Command, Context } from '../command.ts';
import { table } from '../screen.ts';

const actions: readonly {
  readonly action: NodeAction;
  readonly summary: string;
  readonly act: (control: ControlClient, name: string) => Promise<ProcessState>;
}[] = [
  {
    action: 'stop',
    summary: 'End a node in order; it stays down until `node start`',
    act: (control, name) => control.stopNode(name),
  },
  {
    action: 'kill',
    summary: 'End a node at once, as a crash would; it stays down',
    act: (control, name) => control.killNode(name),
  },
  { action: 'start', summary: 'Start a node again', act: (control, name) => control.startNode(name) },
  {
    action: 'wipe',
    summary: 'Kill a node, delete everything it stores, start it empty; its identity stays',
    act: (control, name) => control.wipeNode(name),
  },
];

const list: Command = {
  name: 'node ls',
  usage: '',
  summary: 'The processes of the local cluster',
  positionals: [0, 0],
  async run({ data, json, screen }) {
    const { processes } = await (await connect(data)).state();
    if (json) {
      screen.value(processes);
      return;
    }
    const rows = processes.map((each) => [
      each.name,
      each.zone,
      each.status,
      String(each.pid ?? '-'),
      String(each.port),
      String(each.restarts),
      each.error?.message ?? (each.status === 'ready' ? '' : each.text),
    ]);
    const head = ['NAME', 'ZONE', 'STATE', 'PID', 'PORT', 'RESTARTS', ''];
    for (const line of table([head.map((cell) => screen.paint('dim', cell)), ...rows], [3, 4, 5]))
      screen.line(line);
  },
};

export const nodeCommands: readonly Command[] = [
  list,
  ...actions.map(
    ({ action, summary, act }): Command => ({
      name: `node ${action}`,
      usage: 'N',
      summary,
      positionals: [1, 1],
      notes: 'N is 1, 2, … or node-1, …; `steward`, `door` and `custodian-1`, … too, except for wipe.',
      run: async (context) => perform(context, act),
    }),
  ),
];

async function perform(
  { data, positionals, json, screen }: Context,
  act: (control: ControlClient, name: string) => Promise<ProcessState>,
): Promise<number> {
  const control = await connect(data);
  const state = await act(control, processName(positionals[0] ?? ''));
  if (json) screen.value(state);
  else
    screen.line(
      `${state.name} (zone ${state.zone}) is ${state.status}: ${state.error?.message ?? state.text}`,
    );
  return state.status === 'failed' ? 1 : 0;
}

function processName(text: string): string {
  return /^\d+$/.test(text) ? `node-${Number(text)}` : text;
}

async function connect(data: string): Promise<ControlClient> {
  const { connectControl } = await import('../../local/control.ts');
  return connectControl(data);
}
