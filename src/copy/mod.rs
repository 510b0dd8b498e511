//! The bulk copy: one snapshot of the source, many workers, every row once.
//!
//! In: the source's tables (`schema`), a snapshot that all workers share, the target's queue of parts (`state`). Out: tables
//! whose parts are marked done in the transaction that filled them; post-data items made as soon as their tables are
//! complete; sequences and large objects. What may fail: either server; a part that fails leaves its row `pending`, and the next run takes it up.
//!
//! ```text
//! plan → parts in the state tables ─┬─ copy worker: claim → COPY out → relay → COPY in → done ┐ one transaction
//!                                   ├─ … `jobs` of them                                      │ of the target
//!                                   └─ those of other processes, on any host, likewise         ┘
//! post-data: an item runs once its tables are complete and what it depends on is made, largest first
//! ```

mod ahead;
mod apply;
mod elsewhere;
mod failures;
mod finish;
mod format;
mod large_object;
mod part;
mod plan;
mod post_data;
mod relay;
mod rows;
mod schedule;
mod sequence;
mod snapshot;
mod worker;

pub use ahead::make_ahead;
pub use apply::{Applied, apply_items, guarded};
pub use elsewhere::ended_elsewhere;
pub use failures::{Failures, Policy};
pub use finish::analyze;
pub use large_object::{plan_large_objects, refresh_large_objects};
pub use plan::{PlannedRelation, SplitRule, plan_relation};
pub use relay::{RelayError, Relayed, Transfer, relay};
pub use schedule::{Schedule, Tables};
pub use sequence::copy_sequences;
pub use snapshot::{Snapshot, join};
pub use worker::{Copy, SourceTables, Workers, help, is_as_is, run};
