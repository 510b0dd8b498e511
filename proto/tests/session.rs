//! Sessions recorded from servers of majors 10, 15 and 18, cut into frames, read and followed; and any other bytes, without a panic.
//!
//! `session/MAJOR.hex` holds what the server sent, one line for each of [`SENT`]: the startup (protocol 3.0 to server 10, 3.2 to the others), then
//! what the comment there says.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use pgstream_proto::Format;
use pgstream_proto::auth::{ChannelBinding, Login};
use pgstream_proto::backend::{self, Message, TransactionStatus};
use pgstream_proto::frame::{self, Frame, FrameError, Limits};
use pgstream_proto::frontend;
use pgstream_proto::notice::Notice;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::sqlstate::SqlState;
use proptest::prelude::*;

/// What the client sent before each line, but for the startup message.
const SENT: [&str; 9] = [
    "SELECT 1 AS one, NULL AS nothing, 'é' AS text",
    "",
    "DO $$ BEGIN RAISE NOTICE 'hello' USING HINT = 'h'; END $$",
    "SELEC 1",
    "COPY (VALUES (1,'a'),(2,NULL)) TO STDOUT",
    "COPY (VALUES (1)) TO STDOUT (FORMAT binary)",
    // By the extended protocol: Parse, Describe, Bind with text in and binary out, Describe, Execute, Close, Sync.
    "SELECT $1::int4, NULL::text",
    "LISTEN c; NOTIFY c, 'p'",
    "BEGIN; SELECT 1/0",
];

fn recorded(major: u32) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/session/{major}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn messages(bytes: &[u8]) -> Vec<Message> {
    let mut buffer = BytesMut::from(bytes);
    let mut messages = Vec::new();
    while let Some(frame) = frame::split(&mut buffer, &Limits::SESSION).unwrap() {
        messages.push(Message::parse(frame).unwrap());
    }
    assert!(buffer.is_empty());
    messages
}

fn names(messages: &[Message]) -> Vec<&'static str> {
    messages.iter().map(Message::name).collect()
}

#[test]
fn every_exchange_of_the_recorded_sessions_is_read_and_ends_ready() {
    for major in [10, 15, 18] {
        let lines = recorded(major);
        assert_eq!(lines.len(), 1 + SENT.len());
        for (number, line) in lines.iter().enumerate() {
            let messages = messages(line);
            let ready = |message: &Message| matches!(message, Message::ReadyForQuery(_));
            assert_eq!(
                messages.iter().position(ready),
                Some(messages.len() - 1),
                "major {major}, line {number}"
            );
        }
    }
}

#[test]
fn the_startup_gives_parameters_and_a_cancel_key() {
    for (major, key_len) in [(10, 4), (15, 4), (18, 32)] {
        let messages = messages(&recorded(major)[0]);
        let key = messages.iter().find_map(|message| match message {
            Message::BackendKeyData { key, .. } => Some(key.len()),
            _ => None,
        });
        assert_eq!(key, Some(key_len), "major {major}");
        let encoding = messages.iter().find_map(|message| match message {
            Message::ParameterStatus { name, value } if name == "client_encoding" => Some(value.as_str()),
            _ => None,
        });
        assert_eq!(encoding, Some("UTF8"));
        assert_eq!(messages.last(), Some(&Message::ReadyForQuery(TransactionStatus::Idle)));
    }
}

#[test]
fn an_older_server_negotiates_the_protocol_down() {
    let expected = Message::NegotiateProtocolVersion { version: frontend::VERSION_3_0, unrecognized: vec![] };
    assert_eq!(messages(&recorded(15)[0])[0], expected);
}

#[test]
fn results_are_read_value_by_value() {
    for major in [10, 15, 18] {
        let lines = recorded(major);
        let simple = messages(&lines[1]);
        assert_eq!(names(&simple), ["RowDescription", "DataRow", "CommandComplete", "ReadyForQuery"]);
        let [Message::RowDescription(fields), Message::DataRow(row), Message::CommandComplete(tag), _] =
            &simple[..]
        else {
            panic!("{simple:?}")
        };
        assert_eq!(
            fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(),
            ["one", "nothing", "text"]
        );
        assert_eq!((fields[0].type_oid, fields[0].type_size, fields[0].format), (23, 4, Format::Text));
        assert_eq!((row.len(), row.get(0), row.get(1), row.get(3)), (3, Some(&b"1"[..]), None, None));
        assert_eq!(row.bytes(2), Some(Bytes::from("é")));
        assert_eq!((tag.as_str(), tag.rows()), ("SELECT 1", Some(1)));

        let extended = messages(&lines[7]);
        let expected = [
            "ParseComplete",
            "ParameterDescription",
            "RowDescription",
            "BindComplete",
            "RowDescription",
            "DataRow",
            "CommandComplete",
            "CloseComplete",
            "ReadyForQuery",
        ];
        assert_eq!(names(&extended), expected);
        assert_eq!(extended[1], Message::ParameterDescription(vec![23]));
        assert!(matches!(&extended[5], Message::DataRow(row) if row.get(0) == Some(&[0, 0, 0, 42])));

        assert_eq!(names(&messages(&lines[2])), ["EmptyQueryResponse", "ReadyForQuery"]);
        let notify = messages(&lines[8]);
        assert!(notify.iter().any(|message| matches!(
            message,
            Message::NotificationResponse { channel, payload, .. } if channel == "c" && payload == "p"
        )));
    }
}

