//! Where others can watch a command at work.

use std::net::SocketAddr;

use clap::Args;

use super::value::address;

/// Where others can watch a command at work.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Windows {
    /// Serve metrics for Prometheus at this address (such as 127.0.0.1:9187)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(in crate::cli) metrics_listen: Option<SocketAddr>,
    /// Serve a page that shows how far the work is, for a browser, at this port of this host alone, or at an address
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub(in crate::cli) dashboard: Option<SocketAddr>,
}
