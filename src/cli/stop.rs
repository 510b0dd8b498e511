//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the process at once, and so does a stop that takes too long.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ui::Ui;
use crate::error::{Error, Result};

/// How long a clean stop may take: a server that has fallen silent answers no request to cancel.
const PATIENCE: Duration = Duration::from_secs(15);

/// A token that the first signal cancels. All state is on the servers and commits with the work, so the second signal may
/// end the process in the middle of anything.
pub(super) fn on_signals(ui: &Ui) -> Result<CancellationToken> {
    let listen = |kind| signal(kind).map_err(|e| Error::failed(format!("could not listen for signals: {e}")));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let (stop, ui) = (token.clone(), ui.clone());
    tokio::spawn(async move {
        let mut signal = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        signal().await;
        stop.cancel();
        let why = match tokio::time::timeout(PATIENCE, signal()).await {
            Ok(()) => "stopped at once",
            Err(_) => "stopped at once, since a clean stop took too long; the same command goes on from here",
        };
        ui.set_bars(None);
        ui.note(why);
        std::process::exit(4);
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
        () = stop.cancelled() => Err(Error::stopped()),
    }
}
