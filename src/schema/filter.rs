//! pg_dump's filter files: patterns of what is copied, one a line.
//!
//! In: the text of a file in the format that pg_dump reads from version 17 on: `include table sales.*`, `exclude schema "My tests"`, `#` for
//! comments. Out: the patterns, added to a [`Selection`]. What may fail: a line that doesn't read so; it is named. After
//! src/bin/pg_dump/filter.c.

use super::selection::Selection;
use crate::error::{Error, Result};

/// Adds what the filter file `name` with this text says to `selection`.
///
/// # Errors
/// A usage error that names the file and the line.
pub fn add(selection: &mut Selection, name: &str, text: &str) -> Result<()> {
    let mut reader = Reader { rest: text, line: 1 };
    while let Some(entry) = reader.entry().map_err(|what| invalid(name, reader.line, &what))? {
        put(selection, entry).map_err(|what| invalid(name, reader.line, &what))?;
        reader.next_line();
    }
    Ok(())
}

fn invalid(name: &str, line: usize, what: &str) -> Error {
    Error::usage(format!("invalid format in filter read from file \"{name}\" on line {line}: {what}"))
}

struct Entry<'a> {
    include: bool,
    object: &'a str,
    pattern: String,
}

fn put(selection: &mut Selection, entry: Entry<'_>) -> Result<(), String> {
    let list = match (entry.object, entry.include) {
        ("schema", true) => &mut selection.schemas,
        ("schema", false) => &mut selection.exclude_schemas,
        ("table", true) => &mut selection.tables,
        ("table", false) => &mut selection.exclude_tables,
        ("table_and_children", true) => &mut selection.tables_and_children,
        ("table_and_children", false) => &mut selection.exclude_tables_and_children,
        ("table_data", false) => &mut selection.exclude_table_data,
        ("table_data_and_children", false) => &mut selection.exclude_table_data_and_children,
        ("extension", true) => &mut selection.extensions,
        ("extension", false) => &mut selection.exclude_extensions,
        ("table_data" | "table_data_and_children", true) => {
            return Err(format!("include filter for \"{}\" is not allowed", entry.object));
        }
        ("foreign_data", _) => {
            return Err("rows of foreign tables are not copied: they stay on their server".to_owned());
        }
        (other, _) => return Err(format!("unsupported filter object type: \"{other}\"")),
    };
    list.push(entry.pattern);
    Ok(())
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    /// The next line that says something; `None` at the end.
    fn entry(&mut self) -> Result<Option<Entry<'a>>, String> {
        loop {
            self.skip_spaces();
            match self.rest.chars().next() {
                None => return Ok(None),
                Some('\n' | '#') => self.next_line(),
                Some(_) => break,
            }
        }
        let include = match self.keyword() {
            "include" => true,
            "exclude" => false,
            _ => return Err("invalid filter command (expected \"include\" or \"exclude\")".to_owned()),
        };
        self.skip_spaces();
        let object = self.keyword();
        if object.is_empty() {
            return Err("missing filter object type".to_owned());
        }
        let pattern = self.pattern()?;
        Ok(Some(Entry { include, object, pattern }))
    }

    fn keyword(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_ascii_alphabetic() && c != '_').unwrap_or(self.rest.len());
        let (keyword, rest) = self.rest.split_at(end);
        self.rest = rest;
        keyword
    }

    /// The rest of the line; spaces around dots, commas and parentheses don't count, others as one.
    fn pattern(&mut self) -> Result<String, String> {
        self.skip_spaces();
        let mut pattern = String::new();
        let (mut skip_space, mut found_space) = (true, false);
        while let Some(character) = self.rest.chars().next().filter(|c| !matches!(c, '#' | '\n')) {
            match character {
                '"' => {
                    if found_space && !skip_space {
                        pattern.push(' ');
                    }
                    self.quoted(&mut pattern)?;
                    skip_space = false;
                }
                ',' | '.' | '(' | ')' => {
                    self.rest = &self.rest[1..];
                    pattern.push(character);
                    if character == ',' {
                        pattern.push(' ');
                    }
                    skip_space = true;
                }
                _ => {
                    if found_space && !skip_space {
                        pattern.push(' ');
                    }
                    let end = self.rest.find(|c: char| c.is_whitespace() || "#,.()\"".contains(c));
                    let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                    pattern.push_str(word);
                    self.rest = rest;
                    skip_space = false;
                }
            }
            found_space = self.skip_spaces();
        }
        if pattern.is_empty() { Err("missing object name pattern".to_owned()) } else { Ok(pattern) }
    }

    /// A quoted name, quotes included; it may go over several lines.
    fn quoted(&mut self, pattern: &mut String) -> Result<(), String> {
        let mut characters = self.rest.char_indices().skip(1).peekable();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' if characters.peek().is_some_and(|(_, next)| *next == '"') => {
                    characters.next();
                }
                '"' => {
                    let (name, rest) = self.rest.split_at(at + 1);
                    pattern.push_str(name);
                    self.rest = rest;
                    return Ok(());
                }
                '\n' => self.line += 1,
                _ => {}
            }
        }
        Err("unexpected end of file".to_owned())
    }

    fn skip_spaces(&mut self) -> bool {
        let trimmed = self.rest.trim_start_matches(|c: char| c.is_whitespace() && c != '\n');
        let found = trimmed.len() < self.rest.len();
        self.rest = trimmed;
        found
    }

    fn next_line(&mut self) {
        self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest);
        self.line += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Selection> {
        let mut selection = Selection::default();
        add(&mut selection, "f", text).map(|()| selection)
    }

    #[test]
    fn every_kind_of_line_is_read() {
        let selection = read(
            "# what we need\n\n  include  schema  app # and no more\r\nexclude schema \"My tests\"\ninclude table app . film*\n\
             include table_and_children \"a\"\".b\".c\nexclude table t\nexclude table_and_children p\nexclude table_data log\n\
             exclude table_data_and_children log2\ninclude extension hstore\nexclude extension postgis",
        )
        .unwrap();
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            selection,
            Selection {
                schemas: list(&["app"]),
                exclude_schemas: list(&["\"My tests\""]),
                tables: list(&["app.film*"]),
                tables_and_children: list(&["\"a\"\".b\".c"]),
                exclude_tables: list(&["t"]),
                exclude_tables_and_children: list(&["p"]),
                exclude_table_data: list(&["log"]),
                exclude_table_data_and_children: list(&["log2"]),
                extensions: list(&["hstore"]),
                exclude_extensions: list(&["postgis"]),
                ..Selection::default()
            }
        );
    }

    #[test]
    fn a_quoted_name_may_go_over_lines() {
        let selection = read("include table \"two\nlines\"\ninclude table x").unwrap();
        assert_eq!(selection.tables, ["\"two\nlines\"", "x"]);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        for (text, line, what) in [
            ("\ntake table x", 2, "invalid filter command"),
            ("include", 1, "missing filter object type"),
            ("include table # x", 1, "missing object name pattern"),
            ("include index x", 1, "unsupported filter object type: \"index\""),
            ("include table_data x", 1, "include filter for \"table_data\" is not allowed"),
            ("include foreign_data x", 1, "rows of foreign tables are not copied"),
            ("include table \"x", 1, "unexpected end of file"),
        ] {
            let error = read(text).unwrap_err().to_string();
            let expected = format!("invalid format in filter read from file \"f\" on line {line}: {what}");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
