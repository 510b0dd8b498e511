//! A stream of a test: two databases, a publication, a slot, a checkpoint, and runs of `follow` between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pgstream::config::{self, Config, Environment, Side};
use pgstream::error::Error;
use pgstream::progress::StreamProgress;
use pgstream::replication::{
    Ended, Filter, Options, SlotRequest, create_slot, end_position, follow, identify_system,
};
use pgstream::state::{self, checkpoint};
use pgstream::wire::{Connection, CopyBoth, Settings};
use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::harness::{Cluster, Database};

/// A source and a target with the same schema, and all that a stream between them needs.
pub(crate) struct Stream<'a> {
    pub(crate) source: Database<'a>,
    pub(crate) target: Database<'a>,
    pub(super) options: Options,
    pub(super) filter: Filter,
    pub(super) progress: Arc<StreamProgress>,
    pub(super) consistent_point: Lsn,
    pub(super) runtime: tokio::runtime::Runtime,
}

/// How a database is reached; no variable of the environment is looked at.
pub(super) fn config(database: &Database<'_>, side: Side) -> Config {
    config::resolve(&database.uri(), side, &Environment::empty()).expect("the harness gives a valid URI")
}

impl<'a> Stream<'a> {
    /// Makes `schema` on both sides and starts to record changes of all tables.
    pub(crate) fn between(source: &'a Cluster, target: &'a Cluster, schema: &str) -> Stream<'a> {
        let (source, target) = (source.create_database("source"), target.create_database("target"));
        source.execute(schema);
        target.execute(schema);
        Stream::over(source, target)
    }

    /// Over databases that have the same content.
    pub(super) fn over(source: Database<'a>, target: Database<'a>) -> Stream<'a> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let (from, to) = (config(&source, Side::Source), config(&target, Side::Target));
        let name = format!("pgstream_{}", source.name());
        source.execute(&format!("CREATE PUBLICATION \"{name}\" FOR ALL TABLES"));
        let (consistent_point, identity) = runtime.block_on(async {
            let request = SlotRequest { name: &name, temporary: false, timeout: Duration::from_secs(30) };
            let mut slot = create_slot(&from, &request, |_| {}).await.unwrap();
            let identity = identify_system(&mut slot.connection).await.unwrap();
            (slot.consistent_point, identity)
        });
        target.execute("CREATE SCHEMA IF NOT EXISTS pgstream");
        for statement in
            checkpoint::create(&identity.system_identifier, identity.timeline, &name, consistent_point)
        {
            // Else the target's crash may take it away again before anything is applied.
            target.execute(&format!("SET synchronous_commit = on; {statement}"));
        }
        Stream {
            source,
            target,
            options: Options::new(from, to, name.clone(), name),
            filter: Filter::new(HashMap::new()),
            progress: Arc::default(),
            consistent_point,
            runtime,
        }
    }

    /// Applies all that the source has committed by now.
    #[track_caller]
    pub(crate) fn catch_up(&self) {
        match self.try_catch_up() {
            Ok(Ended::Reached(_)) => {}
            Ok(other) => panic!("following ended unexpectedly: {other:?}"),
            Err(error) => panic!("{error}\ndetail: {:?}\nhint: {:?}", error.detail(), error.hint()),
        }
    }

    /// As [`Stream::catch_up`], with whatever comes of it.
    pub(super) fn try_catch_up(&self) -> Result<Ended, Error> {
        self.runtime.block_on(async {
            let mut session =
                Connection::connect(&self.options.source, Side::Source, &Settings::session()).await?;
            let end = end_position(&mut session).await?;
            self.follow(end).await
        })
    }

    /// Follows up to a position.
    pub(super) fn try_follow(&self, end: u64) -> Result<Ended, Error> {
        self.runtime.block_on(self.follow(Lsn(end)))
    }

    async fn follow(&self, end: Lsn) -> Result<Ended, Error> {
        let (_until, until) = watch::channel(Some(end));
        let run = self.run(self.lock().await?, until);
        tokio::time::timeout(Duration::from_secs(100), run).await.expect("following ends in time")
    }

    /// As a migration does: one at a time, and nothing of an earlier run goes on.
    async fn lock(&self) -> Result<Connection, Error> {
        let mut session =
            Connection::connect(&self.options.target, Side::Target, &Settings::session()).await?;
        state::lock(&mut session).await?;
        Ok(session)
    }

    fn run(
        &self,
        locked: Connection,
        until: watch::Receiver<Option<Lsn>>,
    ) -> impl Future<Output = Result<Ended, Error>> + Send + 'static {
        let (options, filter, progress) = (self.options.clone(), self.filter.clone(), self.progress.clone());
        async move {
            let ended = follow(options, filter, until, CancellationToken::new(), progress).await;
            drop(locked);
            ended
        }
    }

    /// Follows for some time, runs `fault`, and is cut off without a word, as a killed process is.
    pub(super) fn run_for(&self, time: Duration, fault: impl FnOnce()) {
        let (_until, until) = watch::channel(None);
        let locked = self.runtime.block_on(self.lock()).expect("nobody else works on the target");
        let task = self.runtime.spawn(self.run(locked, until));
        std::thread::sleep(time);
        fault();
        task.abort();
        match self.runtime.block_on(task) {
            Ok(ended) => panic!("following ended on its own: {ended:?}"),
            Err(error) => assert!(error.is_cancelled(), "following panicked"),
        }
    }

    /// Runs `work` while somebody else streams from the slot.
    pub(super) fn while_slot_is_in_use(&self, work: impl FnOnce()) {
        let Options { source, slot, publication, .. } = &self.options;
        let command = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names '\"{publication}\"')"
        );
        let stream = self.runtime.block_on(async {
            let session = Connection::connect(source, Side::Source, &Settings::replication()).await?;
            CopyBoth::start(session, &command).await
        });
        work();
        drop(stream.expect("the slot is free"));
    }

    /// The rows of a query on both sides, which must be the same.
    #[track_caller]
    pub(crate) fn expect_same(&self, query: &str) -> Vec<Vec<String>> {
        let (source, target) = (self.source.query(query), self.target.query(query));
        assert_eq!(source, target, "source and target differ: {query}");
        source
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // A cluster that is shared must not keep the log of every test.
        let _ = self.source.try_execute(&format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{}' AND NOT active",
            self.options.slot
        ));
    }
}
