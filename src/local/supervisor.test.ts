// Real processes throughout; the children are stand-ins (test/helpers/local-process.child.ts).

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connectControl } from './control.ts';
import type { ClusterState, ProcessState } from './control-types.ts';
import { startDetached } from './detach.ts';
import { layoutPaths } from './layout.ts';
import { createOrOpenLayout, type LayoutOptions, type OpenedLayout } from './layout-create.ts';
import { isAlive, type ProcessId, processId } from './process-id.ts';
import { readRunFile } from './run-file.ts';
import {
  startSupervisor,
  type Supervisor,
  type SupervisorEvent,
  type SupervisorOptions,
} from './supervisor.ts';

const helpers = new URL('../../test/helpers/', import.meta.url);
const command = [process.execPath, fileURLToPath(new URL('local-process.child.ts', helpers))];
const supervisorCommand = [process.execPath, fileURLToPath(new URL('local-supervisor.child.ts', helpers))];

async function newLayout(t: TestContext, options: LayoutOptions = { nodes: 2 }): Promise<OpenedLayout> {
  const parent = await mkdtemp(join(tmpdir(), 'holdfast-local-'));
  t.after(() => rm(parent, { recursive: true, force: true, maxRetries: 5 }));
  return createOrOpenLayout(join(parent, 'cluster'), { port: 0, custodians: 0, ...options });
}

const quick = { stopMs: 2000, startMs: 20_000, backoffMs: { first: 50, longest: 400 } };

async function start(
  t: TestContext,
  layout: OpenedLayout,
  options: Partial<SupervisorOptions> = {},
): Promise<{ supervisor: Supervisor; events: SupervisorEvent[] }> {
  const events: SupervisorEvent[] = [];
  const onEvent = (event: SupervisorEvent): number => events.push(event);
  const supervisor = await startSupervisor(layout, { command, ...quick, onEvent, ...options });
  t.after(() => supervisor.stop());
  return { supervisor, events };
}

async function behave(layout: OpenedLayout, name: string, how: string): Promise<void> {
  await writeFile(join(layoutPaths(layout.dir).process(name), 'behave'), how);
}

function stateOf(state: ClusterState, name: string): ProcessState {
  const found = state.processes.find((each) => each.name === name);
  assert.ok(found, `${name} is not in the state`);
  return found;
}

/** The first state of `name` that `accept` likes; the deadline of the test bounds the wait. */
async function untilState(
  supervisor: Supervisor,
  name: string,
  accept: (state: ProcessState) => boolean,
): Promise<ProcessState> {
  for (;;) {
    const state = stateOf(supervisor.state(), name);
    if (accept(state)) return state;
    await sleep(10);
  }
}

async function idsOf(state: ClusterState): Promise<ProcessId[]> {
  const ids = await Promise.all(state.processes.map(({ pid }) => processId(pid ?? 0)));
  return ids.filter((id) => id !== undefined);
}

async function living(ids: readonly ProcessId[]): Promise<number> {
  return (await Promise.all(ids.map(isAlive))).filter(Boolean).length;
}

