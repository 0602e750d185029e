// How the custodians do, for a person: one line among others, and a page of its own. Pure: from the door's answer to
// lines.

import type { CustodianInfo, CustodyStatus } from '../api/types.ts';
import { durationText, type Paint, table } from './screen.ts';

/** 0: all well. 1: something is to be done. 5: keys cannot be given back now. */
export function custodyExit(status: CustodyStatus): 0 | 1 | 5 {
  const { problem, serves, key, margin, canary, misconduct } = status;
  if (problem !== null || (serves === 'tdec' && key === null)) return 5;
  if ((margin !== null && margin < 0) || canary?.ok === false) return 5;
  const ill = status.custodians.some(({ index, state }) => index !== null && state !== 'ready');
  return ill || misconduct.length > 0 || margin === 0 || status.trouble !== null ? 1 : 0;
}

/** The line of the status page. */
export function custodyLine(status: CustodyStatus, paint: Paint): string {
  const { key, alive, margin, canary, problem, serves } = status;
  if (problem !== null) return paint('red', `Custody  ${problem}`);
  if (key === null)
    return serves === 'tdec'
      ? paint('yellow', `Custody  group ${status.group} has not made its key yet: nothing can be sealed`)
      : paint(
          'yellow',
          'Custody  a development key file makes the keys: fit for trying out, not for secrets',
        );
  const facts = [
    `${key.t} of ${key.n}`,
    aliveText(alive, margin, paint),
    `generation ${key.shareGen}`,
    `key ${durationText(key.ageHours * 3600)} old`,
    ...(canary === null ? [] : [canary.ok ? 'canary ok' : paint('red', 'canary silent')]),
    ...(status.misconduct.length === 0 ? [] : [paint('red', 'a custodian was caught lying')]),
  ];
  return `Custody  ${facts.join(' · ')}`;
}

function aliveText(alive: number, margin: number | null, paint: Paint): string {
  const text = `${alive} ready, margin ${margin ?? '-'}`;
  if (margin === null || margin > 0) return text;
  return paint(margin < 0 ? 'red' : 'yellow', text);
}

/** The page of `custody status`. */
export function custodyPage(status: CustodyStatus, paint: Paint): string[] {
  const { key, alive, margin, canary } = status;
  return [
    `${paint('bold', `custody group ${status.group}`)}  beat ${status.beat}`,
    '',
    ...(status.inPlaceOf === null ? [] : [endedLine(status.inPlaceOf), '']),
    ...(status.problem === null ? [] : [paint('red', `!!! ${status.problem}`), '']),
    status.servesText,
    '',
    ...(key === null
      ? [paint('yellow', 'Key      none yet')]
      : [
          `Key      version ${key.version}, ${key.t} of ${key.n} custodians give a key back`,
          `Age      ${durationText(key.ageHours * 3600)} (${key.ageHours} h), ${key.ageBeats} beats; shares of generation ${key.shareGen}, ${refreshText(key.refreshEveryBars)}`,
          `Margin   ${aliveText(alive, margin, paint)}${marginText(status)}`,
          `Policy   ${key.policyVersion === null ? 'not known' : `version ${key.policyVersion}`}`,
        ]),
    ...rotationLines(status, paint),
    ...(status.next === null ? [] : [`Next     ${status.next}`]),
    ...(status.trouble === null ? [] : [paint('yellow', `Trouble  ${status.trouble}`)]),
    ...(canary === null
      ? []
      : [`Canary   ${canary.ok ? canary.text : paint('red', canary.text)} (beat ${canary.beat})`]),
    '',
    ...custodianTable(status.custodians, paint),
    ...unerasedLines(status, paint),
    ...warningLines(status, paint),
  ];
}

function endedLine({ group, beat, reason }: NonNullable<CustodyStatus['inPlaceOf']>): string {
  return `In the place of ${group}, which ended at beat ${beat}: ${reason}`;
}

function refreshText(everyBars: number): string {
  return everyBars === 0 ? 'renewed by order only' : `renewed every ${everyBars} bars`;
}

