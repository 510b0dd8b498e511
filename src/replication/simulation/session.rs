//! Sessions of the simulated target: the two query protocols, COPY, and transactions.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BufMut;
use pgstream_proto::lsn::Lsn;
use tokio_util::sync::CancellationToken;

use super::model::{self, Row, TABLES, Value};
use super::random::Random;
use super::statement::{self, Statement};
use super::target::Refused;
use super::wire::{Message, Parameter, Peer};
use super::world::{Shared, World};

/// A session of the target.
pub(super) struct Session {
    world: Shared,
    id: usize,
    peer: Peer,
    random: Random,
    gone: CancellationToken,
    prepared: HashMap<String, Statement>,
    bound: Option<(Statement, Vec<Parameter>)>,
    copy: Option<(usize, Vec<u8>)>,
    synchronous: bool,
    synchronous_here: bool,
    in_block: bool,
    failed: bool,
    /// After an error, up to the next Sync.
    skips: bool,
    /// A commit has failed: what comes was sent before the client could know.
    unaware: bool,
}

/// What a message may take to be worked off, and one that comes from a client which is gone.
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_millis(3000);

/// What a statement gives.
enum Outcome {
    Done(String),
    CopyIn(usize),
    Gone,
}

impl Session {
    /// `gone` is told when the client is, which the server notices late, and tells where the connection is to break.
    pub(super) fn new(
        world: Shared,
        id: usize,
        peer: Peer,
        random: Random,
        gone: CancellationToken,
    ) -> Session {
        Session {
            world,
            id,
            peer,
            random,
            gone,
            prepared: HashMap::new(),
            bound: None,
            copy: None,
            synchronous: true,
            synchronous_here: false,
            in_block: false,
            failed: false,
            skips: false,
            unaware: false,
        }
    }

    /// Serves the session until the client goes.
    pub(super) async fn run(mut self) {
        self.serve().await;
    }

    async fn serve(&mut self) -> Option<()> {
        let version = self.world.lock().plan.target_version;
        self.peer.let_in(version, self.id).await?;
        loop {
            let message = self.peer.message().await?;
            self.linger().await;
            match message {
                Message::Terminate => return None,
                Message::Query(sql) => {
                    self.query(&sql).await?;
                    self.linger().await;
                }
                Message::Sync => {
                    self.sync();
                    self.linger().await;
                }
                Message::CopyData(data) => {
                    if let Some((_, all)) = &mut self.copy {
                        all.extend_from_slice(&data);
                    }
                }
                _ if self.skips => {}
                Message::Parse { name, sql } => match statement::read(&sql) {
                    Some(statement) => {
                        self.prepared.insert(name, statement);
                        self.peer.frame(b'1', |_| {});
                    }
                    None => {
                        self.world.lock().fail(format!("the simulated target does not understand: {sql}"));
                        return None;
                    }
                },
                Message::Bind { statement, parameters } => {
                    let Some(statement) = self.prepared.get(&statement).cloned() else {
                        self.world.lock().fail(format!("there is no prepared statement \"{statement}\""));
                        return None;
                    };
                    self.bound = Some((statement, parameters));
                    self.peer.frame(b'2', |_| {});
                }
                Message::Execute => {
                    if let Some((statement, parameters)) = self.bound.take() {
                        self.execute(&statement, &parameters).await?;
                    }
                }
                Message::CopyDone => self.copy_done(),
                Message::Close(name) => {
                    self.prepared.remove(&name);
                    self.peer.frame(b'3', |_| {});
                }
                Message::Flush => {}
            }
        }
    }

    /// Takes time, now and then; and loses its client, at the worst of times: in the middle of what it was sent. Whoever has lost its client works off what it
    /// has got, a commit perhaps, while the client is back in another session.
    async fn linger(&mut self) {
        if !self.world.lock().chaos {
            return;
        }
        if self.random.once_in(400) {
            self.gone.cancel();
        }
        let (often, longest) = if self.gone.is_cancelled() { (3, LONG) } else { (100, SHORT) };
        if self.random.once_in(often) {
            tokio::time::sleep(self.random.time(longest)).await;
        }
    }

