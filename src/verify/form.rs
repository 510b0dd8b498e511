//! One form for statements that mean the same, though servers of two majors render them differently; pure.
//!
//! In: an item of either side's plan, and the majors. Out: the words of its statements, in a form that both majors share. Each
//! way in which majors differ is a rule of its own; between servers of one major only the order of what has none is evened out.

use super::locale;
use crate::ddl::Item;

/// The majors of source and target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Majors {
    pub(super) source: u32,
    pub(super) target: u32,
}

impl Majors {
    fn differ(self) -> bool {
        self.source != self.target
    }

    /// The source is older than `major` and the target is not.
    fn cross(self, major: u32) -> bool {
        (self.source < major) != (self.target < major)
    }
}

/// What an item is found by on the other side: a type's name may be a keyword of one major only, and so be quoted there.
pub(super) fn key(item: &Item, majors: Majors) -> String {
    let mut key = item.key();
    if majors.differ() {
        key = key.replace('"', "");
    }
    // The modes of a procedure's arguments are part of its name since 14.
    if majors.cross(14) && key.contains("PROCEDURE ") {
        key = key.replace("(IN ", "(").replace(", IN ", ", ");
    }
    key
}

/// Whether an item may be on one side only, without anyone having changed a thing.
pub(super) fn comes_with_the_major(item: &Item, majors: Majors) -> bool {
    let system = matches!(item.schema.as_deref(), Some("information_schema" | "pg_catalog"));
    majors.differ() && item.kind == "ACL" && system
}

/// Whether both items make the same.
pub(super) fn equal(source: &Item, target: &Item, majors: Majors) -> bool {
    form(source, majors) == form(target, majors)
}

fn form(item: &Item, majors: Majors) -> Vec<Vec<String>> {
    let statements = item.create.iter().chain(&item.decorate).map(|sql| statement(item.kind, sql, majors));
    statements.filter(|words| !words.is_empty()).collect()
}

fn statement(kind: &str, sql: &str, majors: Majors) -> Vec<String> {
    let mut words = words(sql);
    // Reading such an expression makes another one of it, within one major too.
    spread_array_casts(&mut words);
    if majors.cross(16) && kind == "COLLATION" {
        canonicalize_locale(&mut words);
    }
    if majors.cross(12) {
        replace(&mut words, &["EXECUTE", "PROCEDURE"], &["EXECUTE", "FUNCTION"]);
    }
    // Table access methods came with 12.
    if majors.cross(12) {
        replace(&mut words, &["USING", "heap"], &[]);
    }
    // Multirange types, and the modes of a procedure's arguments.
    if majors.cross(14) {
        drop_multirange(&mut words);
        if kind == "PROCEDURE" || words.iter().any(|word| word == "PROCEDURE") {
            words.retain(|word| word != "IN");
        }
    }
    // A view over a single relation is rendered without qualifying its columns.
    if majors.cross(16) && matches!(kind, "VIEW" | "MATERIALIZED VIEW" | "RULE") {
        words = unqualified(&words);
    }
    if majors.cross(16) && kind == "SUBSCRIPTION" {
        replace(&mut words, &[",", "run_as_owner", "=", "true"], &[]);
    }
    // The privilege MAINTAIN is one of ALL.
    if majors.cross(17) && kind == "ACL" {
        let all = ["DELETE", "INSERT", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"];
        replace(&mut words, &["ALL"], &all);
        words.retain(|word| word != "MAINTAIN");
        // An owner who had revoked everything from himself keeps that one.
        if words.starts_with(&["GRANT".to_owned(), "ON".to_owned()]) {
            return Vec::new();
        }
    }
    // NOT NULL is a constraint with a name.
    if majors.cross(18) {
        drop_not_null_names(&mut words);
    }
    if majors.differ() {
        words.retain(|word| !matches!(word.as_str(), "(" | ")"));
        drop_bit_marks(&mut words);
    }
    // Inherited columns come first on the target, whatever their order was. Options of foreign objects, and privileges, have none.
    let unordered =
        matches!(kind, "SERVER" | "USER MAPPING" | "FOREIGN DATA WRAPPER" | "FOREIGN TABLE" | "ACL")
            || kind == "TABLE" && words.iter().any(|word| word == "INHERITS")
            || kind == "DOMAIN" && majors.cross(17);
    if unordered {
        words.retain(|word| word != ",");
        words.sort_unstable();
    }
    words
}

/// Cuts a statement into words, quoted identifiers (without their quotes), literals and single characters.
fn words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql.chars().peekable();
    while let Some(first) = rest.next() {
        let mut word = String::new();
        if first == '"' || first == '\'' {
            if first == '\'' {
                word.push(first);
            }
            while let Some(c) = rest.next() {
                if c == first && rest.next_if_eq(&first).is_none() {
                    break;
                }
                word.push(c);
            }
        } else if is_part_of_word(first) {
            word.push(first);
            while let Some(c) = rest.next_if(|c| is_part_of_word(*c)) {
                word.push(c);
            }
        } else if !first.is_whitespace() {
            word.push(first);
        } else {
            continue;
        }
        words.push(word);
    }
    words
}

