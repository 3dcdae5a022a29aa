// What is done with a database by Node.js in n8n's image: a verb, the database, how long to wait for a lock in milliseconds, and
// what else the verb takes. Prints one line of JSON. The exit status tells what stood against it.
'use strict';
const fs = require('fs');
const os = require('os');
const path = require('path');

const STATUS = { 5: 75, 6: 75, 11: 65, 13: 73, 14: 66, 26: 65 };
const TMPFS = 0x01021994;

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const named = (name) => `"${name.replaceAll('"', '""')}"`;

// The module that n8n itself uses, where Node.js brings none.
function bundled() {
  const { createRequire } = require('module');
  const programs = (process.env.PATH || '').split(':').map((dir) => path.join(dir, 'n8n'));
  const places = ['/usr/local/lib/node_modules/n8n/package.json', '/usr/lib/node_modules/n8n/package.json', '/opt/n8n/package.json'];
  for (const place of [...programs, ...places]) {
    if (!fs.existsSync(place)) continue;
    try {
      return createRequire(fs.realpathSync(place))('sqlite3');
    } catch {}
  }
  throw new Error(`neither Node.js ${process.version} nor n8n brings a module for SQLite`);
}

async function open(file, readOnly, wait) {
  let builtIn;
  try {
    builtIn = require('node:sqlite');
  } catch {}
  let db;
  if (builtIn) {
    const opened = new builtIn.DatabaseSync(file, {
      readOnly,
      enableForeignKeyConstraints: false,
      enableDoubleQuotedStringLiterals: true,
    });
    db = {
      all: async (sql, values = []) => opened.prepare(sql).all(...values),
      run: async (sql) => opened.exec(sql),
      close: async () => opened.close(),
    };
  } else {
    const { Database, OPEN_READONLY, OPEN_READWRITE } = bundled();
    const call = (begin) =>
      new Promise((resolve, reject) => begin((error, value) => (error ? reject(error) : resolve(value))));
    let opened;
    await call((done) => (opened = new Database(file, readOnly ? OPEN_READONLY : OPEN_READWRITE, done)));
    db = {
      all: (sql, values = []) => call((done) => opened.all(sql, values, done)),
      run: (sql) => call((done) => opened.exec(sql, done)),
      close: () => call((done) => opened.close(done)),
    };
  }
  await db.all(`PRAGMA busy_timeout = ${wait}`);
  db.value = async (sql, values) => Object.values((await db.all(sql, values))[0] ?? {})[0];
  return db;
}

// What a database holds, once it is proven to be sound.
async function inspect(file, wait, more = async () => ({})) {
  const db = await open(file, false, wait);
  const faults = (await db.all('PRAGMA integrity_check(3)')).map((row) => Object.values(row)[0]);
  if (faults.length !== 1 || faults[0] !== 'ok') {
    throw Object.assign(new Error(`the integrity check found: ${faults.join('; ')}`), { errcode: 11 });
  }
  const tables = {};
  const names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
  for (const { name } of await db.all(names)) tables[name] = await db.value(`SELECT count(*) FROM ${named(name)}`);
  const version = await db.value('SELECT sqlite_version()');
  const found = { length: fs.statSync(file).size, version, tables, ...(await more(db)) };
  await db.close();
  return found;
}

// What tells a workflow from what it was at the last backup: by its ID a number for its contents, in hexadecimal, its name, and
// the version that n8n 2 runs. The columns are those that a dump's workflows are compared by.
async function workflows(db) {
  const { createHash } = require('crypto');
  const contents = ['nodes', 'connections', 'settings', 'pinData', 'nodeGroups', 'description', 'name', 'active', 'isArchived'];
  const found = {};
  for (const table of await tables(db, 'workflow_entity', ['id', 'name', 'nodes', 'connections', 'active'])) {
    // Together they may be much larger than the memory.
    for (const { id } of await db.all(`SELECT id FROM ${named(table)}`)) {
      const [row] = await db.all(`SELECT * FROM ${named(table)} WHERE id = ?`, [id]);
      const text = JSON.stringify(contents.map((column) => row[column] ?? null));
      const published = row.active ? row.activeVersionId ?? null : null;
      found[id] = [createHash('sha256').update(text).digest('hex').slice(0, 16), String(row.name), published];
    }
  }
  return { workflows: found };
}

