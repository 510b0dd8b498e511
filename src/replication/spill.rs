//! Streamed transactions that outgrow memory, in temporary files.
//!
//! In: messages of one transaction, in order. Out: the same messages, in the same order. A file has no name from the moment it is made, so
//! nothing is left behind whatever happens; it is never read by another process, since after a crash the source sends all of
//! the transaction again. What may fail: the disk; a record that does not have its checksum is an error, not data.
//!
//! Record: length of the data (u32), transaction ID (u32), CRC-32 of the ID and the data (u32), data; little-endian.
//!
//! Reads and writes go through the page cache in large pieces and block the task for no longer than copying them takes.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result, io_reason};

const HEADER_LEN: usize = 12;
const BUFFER: usize = 256 << 10;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Spill {
    file: BufWriter<File>,
    directory: PathBuf,
}

/// A file that is being read back.
#[derive(Debug)]
pub struct Reader<R = BufReader<File>> {
    file: R,
    directory: PathBuf,
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

impl Spill {
    /// Makes a file in `directory` and takes its name away at once.
    pub(super) fn create(directory: &Path, xid: u32) -> Result<Spill> {
        let path = directory.join(format!("pgstream-{}-{xid}.spill", std::process::id()));
        let made = File::options().read(true).write(true).create_new(true).open(&path).and_then(|file| {
            std::fs::remove_file(&path)?;
            Ok(file)
        });
        let file = made.map_err(|e| could_not("create", directory, &e))?;
        Ok(Spill { file: BufWriter::with_capacity(BUFFER, file), directory: directory.to_owned() })
    }

    /// Appends a message of the (sub)transaction `xid`.
    pub(super) fn append(&mut self, xid: u32, data: &[u8]) -> Result<()> {
        let header = header(xid, data);
        let written = self.file.write_all(&header).and_then(|()| self.file.write_all(data));
        written.map_err(|e| could_not("write", &self.directory, &e))
    }

    /// Goes back to the first message.
    pub(super) fn into_reader(self) -> Result<Reader> {
        let Spill { file, directory } = self;
        let mut file = file.into_inner().map_err(|e| could_not("write", &directory, &e.into_error()))?;
        file.seek(SeekFrom::Start(0)).map_err(|e| could_not("read", &directory, &e))?;
        Ok(Reader::new(BufReader::with_capacity(BUFFER, file), directory))
    }
}

impl<R: Read> Reader<R> {
    /// Over what `file` gives; errors name the directory.
    pub fn new(file: R, directory: PathBuf) -> Reader<R> {
        Reader { file, directory }
    }

    /// The next message and its (sub)transaction; `None` after the last.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<(u32, Bytes)>> {
        let mut header = [0; HEADER_LEN];
        match self.file.read(&mut header[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => return self.next(),
            Err(e) => return Err(could_not("read", &self.directory, &e)),
        }
        self.file.read_exact(&mut header[1..]).map_err(|e| could_not("read", &self.directory, &e))?;
        let field =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (len, xid, expected) = (field(0) as usize, field(4), field(8));
        let mut data = BytesMut::new();
        // Read in pieces: a damaged length must not become an allocation.
        while data.len() < len {
            let start = data.len();
            data.resize(len.min(start + BUFFER), 0);
            self.file.read_exact(&mut data[start..]).map_err(|e| could_not("read", &self.directory, &e))?;
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spilled(records: &[(u32, &[u8])], directory: &Path) -> Reader {
        let mut spill = Spill::create(directory, 7).unwrap();
        for (xid, data) in records {
            spill.append(*xid, data).unwrap();
        }
        spill.into_reader().unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_no_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let long = vec![b'x'; 3 * BUFFER + 1];
        let mut reader = spilled(&[(1, b"a"), (2, b""), (3, &long)], directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(reader.next().unwrap(), Some((1, Bytes::from_static(b"a"))));
        assert_eq!(reader.next().unwrap(), Some((2, Bytes::new())));
        assert_eq!(reader.next().unwrap(), Some((3, Bytes::from(long))));
        assert_eq!(reader.next().unwrap(), None);
    }

    #[test]
    fn a_flipped_byte_or_a_cut_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        let mut whole = Vec::new();
        spilled(&[(1, b"abc")], directory.path()).file.into_inner().read_to_end(&mut whole).unwrap();
        assert_eq!(whole.len(), HEADER_LEN + 3);
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let file = BufReader::new(File::open(&path).unwrap());
            Reader::new(file, directory.path().to_owned()).next()
        };
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(read(&damaged).is_err(), "byte {at}");
        }
        for len in 1..whole.len() {
            assert!(read(&whole[..len]).is_err(), "cut at {len}");
        }
    }
}
