import type { Command } from '../command.ts';

export const down: Command = {
  name: 'down',
  usage: '',
  summary: 'Stop the cluster in order; everything stored stays',
  positionals: [0, 0],
  async run({ data, json, screen }) {
    const { connectControl } = await import('../../local/control.ts');
    const control = await connectControl(data);
    const { cluster } = await control.state();
    screen.say(`stopping ${cluster} …`);
    await control.down();
    if (json) screen.value({ cluster, running: false });
    else screen.line(`${cluster} is stopped; \`npx holdfast up\` goes on where it was`);
  },
};
