//! Connection strings, with psql as the oracle: what psql 18 connects to, pgstream connects to, and what psql refuses,
//! pgstream refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pgstream::config::{Environment, Side, resolve};
use pgstream::wire::{Connection, Settings};

use crate::harness::{Auth, Cluster, Options, client};

/// Where a session is, and what it was told.
const PLACE: &str = "SELECT current_user, current_database(), current_setting('application_name'), \
                     current_setting('work_mem'), inet_server_addr()";

const SETUP: &str = r#"
CREATE ROLE jan LOGIN PASSWORD 'secret';
CREATE ROLE "o'brien \x" LOGIN PASSWORD 'it''s';
CREATE ROLE ursula LOGIN PASSWORD 'pä:s\s@/?';
CREATE ROLE USER_OF_OS LOGIN PASSWORD 'os';
CREATE DATABASE jan; CREATE DATABASE app; CREATE DATABASE "my db=1/x"; CREATE DATABASE DATABASE_OF_OS;
"#;

/// A string and what surrounds it: variables, and files in the home directory with their modes.
#[derive(Default, Clone, Copy)]
struct Case<'a> {
    text: &'a str,
    variables: &'a [(&'a str, &'a str)],
    files: &'a [(&'a str, &'a str, u32)],
}

struct Oracle {
    cluster: Cluster,
    user: String,
}

impl Oracle {
    fn start() -> Oracle {
        let cluster = Cluster::start(18, &Options { auth: Auth::Scram, ..Options::default() });
        let output = Command::new("id").arg("-un").output().expect("id runs");
        let user = String::from_utf8(output.stdout).expect("a user's name is text").trim().to_owned();
        // where the cluster's superuser has the name, it keeps its password
        let quoted = format!("\"{user}\"");
        for statement in
            SETUP.lines().flat_map(|line| line.split_inclusive(';')).filter(|line| !line.is_empty())
        {
            let statement = statement.replace("USER_OF_OS", &quoted).replace("DATABASE_OF_OS", &quoted);
            let _ = cluster.postgres().try_execute(&statement);
        }
        Oracle { cluster, user }
    }

    /// What psql and pgstream make of a case: the session's place, or the error.
    fn ask(&self, case: &Case<'_>) -> (Result<String, String>, Result<String, String>) {
        let directory = self.cluster.directory().to_str().expect("the folder's name is text").to_owned();
        let encoded = directory.replace('/', "%2F");
        let port = self.cluster.port().to_string();
        let filled = |text: &str| {
            text.replace("SOCKET", &encoded).replace("DIRECTORY", &directory).replace("PORT", &port)
        };
        let home = tempfile::tempdir().expect("a folder can be made");
        for (name, content, mode) in case.files {
            let path = home.path().join(name);
            fs::write(&path, filled(content)).expect("the folder is writable");
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("the file is ours");
        }
        let text = filled(case.text);
        let variables: Vec<(&str, String)> = case
            .variables
            .iter()
            .map(|(name, value)| {
                (*name, filled(value).replace("HOME", home.path().to_str().unwrap_or_default()))
            })
            .collect();
        (psql(&text, &variables, home.path()), pgstream(&text, &variables, home.path(), &self.user))
    }

    /// Both connect to the same place, which is `expected`.
    #[track_caller]
    fn agree(&self, case: Case<'_>, expected: &str) {
        let (psql, pgstream) = self.ask(&case);
        let (text, variables) = (case.text, case.variables);
        assert_eq!(pgstream, psql, "{text:?} with {variables:?}");
        match psql {
            Ok(place) => assert_eq!(place, expected.replace("OS", &self.user), "{text:?} with {variables:?}"),
            Err(error) => panic!("psql refuses {text:?} with {variables:?}: {error}"),
        }
    }

