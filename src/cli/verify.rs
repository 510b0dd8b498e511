//! `pgstream verify`: every difference between the two databases.

use std::sync::Arc;

use pgstream_proto::lsn::Lsn;
use serde_json::json;

use super::args::{self, Verify};
use super::server::{passed_over, warn_of_passed_over};
use super::{Context, Outcome, size, stop, view};
use crate::config::{Config, Side};
use crate::ddl;
use crate::error::{ErrorKind, Result};
use crate::migrate::{position, server};
use crate::progress::Progress;
use crate::verify::{self, Difference, Options, Report};

pub(super) async fn run(context: &Context<'_>, options: &Verify) -> Result<Outcome> {
    let source = context.servers.needed(Side::Source)?;
    let target = context.servers.needed(Side::Target)?;
    let mut at_one_position = false;
    let outcome = if options.databases.all_databases {
        all(context, options, &source, &target).await?
    } else {
        let Compared { wanted, report, position } = compare(context, options, &source, &target).await?;
        at_one_position = position.is_some();
        if context.ui.manner().json {
            context.ui.json(&object(&report, position))?;
        } else {
            context.ui.print(&text(&report, &wanted))?;
        }
        if report.differences.is_empty() { Outcome::Done } else { Outcome::Differences }
    };
    if outcome == Outcome::Differences
        && !options.content.schema_only()
        && !at_one_position
        && !context.ui.manner().json
    {
        context.ui.hint(
            "The two servers are not read at the same moment: rows and sequences that change on the source after the \
             copy differ.",
        );
    }
    Ok(outcome)
}

/// Each database of the source with the one of the same name on the target, one after the other.
async fn all(context: &Context<'_>, options: &Verify, source: &Config, target: &Config) -> Result<Outcome> {
    let ui = context.ui;
    let listing = server::list(source, Side::Source, &options.databases.excluded()?).await?;
    let mut outcome = Outcome::Done;
    let mut list = Vec::new();
    for name in &listing.names {
        let compared = compare(context, options, &source.with_dbname(name), &target.with_dbname(name)).await;
        let one = match &compared {
            Ok(one) if one.report.differences.is_empty() => Outcome::Done,
            Ok(_) => Outcome::Differences,
            Err(error) if error.kind() == ErrorKind::Stopped => Outcome::Stopped,
            Err(_) => Outcome::Failed,
        };
        outcome = outcome.worse(one);
        match compared {
            Ok(Compared { wanted, report, position }) => {
                if !ui.manner().json {
                    ui.print(&format!("database \"{name}\":\n{}", text(&report, &wanted)))?;
                }
                let mut object = object(&report, position);
                object["dbname"] = json!(name);
                object["error"] = json!(null);
                list.push(object);
            }
            Err(error) => {
                list.push(json!({ "dbname": name, "equal": null, "error": error.to_string() }));
                ui.failure(&error.context(format!("database \"{name}\"")));
            }
        }
        if one == Outcome::Stopped {
            break;
        }
    }
    if ui.manner().json {
        ui.json(&json!({
            "equal": outcome == Outcome::Done,
            "databases": list,
            "passed_over": passed_over(&listing.passed_over),
        }))?;
    } else {
        warn_of_passed_over(ui, &listing.passed_over);
    }
    Ok(outcome)
}

async fn compare(
    context: &Context<'_>,
    options: &Verify,
    source: &Config,
    target: &Config,
) -> Result<Compared> {
    let progress = Arc::new(Progress::default());
    // The database's own properties are copied too; its name may differ. What was copied without rows is known from the migration.
    let mut ddl = ddl::Options { database: Some(target.dbname.clone()), ..options.content.options()? };
    ddl.selection.schema_only = false;
    // Dropped when all is compared: its sessions hold the snapshots.
    let held = if !options.content.schema_only() {
        let hold = position::hold(source, target, options.timeout, &progress);
        view::show(context.ui, &progress, stop::or_stopped(&context.stop, hold)).await?
    } else {
        None
    };
    let wanted = Options {
        schema: !options.data_only,
        data: !options.content.schema_only(),
        jobs: options.jobs.map_or_else(args::default_jobs, usize::from),
        ddl,
        snapshots: held.as_ref().map(|held| (held.source.clone(), held.target.clone())),
    };
    let work = verify::run(source, target, &wanted, &progress, &context.stop);
    let report = view::show(context.ui, &progress, work).await?;
    if let Some(held) = &held {
        context.ui.note(&format!(
            "both sides were read at {} of the source's log while the stream goes on; sequences and large objects come with the cutover",
            held.lsn
        ));
    }
    Ok(Compared { wanted, report, position: held.map(|held| held.lsn) })
}

/// What came of comparing one database.
struct Compared {
    wanted: Options,
    report: Report,
    /// Where in the source's log both sides were read.
    position: Option<Lsn>,
}

fn text(report: &Report, options: &Options) -> String {
    let mut text: String = report.differences.iter().map(line).collect();
    let mut compared = Vec::new();
    if options.schema {
        compared.push(size::count(report.items, "definition", "definitions"));
    }
    if options.data {
        compared.push(size::count(report.tables, "table", "tables"));
        compared.push(size::count(report.rows, "row", "rows"));
        compared.push(size::count(report.sequences, "sequence", "sequences"));
        compared.push(size::count(report.large_objects, "large object", "large objects"));
    }
    let result = match report.differences.len() as u64 {
        0 => "equal".to_owned(),
        number => size::count(number, "difference", "differences"),
    };
    text.push_str(&format!("{result} ({} compared)\n", compared.join(", ")));
    text
}

fn line(difference: &Difference) -> String {
    let mut text = format!("{} {}\n", difference.object, difference.what);
    if let Some((source, target)) = &difference.definitions {
        text.push_str(&format!("    source: {}\n    target: {}\n", indented(source), indented(target)));
    }
    text
}

fn indented(statement: &str) -> String {
    statement.trim_end().replace('\n', "\n            ")
}

fn object(report: &Report, position: Option<Lsn>) -> serde_json::Value {
    let differences: Vec<_> = report
        .differences
        .iter()
        .map(|d| {
            let (source, target) = d.definitions.clone().unzip();
            json!({ "object": d.object, "difference": d.what, "source": source, "target": target })
        })
        .collect();
    json!({
        "equal": report.differences.is_empty(),
        "lsn": position.map(|lsn| lsn.to_string()),
        "definitions": report.items,
        "tables": report.tables,
        "rows": report.rows,
        "sequences": report.sequences,
        "large_objects": report.large_objects,
        "differences": differences,
    })
}
