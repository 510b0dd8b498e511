//! The whole of a connection string's resolution.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;

use super::*;

fn environment() -> Environment {
    Environment::empty().with_user("jan")
}

fn resolved(text: &str, environment: &Environment) -> Config {
    resolve(text, Side::Source, environment).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn refused(text: &str, environment: &Environment) -> String {
    match resolve(text, Side::Source, environment) {
        Ok(config) => panic!("{text:?} gives {config:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_string_goes_before_the_service_file_before_the_environment_before_the_default() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".pg_service.conf"), "[s]\nhost=service\nport=2\n").unwrap();
    let none = environment().with_home(home.path());
    let variables = none.clone().with_variable("PGHOST", "variable").with_variable("PGPORT", "3");
    let both = variables.clone().with_variable("PGSERVICE", "s");
    for (text, environment, expected) in [
        ("host=string port=1", &both, "string:1"),
        ("host=string", &both, "string:2"),
        ("postgresql://string", &both, "string:2"),
        ("", &both, "service:2"),
        ("host=string service=s", &variables, "string:2"),
        ("", &variables, "variable:3"),
        ("port=1", &variables, "variable:1"),
        ("postgresql://:1", &variables, "variable:1"),
        // an empty value is a value, so it hides the variable and gives the default
        ("port='' host=string", &variables, "string"),
        ("", &none, "%2Ftmp"),
    ] {
        let expected = format!("postgresql://jan@{expected}/jan");
        assert_eq!(resolved(text, environment).redacted(), expected, "{text:?}");
    }
}

#[test]
fn a_plain_word_is_a_database() {
    assert_eq!(resolved("app", &environment()).redacted(), "postgresql://jan@%2Ftmp/app");
    assert_eq!(resolved("my app", &environment()).dbname, "my app");
}

#[test]
fn every_variable_of_libpq_is_read() {
    let environment = environment()
        .with_variable("PGHOST", "h")
        .with_variable("PGHOSTADDR", "10.0.0.1")
        .with_variable("PGPORT", "7")
        .with_variable("PGDATABASE", "d")
        .with_variable("PGUSER", "u")
        .with_variable("PGPASSWORD", "p")
        .with_variable("PGOPTIONS", "-c geqo=off")
        .with_variable("PGAPPNAME", "app")
        .with_variable("PGSSLMODE", "require")
        .with_variable("PGSSLNEGOTIATION", "direct")
        .with_variable("PGSSLSNI", "0")
        .with_variable("PGSSLMINPROTOCOLVERSION", "TLSv1.3")
        .with_variable("PGSSLMAXPROTOCOLVERSION", "TLSv1.3")
        .with_variable("PGREQUIREAUTH", "scram-sha-256")
        .with_variable("PGCHANNELBINDING", "require")
        .with_variable("PGCONNECT_TIMEOUT", "9")
        .with_variable("PGTARGETSESSIONATTRS", "primary")
        .with_variable("PGLOADBALANCEHOSTS", "random")
        .with_variable("PGCLIENTENCODING", "LATIN1");
    let config = resolved("", &environment);
    assert_eq!(config.hosts[0].to_string(), "host \"h\" (10.0.0.1), port 7");
    assert_eq!(config.hosts[0].password, Some(Secret::new("p")));
    assert_eq!((config.user.as_str(), config.dbname.as_str()), ("u", "d"));
    assert_eq!(config.options.as_deref(), Some("-c geqo=off"));
    assert_eq!(config.application_name.as_deref(), Some("app"));
    assert_eq!(config.tls.mode, SslMode::Require);
    assert_eq!(config.tls.negotiation, SslNegotiation::Direct);
    assert!(!config.tls.sni);
    assert_eq!(config.tls.min_protocol_version, TlsVersion::V1_3);
    assert_eq!(config.tls.max_protocol_version, Some(TlsVersion::V1_3));
    assert_eq!(config.require_auth, Some("scram-sha-256".parse().unwrap()));
    assert_eq!(config.channel_binding, ChannelBinding::Require);
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(9)));
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Primary);
    assert!(config.load_balance_hosts);
}

#[test]
fn defaults_are_those_of_libpq() {
    let config = resolved("", &environment());
    assert_eq!(config.redacted(), "postgresql://jan@%2Ftmp/jan");
    assert_eq!(config.tls.mode, SslMode::Prefer);
    assert_eq!(config.tls.negotiation, SslNegotiation::Postgres);
    assert!(config.tls.sni && !config.load_balance_hosts);
    assert_eq!(config.channel_binding, ChannelBinding::Prefer);
    assert_eq!(config.target_session_attrs, TargetSessionAttrs::Any);
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(30)));
    assert_eq!(config.keepalives, Keepalives { enabled: true, idle: None, interval: None, count: None });
    assert_eq!((config.options, config.application_name, config.require_auth), (None, None, None));
    let required = environment().with_variable("PGREQUIRESSL", "1");
    assert_eq!(resolved("", &required).tls.mode, SslMode::Require);
    assert_eq!(resolved("sslmode=allow", &required).tls.mode, SslMode::Allow);
    assert_eq!(refused("", &Environment::empty()), "source: could not find the name of the current user");
}

