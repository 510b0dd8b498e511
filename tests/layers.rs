//! The layers hold: who may import whom, and who alone may touch the environment, sockets and the terminal.
//!
//! The sources are read as text: comments, literals and `#[cfg(test)]` modules are blanked out, then every
//! `crate::…` and `super::…` path that reaches a top-level module is compared with [`LAYERS`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules of `src/` and the ones they may import. A module may always import itself.
const LAYERS: &[(&[&str], &[&str])] = &[
    (&["error", "fault", "sql"], FOUNDATION),
    (&["config", "schema", "progress"], FOUNDATION),
    (&["ddl"], &["error", "fault", "sql", "schema"]),
    (&["wire"], &["error", "fault", "sql", "config", "schema", "ddl", "progress"]),
    (&["catalog"], &["error", "fault", "sql", "config", "schema", "progress", "wire"]),
    (&["state"], &["error", "fault", "sql", "config", "schema", "ddl", "progress", "wire"]),
    (&["copy", "replication", "verify"], BELOW_METHODS),
    (
        &["migrate", "cleanup"],
        &[
            "error",
            "fault",
            "sql",
            "config",
            "schema",
            "ddl",
            "progress",
            "wire",
            "catalog",
            "state",
            "copy",
            "replication",
            "verify",
        ],
    ),
];
const FOUNDATION: &[&str] = &["error", "fault", "sql"];
const BELOW_METHODS: &[&str] =
    &["error", "fault", "sql", "config", "schema", "ddl", "progress", "wire", "catalog", "state"];
/// Modules that may import everything. `lib` and `main` stand for the files at the top.
const ABOVE_ALL: &[&str] = &["cli", "lib", "main"];

/// Paths that only some modules may name: (what, the modules, why).
const RIGHTS: &[(&[&str], &[&str], &str)] = &[
    (
        &[
            "tokio::net",
            "std::os::unix::net",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "ToSocketAddrs",
            "rustls::",
            "tokio_rustls::",
            "socket2::",
        ],
        &["wire"],
        "only wire opens sockets",
    ),
    (
        &["println!", "eprintln!", "print!", "eprint!", "io::stdout", "io::stderr", "Stdout::", "Stderr::"],
        &["cli"],
        "only cli prints",
    ),
    (
        &["env::var", "env::vars", "env::args", "env::home_dir"],
        &["config"],
        "only config reads the environment",
    ),
];

/// The crates that `proto` may stand on, and what it must not reach for in std.
const PROTO_CRATES: &[&str] = &["bytes", "postgres-protocol"];
const PROTO_FORBIDDEN: &[&str] = &[
    "std::net",
    "std::io",
    "std::fs",
    "std::env",
    "std::time",
    "std::thread",
    "std::process",
    "tokio::",
    "println!",
    "eprintln!",
];

#[test]
fn the_layers_of_the_program_hold() {
    let mut broken = Vec::new();
    let mut environment_readers = BTreeSet::new();
    let src = root().join("src");
    for file in rust_files(&src) {
        let relative = file.strip_prefix(&src).expect("below src").to_owned();
        let code = code_only(&read(&file));
        broken.extend(problems(&relative, &code));
        if code.contains("env::var") {
            environment_readers.insert(relative);
        }
    }
    assert!(broken.is_empty(), "layers are broken:\n{}", broken.join("\n"));
    assert!(environment_readers.len() <= 1, "one file reads the environment, not {environment_readers:?}");
}

#[test]
fn the_protocol_stands_on_bytes_and_postgres_protocol_alone() {
    let manifest = read(&root().join("proto/Cargo.toml"));
    let dependencies = manifest.split("[dependencies]").nth(1).expect("proto has dependencies");
    let crates = dependencies.lines().skip(1).take_while(|line| !line.starts_with('['));
    for name in crates.filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty()) {
        assert!(PROTO_CRATES.contains(&name), "proto may not depend on {name}");
    }
    for file in rust_files(&root().join("proto/src")) {
        let code = code_only(&read(&file));
        for path in PROTO_FORBIDDEN {
            assert!(!mentions(&code, path), "{}: proto may not use {path}", file.display());
        }
    }
}

#[test]
fn a_broken_layer_is_found() {
    let found = |file: &str, code: &str| problems(Path::new(file), &code_only(code)).len();
    assert_eq!(found("catalog/tables.rs", "use crate::wire::Connection;\nuse crate::schema;"), 0);
    assert_eq!(found("schema/mod.rs", "use crate::wire::Connection;"), 1);
    assert_eq!(found("schema/mod.rs", "use crate::{error::Error, wire::{self, Connection}, catalog};"), 2);
    assert_eq!(found("copy/plan.rs", "fn f() { crate::verify::run() }"), 1);
    assert_eq!(found("copy/plan.rs", "use super::super::verify;"), 1);
    assert_eq!(found("copy/plan.rs", "use super::snapshot;"), 0);
    assert_eq!(found("copy.rs", "use super::verify;"), 1);
    assert_eq!(found("wire/socket.rs", "use tokio::net::TcpStream;"), 0);
    assert_eq!(found("copy/relay.rs", "use tokio::net::TcpStream;"), 2);
    assert_eq!(found("copy/relay.rs", "fn f() { println!(\"x\") }"), 1);
    assert_eq!(found("cli/ui.rs", "fn f() { println!(\"x\"); crate::migrate::run() }"), 0);
    assert_eq!(found("novelty/mod.rs", "fn f() {}"), 1);
    assert_eq!(found("main.rs", "use pgstream::cli;"), 0);
}

