//! Judges the two servers and databases: can the one take what the other holds.

use super::{Facts, Finding, Severity};
use crate::catalog::facts::Server;
use crate::migrate::database::without_locale;
use crate::sql::ident;

use Severity::{Blocker, Info, Warning};

/// Host names can lie, the system identifier doesn't.
pub(super) fn same_database(facts: &Facts) -> Vec<Finding> {
    match (&facts.source.system_identifier, &facts.target.system_identifier) {
        (Some(source), Some(target))
            if source == target && facts.source.database == facts.target.database =>
        {
            vec![
                Finding::new(
                    Blocker,
                    "target",
                    format!(
                        "source and target are the same database, \"{}\" of cluster {source}",
                        facts.source.database
                    ),
                )
                .with_hint("Name another database in --source or --target."),
            ]
        }
        (Some(_), Some(_)) => Vec::new(),
        _ => vec![Finding::new(
            Info,
            "target",
            "could not compare the system identifiers: the role may not execute pg_control_system()",
        )],
    }
}

pub(super) fn versions(facts: &Facts) -> Vec<Finding> {
    let (source, target) = (facts.source.version / 10_000, facts.target.version / 10_000);
    let mut findings = Vec::new();
    if source < 10 {
        findings.push(Finding::new(
            Blocker,
            "source",
            format!("PostgreSQL {} is not supported as a source", version(facts.source.version)),
        ));
    }
    if target < source {
        findings.push(
            Finding::new(
                if facts.limits.allow_older_target { Warning } else { Blocker },
                "target",
                format!("PostgreSQL {target} is older than the source's {source}"),
            )
            .with_hint(format!(
                "Choose a target of PostgreSQL {source} or newer; --allow-older-target goes on with what {target} knows."
            )),
        );
    }
    findings
}

/// A database that isn't there, where it may be created.
pub(super) fn created(facts: &Facts) -> Vec<Finding> {
    let Some(created) = &facts.created else { return Vec::new() };
    let object = format!("target database \"{}\"", facts.target.database);
    if !created.allowed {
        return vec![
            Finding::new(
                Blocker,
                object,
                format!("does not exist, and role \"{}\" may not create it", facts.target.user),
            )
            .with_hint(format!(
                "As a role with CREATEDB: {}; or let this one: ALTER ROLE {} CREATEDB;",
                created.statement,
                ident(&facts.target.user)
            )),
        ];
    }
    let unknown = created.unknown_locales.iter().map(|locale| {
        Finding::new(
            Blocker,
            object.clone(),
            format!("needs the locale \"{}\", which the target's host does not have", locale.name),
        )
        .with_hint(without_locale(
            &ident(&facts.target.database),
            &facts.database.properties,
            &created.unknown_locales,
        ))
    });
    let made = Finding::new(Info, object.clone(), "does not exist and will be created like the source's");
    std::iter::once(made).chain(unknown).collect()
}

fn version(number: u32) -> String {
    if number >= 100_000 {
        format!("{}.{}", number / 10_000, number % 10_000)
    } else {
        format!("{}.{}", number / 10_000, number / 100 % 100)
    }
}

pub(super) fn target_can_be_written(facts: &Facts) -> Vec<Finding> {
    let target = &facts.target;
    let (database, user) = (ident(&target.database), ident(&target.user));
    let mut findings = Vec::new();
    if target.in_recovery {
        findings.push(
            Finding::new(Blocker, "target", "the server is a standby, which cannot be written to")
                .with_hint("Name the primary in --target, or add target_session_attrs=read-write."),
        );
    } else if target.read_only {
        findings.push(
            Finding::new(
                Blocker,
                "target",
                "transactions are read-only there (default_transaction_read_only)",
            )
            .with_hint(format!(
                "Switch it off: ALTER DATABASE {database} SET default_transaction_read_only = off;"
            )),
        );
    }
    if !target.may_create {
        findings.push(
            Finding::new(
                Blocker,
                "target",
                format!("role \"{}\" has no CREATE right on database \"{}\"", target.user, target.database),
            )
            .with_hint(format!("Grant it: GRANT CREATE ON DATABASE {database} TO {user};")),
        );
    }
    findings
}

pub(super) fn sessions(facts: &Facts) -> Vec<Finding> {
    let room = |side: &str, server: &Server, sessions: u64, fewer: &str| {
        (server.free_connections < sessions as i64).then(|| {
            Finding::new(
                Warning,
                side,
                format!(
                    "there is room for {} more sessions, and the copy opens {sessions}",
                    server.free_connections.max(0),
                ),
            )
            .with_hint(format!(
                "Run with fewer {fewer}, or raise max_connections or the role's connection limit."
            ))
        })
    };
    let [from_source, from_target] = facts.sessions;
    let source = room("source", &facts.source, from_source, "--jobs");
    let target = room("target", &facts.target, from_target, "--jobs and --index-jobs");
    source.into_iter().chain(target).collect()
}

pub(super) fn encoding(facts: &Facts) -> Vec<Finding> {
    let (source, target) = (facts.source.encoding.as_str(), facts.target.encoding.as_str());
    let create = format!("CREATE DATABASE … TEMPLATE template0 ENCODING '{source}'");
    match (source, target) {
        ("SQL_ASCII", "SQL_ASCII") => vec![Finding::new(
            Info,
            "encoding",
            "both databases are SQL_ASCII: bytes are copied as they are, whatever they mean",
        )],
        ("SQL_ASCII", _) => vec![
            Finding::new(
                Warning,
                "encoding",
                format!("the source is SQL_ASCII, so its text may hold bytes that are not valid in the target's {target}"),
            )
            .with_hint(format!("A row with such bytes fails the copy, or stops the stream; to take them as they are: {create}.")),
        ],
        (_, "SQL_ASCII") => vec![
            Finding::new(
                Warning,
                "encoding",
                format!("the target is SQL_ASCII, which forgets that the source's text is {source}"),
            )
            .with_hint(format!("To keep it: {create}.")),
        ],
        (same, other) if same == other => Vec::new(),
        (_, "UTF8") => vec![Finding::new(
            Info,
            "encoding",
            format!("text is converted from {source} to UTF8, and may need more bytes there"),
        )],
        _ => vec![
            Finding::new(
                Blocker,
                "encoding",
                format!("the target's encoding {target} can't hold all that the source's {source} can"),
            )
            .with_hint(format!("Choose a target database in UTF8 or the same encoding: {create}.")),
        ],
    }
}

pub(super) fn locale(facts: &Facts) -> Vec<Finding> {
    let provider = |server: &Server| match server.locale_provider.as_str() {
        "i" => "icu",
        "b" => "builtin",
        _ => "libc",
    };
    let (source, target) = (&facts.source, &facts.target);
    let mut findings = Vec::new();
    let mut differs = |what: &str, here: &str, there: &str| {
        if here != there {
            findings.push(
                Finding::new(
                    Warning,
                    "locale",
                    format!("{what} is \"{here}\" on the source and \"{there}\" on the target: text may sort and compare differently"),
                )
                .with_hint("If that matters, make the target database with the source's locale: CREATE DATABASE … TEMPLATE template0 ….")
            );
        }
    };
    differs("the locale provider", provider(source), provider(target));
    if provider(source) == provider(target) && provider(source) != "libc" {
        let none = String::new();
        differs(
            "the locale",
            source.locale.as_ref().unwrap_or(&none),
            target.locale.as_ref().unwrap_or(&none),
        );
    } else {
        differs("LC_COLLATE", &source.collate, &target.collate);
    }
    differs("LC_CTYPE", &source.ctype, &target.ctype);
    findings
}
