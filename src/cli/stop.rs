//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ui::Ui;
use crate::error::{Error, ErrorKind, Result};

/// A token that the first signal cancels. All state is on the servers and commits with the work, so the second signal may
/// end the process in the middle of anything.
pub(super) fn on_signals(ui: &Ui) -> Result<CancellationToken> {
    let listen = |kind| signal(kind).map_err(|e| Error::failed(format!("could not listen for signals: {e}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let (stop, ui) = (token.clone(), ui.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                ui.set_bars(None);
                ui.note("stopped at once");
                std::process::exit(4);
            }
            stop.cancel();
        }
    });
    Ok(token)
}

/// Runs `work`, and gives it up when the token is cancelled: for work that only reads.
pub(super) async fn or_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        result = work => result,
        () = stop.cancelled() => Err(Error::new(ErrorKind::Stopped, "stopped on request")),
    }
}
