// A custodian's part in changing what the group allows: it takes an order of who may give one, holds the next version
// against the policy that it knows, writes it down, and gives its share of the group's signature.
//
//   policy   hello   the order, with the whole next version in it    commit, sign   its signature
//
// Of two documents for one version it signs one only, over restarts: else a coordinator could have two signed and show
// each to some. The same document may be given again until it is there.

import { HoldfastError } from '../core/errors.ts';
import { sha256 } from '../core/hash.ts';
import { custodyOrderBytesMax } from '../core/limits.ts';
import { fieldsOf } from '../envelope/fields.ts';
import type { CustodyBook } from './book.ts';
import type { CeremonyDesk, Session } from './ceremony-desk.ts';
import { committed, keySetOfEntry, Signing } from './ceremony-signing.ts';
import type { Begin } from './ceremony-steps.ts';
import { openOrder } from './order.ts';
import { policyPreimage } from './policy.ts';
import { policyStepProblem, type ProposedPolicy, readProposed } from './policy-change.ts';

/** The protocol by its name. */
export const policyProtocol: Readonly<Record<string, Begin>> = { policy: beginPolicy };

async function beginPolicy(desk: CeremonyDesk, payload: unknown): Promise<Session> {
  const message = fieldsOf(payload, 'policy.hello', ['order']).bytesUpTo('order', custodyOrderBytesMax);
  const { order } = openOrder(message);
  const { cg } = order;
  await desk.ports.follow();
  const opened = desk.order(message, cg, ['policy']);
  const next = readProposed(order.args, order.by);
  const allowed = (): void => {
    const head = bookOf(desk, cg).policyHead();
    if (head === undefined)
      throw new HoldfastError('KEY_UNAVAILABLE', 'no policy of the group is known here');
    const problem = policyStepProblem(head, next) ?? signedOther(desk, next);
    if (problem !== undefined) throw new HoldfastError('FORBIDDEN', `the policy stays: ${problem}`);
  };
  allowed();
  const kek = bookOf(desk, cg).kek();
  const own = kek === undefined ? undefined : desk.own(kek);
  if (kek === undefined || own === undefined)
    throw new HoldfastError('KEY_UNAVAILABLE', 'no share of the present generation is here');
  const about = { cg, kekVer: kek.ver, shareGen: kek.shareGen };
  await desk.note('policy', about, `version ${next.ver} of the policy`, opened);
  const ref = { cg, kekVer: kek.ver, gen: kek.shareGen };
  const signing = new Signing(desk, ref, own.frost.index, keySetOfEntry(own.frost), [policyPreimage(next)]);
  return {
    cg,
    begun: { i: own.frost.index },
    steps: {
      commit: () => committed(signing, own.frost),
      sign: async (answer) => {
        allowed();
        await desk.ports.shares.raise(markOf(cg), markFor(next)); // before a share of the signature leaves
        return signing.sign(answer);
      },
      learn: async () => {
        await desk.ports.follow();
        return {};
      },
    },
    close: () => signing.close(),
  };
}

function signedOther({ ports }: CeremonyDesk, next: ProposedPolicy): string | undefined {
  const mark = ports.shares.mark(markOf(next.cg));
  if (Math.floor(mark / digests) < next.ver || mark === markFor(next)) return undefined;
  return `another document was signed here as version ${next.ver} and is not registered yet: give that one again, and change it afterwards`;
}

function markOf(cg: string): string {
  return `policy/${cg}`;
}

const digests = 2 ** 32;

/** A number that rises with the version and holds 32 bits of the document's digest. */
function markFor(next: ProposedPolicy): number {
  const [a = 0, b = 0, c = 0, d = 0] = sha256(policyPreimage(next));
  return next.ver * digests + (((a << 24) | (b << 16) | (c << 8) | d) >>> 0);
}

function bookOf({ ports: { books } }: CeremonyDesk, cg: string): CustodyBook {
  const book = books.book(cg);
  const problem = books.problem(cg);
  if (book !== undefined && problem === undefined) return book;
  throw new HoldfastError('KEY_UNAVAILABLE', problem ?? `group ${cg} is not known here`);
}
