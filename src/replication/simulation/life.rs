//! One life of a migration's stream: the application writes, everything fails now and then, and pgstream is started again and again, until the failing
//! ends and the stream has to reach the end.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::model::{REGIONS, SPLIT, SPLIT_AT, TABLES, Table, table_of};
use super::network;
use super::random::Random;
use super::source::Source;
use super::target::Target;
use super::world::{Plan, Shared, Statistics, World};
use crate::config::{Config, Environment, Side, resolve};
use crate::error::{Error, ErrorKind};
use crate::progress::StreamProgress;
use crate::replication::{Ended, Filter, Options, PartRule, SnapshotRule, follow};
use crate::state;
use crate::wire::{Connection, Settings};

/// How long the stream may take to reach the end once nothing fails any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Within what time servers have noticed the last of what failed.
pub(super) const NOTICED: Duration = Duration::from_secs(4);

/// Lives the life of a seed; what rule was broken, if one was. Spilled transactions go to `directory`.
pub(super) fn live(seed: u64, directory: &Path) -> Result<Statistics, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut random = Random::new(seed);
        let (world, filter) = create(&mut random);
        let _network = network::install(&world, random.fork());
        let failed = world.lock().failed.clone();
        let ended = tokio::select! {
            biased;
            () = failed.cancelled() => Ok(()),
            ended = unfold(&world, filter, &mut random, directory) => ended,
        };
        let world = world.lock();
        match (world.failure(), ended) {
            (Some(failure), _) | (None, Err(failure)) => Err(failure),
            (None, Ok(())) => Ok(world.statistics),
        }
    })
}

/// A source with a past, and a target that was copied from it: some of it at the slot's position, some later.
fn create(random: &mut Random) -> (Shared, Filter) {
    let plan = Plan::new(random);
    let mut source = Source::new(random.fork());
    (0..random.below(300)).for_each(|_| source.step());
    let start = source.end();
    (source.confirmed, source.confirmed_on_disk) = (start, start);
    let mut target = Target::new(start);
    let mut left: Vec<usize> = (0..REGIONS).collect();
    while !left.is_empty() {
        let late = left.iter().filter(|_| random.once_in(3)).copied().collect::<Vec<_>>();
        for region in left.into_iter().filter(|region| !late.contains(region)) {
            target.snapshots[region] = source.end();
            target.load(table_of(region), source.region(region));
        }
        left = late;
        (0..random.below(100)).for_each(|_| source.step());
    }
    let part = |lower, upper, region: usize| PartRule { lower, upper, lsn: target.snapshots[region] };
    let parts = vec![part(None, Some(SPLIT_AT), SPLIT), part(Some(SPLIT_AT), None, SPLIT + 1)];
    let mut rules: HashMap<u32, SnapshotRule> = (0..TABLES.len())
        .map(|table| (Table::oid(table), SnapshotRule::From(target.snapshots[table])))
        .collect();
    rules.insert(Table::oid(SPLIT), SnapshotRule::Parts { column: "id".to_owned(), parts });
    let mut world = World::new(plan, source, target);
    world.compare("after the copy");
    (Shared::new(world), Filter::new(rules))
}

async fn unfold(world: &Shared, filter: Filter, random: &mut Random, directory: &Path) -> Result<(), String> {
    let ends = Instant::now() + world.lock().plan.chaos;
    network::spawn(world, application(world.clone(), random.fork()));
    network::spawn(world, servers(world.clone(), random.fork()));
    network::spawn(world, chaos(world.clone(), random.fork(), ends));
    let operator = Operator { world: world.clone(), options: options(world, directory)?, filter };
    while Instant::now() < ends {
        operator.run_for_a_while(random).await?;
        tokio::time::sleep(random.time(Duration::from_millis(500))).await;
    }
    {
        let mut world = world.lock();
        world.chaos = false;
        world.stalled_until = Instant::now();
        world.servers.iter_mut().for_each(|server| server.up_at = Instant::now());
        world.source.step();
    }
    tokio::time::sleep(NOTICED).await;
    let until = operator.run_to_the_end().await?;
    let mut world = world.lock();
    world.statistics.source_commits = world.source.commits.len() as u64;
    // What was reached survives.
    world.crash(1, Duration::ZERO);
    reached(&world, until)
}