fn is_part_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Replaces every run of words that equals `from`.
fn replace(words: &mut Vec<String>, from: &[&str], to: &[&str]) {
    let mut at = 0;
    while at + from.len() <= words.len() {
        if words[at..at + from.len()].iter().zip(from).all(|(a, b)| a == b) {
            words.splice(at..at + from.len(), to.iter().map(|word| (*word).to_owned()));
            at += to.len();
        } else {
            at += 1;
        }
    }
}

/// Drops `multirange_type_name = …` with the comma behind or before it.
fn drop_multirange(words: &mut Vec<String>) {
    let Some(start) = words.iter().position(|word| word == "multirange_type_name") else { return };
    let length = words[start..].iter().take_while(|word| *word != "," && *word != ")").count();
    let end = start + length;
    if words.get(end).is_some_and(|word| word == ",") {
        words.drain(start..=end);
    } else {
        words.drain(start.saturating_sub(1)..end);
    }
}

/// Casts each element in place of an array that is made of them: `(ARRAY['a'::x, 'b'::x])::y[]`, as `IN` leaves it behind, becomes
/// `ARRAY[('a'::x)::y, ('b'::x)::y]`.
fn spread_array_casts(words: &mut Vec<String>) {
    let mut at = 0;
    while at + 3 <= words.len() {
        if words[at..].starts_with(&["(", "ARRAY", "["].map(str::to_owned))
            && let Some((length, spread)) = spread_array_cast(&words[at..])
        {
            words.splice(at..at + length, spread);
        }
        at += 1;
    }
}

/// Words that begin with `( ARRAY [`: how many of them are an array with a cast, and what they become.
fn spread_array_cast(words: &[String]) -> Option<(usize, Vec<String>)> {
    let word = |place: usize| words.get(place).map(String::as_str);
    let mut depth = 0;
    let mut ends = Vec::new();
    for (place, word) in words.iter().enumerate().skip(3) {
        match word.as_str() {
            "," if depth == 0 => ends.push(place),
            "(" | "[" => depth += 1,
            "]" if depth == 0 => {
                ends.push(place);
                break;
            }
            ")" | "]" => depth -= 1,
            _ => {}
        }
    }
    let close = *ends.last()?;
    let cast = close + 2;
    if [word(close + 1), word(cast), word(cast + 1)] != [Some(")"), Some(":"), Some(":")] {
        return None;
    }
    let named = |word: &String| word == "." || word.chars().all(is_part_of_word);
    let bracket = cast + 2 + words[cast + 2..].iter().take_while(|word| named(word)).count();
    if [word(bracket), word(bracket + 1)] != [Some("["), Some("]")] {
        return None;
    }
    let mut spread = vec!["ARRAY".to_owned(), "[".to_owned()];
    let mut begin = 3;
    for end in ends {
        spread.push("(".to_owned());
        spread.extend_from_slice(&words[begin..end]);
        spread.push(")".to_owned());
        spread.extend_from_slice(&words[cast..bracket]);
        spread.push(words[end].clone());
        begin = end + 1;
    }
    Some((bracket + 2, spread))
}

/// Brings the locale of an ICU collation into the form that 16 and newer store.
fn canonicalize_locale(words: &mut [String]) {
    if !words.windows(3).any(|three| three == ["provider", "=", "icu"]) {
        return;
    }
    if let Some(place) = words.windows(2).position(|two| two == ["locale", "="])
        && let Some(locale) = words.get_mut(place + 2)
    {
        *locale = locale::canonical(locale.trim_start_matches('\''));
    }
}

/// Drops what stands before a dot, with the dot.
fn unqualified(words: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(words.len());
    for word in words {
        if word == "." {
            kept.pop();
        } else {
            kept.push(word.clone());
        }
    }
    kept
}

/// Drops the `B` before a literal of bits, which not all majors write: the type follows anyway.
fn drop_bit_marks(words: &mut Vec<String>) {
    let mut at = 0;
    while at + 2 <= words.len() {
        if words[at] == "B" && words[at + 1].starts_with('\'') {
            words.remove(at);
        }
        at += 1;
    }
}