/** A supervisor in its own process, running. It and its children are gone after the test, whatever happens. */
async function spawnSupervisor(t: TestContext, dir: string): Promise<ChildProcess> {
  const [program = '', ...rest] = supervisorCommand;
  const child = spawn(program, [...rest, dir], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const { stdout } = child;
  assert.ok(stdout);
  let said = '';
  for await (const part of stdout.iterator({ destroyOnReturn: false })) {
    said += String(part);
    if (said.includes('running\n')) break;
  }
  stdout.resume();
  assert.match(said, /running\n/, 'the supervisor ended before it ran');
  return child;
}

// Every test has a cluster of its own; most of the time they wait.
const limits = { timeout: 60_000, concurrency: 2 };
const waiting = { timeout: 60_000, concurrency: 3 };

describe('a supervised cluster', limits, () => {
  test('runs every process, answers on its control endpoint, and stops door, steward, nodes in order', async (t) => {
    const layout = await newLayout(t);
    const { supervisor } = await start(t, layout);
    const control = await connectControl(layout.dir);
    const state = await control.state();
    assert.equal(state.phase, 'running');
    assert.deepEqual(
      state.processes.map(({ name, status }) => `${name} ${status}`),
      ['node-1 ready', 'node-2 ready', 'steward ready', 'door ready'],
    );
    assert.deepEqual(stateOf(state, 'node-1').info, { peer: layout.file.processes[0]?.peer, found: false });
    const ids = await idsOf(state);
    assert.equal(ids.length, 4);
    await control.down();
    await supervisor.ended;
    assert.equal(await living(ids), 0);
    const notes = (await readFile(join(layout.dir, 'notes'), 'utf8')).trim().split('\n');
    assert.deepEqual(notes.slice(0, 2), ['door stopped', 'steward stopped']);
    assert.deepEqual(notes.slice(2).sort(), ['node-1 stopped', 'node-2 stopped']);
    await assert.rejects(connectControl(layout.dir), {
      code: 'CLUSTER_NOT_RUNNING',
      message: /holdfast up --data/,
    });
    await assert.rejects(control.state(), { code: 'CLUSTER_NOT_RUNNING' });
  });

  test('starts again what crashed, and says so', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    const { supervisor, events } = await start(t, layout);
    const before = stateOf(supervisor.state(), 'node-1').pid ?? 0;
    process.kill(before, 'SIGKILL');
    const after = await untilState(
      supervisor,
      'node-1',
      ({ status, pid }) => status === 'ready' && pid !== before,
    );
    assert.equal(after.restarts, 1);
    assert.equal(after.info?.['found'], true, 'it found what it had stored');
    const told = events.find(({ name, status }) => name === 'node-1' && status === 'waiting');
    assert.match(told?.text ?? '', /node-1 ended with signal SIGKILL.*starting again in \d\.\d s/s);
  });

  test('waits longer each time, and tells the last words of a process that cannot start', async (t) => {
    const layout = await newLayout(t, { nodes: 2 });
    await behave(layout, 'node-2', 'crash');
    const { supervisor, events } = await start(t, layout);
    const state = await untilState(
      supervisor,
      'node-2',
      ({ status, restarts }) => status === 'waiting' && restarts >= 3,
    );
    assert.match(state.text, /ended with code 1.*crashes on purpose/s);
    assert.equal(stateOf(supervisor.state(), 'node-1').status, 'ready', 'the others run');
    const pauses = events
      .filter(({ name, status }) => name === 'node-2' && status === 'waiting')
      .map(({ text }) => Number(/again in (\d+\.\d)/.exec(text)?.[1]));
    assert.ok((pauses[3] ?? 0) > (pauses[0] ?? 0), pauses.join());
    await behave(layout, 'node-2', '');
    await supervisor.act('node-2', 'start');
    await untilState(supervisor, 'node-2', ({ status }) => status === 'ready');
  });

  test('without its door there is no cluster: the reason is thrown and nothing is left running', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await behave(layout, 'door', 'crash');
    await assert.rejects(start(t, layout), {
      code: 'INTERNAL',
      message: /door did not start.*crashes on purpose/s,
    });
    await assert.rejects(connectControl(layout.dir), { code: 'CLUSTER_NOT_RUNNING' });
    assert.equal(await readFile(join(layout.dir, 'notes'), 'utf8'), 'steward stopped\nnode-1 stopped\n');
    await behave(layout, 'door', '');
    await start(t, layout);
  });

  test('a start without a word is given up', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await behave(layout, 'steward', 'silent');
    await assert.rejects(start(t, layout, { startMs: 1500 }), {
      code: 'TIMEOUT',
      message: /steward did not start: no word for 1.5 s/,
    });
  });

  test('an abort while it starts stops everything and throws the reason', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await behave(layout, 'steward', 'silent');
    const stop = new AbortController();
    const onEvent = ({ name, status }: SupervisorEvent): void => {
      if (name === 'node-1' && status === 'ready') stop.abort(new Error('Ctrl-C'));
    };
    await assert.rejects(start(t, layout, { signal: stop.signal, onEvent }), { message: 'Ctrl-C' });
    assert.match(await readFile(join(layout.dir, 'notes'), 'utf8'), /node-1 stopped/);
    await createOrOpenLayout(layout.dir);
  });

  test('a second Ctrl-C kills a process that takes its time', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await behave(layout, 'door', 'busy');
    const stop = new AbortController();
    const hurry = new AbortController();
    const { supervisor } = await start(t, layout, {
      stopMs: 600_000,
      signal: stop.signal,
      hurry: hurry.signal,
    });
    stop.abort();
    await untilState(supervisor, 'door', ({ status }) => status === 'stopping');
    hurry.abort();
    await supervisor.ended;
  });

  test('a process that ignores SIGTERM is killed after its grace', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await behave(layout, 'node-1', 'deaf');
    const { supervisor } = await start(t, layout, { stopMs: 300 });
    const ids = await idsOf(supervisor.state());
    await supervisor.stop();
    assert.equal(await living(ids), 0);
  });
});

