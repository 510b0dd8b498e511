//! The stream between real servers: changes of the source arrive on the target, exactly once.

mod changes;
mod drift;
mod failover;
mod interrupted;
mod large;
mod parts;
mod positions;
mod stream;
mod torture;
mod transactions;
