//! All that one simulation knows, and the rules that hold at every moment of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::random::Random;
use super::source::Source;
use super::target::{Locks, Refused, Target};

/// What a seed decides at the start.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) source_version: u32,
    pub(super) target_version: u32,
    pub(super) wal_sender_timeout: Duration,
    /// Whether the target's role may set `session_replication_role`.
    pub(super) may_silence: bool,
    /// Changes of a transaction from which on it is streamed while it runs.
    pub(super) chunk: usize,
    /// How often the target makes commits durable that nobody waits for.
    pub(super) log_writer: Option<Duration>,
    pub(super) streaming: bool,
    pub(super) memory: usize,
    pub(super) idle_advance: Duration,
    /// How long the application pauses between two steps at most.
    pub(super) pace: Duration,
    /// How long bytes are under way at most.
    pub(super) latency: Duration,
    /// How long everything fails now and then.
    pub(super) chaos: Duration,
}

impl Plan {
    pub(super) fn new(random: &mut Random) -> Plan {
        let ms = Duration::from_millis;
        Plan {
            source_version: random.of(&[100_023, 130_010, 140_010, 150_018, 160_004, 180_004]),
            target_version: random.of(&[100_023, 150_018, 180_004]),
            wal_sender_timeout: random.of(&[ms(1000), ms(3000), ms(60_000)]),
            may_silence: !random.once_in(4),
            chunk: random.of(&[1, 2, 5, 30]),
            log_writer: random.of(&[None, Some(ms(20)), Some(ms(200))]),
            streaming: !random.once_in(5),
            memory: random.of(&[0, 200, 1 << 20]),
            idle_advance: random.of(&[ms(20), ms(1000), ms(10_000)]),
            pace: random.of(&[ms(0), ms(3), ms(30), ms(200)]),
            latency: random.of(&[ms(0), ms(0), ms(2), ms(40)]),
            chaos: ms(500 + random.below(8000) as u64),
        }
    }
}

/// What happened, for the report.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statistics {
    pub(super) source_commits: u64,
    pub(super) target_commits: u64,
    pub(super) sessions: u64,
    pub(super) reports: u64,
    pub(super) faults: u64,
    pub(super) starts: u64,
    /// A hash of what happened and when: the same seed gives the same.
    pub(super) trace: u64,
}

/// A server's way to all its sessions.
#[derive(Debug)]
pub(super) struct Server {
    /// Ends every session at once.
    pub(super) down: CancellationToken,
    /// From when on it takes connections.
    pub(super) up_at: Instant,
    /// What cuts the connections to it: at once on both sides, or the client's alone, so that the server works off what it has got.
    pub(super) lines: Vec<Cut>,
}

/// Ways to cut a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut {
    pub(super) both: CancellationToken,
    pub(super) client: CancellationToken,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) source: Source,
    pub(super) target: Target,
    /// The source's server and the target's.
    pub(super) servers: [Server; 2],
    /// What ends each session of the target, and the advisory locks that they hold.
    pub(super) sessions: HashMap<usize, CancellationToken>,
    pub(super) locks: Locks,
    /// Whether things fail.
    pub(super) chaos: bool,
    /// Nothing moves on the network before.
    pub(super) stalled_until: Instant,
    /// The source has written to its log.
    pub(super) written: Arc<Notify>,
    /// A transaction of the target is about to commit.
    pub(super) committing: Arc<Notify>,
    /// Whether the change at hand was sent before its client could know that the commit in front of it failed: it may find anything.
    pub(super) is_unaware: bool,
    /// A transaction of the target has ended.
    pub(super) released: Arc<Notify>,
    /// The session of the target that made commits of others durable last.
    pub(super) flusher: Option<usize>,
    pub(super) statistics: Statistics,
    began: Instant,
    failure: Option<String>,
    pub(super) failed: CancellationToken,
}