#[test]
fn errors_and_notices_are_read() {
    for major in [10, 15, 18] {
        let lines = recorded(major);
        let notice = messages(&lines[3]);
        let Message::NoticeResponse(notice) = &notice[0] else { panic!("{notice:?}") };
        assert_eq!((notice.severity(), notice.message(), notice.hint()), ("NOTICE", "hello", Some("h")));
        assert!(notice.context().unwrap().contains("line 1 at RAISE"));
        let error = messages(&lines[4]);
        let Message::ErrorResponse(error) = &error[0] else { panic!("{error:?}") };
        assert_eq!((error.sqlstate(), error.position()), (SqlState::SYNTAX_ERROR, Some(1)));
        let failed = messages(&lines[9]);
        assert_eq!(failed.last(), Some(&Message::ReadyForQuery(TransactionStatus::Failed)));
    }
}

#[test]
fn copies_are_read() {
    for major in [10, 15, 18] {
        let lines = recorded(major);
        let text = messages(&lines[5]);
        assert_eq!(
            names(&text),
            ["CopyOutResponse", "CopyData", "CopyData", "CopyDone", "CommandComplete", "ReadyForQuery"]
        );
        assert_eq!(text[2], Message::CopyData(Bytes::from_static(b"2\t\\N\n")));
        let binary = messages(&lines[6]);
        let expected = backend::CopyFormat { overall: Format::Binary, columns: vec![Format::Binary] };
        assert_eq!(binary[0], Message::CopyOutResponse(expected));
    }
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    for line in recorded(18) {
        let mut buffer = BytesMut::from(&line[..]);
        while let Some(Frame { tag, body }) = frame::split(&mut buffer, &Limits::SESSION).unwrap() {
            // What ends with data of any length, and what may be cut to a shorter form of itself.
            let open_ended = [backend::tag::COPY_DATA, backend::tag::BACKEND_KEY_DATA].contains(&tag);
            for end in (0..body.len()).filter(|_| !open_ended) {
                let frame = Frame { tag, body: body.slice(..end) };
                assert!(Message::parse(frame).is_err(), "{} cut at {end}", char::from(tag));
            }
        }
    }
}

#[test]
fn a_count_that_the_body_cannot_hold_is_refused() {
    for (tag, body) in [
        (b'T', &b"\xff\xff"[..]),
        (b'D', b"\xff\xff"),
        (b't', b"\xff\xff"),
        (b'G', b"\0\xff\xff"),
        (b'v', b"\0\x03\0\0\x7f\xff\xff\xff"),
        (b'K', b"\0\0\0\x01key"),
    ] {
        let frame = Frame { tag, body: Bytes::from_static(body) };
        assert!(Message::parse(frame).is_err(), "{}", char::from(tag));
    }
    let long_key = [&[0; 4][..], &[1; 257]].concat();
    assert!(Message::parse(Frame { tag: b'K', body: long_key.into() }).is_err());
}

/// Frames with type bytes that servers use, and some that they don't.
fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let tag = prop_oneof![prop::sample::select(b"RK23CWdcGHDIEVvnNAtS1sZT".to_vec()), any::<u8>()];
    let body = prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from);
    prop::collection::vec((tag, body).prop_map(|(tag, body)| Frame { tag, body }), 0..12)
}

fn wire_form(frames: &[Frame]) -> Vec<u8> {
    let frame = |frame: &Frame| {
        let len = u32::try_from(frame.body.len() + 4).unwrap();
        [&[frame.tag][..], &len.to_be_bytes(), &frame.body].concat()
    };
    frames.iter().flat_map(frame).collect()
}

/// Splits a stream that arrives in the given pieces.
fn split_in_pieces(bytes: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let (mut buffer, mut rest, mut frames) = (BytesMut::new(), bytes, Vec::new());
    let mut pieces = pieces.iter().copied().chain([usize::MAX]);
    while let Some(piece) = pieces.next().filter(|_| !rest.is_empty()) {
        let (arrived, later) = rest.split_at(piece.min(rest.len()));
        buffer.extend_from_slice(arrived);
        rest = later;
        while let Some(frame) = frame::split(&mut buffer, &Limits::SESSION)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut(
        frames in frames(),
        pieces in prop::collection::vec(0..40_usize, 0..60),
    ) {
        prop_assert_eq!(split_in_pieces(&wire_form(&frames), &pieces).unwrap(), frames);
    }

    #[test]
    fn no_bytes_make_framing_or_messages_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        pieces in prop::collection::vec(0..40_usize, 0..10),
    ) {
        let whole = split_in_pieces(&bytes, &[]);
        prop_assert_eq!(&split_in_pieces(&bytes, &pieces), &whole);
        for frame in whole.unwrap_or_default() {
            let _ = Message::parse(frame);
        }
    }

    #[test]
    fn no_body_makes_a_message_or_a_login_panic(frames in frames()) {
        let mut login = Login::new("user", Some(b"password"), ChannelBinding::Prefer, None);
        let mut out = BytesMut::new();
        for frame in frames {
            if let Ok(message) = Message::parse(frame) {
                let _ = format!("{message:?}");
                match message {
                    Message::Authentication(request) => drop(login.on(request, &mut out)),
                    Message::CopyData(body) => drop(StreamMessage::parse(body)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn no_body_makes_a_notice_panic(body in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(notice) = Notice::parse(Bytes::from(body)) {
            let _ = (notice.to_string(), format!("{notice:?}"), notice.position(), notice.source_location());
        }
    }
}
