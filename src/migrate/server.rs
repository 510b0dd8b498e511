//! Whole servers: every database by itself, several at the same time.
//!
//! In: [`Options`] whose connection parameters name any database of either server. Out: what came of each database, and of the roles,
//! which are made once for all. A database that fails stops no other one; what may fail here is only reading the list.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::check::{self, Finding, Limits, Severity};
use super::{Options, Outcome};
use crate::catalog::cluster;
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::sql::ident;
use crate::state;
use crate::wire::{Connection, Settings};

/// Databases that providers of managed servers keep for themselves.
const PROVIDERS: [&str; 9] = [
    "rdsadmin",
    "cloudsqladmin",
    "azure_maintenance",
    "azure_sys",
    "_aiven",
    "alloydbadmin",
    "alloydbmetadata",
    "_dodb",
    "_crunchy",
];

/// The databases of a server.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Those that are asked for and can be connected to, largest first.
    pub names: Vec<String>,
    /// Those that can't.
    pub passed_over: Vec<PassedOver>,
    /// Bytes that `names` hold together.
    pub bytes: u64,
}

impl Listing {
    /// Says that the databases hold more than the operator allows together.
    pub fn too_large(&self, limits: &Limits) -> Option<Finding> {
        let limit = limits.max_total_size.filter(|limit| self.bytes > *limit)?;
        let what = format!("hold {} bytes together, more than the {limit} that are allowed", self.bytes);
        let finding = Finding::new(Severity::Blocker, "source databases", what);
        Some(
            finding.with_hint("Allow more with --max-total-size, or leave some out with --exclude-database."),
        )
    }
}

/// A database that nobody gets into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// What would mend it; `None` for a provider's own database.
    pub hint: Option<String>,
}

/// Lists the databases of a server, those left out that match one of the regular expressions `exclude`.
///
/// # Errors
/// As [`Connection::connect`], and a usage error for an expression that the server refuses.
pub async fn list(config: &Config, side: Side, exclude: &[String]) -> Result<Listing> {
    let mut session = Connection::connect(config, side, &Settings::session()).await?;
    let databases = cluster::databases(&mut session, exclude).await?;
    session.close().await;
    let mut listing = Listing::default();
    for database in databases.into_iter().filter(|database| !database.excluded) {
        let name = ident(&database.name);
        let (reason, hint) = if PROVIDERS.contains(&database.name.as_str()) {
            ("it belongs to the provider of the server".to_owned(), None)
        } else if !database.allows_connections {
            let hint = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true;");
            ("it allows no connections".to_owned(), Some(hint))
        } else if !database.may_connect {
            let hint = format!("GRANT CONNECT ON DATABASE {name} TO {};", ident(&config.user));
            (format!("role \"{}\" has no CONNECT right on it", config.user), Some(hint))
        } else {
            listing.bytes += database.bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
            listing.names.push(database.name);
            continue;
        };
        listing.passed_over.push(PassedOver { name: database.name, reason, hint });
    }
    Ok(listing)
}

/// What came of one database.
#[derive(Debug)]
pub struct Moved {
    /// Its name.
    pub name: String,
    /// `copy` or `replication`; empty where the target doesn't say.
    pub method: String,
    /// How its migration ended.
    pub result: Result<Outcome>,
}

impl Moved {
    /// What came of the database of that name: where it has not ended well, the method is that of the target's state.
    pub async fn of(name: String, result: Result<Outcome>, target: &Config) -> Moved {
        let method = match &result {
            Ok(outcome) => outcome.method.clone(),
            // Not to wait for a server that is away once more.
            Err(error) if error.kind() == ErrorKind::Connection => String::new(),
            Err(_) => method_of(&target.with_dbname(&name)).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "could not see how database \"{name}\" was moved");
                String::new()
            }),
        };
        Moved { name, method, result }
    }
}

async fn method_of(target: &Config) -> Result<String> {
    let mut session = Connection::connect(target, Side::Target, &Settings::session()).await?;
    let migration = state::read(&mut session).await?;
    session.close().await;
    Ok(migration.map(|migration| migration.method).unwrap_or_default())
}

/// What came of a whole server.
#[derive(Debug)]
pub struct ServerOutcome {
    /// Each database, in the order of the list.
    pub databases: Vec<Moved>,
    /// Databases that nobody gets into.
    pub passed_over: Vec<PassedOver>,
    /// Time that this run took.
    pub elapsed: Duration,
}

/// The options for one database of the server.
pub fn for_database(options: &Options, name: &str) -> Options {
    Options {
        source: options.source.with_dbname(name),
        target: options.target.with_dbname(name),
        ..options.clone()
    }
}

/// Moves each database of the source into the one of the same name on the target. `options.turns` says how many are copied at once.
///
/// # Errors
/// Only of reading the list: what happens to a database is its own result.
pub async fn run(
    options: &Options,
    exclude: &[String],
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<ServerOutcome> {
    let begun = Instant::now();
    progress.set_phase("moving databases");
    let listing = list(&options.source, Side::Source, exclude).await?;
    if let Some(refusal) = check::refusal(listing.too_large(&options.limits).as_slice()) {
        return Err(refusal);
    }
    let Listing { names, passed_over, .. } = listing;
    let databases = each(&names, progress, |name, progress| {
        let (options, stop) = (for_database(options, &name), stop.clone());
        async move {
            let result = super::start(&options, &progress, &stop).await;
            if let Err(error) = &result {
                progress.warn(format!("ended: {error}"), None);
            }
            result
        }
    })
    .await;
    let databases = moved(databases, &options.target).await;
    Ok(ServerOutcome { databases, passed_over, elapsed: begun.elapsed() })
}

/// What came of each database, by the results that [`each`] gave.
pub async fn moved(results: Vec<(String, Result<Outcome>)>, target: &Config) -> Vec<Moved> {
    let mut databases = Vec::with_capacity(results.len());
    for (name, result) in results {
        databases.push(Moved::of(name, result, target).await);
    }
    databases
}

/// Does `work` for each database, all at the same time, and gives the results in the order of `names`.
pub async fn each<T, W, F>(names: &[String], progress: &Arc<Progress>, work: W) -> Vec<(String, Result<T>)>
where
    T: Send + 'static,
    W: Fn(String, Arc<Progress>) -> F,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for (index, name) in names.iter().enumerate() {
        let (own, all, name) = (progress.add_database(name), progress.clone(), name.clone());
        let work = work(name.clone(), own);
        tasks.spawn(async move {
            let result = work.await;
            all.end_database(&name, result.as_ref().err().map(Error::to_string));
            (index, result)
        });
    }
    let mut results: Vec<Option<Result<T>>> = names.iter().map(|_| None).collect();
    while let Some(ended) = tasks.join_next().await {
        if let Ok((index, result)) = ended
            && let Some(place) = results.get_mut(index)
        {
            *place = Some(result);
        }
    }
    // A task that gave nothing has panicked, and said so on standard error.
    let broken = || Err(Error::failed("its task ended by a programming error; the message stands above"));
    names.iter().cloned().zip(results.into_iter().map(|result| result.unwrap_or_else(broken))).collect()
}