fn config(side: Side) -> Result<Config, String> {
    let text = format!("host=/{side} user=simulated dbname=simulated");
    resolve(&text, side, &Environment::empty()).map_err(|e| e.to_string())
}

fn options(world: &Shared, directory: &Path) -> Result<Options, String> {
    let name = || "simulated".to_owned();
    let mut options = Options::new(config(Side::Source)?, config(Side::Target)?, name(), name());
    let plan = world.lock().plan.clone();
    options.streaming = plan.streaming;
    options.memory = plan.memory;
    options.idle_advance = plan.idle_advance;
    options.spill_directory = directory.to_owned();
    Ok(options)
}

/// All that commits before `until` is on the target, durably, and nothing that commits after. (Commits of nothing don't count.)
fn reached(world: &World, until: Lsn) -> Result<(), String> {
    let (applied, wanted) =
        (world.source.commits_until(world.target.durable_checkpoint), world.source.commits_before(until));
    if world.source.commits[applied].digests == world.source.commits[wanted].digests {
        return Ok(());
    }
    Err(format!("{until} was reached with {applied} commits on the target that survive, and not {wanted}"))
}

/// Whoever runs pgstream.
struct Operator {
    world: Shared,
    options: Options,
    filter: Filter,
}

impl Operator {
    /// A run of pgstream, as a process of its own.
    fn start(
        &self,
        until: watch::Receiver<Option<Lsn>>,
        stop: &CancellationToken,
    ) -> AbortOnDropHandle<Result<Ended, Error>> {
        self.world.lock().statistics.starts += 1;
        let (options, filter, stop) = (self.options.clone(), self.filter.clone(), stop.clone());
        let progress = Arc::new(StreamProgress::default());
        let run = async move {
            // As a migration does: one at a time, and nothing of an earlier run goes on.
            let mut session =
                Connection::connect(&options.target, Side::Target, &Settings::session()).await?;
            state::lock(&mut session).await?;
            follow(options, filter, until, stop, progress).await
        };
        AbortOnDropHandle::new(tokio::spawn(run))
    }

    /// Runs pgstream until it is killed, stopped, or reaches where it is told to end; or until it gives up.
    async fn run_for_a_while(&self, random: &mut Random) -> Result<(), String> {
        let stop = CancellationToken::new();
        let (wants, until) = watch::channel(None);
        let mut run = self.start(until, &stop);
        let mut ended = tokio::time::timeout(random.time(Duration::from_secs(4)), &mut run).await.ok();
        let mut wanted = None;
        if ended.is_none() && random.once_in(2) {
            // Whatever comes, it comes at the worst of times.
            let committing = self.world.lock().committing.clone();
            let _ = tokio::time::timeout(Duration::from_secs(1), committing.notified()).await;
        }
        if ended.is_none() {
            match random.below(4) {
                // It is killed: nothing is said to anyone.
                0 | 1 => return Ok(()),
                2 => stop.cancel(),
                _ => {
                    wanted = Some(self.world.lock().source.end());
                    let _ = wants.send(wanted);
                }
            }
            ended = tokio::time::timeout(random.time(Duration::from_secs(20)), &mut run).await.ok();
        }
        match ended {
            None => Ok(()),
            Some(Err(panic)) => Err(format!("pgstream ended unexpectedly: {panic}")),
            Some(Ok(Err(error))) if is_excused(&error) => Ok(()),
            Some(Ok(Err(error))) => Err(format!("pgstream failed: {error}")),
            Some(Ok(Ok(Ended::Stopped(_)))) if stop.is_cancelled() => Ok(()),
            Some(Ok(Ok(Ended::Reached(_)))) => match wanted {
                Some(until) => reached(&self.world.lock(), until),
                None => Err("pgstream reached what nobody asked for".to_owned()),
            },
            Some(Ok(Ok(other))) => Err(format!("pgstream ended unasked: {other:?}")),
        }
    }

