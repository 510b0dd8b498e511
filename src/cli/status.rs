//! `pgstream status`: how far the migration into the target database is, from the state that it keeps there.
//!
//! Nothing needs to be running, and the source may be gone: it is asked only for the lag of a stream and for its slot.

mod stream;

use serde_json::{Value, json};

use super::args;
use super::{Context, Outcome, server, size};
use crate::catalog::activity::{RunningBuild, RunningCopy, running_builds, running_copies};
use crate::config::{Config, Side};
use crate::ddl::NotCopied;
use crate::error::{Error, Result};
use crate::state::{self, Migration, PartProgress, Phase};
use crate::wire::{Connection, Settings};
use stream::{Stream, Tables};

pub(super) async fn run(context: &Context<'_>, options: &args::Status) -> Result<Outcome> {
    let target = context.servers.needed(Side::Target)?;
    let source = context.servers.named(Side::Source)?;
    let excluded = options.databases.excluded()?;
    loop {
        let all = if options.databases.all_databases {
            every(&target, source.as_ref(), &excluded).await?
        } else {
            vec![read(&target, source.as_ref()).await?]
        };
        if context.ui.manner().json {
            context.ui.json(&object(&all))?;
        } else {
            context.ui.print(&all.iter().map(Status::text).collect::<Vec<_>>().join("\n"))?;
        }
        let goes_on = all.iter().any(|status| ["running", "syncing"].contains(&status.word()));
        if !options.watch || !goes_on {
            return Ok(Outcome::Done);
        }
        tokio::time::sleep(options.interval).await;
    }
}

/// The status of each database of the target that holds a migration.
async fn every(target: &Config, source: Option<&Config>, excluded: &[String]) -> Result<Vec<Status>> {
    let migrated = server::migrated(target, excluded).await?;
    if migrated.names.is_empty() {
        return Err(Error::usage("no database of the target holds a migration")
            .with_hint("Begin one with pgstream migrate, or name another server in --target."));
    }
    let mut all = Vec::new();
    for name in &migrated.names {
        let source = source.map(|source| source.with_dbname(name));
        all.push(read(&target.with_dbname(name), source.as_ref()).await?);
    }
    Ok(all)
}

/// What became of a migration's slot on its source, for who watches it.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlotHealth {
    /// Bytes of write-ahead log that the source keeps for it.
    pub(super) retained_bytes: u64,
    /// Somebody reads it.
    pub(super) active: bool,
    /// It is of no more use, or gone.
    pub(super) lost: bool,
}

/// Asks both servers; `None` where there is no stream, or the source doesn't answer.
pub(super) async fn slot_health(target: &Config, source: &Config) -> Result<Option<SlotHealth>> {
    Ok(read(target, Some(source)).await?.stream.and_then(|stream| stream.health()))
}

/// What is known of one database's migration, for who watches it: its object of `migration_detail`.
pub(super) async fn look(target: &Config, source: &Config) -> Result<Value> {
    Ok(read(target, Some(source)).await?.object())
}

/// The object that automation reads.
fn object(all: &[Status]) -> Value {
    let databases: Vec<_> = all
        .iter()
        .map(|status| {
            (status.dbname.as_str(), status.migration.method.as_str(), status.word(), status.error())
        })
        .collect();
    json!({
        "migration": server::summary(&databases),
        "migration_detail": all.iter().map(Status::object).collect::<Vec<_>>(),
    })
}

/// All that is known of one database's migration.
struct Status {
    dbname: String,
    migration: Migration,
    /// The session that works on it, in words.
    holder: Option<String>,
    tables: Vec<PartProgress>,
    running: Vec<RunningCopy>,
    builds: Vec<RunningBuild>,
    recent: Option<state::Recent>,
    items: u64,
    omissions: Vec<NotCopied>,
    stream: Option<Stream>,
}

