//! Servers that mean harm: whatever they send, in whatever state, a session ends with an error, soon, and takes no memory for what was only announced.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use pgstream::config::{Environment, Side, resolve};
use pgstream::error::Error;
use pgstream::wire::{Answer, Connection, CopyBoth, Pipeline, Settings};

use crate::harness::{Random, variable};

/// How long a session with such a server may take to end, once the server has closed it.
const SOON: Duration = Duration::from_secs(20);

/// What all of them together may cost, in kilobytes.
const MEMORY: u64 = 64 << 10;

/// A server that answers each connection's first bytes with the next of the scripts, and closes.
fn serve() -> (u16, mpsc::Sender<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let (scripts, next) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        for script in next {
            let Ok((mut socket, _)) = listener.accept() else { return };
            let mut heard = [0; 4096];
            let _ = socket.read(&mut heard);
            let _ = socket.write_all(&script).and_then(|()| socket.shutdown(std::net::Shutdown::Write));
            // Closed with unread bytes, the socket would take back what was sent.
            let _ = socket.set_read_timeout(Some(SOON));
            while socket.read(&mut heard).is_ok_and(|len| len > 0) {}
        }
    });
    (port, scripts)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend((body.len() as u32 + 4).to_be_bytes());
    message.extend(body);
    message
}

/// What a right server says before it goes wrong.
fn login() -> Vec<u8> {
    let version = b"server_version\x0010.23\0";
    [message(b'R', &[0; 4]), message(b'S', version), message(b'K', &[0; 8]), message(b'Z', b"I")].concat()
}

/// The states of a session in which the client waits for the server, and what the client does in them.
#[derive(Debug, Clone, Copy)]
enum State {
    Startup,
    Encryption,
    Password,
    Scram,
    LoggedIn,
    Query,
    Rows,
    CopyOut,
    CopyIn,
    CopyBoth,
    Pipeline,
}

const STATES: [State; 11] = [
    State::Startup,
    State::Encryption,
    State::Password,
    State::Scram,
    State::LoggedIn,
    State::Query,
    State::Rows,
    State::CopyOut,
    State::CopyIn,
    State::CopyBoth,
    State::Pipeline,
];

impl State {
    /// What the server says on the way to it.
    fn way(self) -> Vec<u8> {
        let copy = [0, 0, 0];
        match self {
            State::Startup | State::Encryption => Vec::new(),
            State::Password => message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]),
            State::Scram => message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
            State::LoggedIn => message(b'R', &[0; 4]),
            State::Query | State::Pipeline => login(),
            State::Rows => [login(), message(b'D', b"\0\x01\0\0\0\x011")].concat(),
            State::CopyOut => [login(), message(b'H', &copy), message(b'd', b"1\n")].concat(),
            State::CopyIn => [login(), message(b'G', &copy)].concat(),
            State::CopyBoth => [login(), message(b'W', &copy)].concat(),
        }
    }

    /// Talks to the server until it comes to an end.
    async fn talk(self, port: u16) -> Result<(), Error> {
        let mode = if matches!(self, State::Encryption) { "require" } else { "disable" };
        let conninfo = format!(
            "host=127.0.0.1 port={port} user=u dbname=d password=secret sslmode={mode} connect_timeout=10"
        );
        let config = resolve(&conninfo, Side::Source, &Environment::empty())?;
        let mut session = Connection::connect(&config, Side::Source, &Settings::session()).await?;
        match self {
            State::CopyOut => {
                let mut copy = session.copy_out(&["COPY t TO STDOUT", "COPY u TO STDOUT"]).await?;
                copy.begin().await?;
                while copy.frames().await?.is_some() {}
            }
            State::CopyIn => {
                let mut copy = session.copy_in();
                copy.begin("COPY t FROM STDIN").await?;
                copy.write(Bytes::from(message(b'd', b"1\n"))).await?;
                copy.end();
                copy.begin("COPY u FROM STDIN").await?;
                copy.end();
                copy.finish().await?;
            }
            State::CopyBoth => {
                let mut stream = CopyBoth::start(session, "START_REPLICATION").await?;
                while !stream.is_ended() {
                    while stream.next_data()?.is_some() {}
                    stream.exchange(true).await?;
                }
            }
            State::Pipeline => {
                let mut pipeline = Pipeline::new(session);
                pipeline.prepare("", "SELECT 1", &[])?;
                pipeline.run("", &[], std::iter::empty())?;
                pipeline.sync();
                pipeline.send().await?;
                while !matches!(pipeline.answer().await?, Answer::Ready(_)) {}
            }
            _ => {
                session.query("SELECT 1", &[]).await?;
            }
        }
        Ok(())
    }
}

