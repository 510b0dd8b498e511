//! Sessions of the simulated source: the questions that a stream begins with, the stream, and the reports that come back.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use pgstream_proto::lsn::Lsn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::pgoutput::Stream;
use super::random::Random;
use super::wire::{Message, Peer};
use super::world::Shared;

/// Bytes that wait for the client before the log is read on.
const QUEUED: usize = 4096;

/// A session of the source.
pub(super) struct Walsender {
    world: Shared,
    id: usize,
    peer: Peer,
    random: Random,
}

impl Walsender {
    pub(super) fn new(world: Shared, id: usize, peer: Peer, random: Random) -> Walsender {
        Walsender { world, id, peer, random }
    }

    /// Serves the session until the client goes.
    pub(super) async fn run(mut self) {
        self.serve().await;
    }

    async fn serve(&mut self) -> Option<()> {
        let version = self.world.lock().plan.source_version;
        self.peer.let_in(version, self.id).await?;
        loop {
            let sql = match self.peer.message().await? {
                Message::Query(sql) => sql,
                Message::Terminate => return None,
                other => {
                    self.world.lock().fail(format!("unexpected message for a walsender: {other:?}"));
                    return None;
                }
            };
            if let Some(start) = sql.strip_prefix("START_REPLICATION SLOT ") {
                self.start(start).await?;
                continue;
            }
            self.answer(&sql);
            self.peer.complete("SELECT 1");
            self.peer.ready(b'I');
        }
    }

    fn answer(&mut self, sql: &str) {
        let mut world = self.world.lock();
        let peer = &mut self.peer;
        if sql == "IDENTIFY_SYSTEM" {
            peer.row(&[Some("7"), Some("1"), Some(&world.source.end().to_string()), Some("simulated")]);
        } else if sql.contains("pg_replication_slots") {
            let timeout = world.plan.wal_sender_timeout.as_millis().to_string();
            let slot = serde_json::json!({
                "active": world.source.streaming.is_some(), "restart_lsn": "0/1", "wal_status": "reserved",
                "confirmed_flush_lsn": world.source.confirmed.to_string(),
            });
            // It is a primary, and has the publication.
            peer.row(&[Some("f"), Some(&slot.to_string()), Some("t"), Some(&timeout), None]);
        } else if !sql.starts_with("SET ") {
            world.fail(format!("the simulated source does not understand: {sql}"));
        }
    }

    /// `"slot" LOGICAL 0/1 (proto_version '1', publication_names '…', streaming 'on')`.
    async fn start(&mut self, command: &str) -> Option<()> {
        let asked: Lsn = command.split(' ').nth(2)?.parse().ok()?;
        let stream = {
            let mut world = self.world.lock();
            if world.source.streaming.is_some() {
                self.peer.error("55006", "replication slot \"simulated\" is active for PID 1");
                self.peer.ready(b'I');
                return Some(());
            }
            world.source.streaming = Some(self.id);
            if asked < world.source.confirmed {
                let confirmed = world.source.confirmed;
                world.fail(format!("a stream from {asked} was asked for, and the slot is at {confirmed}"));
            }
            // In chunks only where the client takes part in it.
            let chunk = command.contains("streaming 'on'").then_some(world.plan.chunk);
            let start = asked.max(world.source.confirmed);
            Stream::new(start, world.plan.source_version, chunk, self.random.fork())
        };
        self.peer.frame(b'W', |out| out.put_slice(&[0, 0, 0]));
        self.stream(stream).await
    }

    /// Sends the log and takes reports until either side ends the stream.
    async fn stream(&mut self, mut stream: Stream) -> Option<()> {
        let timeout = self.world.lock().plan.wal_sender_timeout;
        let (mut heard, mut asked) = (Instant::now(), false);
        let mut rest: Option<Instant> = None;
        let written = self.world.lock().written.clone();
        loop {
            let mut caught_up = false;
            while self.peer.out.len() < QUEUED && rest.is_none() {
                let world = self.world.lock();
                if !stream.read_on(&world.source) {
                    caught_up = true;
                    break;
                }
                self.peer.out.unsplit(stream.out.split());
                if world.chaos && stream.random.once_in(10) {
                    rest = Some(Instant::now() + stream.random.time(Duration::from_millis(300)));
                }
            }
            let ask = heard + timeout / 2;
            if !asked && Instant::now() >= ask {
                asked = true;
                stream.keepalive(&mut self.peer.out, true, self.world.lock().source.now());
            }
            if Instant::now() >= heard + timeout {
                return None;
            }
            let next = if asked { heard + timeout } else { ask };
            let wait = rest.map_or(next, |rest| rest.min(next));
            let (mut reader, mut writer) = tokio::io::split(&mut self.peer.pipe);
            tokio::select! {
                biased;
                read = reader.read_buf(&mut self.peer.inbound) => {
                    if read.ok()? == 0 {
                        return None;
                    }
                    (heard, asked) = (Instant::now(), false);
                }
                sent = writer.write_buf(&mut self.peer.out), if !self.peer.out.is_empty() => {
                    sent.ok()?;
                }
                () = written.notified(), if caught_up => {}
                () = tokio::time::sleep_until(wait) => {
                    rest = rest.filter(|rest| *rest > Instant::now());
                }
            }
            while let Some(message) = self.peer.arrived() {
                match message {
                    Message::CopyData(report) => self.report(report, &mut stream),
                    Message::CopyDone => {
                        self.world.lock().source.streaming = None;
                        self.peer.frame(b'c', |_| {});
                        self.peer.complete("COPY 0");
                        self.peer.ready(b'I');
                        return Some(());
                    }
                    other => self.world.lock().fail(format!("unexpected message in a stream: {other:?}")),
                }
            }
        }
    }

    fn report(&mut self, mut report: Bytes, stream: &mut Stream) {
        report.advance(1);
        let (_write, flush) = (report.get_u64(), Lsn(report.get_u64()));
        let wants_answer = report.last() == Some(&1);
        let mut world = self.world.lock();
        world.confirm(flush);
        if wants_answer || stream.random.once_in(4) {
            stream.keepalive(&mut self.peer.out, false, world.source.now());
        }
    }
}
