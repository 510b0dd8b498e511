//! The network between pgstream and the simulated servers: it delays, cuts to pieces, stalls, and breaks; it never reorders.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pgstream_proto::lsn::Lsn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::random::Random;
use super::session::Session;
use super::walsender::Walsender;
use super::wire::Peer;
use super::world::{Cut, Shared};
use crate::wire::simulated;

/// Says so when a task of the simulation panics.
struct Watched(Shared);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().fail("a task of the simulation panicked".to_owned());
        }
    }
}

pub(super) fn spawn(world: &Shared, work: impl Future<Output = ()> + Send + 'static) {
    let watched = Watched(world.clone());
    tokio::spawn(async move {
        let _watched = watched;
        work.await;
    });
}

/// Makes the network that leads to both servers.
pub(super) fn install(world: &Shared, random: Random) -> simulated::Installed {
    let (world, random) = (world.clone(), std::cell::RefCell::new(random));
    simulated::install(Box::new(move |path: &Path| {
        let which = usize::from(!path.starts_with("/source"));
        connect(&world, which, random.borrow_mut().fork())
    }))
}

fn connect(world: &Shared, which: usize, mut random: Random) -> io::Result<DuplexStream> {
    let (cut, down, id, latency) = {
        let mut world = world.lock();
        if world.servers[which].up_at > Instant::now() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        world.statistics.sessions += 1;
        let cut = Cut::default();
        let server = &mut world.servers[which];
        server.lines.retain(|line| !line.both.is_cancelled());
        server.lines.push(cut.clone());
        let down = server.down.clone();
        (cut, down, world.statistics.sessions as usize, world.plan.latency)
    };
    let size = random.of(&[64, 1 << 10, 16 << 10]);
    let (client, near) = tokio::io::duplex(size);
    let (far, server) = tokio::io::duplex(size);
    let (from_client, to_client) = tokio::io::split(near);
    let (from_server, to_server) = tokio::io::split(far);
    let piece = if random.once_in(40) { 1 } else { random.of(&[7, 100, 8 << 10]) };
    let line = |random: &mut Random| Line { world: world.clone(), random: random.fork(), piece, latency };
    let up = line(&mut random).carry(
        from_client,
        to_server,
        cut.both.clone(),
        None,
        (which == 0).then(Tap::default),
    );
    let (gone, left) = (cut.client.clone(), cut.client.clone());
    let down_line = line(&mut random).carry(from_server, to_client, cut.both.clone(), Some(cut.client), None);
    spawn(world, async move {
        up.await;
        // Nothing more comes from the client: it was killed, perhaps.
        left.cancel();
    });
    let (closes, linger) = (cut.both, random.time(Duration::from_millis(500)));
    spawn(world, async move {
        down_line.await;
        // The client's end is closed; what it sent before may arrive all the same.
        tokio::time::sleep(linger).await;
        closes.cancel();
    });
    let (shared, peer) = (world.clone(), Peer::new(server));
    let end = down.child_token();
    if which == 1 {
        world.lock().sessions.insert(id, end.clone());
    }
    spawn(world, async move {
        let serve = async {
            match which {
                0 => Walsender::new(shared.clone(), id, peer, random).run().await,
                _ => Session::new(shared.clone(), id, peer, random, gone).run().await,
            }
        };
        tokio::select! {
            biased;
            () = end.cancelled() => {}
            () = serve => {}
        }
        let mut world = shared.lock();
        match which {
            0 => world.source.session_ended(id),
            _ => world.session_ended(id),
        }
    });
    Ok(client)
}

/// One direction of a connection.
struct Line {
    world: Shared,
    random: Random,
    /// Bytes that travel together at most.
    piece: usize,
    latency: Duration,
}

impl Line {
    /// Carries bytes until an end closes or the line is cut; with `shut`, the receiving end alone is told to close.
    async fn carry(
        mut self,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
        cut: CancellationToken,
        shut: Option<CancellationToken>,
        mut tap: Option<Tap>,
    ) {
        let shut = shut.unwrap_or_default();
        let mut piece = vec![0; self.piece];
        loop {
            let len = tokio::select! {
                biased;
                () = cut.cancelled() => return,
                () = shut.cancelled() => 0,
                read = from.read(&mut piece) => read.unwrap_or(0),
            };
            if len == 0 {
                let _ = to.shutdown().await;
                return;
            }
            if let Some(tap) = &mut tap {
                tap.listen(&piece[..len], &self.world);
            }
            // What is cut into small pieces isn't to take for ever; and nothing takes long once nothing fails any more.
            let until = {
                let world = self.world.lock();
                let under_way = self.random.time(self.latency);
                let slow = world.chaos && self.random.once_in(4 + 4096 / self.piece);
                let arrives = if slow { Instant::now() + under_way } else { Instant::now() };
                arrives.max(world.stalled_until)
            };
            if until > Instant::now() {
                tokio::time::sleep_until(until).await;
            }
            tokio::select! {
                biased;
                () = cut.cancelled() => return,
                written = to.write_all(&piece[..len]) => if written.is_err() {
                    return;
                },
            }
        }
    }
}

/// Hears what pgstream reports as it leaves it.
#[derive(Debug, Default)]
struct Tap {
    heard: BytesMut,
    started: bool,
    last: Option<(Lsn, Lsn)>,
}

impl Tap {
    fn listen(&mut self, bytes: &[u8], world: &Shared) {
        self.heard.extend_from_slice(bytes);
        loop {
            // Only the startup packet has no type.
            let skip = usize::from(self.started);
            let Some(len) = self.heard.get(skip..).and_then(|rest| rest.first_chunk()) else { return };
            let len = u32::from_be_bytes(*len) as usize;
            if self.heard.len() < skip + len {
                return;
            }
            self.started = true;
            let mut message = self.heard.split_to(skip + len);
            if skip == 1 && message.starts_with(b"d") && message.get(5) == Some(&b'r') {
                message.advance(6);
                let report = (Lsn(message.get_u64()), Lsn(message.get_u64()));
                world.lock().reported(report, self.last.replace(report));
            }
        }
    }
}