async fn read(config: &Config, source: Option<&Config>) -> Result<Status> {
    let mut target = Connection::connect(config, Side::Target, &Settings::session()).await?;
    // One snapshot, so that the numbers fit each other.
    target.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let Some(migration) = state::read(&mut target).await? else {
        return Err(Error::usage(format!("target database \"{}\" holds no migration", config.dbname))
            .with_hint("Begin one with pgstream migrate, or name another database in --target."));
    };
    let mut status = Status {
        dbname: config.dbname.clone(),
        migration,
        holder: state::lock_holder(&mut target).await?,
        tables: state::part_progress(&mut target).await?,
        running: running_copies(&mut target).await?,
        builds: running_builds(&mut target).await?,
        recent: state::recent_parts(&mut target).await?,
        items: state::items(&mut target).await?.len() as u64,
        omissions: state::omissions(&mut target).await?,
        stream: None,
    };
    let checkpoint = state::checkpoint::read(&mut target).await?;
    let spool = state::spool::read(&mut target).await?;
    let tables = match status.migration.phase {
        Phase::CatchUp | Phase::Syncing => Some(Tables {
            planned: state::relations(&mut target)
                .await?
                .iter()
                .map(|(relation, _, _)| relation.oid)
                .collect(),
            options: status.migration.content.clone().unwrap_or_default(),
        }),
        _ => None,
    };
    target.close().await;
    if status.migration.phase != Phase::Done {
        let at_work = status.holder.is_some();
        status.stream =
            Stream::read(&status.migration, at_work, tables.as_ref(), checkpoint, spool, source).await;
    }
    Ok(status)
}

/// Sums over all tables.
#[derive(Default)]
struct Sums {
    tables: u64,
    tables_done: u64,
    parts: u64,
    parts_done: u64,
    rows: u64,
    rows_estimate: u64,
    bytes: u64,
    bytes_done: u64,
}

