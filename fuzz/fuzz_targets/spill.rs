//! Temporary files of large transactions. Input: a byte that chooses, then either a whole file, or the messages of records, each with its length (u16) and
//! (sub)transaction (u8), which are given their checksums.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use pgstream::replication::spill::{Reader, header};

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else { return };
    if choice % 2 == 0 {
        read(rest);
        return;
    }
    let (mut file, mut records) = (Vec::new(), 0);
    while let Some(([low, high, xid], body)) = rest.split_first_chunk() {
        let (message, next) = body.split_at(body.len().min(u16::from_le_bytes([*low, *high]).into()));
        file.extend_from_slice(&header(u32::from(*xid), message));
        file.extend_from_slice(message);
        (rest, records) = (next, records + 1);
    }
    assert_eq!(read(&file), (records, true));
});

/// What is read must be what stands there, from the beginning without a gap: how many records, and whether to the end.
fn read(file: &[u8]) -> (usize, bool) {
    let mut reader = Reader::new(file, PathBuf::from("fuzz"));
    let (mut written, mut records) = (Vec::new(), 0);
    let whole = loop {
        match reader.next() {
            Ok(Some((xid, message))) => {
                written.extend_from_slice(&header(xid, &message));
                written.extend_from_slice(&message);
                records += 1;
            }
            Ok(None) => break true,
            Err(error) => {
                let _ = error.to_string();
                break false;
            }
        }
    };
    assert!(file.starts_with(&written));
    assert!(!whole || file.len() == written.len());
    (records, whole)
}
