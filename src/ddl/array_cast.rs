//! Keeps what a server would change of an expression by reading it.
//!
//! In: the plan, in statements that the source's server rendered. Out: the same, but that `IN` over values of `varchar` arrives as it is. It is rendered as
//! `(v)::text = ANY ((ARRAY['a'::character varying, …])::text[])`; the server that reads this casts each element in place of the array, and would render
//! another text for ever after. Without the cast, which the comparison implies, it reads what the source has. Pure.

use super::Plan;

/// Kinds of items whose statements hold expressions, and no text of another language.
const KINDS: &[&str] = &[
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "DEFAULT",
    "DOMAIN",
    "INDEX",
    "POLICY",
    "PUBLICATION",
    "STATISTICS",
    "TABLE",
    "TRIGGER",
];

/// Kinds that hold whole queries, which 16 renders in another way: between majors on both sides of it they come as pg_dump brings them.
const QUERIES: &[&str] = &["MATERIALIZED VIEW", "RULE", "VIEW"];

const TYPE: &str = "::character varying";

/// Rewrites the statements of a plan that is to be carried out on a server of `target_version`. One that is only compared with another plan stays as the
/// servers rendered it.
pub fn keep_array_casts(plan: &mut Plan, source_version: u32, target_version: u32) {
    let queries = (source_version < 160_000) == (target_version < 160_000);
    let holds = |kind: &&str| KINDS.contains(kind) || queries && QUERIES.contains(kind);
    for item in plan.items.iter_mut().filter(|item| holds(&item.kind)) {
        for statement in item.create.iter_mut().chain(&mut item.decorate) {
            if statement.contains(" ((ARRAY[") {
                *statement = rewritten(statement);
            }
        }
    }
}

fn rewritten(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find(['\'', '"', '(']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = match (quoted(from), follows_comparison(&out).then(|| array(from)).flatten()) {
            (Some(end), _) => {
                out.push_str(&from[..end]);
                end
            }
            (None, Some(Array { elements, end })) => {
                out.push_str(&format!("(ARRAY[{elements}])"));
                end
            }
            (None, None) => {
                out.push('(');
                1
            }
        };
        rest = &from[end..];
    }
    out + rest
}

/// Where a literal or a quoted identifier at the beginning of `text` ends; doubled quotes begin it anew.
fn quoted(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    Some(text[1..].find(quote).map_or(text.len(), |end| end + 2))
}

/// Whether a text is compared with what comes next by an operator whose meaning the array's type doesn't change.
fn follows_comparison(before: &str) -> bool {
    ["::\"text\" = ANY ", "::\"text\" <> ALL "].iter().any(|end| before.ends_with(end))
}

/// An array with a cast.
struct Array<'a> {
    elements: &'a str,
    /// Where it ends.
    end: usize,
}

/// `((ARRAY[…])::"text"[])` over literals of varchar at the beginning of `text`.
fn array(text: &str) -> Option<Array<'_>> {
    const OPEN: &str = "((ARRAY[";
    const CLOSE: &str = "])::\"text\"[])";
    let mut at = text.starts_with(OPEN).then_some(OPEN.len())?;
    loop {
        at += element(&text[at..])?;
        let rest = &text[at..];
        if let Some(more) = rest.strip_prefix(", ") {
            at = text.len() - more.len();
        } else if rest.starts_with(CLOSE) {
            return Some(Array { elements: &text[OPEN.len()..at], end: at + CLOSE.len() });
        } else {
            return None;
        }
    }
}

/// The length of a literal of varchar at the beginning of `text`.
fn element(text: &str) -> Option<usize> {
    let mut at = if text.starts_with("E'") { 1 } else { 0 };
    if !text[at..].starts_with('\'') {
        return None;
    }
    while text[at..].starts_with('\'') {
        at += quoted(&text[at..])?;
    }
    text[at..].starts_with(TYPE).then_some(at + TYPE.len())
}

#[cfg(test)]
mod tests {
    use super::rewritten;

    #[test]
    fn the_cast_of_an_array_of_varchar_goes_where_a_text_is_compared_with_it() {
        for (rendered, kept) in [
            (
                r#"CHECK ((("s")::"text" = ANY ((ARRAY['a'::character varying, 'it''s, ])'::character varying])::"text"[])))"#,
                r#"CHECK ((("s")::"text" = ANY (ARRAY['a'::character varying, 'it''s, ])'::character varying])))"#,
            ),
            (
                r#"(("a")::"text" <> ALL ((ARRAY[E'\\x'::character varying])::"text"[])) AND (("b")::"text" = ANY ((ARRAY[''::character varying])::"text"[]))"#,
                r#"(("a")::"text" <> ALL (ARRAY[E'\\x'::character varying])) AND (("b")::"text" = ANY (ARRAY[''::character varying]))"#,
            ),
        ] {
            assert_eq!(rewritten(rendered), kept);
            assert_eq!(rewritten(kept), kept);
        }
    }

    #[test]
    fn what_else_looks_alike_stays() {
        for sql in [
            // Another type may choose another operator.
            r#"("s")::"public"."citext" = ANY ((ARRAY['a'::character varying])::"public"."citext"[])"#,
            r#"("s")::"text" ~~ ANY ((ARRAY['a'::character varying])::"text"[])"#,
            r#"("s")::"text" = ANY ((ARRAY["a", 'b'::character varying])::"text"[])"#,
            r#"("s")::"text" = ANY ((ARRAY['a'::character varying, 'b'::"bpchar"])::"text"[])"#,
            r#"("s")::"text" = ANY ((ARRAY['a'::character varying])::"text"[] || 'x')"#,
            r#"'("s")::"text" = ANY ((ARRAY[''a''::character varying])::"text"[])' = "x""#,
            r#"DEFAULT '::"text" = ANY ' || ((ARRAY['a'::character varying])::"text"[])[1]"#,
            r#"("s")::"text" = ANY ((ARRAY['a'"#,
        ] {
            assert_eq!(rewritten(sql), sql);
        }
    }
}
