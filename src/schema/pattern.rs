//! The name patterns of psql, pg_dump and pg_dumpall, as regular expressions of PostgreSQL.
//!
//! In: a pattern as it is typed: `sales.*`, `"Mixed Case"`, `app.public.t?`. Out: a regular expression for each of its parts, to be matched
//! by a server. What may fail: a pattern of more parts than its kind of object has. After `patternToSQLRegex` of
//! src/fe_utils/string_utils.c, so that each pattern means what it means to pg_dump and psql.

use crate::error::{Error, Result};

/// A pattern, each part as an anchored regular expression; a part that the pattern doesn't have is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pattern {
    /// The database, literally.
    pub database: Option<String>,
    /// The schema.
    pub schema: Option<String>,
    /// The object.
    pub name: String,
}

/// How many parts a name of an object can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// An extension.
    Name,
    /// A schema: `database.schema`.
    DatabaseAndName,
    /// A relation: `database.schema.name`.
    All,
}

impl Parts {
    fn most(self) -> usize {
        match self {
            Parts::Name => 1,
            Parts::DatabaseAndName => 2,
            Parts::All => 3,
        }
    }
}

/// One part while it is read.
#[derive(Default)]
struct Part {
    regex: String,
    /// What is written, without quotes: databases are not matched but compared.
    literal: String,
}

impl Pattern {
    /// Reads a pattern for names of this many parts.
    ///
    /// # Errors
    /// A usage error for a name of too many parts.
    pub fn parse(text: &str, parts: Parts) -> Result<Pattern> {
        let mut read = split(text);
        if read.len() > parts.most() {
            return Err(Error::usage(format!("improper qualified name (too many dotted names): {text}")));
        }
        let name = read.pop().map_or_else(String::new, |part| anchored(&part));
        let schema = (parts == Parts::All).then(|| read.pop()).flatten().map(|part| anchored(&part));
        let database = read.pop().map(|part| part.literal);
        Ok(Pattern { database, schema, name })
    }
}

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

/// The regular expression of each part of a pattern whose parts are separated by dots, however many there are.
///
/// Outside of double quotes letters are folded to lower case, `*` is any text, `?` any character, and other characters of regular expressions
/// keep their meaning; in double quotes everything stands for itself.
pub fn regular_expressions(pattern: &str) -> Vec<String> {
    split(pattern).iter().map(anchored).collect()
}

fn anchored(part: &Part) -> String {
    format!("^({})$", part.regex)
}

fn split(text: &str) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let Some(part) = parts.last_mut() else { break };
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.regex.push('"');
                part.literal.push('"');
                continue;
            }
            '"' => {
                quoted = !quoted;
                continue;
            }
            '.' if !quoted => {
                parts.push(Part::default());
                continue;
            }
            '*' if !quoted => part.regex.push_str(".*"),
            '?' if !quoted => part.regex.push('.'),
            '$' => part.regex.push_str("\\$"),
            // Outside quotes regular expressions may be written out; `[]` is rather an array's name.
            '|' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '.' | '^' | '\\' if quoted => {
                part.regex.push('\\');
                part.regex.push(character);
            }
            '[' if characters.peek() == Some(&']') => part.regex.push_str("\\["),
            _ if !quoted => part.regex.push(character.to_ascii_lowercase()),
            _ => part.regex.push(character),
        }
        part.literal.push(if quoted { character } else { character.to_ascii_lowercase() });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> (Option<String>, Option<String>, String) {
        let pattern = Pattern::parse(text, Parts::All).unwrap();
        (pattern.database, pattern.schema, pattern.name)
    }

    #[test]
    fn patterns_mean_what_they_mean_to_pg_dump() {
        let name = |text: &str| all(text).2;
        assert_eq!(name("Film*"), "^(film.*)$");
        assert_eq!(name(r#""Film*"?"#), r"^(Film\*.)$");
        assert_eq!(name(r#""a""b.c""#), r#"^(a"b\.c)$"#);
        assert_eq!(name("a$b[]"), r"^(a\$b\[])$");
        assert_eq!(name("t[0-9]|u"), "^(t[0-9]|u)$");
        assert_eq!(name("ÄÖ"), "^(ÄÖ)$");
    }

    #[test]
    fn dots_outside_quotes_part_names() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(all("S.T"), (None, some("^(s)$"), "^(t)$".to_owned()));
        assert_eq!(all(r#""My DB".*.t"#), (some("My DB"), some("^(.*)$"), "^(t)$".to_owned()));
        let schema = Pattern::parse("Db.s*", Parts::DatabaseAndName).unwrap();
        assert_eq!((schema.database, schema.schema, schema.name), (some("db"), None, "^(s.*)$".to_owned()));
    }

    #[test]
    fn a_name_of_too_many_parts_is_refused() {
        for (text, parts) in
            [("a.b.c.d", Parts::All), ("a.b.c", Parts::DatabaseAndName), ("a.b", Parts::Name)]
        {
            let error = Pattern::parse(text, parts).unwrap_err();
            assert_eq!(error.to_string(), format!("improper qualified name (too many dotted names): {text}"));
        }
    }

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
