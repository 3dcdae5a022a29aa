//! Stacks whose n8n keeps its data in SQLite: a container from n8n's image in which a small program works with such a database.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::compose::stand_in_image;
use super::tools::shell_quoted;
use super::{await_true, done, repository, Outcome, Sandbox};

/// Node.js, by a name that no test puts another program before.
const NODE: &str = "/usr/local/bin/node";

/// Where the database is.
pub const FILE: &str = "/home/node/.n8n/database.sqlite";

/// The key that the credentials are encrypted with.
pub const KEY: &str = "tEst+K3y/n8n-backup-0123456789ab";

/// What runs in n8n's place: it fills a database, and goes on writing to it where it is told to, with its log never brought into
/// the file.
const WORK: &str = r#"#!/bin/sh
exec /usr/local/bin/node -e '
const { DatabaseSync } = require("node:sqlite");
const fs = require("fs"), path = require("path"), crypto = require("crypto");
process.on("SIGTERM", () => process.exit(0));
if (process.env.IDLE) { fs.writeFileSync("/tmp/ready", ""); setInterval(() => {}, 1000); }
else {
const home = path.join(process.env.N8N_USER_FOLDER || "/home/node", ".n8n");
const file = path.resolve(home, process.env.DB_SQLITE_DATABASE || "database.sqlite");
const key = "tEst+K3y/n8n-backup-0123456789ab";
fs.writeFileSync(path.join(home, "config"), JSON.stringify({ encryptionKey: key }), { mode: 0o600 });
const db = new DatabaseSync(file);
db.exec("PRAGMA busy_timeout=20000; PRAGMA journal_mode=" + (process.env.JOURNAL || "WAL") + "; PRAGMA wal_autocheckpoint=0");
db.exec("CREATE TABLE IF NOT EXISTS workflow_entity (id varchar(36) PRIMARY KEY NOT NULL, name text, nodes text, connections text, active boolean)");
db.exec("CREATE TABLE IF NOT EXISTS credentials_entity (id varchar(36) PRIMARY KEY NOT NULL, name text, data text NOT NULL, type text)");
db.exec("CREATE TABLE IF NOT EXISTS execution_entity (id integer PRIMARY KEY AUTOINCREMENT, data text, bytes blob)");
db.exec("CREATE TABLE IF NOT EXISTS \"odd: \u00e4\n\" (a, b REAL)");
db.exec("CREATE INDEX IF NOT EXISTS by_data ON execution_entity (data)");
const encrypt = (text) => {
  const salt = crypto.randomBytes(8), pass = Buffer.concat([Buffer.from(key, "binary"), salt]);
  const md5 = (data) => crypto.createHash("md5").update(data).digest();
  const a = md5(pass), b = md5(Buffer.concat([a, pass])), iv = md5(Buffer.concat([b, pass]));
  const cipher = crypto.createCipheriv("aes-256-cbc", Buffer.concat([a, b]), iv);
  return Buffer.concat([Buffer.from("Salted__"), salt, cipher.update(text), cipher.final()]).toString("base64");
};
if (!db.prepare("SELECT count(*) AS n FROM workflow_entity").get().n) {
  db.exec("BEGIN");
  for (let n = 0; n < 20; n++) db.prepare("INSERT INTO workflow_entity VALUES (?, ?, ?, NULL, 1)").run("w" + n, "Flow \u00e4 " + n, "[]");
  for (let n = 0; n < 5; n++) db.prepare("INSERT INTO credentials_entity VALUES (?, ?, ?, ?)").run("c" + n, "Cred " + n, encrypt("{\"n\":" + n + "}"), "http");
  for (let n = 0; n < 500; n++) db.prepare("INSERT INTO execution_entity (data, bytes) VALUES (?, ?)").run("d" + n, crypto.randomBytes(n));
  db.prepare("INSERT INTO \"odd: \u00e4\n\" VALUES (NULL, 0.1), (9007199254740993, -1e300), (?, NULL)").run("text\u0000\n");
  db.exec("COMMIT");
}
const add = db.prepare("INSERT INTO execution_entity (data, bytes) VALUES (?, ?)");
fs.writeFileSync("/tmp/ready", "");
setInterval(() => { if (process.env.WRITES || fs.existsSync("/tmp/write")) add.run("live", crypto.randomBytes(300)); }, 20);
}'
"#;

/// Prints every row of every table, and what the database is like.
const DUMP: &str = r#"
const { DatabaseSync } = require("node:sqlite");
const db = new DatabaseSync(process.argv[1]);
db.exec("PRAGMA busy_timeout=20000");
const hash = (v) => `${v.length} ${require("crypto").createHash("sha256").update(v).digest("hex")}`;
const say = (value) => JSON.stringify(value, (_, v) => (typeof v === "bigint" ? `${v}n` : v instanceof Uint8Array ? (v.length > 4096 ? hash(v) : Buffer.from(v).toString("hex")) : v));
for (const { type, name, sql } of db.prepare("SELECT * FROM sqlite_master ORDER BY type, name").all()) {
  console.log(say([type, name, sql]));
  if (type !== "table") continue;
  const rows = db.prepare(`SELECT * FROM "${name}"`);
  rows.setReadBigInts(true);
  console.log(rows.all().map(say).sort().join("\n"));
}
console.log(say(db.prepare("PRAGMA journal_mode").get()), say(db.prepare("PRAGMA user_version").get()));
db.close();
"#;

