//! What a walsender makes of the log: messages as pgoutput sends them.
//!
//! A transaction is sent at its commit, or, where it is large and the client takes part in that, in chunks while it runs. Whatever committed before the position
//! that the stream was asked to start at, or before the one that the slot was confirmed to, is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use pgstream_proto::lsn::Lsn;

use super::model::{Change, KEYED, Row, TABLES, Table};
use super::random::Random;
use super::source::{Record, Source};

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
pub(super) struct Stream {
    start: Lsn,
    version: u32,
    /// Changes of a transaction from which on it is sent while it runs.
    chunk: Option<usize>,
    /// The next record of the log.
    next: usize,
    sent_up_to: Lsn,
    /// Tables that were described between transactions.
    told: BTreeSet<usize>,
    open: BTreeMap<u32, Transaction>,
    pub(super) random: Random,
    /// What is to be sent.
    pub(super) out: BytesMut,
}

impl Stream {
    pub(super) fn new(start: Lsn, version: u32, chunk: Option<usize>, random: Random) -> Stream {
        Stream {
            start,
            version,
            chunk,
            next: 0,
            sent_up_to: start,
            told: BTreeSet::new(),
            open: BTreeMap::new(),
            random,
            out: BytesMut::new(),
        }
    }

    /// Reads a record and sends what follows from it; false at the end of the log.
    pub(super) fn read_on(&mut self, source: &Source) -> bool {
        let Some(entry) = source.log.get(self.next) else { return false };
        self.next += 1;
        let now = source.now();
        match &entry.record {
            Record::Other => {}
            Record::Change { top, xid, change } => {
                let mut transaction = self.open.remove(top).unwrap_or_default();
                transaction.held.push((*xid, change.clone(), entry.at));
                let large = self.chunk.is_some_and(|chunk| transaction.held.len() >= chunk);
                if large && entry.at >= self.start {
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
                // A large transaction takes time, and the client is to know that there is somebody: that it is at this commit, not that all of it was sent.
                let mut out = self.out.split();
                write_keepalive(&mut out, end, false, now);
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

    pub(super) fn keepalive(&self, out: &mut BytesMut, reply: bool, now: i64) {
        write_keepalive(out, self.sent_up_to, reply, now);
    }
}

fn write_keepalive(out: &mut BytesMut, position: Lsn, reply: bool, now: i64) {
    frame(out, b'd', |out| {
        out.put_u8(b'k');
        out.put_u64(position.0);
        out.put_i64(now);
        out.put_u8(reply.into());
    });
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

/// Appends a message.
pub(super) fn frame(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let at = out.len();
    out.put_u32(0);
    body(out);
    let len = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}
