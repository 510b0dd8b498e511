//! One file of a spool: a header, and records. Pure but for the reader that it is given.
//!
//! In: bytes, of a file that may be torn, cut or damaged anywhere. Out: the header and the records; or a [`Damage`]. Lengths are compared with what is left of
//! the file before anything is reserved; a record without its checksum is never given out.
//!
//! ```text
//! header: "PGSSPOOL", format u32, length u32 of what follows up to the checksum,
//!         number u64, from u64, protocol version u8, raw u8,
//!         four texts (spool, system identifier, database, slot), each with its length u16; CRC-32 u32 of all before it
//! record: length u32 of the body, CRC-32 u32 of the segment's number u64, that length and the body; body
//! body:   'R' a Relation message that was sent earlier in the same stream
//!         'M' the server's clock i64, a message of the plugin
//!         'P' the server's clock i64, a position u64 up to which nothing else came
//! ```
//! All numbers are little-endian.

use std::fmt;
use std::io::Read;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::{Decoder, Message, ProtocolVersion};
use pgstream_proto::timestamp::Timestamp;

const MAGIC: &[u8; 8] = b"PGSSPOOL";
const FORMAT: u32 = 1;
/// The header up to and with its length.
const FIXED: usize = 16;
/// Of a header, behind its fixed part: four texts of names, which are short.
const MOST_HEADER: usize = 8 << 10;
/// Of a record before its body.
const RECORD_HEADER: u64 = 8;
/// Bodies are read in pieces.
const PIECE: usize = 256 << 10;

/// Whose stream a spool holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The spool itself, as the target's state names it.
    pub spool: String,
    /// The cluster of the source.
    pub system_identifier: String,
    /// The source database.
    pub database: String,
    /// The replication slot.
    pub slot: String,
}

impl Identity {
    /// Whether it is the same migration, though perhaps another spool.
    pub fn is_of_same_migration(&self, other: &Identity) -> bool {
        let key = |of: &Identity| (of.system_identifier.clone(), of.database.clone(), of.slot.clone());
        key(self) == key(other)
    }
}

/// What a segment begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub identity: Identity,
    /// From 1 within the spool, without gaps.
    pub number: u64,
    /// Where the one before ended.
    pub from: Lsn,
    /// Of the stream.
    pub version: ProtocolVersion,
    /// Texts are in no encoding: both databases are in SQL_ASCII.
    pub raw: bool,
}

/// What a segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A Relation message of the same stream, repeated from an earlier segment.
    Relation(Bytes),
    /// A message of the plugin.
    Message {
        /// The server's clock.
        sent_at: Timestamp,
        /// The message.
        data: Bytes,
    },
    /// Nothing else came before this position.
    Position {
        /// The server's clock.
        sent_at: Timestamp,
        /// The position.
        lsn: Lsn,
    },
}

