//! Framing: a stream gives the same frames however it arrives in pieces, and the frames are the stream.
//! Input: one byte, the size of the pieces; then the stream.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use pgstream_proto::frame::{self, Frame, FrameError, Limits};

fn split(stream: &[u8], piece: usize, limits: &Limits) -> (Vec<Frame>, BytesMut, Option<FrameError>) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::split(&mut buffer, limits) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, buffer, Some(error)),
            }
        }
    }
    (frames, buffer, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&piece, stream)) = input.split_first() else { return };
    for limits in [Limits::LOGIN, Limits::SESSION] {
        let (frames, left, error) = split(stream, stream.len().max(1), &limits);
        let (in_pieces, _, error_in_pieces) = split(stream, usize::from(piece).max(1), &limits);
        assert_eq!((&frames, error), (&in_pieces, error_in_pieces));
        let mut again = Vec::new();
        for Frame { tag, body } in frames {
            again.push(tag);
            again.extend((body.len() as u32 + 4).to_be_bytes());
            again.extend(&body);
        }
        again.extend(&left);
        assert_eq!(again, stream);
    }
});
