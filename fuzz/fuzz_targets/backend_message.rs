//! Messages of a server. Input: a stream of frames.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgstream_proto::backend::Message;
use pgstream_proto::frame::{self, Limits};
use pgstream_proto::replication::StreamMessage;

fuzz_target!(|input: &[u8]| {
    let mut buffer = BytesMut::from(input);
    while let Ok(Some(frame)) = frame::split(&mut buffer, &Limits::SESSION) {
        let Ok(message) = Message::parse(frame) else { continue };
        let _ = format!("{message:?}");
        match message {
            Message::CopyData(body) => drop(StreamMessage::parse(body)),
            Message::CommandComplete(tag) => drop(tag.rows()),
            Message::DataRow(row) => {
                for index in 0..row.len() {
                    assert_eq!(row.get(index), row.bytes(index).as_deref());
                }
            }
            Message::ErrorResponse(notice) | Message::NoticeResponse(notice) => {
                let _ = (notice.to_string(), notice.position(), notice.source_location());
                assert_eq!(notice.sqlstate().as_str().len(), 5);
            }
            _ => {}
        }
    }
});