/// Why a segment can't be read.
#[derive(Debug)]
pub enum Damage {
    /// The disk.
    Io(std::io::Error),
    /// It is no segment, or its first bytes are lost.
    Header(&'static str),
    /// A format of another version of the program.
    Format(u32),
    /// The record at this byte is not whole.
    Cut(u64),
    /// The record at this byte doesn't have its checksum.
    Checksum(u64),
    /// The record at this byte can't be where it is.
    Content(u64, String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Io(error) => write!(f, "{}", crate::error::io_reason(error)),
            Damage::Header(what) => write!(f, "{what}"),
            Damage::Format(format) => {
                write!(f, "it has format {format}, and this pgstream reads format {FORMAT}")
            }
            Damage::Cut(at) => write!(f, "it ends in the middle of the record at byte {at}"),
            Damage::Checksum(at) => write!(f, "the checksum of the record at byte {at} does not match"),
            Damage::Content(at, what) => write!(f, "the record at byte {at} is out of place: {what}"),
        }
    }
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        body.put_u64_le(self.number);
        body.put_u64_le(self.from.0);
        body.put_u8(self.version.number());
        body.put_u8(self.raw.into());
        let Identity { spool, system_identifier, database, slot } = &self.identity;
        for text in [spool, system_identifier, database, slot] {
            // Names of PostgreSQL's objects have at most 63 bytes.
            body.put_u16_le(text.len() as u16);
            body.put_slice(text.as_bytes());
        }
        let mut header = Vec::with_capacity(FIXED + body.len() + 4);
        header.put_slice(MAGIC);
        header.put_u32_le(FORMAT);
        header.put_u32_le(body.len() as u32);
        header.put_slice(&body);
        let sum = crc32fast::hash(&header);
        header.put_u32_le(sum);
        header
    }

    fn read(input: &mut impl Read, len: u64) -> Result<(Header, u64), Damage> {
        let cut = || Damage::Header("its header is cut short");
        let mut bytes = vec![0; FIXED];
        if len < FIXED as u64 {
            return Err(cut());
        }
        input.read_exact(&mut bytes).map_err(Damage::Io)?;
        let mut fixed = &bytes[MAGIC.len()..];
        if !bytes.starts_with(MAGIC) {
            return Err(Damage::Header("it is not a segment of a spool"));
        }
        let (format, size) = (fixed.get_u32_le(), fixed.get_u32_le() as usize);
        if size > MOST_HEADER {
            return Err(Damage::Header("the length of its header is damaged"));
        }
        let whole = FIXED + size + 4;
        if len < whole as u64 {
            return Err(cut());
        }
        bytes.resize(whole, 0);
        input.read_exact(&mut bytes[FIXED..]).map_err(Damage::Io)?;
        let (header, mut sum) = bytes.split_at(whole - 4);
        if crc32fast::hash(header) != sum.get_u32_le() {
            return Err(Damage::Header("the checksum of its header does not match"));
        }
        if format != FORMAT {
            return Err(Damage::Format(format));
        }
        let header = Header::decode(&header[FIXED..]).ok_or(Damage::Header("its header has another form"))?;
        Ok((header, whole as u64))
    }

    fn decode(mut body: &[u8]) -> Option<Header> {
        let number = body.try_get_u64_le().ok()?;
        let from = Lsn(body.try_get_u64_le().ok()?);
        let version = body.try_get_u8().ok()?;
        let versions = [ProtocolVersion::V1, ProtocolVersion::V2, ProtocolVersion::V3, ProtocolVersion::V4];
        let version = versions.into_iter().find(|known| known.number() == version)?;
        let raw = body.try_get_u8().ok()? != 0;
        let mut text = || {
            let len = usize::from(body.try_get_u16_le().ok()?);
            let (text, rest) = body.split_at_checked(len)?;
            body = rest;
            String::from_utf8(text.to_vec()).ok()
        };
        let identity =
            Identity { spool: text()?, system_identifier: text()?, database: text()?, slot: text()? };
        body.is_empty().then_some(Header { identity, number, from, version, raw })
    }
}

/// A message comes out of a frame of at most 1 GiB.
fn length(body: &[&[u8]]) -> u32 {
    body.iter().map(|piece| piece.len()).sum::<usize>() as u32
}

fn checksum(number: u64, body: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&length(body).to_le_bytes());
    body.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize()
}

/// Appends a record of segment `number` around a body, which comes in pieces.
pub fn seal(number: u64, body: &[&[u8]], out: &mut Vec<u8>) {
    out.put_u32_le(length(body));
    out.put_u32_le(checksum(number, body));
    body.iter().for_each(|piece| out.put_slice(piece));
}

impl Record {
    /// Appends the record as it stands in segment `number`.
    pub fn encode(&self, number: u64, out: &mut Vec<u8>) {
        let (kind, clock, rest) = match self {
            Record::Relation(data) => (b'R', None, &data[..]),
            Record::Message { sent_at, data } => (b'M', Some(sent_at), &data[..]),
            Record::Position { sent_at, lsn } => (b'P', Some(sent_at), &lsn.0.to_le_bytes()[..]),
        };
        let mut head = vec![kind];
        head.extend(clock.into_iter().flat_map(|clock| clock.0.to_le_bytes()));
        seal(number, &[&head, rest], out);
    }

    fn decode(mut body: Bytes) -> Option<Record> {
        match body.try_get_u8().ok()? {
            b'R' => Some(Record::Relation(body)),
            b'M' => {
                let sent_at = Timestamp(body.try_get_i64_le().ok()?);
                Some(Record::Message { sent_at, data: body })
            }
            b'P' => {
                let sent_at = Timestamp(body.try_get_i64_le().ok()?);
                let lsn = Lsn(body.try_get_u64_le().ok()?);
                body.is_empty().then_some(Record::Position { sent_at, lsn })
            }
            _ => None,
        }
    }
}

