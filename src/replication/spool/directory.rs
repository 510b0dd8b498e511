//! The files of one spool: found, checked against what the target's state says they hold, cut, made and removed.
//!
//! In: a folder, and the [`Identity`] of the spool. Out: its segments in order, without a gap between two positions. What may fail: the disk; a segment that is
//! missing or damaged; a folder that another migration uses.

use std::fs::{self, File, TryLockError};
use std::io::{BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;

use super::segment::{Damage, Header, Identity, Segment};
use super::{GONE, Trouble, could_not};
use crate::error::{Error, Result};
use crate::fault;

const BUFFER: usize = 256 << 10;
const SUFFIX: &str = ".segment";
/// A segment that is being made.
const NEW: &str = "new";
/// Locked by whoever works in the folder.
const LOCK: &str = "lock";

/// A segment that is there.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) number: u64,
    pub(super) from: Lsn,
    pub(super) version: ProtocolVersion,
    pub(super) raw: bool,
}

/// The folder of one migration below the one that the operator named.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    identity: Identity,
    _lock: File,
}

/// Where the spool of a slot is.
pub(super) fn path_of(base: &Path, slot: &str) -> PathBuf {
    base.join(slot)
}

/// Makes what was done to the names in a folder durable.
fn sync_names(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Opens a segment.
pub(super) fn read(path: &Path) -> Result<Segment<BufReader<File>>, Damage> {
    let file = File::open(path).map_err(Damage::Io)?;
    let len = file.metadata().map_err(Damage::Io)?.len();
    Segment::open(BufReader::with_capacity(BUFFER, file), len)
}

/// What is said of a segment that can't be read.
pub(super) fn damaged(path: &Path, damage: &Damage) -> Error {
    let error =
        Error::failed(format!("could not read segment \"{}\" of the spool: {damage}", path.display()));
    match damage {
        Damage::Io(_) | Damage::Format(_) => error,
        _ => error.with_hint(GONE),
    }
}

/// Changes that should be in the folder and aren't.
fn missing(path: &Path, from: Lsn, to: Lsn, why: &str) -> Error {
    Error::failed(format!("the spool in \"{}\" lacks changes between {from} and {to}", path.display()))
        .with_detail(format!("{why}."))
        .with_hint(GONE)
}

impl Directory {
    /// Takes the folder of the spool below `base`, which is made unless it is there.
    pub(super) fn make(base: &Path, identity: Identity) -> Result<Directory, Trouble> {
        let path = path_of(base, &identity.slot);
        let made = fs::create_dir_all(&path).and_then(|()| sync_names(base));
        made.map_err(|e| could_not("make the folder", &path, &e))?;
        Directory::open(base, identity)
    }

    /// Takes the folder of the spool below `base`, which is there.
    pub(super) fn open(base: &Path, identity: Identity) -> Result<Directory, Trouble> {
        let path = path_of(base, &identity.slot);
        let lock = File::create(path.join(LOCK)).map_err(|e| could_not("lock", &path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::usage(format!(
                    "another pgstream works in the folder \"{}\"",
                    path.display()
                ))
                .with_hint("Wait for it to end, or stop it.")
                .into());
            }
            Err(TryLockError::Error(e)) => return Err(could_not("lock", &path, &e)),
        }
        Ok(Directory { path, identity, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The segments of this spool in order, and the files of an earlier spool of the same migration.
    fn list(&self) -> Result<(Vec<Entry>, Vec<PathBuf>), Trouble> {
        let (mut own, mut earlier) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path).map_err(|e| could_not("list", &self.path, &e))? {
            let path = entry.map_err(|e| could_not("list", &self.path, &e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name == NEW {
                earlier.push(path);
                continue;
            }
            if !name.ends_with(SUFFIX) {
                continue;
            }
            let segment = read(&path).map_err(|damage| damaged(&path, &damage))?;
            let Header { identity, number, from, version, raw } = segment.header().clone();
            if identity == self.identity {
                own.push(Entry { path, number, from, version, raw });
            } else if identity.is_of_same_migration(&self.identity) {
                earlier.push(path);
            } else {
                return Err(Error::usage(format!(
                    "the folder \"{}\" holds the spool of another migration",
                    self.path.display()
                ))
                .with_detail(format!(
                    "Its segment \"{}\" is of slot \"{}\" in database \"{}\" of the server with system identifier {}.",
                    path.display(),
                    identity.slot,
                    identity.database,
                    identity.system_identifier
                ))
                .with_hint("Name another folder in --spool-dir, or remove that one if the other migration is over.")
                .into());
            }
        }
        own.sort_by_key(|entry| entry.number);
        Ok((own, earlier))
    }

    /// The segments that hold everything from `from`, or before, up to exactly `to`. What is past that is cut off: it may not be durable, and the source
    /// sends it again.
    ///
    /// # Errors
    /// A gap, or damage, between the two; the disk.
    pub(super) fn hold(&self, from: Lsn, to: Lsn) -> Result<Vec<Entry>, Trouble> {
        let (mut entries, earlier) = self.list()?;
        self.remove(earlier.iter())?;
        while let Some(last) = entries.pop_if(|last| last.from >= to) {
            self.remove([&last.path])?;
        }
        // An empty spool holds nothing, from anywhere.
        if from >= to {
            self.remove(entries.iter().map(|entry| &entry.path))?;
            return Ok(Vec::new());
        }
        let lack = |why: &str| missing(&self.path, from, to, why);
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(lack("It has no segments").into());
        };
        if first.from > from {
            return Err(lack(&format!("Its first segment begins at {}", first.from)).into());
        }
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].number + 1 != pair[1].number) {
            return Err(lack(&format!("Segment {} is missing", pair[0].number + 1)).into());
        }
        let end = cut_point(&last.path, to).map_err(|damage| match damage {
            Some(damage) => damaged(&last.path, &damage),
            None => lack(&format!("Segment {} does not reach that far", last.number)),
        })?;
        let cut = File::options().write(true).open(&last.path).and_then(|file| {
            if file.metadata()?.len() > end {
                file.set_len(end)?;
                file.sync_all()?;
            }
            Ok(())
        });
        cut.map_err(|e| could_not("cut", &last.path, &e))?;
        Ok(entries)
    }

    /// Makes a segment that has its header and `head`, durably, and opens it for more.
    pub(super) async fn create(&self, header: &Header, head: &[u8]) -> Result<File, Trouble> {
        let (new, path) = (self.path.join(NEW), self.path.join(format!("{:012}{SUFFIX}", header.number)));
        let make = async {
            let mut file = File::create(&new)?;
            file.write_all(&header.encode())?;
            file.write_all(head)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_names(&self.path)?;
            Ok(file)
        };
        fault::step("spool segment", async { make.await.map_err(|e| could_not("make", &path, &e)) }).await
    }

    /// Removes files of the folder.
    pub(super) fn remove<'a>(&self, paths: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Trouble> {
        let mut any = false;
        for path in paths {
            any = true;
            match fs::remove_file(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(could_not("remove", path, &e)),
                _ => {}
            }
        }
        if any { sync_names(&self.path).map_err(|e| could_not("sync", &self.path, &e)) } else { Ok(()) }
    }

    /// Removes a spool that nobody needs any more, with its folder.
    pub(super) fn discard(self) -> Result<(), Trouble> {
        let (own, earlier) = self.list()?;
        self.remove(own.iter().map(|entry| &entry.path).chain(&earlier))?;
        self.remove([&self.path.join(LOCK)])?;
        // Something else may be in it.
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

/// The byte behind the record at which everything up to exactly `to` is there; `None` where the file is sound and there is no such record.
fn cut_point(path: &Path, to: Lsn) -> Result<u64, Option<Damage>> {
    let mut segment = read(path).map_err(Some)?;
    while segment.end() != Some(to) {
        if segment.record().map_err(Some)?.is_none() {
            return Err(None);
        }
    }
    Ok(segment.at())
}
