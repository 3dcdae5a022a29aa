//! Which container answers under a host name that n8n's configuration tells.

use std::net::{IpAddr, UdpSocket};
use std::slice;

use super::{ONE_OFF, PROJECT, SERVICE};
use crate::engine::describe::Described;
use crate::engine::Status;
use crate::store::Kind;

/// Names under which a container reaches itself, or the host where it shares that's network.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Names of the host, where its published ports are.
const OUTSIDE: [&str; 3] = ["host.docker.internal", "host.containers.internal", "172.17.0.1"];

/// What passes connections on to a server; by the names of images.
const PROXIES: [&str; 6] = ["pgbouncer", "pgpool", "pgcat", "supavisor", "odyssey", "haproxy"];
/// The variables that tell a pooler its server, and the port there.
const BACKENDS: [(&str, &str); 4] = [
    ("DB_HOST", "DB_PORT"),
    ("POSTGRESQL_HOST", "POSTGRESQL_PORT"),
    ("PGHOST", "PGPORT"),
    ("DATABASES_HOST", "DATABASES_PORT"),
];

/// As [`direct`]; behind a pooler that tells its server, that server.
pub(super) fn reached<'a>(
    all: &'a [Described],
    from: &Described,
    host: &str,
    port: u16,
    kind: Kind,
) -> Vec<(&'a Described, u16)> {
    let found = direct(all, from, host, port, kind);
    let behind = match found[..] {
        [(proxy, _)] if is_proxy(proxy) => backend(proxy).map(|(host, port)| direct(all, proxy, &host, port, kind)),
        _ => None,
    };
    behind.filter(|behind| behind.len() == 1).unwrap_or(found)
}

/// Whether a container passes connections on to a server.
pub(super) fn is_proxy(container: &Described) -> bool {
    PROXIES.contains(&image_name(container))
}

/// The host and the port that a pooler's variables name.
fn backend(proxy: &Described) -> Option<(String, u16)> {
    let port = |text: Option<&str>| text.and_then(|port| port.parse().ok()).unwrap_or(5432);
    if let Some((_, url)) = proxy.variable("DATABASE_URL").and_then(|url| url.split_once("://")) {
        let place = url.split(['/', '?']).next()?.rsplit('@').next()?;
        let (host, number) = place.split_once(':').unzip();
        return Some((host.unwrap_or(place).to_owned(), port(number)));
    }
    let (host, number) = BACKENDS.iter().find(|(host, _)| proxy.variable(host).is_some())?;
    Some((proxy.variable(host)?.to_owned(), port(proxy.variable(number))))
}

/// The containers, apart from itself, that `from` reaches as `host` at `port`, with the port that they listen on. Of
/// several, and of those that have the host's network, where any program may listen, those that are servers of the
/// `kind`, and of these the one that runs.
pub(super) fn direct<'a>(
    all: &'a [Described],
    from: &Described,
    host: &str,
    port: u16,
    kind: Kind,
) -> Vec<(&'a Described, u16)> {
    let mut found = candidates(all, from, host, port);
    if let [(named, inner)] = found[..] {
        // Of a container that lends its network, a server in that has the name, too.
        let guests = others(all, from).filter(|other| shares_network(other, named));
        let servers = guests.filter(|other| !is_server(named, kind) && is_server(other, kind));
        found.extend(servers.map(|other| (other, inner)));
    }
    let is_sure = |(other, _): &(&Described, u16)| other.network_mode != "host";
    if found.len() == 1 && found.iter().all(is_sure) {
        return found;
    }
    let those = |chosen: &dyn Fn(&Described) -> bool| -> Vec<(&'a Described, u16)> {
        found.iter().copied().filter(|(other, _)| chosen(other)).collect()
    };
    let servers = those(&|other| is_server(other, kind));
    let servers = match servers.is_empty() {
        true => those(&|other| other.exposed.contains(&port)),
        false => servers,
    };
    let servers = match servers.is_empty() {
        true => found.into_iter().filter(is_sure).collect(),
        false => servers,
    };
    // What does not run answers under no name, as one that an interrupted `docker compose up` has left.
    let running = servers.iter().filter(|(other, _)| other.status == Status::Running);
    let running: Vec<_> = running.copied().collect();
    match running.len() {
        1 => running,
        _ => servers,
    }
}

