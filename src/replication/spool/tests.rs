//! Files that are torn, cut, damaged, lost or foreign: what comes out is what went in, or an error.

use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes};
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::timestamp::Timestamp;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

use super::directory::{Directory, path_of};
use super::drain::Drain;
use super::segment::{Header, Identity, Record, Segment};
use super::writer::Writer;
use crate::error::{Error, ErrorKind, Result};
use crate::replication::assemble::{Assembler, Budget, Event};

const VERSION: ProtocolVersion = ProtocolVersion::V2;

fn identity() -> Identity {
    let text = |text: &str| text.to_owned();
    Identity {
        spool: text("7-1"),
        system_identifier: text("7000000000000000001"),
        database: text("app"),
        slot: text("pgstream_0123"),
    }
}

fn data(fill: impl FnOnce(&mut Vec<u8>)) -> StreamMessage {
    let mut data = Vec::new();
    fill(&mut data);
    StreamMessage::XLogData { start: Lsn(0), end: Lsn(0), sent_at: Timestamp(9), data: Bytes::from(data) }
}

/// A transaction whose commit record is at `lsn` and ends at the next position, with a change of each relation; those in `described` come first.
fn transaction(lsn: u64, relations: &[u32], described: &[u32]) -> Vec<StreamMessage> {
    let mut messages = vec![data(|out| {
        out.put_u8(b'B');
        out.put_u64(lsn);
        out.put_i64(0);
        out.put_u32(1);
    })];
    for &oid in described {
        messages.push(data(|out| {
            out.put_u8(b'R');
            out.put_u32(oid);
            out.put_slice(b"public\0t\0d\0\0");
        }));
    }
    for &oid in relations {
        messages.push(data(|out| {
            out.put_u8(b'I');
            out.put_u32(oid);
            out.put_slice(b"N\0\0");
        }));
    }
    messages.push(data(|out| {
        out.put_slice(b"C\0");
        out.put_u64(lsn);
        out.put_u64(lsn + 1);
        out.put_i64(0);
    }));
    messages
}

fn keepalive(lsn: u64) -> StreamMessage {
    StreamMessage::PrimaryKeepalive { wal_end: Lsn(lsn), sent_at: Timestamp(9), reply_requested: false }
}

fn open(base: &Path) -> Directory {
    Directory::make(base, identity()).expect("the folder is free")
}

async fn write(writer: &mut Writer, messages: Vec<StreamMessage>) {
    for message in messages {
        writer.take(message).await.map_err(Error::from).unwrap();
    }
}

/// A stream into the spool from `from`, behind what is there.
fn writer(base: &Path, checkpoint: u64, from: u64) -> Writer {
    let directory = open(base);
    let entries = directory.hold(Lsn(checkpoint), Lsn(from)).map_err(Error::from).unwrap();
    let number = entries.last().map_or(0, |last| last.number);
    Writer::new(directory, number, Lsn(from), VERSION, false).with_segments_of(100)
}

/// Commit LSN and changed relations of each transaction, and the last position.
type Drained = (Vec<(u64, Vec<u32>)>, u64);

/// Reads the spool as the applier does, past the checkpoint. A change of a relation
/// that its segment does not describe is an error.
async fn drained(base: &Path, checkpoint: u64, to: u64) -> Result<Drained> {
    let drain = Drain::new(Directory::open(base, identity())?, Lsn(checkpoint), Lsn(to))?;
    let (chunks, mut received) = mpsc::channel(1);
    let (_durable, durable) = watch::channel(Lsn(checkpoint));
    let reader = tokio::spawn(drain.run(chunks, durable));
    let budget = Budget { memory: 0, directory: PathBuf::new() };
    let mut assembler = Assembler::new(ProtocolVersion::V1, Lsn(checkpoint), budget);
    let (mut transactions, mut position, mut known) = (Vec::new(), checkpoint, Vec::new());
    while let Some(chunk) = received.recv().await {
        if let Some(version) = chunk.begins {
            assembler = assembler.anew(version);
            known.clear();
        }
        for (message, _) in chunk.messages {
            match assembler.take(message, false)? {
                Some(Event::Begin(begin)) => transactions.push((begin.final_lsn.0, Vec::new())),
                Some(Event::Relation(relation)) => known.push(relation.oid),
                Some(Event::Insert(insert)) => {
                    assert!(
                        known.contains(&insert.relation),
                        "relation {} is not described",
                        insert.relation
                    );
                    transactions.last_mut().expect("inside a transaction").1.push(insert.relation);
                }
                Some(Event::Commit(commit)) => position = commit.end_lsn.0,
                Some(Event::Idle(lsn)) => position = position.max(lsn.0),
                Some(other) => panic!("unexpected {other:?}"),
                None => {}
            }
        }
    }
    reader.await.expect("the reader does not panic")?;
    Ok((transactions, position))
}

