import { backbeatBusSuite } from '../../test/suites/backbeat-bus.ts';
import { LocalChannel } from './channel.ts';

backbeatBusSuite('embedded', async (_t, count) => {
  const channel = new LocalChannel(0);
  return Array.from({ length: count }, () => channel);
});
