//! Compares two databases: definitions, and what tables, sequences and large objects hold.
//!
//! In: both servers. Out: a [`Report`] that names every difference. Rows are counted and hashed inside the servers, so only
//! sums travel, and keys of rows that differ. What may fail: either connection; what a role may not read is a difference of its own (`could not be
//! compared`), never passed over. Without [`Options::snapshots`] the two servers share no moment: what changes on the source meanwhile, differs.

mod form;
mod keys;
mod large_object;
mod locale;
mod rows;
mod schema;
mod sequence;
mod until_cutover;

pub use keys::{DifferentRow, Keys};
pub use rows::Sample;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::catalog;
use crate::catalog::selection::Unmatched;
use crate::config::{Config, Side};
use crate::ddl;
use crate::error::{Error, Result, joined};
use crate::progress::Progress;
use crate::schema::Database;
use crate::sql::literal;
use crate::state;
use crate::wire::{Canceller, Connection, Settings};
use rows::{Measure, Pair};
use until_cutover::UntilCutover;

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Compare definitions.
    pub schema: bool,
    /// Compare rows, sequences and large objects.
    pub data: bool,
    /// The rows that are compared, where a table has a key; `None` compares all.
    pub sample: Option<Sample>,
    /// Rows to name of a table that differs, at most.
    pub named_rows: usize,
    /// Tables to compare at the same time; each takes a session of both servers.
    pub jobs: usize,
    /// Which definitions were copied, and so are compared.
    pub ddl: ddl::Options,
    /// Snapshots of source and target, exported by sessions that stay, at which both are read.
    pub snapshots: Option<(String, String)>,
}

/// Something that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The object with its kind: `TABLE public.film`.
    pub object: String,
    /// What differs, to be read after the object: `is missing on the target`.
    pub what: String,
    /// The source's statement and the target's, where definitions differ.
    pub definitions: Option<(String, String)>,
    /// The rows of a table that differ, where they have a key.
    pub keys: Option<Keys>,
}

impl Difference {
    fn new(object: impl Into<String>, what: impl Into<String>) -> Difference {
        Difference { object: object.into(), what: what.into(), definitions: None, keys: None }
    }
}

/// The result of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Definitions that were compared.
    pub items: u64,
    /// Tables whose rows were compared.
    pub tables: u64,
    /// Rows that the source has in them.
    pub rows: u64,
    /// Sequences that were compared.
    pub sequences: u64,
    /// Large objects that the source has.
    pub large_objects: u64,
    /// Partitioned tables whose rows were compared together, since either server puts them into partitions in its own way.
    pub together: Vec<Together>,
    /// What isn't the same by the doing of a migration that goes on, and will be with its cutover.
    pub until_cutover: Vec<Difference>,
    /// Every other difference, in the order of objects.
    pub differences: Vec<Difference>,
}

/// A partitioned table whose partitions weren't compared one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Together {
    /// The table with its kind: `TABLE public.film`.
    pub object: String,
    /// How many tables with rows are below it.
    pub partitions: usize,
}

