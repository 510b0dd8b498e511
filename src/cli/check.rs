//! `pgstream check`: every finding in one list.

use serde_json::json;

use super::args::{self, Check};
use super::{Context, Outcome, size};
use crate::config::{Config, Side};
use crate::error::Result;
use crate::migrate::check::{self, Finding, Severity, Wanted};
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, options: &Check) -> Result<Outcome> {
    let source = context.servers.needed(Side::Source)?;
    let target = context.servers.needed(Side::Target)?;
    let jobs = options.jobs.map_or_else(args::default_jobs, usize::from);
    let wanted = Wanted {
        ddl: &options.content.options(),
        jobs,
        method: options.method.into(),
        replica_identity: options.replica_identity.into(),
    };
    let findings = find(&source, &target, &wanted).await?;
    show(context, &findings)
}

/// All findings; servers that can't be reached are findings too, both of them if need be.
pub(super) async fn find(source: &Config, target: &Config, wanted: &Wanted<'_>) -> Result<Vec<Finding>> {
    let settings = Settings::session();
    let (source, target) = tokio::join!(
        Connection::connect(source, Side::Source, &settings),
        Connection::connect(target, Side::Target, &settings)
    );
    let (mut source, mut target) = match (source, target) {
        (Ok(source), Ok(target)) => (source, target),
        (source, target) => {
            let errors = [source.err(), target.err()];
            return Ok(errors.iter().flatten().map(Finding::from).collect());
        }
    };
    let findings = check::run(&mut source, &mut target, wanted).await?;
    tokio::join!(source.close(), target.close());
    Ok(findings)
}

/// Prints findings as the command's result.
pub(super) fn show(context: &Context<'_>, findings: &[Finding]) -> Result<Outcome> {
    let number = |severity| findings.iter().filter(|f| f.severity == severity).count() as u64;
    let (blockers, warnings) = (number(Severity::Blocker), number(Severity::Warning));
    if context.ui.manner().json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| {
                json!({
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
        for finding in findings {
            text.push_str(&format!("{}: {}: {}\n", finding.severity, finding.object, finding.what));
            for line in finding.detail.iter().flat_map(|detail| detail.lines()) {
                text.push_str(&format!("    detail: {line}\n"));
            }
            if let Some(hint) = &finding.hint {
                text.push_str(&format!("    hint: {hint}\n"));
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
