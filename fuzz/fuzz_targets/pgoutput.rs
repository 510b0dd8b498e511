//! The decoder of pgoutput. Input: one byte for the version, then messages, each after its length in two bytes.
#![no_main]

use bytes::{Buf, Bytes};
use libfuzzer_sys::fuzz_target;
use pgstream_proto::pgoutput::{Decoder, Message, OldTuple, ProtocolVersion, Tuple, Value};

fn check(tuple: &Tuple) {
    for (index, value) in tuple.values().enumerate() {
        match value {
            Value::Text(bytes) | Value::Binary(bytes) => {
                assert_eq!(tuple.bytes(index).as_deref(), Some(bytes))
            }
            Value::Null | Value::UnchangedToast => assert_eq!(tuple.bytes(index), None),
        }
    }
}

fn check_old(old: &OldTuple) {
    match old {
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => check(tuple),
    }
}

fuzz_target!(|input: &[u8]| {
    use ProtocolVersion::{V1, V2, V3, V4};
    let mut input = Bytes::copy_from_slice(input);
    if input.is_empty() {
        return;
    }
    let version = [V1, V2, V3, V4][usize::from(input.get_u8() % 4)];
    let mut decoder = Decoder::new(version);
    while input.remaining() >= 2 {
        let len = usize::from(input.get_u16()).min(input.remaining());
        // A message that is refused leaves the decoder where it was, so that the rest still gets its turn.
        let Ok(decoded) = decoder.decode(input.split_to(len)) else { continue };
        let _ = format!("{decoded:?}");
        match &decoded.message {
            Message::Insert(insert) => check(&insert.new),
            Message::Update(update) => {
                update.old.iter().for_each(check_old);
                check(&update.new);
            }
            Message::Delete(delete) => check_old(&delete.old),
            _ => {}
        }
    }
});
