//! Schemas, as pg_dump 18 writes them.
//!
//! The dumps are cut into entries, one an object and kind, and compared entry by entry. Where the target is of a
//! newer major, the same object is sometimes written in another way; each such way is a [`Rule`], applied to both
//! sides, and none else is excused. What no rule on text can express is compared with a [`reference`] instead: what
//! `pg_dump | psql` makes of the source on the target's server.

use crate::harness::programs::{client, succeed};
use crate::harness::{Cluster, Database};
use std::collections::{BTreeMap, BTreeSet};

/// A way in which majors write the same thing differently.
struct Rule {
    /// What it is about; for the reader.
    #[allow(dead_code, reason = "the reason is the rule's documentation, and stands next to its code")]
    why: &'static str,
    /// It applies where the source is older than this major and the target is not.
    since: u32,
    /// The types of entries that it applies to.
    types: &'static [&'static str],
    /// Brings the text of either side's entry, header included, into one form.
    text: fn(&str) -> String,
}

const RULES: &[Rule] = &[
    Rule {
        why: "since 12 a trigger is written as executing a FUNCTION; before, a PROCEDURE",
        since: 12,
        types: &["TRIGGER", "EVENT TRIGGER"],
        text: |text| text.replace(" EXECUTE PROCEDURE ", " EXECUTE FUNCTION "),
    },
    Rule {
        why: "since 14 a procedure's IN arguments are written with their mode",
        since: 14,
        types: &["PROCEDURE", "ACL", "COMMENT"],
        text: |text| {
            let plain = |line: &str| {
                let procedure = line.contains("PROCEDURE ") || line.contains("; Type: PROCEDURE;");
                if procedure { line.replace("(IN ", "(").replace(", IN ", ", ") } else { line.to_owned() }
            };
            text.lines().map(plain).collect::<Vec<_>>().join("\n")
        },
    },
    Rule {
        why: "since 14 each range type has a multirange type, with a name that the server makes up",
        since: 14,
        types: &["TYPE"],
        text: |text| {
            let kept = text.lines().filter(|line| !line.trim_start().starts_with("multirange_type_name = "));
            // It may have been the last of the list.
            kept.collect::<Vec<_>>().join("\n").replace(",\n)", "\n)")
        },
    },
    Rule {
        why: "since 17 there is the privilege MAINTAIN: what was all privileges of a table before is a list",
        since: 17,
        types: &["ACL", "DEFAULT ACL"],
        text: |text| {
            let before = "SELECT,INSERT,REFERENCES,DELETE,TRIGGER,TRUNCATE,UPDATE ON";
            let after = "SELECT,INSERT,REFERENCES,DELETE,TRIGGER,TRUNCATE,MAINTAIN,UPDATE ON";
            text.replace(before, "ALL ON").replace(after, "ALL ON")
        },
    },
    Rule {
        why: "since 18 NOT NULL is a constraint; its name is written where it isn't the one that 18 would make up",
        since: 18,
        types: &["TABLE"],
        text: |text| text.lines().map(unnamed_not_null).collect::<Vec<_>>().join("\n"),
    },
    Rule {
        why: "since 18 it is known that a table that joined its parent later was NOT NULL before",
        since: 18,
        types: &["TABLE"],
        text: |text| {
            if text.contains("INHERITS (") { text.replace(" NOT NULL", "") } else { text.to_owned() }
        },
    },
];

/// Types of entries that may equal the reference's text instead of the source's, with the newer major from which on
/// (0: within one major as well) and the reason.
const AS_REFERENCE: &[(&str, u32, &str)] = &[
    ("VIEW", 16, "since 16 a view over one relation is written without qualifying its columns"),
    ("MATERIALIZED VIEW", 16, "likewise"),
    ("RULE", 16, "likewise"),
    ("COLLATION", 16, "since 16 the server turns the locale of an ICU collation into a language tag"),
    (
        "ACL",
        17,
        "an owner whom everything was revoked from keeps MAINTAIN, which older servers let every owner do",
    ),
    ("DEFAULT ACL", 17, "likewise"),
    (
        "TABLE",
        0,
        "pg_dump puts inherited columns first: a table that joined its parent later changes their order",
    ),
];

/// Objects that differ in the two dumps, each with both texts.
pub(crate) fn schemas(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    let majors = (source.cluster().major(), target.cluster().major());
    let from = entries(&dump(source), majors);
    let to = entries(&dump(target), majors);
    let mut reference_entries = None;
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let mut differences = Vec::new();
    for name in names {
        let (source_text, target_text) = (from.get(name), to.get(name));
        if source_text == target_text {
            continue;
        }
        if target_text.is_some() && may_equal_reference(name, majors) {
            let reference = reference_entries
                .get_or_insert_with(|| entries(&dump(&reference(source, target.cluster())), majors));
            if reference.get(name) == target_text {
                continue;
            }
        }
        let shown = |text: Option<&String>| text.cloned().unwrap_or_else(|| "(missing)".to_owned());
        differences.push(format!(
            "{name}\n  source: {}\n  target: {}",
            shown(source_text),
            shown(target_text)
        ));
    }
    differences
}

