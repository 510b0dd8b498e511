//! Holds what the program prints with `--json` against the schema that it publishes. The part of JSON Schema that the schema is written in is
//! read here; a keyword that isn't known is refused, so that none is passed over.

use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

/// The published schema.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/output.schema.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    })
}

/// Panics unless `value` is what the definition of that name says.
#[track_caller]
pub(crate) fn assert_fits(definition: &str, value: &Value) {
    if let Err(why) = fits(definition, value) {
        panic!("this is not what the JSON schema says of {definition}: {why}\n{value:#}");
    }
}

/// Why a value is not what the definition of that name says.
pub(crate) fn fits(definition: &str, value: &Value) -> Result<(), String> {
    let schema = &document()["$defs"][definition];
    assert!(schema.is_object(), "output.schema.json defines no {definition}");
    check(schema, value, "it")
}

fn check(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let rules = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in rules {
        let fits = match keyword.as_str() {
            "description" | "title" => true,
            "$ref" => {
                let name =
                    rule.as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a definition");
                fits(name, value).map_err(|why| format!("{place}: {why}"))?;
                true
            }
            "anyOf" => {
                let all = rule.as_array().expect("a list of schemas");
                let refused: Vec<String> =
                    all.iter().filter_map(|one| check(one, value, place).err()).collect();
                if refused.len() == all.len() {
                    return Err(refused.join("; or "));
                }
                true
            }
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list of values").contains(value),
            "minimum" => value.is_null() || value.as_f64() >= rule.as_f64(),
            "maximum" => value.is_null() || value.as_f64() <= rule.as_f64(),
            "pattern" => match rule.as_str() {
                Some("^[0-9A-F]+/[0-9A-F]+$") => value.as_str().is_some_and(is_lsn),
                other => panic!("no test knows the pattern {other:?}"),
            },
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(rule, item, &format!("{place}[{index}]"))?;
                }
                true
            }
            "properties" => {
                for (key, schema) in rule.as_object().expect("an object of schemas") {
                    value.get(key).map_or(Ok(()), |one| check(schema, one, &format!("{place}.{key}")))?;
                }
                true
            }
            "required" => {
                let mut keys = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
                if let Some(key) = keys.find(|key| value.get(key).is_none()) {
                    return Err(format!("{place} has no {key}"));
                }
                true
            }
            "additionalProperties" => {
                assert_eq!(*rule, Value::Bool(false));
                for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
                    if rules["properties"].get(key).is_none() {
                        return Err(format!("{place}.{key} is not known"));
                    }
                }
                true
            }
            other => panic!("output.schema.json uses {other}, which no test reads"),
        };
        if !fits {
            return Err(format!("{place} is {value}, against {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().expect("a type is a name") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("{other} is no type"),
    }
}

fn is_lsn(text: &str) -> bool {
    let hexadecimal =
        |half: &str| !half.is_empty() && half.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    text.split_once('/').is_some_and(|(high, low)| hexadecimal(high) && hexadecimal(low))
}
