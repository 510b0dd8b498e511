//! `pgstream check`: every finding in one list.

use std::sync::Arc;

use serde_json::json;

use super::args::{self, Check};
use super::migrate::base;
use super::{Context, Outcome, size};
use crate::catalog::role::Scope;
use crate::config::Side;
use crate::error::{ErrorKind, Result};
use crate::migrate::check::{self, Finding, Severity, Wanted};
use crate::migrate::database::{self, Opened};
use crate::migrate::roles::Roles;
use crate::migrate::{Options, server, wanted};
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, arguments: &Check) -> Result<Outcome> {
    let jobs = args::jobs(arguments.jobs);
    let excluded = arguments.databases.excluded()?;
    let options = Options {
        method: arguments.content.method(arguments.method)?,
        replica_identity: arguments.replica_identity.into(),
        roles: Arc::new(Roles::new(arguments.roles.options(Scope::Database)?)),
        create_database: !arguments.no_create_database,
        limits: arguments.limits.into(),
        ..base(context, &arguments.content, &arguments.databases, jobs)?
    };
    run_with(context, &options, arguments.databases.all_databases.then_some(&excluded)).await
}

/// Checks for a migration with these options; of all databases, those left out that match, where a list is given.
pub(super) async fn run_with(
    context: &Context<'_>,
    options: &Options,
    all: Option<&[String]>,
) -> Result<Outcome> {
    let Some(excluded) = all else {
        return show(context, &[(None, find(options).await?)]);
    };
    let listing = server::list(&options.source, Side::Source, excluded).await?;
    let mut found = vec![(None, listing.too_large(&options.limits).into_iter().collect())];
    for passed in listing.passed_over {
        let severity = if passed.hint.is_some() { Severity::Warning } else { Severity::Info };
        let what = format!("is passed over: {}", passed.reason);
        let finding = Finding { hint: passed.hint, ..Finding::new(severity, "source database", what) };
        found.push((Some(passed.name), vec![finding]));
    }
    for name in listing.names {
        let findings = match find(&server::for_database(options, &name)).await {
            Err(error) if error.kind() == ErrorKind::Stopped => return Err(error),
            // What keeps one database from being judged says nothing of the others.
            Err(error) => vec![Finding { object: "database".to_owned(), ..Finding::from(&error) }],
            Ok(findings) => findings,
        };
        found.push((Some(name), findings));
    }
    show(context, &found)
}

/// All findings; servers that can't be reached are findings too, both of them if need be.
async fn find(options: &Options) -> Result<Vec<Finding>> {
    let settings = Settings::session();
    let (source, target) = tokio::join!(
        Connection::connect(&options.source, Side::Source, &settings),
        database::open(&options.target, options.create_database)
    );
    let (mut source, (mut target, create)) = match (source, target) {
        (Ok(source), Ok(Opened::There(target))) => (source, (target, None)),
        (Ok(source), Ok(Opened::Missing(target))) => (source, (target, Some(options.target.dbname.as_str()))),
        (source, target) => {
            let errors = [source.err(), target.err()];
            return Ok(errors.iter().flatten().map(Finding::from).collect());
        }
    };
    let wanted = Wanted { create, ..wanted(options, options.method) };
    let mut report = check::run(&mut source, &mut target, &wanted).await?;
    report.release().await;
    tokio::join!(source.close(), target.close());
    Ok(report.findings)
}

/// Prints the findings of each database as the command's result.
fn show(context: &Context<'_>, found: &[(Option<String>, Vec<Finding>)]) -> Result<Outcome> {
    let all = || found.iter().flat_map(|(name, findings)| findings.iter().map(move |f| (name, f)));
    let number = |severity| all().filter(|(_, f)| f.severity == severity).count() as u64;
    let (blockers, warnings) = (number(Severity::Blocker), number(Severity::Warning));
    if context.ui.manner().json {
        let list: Vec<_> = all()
            .map(|(name, f)| {
                json!({
                    "dbname": name,
                    "severity": f.severity.to_string(),
                    "object": f.object,
                    "message": f.what,
                    "detail": f.detail,
                    "hint": f.hint,
                })
            })
            .collect();
        context.ui.json(&json!({ "blockers": blockers, "warnings": warnings, "findings": list }))?;
    } else {
        let mut text = String::new();
        for (name, findings) in found {
            if let Some(name) = name {
                text.push_str(&format!("database \"{name}\":\n"));
            }
            text.extend(findings.iter().map(lines));
            if name.is_some() && findings.is_empty() {
                text.push_str("nothing stands in the way\n");
            }
        }
        text.push_str(&match (blockers, warnings) {
            (0, 0) => "ready: nothing stands in the way\n".to_owned(),
            (0, _) => format!("ready, with {}\n", size::count(warnings, "warning", "warnings")),
            _ => format!(
                "not ready: {}, {}\n",
                size::count(blockers, "blocker", "blockers"),
                size::count(warnings, "warning", "warnings")
            ),
        });
        context.ui.print(&text)?;
    }
    Ok(if blockers > 0 { Outcome::Blocked } else { Outcome::Done })
}

fn lines(finding: &Finding) -> String {
    let mut text = format!("{}: {}: {}\n", finding.severity, finding.object, finding.what);
    for line in finding.detail.iter().flat_map(|detail| detail.lines()) {
        text.push_str(&format!("    detail: {line}\n"));
    }
    if let Some(hint) = &finding.hint {
        text.push_str(&format!("    hint: {hint}\n"));
    }
    text
}