#[test]
fn comments_literals_and_test_modules_are_not_code() {
    let found = |code: &str| problems(Path::new("schema/mod.rs"), &code_only(code));
    assert!(found("// crate::wire\n/* crate::wire /* nested */ crate::cli */ fn f() {}").is_empty());
    assert!(found("const A: &str = \"\\\" crate::wire\"; const B: &str = r#\"crate::\"wire\"#;").is_empty());
    assert!(found("const Q: char = '\"'; fn f<'a>(x: &'a str) {} // crate::wire").is_empty());
    assert!(found("#[cfg(test)]\nmod tests { use crate::wire; fn f() { {} } }").is_empty());
    assert_eq!(found("const Q: char = '\"'; use crate::wire;").len(), 1);
    assert_eq!(found("#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::wire;").len(), 1);
}

/// What a file of `src/` (path below it, its code) does that its layer may not.
fn problems(file: &Path, code: &str) -> Vec<String> {
    let modules = module_path(file);
    let top = modules.first().map_or("lib", String::as_str);
    let mut found = Vec::new();
    let mut report = |what: String| found.push(format!("src/{}: {what}", file.display()));
    for (paths, modules, why) in RIGHTS {
        for path in paths.iter().filter(|path| mentions(code, path)) {
            if !modules.contains(&top) {
                report(format!("{path}: {why}"));
            }
        }
    }
    if ABOVE_ALL.contains(&top) {
        return found;
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(modules, _)| modules.contains(&top)) else {
        report(format!("module {top} has no layer: give it one in tests/layers.rs"));
        return found;
    };
    for import in imports(&modules, code) {
        if import != top && !allowed.contains(&import.as_str()) {
            report(format!("{top} may not import {import}"));
        }
    }
    found
}

/// `copy/plan.rs` is `copy::plan`, `copy/mod.rs` is `copy`, `main.rs` is `main`.
fn module_path(file: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        file.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    names
}

/// The top-level modules that the code of a module names.
fn imports(modules: &[String], code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let to_root = "super::".repeat(modules.len());
    for start in ["crate::", to_root.as_str()] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            first_names(code[at + start.len()..].trim_start(), &mut found);
        }
    }
    found.remove("super");
    found
}

/// Adds the first name of the path that `text` starts with, or of each path of the group that it starts with.
fn first_names(text: &str, found: &mut BTreeSet<String>) {
    let Some(group) = text.strip_prefix('{') else {
        found.insert(text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        return;
    };
    let mut depth = 0;
    let mut item_starts = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => item_starts = true,
            c if item_starts && !c.is_whitespace() => {
                first_names(&group[at..], found);
                item_starts = false;
            }
            _ => {}
        }
    }
}

/// Whether the code holds this path or macro, not merely a longer word that ends in it.
fn mentions(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of_word(before)
            && (path.ends_with([':', '!']) || path.starts_with("env::") || !part_of_word(after))
    })
}

/// The source with comments and literals replaced by spaces, and without its test modules.
fn code_only(source: &str) -> String {
    let blanked = without_comments_and_literals(source);
    let mut code = String::new();
    let mut rest = blanked.as_str();
    while let Some(at) = rest.find("#[cfg(test)]") {
        code.push_str(&rest[..at]);
        let after = &rest[at + "#[cfg(test)]".len()..];
        let item_end = after.find(['{', ';']).unwrap_or(after.len());
        rest = if after[item_end..].starts_with('{') {
            &after[item_end + block_length(&after[item_end..])..]
        } else {
            &after[item_end..]
        };
    }
    code.push_str(rest);
    code
}

/// The length of the `{…}` that the text starts with.
fn block_length(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn without_comments_and_literals(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_length(rest)
        } else if c == '"' {
            string_length(rest)
        } else if let Some(length) = raw_string_length(rest) {
            // `br` and `r` are prefixes only where no identifier goes on into them.
            if out.ends_with(|c: char| c.is_alphanumeric() || c == '_') { 0 } else { length }
        } else if c == '\'' {
            character_length(rest)
        } else {
            0
        };
        if skipped == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.push(' ');
            rest = &rest[skipped..];
        }
    }
    out
}

fn block_comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let closed = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + closed)
}

/// The length of a character literal; 0 for a lifetime.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text[3.min(text.len())..].find('\'').map_or(0, |at| at + 4),
        Some(_) => match characters.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the folder exists") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
