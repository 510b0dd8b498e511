//! Whether the stream can go on from the target's checkpoint.
//!
//! In: a connection for replication, and the checkpoint. Out: what the stream must know of the source, whose session is set up for it. What may fail: a
//! source that is another server, or a standby whose primary isn't named, or was restored; a slot or publication that is not there or no longer fits. A gap is never passed over in silence.

use std::time::Duration;

use pgstream_proto::lsn::Lsn;

use super::slot::{IDENTIFY_SYSTEM, SlotState, SystemIdentity, lsn};
use crate::error::{Error, Result};
use crate::sql::literal;
use crate::state::checkpoint::Checkpoint;
use crate::wire::Connection;

/// How often the source hears from us at least, in milliseconds; each report asks for its position.
const LONGEST_SILENCE: u64 = 250;

/// How a stream is to be resumed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resume<'a> {
    /// The slot that it comes from.
    pub(super) slot: &'a str,
    /// The publication that names its tables.
    pub(super) publication: &'a str,
    /// Whether large transactions are sent while they are decoded.
    pub(super) streaming: bool,
}

/// What a stream needs to know of a source that it may resume from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resumable {
    /// The source's timeline now.
    pub(super) timeline: u32,
    /// How often the source must hear from us.
    pub(super) interval: Duration,
}

/// The kilobytes of changes that the source decodes before it begins to send a transaction that is not committed yet (`logical_decoding_work_mem`, which
/// is never raised): the target has nothing to do until then.
const DECODED_FIRST: u64 = 4 << 10;

/// Whether the stream can go on from the checkpoint without a gap; sets up `source`, a connection for replication, for it.
pub(super) async fn check(
    source: &mut Connection,
    resume: &Resume<'_>,
    checkpoint: &Checkpoint,
) -> Result<Resumable> {
    let Resume { slot, publication, streaming } = *resume;
    let start = checkpoint.applied;
    // A source may be far away: all of it in one round trip.
    let sql = format!(
        "SELECT pg_catalog.pg_is_in_recovery(), \
                (SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {}), \
                EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = {}), \
                (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'wal_sender_timeout'), \
                (SELECT pg_catalog.set_config(s.name, '{DECODED_FIRST}', false) FROM pg_catalog.pg_settings s \
                 WHERE s.name = 'logical_decoding_work_mem' AND s.setting::int8 > {DECODED_FIRST} AND {streaming})",
        literal(slot),
        literal(publication),
    );
    let [system, rows] = source.simple_each([IDENTIFY_SYSTEM, &sql]).await?;
    let identity = SystemIdentity::of(&system)?;
    if identity.system_identifier != checkpoint.system_identifier {
        return Err(Error::failed("the source is not the server that the copy was made from").with_detail(
            format!(
                "Its system identifier is {}; the checkpoint on the target is of {}.",
                identity.system_identifier, checkpoint.system_identifier
            ),
        ));
    }
    let row = rows.first().ok_or_else(|| Error::failed("the source did not describe its slot"))?;
    if row.is_true(0) && source.config().primary.is_none() {
        // During a failover, it may be the primary in a moment.
        return Err(Error::connection("the source is a standby that has not been promoted")
            .with_hint("Name all its hosts in --source, with target_session_attrs=read-write; a standby that is followed on purpose needs --source-primary."));
    }
    let state = row.text(1).map(|text| SlotState::parse(text, slot)).transpose()?;
    let confirmed = match &state {
        Some(state) => state.confirmed()?,
        None => None,
    };
    holds_what_is_applied(source, &identity, checkpoint, confirmed).await?;
    let again = "The stream has a gap that can't be filled: run pgstream cleanup, then migrate again.";
    let Some(state) = state else {
        return Err(Error::failed(format!("replication slot \"{slot}\" is not on the source"))
            .with_detail("It was dropped, or the source failed over to a standby that did not have it.")
            .with_hint(again));
    };
    if let Some(reason) = state.lost() {
        return Err(Error::failed(format!("replication slot \"{slot}\" is of no more use: {reason}"))
            .with_hint(again));
    }
    match confirmed {
        Some(confirmed) if confirmed > start => {
            return Err(Error::failed(format!(
                "replication slot \"{slot}\" has been confirmed up to {confirmed}, past the target's checkpoint {start}"
            ))
            .with_detail(
                "What lies between has been let go by the source and is not on the target: the target was restored, or something else used the slot.",
            )
            .with_hint(again));
        }
        _ => {}
    }
    if !row.is_true(2) {
        return Err(
            Error::failed(format!("publication \"{publication}\" is not on the source")).with_hint(again)
        );
    }
    let timeout = match row.text(3) {
        Some(_) => row.value::<u64>(3)?,
        None => 0,
    };
    let interval = Duration::from_millis(if timeout == 0 {
        LONGEST_SILENCE
    } else {
        (timeout / 4).clamp(10, LONGEST_SILENCE)
    });
    Ok(Resumable { timeline: identity.timeline, interval })
}

/// Whether the source's log holds all that is applied up to the checkpoint; `confirmed` is what its slot knows of that.
///
/// A standby that is promoted while it is followed sends on, into its new timeline, of which the checkpoint learns nothing. Its slot tells: what
/// was confirmed to it past the fork has come from it.
async fn holds_what_is_applied(
    source: &mut Connection,
    identity: &SystemIdentity,
    checkpoint: &Checkpoint,
    confirmed: Option<Lsn>,
) -> Result<()> {
    let start = checkpoint.applied;
    if identity.timeline < checkpoint.timeline {
        return Err(Error::failed(format!(
            "the source is on timeline {}, and the target has followed it to timeline {}",
            identity.timeline, checkpoint.timeline
        ))
        .with_detail("It is a server from before a failover, or was restored from a backup.")
        .with_hint("Name the server that is the primary now, in --source."));
    }
    if identity.timeline > checkpoint.timeline {
        let left = timeline_left(source, identity.timeline, checkpoint.timeline).await?;
        if left.is_some_and(|left| left < start && confirmed.is_none_or(|confirmed| confirmed <= left)) {
            return Err(Error::failed(
                "the source was promoted from a standby that had not received all that is applied already",
            )
            .with_detail(format!(
                "The target stands at {start}, and the source left timeline {} at {}.",
                checkpoint.timeline,
                left.unwrap_or_default()
            ))
            .with_hint(
                "The two can't be brought together by streaming: run pgstream cleanup, then migrate again.",
            ));
        }
    }
    if identity.position < start {
        return Err(Error::failed("the source's write-ahead log ends before what is applied already").with_detail(format!(
            "It ends at {}, and the target stands at {start}: the source may have been restored from a backup.",
            identity.position
        )));
    }
    Ok(())
}

/// Where the history of `timeline` left `earlier`; `None` when it isn't told.
async fn timeline_left(source: &mut Connection, timeline: u32, earlier: u32) -> Result<Option<Lsn>> {
    let rows = source.simple(&format!("TIMELINE_HISTORY {timeline}")).await?;
    let history = rows.first().and_then(|row| row.text(1)).unwrap_or_default().to_owned();
    // Lines of: timeline, tab, position, tab, reason.
    for line in history.lines() {
        let mut fields = line.split_whitespace();
        if fields.next().and_then(|t| t.parse().ok()) == Some(earlier) {
            return fields.next().map(lsn).transpose();
        }
    }
    Err(Error::failed(format!("the source's timeline {timeline} does not come from timeline {earlier}"))
        .with_detail("The source is another branch of the same cluster."))
}