/// A segment that is read from its beginning.
#[derive(Debug)]
pub struct Segment<R> {
    input: R,
    header: Header,
    len: u64,
    at: u64,
    extent: Extent,
}

impl<R: Read> Segment<R> {
    /// Over a file of `len` bytes.
    pub fn open(mut input: R, len: u64) -> Result<Segment<R>, Damage> {
        let (header, at) = Header::read(&mut input, len)?;
        let extent = Extent::new(header.version, header.from);
        Ok(Segment { input, header, len, at, extent })
    }

    /// What it begins with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The byte behind the last record that was given out.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Up to where the records that were given out hold everything; `None` in the middle of a transaction.
    pub fn end(&self) -> Option<Lsn> {
        self.extent.end()
    }

    /// The next record; `None` at the end of the file.
    ///
    /// # Errors
    /// See the module; nothing behind the damage can be read.
    pub fn record(&mut self) -> Result<Option<Record>, Damage> {
        let at = self.at;
        let Some(left) = (self.len - at).checked_sub(RECORD_HEADER) else {
            return if self.len == at { Ok(None) } else { Err(Damage::Cut(at)) };
        };
        let mut header = [0; RECORD_HEADER as usize];
        self.input.read_exact(&mut header).map_err(Damage::Io)?;
        let mut fields = &header[..];
        let (len, sum) = (u64::from(fields.get_u32_le()), fields.get_u32_le());
        if len > left {
            return Err(Damage::Cut(at));
        }
        let len = len as usize;
        let mut body = BytesMut::new();
        while body.len() < len {
            let start = body.len();
            body.resize(len.min(start + PIECE), 0);
            self.input.read_exact(&mut body[start..]).map_err(Damage::Io)?;
        }
        if checksum(self.header.number, &[&body]) != sum {
            return Err(Damage::Checksum(at));
        }
        let record = Record::decode(body.freeze());
        let record = record.ok_or_else(|| Damage::Content(at, "it has no known form".to_owned()))?;
        self.extent.take(&record).map_err(|what| Damage::Content(at, what))?;
        self.at = at + RECORD_HEADER + len as u64;
        Ok(Some(record))
    }
}

/// Up to where a stream of committed transactions is complete.
#[derive(Debug)]
pub struct Extent {
    /// Given Begin and Commit alone.
    decoder: Decoder,
    open: bool,
    end: Lsn,
}

impl Extent {
    /// Of a stream that begins at `from`.
    pub fn new(version: ProtocolVersion, from: Lsn) -> Extent {
        Extent { decoder: Decoder::new(version), open: false, end: from }
    }

    /// The end of what is complete; `None` in the middle of a transaction.
    pub fn end(&self) -> Option<Lsn> {
        (!self.open).then_some(self.end)
    }

    /// The end of the last that was complete.
    pub fn last_end(&self) -> Lsn {
        self.end
    }

    /// Takes the next record into account.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, record: &Record) -> Result<(), String> {
        let end = match record {
            Record::Relation(data) => {
                let begins = data.first() == Some(&b'R') && !self.open;
                return if begins { Ok(()) } else { Err("a repeated description".to_owned()) };
            }
            Record::Position { .. } if self.open => return Err("a position inside a transaction".to_owned()),
            Record::Position { lsn, .. } => *lsn,
            Record::Message { data, .. } => match data.first() {
                Some(b'B' | b'C') => {
                    match self.decoder.decode(data.clone()).map_err(|e| e.to_string())?.message {
                        Message::Commit(commit) => {
                            self.open = false;
                            commit.end_lsn
                        }
                        _ => {
                            self.open = true;
                            return Ok(());
                        }
                    }
                }
                Some(b'R' | b'I' | b'U' | b'D' | b'T') if self.open => return Ok(()),
                _ => {
                    return Err("a message that a stream of whole transactions doesn't have there".to_owned());
                }
            },
        };
        if end < self.end {
            return Err(format!("position {end} comes after {}", self.end));
        }
        self.end = end;
        Ok(())
    }
}
