//! What the engine has said a moment ago, for a run that would ask the same again at once: each question takes as long as the
//! work for a small stack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::container::Label;
use super::describe::Described;
use super::inspect::Status;
use super::{Container, Docker};

/// What is older is asked again.
const FRESH: Duration = Duration::from_secs(5);

/// All containers of an engine, at one moment. Only what reads may rely on it, and proves what it reads by itself.
#[derive(Clone, Debug)]
pub struct Glance {
    at: Instant,
    all: Arc<[Described]>,
    /// An image that is not on this host.
    lacks: Option<String>,
}

impl Glance {
    /// What the engine says now: its containers, and an image that it was asked for and lacks.
    pub fn new(all: Vec<Described>, lacks: Option<String>) -> Self {
        Self {
            at: Instant::now(),
            all: all.into(),
            lacks,
        }
    }

    /// The containers of these names, where all of them run.
    pub(super) fn running(&self, names: &[&str]) -> Option<Vec<Container>> {
        let find = |name: &&str| {
            let mut all = self.all.iter().map(|described| &described.container);
            all.find(|container| container.name == *name && container.status == Status::Running)
                .cloned()
        };
        names.iter().map(find).collect()
    }

    /// Whether a container that runs mounts a volume.
    pub(super) fn mounts(&self, volume: &str) -> bool {
        let mut all = self.all.iter().map(|described| &described.container);
        all.any(|container| {
            container.status == Status::Running && container.mounts.iter().any(|mount| mount.name == volume)
        })
    }

    /// Whether no container bears a label.
    pub(super) fn is_without(&self, label: Label<'_>) -> bool {
        let label = label.to_string();
        let bears = |described: &Described| {
            let mut labels = described.labels.iter();
            labels.any(|(key, value)| label.split_once('=') == Some((key, value)))
        };
        !self.all.iter().any(bears)
    }
}

impl Docker {
    /// The same client, which need not ask what a glance tells.
    pub fn with_glance(self, glance: Option<Glance>) -> Self {
        Self { glance, ..self }
    }

    /// Whether it is known that an image is not on this host.
    pub fn is_known_to_lack(&self, image: &str) -> bool {
        self.glance()
            .is_some_and(|glance| glance.lacks.as_deref() == Some(image))
    }

    /// The glance, while it is fresh.
    pub(super) fn glance(&self) -> Option<&Glance> {
        self.glance.as_ref().filter(|glance| glance.at.elapsed() < FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::super::describe::tests::described;
    use super::*;

    #[test]
    fn a_glance_tells_what_runs_and_nothing_of_what_does_not() {
        let container = |name: &str, status: &str, label: &str| {
            described(&format!(
                r#"{{"Id": "1", "Name": "/{name}", "State": {{"Status": "{status}"}}, "Config": {{"Labels": {{"{label}": "me"}}}},
                    "Mounts": [{{"Type": "volume", "Name": "{name}_data", "Destination": "/d"}}]}}"#
            ))
        };
        let glance = Glance::new(
            vec![container("n8n", "running", "x"), container("redis", "exited", "y")],
            None,
        );
        let found = glance.running(&["n8n"]).unwrap();
        assert_eq!((found.len(), found[0].name.as_str()), (1, "n8n"));
        // Whoever does not run, or is not there, is asked for: the answer tells why.
        assert!(glance.running(&["n8n", "redis"]).is_none() && glance.running(&["none"]).is_none());
        assert!(glance.mounts("n8n_data") && !glance.mounts("redis_data") && !glance.mounts(""));
        let helper = container("left", "exited", "n8n-backup.helper");
        assert!(glance.is_without(Label::Helper("me")));
        assert!(!Glance::new(vec![helper.clone()], None).is_without(Label::Helper("me")));
        assert!(Glance::new(vec![helper], None).is_without(Label::Helper("m")));
    }
}