// A start script may set DB_TYPE, which the container does not tell: the environment of n8n's processes does, as far as it can be
// read. The database here is an old one then.
function checkType() {
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let variables = [];
    try {
      variables = fs.readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
    } catch {}
    const type = variables.find((variable) => variable.startsWith('DB_TYPE='))?.slice('DB_TYPE='.length);
    if (type && type !== 'sqlite' && type !== process.env.DB_TYPE) {
      throw Object.assign(new Error(`process ${pid} of this container has DB_TYPE=${type}`), { status: 78 });
    }
  }
}

async function names(db) {
  const all = await db.all("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name");
  return all.map(({ name }) => name);
}

const MAIN = ['workflow_entity', 'credentials_entity'];
const OF_N8N = [...MAIN, 'execution_entity', 'migrations', 'settings', 'tag_entity', 'user', 'webhook_entity'];

// What the names of n8n's tables may begin with, best first: a copy of one of them, as old_workflow_entity, has few of the
// others beside it.
async function prefixes(db) {
  const all = await names(db);
  const count = (prefix) => OF_N8N.filter((name) => all.includes(prefix + name)).length;
  const found = MAIN.flatMap((end) => all.filter((name) => name.endsWith(end)).map((name) => name.slice(0, -end.length)));
  return [...new Set(found)].sort((one, other) => count(other) - count(one) || one.length - other.length);
}

// That of this n8n: what it is told, where there are such tables.
async function ours(db) {
  const told = process.env.DB_TABLE_PREFIX;
  const all = await names(db);
  const isThere = told !== undefined && MAIN.some((end) => all.includes(told + end));
  return isThere ? [told] : (await prefixes(db)).slice(0, 1);
}

// n8n's tables of this name, with each of the prefixes, where they have these columns.
async function tables(db, table, columns, of) {
  const found = [];
  for (const prefix of of ?? (await ours(db))) {
    const own = (await columnsOf(db, prefix + table)).map((column) => column.name);
    if (own.length && columns.every((column) => own.includes(column))) found.push(prefix + table);
  }
  return found;
}

// Their rows.
async function rows(db, table, columns, order) {
  const found = [];
  for (const name of await tables(db, table, columns)) {
    found.push(...(await db.all(`SELECT * FROM ${named(name)} ORDER BY ${order}`)));
  }
  return found;
}

// Those of a table, a few at a time: one may be large, and all of them much larger than the memory.
async function* each(db, name, columns) {
  let after = null;
  for (let rows = [0]; rows.length; ) {
    const where = after === null ? '' : `WHERE rowid > ${after}`;
    rows = await db.all(`SELECT rowid AS "row id", ${columns} FROM ${named(name)} ${where} ORDER BY rowid LIMIT 16`);
    for (const row of rows) {
      yield row;
      after = row['row id'];
    }
  }
}

// The columns of a table.
const columnsOf = (db, table) => db.all(`PRAGMA table_info(${quoted(table)})`);

// What n8n keeps as text in here, and as JSON in PostgreSQL.
const JSON_COLUMNS = ['nodes', 'connections', 'settings', 'staticData', 'pinData', 'meta', 'nodeGroups', 'icon', 'customTelemetryTags'];

// The type that PostgreSQL has for a column.
function kindOf({ name, type }) {
  if (/^bool/i.test(type)) return 'boolean';
  if (/^(datetime|timestamp)/i.test(type)) return 'timestamp with time zone';
  if (/int/i.test(type)) return 'integer';
  if (/real|double|float/i.test(type)) return 'double precision';
  return JSON_COLUMNS.includes(name) ? 'json' : 'text';
}

const ESCAPES = { '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t', '\0': '\\000' };

// A value as a field of COPY.
function field(kind, value) {
  if (value === null) return '\\N';
  if (kind === 'boolean') return value === 1 || value === 'true' ? 't' : 'f';
  const text = value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value);
  // n8n writes the time of UTC.
  const zone = kind.startsWith('timestamp') && /^[-0-9]{10} [:.0-9]{8,}$/.test(text) ? '+00' : '';
  return text.replace(/[\\\n\r\t\0]/g, (sign) => ESCAPES[sign]) + zone;
}

// The value of a column for a field that is not escaped.
function valueOf({ name, type }, text) {
  if (text === null) return null;
  const kind = kindOf({ name, type });
  if (kind === 'boolean') return text === 't' ? 1 : 0;
  return kind.startsWith('timestamp') ? text.replace(/\+00$/, '') : text;
}