function marginText({ margin, key, versions }: CustodyStatus): string {
  if (margin === null || margin > 0) return '';
  // Where the version in use is better off, only what is left under the other one is in question.
  const weakest = versions.find((each) => each.margin === margin && each.version === key?.version);
  const other = versions.find((each) => each.margin === margin)?.version;
  const what = weakest !== undefined || other === undefined ? '' : ` under version ${other}`;
  return margin === 0
    ? `: one more failure and nothing${what} can be opened`
    : `: nothing${what} can be opened until ${-margin} more are back`;
}

function rotationLines({ versions, key }: CustodyStatus, paint: Paint): string[] {
  const others = versions.filter(({ version, state }) => version !== key?.version && state !== 'destroyed');
  return others.map(({ version, state, switched, left, holders, margin }) => {
    const moved = versions.find((each) => each.version === version + 1)?.switched ?? switched;
    const rest = left === null ? '' : `, ${left >= 1000 ? 'a thousand or more' : left} still to be moved`;
    const line = `Version  ${version} is ${state}; ${moved} branch keys moved on by rotation${rest}`;
    return `${paint('dim', line)}${holdersText(holders, margin, paint)}`;
  });
}

/** Of a version that still opens and has its own margin. */
function holdersText(holders: number | null, margin: number | null, paint: Paint): string {
  if (holders === null || margin === null) return '';
  const text = `; ${holders} hold its shares, margin ${margin}`;
  return margin > 0 ? paint('dim', text) : paint(margin < 0 ? 'red' : 'yellow', text);
}

function custodianTable(custodians: readonly CustodianInfo[], paint: Paint): string[] {
  const head = ['', 'CUSTODIAN', 'UNIT', 'STATE', 'GEN', 'ANSWERS', 'AUDIT', 'VOUCHED', ''];
  const rows = custodians.map((each) => [
    each.index === null ? '-' : String(each.index),
    each.name,
    each.org === '' ? '-' : each.org,
    stateText(each, paint),
    numberText(each.shareGen),
    each.latencyMs === null ? '-' : `${each.latencyMs.toFixed(1)} ms`,
    numberText(each.auditEntries),
    numberText(each.auditCosigned),
    each.text === '' ? '' : paint('dim', each.text),
  ]);
  return table([head.map((cell) => paint('dim', cell)), ...rows], [4, 5, 6, 7]);
}

/** A line for each text, with all whom it is about. */
function unerasedLines({ unerased }: CustodyStatus, paint: Paint): string[] {
  const lines = [
    ...Map.groupBy(unerased, ({ version, text }) => `version ${version} of the key: ${text}`),
  ].map(([text, all]) => `  ${all.map(({ custodian }) => custodian).join(', ')}: ${text}`);
  return lines.length === 0 ? [] : ['', paint('yellow', 'Shares to be erased'), ...lines];
}

function stateText({ state }: CustodianInfo, paint: Paint): string {
  if (state === 'ready') return paint('green', state);
  return paint(state === 'unreachable' || state === 'sealed' ? 'red' : 'yellow', state);
}

function numberText(value: number | null): string {
  return value === null ? '-' : String(value);
}

/** Each warning once, with how many say it: custodians of one machine all say the same. */
function warningLines({ misconduct, warnings, custodians }: CustodyStatus, paint: Paint): string[] {
  const said = Map.groupBy(
    custodians.flatMap(({ name, warnings: own }) =>
      own.map((text) => ({ name, text: text.replaceAll(name, '…') })),
    ),
    ({ text }) => text,
  );
  const lines = [
    ...misconduct.map((text) => paint('red', text)),
    ...warnings.map((text) => paint('yellow', text)),
    ...[...said]
      .filter(([text]) => !warnings.includes(text))
      .map(([text, by]) => paint('yellow', `${by.map(({ name }) => name).join(', ')}: ${text}`)),
  ];
  return lines.length === 0 ? [] : ['', ...lines];
}
