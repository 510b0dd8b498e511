//! A network that misbehaves: a TCP proxy before a server.

use super::cluster::Cluster;
use super::database::Database;
use super::random::Random;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to what passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Every byte comes alone.
    Dribble,
    /// The connection that carries this byte, counted over all connections and both directions, is reset before it; the others stay.
    ResetAt(u64),
    /// From this byte on the connection that carries it is silent, and stays open.
    SilentFrom(u64),
    /// Every connection is reset after some bytes: up to so many.
    ResetEachWithin(u64),
    /// The first message of a client that holds these bytes arrives, and its connection is reset before the answer comes; then nothing.
    LoseAnswerTo(&'static str),
}

/// A proxy; its port is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: u16,
    trouble: Mutex<Trouble>,
    passed: AtomicU64,
    /// Connections so far, and how many of them, the first, are mute.
    accepted: AtomicU64,
    mute: AtomicU64,
    turns: Mutex<Turns>,
    closed: AtomicBool,
}

/// How often clients have sent something after an answer.
#[derive(Debug, Default)]
struct Turns {
    count: u64,
    /// Those that come before it are counted; `None` while nobody counts.
    until: Option<&'static str>,
}

impl Proxy {
    /// Before a server; its troubles begin with [`Proxy::set`].
    pub(crate) fn before(server: &Cluster) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            server: server.port(),
            trouble: Mutex::default(),
            passed: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            mute: AtomicU64::new(0),
            turns: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
                accepting.accepted.fetch_add(1, Ordering::Relaxed);
                if let Ok(client) = client {
                    serve(&accepting, client, number as u64);
                }
            }
        });
        Proxy { port, shared }
    }

    /// From now on; bytes are counted from here.
    pub(crate) fn set(&self, trouble: Trouble) {
        self.shared.passed.store(0, Ordering::Relaxed);
        *self.shared.trouble.lock().expect("nobody panics with it") = trouble;
    }

    /// Counts how often a client sends something after an answer, over all connections, until one sends this.
    pub(crate) fn count_turns_until(&self, text: &'static str) {
        *self.shared.turns.lock().expect("nobody panics with it") = Turns { count: 0, until: Some(text) };
    }

    /// How often that was, once the end has come.
    pub(crate) fn turns(&self) -> Option<u64> {
        let turns = self.shared.turns.lock().expect("nobody panics with it");
        turns.until.is_none().then_some(turns.count)
    }

    /// The connections that are there, and the next ones up to so many, stay open and carry nothing more.
    pub(crate) fn mute(&self, next: u64) {
        self.shared.mute.store(self.shared.accepted.load(Ordering::Relaxed) + next, Ordering::Relaxed);
    }

    /// Bytes that have passed since the last [`Proxy::set`].
    pub(crate) fn passed(&self) -> u64 {
        self.shared.passed.load(Ordering::Relaxed)
    }

    /// The URI of a database behind it.
    pub(crate) fn uri(&self, database: &Database<'_>) -> String {
        let port = database.cluster().port();
        assert_eq!(port, self.shared.server);
        database.uri().replacen(&format!(":{port}/"), &format!(":{}/", self.port), 1)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(shared: &Arc<Shared>, client: TcpStream, number: u64) {
    // A server that is down: the client sees the end of the connection.
    let Ok(server) = TcpStream::connect(("127.0.0.1", shared.server)) else { return };
    let lot = Random::new(number).below(u64::MAX);
    // Bytes of this connection, both ways.
    let own = Arc::new(AtomicU64::new(0));
    let answered = Arc::new(AtomicBool::new(true));
    for (from, to, of_client) in [(&client, &server, true), (&server, &client, false)] {
        let _ = from.set_nodelay(true);
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let (shared, own, answered) = (shared.clone(), own.clone(), answered.clone());
        let way = Way { number, lot, of_client };
        std::thread::spawn(move || {
            // What a proxy loses is what the test is about.
            let _ = pass(&shared, from, to, (&own, &answered), way);
        });
    }
}

/// One direction of a connection.
#[derive(Clone, Copy)]
struct Way {
    number: u64,
    lot: u64,
    of_client: bool,
}

fn pass(
    shared: &Shared,
    mut from: TcpStream,
    mut to: TcpStream,
    (own, answered): (&AtomicU64, &AtomicBool),
    way: Way,
) -> std::io::Result<()> {
    let hang = || {
        while !shared.closed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let mut buffer = [0; 16 << 10];
    loop {
        let size = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return to.shutdown(Shutdown::Write),
            Ok(size) => size as u64,
        };
        if way.number < shared.mute.load(Ordering::Relaxed) {
            hang();
            return Ok(());
        }
        let mut bytes = &buffer[..size as usize];
        count_turn(shared, bytes, answered, way);
        let trouble = *shared.trouble.lock().expect("nobody panics with it");
        let (passed, limit) = match trouble {
            Trouble::ResetEachWithin(most) => (own.fetch_add(size, Ordering::Relaxed), 1 + way.lot % most),
            Trouble::ResetAt(limit) | Trouble::SilentFrom(limit) => {
                (shared.passed.fetch_add(size, Ordering::Relaxed), limit)
            }
            Trouble::None | Trouble::Dribble | Trouble::LoseAnswerTo(_) => {
                (shared.passed.fetch_add(size, Ordering::Relaxed), u64::MAX)
            }
        };
        let met = limit >= passed && limit < passed + size;
        if met {
            bytes = &bytes[..(limit - passed) as usize];
        }
        match trouble {
            Trouble::Dribble => bytes.iter().try_for_each(|byte| to.write_all(&[*byte]))?,
            _ => to.write_all(bytes)?,
        }
        let answer_lost = match trouble {
            Trouble::LoseAnswerTo(text) if way.of_client => {
                let found = bytes.windows(text.len()).any(|part| part == text.as_bytes());
                // One connection alone.
                let mut now = shared.trouble.lock().expect("nobody panics with it");
                found && *now == trouble && std::mem::take(&mut *now) == trouble
            }
            _ => false,
        };
        if answer_lost {
            // The server does it, and says so to nobody.
            let _ = to.shutdown(Shutdown::Write);
            let _ = socket2::SockRef::from(&from).set_linger(Some(Duration::ZERO));
            let _ = from.shutdown(Shutdown::Both);
            return Ok(());
        }
        if !met {
            continue;
        }
        if let Trouble::SilentFrom(_) = trouble {
            hang();
        }
        for socket in [&from, &to] {
            // With no time to linger, what is closed is reset.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
        return Ok(());
    }
}

/// Counts what a client sends, unless it goes on with something.
fn count_turn(shared: &Shared, bytes: &[u8], answered: &AtomicBool, way: Way) {
    let answered = answered.swap(!way.of_client, Ordering::Relaxed);
    let mut turns = shared.turns.lock().expect("nobody panics with it");
    if let Some(text) = turns.until.filter(|_| way.of_client) {
        turns.count += u64::from(answered);
        if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
            turns.until = None;
        }
    }
}