    /// Runs pgstream where nothing fails any more: of its own accord, it confirms all that there is by now, also without the session that makes commits
    /// durable; then it is told to end, and does. Where that was.
    async fn run_to_the_end(&self) -> Result<Lsn, String> {
        let (wants, wanted) = watch::channel(None);
        let mut run = self.start(wanted, &CancellationToken::new());
        let confirms = async {
            self.confirmed().await?;
            {
                let mut world = self.world.lock();
                let flusher = world.flusher;
                if let Some(session) = flusher.and_then(|session| world.sessions.get(&session)) {
                    session.cancel();
                }
                (0..10).for_each(|_| world.source.step());
                world.written.notify_one();
            }
            self.confirmed().await
        };
        tokio::select! {
            biased;
            ended = &mut run => return Err(format!("pgstream ended unasked: {ended:?}")),
            confirmed = confirms => confirmed?,
        }
        let until = self.world.lock().source.end();
        let _ = wants.send(Some(until));
        match tokio::time::timeout(PATIENCE, run).await {
            Err(_) => Err(format!("pgstream hangs before it reaches {until}")),
            Ok(Err(panic)) => Err(format!("pgstream ended unexpectedly: {panic}")),
            Ok(Ok(Err(error))) => Err(format!("pgstream failed where nothing else did: {error}")),
            Ok(Ok(Ok(Ended::Reached(_)))) => reached(&self.world.lock(), until).map(|()| until),
            Ok(Ok(Ok(other))) => Err(format!("pgstream ended unasked: {other:?}")),
        }
    }

    /// Waits until the source has been told that everything up to where its log ends now is durable.
    async fn confirmed(&self) -> Result<(), String> {
        let now = self.world.lock().source.end();
        let told = async {
            while self.world.lock().source.confirmed < now {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let late = |_| format!("pgstream does not confirm {now} to the source");
        tokio::time::timeout(PATIENCE, told).await.map_err(late)
    }
}

/// Whether what failed was made to fail.
fn is_excused(error: &Error) -> bool {
    let text = error.to_string();
    error.kind() == ErrorKind::Connection
        || text.contains("(simulated)")
        || text.contains("is active for PID")
        || text.starts_with("another pgstream is working")
}

/// The application: one step after another, in bursts.
async fn application(world: Shared, mut random: Random) {
    let pace = world.lock().plan.pace;
    for _ in 0..600 {
        let up = {
            let mut world = world.lock();
            let up = world.servers[0].up_at <= Instant::now();
            if up {
                world.source.step();
                world.written.notify_one();
            }
            up
        };
        if !up || random.once_in(3) {
            tokio::time::sleep(random.time(pace)).await;
        }
        if !up || random.once_in(50) {
            tokio::time::sleep(random.time(Duration::from_secs(2))).await;
        }
    }
}

/// What servers do of their own accord: commits become durable, the slot's position gets to disk.
async fn servers(world: Shared, mut random: Random) {
    let log_writer = world.lock().plan.log_writer;
    loop {
        tokio::time::sleep(log_writer.unwrap_or(Duration::from_secs(1))).await;
        let mut world = world.lock();
        if log_writer.is_some() {
            world.target.write_log();
        }
        if random.once_in(10) {
            world.source.confirmed_on_disk = world.source.confirmed;
        }
    }
}

/// Breaks something now and then.
async fn chaos(world: Shared, mut random: Random, ends: Instant) {
    let calm = random.of(&[50, 500, 3000]);
    loop {
        tokio::time::sleep(random.time(Duration::from_millis(calm)) + Duration::from_millis(1)).await;
        if Instant::now() >= ends {
            return;
        }
        let mut world = world.lock();
        let which = random.below(2);
        match random.below(8) {
            0 => world.crash(which, random.time(Duration::from_secs(2))),
            1 => {
                world.statistics.faults += 1;
                world.stalled_until = Instant::now() + random.time(Duration::from_secs(6));
            }
            _ => {
                let lines = &mut world.servers[which].lines;
                lines.retain(|line| !line.both.is_cancelled());
                if !lines.is_empty() {
                    let line = lines.swap_remove(random.below(lines.len()));
                    if random.once_in(2) {
                        line.both.cancel()
                    } else {
                        line.client.cancel()
                    }
                    world.statistics.faults += 1;
                }
            }
        }
    }
}
