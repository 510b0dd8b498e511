//! Judges what surrounds the databases: their size, settings, clocks, versions of collations, and the way there.

use super::{Facts, Finding, Severity};
use crate::catalog::surroundings::Surroundings;
use crate::config::Side;
use crate::sql::ident;

use Severity::{Blocker, Info, Warning};

/// Clocks that are further apart than this confuse whoever compares times of both servers.
const CLOCKS_APART: f64 = 2.0;
/// From this size on, settings of the target decide how long indexes take.
const LARGE: i64 = 1 << 30;

/// Settings that change what queries mean and that a session of pgstream doesn't set itself.
const MEANING: [&str; 6] = [
    "array_nulls",
    "backslash_quote",
    "default_text_search_config",
    "lc_numeric",
    "lc_time",
    "transform_null_equals",
];

fn sides(facts: &Facts) -> [(Side, &Surroundings); 2] {
    [(Side::Source, &facts.source_surroundings), (Side::Target, &facts.target_surroundings)]
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / (1_u64 << 30) as f64)
}

/// Bytes that are free for the target's data directory, where this host can see it: reached through a socket, so it is the same host.
pub(super) fn free_room(target: &Surroundings) -> Option<u64> {
    let directory = target.settings.get("data_directory").filter(|_| target.through_socket)?;
    let system = rustix::fs::statvfs(directory.as_str()).ok()?;
    system.f_bavail.checked_mul(system.f_frsize)
}

pub(super) fn size(facts: &Facts) -> Vec<Finding> {
    let bytes = u64::try_from(facts.source_surroundings.bytes).unwrap_or_default();
    let mut findings = Vec::new();
    let object = format!("source database \"{}\"", facts.source.database);
    if let Some(limit) = facts.limits.max_total_size.filter(|limit| bytes > *limit) {
        findings.push(
            Finding::new(
                Blocker,
                object,
                format!("holds {bytes} bytes, more than the {limit} that are allowed"),
            )
            .with_hint("Allow more with --max-total-size, or remove what is not needed on the source."),
        );
    }
    if let Some(free) = facts.free_room.filter(|free| *free < bytes) {
        findings.push(
            Finding::new(
                Warning,
                "target",
                format!(
                    "has {} free on the file system of its data directory, and the source database holds {}",
                    gigabytes(free),
                    gigabytes(bytes)
                ),
            )
            .with_hint(
                "Make room on the target's host before the copy; its log and its indexes need room as well.",
            ),
        );
    }
    findings
}

pub(super) fn large_objects(facts: &Facts) -> Vec<Finding> {
    let count = facts.source_surroundings.large_objects;
    if count == 0 {
        return Vec::new();
    }
    let what = format!(
        "{count} are copied with the rows; no stream carries their changes, so a cutover compares and copies them again"
    );
    vec![Finding::new(Info, "large objects", what)]
}

pub(super) fn settings(facts: &Facts) -> Vec<Finding> {
    let (source, target) = (&facts.source_surroundings.settings, &facts.target_surroundings.settings);
    let mut findings = Vec::new();
    for name in MEANING {
        if let (Some(here), Some(there)) = (source.get(name), target.get(name))
            && here != there
        {
            findings.push(
                Finding::new(Info, format!("setting {name}"), format!("is \"{here}\" on the source and \"{there}\" on the target"))
                    .with_hint(format!(
                        "If the application relies on it: ALTER DATABASE {} SET {name} = …; or change the target's configuration.",
                        ident(&facts.target.database)
                    )),
            );
        }
    }
    let checksums = [source, target].map(|settings| settings.get("data_checksums").map(String::as_str));
    if checksums == [Some("on"), Some("off")] {
        findings.push(
            Finding::new(Info, "setting data_checksums", "is on for the source's cluster and off for the target's").with_hint(
                "If they are wanted there, too: stop the target and run pg_checksums --enable, or make its cluster anew.",
            ),
        );
    }
    let libraries = |settings: &std::collections::BTreeMap<String, String>| -> Vec<String> {
        let list = settings.get("shared_preload_libraries").map(String::as_str).unwrap_or_default();
        list.split(',')
            .map(|name| name.trim().trim_matches('"').to_owned())
            .filter(|n| !n.is_empty())
            .collect()
    };
    // A role that may not see the target's list can't judge it.
    if target.contains_key("shared_preload_libraries") {
        let there = libraries(target);
        for library in libraries(source).into_iter().filter(|library| !there.contains(library)) {
            let used = facts.database.extensions.iter().any(|extension| extension.name == library);
            findings.push(
                Finding::new(
                    if used { Warning } else { Info },
                    format!("library \"{library}\""),
                    "is preloaded on the source and not on the target",
                )
                .with_hint(format!(
                    "If it is needed: add {library} to the target's shared_preload_libraries and restart it."
                )),
            );
        }
    }
    findings.extend(slow_settings(facts));
    findings
}

