//! Micro-benchmarks of what every byte passes: framing, the relay of a COPY, decoding of pgoutput, and the way of changes to statements.
//!
//! `cargo bench`, or `cargo bench --bench micro -- relay` for those of a name. Inputs are built here, the same each time; the relay runs
//! between two servers that are no more than sockets. Throughput is in bytes of input, and in rows or changes.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::{Buf, Bytes, BytesMut};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use pgstream::config::{Environment, Side, resolve};
use pgstream::copy::{Transfer, relay};
use pgstream::progress::Progress;
use pgstream::replication::measure::Batching;
use pgstream::wire::{Connection, Settings};
use pgstream_proto::backend;
use pgstream_proto::frame::{self, Limits};
use pgstream_proto::pgoutput::{Decoder, ProtocolVersion};
use pgstream_proto::replication::StreamMessage;

fn main() {
    divan::main();
}

/// A message of a server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// A row of four values, in which `number` shows.
fn values(number: u32) -> [String; 4] {
    [
        number.to_string(),
        format!("{}.{:02}", number / 7, number % 100),
        format!("{:032x}", u128::from(number) * 0x9e37_79b9_7f4a_7c15),
        format!("2024-01-01 {:02}:{:02}:00+00", number % 24, number % 60),
    ]
}

/// Rows, and the bytes of all of them as what a server answers to a query.
const ROWS: u32 = 10_000;

fn rows() -> Bytes {
    let mut out = Vec::new();
    for number in 0..ROWS {
        let mut body = 4u16.to_be_bytes().to_vec();
        for value in values(number) {
            body.extend((value.len() as u32).to_be_bytes());
            body.extend(value.as_bytes());
        }
        out.extend(message(b'D', &body));
    }
    out.extend(message(b'C', b"SELECT 10000\0"));
    Bytes::from(out)
}

#[divan::bench]
fn framing(bencher: Bencher<'_, '_>) {
    let rows = rows();
    bencher
        .counter(BytesCount::new(rows.len()))
        .counter(ItemsCount::new(ROWS))
        .with_inputs(|| BytesMut::from(&rows[..]))
        .bench_values(|mut arrived| {
            while let Some(frame) = frame::split(&mut arrived, &Limits::SESSION).expect("it is framed") {
                divan::black_box(backend::Message::parse(frame).expect("it is a message"));
            }
        });
}

/// What changes, as pgoutput tells it.
#[derive(Debug, Clone, Copy)]
enum Changes {
    Inserts,
    Updates,
    Deletes,
}

const CHANGES: [Changes; 3] = [Changes::Inserts, Changes::Updates, Changes::Deletes];

/// Changes of each kind, in transactions of ten.
const CHANGED: u32 = 20_000;

fn tuple(kind: u8, values: &[Option<&str>]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => out.push(b'n'),
            Some(text) => {
                out.push(b't');
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(text.as_bytes());
            }
        }
    }
    out
}

/// The messages of a walsender.
fn stream(changes: Changes) -> Vec<Bytes> {
    let mut relation = b"R\0\0\0\x01public\0changed\0d\0\x04".to_vec();
    for (key, name, type_oid) in [(1, "id", 23u32), (0, "price", 1700), (0, "note", 25), (0, "made", 1184)] {
        relation.push(key);
        relation.extend(name.as_bytes());
        relation.push(0);
        relation.extend(type_oid.to_be_bytes());
        relation.extend((-1i32).to_be_bytes());
    }
    let mut out = vec![];
    for first in (0..CHANGED).step_by(10) {
        let lsn = u64::from(first + 1) * 1000;
        out.push([b"B", &lsn.to_be_bytes()[..], &[0; 8], &first.to_be_bytes()].concat());
        if first == 0 {
            out.push(relation.clone());
        }
        for number in first..first + 10 {
            let row = values(number);
            let all: Vec<_> = row.iter().map(|value| Some(value.as_str())).collect();
            let (tag, tuple) = match changes {
                Changes::Inserts => (b'I', tuple(b'N', &all)),
                Changes::Updates => (b'U', tuple(b'N', &all)),
                Changes::Deletes => (b'D', tuple(b'K', &[all[0], None, None, None])),
            };
            out.push([&[tag][..], &[0, 0, 0, 1], &tuple].concat());
        }
        out.push([b"C\0", &lsn.to_be_bytes()[..], &(lsn + 100).to_be_bytes(), &[0; 8]].concat());
    }
    out.into_iter().map(Bytes::from).collect()
}

fn bytes(messages: &[Bytes]) -> BytesCount {
    BytesCount::new(messages.iter().map(Bytes::len).sum::<usize>())
}

#[divan::bench(args = CHANGES)]
fn decoding(bencher: Bencher<'_, '_>, changes: Changes) {
    let messages = stream(changes);
    bencher.counter(bytes(&messages)).counter(ItemsCount::new(CHANGED)).bench(|| {
        let mut decoder = Decoder::new(ProtocolVersion::V1);
        for message in &messages {
            divan::black_box(decoder.decode(message.clone()).expect("the stream is right"));
        }
    });
}

