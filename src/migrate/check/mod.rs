//! What would stand in the way of a migration, found without touching anything.
//!
//! In: a session of each server. Out: every [`Finding`], sorted by severity and object. First all facts are read ([`Facts`]), then a
//! list of pure functions judges them, so that one finding never hides another. What may fail: reading the facts.

mod access;
mod content;
mod extensions;
mod follow;
mod newer;
mod place;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::database::{self, UnknownLocale};
use super::scope::Seen;
use super::{Method, locks, roles, scope, unprivileged};
use crate::catalog;
use crate::catalog::access::Unreadable;
use crate::catalog::builtin::Use;
use crate::catalog::facts::Server;
use crate::catalog::selection::Selected;
use crate::catalog::surroundings::Surroundings;
use crate::config::{Config, SslMode};
use crate::copy::{Snapshot, Workers};
use crate::ddl::{self, Dangling, Plan};
use crate::error::{Error, ErrorKind, Result};
use crate::replication::{self, MissingIdentity, Obstacle};
use crate::schema::role::Role;
use crate::schema::{Database, ObjectId};
use crate::state::{self, Migration};
use crate::wire::Connection;

/// What a finding means for the migration; the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The migration would fail, or must not begin.
    Blocker,
    /// Something will be missing or different on the target.
    Warning,
    /// Good to know.
    Info,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Severity::Blocker => "blocker",
            Severity::Warning => "warning",
            Severity::Info => "info",
        })
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: `target`, `source table "public.film"`.
    pub object: String,
    /// What is the matter: lower case, no full stop.
    pub what: String,
    /// More about it: full sentences, one a line.
    pub detail: Option<String>,
    /// What to do about it: a full sentence.
    pub hint: Option<String>,
}