/// Settings of the target that make a large copy slow.
fn slow_settings(facts: &Facts) -> Vec<Finding> {
    if facts.source_surroundings.bytes < LARGE {
        return Vec::new();
    }
    let value = |name: &str| -> Option<u64> { facts.target_surroundings.settings.get(name)?.parse().ok() };
    let slow = |name: &str, why: &str, statement: &str| {
        Finding::new(Info, format!("target setting {name}"), why).with_hint(statement)
    };
    let mut findings = Vec::new();
    if value("maintenance_work_mem").is_some_and(|kilobytes| kilobytes <= 64 << 10) {
        findings.push(slow(
            "maintenance_work_mem",
            "is small, so large indexes are built in many passes",
            "For the time of the migration: ALTER SYSTEM SET maintenance_work_mem = '1GB'; SELECT pg_reload_conf();",
        ));
    }
    if value("max_wal_size").is_some_and(|megabytes| megabytes <= 1 << 10) {
        findings.push(slow(
            "max_wal_size",
            "is small, so the copy is slowed down by frequent checkpoints",
            "For the time of the migration: ALTER SYSTEM SET max_wal_size = '16GB'; SELECT pg_reload_conf();",
        ));
    }
    findings
}

pub(super) fn clocks(facts: &Facts) -> Vec<Finding> {
    let (source, target) = (&facts.source_surroundings, &facts.target_surroundings);
    let apart = target.clock - source.clock;
    if apart.abs() <= CLOCKS_APART + source.clock_uncertainty + target.clock_uncertainty {
        return Vec::new();
    }
    let direction = if apart > 0.0 { "ahead of" } else { "behind" };
    let what = format!(
        "the target's clock is about {:.0} s {direction} the source's: times that now() writes jump at the cutover",
        apart.abs()
    );
    vec![Finding::new(Warning, "clocks", what).with_hint("Set both by NTP.")]
}

pub(super) fn collation_versions(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let source = &facts.source_surroundings;
    if let Some((stored, actual)) = &source.stale_database {
        let name = ident(&facts.source.database);
        findings.push(
            Finding::new(
                Warning,
                format!("source database {name}"),
                format!("was made with version {stored} of its collation, and the host now has {actual}: its indexes on text may be damaged"),
            )
            .with_hint(format!(
                "On the source: REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION; the target's indexes are built anew in any case."
            )),
        );
    }
    findings.extend(source.stale_collations.iter().map(|name| {
        Finding::new(
            Warning,
            format!("source collation {name}"),
            "was made with another version of the host's collations: indexes that use it may be damaged",
        )
        .with_hint(format!(
            "On the source: reindex what uses it, then ALTER COLLATION {name} REFRESH VERSION;"
        ))
    }));
    if let (Some(here), Some(there)) =
        (&source.collation_version, &facts.target_surroundings.collation_version)
        && here != there
        && facts.source.locale_provider == facts.target.locale_provider
    {
        findings.push(Finding::new(
            Info,
            "collation",
            format!("has version {here} on the source and {there} on the target: text may sort differently, and bounds of partitions by text may mean other rows"),
        ));
    }
    findings
}

/// Who could read what goes over the network.
pub(super) fn way(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for ((side, around), verified) in sides(facts).into_iter().zip(facts.verified) {
        let object = format!("way to the {side}");
        match &around.tls {
            _ if around.local => {}
            None => findings.push(
                Finding::new(Warning, object, "is not encrypted: whoever sees the network sees every row")
                    .with_hint(format!(
                        "Add sslmode=verify-full&sslrootcert=system to --{side}, and have the server speak TLS."
                    )),
            ),
            Some(version) if version == "TLSv1" || version == "TLSv1.1" => findings.push(
                Finding::new(Warning, object, format!("is encrypted by {version}, which is broken"))
                    .with_hint(format!("On the {side}: ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1.2';")),
            ),
            Some(_) if !verified => findings.push(
                Finding::new(Info, object, "is encrypted, but the server's certificate isn't verified")
                    .with_hint(format!("Add sslmode=verify-full&sslrootcert=system to --{side}.")),
            ),
            Some(_) => {}
        }
        if around.md5_password {
            let user = if side == Side::Source { &facts.source.user } else { &facts.target.user };
            findings.push(
                Finding::new(
                    Info,
                    format!("{side} role \"{user}\""),
                    "has a password that is stored as MD5, which is weak",
                )
                .with_hint(format!(
                    "SET password_encryption = 'scram-sha-256'; ALTER ROLE {} PASSWORD '…';",
                    ident(user)
                )),
            );
        }
    }
    findings
}

pub(super) fn prepared_transactions(facts: &Facts) -> Vec<Finding> {
    match facts.source_surroundings.prepared {
        0 => Vec::new(),
        number => vec![
            Finding::new(
                Warning,
                "source",
                format!("holds {number} prepared transactions: a slot waits for them, and what they changed is copied only once they are committed"),
            )
            .with_hint("Look at pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED each."),
        ],
    }
}

/// Languages that came to the source without an extension.
pub(super) fn languages(facts: &Facts) -> Vec<Finding> {
    let missing = facts
        .database
        .languages
        .iter()
        .filter(|language| !facts.target_surroundings.languages.contains(&language.name));
    missing
        .map(|language| {
            let object = format!("language \"{}\"", language.name);
            let extension = facts.target.extensions.iter().find(|e| e.name == language.name);
            match extension {
                Some(_) if facts.target.superuser => {
                    Finding::new(Info, object, "is no extension on the source, and is made by its functions on the target")
                }
                Some(_) => Finding::new(Blocker, object, "is no extension on the source, and only a superuser may make it so on the target")
                    .with_hint(format!(
                        "On the source: CREATE EXTENSION {0} FROM unpackaged (before 13), or drop it; or on the target: CREATE EXTENSION {0};",
                        ident(&language.name)
                    )),
                None => Finding::new(Warning, object, "does not exist on the target, where its library may be missing")
                    .with_hint("Install the language's package on the target's host."),
            }
        })
        .collect()
}