/// A database on the target's server that `pg_dump | psql` made of the source's schema.
fn reference<'a>(source: &Database<'_>, cluster: &'a Cluster) -> Database<'a> {
    let reference = cluster.create_database_with("reference", "TEMPLATE template0");
    // pg_dump writes for its own major, 18: settings that an older server doesn't know are no loss.
    let mut psql = client("psql");
    psql.args(["-Xq", "-d", &reference.uri(), "-f", "-"]).env("PGOPTIONS", "-c client_min_messages=error");
    let schema = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(&schema, dump_with(source, &["--no-subscriptions"]))
        .expect("a temporary file is writable");
    psql.stdin(schema.reopen().expect("a temporary file can be read"));
    succeed(psql);
    reference
}

fn dump(database: &Database<'_>) -> String {
    dump_with(database, &[])
}

/// What pg_dump writes of a schema, with more arguments.
pub(crate) fn dump_with(database: &Database<'_>, arguments: &[&str]) -> String {
    let mut pg_dump = client("pg_dump");
    pg_dump.args([
        "--schema-only",
        "--exclude-schema=pgstream",
        "--no-table-access-method",
        "-d",
        &database.uri(),
    ]);
    pg_dump.args(arguments);
    succeed(pg_dump)
}

/// The dump's entries by their header, each text in the one form of the rules.
fn entries(dump: &str, (source, target): (u32, u32)) -> BTreeMap<String, String> {
    let rules: Vec<&Rule> = RULES.iter().filter(|rule| source < rule.since && rule.since <= target).collect();
    let mut entries: BTreeMap<String, String> = BTreeMap::new();
    for chunk in dump.split("\n--\n-- Name: ").skip(1) {
        let chunk = chunk.split("\n\n\n--\n-- PostgreSQL database dump complete").next().unwrap_or_default();
        let kept: Vec<&str> = chunk.lines().filter(|line| !is_frame(line)).collect();
        let applied = rules.iter().filter(|rule| rule.types.iter().any(|name| is_of_type(kept[0], name)));
        let text = applied.fold(kept.join("\n"), |text, rule| (rule.text)(&text));
        let (header, text) =
            text.split_once("\n--\n").or_else(|| text.split_once('\n')).unwrap_or((&text, ""));
        let text = if is_of_type(header, "ACL") { sorted_statements(text) } else { text.to_owned() };
        // Who owns an object of the system is no part of what pg_dump writes.
        let of_system = is_of_type(header, "ACL") && header.contains("; Schema: pg_catalog;");
        let header = header.split("; Owner: ").next().filter(|_| of_system).unwrap_or(header);
        entries.entry(header.to_owned()).or_default().push_str(&text);
    }
    entries
}

fn is_of_type(header: &str, name: &str) -> bool {
    header.contains(&format!("; Type: {name};"))
}

/// Lines that stand between entries, where the one before needs them.
fn is_frame(line: &str) -> bool {
    line.is_empty() || line.starts_with("SET default_tablespace") || line.starts_with("\\")
}

/// Grants of one object in one order: which was granted first makes no difference.
fn sorted_statements(text: &str) -> String {
    let mut statements: Vec<String> = Vec::new();
    let mut session: Option<Vec<&str>> = None;
    for line in text.lines() {
        match &mut session {
            // What another user granted stays together with saying who.
            Some(lines) => lines.push(line),
            None if line.starts_with("SET SESSION AUTHORIZATION") => session = Some(vec![line]),
            None => statements.push(line.to_owned()),
        }
        if line.starts_with("RESET SESSION AUTHORIZATION") {
            statements.extend(session.take().map(|lines| lines.join("\n")));
        }
    }
    statements.sort();
    statements.join("\n")
}

fn may_equal_reference(header: &str, (source, target): (u32, u32)) -> bool {
    AS_REFERENCE.iter().any(|(kind, since, _)| {
        is_of_type(header, kind) && (*since == 0 || (source < *since && *since <= target))
    })
}

/// Takes `CONSTRAINT name ` out before `NOT NULL` in a column's definition.
fn unnamed_not_null(line: &str) -> String {
    match (line.rfind(" CONSTRAINT "), line.rfind("_not_null NOT NULL")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}{}", &line[..start], &line[end + "_not_null".len()..])
        }
        _ => line.to_owned(),
    }
}

#[test]
fn names_that_18_makes_up_for_not_null_are_left_out() {
    assert_eq!(
        unnamed_not_null("    a integer CONSTRAINT t_a_not_null NOT NULL,"),
        "    a integer NOT NULL,"
    );
    assert_eq!(
        unnamed_not_null("    a integer CONSTRAINT own NOT NULL,"),
        "    a integer CONSTRAINT own NOT NULL,"
    );
}
