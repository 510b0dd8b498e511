//! `pgstream verify`: every difference between the two databases.

use std::sync::Arc;

use serde_json::json;

use super::args::{self, Verify};
use super::{Context, Outcome, size, view};
use crate::config::Side;
use crate::ddl;
use crate::error::Result;
use crate::progress::Progress;
use crate::verify::{self, Difference, Options, Report};

pub(super) async fn run(context: &Context<'_>, options: &Verify) -> Result<Outcome> {
    let ui = context.ui;
    let source = context.servers.needed(Side::Source)?;
    let target = context.servers.needed(Side::Target)?;
    let progress = Arc::new(Progress::default());
    let wanted = Options {
        schema: !options.data_only,
        data: !options.schema_only,
        jobs: options.jobs.map_or_else(args::default_jobs, usize::from),
        // The database's own properties are copied too; its name may differ.
        ddl: ddl::Options { database: Some(target.dbname.clone()), ..options.content.options() },
    };
    let work = verify::run(&source, &target, &wanted, &progress, &context.stop);
    let report = view::show(ui, &progress, work).await?;
    if ui.manner().json {
        ui.json(&object(&report))?;
    } else {
        ui.print(&text(&report, &wanted))?;
    }
    if report.differences.is_empty() {
        return Ok(Outcome::Done);
    }
    if wanted.data && !ui.manner().json {
        ui.hint(
            "The two servers are not read at the same moment: rows and sequences that change on the source after the \
             copy differ.",
        );
    }
    Ok(Outcome::Differences)
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

fn object(report: &Report) -> serde_json::Value {
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
        "definitions": report.items,
        "tables": report.tables,
        "rows": report.rows,
        "sequences": report.sequences,
        "large_objects": report.large_objects,
        "differences": differences,
    })
}