/// Compares `target` with `source`.
///
/// # Errors
/// A connection that can't be made or is lost, catalogs that can't be read, and a cancelled `stop`.
pub async fn run(
    source: &Config,
    target: &Config,
    options: &Options,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Report> {
    progress.set_phase("reading definitions");
    let mut pair = Sessions::open(source, target, options.snapshots.as_ref()).await?;
    // What was copied is compared, unless something else is asked for.
    let migration = migration(&mut pair.target).await;
    let copied = migration.as_ref().and_then(|migration| migration.content.clone());
    let copied = copied.filter(|_| options.ddl.copies_everything());
    let wanted = match copied {
        Some(copied) => ddl::Options { database: options.ddl.database.clone(), ..copied },
        None => options.ddl.clone(),
    };
    let (source_read, target_read) = tokio::try_join!(
        catalog::selection::read(&mut pair.source, &wanted.selection, Unmatched::Refused),
        catalog::selection::read(&mut pair.target, &wanted.selection, Unmatched::Ignored)
    )?;
    let (mut source_definition, target_definition) = (source_read.database, target_read.database);
    // The cutover into the target made it so, which is no difference.
    if migration.as_ref().is_some_and(|migration| migration.source_read_only) {
        let settings = &mut source_definition.properties.settings;
        settings.retain(|setting| !setting.starts_with("default_transaction_read_only="));
    }
    let mut report = Report::default();
    if options.schema {
        let until_cutover = UntilCutover::read(&mut pair.target, migration.as_ref()).await?;
        report.until_cutover = until_cutover.take_back_identities(&mut source_definition);
        let version = pair.target.version();
        let made = ddl::plan(&source_definition, &wanted, version)?;
        // What has another name there has it already.
        let there = ddl::Options { tablespace_mapping: BTreeMap::new(), ..wanted.clone() };
        let found = ddl::plan(&target_definition, &there, version)?;
        let majors = form::Majors { source: source_definition.version / 10_000, target: version / 10_000 };
        report.items = made.items.len() as u64;
        schema::compare(&made, &found, majors, &until_cutover, &mut report);
        report.until_cutover.sort();
    }
    if options.data {
        let measure = Measure::of(&source_definition, &target_definition, options.sample);
        pair.prepare(&measure).await?;
        let large_objects = wanted.selection.includes_large_objects();
        // A stream carries neither sequences nor large objects: they come with the cutover.
        if options.snapshots.is_none() {
            compare_contents(
                &mut pair,
                &source_definition,
                &target_definition,
                &measure,
                large_objects,
                &mut report,
            )
            .await?;
        }
        let pairs = rows::pairs(&source_definition, &target_definition, &mut report.differences);
        let total = pairs.iter().map(|pair| pair.bytes).sum();
        progress.set_phase("comparing rows");
        progress.set_parts(0, pairs.len() as u64, 0, total);
        report.tables = pairs.len() as u64;
        report.together = pairs.iter().filter_map(Pair::together).collect();
        report.together.sort_by(|a, b| a.object.cmp(&b.object));
        let found = compare_rows(pair, pairs, &measure, options, progress, stop).await?;
        report.rows = found.rows;
        report.differences.extend(found.differences);
    }
    report.differences.sort();
    Ok(report)
}

/// The migration that the target holds; `None` where there is none whose state can be read.
async fn migration(target: &mut Connection) -> Option<state::Migration> {
    state::read(target).await.ok().flatten()
}

/// Sequences and large objects, on the first pair of sessions.
async fn compare_contents(
    pair: &mut Sessions,
    source: &Database,
    target: &Database,
    measure: &Measure,
    large_objects: bool,
    report: &mut Report,
) -> Result<()> {
    report.sequences = source.sequences.iter().filter(|s| !s.contents_left_out).count() as u64;
    report.differences.extend(sequence::compare(pair, source, target).await?);
    if large_objects {
        let (large_objects, differences) = large_object::compare(pair, measure).await?;
        report.large_objects = large_objects;
        report.differences.extend(differences);
    }
    Ok(())
}

/// A session of each server.
struct Sessions {
    source: Connection,
    target: Connection,
}

impl Sessions {
    async fn open(
        source: &Config,
        target: &Config,
        snapshots: Option<&(String, String)>,
    ) -> Result<Sessions> {
        let settings = Settings::session();
        let (mut source, mut target) = tokio::try_join!(
            Connection::connect(source, Side::Source, &settings),
            Connection::connect(target, Side::Target, &settings)
        )?;
        if let Some((here, there)) = snapshots {
            tokio::try_join!(adopt(&mut source, here), adopt(&mut target, there))?;
        }
        Ok(Sessions { source, target })
    }

    /// Begins the transactions under the snapshots anew.
    async fn renew(&mut self, snapshots: Option<&(String, String)>, measure: &Measure) -> Result<()> {
        let Some((here, there)) = snapshots else { return Ok(()) };
        tokio::try_join!(self.source.execute("ROLLBACK"), self.target.execute("ROLLBACK"))?;
        tokio::try_join!(adopt(&mut self.source, here), adopt(&mut self.target, there))?;
        self.prepare(measure).await
    }

    async fn prepare(&mut self, measure: &Measure) -> Result<()> {
        let sql = measure.settings();
        tokio::try_join!(self.source.execute(&sql), self.target.execute(&sql))?;
        Ok(())
    }

    fn cancellers(&self) -> [Canceller; 2] {
        [self.source.canceller(), self.target.canceller()]
    }
}

/// Puts a session's transaction under an exported snapshot.
async fn adopt(session: &mut Connection, snapshot: &str) -> Result<()> {
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    session.execute(&format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot))).await
}

/// What came of the comparison of rows.
#[derive(Default)]
struct Found {
    rows: u64,
    differences: Vec<Difference>,
}

/// Compares the tables, the largest first, `jobs` at a time.
async fn compare_rows(
    first: Sessions,
    pairs: Vec<Pair>,
    measure: &Measure,
    options: &Options,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Found> {
    let jobs = options.jobs.clamp(1, pairs.len().max(1));
    let (source, target) = (first.source.config().clone(), first.target.config().clone());
    let queue = Arc::new(Mutex::new(VecDeque::from(pairs)));
    let mut first = Some(first);
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        let (queue, progress, stop) = (queue.clone(), progress.clone(), stop.clone());
        let (source, target, measure) = (source.clone(), target.clone(), *measure);
        let (sessions, options) = (first.take(), options.clone());
        workers.spawn(async move {
            let sessions = match sessions {
                Some(sessions) => sessions,
                None => {
                    let mut sessions = Sessions::open(&source, &target, options.snapshots.as_ref()).await?;
                    sessions.prepare(&measure).await?;
                    sessions
                }
            };
            work(sessions, &options, &queue, &measure, &progress, &stop).await
        });
    }
    let mut all = Found::default();
    // The first failure drops the others, whose sessions end with them.
    while let Some(ended) = workers.join_next().await {
        let found = joined("a comparing task", ended)?;
        all.rows += found.rows;
        all.differences.extend(found.differences);
    }
    Ok(all)
}

async fn work(
    mut sessions: Sessions,
    options: &Options,
    queue: &Mutex<VecDeque<Pair>>,
    measure: &Measure,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Found> {
    let mut found = Found::default();
    let cancellers = sessions.cancellers();
    loop {
        let next = queue.lock().await.pop_front();
        let Some(mut pair) = next else { break };
        let active = progress.begin(pair.object());
        let compared = tokio::select! {
            compared = rows::compare(&mut sessions, &mut pair, measure, options.named_rows) => compared?,
            () = stop.cancelled() => {
                // The servers would go on hashing until they notice that nobody listens. One that is gone needs no word.
                let [source, target] = &cancellers;
                let _ = tokio::join!(source.cancel(), target.cancel());
                return Err(Error::stopped());
            }
        };
        drop(active);
        progress.add_bytes(pair.bytes);
        progress.add_part(compared.rows);
        found.rows += compared.rows;
        if compared.difference.is_some() {
            // What could not be compared has ended the transaction that holds the snapshot.
            sessions.renew(options.snapshots.as_ref(), measure).await?;
        }
        found.differences.extend(compared.difference);
    }
    let Sessions { source, target } = sessions;
    tokio::join!(source.close(), target.close());
    Ok(found)
}
