//! The spool: the stream is received into files while the rows are copied, so that the source can let go of its log long before the target is ready for the changes.
//!
//! In: a slot with a checkpoint, a folder of this host. Out: files from which [`follow`](super::follow) applies the changes once the copy is done, before it goes on live.
//! What may fail: the disk (received again later, the source keeps its log meanwhile); files that are gone, damaged or another migration's; the source, as for
//! any stream.
//!
//! ```text
//! while rows are copied:   source ─► receive ─► segments, fsync ─► row in the target's state ─► confirmed to the source
//! afterwards:              segments ─► assemble ─► apply ─► checkpoint        then: source ─► assemble ─► … live, from where the files end
//! ```
//!
//! # Positions
//! Two positions of the stream are durable on the target: the checkpoint (everything before is applied) and the spool's end, `to` (everything from the checkpoint to
//! there is in the files). The source may be told the larger of the two, and nothing more. Each step below is durable before the next begins:
//!
//! 1. messages are in a segment; 2. the segment is synced; 3. `to` is advanced on the target; 4. `to` is reported to the source.
//!
//! - A crash between any two of them leaves files that hold more than `to` says. Whatever is past `to` is cut off by the next run, without a look at it: it may never
//!   have reached the disk, and the source still has it, since nothing past `to` was reported. So a tail may be torn anywhere.
//! - Below `to`, and past the checkpoint, nothing can be had from anywhere else. Damage there, or a missing file, is an error and never a gap: each record has a
//!   checksum, segments are numbered, each begins where the one before ended, and the last must reach exactly `to`.
//! - A slot that was confirmed past both is refused, as without a spool.
//! - Another host doesn't have the files. The state says where they are; a run that doesn't find them there, or where it is told to look, is refused.
//!
//! # What is stored
//! The stream is asked for without `streaming`: transactions come whole, in the order of their commits, so that between any two of them the files can be cut, and
//! left for a new START_REPLICATION, with nothing half received to be remembered. (A transaction that outgrows the source's memory then waits on the source's
//! disk until it commits, where its log waits as well.)
//!
//! A segment is a stream of its own: it holds whole transactions, as large as the largest of them may be, and begins with a repetition of what the stream has said of
//! relations so far. So it depends on no other: those whose end is applied durably are removed, in order. Every START_REPLICATION begins a new segment, as the source
//! describes all relations anew then.
//!
//! # The rest
//! A folder below the operator's, named after the slot, belongs to one migration; whoever works in it holds a lock on a file there. Each segment names its spool, the
//! source's cluster and database, and the slot. Segments of an earlier spool of the same migration, which `--restart` has given up, are removed; those of another
//! migration are refused.

mod directory;
mod drain;
mod receive;
pub mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(super) use drain::{Drain, pending};
pub use receive::{Request, Spooling};

use crate::error::{Error, ErrorKind, Result, io_reason};

const GONE: &str =
    "Bring the file back; without it, begin anew with --restart: the source has let go of these changes.";

/// What keeps a spool from being written or read.
#[derive(Debug)]
enum Trouble {
    /// The disk: it may have room again later.
    Disk(Error),
    /// Anything else.
    Other(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Other(error)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Error {
        match trouble {
            Trouble::Disk(error) | Trouble::Other(error) => error,
        }
    }
}

/// The name of this host.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The folder, as it is found from any working directory.
fn absolute(folder: &Path) -> PathBuf {
    // It fails for an empty path alone.
    std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

fn could_not(what: &str, path: &Path, error: &std::io::Error) -> Trouble {
    Trouble::Disk(Error::failed(format!(
        "could not {what} \"{}\" for the spool: {}",
        path.display(),
        io_reason(error)
    )))
}

/// Whether a spool can be kept in this folder, which must be there.
///
/// # Errors
/// A usage error where files can't be made in it.
pub fn check_folder(base: &Path) -> Result<()> {
    let probe = base.join(format!(".pgstream-{}", std::process::id()));
    let made = std::fs::File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe));
    made.map_err(|e| {
        Error::new(
            ErrorKind::Usage,
            format!("could not use \"{}\" for the spool: {}", base.display(), io_reason(&e)),
        )
        .with_hint("Name a folder in --spool-dir that this user may write into.")
    })
}