impl Finding {
    /// A finding without a hint.
    pub fn new(severity: Severity, object: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { severity, object: object.into(), what: what.into(), detail: None, hint: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

/// An error that keeps facts from being read, as a finding of its own.
impl From<&Error> for Finding {
    fn from(error: &Error) -> Finding {
        Finding {
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            ..Finding::new(Severity::Blocker, "connection", error.to_string())
        }
    }
}

/// All that the judging functions look at.
#[derive(Debug)]
pub struct Facts {
    /// The source server.
    pub source: Server,
    /// The target server.
    pub target: Server,
    /// The source's definition.
    pub database: Database,
    /// What the migration would make.
    pub plan: Plan,
    /// What the options say of the plan.
    pub options: ddl::Options,
    /// Items of the plan that the target's role may not create, with the reasons.
    pub unprivileged: BTreeMap<usize, String>,
    /// What objects use of the source's server and the target's doesn't have.
    pub missing: Vec<Use>,
    /// What the target refuses is left out.
    pub keep_going: bool,
    /// Items of the plan that need what is not selected.
    pub dangling: Vec<Dangling>,
    /// Objects that the target has.
    pub present: BTreeSet<ddl::Name>,
    /// The migration that the target holds, or why it can't be gone on with.
    pub migration: std::result::Result<Option<Migration>, Finding>,
    /// Roles that the source database refers to.
    pub roles: Vec<Role>,
    /// What the source's role can't read.
    pub unreadable: Vec<Unreadable>,
    /// Large objects that the source's role can't read.
    pub unreadable_large_objects: u64,
    /// Sessions that the copy opens at the same time, to the source and to the target.
    pub sessions: [u64; 2],
    /// Large objects of the source whose OIDs are taken on the target.
    pub taken_large_objects: u64,
    /// How the database is to be moved.
    pub method: Method,
    /// What is in the way of following the source, unless it is only to be copied.
    pub obstacles: Vec<Obstacle>,
    /// What surrounds the source database.
    pub source_surroundings: Surroundings,
    /// What surrounds the target database.
    pub target_surroundings: Surroundings,
    /// Whether the certificates of source and target are verified.
    pub verified: [bool; 2],
    /// The source shows the passwords of roles as they are stored.
    pub verifiers_readable: bool,
    /// What becomes of passwords.
    pub passwords: roles::Passwords,
    /// Bytes that are free for the target's data directory, where this host can see it.
    pub free_room: Option<u64>,
    /// What the operator allows.
    pub limits: Limits,
    /// The target database isn't there and will be created; `target` is judged as if it had been.
    pub created: Option<Created>,
}

/// A target database that will be created.
#[derive(Debug)]
pub struct Created {
    /// Locales that it needs and the target's host doesn't have.
    pub(super) unknown_locales: Vec<UnknownLocale>,
    /// The role may create databases.
    pub(super) allowed: bool,
    /// The statement that creates it.
    pub(super) statement: String,
}

/// What the operator allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that the source database may hold.
    pub max_total_size: Option<u64>,
    /// A target of an older major will do.
    pub allow_older_target: bool,
}

/// The judging functions.
const CHECKS: &[fn(&Facts) -> Vec<Finding>] = &[
    place::same_database,
    place::versions,
    place::created,
    place::target_can_be_written,
    place::sessions,
    place::encoding,
    place::locale,
    surroundings::size,
    surroundings::large_objects,
    surroundings::settings,
    surroundings::clocks,
    surroundings::collation_versions,
    surroundings::way,
    surroundings::prepared_transactions,
    surroundings::languages,
    content::state,
    content::objects_in_the_way,
    extensions::extensions,
    content::collations,
    content::tablespaces,
    content::security_labels,
    content::not_copied,
    content::dangling,
    content::particular_tables,
    access::roles,
    access::reserved_roles,
    access::passwords,
    access::owners,
    access::unprivileged,
    newer::missing,
    newer::changed,
    newer::tables,
    newer::conversions,
    newer::generated_children,
    access::unreadable,
    follow::obstacles,
];

/// What the migration is meant to be.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// What of the schema is copied.
    pub ddl: &'a ddl::Options,
    /// Workers of the copy.
    pub workers: Workers,
    /// How the database is moved.
    pub method: Method,
    /// What is done about tables without replica identity.
    pub replica_identity: MissingIdentity,
    /// What is done about roles.
    pub roles: &'a roles::Options,
    /// What the target refuses is left out.
    pub keep_going: bool,
    /// What the operator allows.
    pub limits: Limits,
    /// The target database, where it isn't there and is to be created: the session is in another one then.
    pub create: Option<&'a str>,
}

/// What a check came to.
#[derive(Debug)]
pub struct Report {
    /// All findings, sorted.
    pub findings: Vec<Finding>,
    /// Whether the source is to be followed.
    pub follows: bool,
    /// Why it is only copied, where the method was left to pgstream: one sentence each.
    pub fallback: Vec<String>,
    /// What was judged, under a snapshot that is held until it is released; `None` where locks kept it from being read.
    pub seen: Option<Seen>,
}

impl Report {
    /// Lets go of the snapshot.
    pub async fn release(&mut self) {
        if let Some(seen) = self.seen.take() {
            seen.release().await;
        }
    }
}

/// A lock that is gone within this time is nobody's trouble.
const SHORT_LOCK: Duration = Duration::from_secs(2);

/// How long the server waits for a lock that came since.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Reads the facts and judges them.
///
/// # Errors
/// A lost connection, and catalogs that can't be read.
pub async fn run(source: &mut Connection, target: &mut Connection, wanted: &Wanted<'_>) -> Result<Report> {
    // The definitions of tables that are locked can't be read, and waiting for them is not the check's to do.
    // An application's own short locks come and go.
    let begun = Instant::now();
    loop {
        let blockers = catalog::server::blockers(source, None).await?;
        if blockers.is_empty() {
            break;
        }
        if begun.elapsed() > SHORT_LOCK {
            let findings = access::locked(&blockers);
            return Ok(Report { findings, follows: false, fallback: Vec::new(), seen: None });
        }
        tokio::time::sleep(SHORT_LOCK / 10).await;
    }
    locks::limit(source, LOCK_WAIT).await?;
    let (facts, snapshot, whole) = read(source, target, wanted).await?;
    source.execute("SET lock_timeout = 0").await?;
    Ok(Report {
        findings: judge(&facts),
        follows: wanted.method != Method::Copy && follow::is_possible(&facts),
        fallback: follow::reasons(&facts),
        seen: Some(Seen { snapshot, selected: Selected { database: facts.database, whole } }),
    })
}

/// A definition that changes while it is read is read again, so many times in all.
const TRIES: u32 = 3;

async fn see(source: &Config, options: &ddl::Options) -> Result<Seen> {
    let mut tries = 1;
    loop {
        match Seen::read(source, options, LOCK_WAIT).await {
            Err(error) if scope::is_gone(&error) && tries < TRIES => tries += 1,
            seen => return seen,
        }
    }
}

/// The findings of all judging functions, sorted.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(facts)).collect();
    findings.sort();
    findings.dedup();
    findings
}