/// The image of a real n8n, which brings Node.js; built where it is missing.
pub fn n8n_image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        stand_in_image();
        let image = done(Command::new(repository().join("tests/stack/n8n-image.sh")));
        image.trim().to_owned()
    })
}

/// A sandbox without a setting, whose n8n has these variables (in YAML's flow style, without brackets) and mounts.
pub fn on_sqlite(name: &'static str, environment: &str, mounts: &str) -> Sandbox {
    let sandbox = Sandbox::new(name).containers().no_env_file().build();
    write_stack(&sandbox, environment, mounts);
    sandbox.compose(&["up", "-d"]);
    sandbox.await_work();
    sandbox
}

/// Writes the compose file of [`on_sqlite`].
pub fn write_stack(sandbox: &Sandbox, environment: &str, mounts: &str) {
    let image = n8n_image();
    let work = sandbox.aside("docker-entrypoint.sh");
    super::script(&work, WORK);
    sandbox.compose_file(&format!(
        "  n8n:
    image: {image}
    container_name: {{prefix}}-n8n
    {{labels}}
    command: start
    restart: unless-stopped
    environment: [{environment}]
    volumes: ['{}:/docker-entrypoint.sh:ro', {mounts}]
",
        work.display()
    ));
}

/// n8n's home on a volume.
pub const HOME: &str = "'n8n_data:/home/node/.n8n'";

impl Sandbox {
    /// n8n's container.
    pub fn n8n(&self) -> String {
        format!("{}-n8n", self.prefix())
    }

    /// Waits until the program has filled its database.
    pub fn await_work(&self) {
        await_true("the database is not filled", || {
            let mut test = Command::new("docker");
            test.args(["exec", &self.n8n(), "test", "-e", "/tmp/ready"]);
            test.output().is_ok_and(|output| output.status.success())
        });
    }

    /// A shell in n8n's container.
    pub fn in_n8n(&self, script: &str) -> String {
        self.docker(&["exec", &self.n8n(), "sh", "-c", script])
    }

    /// Runs SQL in the database, by a program of its own.
    pub fn sql(&self, sql: &str) {
        self.docker(&self.sql_call(sql).each_ref().map(String::as_str));
    }

    /// A stand-in for docker that does that before the call with the arguments `words`.
    pub fn sql_before(&self, words: &str, sql: &str) -> PathBuf {
        let call = self.sql_call(sql).map(|word| shell_quoted(&word)).join(" ");
        self.stand_in_docker(&format!("case \" $* \" in *' {words} '*) \"$real\" {call} ;; esac"))
    }

    fn sql_call(&self, sql: &str) -> [String; 7] {
        const RUN: &str = "const {DatabaseSync}=require('node:sqlite');const db=new DatabaseSync(process.argv[1]);\
                           db.exec('PRAGMA busy_timeout=20000');db.exec(process.argv[2]);db.close()";
        ["exec", &self.n8n(), NODE, "-e", RUN, FILE, sql].map(str::to_owned)
    }

    /// A shell as root in a container that has what n8n's has mounted, whether that runs or not.
    pub fn beside_n8n(&self, script: &str) -> String {
        let from = self.n8n();
        let image = n8n_image();
        self.docker(&[
            "run",
            "--rm",
            "--user",
            "0",
            "--network",
            "none",
            "--volumes-from",
            &from,
            "--entrypoint",
            "sh",
            image,
            "-c",
            script,
        ])
    }

    /// Every row of every table of the database.
    pub fn dump_sqlite(&self, file: &str) -> String {
        let (from, image) = (self.n8n(), n8n_image());
        self.docker(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--volumes-from",
            &from,
            "--entrypoint",
            NODE,
            image,
            "-e",
            DUMP,
            file,
        ])
    }

    /// Every row of every table of a backup.
    pub fn dump_backup(&self, file: &std::path::Path) -> String {
        let mut dump = Command::new("sh");
        dump.args([
            "-c",
            "gzip -dc \"$1\" | docker run --rm -i --network none --entrypoint sh \"$2\" -c 'cat >/tmp/db; exec node -e \"$1\" /tmp/db' sh \"$3\"",
            "sh",
        ]);
        dump.arg(file).args([n8n_image(), DUMP]);
        done(dump)
    }

    /// Runs a script under a lock of the sandbox's own.
    pub fn locked(&self, name: &str, args: &[&str]) -> Outcome {
        self.call(name)
            .args(args)
            .env("BACKUP_LOCK_FILE", self.lock_file())
            .run()
    }
}