// The first directory that has room for a copy and a quarter more, for what n8n writes meanwhile; none in memory.
function room(dirs, needed) {
  let most = 0;
  const inMemory = (dir) => (fs.statfsSync ? fs.statfsSync(dir).type === TMPFS : false);
  for (const dir of dirs.filter((dir) => !inMemory(dir))) {
    try {
      fs.accessSync(dir, fs.constants.W_OK);
    } catch {
      continue;
    }
    if (!fs.statfsSync) return dir;
    const { bavail, bsize } = fs.statfsSync(dir);
    if (bavail * bsize >= needed * 1.25) return dir;
    most = Math.max(most, bavail * bsize);
  }
  throw Object.assign(new Error(`a copy takes ${needed} bytes and a quarter more, and ${most} are free`), { errcode: 13 });
}

// Leaves the processors to n8n, in the same container. Not while it waits for us.
function comeLast() {
  try {
    os.setPriority(19);
  } catch {}
}

// Brings a file that grows to the disk all along, until it is ended: n8n's next commit would else wait for all of it.
function flush(file) {
  const { Worker } = require('worker_threads');
  const work = `
    const fs = require('fs');
    const { workerData: file } = require('worker_threads');
    setInterval(() => {
      try {
        const copy = fs.openSync(file, 'r');
        fs.fdatasyncSync(copy);
        fs.closeSync(copy);
      } catch {}
    }, 50);`;
  return new Worker(work, { eval: true, workerData: file });
}

// Where a file is whose path leads through a symbolic link below a directory; else nothing.
function led(file, dir) {
  const real = fs.realpathSync(file);
  return real === path.join(fs.realpathSync(dir), path.relative(dir, file)) ? '' : real;
}

