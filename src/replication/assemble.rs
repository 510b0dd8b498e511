//! From messages to transactions in the order of their commits.
//!
//! In: the walsender's messages, in order. Out: [`Event`]s, of which each transaction is one Begin, its changes and one Commit, never interleaved with
//! another. Transactions that the source streams while they run are held back, in memory and, above a budget, in temporary files
//! ([`Held`]), until their commit arrives; what a rolled-back subtransaction wrote is left out. One of them at a time may be passed on ahead of its commit,
//! as long as nothing else comes between; it is held all the same, for the case that it goes back. What may fail: a message that isn't
//! in its form or place, and the temporary files.
//!
//! **Positions.** A transaction is known by the LSN of its commit record (`final_lsn` of Begin, `commit_lsn` of Commit). What lies before the start of
//! the stream is applied already and is left out, except for what it says of relations. Rows' LSNs are never
//! compared with anything: they aren't monotonic, and a commit's end is the next transaction's begin.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use pgstream_proto::ParseError;
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::{
    Begin, Commit, Decoder, Delete, Insert, Message, ProtocolVersion, Relation, Truncate, Update,
};
use pgstream_proto::replication::StreamMessage;

use super::spill::{Held, Reader};
use crate::error::{Error, Result};

/// What the applier acts on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A committed transaction's changes follow.
    Begin(Begin),
    /// What a table looks like from here on.
    Relation(Relation),
    /// A new row.
    Insert(Insert),
    /// A changed row.
    Update(Update),
    /// A removed row.
    Delete(Delete),
    /// Emptied tables.
    Truncate(Truncate),
    /// The transaction ends.
    Commit(Commit),
    /// Changes follow of a transaction that has not committed, as far as is known; its Commit or a [`Event::Back`] ends them.
    Ahead,
    /// What has come since the last [`Event::Ahead`] doesn't count: it comes again after its commit, if there is one.
    Back,
    /// No transaction is open, and every commit before this position has been seen.
    Idle(Lsn),
}

/// How much of streamed transactions is kept in memory, and where the rest goes.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    /// Bytes of messages in memory, over all transactions.
    pub(super) memory: usize,
    /// The folder of temporary files.
    pub(super) directory: PathBuf,
}

/// Puts the transactions of one stream together.
#[derive(Debug)]
pub(super) struct Assembler {
    version: ProtocolVersion,
    decoder: Decoder,
    /// Commits before it are applied already.
    start: Lsn,
    /// An ordinary transaction is open; true when it is applied already.
    open: Option<bool>,
    /// The streamed transaction whose chunk is being received.
    chunk: Option<u32>,
    streamed: HashMap<u32, Streamed>,
    /// The streamed transaction that is passed on as it comes.
    ahead: Option<u32>,
    /// What is due after an [`Event::Back`].
    then: Option<Event>,
    /// Bytes of memory that all of `streamed` take.
    in_memory: usize,
    budget: Budget,
    replay: Option<Replay>,
}

/// A transaction that is streamed while it runs.
#[derive(Debug, Default)]
struct Streamed {
    /// Its messages, each with the ID of the subtransaction it belongs to.
    held: Held,
    rolled_back: HashSet<u32>,
}

/// A streamed transaction that has committed, on its way to the applier.
#[derive(Debug)]
struct Replay {
    decoder: Decoder,
    held: Reader,
    rolled_back: HashSet<u32>,
    commit: Commit,
}

fn malformed(error: ParseError) -> Error {
    Error::failed(format!("could not read the replication stream: {error}"))
}

impl Assembler {
    /// At the start of a stream of this version from this position.
    pub(super) fn new(version: ProtocolVersion, start: Lsn, budget: Budget) -> Assembler {
        Assembler {
            version,
            decoder: Decoder::new(version),
            start,
            open: None,
            chunk: None,
            streamed: HashMap::new(),
            ahead: None,
            then: None,
            in_memory: 0,
            budget,
            replay: None,
        }
    }

    /// At the start of another stream, of this version, that follows what this one gave: what is not complete comes again.
    pub(super) fn anew(self, version: ProtocolVersion) -> Assembler {
        Assembler::new(version, self.start, self.budget)
    }

