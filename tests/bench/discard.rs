//! Receives the stream of a slot and discards it: the floor of what a drain can take. `discard SOURCE SLOT PUBLICATION LSN` ends when a transaction has
//! come that committed after the LSN, and prints the bytes of all messages.

use std::io::Write;

use pgstream::config::{Environment, Side, resolve};
use pgstream::replication::measure;

#[tokio::main(worker_threads = 1)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, slot, publication, until] = &arguments[..] else {
        return Err("SOURCE, SLOT, PUBLICATION and LSN are needed".into());
    };
    let config = resolve(source, Side::Source, &Environment::from_process())?;
    let bytes = measure::discard(&config, slot, publication, until.parse()?).await?;
    writeln!(std::io::stdout(), "{bytes}")?;
    Ok(())
}
