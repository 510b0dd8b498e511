//! TLS against real servers: every sslmode, what is verified, client certificates, channel binding.

use std::path::Path;
use std::process::Command;

use pgstream::config::{Environment, Side, resolve};
use pgstream::wire::{Connection, Settings};

use crate::harness::{Auth, Cluster, Options};

/// Connects; the error is the primary line.
fn connect(conninfo: &str) -> Result<Connection, String> {
    let config = resolve(conninfo, Side::Source, &Environment::empty().with_user("postgres"))
        .map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    let connect = async { Connection::connect(&config, Side::Source, &Settings::session()).await };
    runtime.block_on(connect).map_err(|error| format!("{error}\n{}", error.detail().unwrap_or_default()))
}

/// `connected`, or the error.
fn outcome(conninfo: &str) -> String {
    connect(conninfo).map_or_else(|error| error, |_| "connected".to_owned())
}

/// Whether the session is encrypted, as the server sees it.
fn is_encrypted(conninfo: &str) -> bool {
    let config =
        resolve(conninfo, Side::Source, &Environment::empty().with_user("postgres")).expect("it resolves");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    runtime.block_on(async {
        let mut connection =
            Connection::connect(&config, Side::Source, &Settings::session()).await.expect("it connects");
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let row = connection.query_one(sql, &[]).await.expect("the view is there");
        row.is_true(0)
    })
}

/// Makes the server use another certificate, written by `script` as server.crt and server.key.
fn use_certificate(cluster: &Cluster, script: &str) {
    let directory = cluster.directory();
    let script = format!("set -e; umask 077; {script}; chown --reference=data server.crt server.key");
    let output =
        Command::new("bash").args(["-c", &script]).current_dir(directory).output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    cluster.stop("fast");
    cluster.start_again();
}

fn conninfo(cluster: &Cluster, host: &str, more: &str) -> String {
    format!("host={host} hostaddr=127.0.0.1 port={} user=postgres dbname=postgres {more}", cluster.port())
}

fn root(directory: &Path) -> String {
    format!("sslrootcert={}", directory.join("ca.crt").display())
}

#[test]
fn every_sslmode_encrypts_and_verifies_what_it_promises() {
    let cluster = Cluster::start(15, &Options { tls: true, ..Options::default() });
    let root = root(cluster.directory());
    for (mode, encrypted) in [
        ("disable", false),
        ("allow", false),
        ("prefer", true),
        ("require", true),
        ("verify-ca", true),
        ("verify-full", true),
    ] {
        let conninfo = conninfo(&cluster, "localhost", &format!("sslmode={mode} {root}"));
        assert_eq!(is_encrypted(&conninfo), encrypted, "{mode}");
    }
    // by address: the certificate is for 127.0.0.1 too
    assert!(is_encrypted(&conninfo(&cluster, "127.0.0.1", &format!("sslmode=verify-full {root}"))));
    // another name is verify-full's business only
    assert!(is_encrypted(&conninfo(&cluster, "db.example.com", &format!("sslmode=verify-ca {root}"))));
    let error = outcome(&conninfo(&cluster, "db.example.com", &format!("sslmode=verify-full {root}")));
    assert!(error.contains("server certificate does not match host name \"db.example.com\""), "{error}");
    assert!(error.contains("The certificate is for \"localhost\", \"127.0.0.1\"."), "{error}");
    // a root that did not sign
    let other = format!("sslrootcert={}", cluster.directory().join("client.crt").display());
    for mode in ["require", "verify-ca", "verify-full"] {
        let error = outcome(&conninfo(&cluster, "localhost", &format!("sslmode={mode} {other}")));
        assert!(error.contains("it is not signed by a trusted root"), "{mode}: {error}");
    }
    let system = "sslrootcert=system";
    assert!(outcome(&conninfo(&cluster, "localhost", system)).contains("could not"));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let versions = format!("ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
        assert!(is_encrypted(&conninfo(&cluster, "localhost", &format!("sslmode=require {versions}"))));
    }
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_required() {
    let cluster = Cluster::start(15, &Options::default());
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(
            outcome(&conninfo(&cluster, "localhost", &format!("sslmode={mode}"))),
            "connected",
            "{mode}"
        );
    }
    let error = outcome(&conninfo(&cluster, "localhost", "sslmode=require"));
    assert!(error.contains("server does not support SSL, but SSL was required"), "{error}");
}