/// The error that refuses a migration because of `findings`; `None` when no blocker is among them.
pub fn refusal(findings: &[Finding]) -> Option<Error> {
    let blockers: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Blocker).collect();
    let first = blockers.first()?;
    let mut error = match blockers.len() {
        1 => Error::new(ErrorKind::Blocked, format!("{}: {}", first.object, first.what)),
        many => Error::new(ErrorKind::Blocked, format!("{many} findings stand in the way of the migration")),
    };
    if blockers.len() > 1 {
        for finding in &blockers {
            error = error.with_detail(format!("{}: {}.", finding.object, finding.what));
        }
    }
    error = error.with_detail("Nothing has been touched.");
    Some(match (&first.hint, blockers.len()) {
        (Some(hint), 1) => error.with_hint(hint),
        _ => {
            error.with_hint("Run pgstream check with the same options to see all findings with their hints.")
        }
    })
}

/// Besides the workers', each server has the run's own session; the source has one that keeps the snapshot, the target one that sees how far indexes are. Those that
/// the copy goes without where there is no room don't count.
fn sessions(workers: Workers) -> [u64; 2] {
    let (rows, items) = (workers.jobs.max(1) as u64, workers.index_jobs.max(1) as u64);
    [rows + 2, rows + items + 2]
}

fn is_verified(session: &Connection) -> bool {
    matches!(session.config().tls.mode, SslMode::VerifyCa | SslMode::VerifyFull)
}

