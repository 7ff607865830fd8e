// A small service on port 8080; integration/loads/notes knows what it answers.
'use strict';
const crypto = require('crypto');
const dns = require('dns').promises;
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const zlib = require('zlib');
const { pipeline } = require('stream/promises');
const { Worker } = require('worker_threads');

const LOG = '/var/log/app/access.log';
const DATA = '/srv/app/data';
let log = fs.createWriteStream(LOG, { flags: 'a' });
const notes = new Map();
let last = 0;

async function all(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts);
}

async function tidy() {
  for (const key of notes.keys()) if (key < last - 5000) notes.delete(key);
  const file = path.join(DATA, 'notes.json');
  await fs.promises.writeFile(file + '.new', JSON.stringify([...notes]));
  const handle = await fs.promises.open(file + '.new', 'r');
  await handle.sync();
  await handle.close();
  await fs.promises.rename(file + '.new', file);
  // A thread of its own counts what was written.
  const count = "const { parentPort } = require('worker_threads'); const fs = require('fs'); parentPort.postMessage(fs.readdirSync('" + DATA + "').length)";
  return new Promise((resolve, reject) => new Worker(count, { eval: true }).once('message', resolve).once('error', reject));
}

async function answer(request) {
  const url = new URL(request.url, 'http://localhost');
  const number = Number(url.searchParams.get('n') || 1000);
  const key = url.pathname.startsWith('/notes/') ? Number(url.pathname.slice(7)) : undefined;
  if (request.method === 'POST') {
    const text = (await all(request)).toString();
    notes.set(++last, text);
    await fs.promises.appendFile(path.join(DATA, 'journal'), `${last} ${text.length}\n`);
    return [201, '', { Location: `/notes/${last}` }];
  }
  if (request.method === 'PUT') {
    const name = path.join(os.tmpdir(), crypto.randomUUID());
    try {
      await pipeline(request, fs.createWriteStream(name));
      const digest = crypto.createHash('sha256');
      await pipeline(fs.createReadStream(name), digest);
      return [200, digest.digest('hex')];
    } finally {
      await fs.promises.unlink(name);
    }
  }
  if (request.method === 'DELETE') return [notes.delete(key) ? 204 : 404];
  if (request.method !== 'GET' && request.method !== 'HEAD') return [501];
  if (key !== undefined) return notes.has(key) ? [200, notes.get(key)] : [404];
  switch (url.pathname) {
    case '/': return [200, '<!doctype html><title>lithify</title><p>This page is served from stone.\n', { 'Content-Type': 'text/html' }];
    case '/health': return [200, 'well'];
    case '/notes': return [200, JSON.stringify([...notes].slice(-20)), { 'Content-Type': 'application/json' }];
    case '/random': return [200, crypto.randomBytes(Math.min(number, 1 << 22))];
    case '/packed': return [200, zlib.gzipSync('stone '.repeat(5000)), { 'Content-Encoding': 'gzip' }];
    case '/lookup': return [200, (await dns.lookup('localhost')).address];
    case '/hash': return new Promise((resolve, reject) =>
      crypto.pbkdf2('stone', 'salt', number, 32, 'sha256', (error, key) => (error ? reject(error) : resolve([200, key.toString('hex')]))));
    case '/tidy': await tidy(); return [200, 'tidy'];
    case '/fail': return [500, 'as it was asked to'];
    default: return [404];
  }
}

const server = http.createServer(async (request, response) => {
  let [status, body = '', headers = {}] = [500];
  try {
    [status, body, headers] = await answer(request);
  } catch (error) {
    body = String(error);
  }
  log.write(`${request.method} ${request.url} ${status}\n`);
  response.writeHead(status, status === 204 ? {} : { 'Content-Length': Buffer.byteLength(body || ''), ...headers });
  response.end(body);
});
server.listen(8080, '0.0.0.0');
process.on('SIGHUP', () => {
  const old = log;
  log = fs.createWriteStream(LOG, { flags: 'a' });
  old.end();
});
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
