//! One form for the names that an ICU locale has; pure.
//!
//! Since 16 the server stores a BCP 47 language tag whatever it was given; before, the name as it was given, mostly one of ICU's own. In: either. Out: a form that both share,
//! for comparing alone (unicode.org: Unicode Locale Data Markup Language, "Key And Type Definitions").

use std::collections::BTreeMap;

/// Keywords of ICU, and the keys that they are in a tag.
const KEYS: &[(&str, &str)] = &[
    ("collation", "co"),
    ("colalternate", "ka"),
    ("colbackwards", "kb"),
    ("colcaselevel", "kc"),
    ("colcasefirst", "kf"),
    ("colhiraganaquaternary", "kh"),
    ("colnormalization", "kk"),
    ("colnumeric", "kn"),
    ("colreorder", "kr"),
    ("colstrength", "ks"),
    ("variabletop", "vt"),
];

/// Values of ICU, by the key, and those of a tag.
const VALUES: &[(&str, &str, &str)] = &[
    ("co", "dictionary", "dict"),
    ("co", "gb2312han", "gb2312"),
    ("co", "phonebook", "phonebk"),
    ("co", "traditional", "trad"),
    ("ka", "non-ignorable", "noignore"),
    ("ks", "primary", "level1"),
    ("ks", "secondary", "level2"),
    ("ks", "tertiary", "level3"),
    ("ks", "quaternary", "level4"),
    ("ks", "quarternary", "level4"),
    ("ks", "identical", "identic"),
];

/// The form of a locale's name.
pub(super) fn canonical(locale: &str) -> String {
    let locale = locale.to_lowercase();
    let (base, keywords) = locale.split_once('@').unwrap_or((&locale, ""));
    let base = base.replace('_', "-");
    let (language, extension) = base.split_once("-u-").unwrap_or((&base, ""));
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    let mut key = String::new();
    for part in extension.split('-').filter(|part| !part.is_empty()) {
        if part.len() == 2 {
            part.clone_into(&mut key);
            keys.entry(key.clone()).or_default();
        } else {
            let value = keys.entry(key.clone()).or_default();
            *value = [value.as_str(), part].join("-");
        }
    }
    for (keyword, value) in keywords.split(';').filter_map(|pair| pair.split_once('=')) {
        let (keyword, value) = (keyword.trim(), value.trim().replace('_', "-"));
        let key = KEYS.iter().find(|(name, _)| *name == keyword).map_or(keyword, |(_, key)| key);
        keys.insert(key.to_owned(), value);
    }
    let language = match language.strip_suffix("-posix") {
        Some(language) => {
            keys.insert("va".to_owned(), "posix".to_owned());
            language
        }
        None => language,
    };
    let mut canonical = if matches!(language, "" | "root") { "und" } else { language }.to_owned();
    for (key, value) in keys {
        let value = value.trim_start_matches('-');
        let short =
            VALUES.iter().find(|(of, name, _)| *of == key && *name == value).map(|(_, _, short)| *short);
        canonical += &match short.unwrap_or(value) {
            // It is what a key without a value says.
            "" | "true" | "yes" => format!(" {key}"),
            "no" => format!(" {key}=false"),
            value => format!(" {key}={value}"),
        };
    }
    canonical
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn names_of_icu_and_tags_of_one_locale_have_one_form() {
        for (name, tag) in [
            ("de@collation=phonebook", "de-u-co-phonebk"),
            ("en_US", "en-US"),
            ("", "und"),
            ("root", "und"),
            ("und@colStrength=primary;colNumeric=yes", "und-u-kn-true-ks-level1"),
            ("en-u-ks-level2-kn", "en-u-kn-ks-level2"),
            (
                "zh_Hant_TW@collation=stroke;colCaseFirst=upper;colAlternate=shifted",
                "zh-Hant-TW-u-co-stroke-ka-shifted-kf-upper",
            ),
            ("en_US_POSIX", "en-US-u-va-posix"),
            ("el@colReorder=Grek-digit", "el-u-kr-grek-digit"),
        ] {
            assert_eq!(canonical(name), canonical(tag), "{name} {tag}");
        }
    }

    #[test]
    fn other_locales_have_other_forms() {
        for (one, other) in
            [("de", "de-u-co-phonebk"), ("en_US", "en_GB"), ("en-u-kn-true", "en-u-kn-false"), ("und", "en")]
        {
            assert_ne!(canonical(one), canonical(other));
        }
    }
}