/// A spool of several segments that holds (100, 141], and more that nobody has recorded: its files in order.
async fn small_spool(base: &Path) -> Vec<PathBuf> {
    let mut writer = writer(base, 100, 100);
    write(&mut writer, transaction(110, &[1, 2], &[1, 2])).await;
    write(&mut writer, transaction(120, &[1], &[])).await;
    write(&mut writer, transaction(130, &[2, 3], &[3])).await;
    write(&mut writer, transaction(140, &[1, 3], &[])).await;
    assert_eq!(writer.sync().await.map_err(Error::from).unwrap(), Lsn(141));
    write(&mut writer, transaction(150, &[2], &[])).await;
    writer.sync().await.map_err(Error::from).unwrap();
    drop(writer);
    let mut files: Vec<PathBuf> = std::fs::read_dir(path_of(base, &identity().slot))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    files
}

fn whole() -> Drained {
    (vec![(110, vec![1, 2]), (120, vec![1]), (130, vec![2, 3]), (140, vec![1, 3])], 141)
}

/// The bytes of each file; they are put back after each damage.
struct Kept(Vec<(PathBuf, Vec<u8>)>);

impl Kept {
    fn of(files: &[PathBuf]) -> Kept {
        Kept(files.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect())
    }

    fn put_back(&self) {
        self.0.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }
}

#[tokio::test]
async fn any_flipped_byte_and_any_cut_is_an_error_or_past_the_recorded_end() {
    let base = TempDir::new().unwrap();
    let kept = Kept::of(&small_spool(base.path()).await);
    assert_eq!(drained(base.path(), 100, 141).await.unwrap(), whole());
    let (mut refused, mut harmless) = (0, 0);
    let mut count = |what: String, came: Result<Drained>| match came {
        Ok(came) => {
            assert_eq!(came, whole(), "{what}");
            harmless += 1;
        }
        Err(error) => {
            assert!(error.kind() == ErrorKind::Failed || error.kind() == ErrorKind::Usage, "{what}: {error}");
            refused += 1;
        }
    };
    for (path, bytes) in &kept.0 {
        for at in 0..bytes.len() {
            kept.put_back();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(path, damaged).unwrap();
            count(format!("{} byte {at}", path.display()), drained(base.path(), 100, 141).await);
        }
        for len in 0..bytes.len() {
            kept.put_back();
            std::fs::write(path, &bytes[..len]).unwrap();
            count(format!("{} cut at {len}", path.display()), drained(base.path(), 100, 141).await);
        }
    }
    assert!(refused > 1000 && harmless > 50, "{refused} refused, {harmless} harmless");
}

#[tokio::test]
async fn a_segment_that_is_missing_or_in_the_place_of_another_is_an_error() {
    let base = TempDir::new().unwrap();
    let kept = Kept::of(&small_spool(base.path()).await);
    for (number, (path, _)) in kept.0.iter().enumerate() {
        kept.put_back();
        std::fs::remove_file(path).unwrap();
        match drained(base.path(), 100, 141).await {
            // The one past the recorded end.
            Ok(came) => assert!(number + 1 == kept.0.len() && came == whole()),
            Err(error) => assert!(error.hint().unwrap().contains("--restart"), "{error}"),
        }
        kept.put_back();
        let (_, other) = &kept.0[(number + 1) % kept.0.len()];
        std::fs::write(path, other).unwrap();
        let came = drained(base.path(), 100, 141).await;
        assert!(came.is_err() || came.is_ok_and(|came| came == whole()), "segment {number}");
    }
}