impl Status {
    /// The word that automation reads: `running`, `syncing`, `done` or `failed`.
    fn word(&self) -> &'static str {
        match (&self.migration.phase, &self.holder) {
            (Phase::Done, _) => "done",
            (Phase::Syncing, Some(_)) => "syncing",
            (_, Some(_)) => "running",
            (_, None) => "failed",
        }
    }

    /// Why it is not going on.
    fn error(&self) -> Option<String> {
        (self.word() == "failed").then(|| match &self.migration.error {
            Some(error) => error.clone(),
            None => "interrupted: no pgstream is at work; run the same pgstream migrate again to resume"
                .to_owned(),
        })
    }

    /// What is done, the parts that are being copied included as far as they are.
    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for table in &self.tables {
            sums.tables += 1;
            sums.tables_done += u64::from(table.parts_done == table.parts);
            sums.parts += table.parts;
            sums.parts_done += table.parts_done;
            sums.rows += table.rows;
            sums.rows_estimate += table.rows_estimate.max(table.rows);
            sums.bytes += table.bytes;
            sums.bytes_done += table.bytes_done;
        }
        // Shares of a table that was cut may not add up to it.
        if sums.parts_done == sums.parts {
            sums.bytes_done = sums.bytes;
        }
        if self.word() == "running" {
            sums.rows += self.running.iter().map(|copy| copy.rows).sum::<u64>();
            let bytes: u64 = self.running.iter().map(|copy| copy.bytes).sum();
            sums.bytes_done = (sums.bytes_done + bytes).min(sums.bytes);
        }
        sums
    }

    /// Bytes per second, while rows are being copied.
    fn rate(&self) -> Option<f64> {
        let recent =
            self.recent.filter(|_| self.word() == "running" && self.migration.phase == Phase::Copy)?;
        let bytes = recent.bytes + self.running.iter().map(|copy| copy.bytes).sum::<u64>();
        (recent.seconds > 0.0).then(|| bytes as f64 / recent.seconds)
    }

    /// Seconds until the last row is there, at the present rate.
    fn seconds_left(&self, sums: &Sums) -> Option<f64> {
        let rate = self.rate().filter(|rate| *rate >= 1.0)?;
        Some((sums.bytes - sums.bytes_done) as f64 / rate)
    }

    fn object(&self) -> Value {
        let (word, error, method) = (self.word(), self.error(), &self.migration.method);
        let sums = self.sums();
        let tables: Vec<Value> = self.tables.iter().map(table_object).collect();
        let omissions: Vec<Value> = self
            .omissions
            .iter()
            .map(|left| json!({ "kind": left.kind, "name": left.name, "reason": left.reason }))
            .collect();
        let mut detail = json!({
                "dbname": self.dbname,
                "error": error,
                "method": method,
                "status": word,
                "fallback": self.migration.fallback,
                "phase": self.migration.phase.to_string(),
                "source_database": self.migration.source_database,
                "source_system_identifier": self.migration.source_system_identifier,
                "started_at": self.migration.started_at,
                "updated_at": self.migration.updated_at,
                "finished_at": self.migration.finished_at,
                "elapsed_seconds": self.migration.elapsed_seconds,
                "worker": self.holder,
                "items_done": self.items,
                "building": self.builds.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "tables": sums.tables,
                "tables_done": sums.tables_done,
                "parts": sums.parts,
                "parts_done": sums.parts_done,
                "rows_done": sums.rows,
                "rows_estimate": sums.rows_estimate,
                "bytes": sums.bytes,
                "bytes_done": sums.bytes_done,
                "progress_percent": size::percent(sums.bytes_done, sums.bytes),
                "bytes_per_second": self.rate(),
                "seconds_left": self.seconds_left(&sums),
                "not_copied": omissions,
                "relations": tables,
        });
        let stream = self.stream.as_ref().map(Stream::object);
        if let (Value::Object(detail), Some(Value::Object(stream))) = (&mut detail, stream) {
            detail.extend(stream);
        }
        detail
    }

    fn text(&self) -> String {
        let migration = &self.migration;
        let sums = self.sums();
        let mut rows = vec![
            ("database", self.dbname.clone()),
            ("source", format!("database \"{}\"", migration.source_database)),
            ("method", migration.method.clone()),
            ("status", format!("{} (phase {})", self.word(), migration.phase)),
        ];
        rows.extend(migration.fallback.iter().map(|why| ("why copy", why.clone())));
        rows.extend(self.error().map(|error| ("error", error)));
        rows.extend(self.holder.clone().map(|holder| ("worker", holder)));
        let elapsed = size::seconds(migration.elapsed_seconds);
        match &migration.finished_at {
            None => rows.push(("started", format!("{}, {elapsed} ago", migration.started_at))),
            Some(finished) => {
                rows.push(("started", migration.started_at.clone()));
                rows.push(("finished", format!("{finished}, after {elapsed}")));
            }
        }
        rows.push(("schema", size::count(self.items, "item made", "items made")));
        if sums.parts > 0 {
            rows.push(("tables", format!("{} of {}", sums.tables_done, sums.tables)));
            rows.push(("parts", format!("{} of {}", sums.parts_done, sums.parts)));
            let about = if sums.parts_done == sums.parts { sums.rows } else { sums.rows_estimate };
            rows.push((
                "rows",
                if about == sums.rows {
                    about.to_string()
                } else {
                    format!("{} of about {about}", sums.rows)
                },
            ));
            rows.push(("bytes", self.bytes_text(&sums)));
        }
        for copy in self.running.iter().filter(|_| self.word() == "running") {
            let name = match (&copy.schema, &copy.name) {
                (Some(schema), Some(name)) => format!("{schema}.{name}"),
                _ => "a new table".to_owned(),
            };
            rows.push((
                "copying",
                format!("{name}: {}, {}", size::count(copy.rows, "row", "rows"), size::bytes(copy.bytes)),
            ));
        }
        rows.extend(self.builds.iter().map(|build| ("building", build.to_string())));
        rows.extend(self.stream.iter().flat_map(Stream::rows));
        for left in &self.omissions {
            rows.push(("skipped", format!("{} {}: {}", left.kind, left.name, left.reason)));
        }
        rows.iter().map(|(label, value)| format!("{label:<9} {value}\n")).collect()
    }

    fn bytes_text(&self, sums: &Sums) -> String {
        let percent = size::percent(sums.bytes_done, sums.bytes);
        let mut text =
            format!("{} of {} ({percent} %)", size::bytes(sums.bytes_done), size::bytes(sums.bytes));
        if let Some(rate) = self.rate() {
            text.push_str(&format!(", {}/s", size::bytes(rate as u64)));
        }
        if let Some(left) = self.seconds_left(sums) {
            text.push_str(&format!(", about {} left", size::seconds(left)));
        }
        text
    }
}

