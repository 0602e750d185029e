// The port through which BACKBEAT messages are published and heard: strict out, lenient in, everything counted.
//
// What a channel carries is text; here it becomes messages. A message that cannot be read, or whose signature does
// not fit, is counted and goes no further. An unsigned one is heard: upstream's agents need not sign.

import { toHex, utf8 } from '../core/bytes.ts';
import { type Signer, verifySignature } from '../core/hash.ts';
import { type BarReport, encodeReport, parseReportText, type ReportNote } from './bar-report.ts';
import { type BeatFrame, type BeatNote, encodeBeat, parseBeatText } from './beat.ts';
import type { Channel, ChannelMessage, ChannelState } from './channel.ts';
import { type ClaimNote, encodeClaim, parseClaimText, type StatusClaim } from './status-claim.ts';
import { type MessageKind, signatureHeaders } from './subjects.ts';

export interface BackbeatBus {
  /** Publishing never waits and never throws for the network; what breaks the schema throws TypeError or RECORD_INVALID. */
  publishBeat(frame: BeatFrame): void;
  publishClaim(claim: StatusClaim): void;
  publishReport(report: BarReport): void;
  /** Listeners must not throw. Each returned function ends its own listening. */
  onBeat(listener: (frame: BeatFrame, from: Sender) => void): () => void;
  onClaim(listener: (claim: StatusClaim, from: Sender) => void): () => void;
  onReport(listener: (report: BarReport, from: Sender) => void): () => void;
  status(): BusStatus;
}

export interface Sender {
  /** Ed25519 key, hex, under which the message is signed and verifies; undefined for an unsigned one. */
  readonly key: string | undefined;
}

export type BusNote = BeatNote | ClaimNote | ReportNote;

/** How often each leniency was needed, how many messages were taken, and refused for their form or their signature. */
export type KindCounters = Readonly<
  Partial<Record<BusNote, number>> & { accepted: number; refused: number; forged: number }
>;

export interface BusStatus extends ChannelState {
  readonly counters: Readonly<Record<MessageKind, KindCounters>>;
}

export interface BusOptions {
  /** Signs what this process publishes. Absent: unsigned. */
  readonly signer?: Signer;
}

interface Parsed<Message> {
  readonly message: Message;
  readonly notes: readonly BusNote[];
}

const zero: KindCounters = { accepted: 0, refused: 0, forged: 0 };

/** Joins the messages to a channel, which the caller disposes of. */
export function backbeatBus(channel: Channel, options: BusOptions = {}): BackbeatBus {
  const counters: Record<MessageKind, KindCounters> = { beat: zero, status: zero, report: zero };
  const publish = (kind: MessageKind, text: string): void =>
    channel.publish(kind, { text, headers: headersOf(text, options.signer) });
  const count = (kind: MessageKind, name: keyof KindCounters): void => {
    counters[kind] = { ...counters[kind], [name]: (counters[kind][name] ?? 0) + 1 };
  };
  const take = <Message>(
    kind: MessageKind,
    read: (text: string) => Parsed<Message>,
    sent: ChannelMessage,
  ): { readonly message: Message; readonly from: Sender } | undefined => {
    const parsed = attempt(() => read(sent.text));
    const from = senderOf(sent);
    if (parsed === undefined || from === 'forged') {
      count(kind, parsed === undefined ? 'refused' : 'forged');
      return undefined;
    }
    count(kind, 'accepted');
    for (const note of parsed.notes) count(kind, note);
    return { message: parsed.message, from };
  };
  /** One subscription of the channel for all listeners of a kind, so that each message is read and counted once. */
  const fanOut = <Message>(kind: MessageKind, read: (text: string) => Parsed<Message>) => {
    const listeners = new Set<(message: Message, from: Sender) => void>();
    let stop: (() => void) | undefined;
    return (listener: (message: Message, from: Sender) => void): (() => void) => {
      const own = (message: Message, from: Sender): void => listener(message, from);
      listeners.add(own);
      stop ??= channel.subscribe(kind, (sent) => {
        const taken = take(kind, read, sent);
        if (taken !== undefined) for (const each of listeners) each(taken.message, taken.from);
      });
      return () => {
        listeners.delete(own);
        if (listeners.size > 0) return;
        stop?.();
        stop = undefined;
      };
    };
  };
  return {
    publishBeat: (frame) => publish('beat', encodeBeat(frame)),
    publishClaim: (claim) => publish('status', encodeClaim(claim)),
    publishReport: (report) => publish('report', encodeReport(report)),
    onBeat: fanOut('beat', readBeat),
    onClaim: fanOut('status', readClaim),
    onReport: fanOut('report', readReport),
    status: () => ({ ...channel.state(), counters: { ...counters } }),
  };
}

function readBeat(text: string): Parsed<BeatFrame> {
  const { frame, notes } = parseBeatText(text);
  return { message: frame, notes };
}

function readClaim(text: string): Parsed<StatusClaim> {
  const { claim, notes } = parseClaimText(text);
  return { message: claim, notes };
}

function readReport(text: string): Parsed<BarReport> {
  const { report, notes } = parseReportText(text);
  return { message: report, notes };
}

function headersOf(text: string, signer: Signer | undefined): Readonly<Record<string, string>> {
  if (signer === undefined) return {};
  return {
    [signatureHeaders.signature]: toHex(signer.sign(utf8(text))),
    [signatureHeaders.key]: toHex(signer.publicKey),
  };
}

function senderOf({ text, headers }: ChannelMessage): Sender | 'forged' {
  const signature = headers[signatureHeaders.signature];
  const key = headers[signatureHeaders.key];
  if (signature === undefined && key === undefined) return { key: undefined };
  const isSigned = verifySignature(fromHex(key), utf8(text), fromHex(signature));
  return isSigned && key !== undefined ? { key: key.toLowerCase() } : 'forged';
}

/** Empty for what is no hex of a plausible length: no signature verifies with that. */
function fromHex(text: string | undefined): Uint8Array {
  if (text === undefined || !/^([0-9a-fA-F]{2}){1,64}$/.test(text)) return new Uint8Array();
  return new Uint8Array(Buffer.from(text, 'hex'));
}

function attempt<Value>(read: () => Value): Value | undefined {
  try {
    return read();
  } catch {
    return undefined; // counted by the caller; who sends nonsense is not told, nobody waits for an answer
  }
}
