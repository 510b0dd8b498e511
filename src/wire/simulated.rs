//! A network inside the process, which a test puts in the place of unix sockets.
//!
//! In: what accepts a connection to a socket's path. Out: the client's end of a pipe, over which a session runs as over any socket. It is there for the
//! thread that installed it alone, as long as its [`Installed`] lives: sessions that other tests open are not touched.

use std::cell::RefCell;
use std::io;
use std::path::Path;

use tokio::io::DuplexStream;

/// Accepts a connection to the socket at a path.
pub(crate) type Accept = Box<dyn Fn(&Path) -> io::Result<DuplexStream>>;

thread_local! {
    static NETWORK: RefCell<Option<Accept>> = const { RefCell::new(None) };
}

/// Takes the network away again when it is dropped.
#[must_use]
pub(crate) struct Installed(());

impl Drop for Installed {
    fn drop(&mut self) {
        NETWORK.set(None);
    }
}

/// Has `accept` take the place of all unix sockets that this thread connects to.
pub(crate) fn install(accept: Accept) -> Installed {
    NETWORK.set(Some(accept));
    Installed(())
}

/// The client's end of a connection; `None` where no network is installed.
pub(super) fn connect(path: &Path) -> Option<io::Result<DuplexStream>> {
    NETWORK.with_borrow(|network| network.as_ref().map(|accept| accept(path)))
}
