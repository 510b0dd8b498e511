//! Moves the rows of COPY statements from the source's socket to the target's.

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::wire::{Connection, CopyIn, CopyOut};

/// A COPY on each side.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// `COPY … TO STDOUT` on the source.
    pub out: String,
    /// `COPY … FROM STDIN` on the target, with statements before it.
    pub into: String,
    /// What the progress says meanwhile.
    pub what: String,
}

/// What one COPY moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Rows, as both servers counted them.
    pub rows: u64,
    /// Bytes of CopyData frames, headers included.
    pub bytes: u64,
}

/// A COPY that failed.
#[derive(Debug)]
pub struct RelayError {
    /// Its place among those that were asked for.
    pub index: usize,
    /// What the server said of it, and which one.
    pub error: Error,
}

/// Runs `copies` one after the other, and forwards what the source gives to the target. Memory is one read of the
/// source's socket: the next is not made before the target has taken the last, and rows of any size pass through in pieces. Neither server is waited for between
/// the copies, so that many small ones take a round trip together.
///
/// # Errors
/// Either server's report. Both connections may be in the middle of a copy then: drop them, which undoes it.
pub async fn relay(
    source: &mut Connection,
    target: &mut Connection,
    copies: &[Transfer],
    progress: &Progress,
) -> Result<Vec<Relayed>, RelayError> {
    let failed = |at: At, index: usize, error: Error| {
        let copy = copies.get(index);
        let sql = copy.map_or("", |copy| if at == At::Source { &copy.out } else { &copy.into });
        RelayError { index, error: error.with_statement(sql).context(at.context()) }
    };
    let statements: Vec<&str> = copies.iter().map(|copy| copy.out.as_str()).collect();
    let mut reader = source.copy_out(&statements).await.map_err(|error| failed(At::Source, 0, error))?;
    let mut writer = target.copy_in();
    let mut relayed = Vec::with_capacity(copies.len());
    for (index, copy) in copies.iter().enumerate() {
        let _active = progress.begin(copy.what.clone());
        let bytes = match relay_one(&mut reader, &mut writer, copy, progress).await {
            Ok(bytes) => bytes,
            Err((At::Source, error)) => return Err(failed(At::Source, index, error)),
            // What it says may be of a copy before this one.
            Err((At::Target, error)) => return Err(failed(At::Target, writer.ended(), error)),
        };
        relayed.push(Relayed { rows: reader.rows(), bytes });
    }
    let taken = match writer.finish().await {
        Ok(taken) => taken,
        Err(error) => return Err(failed(At::Target, writer.ended(), error)),
    };
    for (index, (sent, taken)) in relayed.iter().zip(taken).enumerate() {
        if sent.rows != taken {
            let error = format!("the source sent {} rows and the target took {taken}", sent.rows);
            return Err(RelayError { index, error: Error::failed(error) });
        }
    }
    Ok(relayed)
}

/// Which server a failure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Source,
    Target,
}

impl At {
    fn context(self) -> &'static str {
        match self {
            At::Source => "the source reports",
            At::Target => "the target reports",
        }
    }
}

/// The bytes of one copy.
async fn relay_one(
    reader: &mut CopyOut<'_>,
    writer: &mut CopyIn<'_>,
    copy: &Transfer,
    progress: &Progress,
) -> Result<u64, (At, Error)> {
    let from = |error| (At::Source, error);
    let to = |error| (At::Target, error);
    writer.begin(&copy.into).await.map_err(to)?;
    reader.begin().await.map_err(from)?;
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
    writer.end();
    Ok(bytes)
}