/// The world, as every task has it.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new(world: World) -> Shared {
        Shared(Arc::new(Mutex::new(world)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    pub(super) fn new(plan: Plan, source: Source, target: Target) -> World {
        let server = || Server { down: CancellationToken::new(), up_at: Instant::now(), lines: Vec::new() };
        World {
            plan,
            source,
            target,
            servers: [server(), server()],
            sessions: HashMap::new(),
            locks: Locks::default(),
            chaos: true,
            stalled_until: Instant::now(),
            written: Arc::default(),
            committing: Arc::default(),
            is_unaware: false,
            released: Arc::default(),
            flusher: None,
            statistics: Statistics::default(),
            began: Instant::now(),
            failure: None,
            failed: CancellationToken::new(),
        }
    }

    /// A rule is broken; the first one counts.
    pub(super) fn fail(&mut self, what: String) {
        let at = self.began.elapsed();
        self.failure.get_or_insert_with(|| format!("after {at:?}: {what}"));
        self.failed.cancel();
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn trace(&mut self, number: u64) {
        let time = self.began.elapsed().as_micros() as u64;
        for number in [time, number] {
            self.statistics.trace = (self.statistics.trace ^ number).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A transaction of the target commits. **Whole transactions, each once, in order**: the target holds what the source held at the
    /// position that commits with it.
    pub(super) fn commit(&mut self, session: usize, wait: bool) {
        if !self.target.commit(session, wait) {
            return;
        }
        self.released.notify_waiters();
        self.statistics.target_commits += 1;
        self.trace(self.target.committed_checkpoint.0);
        self.compare("after a commit");
    }

    /// A session of the target has ended, by whatever.
    pub(super) fn session_ended(&mut self, session: usize) {
        self.roll_back(session);
        self.locks.release_all(session);
        self.sessions.remove(&session);
    }

    pub(super) fn roll_back(&mut self, session: usize) {
        self.target.roll_back(session);
        self.released.notify_waiters();
    }

    /// Compares the target with what its checkpoint says.
    pub(super) fn compare(&mut self, when: &str) {
        let checkpoint = self.target.checkpoint;
        let expected = self.source.expected(checkpoint, &self.target.snapshots);
        if *self.target.digests() != expected {
            let regions = (0..expected.len()).filter(|&r| self.target.digests()[r] != expected[r]);
            let regions: Vec<usize> = regions.collect();
            self.fail(format!(
                "{when}, the target is not what the source was at {checkpoint}: regions {regions:?}"
            ));
        }
    }

    /// A statement can't be executed on the rows that there are. **Each change finds the rows that it expects**: a retry mends what a session left behind
    /// that should not have been there any more, and would hide it.
    pub(super) fn misfit(&mut self, message: &str) {
        if !self.is_unaware {
            self.fail(format!("the target refuses a change: {message}"));
        }
    }

    /// So many rows were reached by a statement that is about so many.
    pub(super) fn reached(&mut self, rows: usize, expected: usize) {
        if rows != expected {
            self.misfit(&format!("{rows} rows were reached, and not {expected}"));
        }
    }

    /// pgstream reports to the source. **Nothing is reported that a crash of the target could take away, and no position goes back.**
    pub(super) fn reported(&mut self, (write, flush): (Lsn, Lsn), before: Option<(Lsn, Lsn)>) {
        self.statistics.reports += 1;
        self.trace(flush.0);
        let (durable, end) = (self.target.durable_checkpoint, self.source.end());
        if flush > durable {
            self.fail(format!("{flush} is reported as durable, and the target would come back at {durable}"));
        }
        if write < flush || flush > end {
            self.fail(format!("write {write} and flush {flush} are reported, and the log ends at {end}"));
        }
        if before.is_some_and(|(before_write, before_flush)| write < before_write || flush < before_flush) {
            self.fail(format!("{write} and {flush} are reported after {before:?}"));
        }
    }

    /// The source takes in a report. **No position goes back**, from one stream to the next either: a server may believe it.
    pub(super) fn confirm(&mut self, flush: Lsn) {
        let before = std::mem::replace(&mut self.source.reported, flush);
        if flush < before {
            self.fail(format!("{flush} is reported as durable after {before} in an earlier stream"));
        }
        self.source.confirmed = self.source.confirmed.max(flush);
    }

    /// An error that a statement meets by chance.
    pub(super) fn refusal(&mut self, random: &mut Random) -> Option<Refused> {
        if !self.chaos || !random.once_in(400) {
            return None;
        }
        self.statistics.faults += 1;
        Some(random.of(&[
            ("40P01", "deadlock detected (simulated)"),
            ("40P01", "deadlock detected (simulated)"),
            ("55P03", "canceling statement due to lock timeout (simulated)"),
            ("53100", "could not extend file (simulated)"),
            ("57P01", "terminating connection due to administrator command (simulated)"),
        ]))
    }

    /// Whether a commit fails by chance, as one does whose deferred constraints are not met.
    pub(super) fn refuses_commit(&mut self, random: &mut Random) -> bool {
        let refuses = self.chaos && random.once_in(150);
        self.statistics.faults += u64::from(refuses);
        refuses
    }

    /// A server crashes, and is back after a while.
    pub(super) fn crash(&mut self, which: usize, back_in: Duration) {
        self.statistics.faults += 1;
        self.servers[which].down.cancel();
        self.servers[which].down = CancellationToken::new();
        self.servers[which].up_at = Instant::now() + back_in;
        match which {
            0 => self.source.crash(),
            _ => {
                self.target.crash();
                self.released.notify_waiters();
                self.compare("after a crash");
            }
        }
    }
}

impl std::ops::Add for Statistics {
    type Output = Statistics;

    fn add(self, other: Statistics) -> Statistics {
        Statistics {
            source_commits: self.source_commits + other.source_commits,
            target_commits: self.target_commits + other.target_commits,
            sessions: self.sessions + other.sessions,
            reports: self.reports + other.reports,
            faults: self.faults + other.faults,
            starts: self.starts + other.starts,
            trace: self.trace ^ other.trace,
        }
    }
}