/// The port that `server`, which a setting names, listens on, where `from` is configured to `host` and `port`: its own,
/// where these lead to something else.
pub(super) fn inner_port(server: &Described, from: &Described, host: &str, port: u16, kind: Kind) -> u16 {
    match candidates(slice::from_ref(server), from, host, port).first() {
        Some((_, inner)) => *inner,
        None => published(server, port, |_| true)
            .or_else(|| own_port(server, kind))
            .unwrap_or(match kind {
                // Its configuration may tell more, and n8n's port is one of the host.
                _ if server.network_mode == "host" => port,
                Kind::Redis => 6379,
                _ => 5432,
            }),
    }
}

/// The port that a server is told to listen on.
fn own_port(server: &Described, kind: Kind) -> Option<u16> {
    let variables = match kind {
        Kind::Redis => ["REDIS_PORT_NUMBER", "VALKEY_PORT_NUMBER"],
        _ => ["PGPORT", "POSTGRESQL_PORT_NUMBER"],
    };
    let words = || server.entry_point.iter().chain(&server.command).map(String::as_str);
    let pairs = words().zip(words().skip(1));
    let mut options = pairs.filter(|(option, _)| matches!(*option, "-p" | "--port"));
    let option = options.next().map(|(_, port)| port);
    let option = option.or_else(|| words().find_map(|word| word.trim_start_matches('-').strip_prefix("port=")));
    let variable = || variables.iter().find_map(|name| server.variable(name));
    option.or_else(variable).and_then(|port| port.parse().ok())
}

/// Whether a container is a server of the `kind`, by its image.
pub(super) fn is_server(container: &Described, kind: Kind) -> bool {
    let (variables, names): (&[&str], &[&str]) = match kind {
        Kind::Redis => (
            &["REDIS_VERSION", "VALKEY_VERSION"],
            &[
                "redis",
                "valkey",
                "redis-stack-server",
                "redis-stack",
                "keydb",
                "dragonfly",
            ],
        ),
        _ => (
            &["PG_MAJOR", "POSTGRESQL_VOLUME_DIR"],
            &[
                "postgres",
                "postgresql",
                "postgis",
                "pgvector",
                "timescaledb",
                "timescaledb-ha",
            ],
        ),
    };
    names.contains(&image_name(container)) || variables.iter().any(|name| container.variable(name).is_some())
}

/// The last part of the name of a container's image, without tag and digest.
fn image_name(container: &Described) -> &str {
    let name = container.image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

/// The port behind a port of the host that is on one of the addresses there which count.
fn published(container: &Described, port: u16, counts: impl Fn(&str) -> bool) -> Option<u16> {
    let mut ports = container.published.iter();
    let found = ports.find(|published| published.outer == port && counts(&published.address));
    found.map(|published| published.inner)
}

/// Whether a port that is on an `address` of the host is reached there as `host`. What is for the host alone is out of
/// a container's reach, unless the engine is not here: Docker Desktop's, in a virtual machine, leads containers there.
fn is_reached_as(host: &str, address: &str, is_here: bool) -> bool {
    let is_local = LOCAL.contains(&host);
    match (address.parse::<IpAddr>(), host.parse::<IpAddr>()) {
        (Ok(address), _) if address.is_loopback() => is_local || !is_here,
        (Ok(address), Ok(host)) if !address.is_unspecified() => address == host,
        // A name of the host's may stand for any address.
        (Ok(address), Err(_)) if !address.is_unspecified() => !is_local,
        _ => true,
    }
}

/// Whether the engine's containers run on this host itself: of each that a port leads to, it has the other end of a
/// network (one of type macvlan has a router there). It may have that of some where another engine beside it has
/// networks of the same addresses.
fn is_engine_here(all: &[Described]) -> bool {
    let gateways_of = |one: &Described| -> Vec<IpAddr> {
        let gateways = one.gateways.iter();
        gateways.filter_map(|gateway| gateway.parse().ok()).collect()
    };
    let bound = all.iter().filter(|one| one.is_bound).map(gateways_of);
    let mut told = bound.filter(|gateways| !gateways.is_empty()).peekable();
    told.peek().is_some() && told.all(|gateways| gateways.into_iter().any(is_bindable))
}

/// Whether an address is one of this host: a socket can be bound to no other.
fn is_bindable(address: IpAddr) -> bool {
    !address.is_unspecified() && UdpSocket::bind((address, 0)).is_ok()
}

/// Whether an address is one by which containers reach this host.
fn is_of_host(host: &str) -> bool {
    let address: Result<IpAddr, _> = host.parse();
    address.is_ok_and(|address| !address.is_loopback() && is_bindable(address))
}

/// The containers apart from one. What `docker compose run` has started bears the labels of a service and does not serve.
fn others<'a>(all: &'a [Described], from: &Described) -> impl Iterator<Item = &'a Described> {
    let id = from.id.clone();
    all.iter()
        .filter(move |other| other.id != id && other.label(ONE_OFF) != "True")
}