#[test]
fn certificates_that_are_usual_on_servers_are_verified_as_by_libpq() {
    let cluster = Cluster::start(15, &Options { tls: true, ..Options::default() });
    let request = "openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr";
    for (script, host, expected) in [
        // self-signed and its own root, as in the manual; its only name is the common name
        (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=db.example.com -keyout server.key -out server.crt; \
             cp server.crt ca.crt; chmod 644 ca.crt",
            "db.example.com",
            "connected",
        ),
        // no extensions: X.509 version 1 where OpenSSL is older than 3.2
        (
            "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=root -keyout ca.key -out ca.crt; chmod 644 ca.crt; \
             REQUEST -subj /CN=db.example.com; \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out server.crt",
            "db.example.com",
            "connected",
        ),
        // the common name counts only where there is no alternative name of the kind
        (
            "REQUEST -subj /CN=db.example.com; printf 'subjectAltName=DNS:*.example.org\\n' >ext; \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile ext -out server.crt",
            "db.example.com",
            "server certificate does not match host name",
        ),
        ("true", "db.example.org", "connected"),
        // an elliptic curve, and RSASSA-PSS by a root of version 1
        (
            "REQUEST -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost; \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -out server.crt",
            "localhost",
            "connected",
        ),
        (
            "REQUEST -subj /CN=localhost; \
             openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days -1 -out server.crt",
            "localhost",
            "could not verify the server's certificate",
        ),
    ] {
        use_certificate(&cluster, &script.replace("REQUEST", request));
        let conninfo =
            conninfo(&cluster, host, &format!("sslmode=verify-full {}", root(cluster.directory())));
        let outcome = outcome(&conninfo);
        assert!(outcome.contains(expected), "{script}:\n{outcome}");
        // psql is the oracle
        let psql =
            Command::new("psql").args(["-XAtc", "SELECT 1", "-d", &conninfo]).output().expect("psql runs");
        assert_eq!(psql.status.success(), outcome == "connected", "{script}:\n{psql:?}");
    }
}

#[test]
fn a_client_certificate_logs_in_and_its_absence_is_reported() {
    let options = Options {
        tls: true,
        hba: vec!["hostssl all all 127.0.0.1/32 cert".to_owned()],
        ..Options::default()
    };
    let cluster = Cluster::start(15, &options);
    let directory = cluster.directory().display();
    let certificate = format!("sslmode=require sslcert={directory}/client.crt sslkey={directory}/client.key");
    assert_eq!(outcome(&conninfo(&cluster, "localhost", &certificate)), "connected");
    assert_eq!(
        outcome(&conninfo(&cluster, "localhost", &format!("{certificate} sslcertmode=require"))),
        "connected"
    );
    let error = outcome(&conninfo(&cluster, "localhost", "sslmode=require"));
    assert!(error.contains("certificate"), "{error}");
    let mixed = format!("sslmode=require sslcert={directory}/client.crt sslkey={directory}/ca.key");
    let error = outcome(&conninfo(&cluster, "localhost", &mixed));
    assert!(error.contains("does not match private key file"), "{error}");
}

#[test]
fn scram_is_bound_to_the_tls_session() {
    let cluster = Cluster::start(18, &Options { tls: true, auth: Auth::Scram, ..Options::default() });
    let password = "password='p@ss:w/ord %'";
    for more in
        ["channel_binding=require sslmode=require", "channel_binding=disable", "require_auth=scram-sha-256"]
    {
        assert_eq!(
            outcome(&conninfo(&cluster, "localhost", &format!("{password} {more}"))),
            "connected",
            "{more}"
        );
    }
    let direct = "sslnegotiation=direct channel_binding=require sslmode=require";
    assert_eq!(outcome(&conninfo(&cluster, "localhost", &format!("{password} {direct}"))), "connected");
    let error = outcome(&conninfo(
        &cluster,
        "localhost",
        &format!("{password} channel_binding=require sslmode=disable"),
    ));
    assert!(error.contains("channel binding is required"), "{error}");
    // the hash function follows the certificate's signature
    for signature in
        ["-sha384", "-sha512", "-sha256 -sigopt rsa_padding_mode:pss", "-sha384 -sigopt rsa_padding_mode:pss"]
    {
        let script = format!(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost {signature} -keyout server.key -out server.crt"
        );
        use_certificate(&cluster, &script);
        let outcome =
            outcome(&conninfo(&cluster, "localhost", &format!("{password} channel_binding=require")));
        assert_eq!(outcome, "connected", "{signature}");
    }
}
