//! What a fuzzer may drive: whole transactions on their way through assembly and gathering, compared with what the application did.
//!
//! In: bytes that stand for the application's choices, and for those of whoever sends and receives. Out: nothing, or a panic: a transaction that did not come
//! out as it went in, or gathered changes that don't add up to the source's rows.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes};
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::{OldTuple, ProtocolVersion, Tuple};
use pgstream_proto::replication::StreamMessage;

use super::model::{Row, TABLES, Table};
use super::pgoutput::Stream;
use super::random::Random;
use super::source::Source;
use crate::replication::assemble::{Assembler, Budget, Event};
use crate::replication::pending::{Kind, Pending, key_of};

/// The tables whose changes are gathered: those with a key and all values in each update.
const GATHERED: &[&str] = &["unique", "loud", "full", "split"];

/// Rows of a table by their keys.
type Rows = BTreeMap<Bytes, Tuple>;

/// Writes, sends, assembles, gathers and compares.
pub fn transactions(input: &[u8]) {
    let mut random = Random::of_input(input);
    let version = random.of(&[100_023, 140_010, 160_004]);
    let chunk = random.of(&[None, Some(1), Some(4)]);
    let memory = random.of(&[0, 300, 1 << 20]);
    let skipped = random.below(4);
    let sends = Random::new(random.below(256) as u64);
    let mut source = Source::new(random);
    while !source.is_spent() && source.log.len() < 2000 {
        source.step();
    }
    // Where the checkpoint may be: the end of a commit.
    let start = source.commits[skipped.min(source.commits.len() - 1)].end;
    let protocol = ProtocolVersion::newest_of(version);
    let chunk = chunk.filter(|_| protocol >= ProtocolVersion::V2);
    let mut stream = Stream::new(start, version, chunk, sends.clone());
    while stream.read_on(&source) {}
    let budget = Budget { memory, directory: std::env::temp_dir() };
    let assembler = Assembler::new(protocol, start, budget);
    // Rows add up only where all that made them comes.
    let whole = start == source.commits[0].end;
    let mut applied = Applied { commits: Vec::new(), tables: BTreeMap::new(), sends, whole };
    applied.assemble(assembler, stream.out.freeze());
    let expected = source.commits.iter().filter(|commit| commit.at >= start);
    // A commit of nothing may be left out.
    let mut expected = expected.map(|commit| commit.at).peekable();
    for at in &applied.commits {
        while expected.next_if(|next| next < at).is_some() {}
        assert_eq!(expected.next(), Some(*at), "a commit of the source, in its place");
    }
    if whole {
        applied.compare(&source);
    }
}

/// What came out.
struct Applied {
    commits: Vec<Lsn>,
    tables: BTreeMap<u32, (Pending, Rows)>,
    sends: Random,
    whole: bool,
}

impl Applied {
    fn assemble(&mut self, mut assembler: Assembler, mut sent: Bytes) {
        let mut open = None;
        // Changes that came ahead of their commit, which may not have come when the input ends.
        let mut ahead: Option<Vec<Event>> = None;
        while sent.has_remaining() {
            sent.advance(1);
            let len = sent.get_u32() as usize - 4;
            let message = StreamMessage::parse(sent.split_to(len)).expect("the model's messages are right");
            let go_ahead = self.sends.once_in(2);
            let mut event = assembler.take(message, go_ahead).expect("the model's stream is right");
            while let Some(next) = event {
                match next {
                    Event::Begin(begin) => {
                        assert!(ahead.is_none(), "nothing comes between what is ahead");
                        assert_eq!(open.replace(begin.final_lsn), None);
                    }
                    Event::Ahead => {
                        assert_eq!(open, None);
                        assert!(ahead.replace(Vec::new()).is_none(), "one transaction is ahead");
                    }
                    Event::Back => assert!(ahead.take().is_some(), "what goes back was ahead"),
                    Event::Commit(commit) if ahead.is_some() => {
                        ahead.take().into_iter().flatten().for_each(|change| self.change(change));
                        self.commits.push(commit.commit_lsn);
                    }
                    Event::Commit(commit) => {
                        assert_eq!(open.take(), Some(commit.commit_lsn), "a transaction ends where it began");
                        self.commits.push(commit.commit_lsn);
                    }
                    Event::Idle(_) => assert_eq!(open, None),
                    Event::Relation(_) => {}
                    change if ahead.is_some() => ahead.get_or_insert_default().push(change),
                    change => {
                        assert!(open.is_some(), "changes are inside of a transaction");
                        self.change(change);
                    }
                }
                event = assembler.next().expect("what was held back comes again");
            }
        }
        assert_eq!(open, None);
    }

    fn change(&mut self, change: Event) {
        let old_row = |old: OldTuple| match old {
            OldTuple::Key(row) | OldTuple::Full(row) => row,
        };
        match change {
            Event::Insert(insert) => self.gather(insert.relation, Kind::Insert, insert.new),
            Event::Update(update) => match update.old.map(old_row) {
                Some(old) if old.bytes(0) != update.new.bytes(0) => {
                    self.gather(update.relation, Kind::Delete, old);
                    self.gather(update.relation, Kind::Insert, update.new);
                }
                _ => self.gather(update.relation, Kind::Update, update.new),
            },
            Event::Delete(delete) => self.gather(delete.relation, Kind::Delete, old_row(delete.old)),
            Event::Truncate(truncate) => {
                for relation in truncate.relations {
                    self.tables.remove(&relation);
                }
            }
            other => panic!("{other:?} is no change of rows"),
        }
    }

    fn gather(&mut self, relation: u32, kind: Kind, row: Tuple) {
        let (pending, rows) = self.tables.entry(relation).or_default();
        if !self.whole || !GATHERED.iter().any(|name| relation == oid(name)) {
            return;
        }
        if let Err(row) = pending.add_to_net_effect(kind, row, &[0]) {
            send(pending, rows);
            *pending = Pending::of(kind, row);
        }
        if self.sends.once_in(20) {
            send(pending, rows);
        }
    }

    /// The rows are those that the source has committed.
    fn compare(&mut self, source: &Source) {
        for (table, Table { name, .. }) in TABLES.iter().enumerate() {
            if !GATHERED.contains(name) {
                continue;
            }
            let (pending, rows) = self.tables.entry(Table::oid(table)).or_default();
            send(pending, rows);
            let mut expected: Vec<Row> = source.rows[table].iter().flatten().cloned().collect();
            let mut found: Vec<Row> = rows.values().map(row_of).collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "table {name}");
        }
    }
}

fn oid(name: &str) -> u32 {
    let table = TABLES.iter().position(|table| table.name == name);
    Table::oid(table.expect("a table of the model"))
}

fn row_of(tuple: &Tuple) -> Row {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("the model's values are UTF-8").into();
    (0..tuple.len()).map(|column| tuple.bytes(column).map(text)).collect()
}

/// What the target does: each statement must reach its row.
fn send(pending: &mut Pending, table: &mut Rows) {
    let rows = std::mem::take(pending).into_rows();
    let key = |row: &Tuple| key_of(row, &[0]).expect("keys are told");
    for row in rows.deletes {
        assert!(table.remove(&key(&row)).is_some(), "a deleted row is there");
    }
    for row in rows.updates {
        assert!(table.insert(key(&row), row).is_some(), "an updated row is there");
    }
    for row in rows.inserts {
        assert!(table.insert(key(&row), row).is_none(), "an inserted row is new");
    }
}
