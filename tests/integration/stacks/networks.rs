//! Servers that n8n does not reach by the name of a service.

use super::*;
use crate::common::output;

const IN_VPN: &str = "    network_mode: 'service:vpn'\n";

/// An address of this host that is not of a network of Docker's.
fn own_address() -> String {
    let mut hostname = std::process::Command::new("hostname");
    hostname.arg("-I");
    let text = String::from_utf8(output(hostname).stdout).unwrap();
    let address = text.split_whitespace().find(|address| !address.starts_with("172.17."));
    address.expect("this host has no address").to_owned()
}

#[test]
fn servers_in_the_network_of_a_vpn_client_are_told_from_it() {
    let sandbox = bare("shape-vpn");
    let vpn = "  vpn:
    image: n8n-backup-test/busybox:1
    {labels}
    command: ['sleep', '1000000']
";
    let at_localhost = |text: &str| {
        text.replace("HOST=database", "HOST=localhost")
            .replace("HOST=cache", "HOST=127.0.0.1")
    };
    let environment = at_localhost(&format!("{ON_POSTGRES}, {QUEUE}, N8N_ENCRYPTION_KEY={KEY}"));
    sandbox.compose_file(&format!(
        "{vpn}{POSTGRES}{IN_VPN}{REDIS}{IN_VPN}{}{IN_VPN}",
        n8n("n8n", "start", &environment, HOME)
    ));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-redis", sandbox.prefix()]));
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    full_circle(&sandbox, 5, &|| sandbox.fingerprint(), &|| {
        sandbox.psql("DROP TABLE credentials_entity CASCADE");
        sandbox.redis(&["flushall"]);
        in_volume(&sandbox, "rm -rf /volume/nodes");
    });
}

#[test]
fn a_server_is_found_by_a_port_of_the_host_and_by_a_link() {
    let sandbox = bare("shape-port");
    // Any free port: the host is shared.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let environment =
        |host: &str| ON_POSTGRES.replace("DB_POSTGRESDB_HOST=database", &format!("DB_POSTGRESDB_HOST={host}"));
    let published = format!("{POSTGRES}    ports: ['{port}:5432']\n");
    let by_port = format!("{}, DB_POSTGRESDB_PORT={port}", environment(&own_address()));
    let service = n8n("n8n", "start", &by_port, HOME);
    sandbox.compose_file(&format!("{published}{service}"));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    done(sandbox.stack(&["seed-volume", sandbox.prefix()]));
    let fingerprint = || sandbox.fingerprint_postgres();
    full_circle(&sandbox, 4, &|| without_database(&fingerprint()), &|| {
        sandbox.psql("DROP TABLE credentials_entity CASCADE");
    });
    // A host that is no address of this one: the container is named, and the port still leads to it.
    let by_name = format!("{}, DB_POSTGRESDB_PORT={port}", environment("db.example.org"));
    sandbox.compose_file(&format!("{published}{}", n8n("n8n", "start", &by_name, HOME)));
    sandbox.compose(&["up", "-d"]);
    let refused = run(&sandbox, "backup-postgres", &[]);
    assert!(refused.stdout.contains("which is no container here"), "{refused}");
    sandbox.write(
        ".env",
        format!("BACKUP_POSTGRES_CONTAINER={}\n", sandbox.container("postgres")),
    );
    run(&sandbox, "backup-postgres", &[]).assert_success();
    fs::remove_file(sandbox.path(".env")).unwrap();

    let linked = n8n("n8n", "start", &environment("store"), HOME);
    sandbox.compose_file(&format!(
        "{POSTGRES}{linked}    external_links: ['{{prefix}}-postgres:store']\n"
    ));
    sandbox.compose(&["up", "-d"]);
    await_postgres(&sandbox);
    run(&sandbox, "backup-postgres", &[]).assert_success();
}