/// Drops `CONSTRAINT name` before `NOT NULL`, where the server may have made the name up.
fn drop_not_null_names(words: &mut Vec<String>) {
    let mut at = 0;
    while at + 4 <= words.len() {
        let made_up = words[at] == "CONSTRAINT"
            && words[at + 1].ends_with("_not_null")
            && words[at + 2] == "NOT"
            && words[at + 3] == "NULL";
        if made_up {
            words.drain(at..at + 2);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(kind: &str, source: (u32, &str), target: (u32, &str)) -> bool {
        let majors = Majors { source: source.0, target: target.0 };
        statement(kind, source.1, majors) == statement(kind, target.1, majors)
    }

    #[test]
    fn what_majors_render_differently_is_the_same() {
        for (kind, source, target) in [
            ("TRIGGER", (11, "… EXECUTE PROCEDURE f()"), (12, "… EXECUTE FUNCTION f()")),
            ("TABLE", (11, "CREATE TABLE t (a int)"), (12, "CREATE TABLE t (a int) USING \"heap\"")),
            (
                "TYPE",
                (13, "AS RANGE (subtype = a, x = y)"),
                (14, "AS RANGE (subtype = a, multirange_type_name = \"s\".\"m\", x = y)"),
            ),
            (
                "TYPE",
                (13, "AS RANGE (subtype = a)"),
                (14, "AS RANGE (subtype = a, multirange_type_name = \"m\")"),
            ),
            ("PROCEDURE", (13, "PROCEDURE p(a int)"), (14, "PROCEDURE p(IN a int)")),
            ("VIEW", (15, "SELECT t.a FROM s.t"), (16, "SELECT a FROM s.t")),
            (
                "COLLATION",
                (15, "(provider = icu, locale = 'de@collation=phonebook')"),
                (16, "(provider = icu, locale = 'de-u-co-phonebk')"),
            ),
            ("TABLE", (15, "b bit DEFAULT B'1'::bit"), (18, "b bit DEFAULT '1'::bit")),
            ("CAST", (15, "CAST (x AS \"json\")"), (18, "CAST (x AS json)")),
            (
                "ACL",
                (16, "GRANT DELETE, INSERT, REFERENCES, SELECT, TRIGGER, TRUNCATE, UPDATE ON t TO r"),
                (17, "GRANT ALL ON t TO r"),
            ),
            ("TABLE", (17, "a int NOT NULL"), (18, "a int CONSTRAINT t_a_not_null NOT NULL")),
        ] {
            assert!(same(kind, source, target), "{source:?} {target:?}");
        }
    }

    #[test]
    fn a_cast_of_an_array_is_one_of_its_elements() {
        let same = |a: &str, b: &str| same("CHECK", (15, a), (15, b));
        let once = r#"((s)::"text" = ANY ((ARRAY['a'::character varying, f(1, 2)])::"text"[])) AND x"#;
        let read_again =
            r#"((s)::"text" = ANY (ARRAY[('a'::character varying)::"text", (f(1, 2))::"text"])) AND x"#;
        assert!(same(once, read_again));
        assert!(!same(once, &read_again.replace("'a'", "'b'")));
        assert!(!same(once, &read_again.replace(r#")::"text","#, r#")::"name","#)));
        for other in ["(ARRAY[1, 2])", "(ARRAY[1, 2] || 3)::x[]", "(ARRAY[1", "(ARRAY[1])::x", "(ARRAY[1])::"]
        {
            assert_eq!(statement("CHECK", other, Majors { source: 15, target: 15 }), words(other));
        }
    }

    #[test]
    fn what_differs_in_meaning_is_not_the_same() {
        for (kind, source, target) in [
            ("COLLATION", "(provider = libc, locale = 'de_DE')", "(provider = libc, locale = 'de-DE')"),
            ("TABLE", "CREATE TABLE t (a int, b int)", "CREATE TABLE t (b int, a int)"),
            ("INDEX", "ON t (a, b)", "ON t (b, a)"),
            ("TABLE", "DEFAULT 'a  b'", "DEFAULT 'a b'"),
            ("TABLE", "a int CONSTRAINT mine NOT NULL", "a int NOT NULL"),
            ("VIEW", "SELECT a FROM t", "SELECT b FROM t"),
        ] {
            assert!(!same(kind, (10, source), (18, target)), "{source} {target}");
            assert!(!same(kind, (18, source), (18, target)), "{source} {target}");
        }
        assert!(!same("VIEW", (18, "SELECT a.x FROM t"), (18, "SELECT b.x FROM t")));
    }

    #[test]
    fn words_keep_what_is_quoted_together() {
        assert_eq!(words("a.\"b \"\"c\" = 'it''s'"), ["a", ".", "b \"c", "=", "'it's"]);
    }
}