/// The containers that may be what `from` reaches as `host` at `port`, with the port that they listen on.
fn candidates<'a>(all: &'a [Described], from: &Described, host: &str, port: u16) -> Vec<(&'a Described, u16)> {
    let others = || others(all, from);
    let is_local = LOCAL.contains(&host);
    let is_outside = OUTSIDE.contains(&host) || (!is_local && is_of_host(host));
    if is_outside || (is_local && from.network_mode == "host") {
        let counts = |address: &str| is_reached_as(host, address, is_engine_here(all));
        let published = others().filter_map(|other| {
            let own = (other.network_mode == "host").then_some(port);
            Some((other, published(other, port, counts).or(own)?))
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
    let is_linked = |other: &&Described| {
        from.links
            .iter()
            .any(|(linked, name)| *linked == other.name && name == host)
    };
    if let Some(linked) = others().find(is_linked) {
        return vec![(linked, port)];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::describe::tests::described;

    /// A container with a network mode, and more of what `docker inspect` says of its configuration and of the host's
    /// side.
    fn container(name: &str, image: &str, mode: &str, config: &str, host: &str) -> Described {
        described(&format!(
            r#"{{"Id": "id-{name}", "Name": "/{name}", "Config": {{"Image": "{image}" {config}}},
                "HostConfig": {{"NetworkMode": "{mode}" {host}}}, "NetworkSettings": {{"Networks": {{"{mode}": {{}}}}}}}}"#
        ))
    }

    fn found(all: &[Described], host: &str, port: u16, kind: Kind) -> Vec<(String, u16)> {
        let reached = reached(all, &all[0], host, port, kind);
        reached
            .into_iter()
            .map(|(other, port)| (other.name.clone(), port))
            .collect()
    }

    fn one(name: &str, port: u16) -> Vec<(String, u16)> {
        vec![(name.to_owned(), port)]
    }

    #[test]
    fn of_those_that_share_a_network_the_server_is_meant() {
        let inside = |name, image, config| container(name, image, "container:id-gluetun", config, "");
        let all = [
            inside("n8n", "n8nio/n8n", ""),
            container(
                "gluetun",
                "qmcgaw/gluetun:v3",
                "bridge",
                r#", "ExposedPorts": {"5432/tcp": {}}"#,
                "",
            ),
            inside("pg", "ghcr.io/own/db", r#", "Env": ["PG_MAJOR=16"]"#),
            inside("cache", "valkey/valkey:8@sha256:0", ""),
            inside("exporter", "prometheuscommunity/postgres-exporter", ""),
        ];
        assert_eq!(found(&all, "localhost", 5432, Kind::Postgres), one("pg", 5432));
        assert_eq!(found(&all, "127.0.0.1", 6379, Kind::Redis), one("cache", 6379));
        // From a network that both are in, the name of the one that lends its own leads to it, too.
        let mut outside = all.to_vec();
        outside[0] = container("n8n", "n8nio/n8n", "bridge", "", "");
        assert_eq!(found(&outside, "gluetun", 5432, Kind::Postgres), one("pg", 5432));
        assert_eq!(found(&outside, "exporter", 9187, Kind::Postgres), []);
        // What no image tells is told by the ports; else all of them are named.
        let all = [
            all[0].clone(),
            inside("own", "own", r#", "ExposedPorts": {"5433/tcp": {}}"#),
            all[3].clone(),
        ];
        assert_eq!(found(&all, "localhost", 5433, Kind::Postgres), one("own", 5433));
        assert_eq!(found(&all, "localhost", 5432, Kind::Postgres).len(), 2);
    }

    #[test]
    fn no_stranger_on_the_hosts_network_is_taken_for_a_server() {
        let on_host = |name, image, config| container(name, image, "host", config, "");
        let mut all = vec![
            on_host("n8n", "n8nio/n8n", ""),
            on_host(
                "stranger",
                "prom/node-exporter",
                r#", "ExposedPorts": {"9100/tcp": {}}"#,
            ),
        ];
        assert_eq!(found(&all, "localhost", 5432, Kind::Postgres), []);
        all.push(on_host("pg", "pgvector/pgvector:pg16", ""));
        assert_eq!(found(&all, "localhost", 5432, Kind::Postgres), one("pg", 5432));
        all.push(container(
            "db",
            "own",
            "bridge",
            "",
            r#", "PortBindings": {"5432/tcp": [{"HostPort": "5432"}]}"#,
        ));
        assert_eq!(found(&all, "localhost", 5432, Kind::Postgres), one("db", 5432));
    }

    #[test]
    fn a_port_that_is_for_the_host_alone_leads_no_container_to_a_server() {
        // An address of this host, and one that is none.
        let (here, away) = ("127.0.0.1", "203.0.113.7");
        let reaches = |mode: &str, host: &str, address: &str, gateway: &str| {
            let bindings =
                format!(r#", "PortBindings": {{"5432/tcp": [{{"HostIp": "{address}", "HostPort": "5432"}}]}}"#);
            let asked = r#", "PortBindings": {"80/tcp": [{"HostPort": "80"}]}"#;
            let on_lan = |name| container(name, "traefik", "macvlan", "", asked);
            let mut all = vec![
                container("n8n", "n8nio/n8n", mode, "", ""),
                container("old", "postgres:16", "bridge", "", &bindings),
                // Docker opens no port to one, and has a router there to the other.
                on_lan("lan"),
                on_lan("proxy"),
            ];
            let gateways = gateway.split(' ').map(|one| vec![one.to_owned()]);
            let bound = gateways.enumerate().map(|(number, gateways)| Described {
                gateways,
                is_bound: true,
                ..container(&number.to_string(), "nginx", "bridge", "", "")
            });
            all.extend(bound);
            all[2].gateways = vec!["192.0.2.1".to_owned()];
            if gateway == here {
                all[3].gateways = ["192.0.2.1", here].map(str::to_owned).to_vec();
                all[3].is_bound = true;
            }
            !found(&all, host, 5432, Kind::Postgres).is_empty()
        };
        for host in ["host.docker.internal", "172.17.0.1"] {
            for address in ["", "0.0.0.0", "::", "172.17.0.1"] {
                assert!(reaches("net", host, address, here), "{host} {address}");
            }
            for address in ["127.0.0.1", "127.0.0.2", "::1"] {
                assert!(!reaches("net", host, address, here), "{host} {address}");
                // Docker Desktop's, or one that does not tell.
                assert!(reaches("net", host, address, away) && reaches("net", host, address, ""));
                // Another engine on this host may have a network of the same addresses.
                assert!(reaches("net", host, address, &format!("{here} {away}")));
            }
        }
        assert!(reaches("net", "host.docker.internal", "192.0.2.1", here));
        assert!(!reaches("net", "172.17.0.1", "192.0.2.1", here));
        for address in ["", "0.0.0.0", "127.0.0.1"] {
            assert!(reaches("host", "localhost", address, here), "{address}");
        }
        assert!(!reaches("host", "localhost", "192.0.2.1", here));
        // The server itself, which has the host's network.
        let mut all = [
            container("n8n", "n8nio/n8n", "net", "", ""),
            container(
                "old",
                "postgres:16",
                "bridge",
                "",
                r#", "PortBindings": {"5432/tcp": [{"HostIp": "127.0.0.1", "HostPort": "5432"}]}"#,
            ),
            container("pg", "postgres:16", "host", "", ""),
        ];
        all[1].gateways = vec![here.to_owned()];
        all[1].is_bound = true;
        assert_eq!(
            found(&all, "host.docker.internal", 5432, Kind::Postgres),
            one("pg", 5432)
        );
    }

    #[test]
    fn neither_what_was_run_once_nor_what_an_interrupted_update_left_is_a_second_server() {
        let of = |service: &str, one_off: &str| {
            format!(r#", "Labels": {{"{PROJECT}": "p", "{SERVICE}": "{service}", "{ONE_OFF}": "{one_off}"}}"#)
        };
        let server = |name: &str, one_off: &str| container(name, "postgres:16", "p", &of("db", one_off), "");
        let mut all = vec![
            container("p-n8n-1", "n8nio/n8n", "p", &of("n8n", "False"), ""),
            server("p-db-1", "False"),
            server("p-db-run-1", "True"),
        ];
        all[2].status = Status::Running;
        assert_eq!(found(&all, "db", 5432, Kind::Postgres), one("p-db-1", 5432));
        all.push(server("0a_p-db-1", "False"));
        assert_eq!(found(&all, "db", 5432, Kind::Postgres).len(), 2);
        all[1].status = Status::Running;
        assert_eq!(found(&all, "db", 5432, Kind::Postgres), one("p-db-1", 5432));
        all[3].status = Status::Running;
        assert_eq!(found(&all, "db", 5432, Kind::Postgres).len(), 2);
    }

    #[test]
    fn a_link_names_its_container() {
        let link = r#", "Links": ["/n8n-db:/n8n/postgres"]"#;
        let all = [
            container("n8n", "n8nio/n8n", "bridge", "", link),
            container("postgres", "postgres:16", "bridge", "", ""),
            container("n8n-db", "postgres:16", "bridge", "", ""),
        ];
        assert_eq!(found(&all, "postgres", 5432, Kind::Postgres), one("n8n-db", 5432));
    }

    #[test]
    fn a_named_server_is_asked_at_the_port_behind_the_published_one() {
        let bindings = r#", "PortBindings": {"5432/tcp": [{"HostPort": "5433"}]}"#;
        let from = container("n8n", "n8nio/n8n", "bridge", "", "");
        let db = container("db", "postgres:16", "bridge", "", bindings);
        assert_eq!(inner_port(&db, &from, "db.example.org", 5433, Kind::Postgres), 5432);
        assert_eq!(
            inner_port(&db, &from, "host.docker.internal", 5433, Kind::Postgres),
            5432
        );
        // By its own name it is reached directly.
        assert_eq!(inner_port(&db, &from, "db", 5433, Kind::Postgres), 5433);
        // What n8n is configured to is something else.
        let own = |config: &str| {
            let server = container("db", "postgres:16", "bridge", config, "");
            inner_port(&server, &from, "pgbouncer", 6432, Kind::Postgres)
        };
        assert_eq!(own(""), 5432);
        assert_eq!(own(r#", "Env": ["PGPORT=5433"]"#), 5433);
        assert_eq!(own(r#", "Cmd": ["postgres", "-p", "5434"]"#), 5434);
        assert_eq!(own(r#", "Cmd": ["-c", "port=5435"]"#), 5435);
        assert!(!is_of_host("203.0.113.7") && !is_of_host("127.0.0.1") && !is_of_host("db"));
    }

    #[test]
    fn the_server_behind_a_pooler_is_found_where_that_tells_it() {
        let behind = |image: &str, env: &str| {
            let all = [
                container("n8n", "n8nio/n8n", "net", "", ""),
                container("pool", image, "net", &format!(r#", "Env": [{env}]"#), ""),
                container("pg", "postgres:16", "net", "", ""),
            ];
            found(&all, "pool", 6432, Kind::Postgres)
        };
        assert_eq!(behind("edoburu/pgbouncer:v1.23", r#""DB_HOST=pg""#), one("pg", 5432));
        assert_eq!(
            behind("bitnami/pgbouncer", r#""POSTGRESQL_HOST=pg", "POSTGRESQL_PORT=5433""#),
            one("pg", 5433)
        );
        assert_eq!(
            behind("edoburu/pgbouncer", r#""DATABASE_URL=postgres://u:p@w@pg:5434/n8n""#),
            one("pg", 5434)
        );
        assert_eq!(
            behind("edoburu/pgbouncer", r#""DATABASE_URL=postgres://u:p@pg/n8n""#),
            one("pg", 5432)
        );
        // Nothing tells, or what is told is no container here.
        assert_eq!(behind("haproxy:3", ""), one("pool", 6432));
        assert_eq!(
            behind("pgbouncer/pgbouncer", r#""DATABASES_HOST=db.example.org""#),
            one("pool", 6432)
        );
        assert_eq!(behind("own/db", r#""DB_HOST=pg""#), one("pool", 6432));
    }
}