/// Bytes that were thought of.
fn crafted() -> Vec<Vec<u8>> {
    let announced = |tag: u8, len: u32, body: &[u8]| [&[tag][..], &len.to_be_bytes(), body].concat();
    let mut all = vec![
        Vec::new(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        vec![0; 5000],
        vec![0xff; 5000],
        b"S".repeat(5000),
        // SCRAM: somebody else's nonce, counts of nothing and of too much, an end before the beginning
        message(b'R', b"\0\0\0\x0br=,s=c2FsdA==,i=1"),
        message(b'R', b"\0\0\0\x0br=AAAA,s=c2FsdA==,i=0"),
        message(b'R', b"\0\0\0\x0br=AAAA,s=c2FsdA==,i=4294967295"),
        message(b'R', b"\0\0\0\x0cv=AAAA"),
        message(b'R', b"\0\0\0\0"),
        message(b'R', b"\0\0\0\x0aSCRAM-SHA-256"),
        message(b'R', b"\0\0\0\x08"),
        message(b'R', b"\0\0\0\x05"),
        message(b'D', b"\xff\xff"),
        message(b'D', b"\0\x01\x7f\xff\xff\xff"),
        message(b'D', b"\0\x01\xff\xff\xff\xfe"),
        message(b'T', b"\xff\xff"),
        message(b'E', b""),
        message(b'E', b"SERROR"),
        message(b'E', b"SERROR\0C\0M\0\0rest"),
        message(b'N', &b"M".repeat(60_000)),
        message(b'S', b"name"),
        message(b'S', b"server_version\0-1\0"),
        message(b'K', b""),
        message(b'Z', b""),
        message(b'Z', b"?"),
        message(b'C', b"SELECT 99999999999999999999999999\0"),
        message(b'H', b"\0\xff\xff"),
        message(b'W', b""),
        message(b'd', b"w"),
        message(b'd', b"k\0\0"),
        message(b'c', b""),
        message(b'v', b"\0\x03\0\0\x7f\xff\xff\xff"),
        message(b'A', b"\0\0\0\0\0\0"),
        message(b'n', b""),
        // more than it looks like
        message(b'S', b"a\0b\0").repeat(2000),
        message(b'N', b"SNOTICE\0C00000\0Mm\0\0").repeat(2000),
        message(b'1', b"").repeat(2000),
        message(b'Z', b"I").repeat(2000),
    ];
    for tag in b"RSKZTDCEHGWdcNAVvt123sn".iter().copied() {
        for len in [0, 3, 5, 1 << 16, 1 << 30, i32::MAX as u32, u32::MAX] {
            all.push(announced(tag, len, b"some bytes"));
        }
    }
    all
}

/// The most memory that this process has had, in kilobytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the line is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn whatever_a_hostile_server_sends_the_session_ends_with_an_error_and_no_memory_is_taken() {
    let seed = variable("PGSTREAM_SEED").unwrap_or(u64::from(std::process::id()) + 1);
    let rounds = variable("PGSTREAM_ROUNDS").unwrap_or(60);
    println!("PGSTREAM_SEED={seed} PGSTREAM_ROUNDS={rounds}");
    let (port, scripts) = serve();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    let mut random = Random::new(seed);
    let mut junk = || -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..random.below(400)).map(|_| random.below(256) as u8).collect();
        // Half of it looks like a message at first.
        if random.below(2) == 0 {
            let tags = b"RSKZTDCEHGWdcNv12n";
            let tag = tags[random.below(tags.len() as u64) as usize];
            bytes = message(tag, &bytes);
        }
        bytes
    };
    let mut harm = crafted();
    harm.extend((0..rounds).map(|_| junk()));
    let before = most_memory();
    for state in STATES {
        for bytes in &harm {
            scripts.send([state.way(), bytes.clone()].concat()).expect("the server waits");
            let outcome = runtime.block_on(async { tokio::time::timeout(SOON, state.talk(port)).await });
            let shown: String = bytes.escape_ascii().take(300).map(char::from).collect();
            let Ok(outcome) = outcome else { panic!("{state:?} hangs after {shown}") };
            if let Err(error) = outcome {
                let said = format!("{error} {error:?} {:?} {:?}", error.detail(), error.hint());
                assert!(!said.contains("secret"), "{state:?} after {shown}: {said}");
            }
        }
    }
    let taken = most_memory() - before;
    assert!(taken < MEMORY, "{taken} kB were taken");
}
