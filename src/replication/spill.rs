//! Messages of a transaction that can't be applied yet: in memory and, beyond a budget, in temporary files.
//!
//! In: messages of one transaction, in order. Out: the same messages, in the same order. They stand one after the other as records, in memory as in the
//! file, so that they take up what they count for. A file has no name from the moment it is made, so
//! nothing is left behind whatever happens; it is never read by another process, since after a crash the source sends all of
//! the transaction again. What may fail: the disk; a record that does not have its checksum is an error, not data.
//!
//! Record: length of the data (u32), transaction ID (u32), CRC-32 of the ID and the data (u32), data; little-endian.
//!
//! Reads and writes go through the page cache in large pieces and block the task for no longer than copying them takes.

use std::fs::File;
use std::io::{Chain, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result, io_reason};

const HEADER_LEN: usize = 12;

/// Bytes that are read at a time; a longer message goes to the file at once, and takes no second copy of its size in memory to be held.
const PIECE: usize = 256 << 10;

/// Messages that are held.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The beginning, if memory was not to hold it.
    file: Option<File>,
    /// The rest.
    memory: Vec<u8>,
}

/// Reads back, from its first message on, what was held.
#[derive(Debug)]
pub struct Reader<R = Chain<Stored, Cursor<Vec<u8>>>> {
    from: R,
    read: BytesMut,
    directory: PathBuf,
}

/// A file, or none.
#[derive(Debug)]
pub struct Stored(Option<File>);

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |file| file.read(buffer))
    }
}

fn could_not(what: &str, directory: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!(
        "could not {what} a temporary file in \"{}\": {}",
        directory.display(),
        io_reason(error)
    ))
    .with_detail("It holds a transaction of the source that is larger than the memory set aside for it.")
}

/// What stands before a message of the (sub)transaction `xid`.
pub fn header(xid: u32, data: &[u8]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    // A message comes out of a frame of at most 1 GiB.
    header[..4].copy_from_slice(&(data.len() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&xid.to_le_bytes());
    header[8..].copy_from_slice(&checksum(xid, data).to_le_bytes());
    header
}

fn checksum(xid: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&xid.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

impl Held {
    /// Appends a message of the (sub)transaction `xid`; one of more than [`PIECE`] bytes, and all before it, goes to a file in `directory`.
    pub(super) fn append(&mut self, xid: u32, data: &[u8], directory: &Path) -> Result<()> {
        self.memory.extend_from_slice(&header(xid, data));
        if data.len() <= PIECE {
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        let file = self.spill(directory)?;
        file.write_all(data).map_err(|e| could_not("write", directory, &e))
    }

    /// Bytes of memory that it takes.
    pub(super) fn in_memory(&self) -> usize {
        self.memory.len()
    }

    /// Moves what is in memory to the file, which is in `directory`.
    pub(super) fn spill(&mut self, directory: &Path) -> Result<&mut File> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let made = tempfile::tempfile_in(directory);
                none.insert(made.map_err(|e| could_not("create", directory, &e))?)
            }
        };
        file.write_all(&self.memory).map_err(|e| could_not("write", directory, &e))?;
        self.memory.clear();
        Ok(file)
    }

    /// Goes back to the first message.
    pub(super) fn into_reader(mut self, directory: &Path) -> Result<Reader> {
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0)).map_err(|e| could_not("read", directory, &e))?;
        }
        Ok(Reader::new(Stored(self.file).chain(Cursor::new(self.memory)), directory.to_owned()))
    }
}

impl<R: Read> Reader<R> {
    /// Over what `from` gives; errors name the directory.
    pub fn new(from: R, directory: PathBuf) -> Reader<R> {
        Reader { from, read: BytesMut::new(), directory }
    }

    /// The next message and its (sub)transaction; `None` after the last.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<(u32, Bytes)>> {
        if !self.fill(HEADER_LEN)? {
            return if self.read.is_empty() { Ok(None) } else { Err(self.cut_short()) };
        }
        let header = self.read.split_to(HEADER_LEN);
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (len, xid, expected) = (field(0) as usize, field(4), field(8));
        if !self.fill(len)? {
            return Err(self.cut_short());
        }
        let data = self.read.split_to(len);
        if checksum(xid, &data) != expected {
            return Err(Error::failed(format!(
                "a temporary file in \"{}\" is damaged: its checksum does not match",
                self.directory.display()
            ))
            .with_hint(
                "Check that disk, and run the same command again: the source sends the transaction again.",
            ));
        }
        Ok(Some((xid, data.freeze())))
    }

    /// Reads until there are `len` bytes; `false` when there are fewer.
    fn fill(&mut self, len: usize) -> Result<bool> {
        while self.read.len() < len {
            let start = self.read.len();
            // In pieces: a damaged length must not become an allocation.
            self.read.resize(start + PIECE, 0);
            let read = self.from.read(&mut self.read[start..]);
            self.read.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(could_not("read", &self.directory, &error)),
            }
        }
        Ok(true)
    }

    fn cut_short(&self) -> Error {
        could_not("read", &self.directory, &ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a reader gives.
    fn all<R: Read>(mut reader: Reader<R>) -> Result<Vec<(u32, Bytes)>> {
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }

    #[test]
    fn what_is_held_is_read_and_no_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let long = vec![b'x'; 3 * PIECE + 1];
        let messages: [(u32, &[u8]); 5] = [(1, b"a"), (2, b""), (3, &long), (4, b"b"), (5, b"c")];
        // From the message on that is spilled, if any is.
        for spilled in 0..=messages.len() {
            let mut held = Held::default();
            for (at, (xid, data)) in messages.iter().enumerate() {
                held.append(*xid, data, directory.path()).unwrap();
                if at == spilled {
                    held.spill(directory.path()).unwrap();
                    assert_eq!(held.in_memory(), 0);
                }
            }
            assert!(held.in_memory() < PIECE, "what is large is not held in memory");
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
            let read = all(held.into_reader(directory.path()).unwrap()).unwrap();
            let read: Vec<_> = read.iter().map(|(xid, data)| (*xid, &data[..])).collect();
            assert!(read == messages, "spilled after message {spilled}");
        }
    }

    #[test]
    fn a_flipped_byte_or_a_cut_is_an_error() {
        let whole = [&header(7, b"abc")[..], b"abc"].concat();
        let read = |bytes: &[u8]| all(Reader::new(bytes, PathBuf::from("folder")));
        assert_eq!(read(&whole).unwrap(), [(7, Bytes::from_static(b"abc"))]);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        for len in 1..whole.len() {
            assert!(read(&whole[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let missing = Path::new("/nowhere/at all");
        let mut held = Held::default();
        held.append(1, b"a", missing).unwrap();
        let error = held.spill(missing).unwrap_err();
        assert_eq!(
            error.to_string(),
            "could not create a temporary file in \"/nowhere/at all\": no such file or directory"
        );
    }
}