/// From messages over whole transactions and the net effect of each key to the bytes of statements.
#[divan::bench(args = CHANGES)]
fn batching(bencher: Bencher<'_, '_>, changes: Changes) {
    let messages = stream(changes);
    bencher.counter(bytes(&messages)).counter(ItemsCount::new(CHANGED)).bench(|| {
        let mut batching = Batching::new(ProtocolVersion::V1);
        for message in &messages {
            // Type, start, end and time of XLogData.
            let body = [b"w", &[0; 24][..], message].concat();
            let message = StreamMessage::parse(Bytes::from(body)).expect("the message is right");
            batching.take(message).expect("the stream is right");
        }
        batching.finish().expect("rows have statements")
    });
}

/// What the relay moves.
const MOVED: usize = 64 << 20;

/// Accepts one session and lets it in; then its first message, a query, is read.
fn let_in(listener: &TcpListener) -> TcpStream {
    let (mut socket, _) = listener.accept().expect("the relay connects");
    socket.set_nodelay(true).expect("it is TCP");
    let mut startup = [0; 4];
    socket.read_exact(&mut startup).expect("a session begins");
    let mut rest = vec![0; u32::from_be_bytes(startup) as usize - 4];
    socket.read_exact(&mut rest).expect("a session begins");
    let version = message(b'S', b"server_version\x0010.23\0");
    let login = [message(b'R', &[0; 4]), version, message(b'K', &[0; 8]), message(b'Z', b"I")].concat();
    socket.write_all(&login).expect("the relay is there");
    socket
}

fn header(socket: &mut impl Read) -> Option<(u8, usize)> {
    let mut header = [0; 5];
    socket.read_exact(&mut header).ok()?;
    Some((header[0], (&header[1..]).get_u32() as usize - 4))
}

fn discard(socket: &mut impl Read, mut len: usize, scratch: &mut [u8]) -> Option<()> {
    while len > 0 {
        let most = len.min(scratch.len());
        len -= socket.read(&mut scratch[..most]).ok().filter(|read| *read > 0)?;
    }
    Some(())
}

/// Answers each query by the copy of all rows.
fn source(mut socket: TcpStream, rows: &[u8]) -> Option<()> {
    let mut scratch = [0; 4096];
    loop {
        let (tag, len) = header(&mut socket)?;
        discard(&mut socket, len, &mut scratch)?;
        if matches!(tag, b'Q' | b'S') {
            socket.write_all(&message(b'H', &[0, 0, 0])).ok()?;
            socket.write_all(rows).ok()?;
            let end = [message(b'c', b""), message(b'C', b"COPY 1\0"), message(b'Z', b"I")].concat();
            socket.write_all(&end).ok()?;
        }
    }
}

/// Takes each copy; its reads are large, so that it is not what is measured.
fn target(mut socket: TcpStream) -> Option<()> {
    let mut arrived = BufReader::with_capacity(1 << 20, socket.try_clone().ok()?);
    let mut scratch = vec![0; 1 << 16];
    loop {
        let (tag, len) = header(&mut arrived)?;
        discard(&mut arrived, len, &mut scratch)?;
        match tag {
            b'Q' => socket.write_all(&message(b'G', &[0, 0, 0])).ok()?,
            b'c' => {
                let end = [message(b'C', b"COPY 1\0"), message(b'Z', b"I")].concat();
                socket.write_all(&end).ok()?;
            }
            _ => {}
        }
    }
}

/// From one socket to the other, with rows of so many bytes.
#[divan::bench(args = [100, 8192], sample_size = 1, sample_count = 20)]
fn relaying(bencher: Bencher<'_, '_>, row: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("it starts");
    let connect = |side, serve: Box<dyn FnOnce(TcpStream) -> Option<()> + Send>| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        std::thread::spawn(move || serve(let_in(&listener)));
        let conninfo = format!("host=127.0.0.1 port={port} user=u dbname=d sslmode=disable");
        let config = resolve(&conninfo, side, &Environment::empty()).expect("it is right");
        runtime.block_on(Connection::connect(&config, side, &Settings::session())).expect("it lets in")
    };
    let rows = message(b'd', &vec![b'x'; row]).repeat(MOVED / row);
    let bytes = BytesCount::new(rows.len());
    let mut from = connect(Side::Source, Box::new(move |socket| source(socket, &rows)));
    let mut to = connect(Side::Target, Box::new(target));
    let (out, into) = ("COPY t TO STDOUT".to_owned(), "COPY t FROM STDIN".to_owned());
    let transfers = [Transfer { out, into, what: "copy t".to_owned() }];
    bencher.counter(bytes).counter(ItemsCount::new(MOVED / row)).bench_local(|| {
        let progress = Progress::default();
        let moved = relay(&mut from, &mut to, &transfers, &progress);
        runtime.block_on(moved).expect("the rows are moved")
    });
}