    /// Both refuse.
    #[track_caller]
    fn refuse(&self, case: Case<'_>) {
        let (psql, pgstream) = self.ask(&case);
        let (text, variables) = (case.text, case.variables);
        assert!(psql.is_err(), "psql connects with {text:?}, {variables:?}: {psql:?}");
        let Err(error) = pgstream else {
            panic!("pgstream connects with {text:?}, {variables:?}: {pgstream:?}")
        };
        assert!(!error.contains("secret"), "{error}");
    }
}

fn psql(text: &str, variables: &[(&str, String)], home: &Path) -> Result<String, String> {
    let mut command = client("psql");
    command.env("HOME", home).env_remove("PGCLIENTENCODING");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.args(["-XAtw", "-c", PLACE, "-d", text]).output().expect("psql runs");
    let place = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        Ok(place)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn pgstream(text: &str, variables: &[(&str, String)], home: &Path, user: &str) -> Result<String, String> {
    let mut environment = Environment::empty().with_user(user).with_home(home).with_socket_directory("/tmp");
    for (name, value) in variables {
        environment = environment.with_variable(name, value.as_str());
    }
    let mut config = resolve(text, Side::Source, &environment).map_err(|error| format!("{error:?}"))?;
    // what psql calls itself where the string says nothing
    config.application_name.get_or_insert_with(|| "psql".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    runtime.block_on(async {
        let mut connection = Connection::connect(&config, Side::Source, &Settings::session())
            .await
            .map_err(|error| format!("{error:?}"))?;
        let row = connection.query_one(PLACE, &[]).await.map_err(|error| format!("{error:?}"))?;
        let fields: Vec<&str> = (0..row.len()).map(|index| row.text(index).unwrap_or_default()).collect();
        Ok(fields.join("|"))
    })
}

#[test]
fn strings_lead_where_psql_goes() {
    let oracle = Oracle::start();
    for (text, expected) in [
        ("host=127.0.0.1 port=PORT user=jan password=secret", "jan|jan|psql|4MB|127.0.0.1"),
        (
            "host = localhost\tport =\nPORT user='jan' password = 'secret' dbname=app",
            "jan|app|psql|4MB|127.0.0.1",
        ),
        ("hostaddr=127.0.0.1 port=PORT user=jan password=secret", "jan|jan|psql|4MB|127.0.0.1"),
        (
            "host=nowhere.invalid hostaddr=127.0.0.1 port=PORT user=jan password=secret",
            "jan|jan|psql|4MB|127.0.0.1",
        ),
        ("host=DIRECTORY port=PORT user=jan password=secret", "jan|jan|psql|4MB|"),
        (
            r"host=DIRECTORY port=PORT user='o\'brien \\x' password=it\'s dbname='my db=1/x'",
            r"o'brien \x|my db=1/x|psql|4MB|",
        ),
        (
            r"host=DIRECTORY port=PORT user=o\'brien\ \\x password='it\'s'dbname=app",
            r"o'brien \x|app|psql|4MB|",
        ),
        ("host=DIRECTORY port=1 port=PORT user=jan password=secret", "jan|jan|psql|4MB|"),
        // the first of several that answers
        ("host=127.0.0.1,DIRECTORY port=1,PORT user=jan password=secret", "jan|jan|psql|4MB|"),
        ("host=DIRECTORY,127.0.0.1 port=PORT user=jan password=secret", "jan|jan|psql|4MB|"),
        (
            "host=a,b hostaddr=127.0.0.1,127.0.0.1 port=1,PORT user=jan password=secret",
            "jan|jan|psql|4MB|127.0.0.1",
        ),
        (
            "host=DIRECTORY port=PORT user=jan password=secret options='-c work_mem=1MB' application_name='a b'",
            "jan|jan|a b|1MB|",
        ),
        ("host=DIRECTORY port=PORT user=jan password=secret application_name=''", "jan|jan||4MB|"),
        (
            "host=DIRECTORY port=PORT user=jan password=secret target_session_attrs=read-write",
            "jan|jan|psql|4MB|",
        ),
        (
            "host=DIRECTORY port=PORT user=jan password=secret target_session_attrs=prefer-standby",
            "jan|jan|psql|4MB|",
        ),
        (
            "host=127.0.0.1 port=PORT user=jan password=secret connect_timeout=' 5 ' keepalives=1 keepalives_idle=7",
            "jan|jan|psql|4MB|127.0.0.1",
        ),
        (
            "host=DIRECTORY port=PORT user=jan password=secret require_auth=scram-sha-256 channel_binding=prefer",
            "jan|jan|psql|4MB|",
        ),
        (
            "host=DIRECTORY port=PORT user=jan password=secret require_auth=!password,!md5",
            "jan|jan|psql|4MB|",
        ),
        ("host=DIRECTORY port=PORT user=jan password=secret max_protocol_version=3.2", "jan|jan|psql|4MB|"),
        ("host=DIRECTORY port=PORT user=jan password=secret min_protocol_version=3.2", "jan|jan|psql|4MB|"),
        ("postgresql://jan:secret@127.0.0.1:PORT", "jan|jan|psql|4MB|127.0.0.1"),
        ("postgres://jan:secret@localhost:PORT/app", "jan|app|psql|4MB|127.0.0.1"),
        ("postgresql://jan:secret@SOCKET:PORT/app", "jan|app|psql|4MB|"),
        ("postgresql://jan:secret@:PORT/app?host=DIRECTORY", "jan|app|psql|4MB|"),
        ("postgresql:///app?host=SOCKET&port=PORT&user=jan&password=secret", "jan|app|psql|4MB|"),
        (
            "postgresql://127.0.0.1:1,localhost:PORT/app?user=jan&password=secret",
            "jan|app|psql|4MB|127.0.0.1",
        ),
        ("postgresql://[::1]:1,127.0.0.1:PORT/app?user=jan&password=secret", "jan|app|psql|4MB|127.0.0.1"),
        (
            "postgresql://ursula:p%C3%A4%3As%5Cs%40%2F%3F@SOCKET:PORT/my%20db%3D1%2Fx",
            "ursula|my db=1/x|psql|4MB|",
        ),
        ("postgresql://ursula:pä:s\\s%40%2F?@SOCKET:PORT/app", "ursula|app|psql|4MB|"),
        ("postgresql://o'brien%20\\x:it's@SOCKET:PORT/my%20db=1/x", r"o'brien \x|my db=1/x|psql|4MB|"),
        (
            "postgresql://jan:secret@SOCKET:PORT/?application_name=a%26b&options=-c%20work_mem%3D2MB",
            "jan|jan|a&b|2MB|",
        ),
        (
            "postgresql://jan:wrong@h:1/x?password=secret&host=DIRECTORY&port=PORT&dbname=app",
            "jan|app|psql|4MB|",
        ),
        ("postgresql://jan:secret@SOCKET:PORT?  dbname = app ", "jan|app|psql|4MB|"),
    ] {
        oracle.agree(Case { text, ..Case::default() }, expected);
    }
}

#[test]
fn the_environment_services_and_password_files_are_used_as_by_psql() {
    let oracle = Oracle::start();
    let here = [("PGHOST", "DIRECTORY"), ("PGPORT", "PORT")];
    let with = |more: &[(&'static str, &'static str)]| [&here[..], more].concat();
    let secret = "*:*:*:jan:secret\n";
    let service =
        "[s]\nhost=DIRECTORY\nport=PORT\nuser=jan\npassword=secret\napplication_name=from service\n";
    let pgpass = |content: &'static str| [(".pgpass", content, 0o600)];
    for (text, variables, files, expected) in [
        ("", with(&[("PGPASSWORD", "os")]), vec![], "OS|OS|psql|4MB|"),
        ("app", with(&[("PGUSER", "jan"), ("PGPASSWORD", "secret")]), vec![], "jan|app|psql|4MB|"),
        ("postgresql://", with(&[("PGUSER", "jan"), ("PGPASSWORD", "secret")]), vec![], "jan|jan|psql|4MB|"),
        (
            "user=jan",
            with(&[
                ("PGUSER", "ursula"),
                ("PGPASSWORD", "secret"),
                ("PGDATABASE", "app"),
                ("PGAPPNAME", "x"),
                ("PGOPTIONS", "-c work_mem=3MB"),
            ]),
            vec![],
            "jan|app|x|3MB|",
        ),
        (
            "",
            with(&[("PGHOSTADDR", "127.0.0.1"), ("PGUSER", "jan"), ("PGPASSWORD", "secret")]),
            vec![],
            "jan|jan|psql|4MB|127.0.0.1",
        ),
        ("user=jan", with(&[]), pgpass(secret).to_vec(), "jan|jan|psql|4MB|"),
        // an empty password hides the variable
        ("user=jan password=''", with(&[("PGPASSWORD", "no")]), pgpass(secret).to_vec(), "jan|jan|psql|4MB|"),
        (
            "user=jan",
            with(&[]),
            pgpass("#x\n\nother:*:*:*:no\nDIRECTORY:PORT:jan:jan:secret:more\n").to_vec(),
            "jan|jan|psql|4MB|",
        ),
        (
            "host=localhost user=jan",
            with(&[]),
            pgpass("127.0.0.1:*:*:*:no\nlocalhost:PORT:*:jan:secret\r\n").to_vec(),
            "jan|jan|psql|4MB|127.0.0.1",
        ),
        (
            "hostaddr=127.0.0.1 host=name user=jan",
            with(&[]),
            pgpass("127.0.0.1:*:*:*:no\nname:*:*:*:secret\n").to_vec(),
            "jan|jan|psql|4MB|127.0.0.1",
        ),
        (
            r"user='o\'brien \\x' dbname='my db=1/x'",
            with(&[]),
            pgpass("*:*:my db=1/x:o'brien \\\\x:it\\'s\n").to_vec(),
            r"o'brien \x|my db=1/x|psql|4MB|",
        ),
        (
            "user=ursula dbname=app",
            with(&[]),
            pgpass("*:*:app:ursula:pä\\:s\\\\s@/?\n").to_vec(),
            "ursula|app|psql|4MB|",
        ),
        ("user=jan passfile=HOME", with(&[("PGPASSFILE", "HOME/other")]), pgpass(secret).to_vec(), ""),
        (
            "user=jan",
            with(&[("PGPASSFILE", "HOME/other")]),
            vec![("other", secret, 0o400)],
            "jan|jan|psql|4MB|",
        ),
        ("service=s", vec![], vec![(".pg_service.conf", service, 0o644)], "jan|jan|from service|4MB|"),
        (
            "service=s dbname=app application_name=given",
            vec![],
            vec![(".pg_service.conf", service, 0o644)],
            "jan|app|given|4MB|",
        ),
        (
            "postgresql:///app?service=s",
            vec![("PGUSER", "ursula")],
            vec![(".pg_service.conf", service, 0o644)],
            "jan|app|from service|4MB|",
        ),
        (
            "",
            vec![("PGSERVICE", "s"), ("PGSERVICEFILE", "HOME/services"), ("PGAPPNAME", "x")],
            vec![("services", service, 0o644)],
            "jan|jan|from service|4MB|",
        ),
        (
            "",
            vec![("PGSERVICE", "s"), ("PGSYSCONFDIR", "HOME")],
            vec![(".pg_service.conf", "[t]\nhost=x\n", 0o644), ("pg_service.conf", service, 0o644)],
            "jan|jan|from service|4MB|",
        ),
    ] {
        let case = Case { text, variables: &variables, files: &files };
        if expected.is_empty() {
            oracle.refuse(case);
        } else {
            oracle.agree(case, expected);
        }
    }
    // a password file that others may read, or that doesn't match
    for files in [
        [(".pgpass", secret, 0o640)],
        [(".pgpass", secret, 0o604)],
        [(".pgpass", "*:*:*:ursula:secret\n", 0o600)],
        [(".pgpass", "*:*:*:jan:no\n*:*:*:jan:secret\n", 0o600)],
        [(".pgpass", " *:*:*:jan:secret\n", 0o600)],
        [("pgpass", secret, 0o600)],
    ] {
        oracle.refuse(Case { text: "user=jan", variables: &here, files: &files });
    }
    for content in [
        "[t]\nhost=DIRECTORY\n",
        "[s]\nhost DIRECTORY\n",
        "[s]\nhots=x\n",
        "[s]\nservice=t\n",
        "[s]\nhost = DIRECTORY\n",
    ] {
        oracle.refuse(Case {
            text: "service=s",
            files: &[(".pg_service.conf", content, 0o644)],
            ..Case::default()
        });
    }
    oracle.refuse(Case { text: "service=s", ..Case::default() });
    oracle.refuse(Case {
        variables: &[("PGSERVICE", "s"), ("PGSERVICEFILE", "HOME/missing")],
        ..Case::default()
    });
}

#[test]
fn what_psql_refuses_is_refused() {
    let oracle = Oracle::start();
    // each would connect but for the mistake
    for mistake in [
        "bogus=1",
        "HOST=x",
        "mydb",
        "password='secret",
        "password=secret word",
        "port=0",
        "port=65536",
        "port=x",
        "port='PORT,PORT'",
        "hostaddr=localhost",
        "hostaddr=127.0.0.1,127.0.0.1",
        "sslmode=bogus",
        "sslmode=''",
        "sslnegotiation=bogus",
        "sslnegotiation=direct",
        "sslrootcert=system",
        "sslcertmode=bogus",
        "ssl_min_protocol_version=SSLv3",
        "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "channel_binding=bogus",
        "channel_binding=require",
        "require_auth=bogus",
        "require_auth=md5",
        "require_auth=none",
        "require_auth=md5,!none",
        "require_auth=!scram-sha-256",
        "require_auth=md5,md5",
        "target_session_attrs=bogus",
        "target_session_attrs=standby",
        "target_session_attrs=read-only",
        "load_balance_hosts=bogus",
        "gssencmode=bogus",
        "gssencmode=require",
        "connect_timeout=x",
        "connect_timeout=''",
        "keepalives=x",
        "keepalives_idle=x",
        "tcp_user_timeout=x",
        "min_protocol_version=3.1",
        "min_protocol_version=3.2 max_protocol_version=3.0",
        "service=nowhere",
        "user=nobody_of_this_name",
        "dbname=nothing_of_this_name",
        "options='-c bogus=1=2'",
        "options='-c work_mem=bogus'",
    ] {
        let text = format!("host=127.0.0.1 port=PORT user=jan password=secret {mistake}");
        oracle.refuse(Case { text: &text, ..Case::default() });
    }
    for text in [
        "postgresql://jan:secret@[127.0.0.1:PORT",
        "postgresql://jan:secret@[]:PORT",
        "postgresql://jan:secret@[::1]x:PORT",
        "postgresql://jan:secret%@127.0.0.1:PORT",
        "postgresql://jan:secret%0g@127.0.0.1:PORT",
        "postgresql://jan:secret%00@127.0.0.1:PORT",
        "postgresql://jan:sec ret@127.0.0.1:PORT",
        "postgresql://jan:secret@127.0.0.1:PORT/?bogus=1",
        "postgresql://jan:secret@127.0.0.1:PORT/?sslmode",
        "postgresql://jan:secret@127.0.0.1:PORT/?application_name=a=b",
        "postgresql://jan:secret@127.0.0.1:PORT/?ssl=false",
        "postgresql://jan:secret@127.0.0.1:PORT/?ssl=true",
        "postgresql://jan:secret@127.0.0.1:PORTx/",
        "postgresql://jan:se/cret@127.0.0.1:PORT/",
        "postgresql://jan:secret@x@127.0.0.1:PORT/",
        "POSTGRESQL://jan:secret@127.0.0.1:PORT/",
        "http://jan:secret@127.0.0.1:PORT/",
    ] {
        oracle.refuse(Case { text, ..Case::default() });
    }
}
