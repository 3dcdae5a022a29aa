//! A stack with a real n8n in queue mode.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{done, n8n, output, sh, Sandbox, REDIS_PORT};

pub use crate::common::sqlite::n8n_image as image;

/// PostgreSQL, Redis and the volume with the data of a real n8n, and its containers, which were never started.
pub fn created(name: &'static str) -> Sandbox {
    let image = image();
    let sandbox = Sandbox::new(name)
        .stack()
        .network()
        .redis_arg("--protected-mode")
        .redis_arg("no")
        .build();
    n8n::load(&sandbox);
    fill(&sandbox);
    create(&sandbox, image, &[]);
    sandbox
}

/// Fills the volume with n8n's home.
pub fn fill(sandbox: &Sandbox) {
    sh(
        "docker run --rm -i --network none -v \"$1:/v\" n8n-backup-test/busybox:1 tar -xzf - -C /v <\"$2\"",
        &[sandbox.volume().as_ref(), n8n::data("home.tar.gz").as_os_str()],
    );
}

/// Makes n8n's containers from an image, with more options perhaps.
pub fn create(sandbox: &Sandbox, image: &str, options: &[&str]) {
    let port = format!("QUEUE_BULL_REDIS_PORT={REDIS_PORT}");
    let network = format!("{}-net", sandbox.prefix());
    for (name, argument) in [("n8n-main", None), ("n8n-worker", Some("worker"))] {
        let mut command = Command::new("docker");
        command.args([
            "create",
            "--name",
            &sandbox.container(name),
            "--network",
            &network,
            "--stop-timeout",
            "5",
        ]);
        command.args(sandbox.labels());
        command.args(["-v", &format!("{}:/home/node/.n8n", sandbox.volume())]);
        for variable in [
            "DB_TYPE=postgresdb",
            "DB_POSTGRESDB_HOST=postgres",
            "DB_POSTGRESDB_DATABASE=n8n",
            "DB_POSTGRESDB_USER=n8n",
            "DB_POSTGRESDB_PASSWORD=any",
            "EXECUTIONS_MODE=queue",
            "QUEUE_BULL_REDIS_HOST=redis",
            &port,
            "OFFLOAD_MANUAL_EXECUTIONS_TO_WORKERS=true",
            "N8N_ENV_FEAT_ENCRYPTION_KEY_ROTATION=true",
            "N8N_DIAGNOSTICS_ENABLED=false",
            "N8N_VERSION_NOTIFICATIONS_ENABLED=false",
            "N8N_RUNNERS_AUTH_TOKEN=not-a-secret-of-anybody",
            "N8N_PORT=5999",
            "N8N_PATH=/elsewhere/",
        ] {
            command.args(["-e", variable]);
        }
        command.args(options).arg(image).args(argument);
        done(command);
    }
}

/// Starts n8n's containers, and waits until the webhook of the workflow `Hook` answers.
pub fn start(sandbox: &Sandbox) {
    for name in ["n8n-main", "n8n-worker"] {
        sandbox.docker(&["start", &sandbox.container(name)]);
    }
    let deadline = Instant::now() + Duration::from_secs(600);
    while !answers(sandbox) {
        if Instant::now() > deadline {
            let log = sh(
                "docker logs --tail 40 \"$1\" 2>&1",
                &[
                    sandbox.container("n8n-main").as_ref(),
                    sandbox.container("n8n-worker").as_ref(),
                ],
            );
            panic!("n8n does not answer: {log}");
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Whether n8n's webhook gives what its workflow says.
pub fn answers(sandbox: &Sandbox) -> bool {
    webhook(&sandbox.container("n8n-main"), "hook").contains("\"answer\":\"forty two")
}

/// The status and the text that a webhook of the n8n in a container answers with; nothing where it gives none within nine seconds, as happens
/// while its worker starts.
pub fn webhook(container: &str, path: &str) -> String {
    let script = format!(
        "fetch('http://127.0.0.1:5999/webhook/{path}', {{ signal: AbortSignal.timeout(9000) }})
          .then(async (answer) => console.log(answer.status, await answer.text())).catch(() => {{}})"
    );
    let mut ask = Command::new("docker");
    ask.args(["exec", container, "node", "-e", &script]);
    String::from_utf8_lossy(&output(ask).stdout).into_owned()
}

/// The scratch containers that there are.
pub fn scratch(sandbox: &Sandbox) -> String {
    let label = format!("label=n8n-backup.drill={}", sandbox.owner());
    sandbox.docker(&["ps", "-aq", "--no-trunc", "--filter", &label])
}

/// Every line about n8n's own containers that a drill must not change.
pub fn state(sandbox: &Sandbox) -> String {
    let mut state = Vec::new();
    for name in ["postgres", "redis", "n8n-main", "n8n-worker"] {
        let text = sandbox.docker(&[
            "inspect",
            "--format",
            "{{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}{{range .Mounts}}{{println}}{{$.Id}} {{.Name}} {{.Source}} {{.Destination}} {{.RW}}{{end}}",
            &sandbox.container(name),
        ]);
        state.extend(text.lines().map(str::to_owned));
    }
    // The engine gives mounts in any order.
    state.sort();
    state.join("\n")
}