    /// Takes the next message. After every call, [`Assembler::next`] gives what else there is before the next message is due. A transaction that
    /// begins to be streamed is passed on as it comes if it may `go_ahead`.
    pub(super) fn take(&mut self, message: StreamMessage, go_ahead: bool) -> Result<Option<Event>> {
        match message {
            StreamMessage::PrimaryKeepalive { wal_end, .. } => {
                let idle = self.open.is_none() && self.chunk.is_none() && self.ahead.is_none();
                Ok(idle.then_some(Event::Idle(wal_end)))
            }
            StreamMessage::XLogData { data, .. } => match self.chunk {
                Some(top) if !matches!(data.first(), Some(b'E')) => {
                    let event = match self.ahead == Some(top) {
                        true => change(self.decoder.decode(data.clone()).map_err(malformed)?.message),
                        false => None,
                    };
                    self.hold(top, data)?;
                    Ok(event)
                }
                _ => {
                    let decoded = self.decoder.decode(data).map_err(malformed)?;
                    if self.ahead.is_some() && self.ends_ahead(&decoded.message) {
                        self.ahead = None;
                        self.then = self.on(decoded.message, false)?;
                        return Ok(Some(Event::Back));
                    }
                    self.on(decoded.message, go_ahead && self.ahead.is_none())
                }
            },
        }
    }

    /// Lets the transaction that is passed on as it comes wait for its commit instead.
    pub(super) fn go_back(&mut self) {
        self.ahead = None;
    }

    /// Whether the transaction that is passed on can't be passed on any more: another one is to be applied before it, or not all of
    /// it is to be applied.
    fn ends_ahead(&self, message: &Message) -> bool {
        match message {
            Message::StreamStart(_) | Message::StreamStop => false,
            Message::StreamCommit(end) => self.ahead != Some(end.xid) || end.commit.commit_lsn < self.start,
            Message::StreamAbort(abort) => self.ahead == Some(abort.xid),
            _ => true,
        }
    }

    /// The next event of a streamed transaction that has committed; `None` when there is no more.
    pub(super) fn next(&mut self) -> Result<Option<Event>> {
        if let Some(event) = self.then.take() {
            return Ok(Some(event));
        }
        let Some(replay) = &mut self.replay else { return Ok(None) };
        while let Some((xid, data)) = replay.held.next()? {
            if replay.rolled_back.contains(&xid) {
                continue;
            }
            let decoded = replay.decoder.decode(data).map_err(malformed)?;
            if let Some(event) = change(decoded.message) {
                return Ok(Some(event));
            }
        }
        let commit = self.replay.take().map(|replay| replay.commit);
        Ok(commit.map(Event::Commit))
    }

