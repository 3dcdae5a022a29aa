//! `BACKUP_METRICS_FILE`: a file for the textfile collector of Prometheus' node_exporter (text exposition format 0.0.4).

use std::fmt::{Display, Write as _};
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{bail, Context as _, Result};

use super::channel::{Channel, Measured, Outcome};
use crate::config::Config;
use crate::store::atomic::{self, Access};

/// The file.
pub struct MetricsFile;

impl Channel for MetricsFile {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn is_on(&self, config: &Config) -> bool {
        config.metrics_file.is_some()
    }

    fn probe(&self, config: &Config) -> Result<()> {
        let Some(dir) = config.metrics_file.as_deref().and_then(Path::parent) else {
            return Ok(());
        };
        let probe = dir.join(format!(".n8n-backup.{}", std::process::id()));
        fs::File::create_new(&probe)
            .and_then(|_| fs::remove_file(&probe))
            .with_context(|| format!("{} takes no files", dir.display()))
    }

    fn end(&self, config: &Config, outcome: &Outcome) -> Result<()> {
        let Some(path) = &config.metrics_file else {
            return Ok(());
        };
        metrics(&config.project, outcome)
            .write(path)
            .context("BACKUP_METRICS_FILE was not written")?;
        match &outcome.measured {
            Ok(_) => Ok(()),
            Err(error) => bail!("BACKUP_METRICS_FILE tells of the run alone: {error:#}"),
        }
    }
}

/// What a run, and what it leaves, says in numbers.
fn metrics(project: &Path, outcome: &Outcome) -> Metrics {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut metrics = Metrics::new(&project.to_string_lossy());
    let m = &mut metrics;
    m.add(
        "n8n_backup_info",
        "The version of n8n-backup.",
        Some(("version", env!("CARGO_PKG_VERSION"))),
        1,
    );
    m.add(
        "n8n_backup_last_run_timestamp_seconds",
        "When backup-all ended last.",
        None,
        now,
    );
    m.add(
        "n8n_backup_last_run_success",
        "Whether that run succeeded.",
        None,
        u8::from(outcome.success),
    );
    m.add(
        "n8n_backup_last_run_duration_seconds",
        "How long it took.",
        None,
        format!("{:.3}", outcome.seconds),
    );
    for part in &outcome.parts {
        m.add(
            "n8n_backup_component_success",
            "Whether that run backed the component up.",
            Some(("component", part.name)),
            u8::from(part.backed_up),
        );
    }
    for part in &outcome.parts {
        m.maybe(
            "n8n_backup_component_size_bytes",
            "What the component's file takes.",
            Some(("component", part.name)),
            part.bytes,
        );
    }
    // That a run has failed must be told, whatever cannot be.
    if let Ok(measured) = &outcome.measured {
        add_measured(m, measured);
    }
    metrics
}

fn add_measured(m: &mut Metrics, measured: &Measured) {
    m.maybe(
        "n8n_backup_newest_timestamp_seconds",
        "When the newest recovery point was begun that a restore of the latest would take.",
        None,
        measured.newest,
    );
    m.maybe(
        "n8n_backup_proven_timestamp_seconds",
        "When the newest recovery point that a drill has restored was begun.",
        None,
        measured.proven,
    );
    m.maybe(
        "n8n_backup_drill_success",
        "Whether no drill has failed in what none of a newer recovery point has passed.",
        None,
        measured.drill_success.map(u8::from),
    );
    for (name, n8n, at) in &measured.proofs {
        let n8n = n8n.as_deref().map(|version| ("n8n", version));
        m.add(
            "n8n_backup_proof_timestamp_seconds",
            "When the newest recovery point was begun that a drill has proven so.",
            [("proof", *name)].into_iter().chain(n8n),
            at,
        );
    }
    m.add(
        "n8n_backup_points",
        "Recovery points that are kept.",
        None,
        measured.points,
    );
    m.add(
        "n8n_backup_stored_bytes",
        "What their files take.",
        None,
        measured.stored_bytes,
    );
    m.maybe(
        "n8n_backup_free_bytes",
        "Free space on the disk of the backups; of several, on one that will be full sooner and within 14 days.",
        None,
        measured.free_bytes,
    );
    m.maybe(
        "n8n_backup_days_until_full",
        "In how many days that of one of their disks will be used up, as recovery points have come, grown and gone lately.",
        None,
        measured.days_until_full,
    );
}