#[tokio::test]
async fn the_spool_of_another_migration_is_refused_and_an_earlier_one_of_the_same_gives_way() {
    let base = TempDir::new().unwrap();
    let kept = Kept::of(&small_spool(base.path()).await);
    for change in [
        |identity: &mut Identity| identity.system_identifier.push('2'),
        |identity: &mut Identity| identity.database.push('2'),
    ] {
        let mut other = identity();
        change(&mut other);
        let directory = Directory::open(base.path(), other).map_err(Error::from).unwrap();
        let error = Error::from(directory.hold(Lsn(100), Lsn(100)).unwrap_err());
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("another migration"), "{error}");
        assert!(kept.0.iter().all(|(path, _)| path.exists()), "nothing of it is touched");
    }
    let anew = Identity { spool: "8-1".to_owned(), ..identity() };
    let directory = Directory::open(base.path(), anew).map_err(Error::from).unwrap();
    assert!(directory.hold(Lsn(100), Lsn(100)).map_err(Error::from).unwrap().is_empty());
    assert!(kept.0.iter().all(|(path, _)| !path.exists()), "it is removed");
}

#[tokio::test]
async fn two_at_a_time_are_refused() {
    let base = TempDir::new().unwrap();
    let _first = open(base.path());
    let error = Error::from(Directory::open(base.path(), identity()).unwrap_err());
    assert!(error.to_string().contains("another pgstream"), "{error}");
}

#[tokio::test]
async fn what_is_not_durable_on_the_target_stays() {
    for durable in [100, 111, 121, 131, 141] {
        let base = TempDir::new().unwrap();
        small_spool(base.path()).await;
        let directory = Directory::open(base.path(), identity()).unwrap();
        let mut drain = Drain::new(directory, Lsn(100), Lsn(141)).map_err(Error::from).unwrap();
        drain.forget(Lsn(durable)).await.unwrap();
        drop(drain);
        drained(base.path(), durable, 141).await.unwrap_or_else(|error| panic!("{durable}: {error}"));
    }
}

#[tokio::test]
async fn a_quiet_stream_moves_the_end_and_segments_that_are_applied_go() {
    let base = TempDir::new().unwrap();
    let mut writer = writer(base.path(), 100, 100);
    write(&mut writer, vec![keepalive(170)]).await;
    assert_eq!(writer.idle(), Some(Lsn(170)));
    assert_eq!(writer.sync().await.map_err(Error::from).unwrap(), Lsn(170));
    write(&mut writer, transaction(180, &[1], &[1])).await;
    write(&mut writer, transaction(190, &[1], &[])).await;
    write(&mut writer, transaction(200, &[1], &[])).await;
    writer.sync().await.map_err(Error::from).unwrap();
    drop(writer);
    let drain = Drain::new(Directory::open(base.path(), identity()).unwrap(), Lsn(100), Lsn(201)).unwrap();
    let (chunks, mut received) = mpsc::channel(100);
    let (durable, seen) = watch::channel(Lsn(100));
    durable.send_replace(Lsn(191));
    let reader = tokio::spawn(drain.run(chunks, seen));
    while received.recv().await.is_some() {}
    reader.await.unwrap().unwrap().discard().await.unwrap();
    assert!(!path_of(base.path(), &identity().slot).exists());
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let header = Header { identity: identity(), number: 3, from: Lsn(100), version: VERSION, raw: true };
    let mut bytes = header.encode();
    let mut messages = transaction(110, &[1], &[1]).into_iter();
    let mut records = vec![Record::Relation(Bytes::from_static(b"R\0\0\0\x01a\0b\0d\0\0"))];
    records.extend(messages.by_ref().map(|message| match message {
        StreamMessage::XLogData { sent_at, data, .. } => Record::Message { sent_at, data },
        StreamMessage::PrimaryKeepalive { .. } => unreachable!("a transaction has none"),
    }));
    records.push(Record::Position { sent_at: Timestamp(-1), lsn: Lsn(u64::MAX) });
    records.iter().for_each(|record| record.encode(3, &mut bytes));
    let mut segment = Segment::open(&bytes[..], bytes.len() as u64).unwrap();
    assert_eq!(segment.header(), &header);
    for record in records {
        assert_eq!(segment.record().unwrap(), Some(record));
    }
    assert_eq!(segment.record().unwrap(), None);
    assert_eq!(segment.end(), Some(Lsn(u64::MAX)));
}