    /// A statement by the simple protocol: a transaction of its own.
    async fn query(&mut self, sql: &str) -> Option<()> {
        let Some(statement) = statement::read(sql.trim_end().trim_end_matches(';')) else {
            self.world.lock().fail(format!("the simulated target does not understand: {sql}"));
            return None;
        };
        self.execute(&statement, &[]).await?;
        self.sync();
        Some(())
    }

    fn sync(&mut self) {
        if !self.in_block {
            self.end(!self.failed);
        }
        self.skips = false;
        let status = match (self.in_block, self.failed) {
            (false, _) => b'I',
            (true, false) => b'T',
            (true, true) => b'E',
        };
        self.peer.ready(status);
    }

    /// Ends the transaction.
    fn end(&mut self, commits: bool) {
        let wait = self.synchronous || self.synchronous_here;
        let mut world = self.world.lock();
        if commits {
            world.commit(self.id, wait);
        } else {
            world.roll_back(self.id);
        }
        (self.in_block, self.failed, self.synchronous_here) = (false, false, false);
    }

    fn refuse(&mut self, (sqlstate, message): Refused) {
        self.peer.error(sqlstate, message);
        (self.skips, self.failed, self.copy) = (true, true, None);
    }

    async fn execute(&mut self, statement: &Statement, parameters: &[Parameter]) -> Option<()> {
        if self.failed && !matches!(statement, Statement::Commit | Statement::Rollback) {
            self.refuse(("25P02", "current transaction is aborted"));
            return Some(());
        }
        if statement.writes() {
            let released = self.world.lock().released.clone();
            loop {
                let released = released.notified();
                if self.world.lock().target.may_write(self.id) {
                    break;
                }
                released.await;
            }
        }
        if matches!(statement, Statement::Commit) && self.world.lock().chaos {
            self.world.lock().committing.notify_waiters();
            // Whoever waits for that has the time to kill the client.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.linger().await;
        }
        let outcome = self.outcome(statement, parameters);
        match outcome {
            Ok(Outcome::Done(tag)) => self.peer.complete(&tag),
            Ok(Outcome::CopyIn(table)) => {
                self.copy = Some((table, Vec::new()));
                let columns = TABLES[table].columns.len();
                self.peer.frame(b'G', |out| {
                    out.put_u8(0);
                    out.put_u16(columns as u16);
                    out.put_bytes(0, 2 * columns);
                });
            }
            Ok(Outcome::Gone) => return None,
            Err(refused) => {
                self.refuse(refused);
                // A commit that fails ends the transaction all the same: what was sent behind it is read as if nothing had been.
                let commit = matches!(statement, Statement::Commit);
                (self.failed, self.unaware) = (self.failed && !commit, self.unaware || commit);
            }
        }
        Some(())
    }

