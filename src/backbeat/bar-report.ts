// BarReport v1, what Reverb says of one bar: emitted strictly, read leniently.

import { fieldsOf, parseJson, type Fields, windowForm } from './fields.ts';

export const barReportType = 'backbeat.barreport.v1';

export interface BarReport {
  readonly type: typeof barReportType;
  readonly window_id: string;
  /** First and last beat of the bar, both inclusive. */
  readonly from_beat: number;
  readonly to_beat: number;
  readonly agents_reporting: number;
  readonly on_time_reviews: number;
  readonly help_promises_fulfilled: number;
  /** Whether no rotation of keys is overdue or has failed. */
  readonly secret_rotations_ok: boolean;
  /** How far the bar's end was from where its tempo put it, ms; above 0 is late. */
  readonly tempo_drift_ms: number;
  /** At most 100. Which severities and categories there are is not public: taken as they come, and none emitted. */
  readonly issues?: readonly unknown[];
  readonly metadata?: Readonly<Record<string, unknown>>;
}

/** What was accepted although the schema says otherwise. */
export type ReportNote = 'issues-cut' | 'extra-field' | 'metadata-dropped';

export interface ParsedReport {
  readonly report: BarReport;
  readonly notes: readonly ReportNote[];
}

/** Throws RECORD_INVALID naming the field. */
export function parseReportText(text: string): ParsedReport {
  return parseReport(parseJson(text, label));
}

/** Throws RECORD_INVALID naming the field; also when the bar ends before it begins. */
export function parseReport(value: unknown): ParsedReport {
  const fields = fieldsOf(value, label, barReportType);
  const notes: ReportNote[] = [];
  const issues = parseIssues(fields, notes);
  const metadata = fields.metadata(known, notes);
  const report: BarReport = {
    type: barReportType,
    window_id: fields.text('window_id', windowForm, '32 hex digits').toLowerCase(),
    from_beat: fields.index('from_beat'),
    to_beat: fields.index('to_beat'),
    agents_reporting: fields.index('agents_reporting'),
    on_time_reviews: fields.index('on_time_reviews'),
    help_promises_fulfilled: fields.index('help_promises_fulfilled'),
    secret_rotations_ok: fields.flag('secret_rotations_ok'),
    tempo_drift_ms: fields.number('tempo_drift_ms', -Number.MAX_VALUE, Number.MAX_VALUE),
    ...(issues === undefined ? {} : { issues }),
    ...(metadata === undefined ? {} : { metadata }),
  };
  if (report.to_beat < report.from_beat) throw fields.invalid('to_beat', `at least ${report.from_beat}`);
  return { report, notes };
}

/** The report as JSON text. A report that breaks the schema is a mistake of ours and throws TypeError. */
export function encodeReport(report: BarReport): string {
  const { notes } = parseReport(report);
  if (notes.length > 0) throw new TypeError(`report is not strict: ${notes.join(', ')}`);
  return JSON.stringify(report);
}

const label = 'bar report';
const issuesMax = 100;
const known = new Set([
  'type',
  'window_id',
  'from_beat',
  'to_beat',
  'agents_reporting',
  'on_time_reviews',
  'help_promises_fulfilled',
  'secret_rotations_ok',
  'tempo_drift_ms',
  'issues',
  'metadata',
]);

function parseIssues(fields: Fields, notes: ReportNote[]): readonly unknown[] | undefined {
  const value = fields.get('issues');
  if (value === undefined) return undefined;
  if (Array.isArray(value) && value.length <= issuesMax) return value;
  notes.push('issues-cut');
  return Array.isArray(value) ? value.slice(0, issuesMax) : undefined;
}
