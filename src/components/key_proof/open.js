// Opens what n8n has encrypted, with Node.js of n8n's image. Reads lines of six fields, KIND ID NAME TYPE ALGORITHM DATA,
// separated by tabs and, but for the kind, hexadecimal. Prints `opened KIND COUNT` and `VERDICT KIND ID NAME TYPE` of what was
// not opened, then `end`. Nothing that was decrypted is printed.
'use strict';
const crypto = require('crypto');
const readline = require('readline');

const PREFIXED = /^([A-Za-z0-9_-]{1,36}):([A-Za-z0-9+/=]+)$/;
const SALTED = 'U2FsdGVkX1';
const DATA_KEY = /^[0-9a-f]{64}$/i;

const hash = (kind, ...parts) => crypto.createHash(kind).update(Buffer.concat(parts)).digest();
const attempt = (work) => { try { return work(); } catch { return undefined; } };
const text = (bytes) => new TextDecoder('utf-8', { fatal: true }).decode(bytes);

// As `openssl enc -aes-256-cbc -md md5`. The key's characters are taken as bytes.
function cbc(data, key) {
  const input = Buffer.from(data, 'base64');
  const secret = Buffer.concat([Buffer.from(key, 'latin1'), input.subarray(8, 16)]);
  const first = hash('md5', secret);
  const second = hash('md5', first, secret);
  const decipher = crypto.createDecipheriv('aes-256-cbc', Buffer.concat([first, second]), hash('md5', second, secret));
  return text(Buffer.concat([decipher.update(input.subarray(16)), decipher.final()]));
}

// A version, the salt, the tag, the ciphertext.
function gcm(data, key) {
  const input = Buffer.from(data, 'base64');
  if (input[0] !== 1 || input.length < 49 || key.length !== 32) throw new Error('not this form');
  const derived = Buffer.from(crypto.hkdfSync('sha256', key, input.subarray(1, 33), 'n8n-encryption-v1', 44));
  const decipher = crypto.createDecipheriv('aes-256-gcm', derived.subarray(0, 32), derived.subarray(32), { authTagLength: 16 });
  decipher.setAuthTag(input.subarray(33, 49));
  return text(Buffer.concat([decipher.update(input.subarray(49)), decipher.final()]));
}

let instance = '';
const keys = new Map();
let legacy;

// What a row of deployment_key holds. Versions of n8n have stored it in the clear, under CBC and under GCM.
function unwrap(value) {
  if (value === instance || DATA_KEY.test(value)) return value;
  if (value.startsWith(SALTED)) {
    const inner = attempt(() => cbc(value, instance));
    return inner !== undefined && DATA_KEY.test(inner) ? inner : undefined;
  }
  return attempt(() => gcm(value, hash('sha256', Buffer.from(instance, 'utf8'))));
}

function open(data) {
  const prefixed = PREFIXED.exec(data);
  if (prefixed) {
    const key = keys.get(prefixed[1]);
    if (key === undefined) return ['missing'];
    if (key.value === undefined) return ['failed'];
    const opener = key.algorithm === 'aes-256-cbc' ? () => cbc(prefixed[2], key.value) : () => gcm(prefixed[2], Buffer.from(key.value, 'hex'));
    return ['opened', attempt(opener)];
  }
  if (!data.startsWith(SALTED)) return ['unknown'];
  const key = legacy === undefined ? instance : legacy.value;
  return ['opened', key === undefined ? undefined : attempt(() => cbc(data, key))];
}

function verdict(kind, data) {
  if (data === '') return 'opened';
  if (kind === 'signing') return unwrap(data) === undefined ? 'failed' : 'opened';
  const [found, clear] = open(data);
  if (found !== 'opened') return found;
  if (clear === undefined) return 'failed';
  if (kind !== 'credential') return 'opened';
  const value = attempt(() => JSON.parse(clear));
  return typeof value === 'object' && value !== null ? 'opened' : 'failed';
}

const opened = new Map();
function tell(result, fields) {
  if (result === 'opened') opened.set(fields[0], (opened.get(fields[0]) || 0) + 1);
  else process.stdout.write(`${[result, ...fields.slice(0, 4)].join('\t')}\n`);
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    if (line === '\\.') break;
    const fields = line.split('\t');
    const [id, , type, algorithm, data] = fields.slice(1).map((field) => Buffer.from(field, 'hex').toString('utf8'));
    if (fields[0] === 'instance') {
      instance = data;
    } else if (fields[0] === 'key') {
      // The keys come before what they open.
      const key = { algorithm, value: unwrap(data) };
      if (algorithm !== 'aes-256-cbc' && !DATA_KEY.test(key.value || '')) key.value = undefined;
      keys.set(id, key);
      if (algorithm === 'aes-256-cbc' && legacy === undefined) legacy = key;
      if (type === 'active') tell(key.value === undefined ? 'failed' : 'opened', fields);
    } else {
      tell(verdict(fields[0], data), fields);
    }
  }
  for (const [kind, count] of opened) process.stdout.write(`opened\t${kind}\t${count}\n`);
  process.stdout.write('end\n');
}

main().catch(() => process.exit(1));
