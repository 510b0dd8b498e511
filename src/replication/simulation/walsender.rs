//! Sessions of the simulated source: the questions that a stream begins with, and the stream itself, as pgoutput sends it.
//!
//! A transaction is sent at its commit, or, where it is large and the client takes part in that, in chunks while it runs. Whatever committed before the position
//! that the stream was asked to start at, or before the one that the slot was confirmed to, is passed over.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pgstream_proto::lsn::Lsn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::model::{Change, KEYED, Row, TABLES, Table};
use super::random::Random;
use super::source::Record;
use super::wire::{Message, Peer, frame};
use super::world::{Shared, World};

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
        } else if sql == "SELECT pg_catalog.pg_is_in_recovery()" {
            peer.row(&[Some("f")]);
        } else if sql.contains("pg_replication_slots") {
            let slot = serde_json::json!({
                "active": world.source.streaming.is_some(), "restart_lsn": "0/1", "wal_status": "reserved",
                "confirmed_flush_lsn": world.source.confirmed.to_string(),
            });
            peer.row(&[Some(&slot.to_string())]);
        } else if sql.contains("pg_publication") {
            peer.row(&[]);
        } else if sql.contains("'wal_sender_timeout'") {
            peer.row(&[Some(&world.plan.wal_sender_timeout.as_millis().to_string())]);
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
            Stream {
                start: asked.max(world.source.confirmed),
                streams: command.contains("streaming 'on'"),
                version: world.plan.source_version,
                chunk: world.plan.chunk,
                next: 0,
                sent_up_to: asked,
                told: BTreeSet::new(),
                open: BTreeMap::new(),
                random: self.random.fork(),
                out: BytesMut::new(),
            }
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
                if !stream.read_on(&world) {
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
        world.source.confirmed = world.source.confirmed.max(flush);
        if wants_answer || stream.random.once_in(4) {
            stream.keepalive(&mut self.peer.out, false, world.source.now());
        }
    }
}

/// A transaction of which something was read, and that has not ended.
#[derive(Default)]
struct Transaction {
    /// What is not sent yet.
    held: Vec<(u32, Arc<Change>, Lsn)>,
    /// Chunks were sent.
    streamed: bool,
    /// Tables that were described in it.
    told: BTreeSet<usize>,
    /// Subtransactions of which something was sent.
    sent: BTreeSet<u32>,
}

/// What the walsender knows of its stream.
struct Stream {
    start: Lsn,
    streams: bool,
    version: u32,
    chunk: usize,
    /// The next record of the log.
    next: usize,
    sent_up_to: Lsn,
    /// Tables that were described between transactions.
    told: BTreeSet<usize>,
    open: BTreeMap<u32, Transaction>,
    random: Random,
    out: BytesMut,
}

impl Stream {
    /// Reads a record and sends what follows from it; false at the end of the log.
    fn read_on(&mut self, world: &World) -> bool {
        let Some(entry) = world.source.log.get(self.next) else { return false };
        self.next += 1;
        let now = world.source.now();
        match &entry.record {
            Record::Other => {}
            Record::Change { top, xid, change } => {
                let mut transaction = self.open.remove(top).unwrap_or_default();
                transaction.held.push((*xid, change.clone(), entry.at));
                if self.streams && transaction.held.len() >= self.chunk && entry.at >= self.start {
                    self.send_chunk(*top, &mut transaction, now);
                }
                self.open.insert(*top, transaction);
            }
            Record::RolledBack { top, xid } => {
                let mut sent = false;
                if let Some(transaction) = self.open.get_mut(top) {
                    transaction.held.retain(|(of, _, _)| of != xid);
                    sent = transaction.sent.contains(xid);
                    if sent {
                        // What described tables went with it (cleanup_rel_sync_cache in pgoutput.c).
                        transaction.told.clear();
                    }
                }
                if sent {
                    self.abort(*top, *xid, now);
                }
            }
            Record::Abort { top } => {
                if self.open.remove(top).is_some_and(|transaction| transaction.streamed) {
                    self.abort(*top, *top, now);
                }
            }
            Record::Commit { top } => {
                let transaction = self.open.remove(top).unwrap_or_default();
                if entry.at >= self.start {
                    self.commit(*top, transaction, (entry.at, entry.end, entry.time), now);
                }
            }
        }
        self.sent_up_to = self.sent_up_to.max(entry.end);
        let idle = matches!(entry.record, Record::Other) || self.random.once_in(20);
        if idle && self.random.once_in(2) {
            let mut out = self.out.split();
            self.keepalive(&mut out, false, now);
            self.out.unsplit(out);
        }
        true
    }

    fn commit(&mut self, top: u32, mut transaction: Transaction, (at, end, time): (Lsn, Lsn, i64), now: i64) {
        let commit = |out: &mut BytesMut| {
            out.put_u8(0);
            out.put_u64(at.0);
            out.put_u64(end.0);
            out.put_i64(time);
        };
        if transaction.streamed {
            if !transaction.held.is_empty() {
                self.send_chunk(top, &mut transaction, now);
            }
            self.send(at, now, |out| {
                out.put_u8(b'c');
                out.put_u32(top);
                commit(out);
            });
            // What was described in it counts from here on.
            self.told.append(&mut transaction.told);
            return;
        }
        // Since PostgreSQL 15, what changes nothing is not sent.
        if transaction.held.is_empty() && self.version >= 150_000 {
            return;
        }
        self.send(at, now, |out| {
            out.put_u8(b'B');
            out.put_u64(at.0);
            out.put_i64(time);
            out.put_u32(top);
        });
        if self.random.once_in(10) {
            self.send(Lsn(0), now, |out| out.put_slice(b"O\0\0\0\0\0\0\0\0origin\0"));
        }
        for (_, change, lsn) in transaction.held {
            let known = std::mem::take(&mut self.told);
            self.told = self.describe(known, &change, None, now);
            self.send(lsn, now, |out| write_change(&change, None, out));
            if self.random.once_in(60) {
                // A large transaction takes time, and the client is to know that there is somebody.
                let mut out = self.out.split();
                self.keepalive(&mut out, false, now);
                self.out.unsplit(out);
            }
        }
        self.send(at, now, |out| {
            out.put_u8(b'C');
            commit(out);
        });
    }

