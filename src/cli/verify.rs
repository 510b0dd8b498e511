//! `pgstream verify`: every difference between the two databases.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pgstream_proto::lsn::Lsn;
use serde_json::{Value, json};

use super::args::{self, Verify};
use super::server::{passed_over, warn_of_passed_over};
use super::{Context, Outcome, size, stop, view};
use crate::config::{Config, Side};
use crate::ddl;
use crate::error::{ErrorKind, Result};
use crate::migrate::{position, server};
use crate::progress::Progress;
use crate::verify::{self, Difference, Options, Report, Sample, Together};

pub(super) async fn run(context: &Context<'_>, options: &Verify) -> Result<Outcome> {
    let source = context.servers.needed(Side::Source)?;
    let target = context.servers.needed(Side::Target)?;
    let mut at_one_position = false;
    let outcome = if options.databases.all_databases {
        all(context, options, &source, &target).await?
    } else {
        let compared = compare(context, options, &source, &target).await?;
        at_one_position = compared.position.is_some();
        if context.ui.manner().json {
            context.ui.json(&compared.object())?;
        } else {
            context.ui.print(&compared.text())?;
        }
        if compared.report.differences.is_empty() { Outcome::Done } else { Outcome::Differences }
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
            Ok(compared) => {
                if !ui.manner().json {
                    ui.print(&format!("database \"{name}\":\n{}", compared.text()))?;
                }
                let mut object = compared.object();
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
        sample: options.sample.map(|parts_per_million| Sample { parts_per_million, seed: seed() }),
        named_rows: usize::from(options.keys),
        jobs: args::jobs(options.jobs),
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

/// Not the same twice in a row, so that samples of several runs look at more and more of the rows.
fn seed() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u32)
}

/// What came of comparing one database.
struct Compared {
    wanted: Options,
    report: Report,
    /// Where in the source's log both sides were read.
    position: Option<Lsn>,
}

impl Compared {
    fn text(&self) -> String {
        let (report, options) = (&self.report, &self.wanted);
        let mut text: String = report.differences.iter().chain(&report.until_cutover).map(lines).collect();
        let mut compared = Vec::new();
        if options.schema {
            compared.push(size::count(report.items, "definition", "definitions"));
        }
        if options.data {
            compared.push(size::count(report.tables, "table", "tables"));
            let sample = self.sample_percent().map(|percent| format!(" of a sample of {percent} %"));
            let rows = size::count(report.rows, "row", "rows");
            compared.push(format!("{rows}{}", sample.unwrap_or_default()));
            compared.push(size::count(report.sequences, "sequence", "sequences"));
            compared.push(size::count(report.large_objects, "large object", "large objects"));
        }
        let result = match report.differences.len() as u64 {
            0 => "equal".to_owned(),
            number => size::count(number, "difference", "differences"),
        };
        for Together { object, partitions } in &report.together {
            let partitions = size::count(*partitions as u64, "partition", "partitions");
            text.push_str(&format!(
                "{object}: {partitions} compared together, as each server puts rows into them in its own way\n"
            ));
        }
        text.push_str(&format!("{result} ({} compared)\n", compared.join(", ")));
        text
    }

    fn sample_percent(&self) -> Option<f64> {
        self.wanted.sample.map(|sample| f64::from(sample.parts_per_million) / 1e4)
    }

    fn object(&self) -> Value {
        let report = &self.report;
        json!({
            "equal": report.differences.is_empty(),
            "lsn": self.position.map(|lsn| lsn.to_string()),
            "sample_percent": self.sample_percent(),
            "definitions": report.items,
            "tables": report.tables,
            "rows": report.rows,
            "sequences": report.sequences,
            "large_objects": report.large_objects,
            "together": report.together.iter().map(|one| json!({ "object": one.object, "partitions": one.partitions })).collect::<Vec<_>>(),
            "until_cutover": report.until_cutover.iter().map(|one| json!({ "object": one.object, "what": one.what })).collect::<Vec<_>>(),
            "differences": report.differences.iter().map(difference).collect::<Vec<_>>(),
        })
    }
}

fn lines(difference: &Difference) -> String {
    let mut text = format!("{} {}\n", difference.object, difference.what);
    if let Some((source, target)) = &difference.definitions {
        text.push_str(&format!("    source: {}\n    target: {}\n", indented(source), indented(target)));
    }
    if let Some(keys) = &difference.keys {
        for row in &keys.rows {
            let key = format!("({})=({})", keys.columns.join(", "), row.key.join(", "));
            text.push_str(&format!("    key {} {}\n", printable(&key), row.what));
        }
        if keys.more {
            text.push_str("    and more\n");
        }
    }
    text
}

/// What a terminal would take for a command of its own, in words.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn indented(statement: &str) -> String {
    statement.trim_end().replace('\n', "\n            ")
}

fn difference(difference: &Difference) -> Value {
    let (source, target) = difference.definitions.clone().unzip();
    let row = |row: &verify::DifferentRow| json!({ "key": row.key, "difference": row.what });
    let keys = difference.keys.as_ref().map(|keys| {
        let rows: Vec<_> = keys.rows.iter().map(row).collect();
        json!({ "columns": keys.columns, "rows": rows, "more": keys.more })
    });
    json!({
        "object": difference.object,
        "difference": difference.what,
        "source": source,
        "target": target,
        "keys": keys,
    })
}