describe('what an operator does to one process', limits, () => {
  test('stop and kill keep it down, over a restart of the cluster too, until start', async (t) => {
    const layout = await newLayout(t, { nodes: 3 });
    const { supervisor } = await start(t, layout);
    const control = await connectControl(layout.dir);
    const pid = stateOf(supervisor.state(), 'node-1').pid ?? 0;
    assert.match((await control.killNode('node-1')).text, /killed by the operator; .*holdfast node start 1/);
    assert.equal(await processId(pid), undefined);
    assert.match((await control.stopNode('node-2')).text, /stopped by the operator/);
    assert.match(
      await readFile(join(layout.dir, 'notes'), 'utf8'),
      /^node-2 stopped\n$/,
      'the killed one had no time',
    );
    await control.stopNode('door');
    await control.down();
    await supervisor.ended;

    const { supervisor: next } = await start(t, layout);
    const state = next.state();
    assert.deepEqual(
      state.processes.map(({ status }) => status),
      ['down', 'down', 'ready', 'ready', 'ready'],
    );
    assert.equal(stateOf(state, 'node-1').downBy, 'kill');
    const started = await (await connectControl(layout.dir)).startNode('node-1');
    assert.equal(started.status, 'ready');
    assert.equal(started.downBy, undefined);
    assert.equal(started.info?.['found'], true);
  });

  test('wipe starts a node empty under its old name; lost data without a wipe is damage', async (t) => {
    const layout = await newLayout(t, { nodes: 2 });
    const { supervisor } = await start(t, layout);
    const control = await connectControl(layout.dir);
    const paths = layoutPaths(layout.dir);
    await control.killNode('node-1');
    assert.equal((await control.startNode('node-1')).info?.['found'], true);
    const identity = await readFile(paths.identity('node-1'));
    const wiped = await control.wipeNode('node-1');
    assert.equal(wiped.status, 'ready');
    assert.equal(wiped.info?.['found'], false);
    assert.deepEqual(await readFile(paths.identity('node-1')), identity);
    await access(join(paths.data('node-1'), 'stored'));

    await control.stopNode('node-1');
    await rm(paths.data('node-1'), { recursive: true });
    const damaged = await control.startNode('node-1');
    assert.equal(damaged.status, 'failed');
    assert.equal(damaged.error?.code, 'DATA_DIR_DAMAGED');
    assert.match(damaged.text, /lost what it held.*not started again before .holdfast node start 1/);
    assert.equal((await control.wipeNode('node-1')).status, 'ready');
    await assert.rejects(control.wipeNode('steward'), {
      code: 'ARGUMENT_INVALID',
      message: /only storage nodes/,
    });
    await assert.rejects(control.stopNode('node-9'), {
      code: 'ARGUMENT_INVALID',
      message: /no process "node-9"/,
    });
    assert.equal(stateOf(supervisor.state(), 'node-2').restarts, 0);
  });

  test('the control endpoint takes its own token only', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await start(t, layout);
    const file = await readRunFile(layoutPaths(layout.dir).run);
    assert.ok(file);
    const url = `http://127.0.0.1:${file.port}`;
    for (const authorization of ['', 'Bearer x', `Bearer ${file.token}x`, `Basic ${file.token}`]) {
      const response = await fetch(`${url}/state`, { headers: { authorization } });
      assert.equal(response.status, 401, authorization);
    }
    const headers = { authorization: `Bearer ${file.token}` };
    assert.equal((await fetch(`${url}/state`, { headers })).status, 200);
    assert.equal((await fetch(`${url}/node/node-1/burn`, { headers, method: 'POST' })).status, 404);
    assert.equal((await fetch(`${url}/down`, { headers })).status, 404, 'GET stops nothing');
  });
});

describe('one directory, one supervisor', limits, () => {
  test('a port in use is named with its process, before anything starts', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    const server = createServer();
    const port = layout.file.processes[0]?.port ?? 0;
    await new Promise<void>((resolve) => server.listen({ port, host: '127.0.0.1' }, resolve));
    await assert.rejects(start(t, layout), {
      code: 'PORT_IN_USE',
      message: new RegExp(`port ${port} .*node-1`),
    });
    server.close();
    await once(server, 'close');
    const { supervisor } = await start(t, layout);
    assert.equal(supervisor.state().phase, 'running');
  });

  test('a second supervisor is refused and told whom to stop', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await start(t, layout);
    const message = new RegExp(`process ${process.pid}; stop it with .holdfast down`);
    await assert.rejects(start(t, layout), { code: 'DATA_DIR_LOCKED', message });
    await assert.rejects(createOrOpenLayout(layout.dir), { code: 'DATA_DIR_LOCKED', message });
    assert.equal((await (await connectControl(layout.dir)).state()).phase, 'running');
  });
});

