//! psql's patterns of names, as pg_dump and pg_dumpall take them: `app*`, `"Odd name"`, `sales_?`.
//!
//! In: what the operator typed. Out: regular expressions for the server's `~`, so that names are matched by the rules of the
//! server that holds them. Nothing here fails; a regular expression that the server refuses is the server's error.

/// Splits a comma list; commas in double quotes belong to names. Empty entries are left out.
pub fn split_list(text: &str) -> Vec<String> {
    let mut entries = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        quoted ^= c == '"';
        match entries.last_mut() {
            _ if c == ',' && !quoted => entries.push(String::new()),
            Some(entry) => entry.push(c),
            None => {}
        }
    }
    entries.into_iter().map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
}

/// The regular expression of each part of a pattern whose parts are separated by dots.
///
/// As psql does it (`patternToSQLRegex`): outside of double quotes letters are folded to lower case, `*` is any text, `?` any character,
/// and other characters of regular expressions keep their meaning; in double quotes everything stands for itself.
pub fn regular_expressions(pattern: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            '*' if !quoted => part.push_str(".*"),
            '?' if !quoted => part.push('.'),
            '$' => part.push_str("\\$"),
            _ if quoted && "|*+?()[]{}.^\\".contains(c) => part.extend(['\\', c]),
            _ if quoted => part.push(c),
            _ => part.push(c.to_ascii_lowercase()),
        }
    }
    parts.into_iter().map(|part| format!("^({part})$")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_commas_in_quotes() {
        assert_eq!(split_list("a, b*,\"c,d\",,"), ["a", "b*", "\"c,d\""]);
        assert!(split_list("").is_empty());
    }

    #[test]
    fn patterns_are_psqls() {
        assert_eq!(regular_expressions("App*"), ["^(app.*)$"]);
        assert_eq!(regular_expressions(r#""App*".t?"#), [r"^(App\*)$", "^(t.)$"]);
        assert_eq!(regular_expressions(r#"a""b"#), ["^(ab)$"]);
        assert_eq!(regular_expressions(r#""a""b$""#), [r#"^(a"b\$)$"#]);
        assert_eq!(regular_expressions("(a|b)[0-9]"), ["^((a|b)[0-9])$"]);
    }
}
