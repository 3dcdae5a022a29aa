//! Which container answers under a host name that n8n's configuration tells.

use crate::engine::describe::Described;

use super::{PROJECT, SERVICE};

/// Names under which a container reaches itself, or the host where it shares that's network.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Names of the host, where its published ports are.
const OUTSIDE: [&str; 3] = ["host.docker.internal", "host.containers.internal", "172.17.0.1"];

/// The containers, apart from itself, that `from` reaches as `host` at `port`, with the port that they listen on.
pub(super) fn reached<'a>(all: &'a [Described], from: &Described, host: &str, port: u16) -> Vec<(&'a Described, u16)> {
    let others = || all.iter().filter(|other| other.id != from.id);
    let is_local = LOCAL.contains(&host);
    if OUTSIDE.contains(&host) || (is_local && from.network_mode == "host") {
        let published = others().filter_map(|other| {
            let inner = other
                .published
                .iter()
                .find(|(outer, _)| *outer == port)
                .map(|(_, inner)| *inner);
            let own = (other.network_mode == "host").then_some(port);
            Some((other, inner.or(own)?))
        });
        let (bound, shared): (Vec<_>, Vec<_>) = published.partition(|(other, _)| other.network_mode != "host");
        return if bound.is_empty() { shared } else { bound };
    }
    if is_local {
        return others()
            .filter(|other| shares_network(from, other))
            .map(|other| (other, port))
            .collect();
    }
    let named: Vec<&Described> = others().filter(|other| is_called(from, other, host)).collect();
    let same_project =
        |other: &&Described| !from.label(PROJECT).is_empty() && other.label(PROJECT) == from.label(PROJECT);
    let own: Vec<&Described> = named.iter().copied().filter(same_project).collect();
    let named = if own.is_empty() { named } else { own };
    named.into_iter().map(|other| (other, port)).collect()
}

/// Whether two containers have one network of their own, as by `network_mode: service:...`.
fn shares_network(from: &Described, other: &Described) -> bool {
    let joins = |a: &Described, b: &Described| {
        let joined = a.network_mode.strip_prefix("container:");
        joined.is_some_and(|joined| joined == b.id || joined == b.name)
    };
    joins(from, other)
        || joins(other, from)
        || (from.network_mode.starts_with("container:") && from.network_mode == other.network_mode)
}

/// Whether `other` has the name `host` in a network that both are in.
fn is_called(from: &Described, other: &Described, host: &str) -> bool {
    let is_in_project = !from.label(PROJECT).is_empty() && from.label(PROJECT) == other.label(PROJECT);
    // The names of a container that was never started may not stand in its networks yet.
    let own = [&other.name, &other.host_name].into_iter().any(|name| name == host)
        || (is_in_project && other.label(SERVICE) == host);
    let mut shared = from
        .networks
        .keys()
        .filter_map(|network| other.networks.get(network))
        .peekable();
    match shared.peek() {
        Some(_) => own || shared.any(|names| names.iter().any(|name| name == host)),
        None => is_in_project && own,
    }
}
