// What the network itself can do, for comparison: 200-byte requests, the first 4 bytes say how long the answer is.

import { createServer } from 'node:net';

const requestBytes = 200;

const server = createServer((socket) => {
  socket.setNoDelay(true);
  let rest = Buffer.alloc(0);
  socket.on('data', (chunk) => {
    const all = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const count = Math.floor(all.length / requestBytes);
    socket.cork();
    for (let n = 0; n < count; n++) socket.write(Buffer.alloc(all.readUInt32BE(n * requestBytes), 1));
    socket.uncork();
    rest = all.subarray(count * requestBytes);
  });
});
server.listen(0, '127.0.0.1', () => process.send?.(server.address()));
