import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Admission, type Room } from './block-admission.ts';
import { type BlockStoreEvent, settleOptions } from './block-options.ts';

const reserveBytes = 10_000;

/** A disk with room for `bytes`, of which the running figure learns when it is asked. */
class Disk implements Room {
  bytes: number;
  freeBytes: number;

  constructor(freeBytes: number) {
    this.freeBytes = freeBytes;
    this.bytes = freeBytes;
  }

  take(sizeBytes: number): void {
    this.bytes -= sizeBytes;
  }

  async refresh(): Promise<void> {
    this.bytes = this.freeBytes;
  }

  async refreshIfOld(): Promise<void> {}
}

/** An admission over `disk`, with a directory that its probe can write to. */
async function admissionOver(t: TestContext, disk: Room, isBroken = () => false) {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-admission-'));
  await mkdir(join(path, 'tmp'));
  const events: BlockStoreEvent[] = [];
  const opened = Promise.withResolvers<void>();
  const failed = Promise.withResolvers<void>();
  const onEvent = (event: BlockStoreEvent): void => {
    events.push(event);
    if (event.type === 'ready') opened.resolve();
    if (event.type === 'background-failed') failed.resolve();
  };
  const settings = await settleOptions({ reserveBytes, probeMs: 1, onEvent }, path);
  const mended: string[] = [];
  const mendedTwice = Promise.withResolvers<void>();
  const mend = async (): Promise<void> => {
    if (mended.push(admission.refusal?.reason ?? 'open') === 2) mendedTwice.resolve();
  };
  const admission = new Admission(disk, { isBroken, mend }, settings);
  t.after(async () => {
    await admission.close();
    await rm(path, { recursive: true, force: true });
  });
  return {
    admission,
    events,
    path,
    mended,
    mendedTwice: mendedTwice.promise,
    opened: opened.promise,
    failed: failed.promise,
  };
}

/** A timer of the probe does not hold the process: somebody must. */
function holdProcess(t: TestContext): void {
  const timer = setInterval(() => undefined, 1000);
  t.after(() => clearInterval(timer));
}

test('a block that would touch the reserve is refused, and so is every one after it', async (t) => {
  const disk = new Disk(reserveBytes + 100);
  const { admission, events } = await admissionOver(t, disk);
  await admission.admit(100);
  disk.freeBytes -= 100;
  await assert.rejects(admission.admit(1), {
    code: 'DISK_FULL',
    details: { reason: `less than ${reserveBytes} bytes of space are left` },
  });
  await assert.rejects(admission.admit(0), { code: 'DISK_FULL' });
  assert.deepEqual(
    events.map(({ type }) => type),
    ['read-only'],
  );
});

test('what others have freed is seen before a block is refused', async (t) => {
  const disk = new Disk(reserveBytes + 100);
  const { admission, events } = await admissionOver(t, disk);
  disk.freeBytes += 500;
  await admission.admit(300);
  assert.deepEqual(events, []);
});

test('a write that the disk failed refuses later ones; a fault of the machine does not', async (t) => {
  const { admission } = await admissionOver(t, new Disk(10 * reserveBytes));
  const handles = Object.assign(new Error('too many open files'), { code: 'EMFILE' });
  assert.equal(admission.failed(handles).code, 'FILE_UNREADABLE');
  await admission.admit(1);
  const broken = Object.assign(new Error('i/o error'), { code: 'EIO' });
  const told = admission.failed(broken);
  assert.equal(told.code, 'DISK_FULL');
  assert.equal(told.cause, broken);
  await assert.rejects(admission.admit(1), { code: 'DISK_FULL', cause: broken });
});

test('the first reason stands, unless something is broken beside it', async (t) => {
  let isBroken = false;
  const { admission, events } = await admissionOver(t, new Disk(0), () => isBroken);
  admission.refuse('first');
  admission.refuse('second');
  assert.equal(admission.refusal?.reason, 'first');
  isBroken = true;
  admission.refuse('third');
  assert.equal(admission.refusal?.reason, 'third');
  assert.deepEqual(
    events.map(({ type }) => type),
    ['read-only', 'read-only'],
  );
});

test('it opens again when there is room beyond the reserve and a write works, and mends first', {
  timeout: 20_000,
}, async (t) => {
  holdProcess(t);
  const disk = new Disk(10 * 1024 * 1024);
  const { admission, path, mended, opened, failed } = await admissionOver(t, disk);
  await rm(join(path, 'tmp'), { recursive: true });
  await writeFile(join(path, 'tmp'), 'no directory'); // no probe can be written
  admission.refuse('the disk failed');
  await failed;
  assert.equal(admission.refusal?.reason, 'the disk failed');
  assert.deepEqual(mended, []);
  await rm(join(path, 'tmp'));
  await mkdir(join(path, 'tmp'));
  await opened;
  assert.equal(admission.refusal, undefined);
  assert.deepEqual(mended, ['the disk failed']);
  await admission.admit(1);
});

test('it does not open at the edge of the reserve: its index is mended, and writes wait', {
  timeout: 20_000,
}, async (t) => {
  holdProcess(t);
  const disk = new Disk(1.1 * reserveBytes);
  const { admission, mended, opened, mendedTwice } = await admissionOver(t, disk);
  admission.refuse('full');
  await mendedTwice;
  assert.equal(admission.refusal?.reason, 'full');
  disk.freeBytes = 1.25 * reserveBytes;
  await opened;
  assert.deepEqual(new Set(mended), new Set(['full']));
});
