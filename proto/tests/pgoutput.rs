//! What servers of majors 10 to 18 really sent, as captured by `pgoutput/capture.sh`, decoded.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use pgstream_proto::pgoutput::{Decoder, Message, OldTuple, ProtocolVersion, Tuple, Value};
use proptest::prelude::*;

const MAJORS: [u32; 7] = [10, 12, 14, 15, 16, 17, 18];

/// The messages of `pgoutput/MAJOR-SCENARIO.hex`.
fn captured(major: u32, scenario: &str) -> Vec<Bytes> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/pgoutput/{major}-{scenario}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// Decodes a capture and writes each message as a line, with what is the same on every server: names, not OIDs; no LSNs.
#[derive(Default)]
struct Transcript {
    lines: Vec<String>,
    relations: HashMap<u32, String>,
    xids: Vec<u32>,
    chunk: u32,
}

impl Transcript {
    fn of(version: ProtocolVersion, messages: &[Bytes]) -> Vec<String> {
        let mut transcript = Transcript::default();
        let mut decoder = Decoder::new(version);
        for data in messages {
            let decoded = decoder.decode(data.clone()).unwrap();
            let line = transcript.line(&decoded.message);
            // Subtransactions by the order in which they come up, the top-level one of a chunk unmarked.
            let line = match decoded.xid {
                Some(xid) if xid != transcript.chunk => format!("{line} in #{}", transcript.number(xid)),
                _ => line,
            };
            transcript.lines.push(line);
        }
        assert!(decoder.is_between_transactions());
        transcript.lines
    }

    fn number(&mut self, xid: u32) -> usize {
        self.xids.iter().position(|&known| known == xid).unwrap_or_else(|| {
            self.xids.push(xid);
            self.xids.len() - 1
        })
    }