    fn outcome(&mut self, statement: &Statement, parameters: &[Parameter]) -> Result<Outcome, Refused> {
        let world = self.world.clone();
        let mut world = world.lock();
        if statement.writes()
            && let Some(refused) = world.refusal(&mut self.random)
        {
            return Err(refused);
        }
        let done = |tag: &str| Ok(Outcome::Done(tag.to_owned()));
        match statement {
            Statement::Setting(tag) => done(tag),
            Statement::Synchronous(on) => {
                self.synchronous = *on;
                done("SET")
            }
            Statement::SynchronousHere => {
                self.synchronous_here = true;
                done("SET")
            }
            Statement::Silence if world.plan.may_silence => done("SET"),
            Statement::Silence => Err(("42501", "permission denied to set parameter")),
            Statement::Begin => {
                self.in_block = true;
                done("BEGIN")
            }
            Statement::Commit if !self.failed && world.refuses_commit(&mut self.random) => {
                drop(world);
                self.end(false);
                Err(("40001", "could not serialize access (simulated)"))
            }
            Statement::Commit => {
                let commits = !self.failed;
                // A server may go between the commit and its answer.
                let lost = world.chaos && self.random.once_in(100);
                drop(world);
                self.end(commits);
                match (lost, commits) {
                    (true, _) => Ok(Outcome::Gone),
                    (_, true) => done("COMMIT"),
                    (_, false) => done("ROLLBACK"),
                }
            }
            Statement::Rollback => {
                drop(world);
                self.end(false);
                done("ROLLBACK")
            }
            Statement::WriteLog => {
                world.flusher = Some(self.id);
                if self.synchronous {
                    world.target.write_log();
                }
                self.peer.row(&[Some("0/0")]);
                done("SELECT 1")
            }
            Statement::TryLock => {
                let granted = world.locks.take(number(parameters, 0), self.id, false);
                self.peer.row(&[Some(if granted { "t" } else { "f" })]);
                done("SELECT 1")
            }
            Statement::ShareLock(key) => {
                world.locks.take(*key, self.id, true);
                self.peer.row(&[None]);
                done("SELECT 1")
            }
            Statement::IsLockFree => {
                let key = number(parameters, 0);
                let free = world.locks.take(key, self.id, false);
                if free {
                    world.locks.release(key, self.id);
                }
                self.peer.row(&[Some(if free { "t" } else { "f" }), Some("f")]);
                done("SELECT 1")
            }
            Statement::LockHolders => {
                let key = number(parameters, 0) << 32 | number(parameters, 1);
                for session in world.locks.holders(key).filter(|session| *session != self.id) {
                    self.peer.row(&[Some(&session.to_string()), None, None, None, Some("t")]);
                }
                done("SELECT")
            }
            Statement::Terminate => {
                if let Some(end) = world.sessions.get(&(number(parameters, 0) as usize)) {
                    end.cancel();
                }
                self.peer.row(&[Some("t")]);
                done("SELECT 1")
            }
            Statement::Fixed(value) => {
                self.peer.row(&[Some(value)]);
                done("SELECT 1")
            }
            Statement::Nothing => done("SELECT 0"),
            Statement::ReadCheckpoint => {
                let applied = world.target.committed_checkpoint.to_string();
                let generation = world.target.committed_generation.to_string();
                let row = [Some("7"), Some("1"), Some("simulated"), Some(&*applied), None, Some("now")];
                self.peer.row(&[&row[..], &[Some(&*generation)]].concat());
                done("SELECT 1")
            }
            Statement::TouchCheckpoint => done("UPDATE 1"),
            Statement::Describe { first, limit } => {
                let mut tables: Vec<_> = TABLES.iter().filter(|table| table.name >= first.as_str()).collect();
                tables.sort_by_key(|table| table.name);
                tables.truncate(*limit);
                for table in &tables {
                    self.peer.row(&[Some("0"), Some(&table.description())]);
                }
                done(&format!("SELECT {}", tables.len()))
            }
            change => {
                world.is_unaware = self.unaware;
                let outcome = self.change(&mut world, change, parameters);
                if let Err((_, message)) = outcome {
                    world.misfit(message);
                }
                outcome
            }
        }
    }