fn table_object(table: &PartProgress) -> Value {
    json!({
        "schema": table.schema,
        "name": table.name,
        "parts": table.parts,
        "parts_done": table.parts_done,
        "rows_done": table.rows,
        "rows_estimate": table.rows_estimate,
        "bytes": table.bytes,
        "bytes_done": table.bytes_done,
        "snapshot_lsn": table.snapshot_lsn.map(|lsn| lsn.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: Phase, error: Option<&str>, holder: Option<&str>) -> Status {
        Status {
            dbname: "app".to_owned(),
            migration: Migration {
                content: None,
                source_system_identifier: "7".to_owned(),
                source_database: "app".to_owned(),
                method: "copy".to_owned(),
                phase,
                error: error.map(str::to_owned),
                slot: None,
                publication: None,
                cutover_lsn: None,
                source_read_only: false,
                fallback: Vec::new(),
                started_at: "2026-01-01 00:00:00+00".to_owned(),
                updated_at: "2026-01-01 00:00:00+00".to_owned(),
                finished_at: None,
                elapsed_seconds: 1.0,
            },
            holder: holder.map(str::to_owned),
            tables: vec![PartProgress {
                parts: 2,
                parts_done: 1,
                bytes: 100,
                bytes_done: 50,
                ..PartProgress::default()
            }],
            builds: Vec::new(),
            running: vec![RunningCopy { schema: None, name: None, bytes: 80, rows: 3 }],
            recent: Some(state::Recent { bytes: 50, seconds: 10.0 }),
            items: 0,
            omissions: Vec::new(),
            stream: None,
        }
    }

    #[test]
    fn the_word_says_whether_someone_has_to_act() {
        assert_eq!(status(Phase::Copy, None, Some("x")).word(), "running");
        assert_eq!(status(Phase::Copy, Some("no"), Some("x")).word(), "running");
        assert_eq!(status(Phase::Copy, Some("no"), None).word(), "failed");
        assert_eq!(status(Phase::Copy, None, None).word(), "failed");
        assert_eq!(status(Phase::Syncing, None, Some("x")).word(), "syncing");
        assert_eq!(status(Phase::Syncing, None, None).word(), "failed");
        assert_eq!(status(Phase::Done, None, None).word(), "done");
        assert_eq!(status(Phase::Copy, Some("no"), None).error().as_deref(), Some("no"));
        assert!(status(Phase::Copy, None, None).error().unwrap().starts_with("interrupted"));
        assert_eq!(status(Phase::Done, None, None).error(), None);
    }

    #[test]
    fn the_object_has_the_shape_that_automation_reads() {
        let object = object(&[status(Phase::Copy, None, Some("process 1"))]);
        assert_eq!(object["migration"], json!({ "error": null, "method": "copy", "status": "running" }));
        let detail = &object["migration_detail"][0];
        assert_eq!((&detail["dbname"], &detail["status"]), (&json!("app"), &json!("running")));
        assert_eq!((&detail["bytes_done"], &detail["progress_percent"]), (&json!(100), &json!(100)));
    }

    #[test]
    fn what_is_being_copied_counts_only_while_someone_copies() {
        assert_eq!(status(Phase::Copy, None, None).sums().bytes_done, 50);
        assert_eq!(status(Phase::Copy, None, None).rate(), None);
        assert_eq!(status(Phase::Copy, None, Some("x")).rate(), Some(13.0));
    }
}
