// A foreign WebSocket client: the `ws` package, told what to do by lines of JSON on stdin, telling what happened by
// lines of JSON on stdout. Arguments: the address, and "mute" if it shall not answer pings.
'use strict';

const WebSocket = require('ws');
const readline = require('readline');

const [address, manner] = process.argv.slice(2);
const tell = (what, value) => process.stdout.write(JSON.stringify({ what, value }) + '\n');
const ws = new WebSocket(address);
if (manner === 'mute') ws.pong = () => {};

ws.on('open', () => tell('open', ws.extensions));
ws.on('message', (data, binary) => tell(binary ? 'binary' : 'text', JSON.parse(data.toString())));
ws.on('ping', () => tell('ping', null));
ws.on('unexpected-response', (request, response) => {
  tell('refused', response.statusCode);
  process.exit(0);
});
ws.on('error', (error) => tell('error', error.message));
ws.on('close', (code, reason) => {
  tell('close', { code, reason: reason.toString() });
  process.exit(0);
});

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { say, send } = JSON.parse(line);
  if (say === 'binary') ws.send(Buffer.from(send), { binary: true });
  else if (say === 'ping') ws.ping(send);
  else if (say === 'close') ws.close(1000, send);
  else ws.send(typeof send === 'string' ? send : JSON.stringify(send));
});