/// Metrics in the making. All of them are gauges.
#[derive(Debug)]
struct Metrics {
    labels: String,
    text: String,
    last: &'static str,
}

impl Metrics {
    /// No metrics yet. Each will carry the label `project`, so that several stacks on one host stay apart.
    fn new(project: &str) -> Self {
        Self {
            labels: format!("project=\"{}\"", escaped(project)),
            text: String::new(),
            last: "",
        }
    }

    /// Adds a value of the metric `name`, described by `help`. Values of one metric follow each other.
    fn add<'a>(
        &mut self,
        name: &'static str,
        help: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: impl Display,
    ) {
        if self.last != name {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
            self.last = name;
        }
        let labels = labels.into_iter();
        let more: String = labels
            .map(|(name, text)| format!(",{name}=\"{}\"", escaped(text)))
            .collect();
        let _ = writeln!(self.text, "{name}{{{}{more}}} {value}", self.labels);
    }

    /// As [`Metrics::add`], where there is a value.
    fn maybe(&mut self, name: &'static str, help: &str, label: Option<(&str, &str)>, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(name, help, label, value);
        }
    }

    /// Puts the metrics at `path`, all at once, readable for everybody: the collector runs as another user, and reads
    /// `*.prom` only.
    fn write(&self, path: &Path) -> Result<()> {
        let name = path.file_name().context("the path has no file name")?.to_string_lossy();
        let access = Access {
            mode: 0o644,
            owner: None,
        };
        atomic::replace(path, &format!(".{name}.new"), self.text.as_bytes(), access)
    }
}

/// A label's value between its quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn a_run_after_which_nothing_can_be_measured_is_told_all_the_same() {
        let mut outcome = Outcome::new(Duration::from_secs(2), None);
        outcome.measured = Err(anyhow::anyhow!("backups/sets is a file"));
        let text = metrics(Path::new("/n8n"), &outcome).text;
        for line in [
            "n8n_backup_last_run_success{project=\"/n8n\"} 0\n",
            "n8n_backup_component_success{project=\"/n8n\",component=\"redis\"} 0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("n8n_backup_points"), "{text}");
        outcome.measured = Ok(Measured::default());
        let text = metrics(Path::new("/n8n"), &outcome).text;
        assert!(text.contains("n8n_backup_points{project=\"/n8n\"} 0\n"), "{text}");
        assert!(!text.contains("n8n_backup_days_until_full"), "{text}");
        outcome.measured = Ok(Measured {
            days_until_full: Some(3),
            ..Measured::default()
        });
        let text = metrics(Path::new("/n8n"), &outcome).text;
        assert!(
            text.contains("n8n_backup_days_until_full{project=\"/n8n\"} 3\n"),
            "{text}"
        );
    }

    #[test]
    fn each_metric_is_described_once() {
        let mut metrics = Metrics::new("/a \"b\"\\\n");
        metrics.add("x_bytes", "What x takes.", Some(("part", "one")), 1);
        metrics.add("x_bytes", "What x takes.", Some(("part", "two")), 2);
        metrics.add("y", "Y.", [("a", "1"), ("b", "2")], 0.5);
        let dir = TempDir::new();
        let path = dir.path().join("n8n.prom");
        metrics.write(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# HELP x_bytes What x takes.\n# TYPE x_bytes gauge\n\
             x_bytes{project=\"/a \\\"b\\\"\\\\\\n\",part=\"one\"} 1\n\
             x_bytes{project=\"/a \\\"b\\\"\\\\\\n\",part=\"two\"} 2\n\
             # HELP y Y.\n# TYPE y gauge\ny{project=\"/a \\\"b\\\"\\\\\\n\",a=\"1\",b=\"2\"} 0.5\n"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(metrics.write(&dir.path().join("none/x.prom")).is_err());
    }
}