/// The facts, the snapshot that the source's definition was read under, and the whole definition where that is more than what is judged.
async fn read(
    from: &mut Connection,
    target: &mut Connection,
    wanted: &Wanted<'_>,
) -> Result<(Facts, Snapshot, Option<Database>)> {
    let target_version = target.version();
    let options = wanted.ddl;
    let from_source = async {
        let server = catalog::facts::read(from).await?;
        let Seen { snapshot, selected } = see(from.config(), options).await?;
        let every = catalog::role::Scope::Database;
        let roles = catalog::role::read(from, every, &wanted.roles.exclude).await?;
        let unreadable = catalog::access::read_unreadable(from).await?;
        let unreadable_objects = match options.selection.includes_large_objects() {
            true => catalog::access::count_unreadable_large_objects(from).await?,
            false => 0,
        };
        let obstacles = match wanted.method {
            Method::Copy => Vec::new(),
            Method::Auto | Method::Replication => {
                let mut facts = replication::read_source(from).await?;
                scope::mark(&mut facts.tables, &selected.database, options);
                if facts.may_replicate && facts.free_senders > 0 {
                    facts.refused = replication::refused_session(from.config()).await?;
                }
                replication::obstacles(&facts, wanted.replica_identity)
            }
        };
        Ok::<_, Error>((server, (snapshot, selected), roles, unreadable, unreadable_objects, obstacles))
    };
    let from_target = async {
        let server = catalog::facts::read(target).await?;
        if wanted.create.is_some() {
            return Ok((server, Ok(None), Database::default(), Vec::new()));
        }
        let migration = match state::read(target).await {
            Ok(migration) => Ok(migration),
            Err(error) if error.kind() == ErrorKind::Usage => {
                Err(Finding { object: "target".to_owned(), ..Finding::from(&error) })
            }
            Err(error) => return Err(error),
        };
        let database = catalog::read(target).await?;
        let large_objects = catalog::server::large_objects(target).await?;
        Ok::<_, Error>((server, migration, database, large_objects))
    };
    let (from_source, from_target) = tokio::try_join!(from_source, from_target)?;
    let mut missing = match from.version() / 10_000 < target_version / 10_000 {
        true => catalog::builtin::missing(from, target).await?,
        false => Vec::new(),
    };
    let (mut server, migration, present, large_objects) = from_target;
    let taken_large_objects = if large_objects.is_empty() || !options.selection.includes_large_objects() {
        0
    } else {
        let large_objects: HashSet<u32> = large_objects.into_iter().collect();
        let wanted = catalog::server::large_objects(from).await?;
        wanted.iter().filter(|oid| large_objects.contains(oid)).count() as u64
    };
    let (source, (snapshot, selected), roles, mut unreadable, unreadable_large_objects, obstacles) =
        from_source;
    let Selected { database, whole } = selected;
    if whole.is_some() {
        let objects = database.objects();
        missing.retain(|used| objects.contains(&ObjectId::new(used.class, used.oid)));
    }
    let mut plan = ddl::plan(&database, options, target_version)?;
    let mut unprivileged = unprivileged::items(&database, &plan, &server);
    if options.skip_unprivileged {
        plan.leave_out(&unprivileged);
        unprivileged.clear();
    }
    let created = match wanted.create {
        Some(name) => {
            let properties = &database.properties;
            let unknown_locales = database::unknown_locales(target, properties).await?;
            let statement = ddl::database::create(properties, name, options, target_version);
            Some(Created { unknown_locales, ..create(name, &mut server, &source, statement) })
        }
        None => None,
    };
    let present = ddl::plan(&present, &ddl::Options::default(), target_version)?;
    let dangling = match &whole {
        Some(whole) => ddl::dangling(whole, options, target_version, &plan)?,
        None => Vec::new(),
    };
    let read = |relation: &Unreadable| {
        let tables = database.tables.iter().filter(|t| t.has_rows()).map(|t| (&t.schema, &t.name));
        let sequences =
            database.sequences.iter().filter(|s| !s.contents_left_out).map(|s| (&s.schema, &s.name));
        tables.chain(sequences).any(|name| name == (&relation.schema, &relation.name))
    };
    unreadable.retain(read);
    let target_surroundings = catalog::surroundings::read(target).await?;
    let facts = Facts {
        source_surroundings: catalog::surroundings::read(from).await?,
        free_room: surroundings::free_room(&target_surroundings),
        target_surroundings,
        verified: [is_verified(from), is_verified(target)],
        verifiers_readable: catalog::role::verifiers_readable(from).await?,
        passwords: wanted.roles.passwords,
        limits: wanted.limits,
        plan,
        unprivileged,
        missing,
        keep_going: wanted.keep_going,
        dangling,
        present: present.names(),
        options: options.clone(),
        sessions: sessions(wanted.workers),
        taken_large_objects,
        method: wanted.method,
        obstacles,
        created,
        source,
        target: server,
        database,
        migration,
        roles,
        unreadable,
        unreadable_large_objects,
    };
    Ok((facts, snapshot, whole))
}

/// Makes of the facts of another database of the target those of the one that will be created.
fn create(name: &str, target: &mut Server, source: &Server, statement: String) -> Created {
    let allowed = target.superuser || target.create_database;
    target.database = name.to_owned();
    target.encoding.clone_from(&source.encoding);
    target.locale_provider.clone_from(&source.locale_provider);
    target.collate.clone_from(&source.collate);
    target.ctype.clone_from(&source.ctype);
    target.locale.clone_from(&source.locale);
    target.may_create = true;
    target.extensions.iter_mut().for_each(|extension| extension.installed = None);
    Created { unknown_locales: Vec::new(), allowed, statement }
}