    fn on(&mut self, message: Message, go_ahead: bool) -> Result<Option<Event>> {
        match message {
            Message::Begin(begin) => {
                let applied = begin.final_lsn < self.start;
                self.open = Some(applied);
                Ok((!applied).then_some(Event::Begin(begin)))
            }
            Message::Commit(commit) => {
                let applied = self.open.take() == Some(true);
                Ok((!applied).then_some(Event::Commit(commit)))
            }
            Message::StreamStart(start) => {
                if start.first_segment {
                    self.forget(start.xid);
                }
                self.streamed.entry(start.xid).or_default();
                self.chunk = Some(start.xid);
                let ahead = go_ahead && start.first_segment;
                self.ahead = self.ahead.or(ahead.then_some(start.xid));
                Ok(ahead.then_some(Event::Ahead))
            }
            Message::StreamStop => {
                self.chunk = None;
                Ok(None)
            }
            Message::StreamAbort(abort) if abort.subxid == abort.xid => {
                self.forget(abort.xid);
                Ok(None)
            }
            Message::StreamAbort(abort) => {
                if let Some(streamed) = self.streamed.get_mut(&abort.xid) {
                    streamed.rolled_back.insert(abort.subxid);
                }
                Ok(None)
            }
            Message::StreamCommit(end) if self.ahead == Some(end.xid) => {
                self.ahead = None;
                self.forget(end.xid);
                Ok(Some(Event::Commit(end.commit)))
            }
            Message::StreamCommit(end) => self.replay(end.xid, end.commit),
            Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::StreamPrepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_) => {
                Err(Error::failed("the replication slot decodes prepared transactions before their commit")
                    .with_detail("pgstream applies a prepared transaction when it is committed.")
                    .with_hint("Let pgstream make the slot itself, without TWO_PHASE."))
            }
            message => {
                let event = change(message);
                let known = matches!(event, Some(Event::Relation(_)));
                Ok(event.filter(|_| known || self.open == Some(false)))
            }
        }
    }

    /// Keeps a message of the streamed transaction `top`.
    fn hold(&mut self, top: u32, data: Bytes) -> Result<()> {
        // Origins and logical messages change no rows. The other messages of a chunk have the ID first.
        let kept = matches!(data.first(), Some(b'R' | b'I' | b'U' | b'D' | b'T'));
        let Some(&[a, b, c, d]) = data.get(1..5).and_then(|xid| xid.first_chunk()).filter(|_| kept) else {
            // Decoded for the sake of its form alone.
            return self.decoder.decode(data).map(drop).map_err(malformed);
        };
        let xid = u32::from_be_bytes([a, b, c, d]);
        let Some(streamed) = self.streamed.get_mut(&top) else { return Ok(()) };
        self.in_memory -= streamed.held.in_memory();
        let appended = streamed.held.append(xid, &data, &self.budget.directory);
        self.in_memory += streamed.held.in_memory();
        appended?;
        if self.in_memory > self.budget.memory { self.spill() } else { Ok(()) }
    }

    /// Moves the transaction that takes the most memory into its file.
    fn spill(&mut self) -> Result<()> {
        let largest =
            self.streamed.values_mut().map(|streamed| &mut streamed.held).max_by_key(|held| held.in_memory());
        if let Some(held) = largest {
            self.in_memory -= held.in_memory();
            held.spill(&self.budget.directory)?;
        }
        Ok(())
    }

    fn forget(&mut self, xid: u32) {
        if let Some(streamed) = self.streamed.remove(&xid) {
            self.in_memory -= streamed.held.in_memory();
        }
    }

    fn replay(&mut self, xid: u32, commit: Commit) -> Result<Option<Event>> {
        let streamed = self.streamed.remove(&xid).unwrap_or_default();
        self.in_memory -= streamed.held.in_memory();
        if commit.commit_lsn < self.start {
            return Ok(None);
        }
        // The messages were cut out of chunks, so a decoder that stands in one reads them.
        let mut decoder = Decoder::new(self.version);
        let mut start = BytesMut::from(&b"S"[..]);
        start.put_u32(xid);
        start.put_u8(1);
        decoder.decode(start.freeze()).map_err(malformed)?;
        let begin = Begin { final_lsn: commit.commit_lsn, committed_at: commit.committed_at, xid };
        self.replay = Some(Replay {
            decoder,
            held: streamed.held.into_reader(&self.budget.directory)?,
            rolled_back: streamed.rolled_back,
            commit,
        });
        Ok(Some(Event::Begin(begin)))
    }
}