/// What happens between two recorded ends.
#[derive(Debug, Clone)]
enum Step {
    Transaction(Vec<u32>),
    /// The source says that nothing came.
    Idle,
    /// What was taken is synced and recorded.
    Record,
    /// The writer dies: of what it did not record, so many bytes are in the last file.
    Die(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(0..6u32, 0..4).prop_map(Step::Transaction),
        1 => Just(Step::Idle),
        2 => Just(Step::Record),
        1 => any::<u16>().prop_map(Step::Die),
    ];
    prop::collection::vec(step, 1..40)
}

/// Tears what was written since the file had `synced` bytes, as a disk does that lost what nobody synced: so many bytes of it stay.
fn tear(file: &Path, synced: u64, keep: u16) {
    let written = std::fs::metadata(file).unwrap().len();
    let lost = written.saturating_sub(synced);
    let kept = written - lost + u64::from(keep) % (lost + 1);
    std::fs::File::options().write(true).open(file).unwrap().set_len(kept).unwrap();
}

fn last_file(directory: &Path) -> Option<PathBuf> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some()).max()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whoever_dies_between_recorded_ends_each_transaction_comes_once(steps in steps(), checkpoint in any::<prop::sample::Index>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let base = TempDir::new().unwrap();
            let (mut at, mut recorded) = (100, 100);
            // What the source holds: transactions by commit, and which of them are recorded.
            let (mut sent, mut lasting, mut ends) = (Vec::new(), 0, vec![100]);
            let mut described = Vec::new();
            let folder = path_of(base.path(), &identity().slot);
            let mut synced = None;
            let mut stream = writer(base.path(), 100, 100);
            for step in steps {
                match step {
                    Step::Transaction(relations) => {
                        at += 10;
                        let anew: Vec<u32> = relations.iter().copied().filter(|oid| !described.contains(oid)).collect();
                        write(&mut stream, transaction(at, &relations, &anew)).await;
                        described.extend(anew);
                        sent.push((at, relations));
                        at += 1;
                    }
                    Step::Idle => {
                        at += 5;
                        write(&mut stream, vec![keepalive(at)]).await;
                    }
                    Step::Record => {
                        recorded = stream.sync().await.map_err(Error::from).unwrap().0;
                        lasting = sent.len();
                        ends.push(recorded);
                        synced = last_file(&folder).map(|file| (std::fs::metadata(&file).unwrap().len(), file));
                    }
                    Step::Die(keep) => {
                        drop(stream);
                        if let Some(file) = last_file(&folder) {
                            // A file that is younger than the last record is whole at first: it is synced when it is made.
                            let whole = synced.as_ref().filter(|(_, of)| *of == file).map_or(0, |(len, _)| *len);
                            let header = Segment::open(&std::fs::read(&file).unwrap()[..], u64::MAX).unwrap().at();
                            tear(&file, whole.max(header), keep);
                        }
                        // The source sends again what was not confirmed.
                        sent.truncate(lasting);
                        described.clear();
                        stream = writer(base.path(), 100, recorded);
                    }
                }
            }
            drop(stream);
            let from = ends[checkpoint.index(ends.len())];
            let expected: Vec<_> = sent[..lasting].iter().filter(|(lsn, _)| *lsn >= from).cloned().collect();
            if from < recorded {
                assert_eq!(drained(base.path(), from, recorded).await.unwrap(), (expected, recorded));
            }
        });
    }
}