describe('a supervisor that is killed', waiting, () => {
  test('leaves no process after 5 s: not a good one, not a stuck one, not a stopped one', async (t) => {
    const layout = await newLayout(t, { nodes: 4 });
    await behave(layout, 'node-2', 'busy');
    await behave(layout, 'node-3', 'deaf');
    const child = await spawnSupervisor(t, layout.dir);
    const ids = await idsOf(await (await connectControl(layout.dir)).state());
    assert.equal(ids.length, 6);
    process.kill(ids[3]?.pid ?? 0, 'SIGSTOP');
    child.kill('SIGKILL');
    const killedAt = performance.now();
    while ((await living(ids)) > 3) await sleep(20);
    assert.ok(performance.now() - killedAt < 3500, 'good children go by themselves');
    while ((await living(ids)) > 0 && performance.now() - killedAt < 5000) await sleep(20);
    assert.equal(await living(ids), 0);
    await assert.rejects(connectControl(layout.dir), { code: 'CLUSTER_NOT_RUNNING' });
    for (const name of ['node-2', 'node-3']) await behave(layout, name, '');
    const { supervisor } = await start(t, layout);
    assert.equal(stateOf(supervisor.state(), 'node-2').info?.['found'], true);
  });

  test('a child that only loses its channel ends by itself, with a deadline for a slow one', async (t) => {
    const layout = await newLayout(t, { nodes: 2 });
    await behave(layout, 'node-2', 'deaf');
    const [program = '', ...rest] = command;
    const endings = ['node-1', 'node-2'].map(async (name) => {
      const stdio: StdioOptions = ['ignore', 'inherit', 'inherit', 'ipc'];
      const child = spawn(program, [...rest, '--data', layout.dir, '--name', name], { stdio });
      t.after(() => child.kill('SIGKILL'));
      await once(child, 'message');
      const lostAt = performance.now();
      child.disconnect();
      const [code] = await once(child, 'exit');
      return { code, afterMs: performance.now() - lostAt };
    });
    const [good, slow] = await Promise.all(endings);
    assert.equal(good?.code, 0);
    assert.equal(slow?.code, 1);
    assert.ok(
      (good?.afterMs ?? 0) < 3500 && (slow?.afterMs ?? 9999) < 5000,
      `${good?.afterMs} ${slow?.afterMs}`,
    );
  });

  test('is followed at once by another, which waits for the children to go', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    await behave(layout, 'node-1', 'deaf');
    const child = await spawnSupervisor(t, layout.dir);
    const ids = await idsOf(await (await connectControl(layout.dir)).state());
    child.kill('SIGKILL');
    await behave(layout, 'node-1', '');
    const { supervisor } = await start(t, layout);
    assert.equal(await living(ids), 0);
    assert.ok(supervisor.state().processes.every(({ status }) => status === 'ready'));
  });
});

describe('a supervisor in a process of its own', limits, () => {
  test('detached: runs on until down, and a failure to start is told', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    const state = await startDetached(layout.dir, { command: [...supervisorCommand, layout.dir] });
    assert.equal(state.phase, 'running');
    const supervisor = await processId(state.pid);
    assert.ok(supervisor);
    t.after(() => isAlive(supervisor).then((alive) => alive && process.kill(supervisor.pid, 'SIGKILL')));
    await assert.rejects(startSupervisor(layout, { command }), { code: 'DATA_DIR_LOCKED' });
    const ids = await idsOf(state);
    await (await connectControl(layout.dir)).down();
    assert.equal(await living(ids), 0);

    await behave(layout, 'steward', 'crash');
    const failing = startDetached(layout.dir, { command: [...supervisorCommand, layout.dir] });
    await assert.rejects(failing, {
      code: 'INTERNAL',
      message: /steward did not start.*crashes on purpose/s,
    });
  });

  test('Ctrl-C, even when it arrives twice for one press, stops in order', async (t) => {
    const layout = await newLayout(t, { nodes: 1 });
    const child = await spawnSupervisor(t, layout.dir);
    child.kill('SIGINT');
    child.kill('SIGINT');
    const [code] = await once(child, 'exit');
    assert.equal(code, 0);
    assert.equal(
      await readFile(join(layout.dir, 'notes'), 'utf8'),
      'door stopped\nsteward stopped\nnode-1 stopped\n',
    );
  });
});