/// The event of a message inside a transaction; `None` for what changes no rows.
fn change(message: Message) -> Option<Event> {
    match message {
        Message::Relation(relation) => Some(Event::Relation(relation)),
        Message::Insert(insert) => Some(Event::Insert(insert)),
        Message::Update(update) => Some(Event::Update(update)),
        Message::Delete(delete) => Some(Event::Delete(delete)),
        Message::Truncate(truncate) => Some(Event::Truncate(truncate)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes the messages of a walsender. A change is an Insert of no columns into the relation whose OID is its number.
    struct Wal(Vec<u8>);

    impl Wal {
        fn new(tag: u8) -> Wal {
            Wal(vec![tag])
        }
        fn u8(mut self, value: u8) -> Wal {
            self.0.push(value);
            self
        }
        fn u32(mut self, value: u32) -> Wal {
            self.0.extend(value.to_be_bytes());
            self
        }
        fn u64(mut self, value: u64) -> Wal {
            self.0.extend(value.to_be_bytes());
            self
        }
        fn message(self) -> StreamMessage {
            StreamMessage::XLogData {
                start: Lsn(0),
                end: Lsn(0),
                sent_at: pgstream_proto::timestamp::Timestamp(0),
                data: Bytes::from(self.0),
            }
        }
    }

    fn change(number: u32, xid: Option<u32>) -> StreamMessage {
        let wal = Wal::new(b'I');
        let wal = xid.into_iter().fold(wal, Wal::u32);
        wal.u32(number).u8(b'N').u8(0).u8(0).message()
    }

    fn begin(lsn: u64) -> StreamMessage {
        Wal::new(b'B').u64(lsn).u64(0).u32(1).message()
    }

    fn commit(lsn: u64) -> StreamMessage {
        Wal::new(b'C').u8(0).u64(lsn).u64(lsn + 1).u64(0).message()
    }

    fn stream_commit(xid: u32, lsn: u64) -> StreamMessage {
        Wal::new(b'c').u32(xid).u8(0).u64(lsn).u64(lsn + 1).u64(0).message()
    }

    fn stream_abort(xid: u32, subxid: u32) -> StreamMessage {
        Wal::new(b'A').u32(xid).u32(subxid).message()
    }

    /// A transaction of the model: its chunks, each a list of changes by subtransaction (0: itself), and what rolls back.
    #[derive(Debug, Clone)]
    struct Planned {
        streamed: bool,
        chunks: Vec<Vec<u32>>,
        rolled_back: HashSet<u32>,
        commits: bool,
    }

    fn planned() -> impl Strategy<Value = Planned> {
        let chunks = prop::collection::vec(prop::collection::vec(0..4u32, 0..4), 1..4);
        (any::<bool>(), chunks, prop::collection::hash_set(1..4u32, 0..3), prop::bool::weighted(0.8))
            .prop_map(|(streamed, chunks, rolled_back, commits)| Planned {
                streamed,
                chunks,
                rolled_back,
                commits,
            })
    }

    /// What came out: the commit LSN and the changes of each transaction.
    fn run(assembler: &mut Assembler, messages: Vec<StreamMessage>, go_ahead: bool) -> Vec<(u64, Vec<u32>)> {
        let mut transactions = Vec::new();
        let mut open: Option<(u64, Vec<u32>)> = None;
        for message in messages {
            let mut event = assembler.take(message, go_ahead).unwrap();
            while let Some(next) = event {
                match next {
                    Event::Ahead => {
                        assert!(go_ahead);
                        assert!(open.replace((u64::MAX, Vec::new())).is_none())
                    }
                    Event::Back => assert_eq!(open.take().expect("ahead").0, u64::MAX),
                    Event::Begin(begin) => assert!(open.replace((begin.final_lsn.0, Vec::new())).is_none()),
                    Event::Insert(insert) => {
                        open.as_mut().expect("inside a transaction").1.push(insert.relation)
                    }
                    Event::Commit(commit) => {
                        let mut transaction = open.take().expect("inside a transaction");
                        if transaction.0 == u64::MAX {
                            transaction.0 = commit.commit_lsn.0;
                        }
                        assert_eq!(commit.commit_lsn.0, transaction.0);
                        transactions.push(transaction);
                    }
                    Event::Idle(_) => assert!(open.is_none()),
                    other => panic!("unexpected {other:?}"),
                }
                event = assembler.next().unwrap();
            }
        }
        transactions
    }

    proptest! {
        #[test]
        fn transactions_come_out_whole_in_commit_order_without_what_was_rolled_back(
            plan in prop::collection::vec(planned(), 1..8),
            schedule in prop::collection::vec(0..8usize, 0..40),
            memory in prop_oneof![Just(1usize), Just(40), Just(1 << 20)],
            skipped in 0..3u64,
            go_ahead in any::<bool>(),
        ) {
            let (mut messages, mut expected) = (Vec::new(), Vec::new());
            let (mut done, mut ended) = (vec![0; plan.len()], vec![false; plan.len()]);
            let (mut numbers, mut lsn) = (0, 100);
            let mut survivors = vec![Vec::new(); plan.len()];
            let every = (0..plan.len()).flat_map(|t| std::iter::repeat_n(t, 5));
            for t in schedule.into_iter().chain(every).filter(|t| *t < plan.len()) {
                let transaction = &plan[t];
                let xid = 1000 + 10 * t as u32;
                if ended[t] {
                    continue;
                }
                if transaction.streamed && done[t] < transaction.chunks.len() {
                    messages.push(Wal::new(b'S').u32(xid).u8((done[t] == 0).into()).message());
                    for sub in &transaction.chunks[done[t]] {
                        numbers += 1;
                        messages.push(change(numbers, Some(xid + sub)));
                        if !transaction.rolled_back.contains(sub) {
                            survivors[t].push(numbers);
                        }
                    }
                    messages.push(Wal::new(b'E').message());
                    done[t] += 1;
                    continue;
                }
                ended[t] = true;
                lsn += 10;
                if transaction.streamed {
                    for sub in &transaction.rolled_back {
                        messages.push(stream_abort(xid, xid + sub));
                    }
                    messages.push(if transaction.commits { stream_commit(xid, lsn) } else { stream_abort(xid, xid) });
                } else if transaction.commits {
                    messages.push(begin(lsn));
                    for _ in transaction.chunks.iter().flatten() {
                        numbers += 1;
                        messages.push(change(numbers, None));
                        survivors[t].push(numbers);
                    }
                    messages.push(commit(lsn));
                }
                if transaction.commits {
                    expected.push((lsn, survivors[t].clone()));
                }
            }
            let start = 100 + 10 * skipped + 5;
            expected.retain(|(lsn, _)| *lsn >= start);
            let budget = Budget { memory, directory: std::env::temp_dir() };
            let mut assembler = Assembler::new(ProtocolVersion::V2, Lsn(start), budget);
            prop_assert_eq!(run(&mut assembler, messages, go_ahead), expected);
            prop_assert_eq!(assembler.in_memory, 0);
        }
    }

    #[test]
    fn a_commit_at_the_start_is_not_yet_applied() {
        let budget = Budget { memory: 0, directory: std::env::temp_dir() };
        let mut assembler = Assembler::new(ProtocolVersion::V1, Lsn(50), budget);
        let messages = vec![begin(49), change(1, None), commit(49), begin(50), change(2, None), commit(50)];
        assert_eq!(run(&mut assembler, messages, false), [(50, vec![2])]);
    }

    #[test]
    fn nor_is_one_that_was_streamed_and_what_is_streamed_anew_replaces_what_was() {
        let budget = Budget { memory: 0, directory: std::env::temp_dir() };
        let mut assembler = Assembler::new(ProtocolVersion::V2, Lsn(50), budget);
        let chunk = |number| {
            [Wal::new(b'S').u32(7).u8(1).message(), change(number, Some(7)), Wal::new(b'E').message()]
        };
        let messages = chunk(1).into_iter().chain(chunk(2)).chain([stream_commit(7, 50)]).collect();
        assert_eq!(run(&mut assembler, messages, false), [(50, vec![2])]);
    }

    #[test]
    fn a_keepalive_counts_between_transactions_alone() {
        let budget = Budget { memory: 0, directory: std::env::temp_dir() };
        let mut assembler = Assembler::new(ProtocolVersion::V1, Lsn(1), budget);
        let keepalive = || StreamMessage::PrimaryKeepalive {
            wal_end: Lsn(9),
            sent_at: pgstream_proto::timestamp::Timestamp(0),
            reply_requested: false,
        };
        assert_eq!(assembler.take(keepalive(), false).unwrap(), Some(Event::Idle(Lsn(9))));
        assembler.take(begin(5), false).unwrap();
        assert_eq!(assembler.take(keepalive(), false).unwrap(), None);
        assembler.take(commit(5), false).unwrap();
        assert_eq!(assembler.take(keepalive(), false).unwrap(), Some(Event::Idle(Lsn(9))));
    }

    #[test]
    fn a_large_transaction_is_passed_on_as_it_comes_until_another_commits_before() {
        let start = |xid, first| Wal::new(b'S').u32(xid).u8(first).message();
        let stop = || Wal::new(b'E').message();
        let budget = Budget { memory: 0, directory: std::env::temp_dir() };
        let mut assembler = Assembler::new(ProtocolVersion::V2, Lsn(1), budget);
        let mut events = |message| {
            let first = assembler.take(message, true).unwrap();
            let more = std::iter::from_fn(|| assembler.next().unwrap());
            first.into_iter().chain(more).collect::<Vec<_>>()
        };
        assert_eq!(events(start(7, 1)), [Event::Ahead]);
        assert!(matches!(events(change(1, Some(7)))[..], [Event::Insert(_)]));
        assert_eq!(events(stop()), []);
        assert_eq!(events(start(8, 1)), []);
        assert_eq!(events(change(2, Some(8))), []);
        assert_eq!(events(stop()), []);
        assert!(matches!(events(begin(20))[..], [Event::Back, Event::Begin(_)]));
        assert!(matches!(events(commit(20))[..], [Event::Commit(_)]));
        assert_eq!(events(start(7, 0)), []);
        assert_eq!(events(change(3, Some(7))), []);
        assert_eq!(events(stop()), []);
        let events = events(stream_commit(7, 30));
        assert!(matches!(
            events[..],
            [Event::Begin(_), Event::Insert(_), Event::Insert(_), Event::Commit(_)]
        ));
    }
}
