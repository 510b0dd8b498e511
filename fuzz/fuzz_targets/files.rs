//! Files that complete a connection string, and lists of what is copied. Input: one byte for the kind of file, then its content.
#![no_main]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pgstream::config::{Environment, Secret, Side, resolve};
use pgstream::schema::filter;
use pgstream::schema::pattern::{Parts, Pattern, regular_expressions, split_list};
use pgstream::schema::selection::Selection;

/// A file of this process alone, in memory where the system has such a folder.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let directory = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let path = directory.join(format!("pgstream-fuzz-{}", std::process::id()));
        fs::write(&path, b"").expect("the file can be made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        path
    })
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, content)) = input.split_first() else { return };
    if kind % 4 == 3 {
        let Ok(text) = std::str::from_utf8(content) else { return };
        let mut selection = Selection::default();
        let _ = filter::add(&mut selection, "file", text);
        for pattern in selection.tables.iter().chain(&selection.schemas) {
            let _ = (regular_expressions(pattern), split_list(pattern), Pattern::parse(pattern, Parts::All));
        }
        return;
    }
    let path = file();
    fs::write(path, content).expect("the file can be written");
    let environment = Environment::empty().with_user("user");
    match kind % 4 {
        0 => {
            let environment = environment.with_variable("PGSERVICEFILE", path.to_str().unwrap_or_default());
            if let Ok(config) = resolve("service=s", Side::Source, &environment) {
                let _ = (config.redacted(), format!("{config:?}"));
            }
        }
        1 => {
            let text = format!("host=h,g port=1,2 dbname=d passfile={}", path.display());
            let config = resolve(&text, Side::Source, &environment).expect("a password file breaks nothing");
            let _ = (config.with_dbname("another"), format!("{config:?}"));
        }
        _ => {
            let secret = Secret::read(path);
            assert!(!matches!(secret, Ok(secret) if secret.expose().is_empty()));
        }
    }
});
