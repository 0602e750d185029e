// Carries a change of the policy: the order to all custodians, the signature of t of them to the registry. What it may
// say is for each custodian to judge; this only collects.

import { describeError, HoldfastError, isHoldfastError } from '../core/errors.ts';
import { toHex } from '../core/bytes.ts';
import type { PeerName } from '../core/rpc.ts';
import { signRecord } from '../manifest/record.ts';
import type { CoordinatorPorts, Say } from './coordinator.ts';
import { openOrder } from './order.ts';
import { type PolicyBody, policyPreimage } from './policy.ts';
import { readProposed } from './policy-change.ts';
import { groupSignatures, type Signatory } from './rotation-signing.ts';

export interface PolicyResult {
  readonly ceremony: 'policy';
  readonly cg: string;
  /** Version of the policy in force now. */
  readonly version: number;
  /** Names of the custodians that know it already; the others read it with their next beat. */
  readonly known: readonly string[];
  /** Why others would not sign, in words. */
  readonly refused: readonly string[];
}

/**
 * @throws FORBIDDEN when so many custodians refuse that no `t` are left, KEY_UNAVAILABLE when too few answer,
 * VERSION_CONFLICT when another change was quicker, RECORD_INVALID for an order that holds no policy
 */
export async function coordinatePolicy(
  ports: CoordinatorPorts,
  cg: string,
  message: Uint8Array,
  say: Say,
): Promise<PolicyResult> {
  const { order } = openOrder(message);
  const proposed = readProposed(order.args, order.by);
  const filed = await ports.registry.kek(cg);
  if (filed === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', `custody group ${cg} has no key yet, so it signs nothing`);
  const { kek } = filed;
  const session = ports.random(32);
  const refused: HoldfastError[] = [];
  const said: string[] = [];
  const begun = await Promise.all(
    kek.custodians.map(async ({ peer }) => {
      const one = signatory(ports, session, peer);
      try {
        await one.ask('hello', { order: message });
        return one;
      } catch (error) {
        if (isHoldfastError(error, 'FORBIDDEN')) refused.push(error);
        said.push(`${one.name}: ${describeError(error)}`);
        return undefined;
      }
    }),
  );
  const there = begun.filter((each) => each !== undefined);
  say(`${there.length} of ${kek.n} custodians take version ${proposed.ver} of the policy`);
  if (there.length < kek.t) {
    const code = refused.length > kek.n - kek.t ? 'FORBIDDEN' : 'KEY_UNAVAILABLE';
    throw new HoldfastError(code, `the policy stays, ${kek.t} custodians must sign: ${said.join('; ')}`);
  }
  const { frost } = await ports.groups();
  const [frostSig] = await groupSignatures(frost, kek, there, [policyPreimage(proposed)]);
  if (frostSig === undefined) throw new HoldfastError('INTERNAL', 'one signature expected');
  const body: PolicyBody = { ...proposed, writer: ports.signer.publicKey, frostSig };
  const key = `pol/${toHex(body.family)}/${body.ver}`;
  await ports.registry.file(key, 0, [{ key, record: signRecord(body, ports.signer) }]);
  const known = await Promise.all(there.map(learnt));
  return {
    ceremony: 'policy',
    cg,
    version: body.ver,
    known: known.filter((name) => name !== undefined),
    refused: said,
  };
}

function signatory({ custodians }: CoordinatorPorts, session: Uint8Array, peer: PeerName): Signatory {
  return {
    name: custodians.nameOf(peer),
    ask: (step, payload) => custodians.step(peer, { session, protocol: 'policy', step }, payload),
  };
}

async function learnt(each: Signatory): Promise<string | undefined> {
  try {
    await each.ask('learn', {});
    return each.name;
  } catch {
    return undefined; // it reads on with its next beat
  }
}