#[test]
fn times_and_names_are_read() {
    let config = resolved(
        "keepalives=0 keepalives_idle=5 keepalives_interval=6 keepalives_count=7 tcp_user_timeout=1500 \
         connect_timeout=0 fallback_application_name=f",
        &environment(),
    );
    let (idle, interval) = (Some(Duration::from_secs(5)), Some(Duration::from_secs(6)));
    assert_eq!(config.keepalives, Keepalives { enabled: false, idle, interval, count: Some(7) });
    assert_eq!(config.tcp_user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(config.connect_timeout, None);
    assert_eq!(config.application_name.as_deref(), Some("f"));
    let config =
        resolved("fallback_application_name=f application_name='' connect_timeout=1", &environment());
    assert_eq!(config.application_name.as_deref(), Some(""));
    assert_eq!(config.connect_timeout, Some(Duration::from_secs(1)));
}

#[test]
fn invalid_values_are_quoted_with_their_key() {
    for (text, message) in [
        ("sslmode=bogus", r#"invalid sslmode value: "bogus""#),
        ("sslmode=''", r#"invalid sslmode value: """#),
        ("sslmode=Require", r#"invalid sslmode value: "Require""#),
        ("sslnegotiation=x", r#"invalid sslnegotiation value: "x""#),
        ("sslcertmode=x", r#"invalid sslcertmode value: "x""#),
        ("channel_binding=x", r#"invalid channel_binding value: "x""#),
        ("target_session_attrs=x", r#"invalid target_session_attrs value: "x""#),
        ("load_balance_hosts=x", r#"invalid load_balance_hosts value: "x""#),
        ("gssencmode=x", r#"invalid gssencmode value: "x""#),
        ("gssencmode=require", r#"gssencmode value "require" is not supported"#),
        ("replication=database", r#"connection option "replication" is not supported"#),
        ("require_auth=x", r#"invalid require_auth value: "x""#),
        ("connect_timeout=x", r#"invalid integer value "x" for connection option "connect_timeout""#),
        ("connect_timeout=''", r#"invalid integer value "" for connection option "connect_timeout""#),
        ("keepalives=x", r#"invalid integer value "x" for connection option "keepalives""#),
        (
            "min_protocol_version=latest max_protocol_version=3.0",
            "min_protocol_version is greater than max_protocol_version",
        ),
        ("max_protocol_version=3.1", r#"invalid max_protocol_version value: "3.1""#),
        (
            "hostaddr=::1 sslmode=verify-full sslrootcert=system",
            "host name must be specified for a verified SSL connection",
        ),
        ("requirepeer='no such user'", r#"invalid requirepeer value: "no such user""#),
        ("postgresql://%ff@h", "invalid user value: not valid UTF-8"),
        ("a\0b", "connection string holds a zero byte"),
    ] {
        assert_eq!(refused(text, &environment()), format!("source: {message}"), "{text:?}");
    }
    let error = resolve("sslmode=bogus", Side::Target, &environment()).unwrap_err();
    assert_eq!(error.to_string(), r#"target: invalid sslmode value: "bogus""#);
    assert!(error.hint().unwrap().contains("\"verify-ca\", \"verify-full\""));
}

#[test]
fn what_has_no_meaning_here_is_accepted() {
    resolved(
        "gssencmode=prefer krbsrvname=x gsslib=gssapi gssdelegation=1 sslcompression=1 client_encoding=auto \
         oauth_issuer=x sslpassword=x max_protocol_version=latest",
        &environment(),
    );
}

#[test]
fn another_scheme_is_refused_without_repeating_the_uri() {
    for text in
        ["postgre://u:secret@h/d", "jdbc:postgresql://h/d?password=secret", "mysql://u:secret@h/d?x=y"]
    {
        let error = refused(text, &environment());
        assert!(error.starts_with("source: invalid scheme of connection URI: \""), "{error}");
        assert!(!error.contains("secret"));
    }
    // libpq takes prefixes as they are written
    assert!(refused("POSTGRESQL://u:secret@h", &environment()).contains("invalid scheme"));
}

#[test]
fn the_password_file_knows_hosts_by_name_and_is_asked_again_for_another_database() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    let lines =
        "a:5432:d1:jan:one\na:5432:d2:jan:two\nlocalhost:*:d1:jan:socket\n10.0.0.1:*:d1:jan:address\n";
    fs::write(&file, lines).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let environment = environment().with_home(home.path());
    let passwords = |config: &Config| -> Vec<Option<String>> {
        let text = |secret: &Secret| String::from_utf8(secret.expose().to_vec()).unwrap();
        config.hosts.iter().map(|host| host.password.as_ref().map(text)).collect()
    };
    let some = |text: &str| Some(text.to_owned());

    let config = resolved("host=a,b,/tmp,/other dbname=d1", &environment);
    assert_eq!(passwords(&config), [some("one"), None, some("socket"), None]);
    assert_eq!(passwords(&config.with_dbname("d2")), [some("two"), None, None, None]);
    assert_eq!(config.passfile(), Some(file.as_path()));
    let by_address = resolved("hostaddr=10.0.0.1 dbname=d1", &environment);
    assert_eq!(passwords(&by_address), [some("address")]);

    let given = resolved("postgresql://jan:given@a/d1", &environment);
    assert_eq!(passwords(&given.with_dbname("d2")), [some("given")]);
    assert_eq!(given.passfile(), None);
    let replaced = config.with_password(Secret::new("new"));
    assert_eq!(passwords(&replaced.with_dbname("d2")), vec![some("new"); 4]);

    // an empty password in the string hides PGPASSWORD, and the file is asked
    let variable = environment.with_variable("PGPASSWORD", "variable");
    assert_eq!(passwords(&resolved("host=a dbname=d1", &variable)), [some("variable")]);
    assert_eq!(passwords(&resolved("host=a dbname=d1 password=''", &variable)), [some("one")]);

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let ignored = resolved("host=a dbname=d1 password=''", &variable);
    assert_eq!((passwords(&ignored), ignored.warnings.len()), (vec![None], 1));
}

#[test]
fn a_config_prints_where_it_goes_and_no_password() {
    let text = "postgresql://us%20er:hunter2@[::1]:1,h%2D2,%2Ftmp/d%2Fb?application_name=x";
    let config = resolved(text, &environment());
    assert_eq!(config.redacted(), "postgresql://us%20er@[::1]:1,h-2,%2Ftmp/d%2Fb");
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
    assert!(!format!("{:?}", parse(text).unwrap()).contains("hunter2"));
}

/// `key = value` pairs that mean these parameters.
fn as_pairs(parameters: &Parameters) -> String {
    let value = |keyword: Keyword| {
        let text = String::from_utf8(parameters.bytes(keyword).unwrap_or_default().to_vec()).unwrap();
        format!("{} = '{}'", keyword.name(), text.replace('\\', r"\\").replace('\'', r"\'"))
    };
    parameters.keywords().map(value).collect::<Vec<_>>().join(" ")
}

/// A URI that means these parameters.
fn as_uri(parameters: &Parameters) -> String {
    let value = |keyword: Keyword| {
        let text = String::from_utf8(parameters.bytes(keyword).unwrap_or_default().to_vec()).unwrap();
        format!("{}={}", keyword.name(), encode(&text))
    };
    format!("postgresql://?{}", parameters.keywords().map(value).collect::<Vec<_>>().join("&"))
}

fn any_parameters() -> impl Strategy<Value = Parameters> {
    let keyword = proptest::sample::select(Keyword::ALL);
    proptest::collection::vec((keyword, "[^\0]*"), 0..6).prop_map(|pairs| {
        let mut parameters = Parameters::new();
        for (keyword, value) in pairs {
            parameters.set(keyword, value);
        }
        parameters
    })
}

proptest! {
    #[test]
    fn no_string_makes_the_parsers_panic(text in any::<String>()) {
        let _ = parse(&text);
        let _ = parse(&format!("postgresql://{text}"));
        let _ = parse(&format!("host={text}"));
    }

    #[test]
    fn strings_made_of_the_syntax_do_not_make_resolution_panic(
        text in r"(postgres(ql)?://)?([a-z0-9:@/?&,=%'\\ \[\]]|user|host|port|password|sslmode|dbname){0,40}"
    ) {
        let _ = resolve(&text, Side::Source, &environment());
    }

    #[test]
    fn rendered_parameters_parse_to_themselves(parameters in any_parameters()) {
        prop_assert_eq!(parse(&as_pairs(&parameters)).unwrap(), parameters.clone());
        prop_assert_eq!(parse(&as_uri(&parameters)).unwrap(), parameters);
    }

    #[test]
    fn a_redacted_uri_leads_to_the_same_place(
        hosts in proptest::collection::vec(("[a-z0-9.-]{1,20}|/[a-zA-Z /@:]{1,20}|::1", 1u16..), 1..4),
        user in "[^\0]{1,20}",
        dbname in "[^\0]{1,20}",
    ) {
        let names: Vec<&str> = hosts.iter().map(|(name, _)| name.as_str()).collect();
        let ports: Vec<String> = hosts.iter().map(|(_, port)| port.to_string()).collect();
        let mut parameters = Parameters::new();
        parameters.set(Keyword::Host, names.join(","));
        parameters.set(Keyword::Port, ports.join(","));
        parameters.set(Keyword::User, user);
        parameters.set(Keyword::Dbname, dbname);
        parameters.set(Keyword::Password, "hunter2");
        let config = resolved(&as_pairs(&parameters), &environment());
        let again = resolved(&config.redacted(), &environment());
        let places = |config: &Config| config.hosts.iter().map(Host::to_string).collect::<Vec<_>>();
        prop_assert_eq!(places(&config), places(&again));
        prop_assert_eq!((&config.user, &config.dbname), (&again.user, &again.dbname));
        prop_assert_eq!(&again.hosts[0].password, &None);
    }
}