const verbs = {
  // Copies the database as it is at one moment into a new directory of this name. Whoever writes is not kept from it.
  async copy(file, wait, name, mount, limit) {
    checkType();
    const db = await open(file, true, wait);
    const journal = await db.value('PRAGMA journal_mode');
    const pages = (await db.value('PRAGMA page_count')) - (await db.value('PRAGMA freelist_count'));
    const needed = pages * (await db.value('PRAGMA page_size'));
    if (pages === 0) throw Object.assign(new Error('the database is empty'), { errcode: 26 });
    const dir = path.join(room([limit, path.dirname(file)], needed), name);
    fs.mkdirSync(dir, { mode: 0o700 });
    const copy = path.join(dir, 'copy');
    if (journal === 'wal') comeLast();
    // It is proven and sent; nothing of it outlives a crash.
    await db.run('PRAGMA synchronous = OFF');
    const flushing = flush(copy);
    try {
      await db.run(`VACUUM INTO ${quoted(copy)}`);
    } finally {
      await flushing.terminate();
    }
    await db.close();
    if (journal === 'wal') {
      const made = await open(copy, false, wait);
      await made.all('PRAGMA journal_mode = WAL');
      await made.close();
    }
    const { uid, gid, mode } = fs.statSync(file);
    const owner = `${uid}:${gid}:${(mode & 0o777).toString(8)}`;
    const header = { path: copy, journal, owner, link: led(file, mount), length: fs.statSync(copy).size };
    fs.writeFileSync(path.join(dir, 'header'), `${JSON.stringify(header)}\n`);
  },

  // Proves a copy while it is sent.
  async prove(copy, wait) {
    comeLast();
    fs.writeFileSync(path.join(path.dirname(copy), 'contents'), `${JSON.stringify(await inspect(copy, wait, workflows))}\n`);
  },

  async examine(file, wait) {
    return inspect(file, wait);
  },

  // Brings what stands in the log into the file.
  async checkpoint(file, wait) {
    const db = await open(file, false, wait);
    const journal = await db.value('PRAGMA journal_mode');
    const [{ busy }] = journal === 'wal' ? await db.all('PRAGMA wal_checkpoint(TRUNCATE)') : [{ busy: 0 }];
    await db.close();
    if (busy) throw Object.assign(new Error('somebody else works with the database'), { errcode: 5 });
    return {};
  },

  async probe(file, wait, mount) {
    checkType();
    const db = await open(file, true, wait);
    const journal = await db.value('PRAGMA journal_mode');
    const bytes = (await db.value('PRAGMA page_count')) * (await db.value('PRAGMA page_size'));
    await db.close();
    return { journal, length: bytes, link: led(file, mount) };
  },

  // What n8n has encrypted, as open.js takes it: the keys first, and no credential that holds nothing.
  async sealed(file, wait) {
    const db = await open(file, false, wait);
    const hex = (text) => Buffer.from(String(text ?? '')).toString('hex');
    const say = (kind, ...fields) => fs.writeSync(1, `${[kind, ...fields.map(hex)].join('\t')}\n`);
    for (const row of await rows(db, 'deployment_key', ['id', 'type', 'value', 'createdAt'], '"createdAt", id')) {
      const kind = row.type === 'data_encryption' ? 'key' : String(row.type).startsWith('signing.') ? 'signing' : '';
      if (kind) say(kind, row.id, row.type, row.status, row.algorithm, row.value);
    }
    for (const row of await rows(db, 'credentials_entity', ['id', 'data'], 'id')) {
      if (row.data) say('credential', row.id, row.name, row.type, '', row.data);
    }
    for (const row of await rows(db, 'user', ['id', 'mfaSecret', 'mfaRecoveryCodes'], 'id')) {
      const codes = [row.mfaSecret, ...String(row.mfaRecoveryCodes ?? '').split(',')];
      codes.filter(Boolean).forEach((code) => say('mfa', row.id, '', '', '', code));
    }
    await db.close();
  },

  // How many migrations of n8n the database has seen, and the newest.
  async migrations(file, wait) {
    const db = await open(file, false, wait);
    const found = await rows(db, 'migrations', ['id', 'name', 'timestamp'], 'id');
    await db.close();
    return { count: found.length, newest: found.at(-1)?.name ?? null };
  },

  // Deletes these credentials, and those that hold nothing.
  async forget(file, wait, ...ids) {
    const db = await open(file, false, wait);
    const list = ids.map(quoted).join(', ');
    for (const name of await tables(db, 'credentials_entity', ['id', 'data'])) {
      await db.run(`DELETE FROM ${named(name)} WHERE data = '' OR id IN (${list})`);
    }
    await db.close();
    return {};
  },

  // Leaves every workflow inactive, of each n8n that is there and of copies, and takes away what n8n could start one from.
  async deactivate(file, wait) {
    const db = await open(file, false, wait);
    await db.run('BEGIN IMMEDIATE');
    // Whichever n8n is started with it: an old one has few tables.
    const all = await tables(db, 'workflow_entity', ['id', 'name', 'nodes', 'connections', 'active'], await prefixes(db));
    const of = all.map((name) => name.slice(0, -'workflow_entity'.length));
    let count = null;
    for (const name of all) {
      count += await db.value(`SELECT count(*) FROM ${named(name)} WHERE active`);
      await db.run(`UPDATE ${named(name)} SET active = 0`);
    }
    for (const end of ['workflow_entity', 'agents']) {
      for (const name of await tables(db, end, ['activeVersionId'], of)) {
        await db.run(`UPDATE ${named(name)} SET "activeVersionId" = NULL`);
      }
    }
    const starts = ['workflow_published_version', 'workflow_publication_outbox', 'workflow_publication_trigger_status', 'webhook_entity'];
    for (const start of starts) {
      for (const name of await tables(db, start, [], of)) await db.run(`DELETE FROM ${named(name)}`);
    }
    for (const name of await tables(db, 'execution_entity', ['waitTill', 'status'], of)) {
      await db.run(
        `UPDATE ${named(name)} SET "waitTill" = NULL, status = 'canceled' WHERE "waitTill" IS NOT NULL OR status IN ('waiting', 'new')`,
      );
    }
    await db.run('COMMIT');
    await db.close();
    return { count };
  },

  // Prints the tables whose names end so as pg_dump would, with their rows at one moment.
  async rows(file, wait, ...ends) {
    const say = (text) => {
      let rest = Buffer.from(text);
      while (rest.length) rest = rest.subarray(fs.writeSync(1, rest));
    };
    const db = await open(file, true, wait);
    await db.run('BEGIN');
    const found = [];
    const all = await names(db);
    for (const end of ends) {
      for (const name of all.filter((name) => name.endsWith(end))) found.push({ name, columns: await columnsOf(db, name) });
    }
    const list = (columns, word) => columns.map((column) => named(column.name) + word(column)).join(', ');
    say('--\n-- PostgreSQL database dump\n--\n\n');
    for (const { name, columns } of found) {
      say(`CREATE TABLE public.${named(name)} (${list(columns, (column) => ` ${kindOf(column)}`)});\n`);
    }
    for (const { name, columns } of found) {
      say(`COPY public.${named(name)} (${list(columns, () => '')}) FROM stdin;\n`);
      const kinds = columns.map(kindOf);
      for await (const row of each(db, name, '*')) {
        say(`${columns.map((column, at) => field(kinds[at], row[column.name])).join('\t')}\n`);
      }
      say('\\.\n');
    }
    await db.run('COMMIT');
    await db.close();
    say('--\n-- PostgreSQL database dump complete\n--\n');
  },

  // Puts the rows on standard input into tables, all of them or none, and deletes nothing.
  async put(file, wait) {
    const { puts, guard, gone } = JSON.parse(fs.readFileSync(0, 'utf8'));
    const db = await open(file, false, wait);
    await db.run('PRAGMA foreign_keys = ON');
    await db.run('BEGIN IMMEDIATE');
    const lacking = [];
    for (const put of puts) {
      put.known = await columnsOf(db, put.table);
      if (!put.known.length) throw new Error(`the live database has no table ${put.table}`);
      put.own = put.columns.map((name) => put.known.find((column) => column.name === name));
      put.columns.forEach((name, at) => put.own[at] || lacking.push(`${put.table}.${name}`));
    }
    if (lacking.length) return { lacking: [...new Set(lacking)] };
    const refuse = async (condition, values, told) => {
      const found = `SELECT 1 FROM ${named(guard.table)} WHERE id = ? AND ${condition}`;
      if (await db.value(found, [guard.id, ...values])) throw new Error(told);
    };
    for (const { column, told } of guard?.off ?? []) await refuse(`coalesce(${named(column)}, 0) <> 0`, [], told);
    if (guard?.read) {
      const { column, value, told } = guard.read;
      const known = (await columnsOf(db, guard.table)).find(({ name }) => name === column);
      await refuse(`${named(column)} IS NOT ?`, [valueOf(known, value)], told);
    }
    for (const { table, how, own, rows } of puts) {
      const names = own.map(({ name }) => named(name));
      const isKey = ({ pk }) => pk > 0;
      const pairs = (chosen) => chosen.map(({ name }) => `${named(name)} = ?`);
      const [key, others] = [own.filter(isKey), own.filter((column) => !isKey(column))];
      const isUpdate = how === 'replace';
      if (isUpdate && !key.length) throw new Error(`table ${table} has no primary key in the backup`);
      const sql =
        isUpdate
          ? `UPDATE ${named(table)} SET ${pairs(others).join(', ')} WHERE ${pairs(key).join(' AND ')}`
          : `INSERT INTO ${named(table)} (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})` +
            (how === 'missing' ? ' ON CONFLICT DO NOTHING' : '');
      const order = isUpdate ? [...others, ...key] : own;
      for (const row of rows) {
        await db.all(sql, order.map((column) => valueOf(column, row[own.indexOf(column)])));
        if (isUpdate && Number(await db.value('SELECT changes()')) !== 1) throw new Error(gone);
      }
    }
    await db.run('COMMIT');
    await db.close();
    return { lacking: [] };
  },

  // The files of binary data that executions name.
  async binary(file, wait) {
    const db = await open(file, false, wait);
    const names = new Set();
    for (const name of await tables(db, 'execution_data', ['data'])) {
      for await (const { data } of each(db, name, 'data')) {
        for (const [, found] of String(data).matchAll(/filesystem-v2:(workflows\/[^"\\]+)/g)) names.add(found);
      }
    }
    await db.close();
    return { names: [...names] };
  },
};

const [verb, file, wait, ...more] = process.argv.slice(1);
const done = fs.existsSync(file)
  ? verbs[verb](file, Number(wait), ...more)
  : Promise.reject(Object.assign(new Error('there is no such file'), { errcode: 14 }));
done.then(
  (found) => found && fs.writeSync(1, `${JSON.stringify(found)}\n`),
  (error) => {
    fs.writeSync(2, `${error.message}\n`);
    process.exitCode = error.status ?? STATUS[(error.errcode ?? error.errno ?? 0) & 0xff] ?? 1;
  },
);
