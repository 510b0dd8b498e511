//! Segments of a spool. Input: a byte that chooses, then either a whole file, or the bodies of records, each with its length (u16), which are given a
//! header and their checksums.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstream::replication::spool::segment::{Header, Identity, Record, Segment, seal};
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut rest)) = data.split_first() else { return };
    if choice % 2 == 0 {
        read(rest);
        return;
    }
    let name = || "name".to_owned();
    let identity = Identity { spool: name(), system_identifier: name(), database: name(), slot: name() };
    let version = ProtocolVersion::V4;
    let header = Header { identity, number: 1, from: Lsn(100), version, raw: false };
    let mut file = header.encode();
    while let Some((len, body)) = rest.split_first_chunk() {
        let (body, next) = body.split_at(body.len().min(u16::from_le_bytes(*len).into()));
        seal(header.number, &[body], &mut file);
        rest = next;
    }
    read(&file);
});

/// What is read must be what stands there, from the beginning without a gap.
fn read(file: &[u8]) {
    let mut segment = match Segment::open(file, file.len() as u64) {
        Ok(segment) => segment,
        Err(damage) => {
            let _ = damage.to_string();
            return;
        }
    };
    let mut written = segment.header().encode();
    // A flag is any byte but 0.
    let lossless = file.starts_with(&written);
    let mut end = segment.header().from;
    loop {
        match segment.record() {
            Ok(Some(record)) => {
                record.encode(segment.header().number, &mut written);
                if let Record::Position { lsn, .. } = record {
                    assert_eq!(segment.end(), Some(lsn));
                }
                if let Some(now) = segment.end() {
                    assert!(now >= end);
                    end = now;
                }
            }
            Ok(None) => break,
            Err(damage) => {
                let _ = damage.to_string();
                break;
            }
        }
    }
    assert!(!lossless || file.starts_with(&written));
}
