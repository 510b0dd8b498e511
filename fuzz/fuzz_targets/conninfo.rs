//! Connection strings, URI and key=value. Input: the string.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgstream::config::{Environment, Side, resolve};

fuzz_target!(|text: &str| {
    let environment = Environment::empty().with_user("user");
    match resolve(text, Side::Source, &environment) {
        Ok(config) => {
            let _ = (config.redacted(), config.with_dbname("another"), format!("{config:?}"));
        }
        Err(error) => {
            let _ = (error.to_string(), format!("{error:?}"));
        }
    }
});
