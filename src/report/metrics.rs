//! The textfile of Prometheus' node_exporter (its "textfile collector"; text exposition format 0.0.4).

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::store::atomic::{self, Access};

/// Metrics in the making. All of them are gauges.
#[derive(Debug)]
pub struct Metrics {
    labels: String,
    text: String,
    last: &'static str,
}

impl Metrics {
    /// No metrics yet. Each will carry the label `project`, so that several stacks on one host stay apart.
    pub fn new(project: &str) -> Self {
        Self {
            labels: format!("project=\"{}\"", escaped(project)),
            text: String::new(),
            last: "",
        }
    }

    /// Adds a value of the metric `name`, described by `help`. Values of one metric follow each other.
    pub fn add(&mut self, name: &'static str, help: &str, label: Option<(&str, &str)>, value: impl std::fmt::Display) {
        if self.last != name {
            let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
            self.last = name;
        }
        let more = label.map_or_else(String::new, |(name, text)| format!(",{name}=\"{}\"", escaped(text)));
        let _ = writeln!(self.text, "{name}{{{}{more}}} {value}", self.labels);
    }

    /// Puts the metrics at `path`, all at once, readable for everybody: the collector runs as another user, and reads
    /// `*.prom` only.
    pub fn write(&self, path: &Path) -> Result<()> {
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
    use std::fs;

    use super::*;
    use crate::testing::TempDir;

    #[test]
    fn each_metric_is_described_once() {
        let mut metrics = Metrics::new("/a \"b\"\\\n");
        metrics.add("x_bytes", "What x takes.", Some(("part", "one")), 1);
        metrics.add("x_bytes", "What x takes.", Some(("part", "two")), 2);
        metrics.add("y", "Y.", None, 0.5);
        let dir = TempDir::new();
        let path = dir.path().join("n8n.prom");
        metrics.write(&path).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# HELP x_bytes What x takes.\n# TYPE x_bytes gauge\n\
             x_bytes{project=\"/a \\\"b\\\"\\\\\\n\",part=\"one\"} 1\n\
             x_bytes{project=\"/a \\\"b\\\"\\\\\\n\",part=\"two\"} 2\n\
             # HELP y Y.\n# TYPE y gauge\ny{project=\"/a \\\"b\\\"\\\\\\n\"} 0.5\n"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(metrics.write(&dir.path().join("none/x.prom")).is_err());
    }
}