    fn line(&mut self, message: &Message) -> String {
        match message {
            Message::Begin(_) => "begin".to_owned(),
            Message::Commit(commit) => {
                assert!(commit.end_lsn > commit.commit_lsn);
                "commit".to_owned()
            }
            Message::Origin(origin) => format!("origin {} {}", origin.name, origin.commit_lsn),
            Message::Logical(logical) => {
                let kind = if logical.transactional { "transactional" } else { "free" };
                format!("{kind} message {} {:?}", logical.prefix, logical.content)
            }
            Message::Relation(relation) => {
                let name = format!("{}.{}", relation.namespace, relation.name);
                let column = |column: &pgstream_proto::pgoutput::Column| {
                    format!("{}{}", column.name, if column.key { "*" } else { "" })
                };
                let columns: Vec<_> = relation.columns.iter().map(column).collect();
                self.relations.insert(relation.oid, name.clone());
                format!("relation {name} {:?} [{}]", relation.replica_identity, columns.join(", "))
            }
            Message::Type(r#type) => format!("type {}.{}", r#type.namespace, r#type.name),
            Message::Insert(insert) => {
                format!("insert {} {}", self.relations[&insert.relation], row(&insert.new))
            }
            Message::Update(update) => {
                let old = update.old.as_ref().map(old).unwrap_or_default();
                format!("update {} {old}{}", self.relations[&update.relation], row(&update.new))
            }
            Message::Delete(delete) => {
                format!("delete {} {}", self.relations[&delete.relation], old(&delete.old).trim_end())
            }
            Message::Truncate(truncate) => {
                let names: Vec<_> =
                    truncate.relations.iter().map(|oid| self.relations[oid].as_str()).collect();
                let (cascade, restart) = (truncate.cascade, truncate.restart_identity);
                format!("truncate {} cascade={cascade} restart={restart}", names.join(", "))
            }
            Message::StreamStart(start) => {
                self.chunk = start.xid;
                let number = self.number(start.xid);
                format!("chunk #{number}{}", if start.first_segment { " first" } else { "" })
            }
            Message::StreamStop => "stop".to_owned(),
            Message::StreamCommit(commit) => format!("commit #{}", self.number(commit.xid)),
            Message::StreamAbort(abort) => {
                let (top, sub) = (self.number(abort.xid), self.number(abort.subxid));
                format!("abort #{sub} of #{top}{}", if abort.abort.is_some() { " with position" } else { "" })
            }
            Message::StreamPrepare(prepare) => {
                format!("prepare #{} {}", self.number(prepare.xid), prepare.gid)
            }
            Message::BeginPrepare(prepare) => format!("begin prepare {}", prepare.gid),
            Message::Prepare(prepare) => {
                assert!(prepare.end_lsn > prepare.prepare_lsn);
                format!("prepare {}", prepare.gid)
            }
            Message::CommitPrepared(commit) => format!("commit prepared {}", commit.gid),
            Message::RollbackPrepared(rollback) => {
                assert!(rollback.rollback_end_lsn > rollback.prepare_end_lsn);
                assert!(rollback.rolled_back_at > rollback.prepared_at);
                format!("rollback prepared {}", rollback.gid)
            }
        }
    }
}

fn row(tuple: &Tuple) -> String {
    let value = |value: Value<'_>| match value {
        Value::Null => "null".to_owned(),
        Value::UnchangedToast => "unchanged".to_owned(),
        Value::Text(text) if text.len() > 100 => format!("{} bytes", text.len()),
        Value::Text(text) => format!("{:?}", std::str::from_utf8(text).unwrap()),
        Value::Binary(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
    };
    let values: Vec<_> = tuple.values().map(value).collect();
    format!("({})", values.join(", "))
}

fn old(old: &OldTuple) -> String {
    match old {
        OldTuple::Key(tuple) => format!("key {} ", row(tuple)),
        OldTuple::Full(tuple) => format!("full {} ", row(tuple)),
    }
}

/// The transcript without what differs between servers and means nothing: empty transactions (sent before 15), empty chunks, and
/// Relations and Types that repeat what is known.
fn transcript(major: u32, scenario: &str, version: ProtocolVersion) -> Vec<String> {
    let mut known = HashMap::new();
    let mut lines: Vec<String> = Vec::new();
    for line in Transcript::of(version, &captured(major, scenario)) {
        let mut words = line.split(' ');
        let definition = match words.next() {
            Some("relation" | "type") => words.next().map(str::to_owned),
            _ => None,
        };
        if let Some(name) = definition
            && known.insert(name, line.clone()).as_ref() == Some(&line)
        {
            continue;
        }
        let last = lines.last().map(String::as_str);
        match (last, line.as_str()) {
            (Some("begin"), "commit") | (Some("chunk #0"), "stop") => drop(lines.pop()),
            _ => lines.push(line),
        }
    }
    lines
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn every_kind_of_change_is_decoded() {
    let changes = r#"
        begin
        type public.mood
        type pg_catalog.int4
        relation public.item Default [id*, name, price, feeling, size]
        insert public.item ("1", "tab\t\\ é", "9.50", "ok", "3")
        insert public.item ("2", "", null, null, null)
        commit
        begin
        update public.item ("1", "new", "9.50", "ok", "3")
        commit
        begin
        update public.item key ("2", null, null, null, null) ("20", "", null, null, null)
        commit
        begin
        delete public.item key ("20", null, null, null, null)
        commit
        begin
        relation public.whole Full [a*, b*]
        insert public.whole ("1", null)
        commit
        begin
        update public.whole full ("1", null) ("1", "x")
        commit
        begin
        delete public.whole full ("1", "x")
        commit
        begin
        relation public.large Default [id*, doc]
        insert public.large ("short", 2100 bytes)
        commit
        begin
        update public.large key ("short", null) ("other", unchanged)
        commit
        begin
        relation s1.We"ird T Index [k*, a b]
        insert s1.We"ird T ("1", "2")
        commit
        begin
        update s1.We"ird T key ("1", null) ("3", "2")
        commit
        begin
        relation public.empty Default []
        insert public.empty ()
        commit
        begin
        relation public.item Default [id*, name, price, feeling, size, extra]
        insert public.item ("3", null, null, null, null, "t")
        relation public.item Default [id*, name, price, feeling, size]
        insert public.item ("4", null, null, null, null)
        commit
    "#;
    // TRUNCATE is published since 11, logical messages are since 14.
    let truncate = "
        begin
        truncate public.item, public.whole cascade=true restart=true
        commit
    ";
    let messages = r#"
        free message alone b"between"
        begin
        transactional message inside b"part"
        commit
    "#;
    let origin = r#"
        begin
        origin elsewhere 0/ABCDEF
        insert public.whole ("7", "from elsewhere")
        commit
    "#;
    for major in MAJORS {
        let mut expected = changes.to_owned();
        if major >= 11 {
            expected.push_str(truncate);
        }
        if major >= 14 {
            expected.push_str(messages);
        }
        expected.push_str(origin);
        assert_eq!(transcript(major, "changes", ProtocolVersion::V1), lines(&expected), "major {major}");
    }
}

#[test]
fn binary_values_are_decoded() {
    let expected = lines(
        r#"
        begin
        type public.mood
        type pg_catalog.int4
        relation public.item Default [id*, name, price, feeling, size]
        insert public.item (b"\x00\x00\x00\x05", b"binary", b"\x00\x02\x00\x00\x00\x00\x00\x02\x00\x01\x13\x88", b"sad", b"\x00\x00\x00\x07")
        commit
    "#,
    );
    for major in MAJORS.into_iter().filter(|&major| major >= 14) {
        assert_eq!(transcript(major, "binary", ProtocolVersion::V1), expected, "major {major}");
    }
}

/// Two transactions: one with a subtransaction kept, one dropped, one after that; and one rolled back, whose chunk is empty
/// where it is sent at all.
fn expect_streamed(scenario: &str, version: ProtocolVersion, since: u32, abort: &str) {
    let expected = lines(&format!(
        r#"
        chunk #0 first
        relation public.whole Full [a*, b*]
        insert public.whole ("1", "top")
        insert public.whole ("2", "kept") in #1
        stop
        chunk #0
        insert public.whole ("3", "dropped") in #2
        stop
        abort #2 of #0{abort}
        chunk #0
        type public.mood in #3
        type pg_catalog.int4 in #3
        relation public.item Default [id*, name, price, feeling, size] in #3
        insert public.item ("6", null, null, null, null) in #3
        relation public.whole Full [a*, b*] in #3
        truncate public.whole cascade=false restart=false in #3
        transactional message inside b"a chunk"
        stop
        commit #0
    "#
    ));
    for major in MAJORS.into_iter().filter(|&major| major >= since) {
        let mut lines = transcript(major, scenario, version);
        if lines.ends_with(&["chunk #4 first".to_owned(), "stop".to_owned()]) {
            lines.truncate(lines.len() - 2);
        }
        assert_eq!(lines, expected, "major {major}");
    }
}

#[test]
fn streamed_chunks_tell_the_subtransaction_of_each_change() {
    expect_streamed("streamed", ProtocolVersion::V2, 14, "");
}

#[test]
fn streaming_in_parallel_tells_where_an_abort_stood() {
    expect_streamed("parallel", ProtocolVersion::V4, 16, " with position");
}

#[test]
fn prepared_transactions_are_decoded_whole_and_streamed() {
    let expected = lines(
        r#"
        begin prepare first
        relation public.whole Full [a*, b*]
        insert public.whole ("5", "committed")
        prepare first
        commit prepared first
        begin prepare second
        insert public.whole ("6", "rolled back")
        prepare second
        rollback prepared second
        chunk #0 first
        insert public.whole ("7", "streamed")
        stop
        prepare #0 third
        commit prepared third
    "#,
    );
    for major in MAJORS.into_iter().filter(|&major| major >= 15) {
        assert_eq!(transcript(major, "prepared", ProtocolVersion::V3), expected, "major {major}");
    }
}

#[test]
fn a_message_cut_anywhere_or_made_longer_is_refused() {
    for (scenario, version) in [
        ("changes", ProtocolVersion::V1),
        ("binary", ProtocolVersion::V1),
        ("streamed", ProtocolVersion::V2),
        ("prepared", ProtocolVersion::V3),
        ("parallel", ProtocolVersion::V4),
    ] {
        let mut decoder = Decoder::new(version);
        for data in captured(17, scenario) {
            for end in 0..data.len() {
                // Without the abort's position it is the message of protocol 2.
                if data[0] == b'A' && end == 9 {
                    continue;
                }
                assert!(decoder.clone().decode(data.slice(..end)).is_err(), "{data:?} cut at {end}");
            }
            let longer = [&data[..], b"\0"].concat();
            assert!(decoder.clone().decode(Bytes::from(longer)).is_err(), "{data:?} made longer");
            decoder.decode(data).unwrap();
        }
    }
}

#[test]
fn messages_out_of_place_are_refused() {
    let changes = captured(15, "changes");
    let (begin, insert, commit) = (&changes[0], &changes[4], &changes[6]);
    let refused = |before: &[&Bytes], data: &Bytes| {
        let mut decoder = Decoder::new(ProtocolVersion::V4);
        for data in before {
            decoder.decode(Bytes::clone(data)).unwrap();
        }
        decoder.decode(data.clone()).unwrap_err().to_string()
    };
    assert_eq!(refused(&[], insert), "invalid Insert message: it comes outside a transaction");
    assert_eq!(refused(&[], commit), "invalid Commit message: it comes outside a transaction");
    assert_eq!(refused(&[begin], begin), "invalid Begin message: it comes inside another transaction");
    let start = captured(15, "streamed")[0].clone();
    assert_eq!(refused(&[&start], begin), "invalid Begin message: it comes inside a streamed chunk");
    assert_eq!(refused(&[begin], &start), "invalid StreamStart message: it comes inside another transaction");
}

#[test]
fn messages_of_newer_protocols_are_refused() {
    let start = captured(15, "streamed")[0].clone();
    let prepare = captured(15, "prepared")[0].clone();
    let words = "this version of the protocol does not have it";
    for (version, data) in [(ProtocolVersion::V1, start), (ProtocolVersion::V2, prepare)] {
        let error = Decoder::new(version).decode(data).unwrap_err();
        assert!(error.to_string().ends_with(words), "{error}");
    }
}

#[test]
fn debug_output_shows_no_values() {
    let mut decoder = Decoder::new(ProtocolVersion::V1);
    let messages = captured(15, "changes").into_iter().map(|data| decoder.decode(data).unwrap());
    assert!(!messages.map(|message| format!("{message:?}")).collect::<String>().contains("9.50"));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(
        chunk in any::<bool>(),
        messages in prop::collection::vec((prop::sample::select(b"BCOMRYIUDTSEcAbPKrpx".to_vec()), prop::collection::vec(any::<u8>(), 0..64)), 1..8),
    ) {
        let mut decoder = Decoder::new(ProtocolVersion::V4);
        if chunk {
            decoder.decode(Bytes::from_static(b"S\0\0\0\x01\x01")).unwrap();
        }
        for (tag, body) in messages {
            let _ = decoder.decode([&[tag][..], &body].concat().into());
        }
    }

    #[test]
    fn a_changed_byte_is_decoded_or_refused_without_panic(
        major in prop::sample::select(MAJORS.to_vec()),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut decoder = Decoder::new(ProtocolVersion::V1);
        for data in captured(major, "changes") {
            let mut changed = data.to_vec();
            let at = at.index(changed.len());
            changed[at] = byte;
            if let Ok(decoded) = decoder.clone().decode(changed.into()) {
                let _ = format!("{decoded:?}");
            }
            decoder.decode(data).unwrap();
        }
    }
}