    fn send_chunk(&mut self, top: u32, transaction: &mut Transaction, now: i64) {
        let first = !std::mem::replace(&mut transaction.streamed, true);
        self.send(Lsn(0), now, |out| {
            out.put_u8(b'S');
            out.put_u32(top);
            out.put_u8(first.into());
        });
        for (xid, change, lsn) in transaction.held.drain(..) {
            transaction.told = self.describe(std::mem::take(&mut transaction.told), &change, Some(xid), now);
            self.send(lsn, now, |out| write_change(&change, Some(xid), out));
            transaction.sent.insert(xid);
        }
        self.send(Lsn(0), now, |out| out.put_u8(b'E'));
    }

    fn abort(&mut self, top: u32, xid: u32, now: i64) {
        self.send(Lsn(0), now, |out| {
            out.put_u8(b'A');
            out.put_u32(top);
            out.put_u32(xid);
        });
    }

    /// Describes the change's tables unless they are known, and now and then again.
    fn describe(
        &mut self,
        mut known: BTreeSet<usize>,
        change: &Change,
        xid: Option<u32>,
        now: i64,
    ) -> BTreeSet<usize> {
        let tables = match change {
            Change::Insert { table, .. } | Change::Update { table, .. } | Change::Delete { table, .. } => {
                vec![*table]
            }
            Change::Truncate { tables } => tables.clone(),
        };
        for table in tables {
            if known.insert(table) || self.random.once_in(50) {
                self.send(Lsn(0), now, |out| write_relation(table, xid, out));
            }
        }
        known
    }

    fn send(&mut self, lsn: Lsn, now: i64, data: impl FnOnce(&mut BytesMut)) {
        frame(&mut self.out, b'd', |out| {
            out.put_u8(b'w');
            out.put_u64(lsn.0);
            out.put_u64(lsn.0);
            out.put_i64(now);
            data(out);
        });
    }

    fn keepalive(&self, out: &mut BytesMut, reply: bool, now: i64) {
        frame(out, b'd', |out| {
            out.put_u8(b'k');
            out.put_u64(self.sent_up_to.0);
            out.put_i64(now);
            out.put_u8(reply.into());
        });
    }
}

fn write_relation(table: usize, xid: Option<u32>, out: &mut BytesMut) {
    let Table { name, columns, keyed, full, .. } = &TABLES[table];
    out.put_u8(b'R');
    xid.into_iter().for_each(|xid| out.put_u32(xid));
    out.put_u32(Table::oid(table));
    out.put_slice(format!("public\0{name}\0").as_bytes());
    out.put_u8(if *full { b'f' } else { b'd' });
    out.put_u16(columns.len() as u16);
    for (column, name) in columns.iter().enumerate() {
        out.put_u8((*full || (*keyed && column == 0)).into());
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_u32(TABLES[table].type_of(column));
        out.put_i32(-1);
    }
}

fn write_change(change: &Change, xid: Option<u32>, out: &mut BytesMut) {
    let mut begin = |tag: u8| {
        out.put_u8(tag);
        xid.into_iter().for_each(|xid| out.put_u32(xid));
    };
    match change {
        Change::Insert { table, row } => {
            begin(b'I');
            out.put_u32(Table::oid(*table));
            write_tuple(b'N', row, |_| false, out);
        }
        Change::Update { table, old, new } => {
            begin(b'U');
            out.put_u32(Table::oid(*table));
            if TABLES[*table].full {
                write_tuple(b'O', old, |_| false, out);
            } else if old[0] != new[0] {
                write_tuple(b'K', &only_key(old), |_| false, out);
            }
            write_tuple(b'N', new, |column| *table == KEYED && column == 2 && old[2] == new[2], out);
        }
        Change::Delete { table, old } => {
            begin(b'D');
            out.put_u32(Table::oid(*table));
            match TABLES[*table].full {
                true => write_tuple(b'O', old, |_| false, out),
                false => write_tuple(b'K', &only_key(old), |_| false, out),
            }
        }
        Change::Truncate { tables } => {
            begin(b'T');
            out.put_u32(tables.len() as u32);
            out.put_u8(0);
            tables.iter().for_each(|&table| out.put_u32(Table::oid(table)));
        }
    }
}

fn only_key(row: &Row) -> Row {
    row.iter().enumerate().map(|(column, value)| value.clone().filter(|_| column == 0)).collect()
}

/// A row; columns that are `unchanged` TOAST values are left out.
fn write_tuple(kind: u8, row: &Row, unchanged: impl Fn(usize) -> bool, out: &mut BytesMut) {
    out.put_u8(kind);
    out.put_u16(row.len() as u16);
    for (column, value) in row.iter().enumerate() {
        match value {
            None => out.put_u8(b'n'),
            Some(_) if unchanged(column) => out.put_u8(b'u'),
            Some(text) => {
                out.put_u8(b't');
                out.put_u32(text.len() as u32);
                out.put_slice(text.as_bytes());
            }
        }
    }
}
