//! Moves the rows of one COPY from the source's socket to the target's.

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::wire::Connection;

/// What one COPY moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Rows, as both servers counted them.
    pub rows: u64,
    /// Bytes of CopyData frames, headers included.
    pub bytes: u64,
}

/// Runs `out` on the source and `into` on the target, and forwards what the one gives to the other. Memory is one read of the
/// source's socket: the next is not made before the target has taken the last, and rows of any size pass through in pieces.
///
/// # Errors
/// Either server's report. Both connections may be in the middle of the copy then: drop them, which undoes it.
pub async fn relay(
    source: &mut Connection,
    out: &str,
    target: &mut Connection,
    into: &str,
    progress: &Progress,
) -> Result<Relayed> {
    let from = |error: Error| error.context("the source reports");
    let to = |error: Error| error.context("the target reports");
    let (mut reader, mut writer) = {
        let (reader, writer) = tokio::join!(source.copy_out(out), target.copy_in(into));
        (reader.map_err(from)?, writer.map_err(to)?)
    };
    let mut bytes = 0;
    while let Some(mut frames) = reader.frames().await.map_err(from)? {
        let length = frames.len() as u64;
        writer.offer(&mut frames).await.map_err(to)?;
        if !frames.is_empty() {
            // The source goes on meanwhile, and each of its small writes would wake us for nothing.
            reader.leave_alone().map_err(from)?;
            writer.write(frames).await.map_err(to)?;
        }
        bytes += length;
        progress.add_bytes(length);
    }
    let sent = reader.rows();
    let rows = writer.finish().await.map_err(to)?;
    if rows != sent {
        return Err(Error::failed(format!("the source sent {sent} rows and the target took {rows}")));
    }
    Ok(Relayed { rows, bytes })
}
