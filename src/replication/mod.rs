//! The stream: what changes on the source after the snapshot is applied to the target, in order, exactly once.
//!
//! In: a logical replication slot of the source and the target's checkpoint. Out: rows on the target, and a checkpoint that commits with them.
//! What may fail: either server (the stream is taken up again), a slot that no longer holds what the checkpoint needs, a schema that has
//! changed, a change that the target can't take. Whatever happens, the target holds exactly the changes up to its checkpoint.
//!
//! ```text
//! receive → decode → assemble → batch → apply → checkpoint → feedback
//! stream    proto    assemble   batch   apply   state        durable, feedback
//! spool              spill              ahead, gather, many, pending, relation, statement, filter
//! ```
//!
//! # Positions
//! - A transaction is known by the LSN of its commit record (`final_lsn` of Begin); the checkpoint is the **end** of the last applied commit record. What begins
//!   before the checkpoint is applied already; the end of one commit may be the begin of the next, so nothing else is compared.
//! - A stream starts at the checkpoint, never at what the slot remembers: a lost report, or a source that forgot one in a crash, sends nothing twice. A slot
//!   that was confirmed past the checkpoint is refused, since what lies between can't be had any more.
//! - A keepalive's position counts when no transaction is open and everything before it is applied. It is stored in the checkpoint
//!   before it is acknowledged, so that the checkpoint is never behind the slot.
//! - Only what is durable on the target is acknowledged. The applier's commits don't wait for the disk: a session of its
//!   own makes them durable, all that there are, a few times a second.
//!
//! # Failures
//! A group of source transactions is one transaction of the target. When anything fails, both sessions are given up and the stream starts again from the checkpoint;
//! after a failed group, source transactions come one by one, so that the last good one is kept and the failing change is named.

mod ahead;
mod apply;
mod assemble;
mod batch;
mod change;
mod durable;
mod failure;
mod feedback;
mod filter;
mod follow;
mod gather;
mod lookup;
mod many;
#[doc(hidden)]
pub mod measure;
mod pending;
mod preflight;
mod primary;
mod publication;
mod relation;
mod resume;
#[cfg(any(test, fuzzing))]
pub mod simulation;
mod slot;
pub mod spill;
pub mod spool;
mod statement;
mod stream;
mod target;

pub use apply::OnConflict;
pub use filter::{Filter, PartRule, SnapshotRule};
pub use follow::{Ended, Following, Options, follow};
pub use preflight::{Changes, MissingIdentity, Obstacle, changes, obstacle_of, obstacles};
pub use primary::{Primary, read_source};
pub use publication::{
    PublishedTable, add_again, add_to_publication, create_publication, drop_publication, publication_exists,
};
pub use slot::{
    Blocker, CreatedSlot, SlotRequest, SlotState, SystemIdentity, create_slot, drop_slot, end_position,
    identify_system, object_name, read_slot, refused_session,
};
pub use target::{TriggerRole, silence_triggers};
