//! Configuration settings as the catalogs keep them, `name=value`, turned into SET clauses.

use crate::schema::newer;
use crate::sql::{ident, literal};

/// Settings whose value is a list of names, each quoted on its own (GUC_LIST_QUOTE in the server).
const LISTS: [&str; 7] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
    "oauth_validator_libraries",
];

/// `SET "name" TO value`, or nothing for text that isn't `name=value`, and for a setting that servers of that version do without.
pub fn set_clause(setting: &str, target_version: u32) -> Option<String> {
    let (name, value) = setting.split_once('=')?;
    let name = newer::setting(name, target_version)?;
    let value = if LISTS.contains(&name.to_ascii_lowercase().as_str()) {
        let names: Vec<_> = split_list(value).iter().map(|n| literal(n)).collect();
        if names.is_empty() { "''".to_owned() } else { names.join(", ") }
    } else {
        literal(value)
    };
    // A placeholder setting `prefix.name` is two identifiers.
    let name: Vec<_> = name.split('.').map(ident).collect();
    Some(format!("SET {} TO {value}", name.join(".")))
}

/// Splits a list of identifiers as the server's SplitGUCList does: parts in double quotes keep commas, and `""` is a quote.
fn split_list(value: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = value.trim_start();
    while !rest.is_empty() {
        let mut name = String::new();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut tail = quoted;
            while let Some((part, after)) = tail.split_once('"') {
                name.push_str(part);
                tail = after;
                match tail.strip_prefix('"') {
                    Some(more) => {
                        name.push('"');
                        tail = more;
                    }
                    None => break,
                }
            }
            rest = tail;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            name.push_str(rest[..end].trim_end());
            rest = &rest[end..];
        }
        names.push(name);
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_quoted_name_by_name() {
        assert_eq!(
            set_clause("search_path=\"$user\", a, \"b,\"\"c\"", 180_000).as_deref(),
            Some("SET \"search_path\" TO '$user', 'a', 'b,\"c'")
        );
        assert_eq!(set_clause("search_path=\"\"", 180_000).as_deref(), Some("SET \"search_path\" TO ''"));
        assert_eq!(
            set_clause("app.x=it's, so", 180_000).as_deref(),
            Some("SET \"app\".\"x\" TO 'it''s, so'")
        );
        assert_eq!(set_clause("nonsense", 180_000), None);
    }
}
