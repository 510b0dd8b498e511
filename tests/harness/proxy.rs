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
    closed: AtomicBool,
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
            closed: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                if accepting.closed.load(Ordering::Relaxed) {
                    return;
                }
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
    for (from, to) in [(&client, &server), (&server, &client)] {
        let _ = from.set_nodelay(true);
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let (shared, own) = (shared.clone(), own.clone());
        std::thread::spawn(move || {
            // What a proxy loses is what the test is about.
            let _ = pass(&shared, from, to, &own, lot);
        });
    }
}

fn pass(
    shared: &Shared,
    mut from: TcpStream,
    mut to: TcpStream,
    own: &AtomicU64,
    lot: u64,
) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let size = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return to.shutdown(Shutdown::Write),
            Ok(size) => size as u64,
        };
        let mut bytes = &buffer[..size as usize];
        let trouble = *shared.trouble.lock().expect("nobody panics with it");
        let (passed, limit) = match trouble {
            Trouble::ResetEachWithin(most) => (own.fetch_add(size, Ordering::Relaxed), 1 + lot % most),
            Trouble::ResetAt(limit) | Trouble::SilentFrom(limit) => {
                (shared.passed.fetch_add(size, Ordering::Relaxed), limit)
            }
            Trouble::None | Trouble::Dribble => (shared.passed.fetch_add(size, Ordering::Relaxed), u64::MAX),
        };
        let met = limit >= passed && limit < passed + size;
        if met {
            bytes = &bytes[..(limit - passed) as usize];
        }
        match trouble {
            Trouble::Dribble => bytes.iter().try_for_each(|byte| to.write_all(&[*byte]))?,
            _ => to.write_all(bytes)?,
        }
        if !met {
            continue;
        }
        if let Trouble::SilentFrom(_) = trouble {
            while !shared.closed.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        for socket in [&from, &to] {
            // With no time to linger, what is closed is reset.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
        return Ok(());
    }
}
