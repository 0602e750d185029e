// A key agent: the service that hands out keys object by object, and its log.

import { toHex } from '../../core/bytes.ts';
import { HoldfastError } from '../../core/errors.ts';
import { fieldOf } from '../../core/shape.ts';
import { callHost } from '../../local/host-commands.ts';
import type { Command, Context } from '../command.ts';
import { table } from '../screen.ts';
import { runApart } from './custodian.ts';

const pageLeaves = 64;
const shownDefault = 50;
const config = { type: 'string', value: 'FILE', text: 'its configuration (docs/key-agents.md)' } as const;

const keyAgent: Command = {
  name: 'key-agent',
  usage: '--config FILE [--init]',
  summary:
    'Run a key agent: it hands out the keys of single objects to who may read only those; Ctrl-C stops it',
  options: {
    config,
    init: {
      type: 'boolean',
      text: 'make its identity, print peer id and key for policy and capability, and end',
    },
  },
  positionals: [0, 0],
  ownSignals: true,
  notes: [
    'It asks the custodians under a capability of its own and is listed as a key agent in the policy. Whoever asks it shows',
    'a capability, which may be for paths under a prefix; the branch key never leaves the agent. Run two or more.',
  ].join('\n'),
  run: (context) => runApart(context, 'key-agent', ['--key-agent']),
};

const keyAgentAudit: Command = {
  name: 'key-agent audit',
  usage: '--config FILE [--all]',
  summary:
    'Verify the log of a key agent and tell which objects it gave the keys of; on the machine where it runs',
  options: { config, all: { type: 'boolean', text: `every entry (default the last ${shownDefault})` } },
  positionals: [0, 0],
  notes: 'Exit status 6 when the log is not whole.',
  async run(context) {
    const path = context.text('config');
    if (path === undefined)
      throw new HoldfastError('ARGUMENT_MISSING', 'key-agent audit needs --config FILE');
    const [{ loadAgentConfig }, { verifyLog }, { openKeyOf }] = await Promise.all([
      import('../../local/key-agent-config.ts'),
      import('../../custody/audit-verify.ts'),
      import('../connect.ts'),
    ]);
    const { name, cluster, dataDir, identityPath } = await loadAgentConfig(path);
    const { note, leaves } = await fetchLog(dataDir, name);
    const { publicKey } = await openKeyOf(identityPath);
    const log = verifyLog({ name: `${cluster}/${name}`, publicKey }, note, leaves);
    const entries = log.leaves.map(({ at, beat, decision, requester, items, reason }) => {
      return {
        at,
        beat,
        decision,
        requester: toHex(requester),
        keys: items.map(({ bkId }) => toHex(bkId)),
        reason,
      };
    });
    if (context.json) context.screen.value({ entries });
    else show(context, entries);
  },
};

export const keyAgentCommands: readonly Command[] = [keyAgent, keyAgentAudit];

async function fetchLog(dataDir: string, name: string) {
  const leaves: Uint8Array[] = [];
  let note = '';
  for (;;) {
    const page = await callHost(dataDir, name, '/log', { from: leaves.length, count: pageLeaves });
    const list = fieldOf(page, 'leaves');
    if (!Array.isArray(list)) throw new HoldfastError('INTERNAL', 'the key agent speaks another version');
    leaves.push(...list.map((leaf: unknown) => new Uint8Array(Buffer.from(String(leaf), 'base64'))));
    note = String(fieldOf(page, 'note'));
    if (list.length < pageLeaves) return { note, leaves };
  }
}

interface Entry {
  readonly at: number;
  readonly decision: string;
  readonly requester: string;
  readonly reason: string;
}

function show(context: Context, entries: readonly Entry[]): void {
  const { screen } = context;
  const shown = context.flag('all') ? entries : entries.slice(-shownDefault);
  screen.line(`${entries.length} entries, whole`);
  const rows = shown.map(({ at, decision, requester, reason }) => [
    new Date(at).toISOString(),
    screen.paint(decision === 'granted' ? 'green' : 'red', decision),
    `${requester.slice(0, 16)}…`,
    reason,
  ]);
  for (const line of table(rows)) screen.line(line);
}
