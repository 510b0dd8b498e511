//! The stream between real servers: changes of the source arrive on the target, exactly once.

mod changes;
mod drift;
mod positions;
mod stream;
mod transactions;
