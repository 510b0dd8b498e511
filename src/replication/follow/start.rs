//! How a stream is asked for.

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;

use crate::error::Result;
use crate::replication::resume::Resume;
use crate::sql::{ident, literal};
use crate::wire::Connection;

pub(super) const RAW: &str = "SET client_encoding = 'SQL_ASCII'";

/// Bytes that have no encoding on either side are not converted: they might not be UTF-8. Whether that is so.
pub(in crate::replication) async fn as_is(source: &mut Connection, target: &mut Connection) -> Result<bool> {
    let raw = [&*source, &*target].iter().all(|s| s.parameter("server_encoding") == Some("SQL_ASCII"));
    if raw {
        source.execute(RAW).await?;
        target.execute(RAW).await?;
    }
    Ok(raw)
}

/// The command that starts a stream at the position `start`.
pub(in crate::replication) fn start_command(
    from: &Resume<'_>,
    version: ProtocolVersion,
    start: Lsn,
) -> String {
    format!(
        "START_REPLICATION SLOT {} LOGICAL {start} (proto_version '{}', publication_names {}{})",
        ident(from.slot),
        version.number(),
        literal(&ident(from.publication)),
        if from.streaming { ", streaming 'on'" } else { "" },
    )
}