    fn change(
        &mut self,
        world: &mut World,
        statement: &Statement,
        parameters: &[Parameter],
    ) -> Result<Outcome, Refused> {
        let target = &mut world.target;
        let value = |n: usize| text(parameters.get(n));
        let rows = match statement {
            Statement::Exactly(count, statement) => {
                return match self.change(world, statement, parameters)? {
                    Outcome::Done(tag) if tag.ends_with(&format!(" {count}")) => {
                        Ok(Outcome::Done("SELECT 1".to_owned()))
                    }
                    _ => Err(("22012", "division by zero")),
                };
            }
            Statement::Advance { compares } => {
                let row = |lsn: usize, generation: usize| {
                    (Lsn(number(parameters, lsn) as u64), number(parameters, generation))
                };
                target.advance(compares.then(|| row(0, 3)), row(1, 4))?;
                return Ok(Outcome::Done("SELECT 1".to_owned()));
            }
            Statement::Copy(table) => return Ok(Outcome::CopyIn(*table)),
            Statement::Insert(table) => {
                target.insert(*table, parameters.iter().map(|p| text(Some(p))).collect())?;
                return Ok(Outcome::Done("INSERT 0 1".to_owned()));
            }
            Statement::Truncate(tables) => {
                tables.iter().for_each(|&table| target.delete_where(table, |_| true));
                return Ok(Outcome::Done("TRUNCATE TABLE".to_owned()));
            }
            Statement::DeleteRanges { table, ranges } => {
                let inside = |key: i64| {
                    ranges.iter().any(|(lower, upper)| {
                        lower.is_none_or(|lower| lower <= key) && upper.is_none_or(|upper| key < upper)
                    })
                };
                target.delete_where(*table, |row| inside(model::key(row)));
                0
            }
            Statement::Look { table, row } => {
                let found = target.find(*table, row, value).len();
                world.reached(found, 1);
                return Ok(Outcome::Done(format!("SELECT {found}")));
            }
            Statement::Update { table, set, row } => {
                let key = |n: usize| value(n);
                let places = target.find(*table, row, key);
                for &at in &places {
                    let set = set.iter().enumerate().map(|(n, &column)| (column, value(n)));
                    target.update(*table, at, set)?;
                }
                world.reached(places.len(), 1);
                return Ok(Outcome::Done(format!("UPDATE {}", places.len())));
            }
            Statement::Delete { table, row } => {
                let places = target.find(*table, row, value);
                places.iter().for_each(|&at| target.delete(*table, at));
                world.reached(places.len(), 1);
                places.len()
            }
            Statement::UpdateMany { table, set, key } => {
                let mut updated = 0;
                for n in 0..len(parameters) {
                    for at in target.find(*table, &one(key), |array| element(parameters, array, n)) {
                        let values =
                            set.iter().map(|&(column, array)| (column, element(parameters, array, n)));
                        target.update(*table, at, values.collect::<Vec<_>>())?;
                        updated += 1;
                    }
                }
                world.reached(updated, len(parameters));
                return Ok(Outcome::Done(format!("UPDATE {updated}")));
            }
            Statement::DeleteMany { table, key } => {
                let mut deleted = 0;
                for n in 0..len(parameters) {
                    for at in target.find(*table, &one(key), |array| element(parameters, array, n)) {
                        target.delete(*table, at);
                        deleted += 1;
                    }
                }
                world.reached(deleted, len(parameters));
                deleted
            }
            other => {
                world.fail(format!("no change: {other:?}"));
                0
            }
        };
        Ok(Outcome::Done(format!("DELETE {rows}")))
    }

    fn copy_done(&mut self) {
        let Some((table, data)) = self.copy.take() else { return };
        let world = self.world.clone();
        let mut world = world.lock();
        world.is_unaware = self.unaware;
        let text = String::from_utf8(data).expect("values are UTF-8");
        let rows: Vec<Row> = text.lines().map(|line| line.split('\t').map(copied).collect()).collect();
        let count = rows.len();
        match rows.into_iter().try_for_each(|row| world.target.insert(table, row)) {
            Ok(()) => self.peer.complete(&format!("COPY {count}")),
            Err(refused) => {
                world.misfit(refused.1);
                self.refuse(refused);
            }
        }
    }
}

/// A value of COPY's text form.
fn copied(field: &str) -> Value {
    if field == "\\N" {
        return None;
    }
    let mut value = String::new();
    let mut characters = field.chars();
    while let Some(c) = characters.next() {
        value.push(match c {
            '\\' => match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    Some(value.into())
}

fn text(parameter: Option<&Parameter>) -> Value {
    match parameter {
        Some(Parameter::Text(text)) => text.as_deref().map(Into::into),
        _ => None,
    }
}

fn number(parameters: &[Parameter], n: usize) -> i64 {
    match parameters.get(n) {
        Some(Parameter::Number(number)) => *number,
        parameter => text(parameter).and_then(|text| text.parse().ok()).unwrap_or_default(),
    }
}

fn len(parameters: &[Parameter]) -> usize {
    match parameters.first() {
        Some(Parameter::Array(values)) => values.len(),
        _ => 0,
    }
}

fn element(parameters: &[Parameter], array: usize, n: usize) -> Value {
    match parameters.get(array) {
        Some(Parameter::Array(values)) => values.get(n)?.as_deref().map(Into::into),
        _ => None,
    }
}

/// The rows whose key's columns are equal to these arrays' elements.
fn one(key: &[(usize, usize)]) -> statement::Found {
    statement::Found { equal: key.to_vec(), null: Vec::new(), any_one: false }
}
