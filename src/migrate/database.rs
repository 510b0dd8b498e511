//! The target database itself: opened, or created like the source's when it isn't there.
//!
//! In: the target's connection parameters, a session of the source. Out: a session of the target database. What may fail: a role without
//! CREATEDB, a locale that the target's host doesn't have; the error holds the statement that would do, with the nearest locale.
//!
//! Owner, settings, comment, grants and connection limit come at the end of the migration, as items of the plan.

use crate::catalog::{cluster, database};
use crate::config::{Config, Side};
use crate::ddl::{self, database::create};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::schema::database::Properties;
use crate::sql::{ident, literal};
use crate::wire::{Connection, Settings};

/// Databases that every server has, from which another one can be created.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];

/// A session of the target: of its database, or of another one of the server where that doesn't exist.
#[derive(Debug)]
pub enum Opened {
    /// The database.
    There(Connection),
    /// The database does not exist; the session is in another one of the same server.
    Missing(Connection),
}

/// Opens the target database; where it doesn't exist and may be created, another database of its server.
///
/// # Errors
/// As [`Connection::connect`].
pub async fn open(config: &Config, may_create: bool) -> Result<Opened> {
    let settings = Settings::session();
    let missing = match Connection::connect(config, Side::Target, &settings).await {
        Ok(session) => return Ok(Opened::There(session)),
        Err(error) if may_create && is_missing(&error) => error,
        Err(error) => return Err(error),
    };
    for name in MAINTENANCE {
        let config = config.with_dbname(name);
        if let Ok(session) = Connection::connect(&config, Side::Target, &settings).await {
            return Ok(Opened::Missing(session));
        }
    }
    Err(missing)
}

/// Whether an error says that the database doesn't exist.
pub fn is_missing(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.as_str() == "3D000")
}

/// Creates the database `name` like the source's, from a session in another database, and opens it.
///
/// # Errors
/// See the module. Nothing is created then.
pub(super) async fn make(
    source: &mut Connection,
    maintenance: &mut Connection,
    config: &Config,
    options: &ddl::Options,
) -> Result<Connection> {
    let properties = properties(source).await?;
    let name = &config.dbname;
    let sql = create(&properties, name, options, maintenance.version());
    if let Err(error) = fault::step("database", maintenance.execute(&sql)).await {
        // Another run may have made it in between.
        let exists = error.sqlstate().is_some_and(|s| matches!(s.as_str(), "42P04" | "23505"));
        if !exists {
            return Err(explain(maintenance, &properties, config, error).await);
        }
    }
    Connection::connect(config, Side::Target, &Settings::session()).await
}

/// The properties of the session's database.
pub(super) async fn properties(source: &mut Connection) -> Result<Properties> {
    database::properties(source.version())
        .run(source)
        .await?
        .pop()
        .ok_or_else(|| Error::failed(format!("the database of the {} has been dropped", source.side())))
}

async fn explain(
    maintenance: &mut Connection,
    properties: &Properties,
    config: &Config,
    error: Error,
) -> Error {
    let name = ident(&config.dbname);
    let denied = error.sqlstate().is_some_and(|state| state.as_str() == "42501");
    let error = error
        .context(format!("could not create target database \"{}\"", config.dbname))
        .with_kind(ErrorKind::Blocked);
    if denied {
        return error.with_hint(format!(
            "Let the role create it: ALTER ROLE {} CREATEDB; or create it as another one.",
            ident(&config.user)
        ));
    }
    match unknown_locales(maintenance, properties).await {
        Ok(unknown) if !unknown.is_empty() => error.with_hint(without_locale(&name, properties, &unknown)),
        _ => error.with_hint(format!(
            "Create it with what the target has, CREATE DATABASE {name} TEMPLATE template0 …, then run the same command again."
        )),
    }
}

/// A locale of the source database that the target's host doesn't have, and the nearest one that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnknownLocale {
    /// The locale.
    pub(super) name: String,
    /// The one that comes nearest.
    pub(super) nearest: Option<String>,
}

/// The locales of the C library that the database needs and the session's server doesn't have.
pub(super) async fn unknown_locales(
    session: &mut Connection,
    properties: &Properties,
) -> Result<Vec<UnknownLocale>> {
    let known = cluster::locales(session).await?;
    let mut unknown: Vec<UnknownLocale> = Vec::new();
    for name in [&properties.collate, &properties.ctype].into_iter().flatten() {
        let seen = unknown.iter().any(|locale| locale.name == *name);
        if seen
            || known.iter().any(|k| normal(k) == normal(name))
            || cluster::has_locale(session, name).await?
        {
            continue;
        }
        unknown.push(UnknownLocale { name: name.clone(), nearest: nearest(name, &known) });
    }
    Ok(unknown)
}

/// What to do about locales that the target doesn't have: the statement that creates the database with the nearest ones.
pub(super) fn without_locale(name: &str, properties: &Properties, unknown: &[UnknownLocale]) -> String {
    let instead = |locale: &Option<String>| {
        let wanted = locale.as_deref().unwrap_or("C");
        match unknown.iter().find(|u| u.name == wanted) {
            Some(unknown) => literal(unknown.nearest.as_deref().unwrap_or("C")),
            None => literal(wanted),
        }
    };
    format!(
        "Install the locale on the target's host, or take the nearest that it has: CREATE DATABASE {name} TEMPLATE template0 \
         ENCODING {} LC_COLLATE {} LC_CTYPE {};",
        literal(&properties.encoding),
        instead(&properties.collate),
        instead(&properties.ctype)
    )
}

/// A locale's name without what hosts write differently: `en_US.utf8` is `en_US.UTF-8`.
fn normal(name: &str) -> String {
    let (place, modifier) = name.split_once('@').map_or((name, ""), |(place, modifier)| (place, modifier));
    let (place, charset) = place.split_once('.').map_or((place, ""), |(place, charset)| (place, charset));
    let charset: String = charset.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{place}.{}@{modifier}", charset.to_ascii_lowercase())
}

/// The known locale that sorts most like `name`: of the same language and country, then language, then character set.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    let parts = |name: &str| {
        let normal = normal(name);
        let (place, rest) = normal.split_once('.').map_or((normal.as_str(), ""), |parts| parts);
        let language = place.split('_').next().unwrap_or_default().to_owned();
        let charset = rest.split('@').next().unwrap_or_default().to_owned();
        (language, place.to_owned(), charset)
    };
    let wanted = parts(name);
    let score = |candidate: &String| {
        let (language, place, charset) = parts(candidate);
        let same = |a: &str, b: &str, points: u32| if a == b { points } else { 0 };
        same(&place, &wanted.1, 8)
            + same(&language, &wanted.0, 4)
            + same(&charset, &wanted.2, 2)
            // Where no language fits, plain bytes of the same character set.
            + u32::from(language == "C")
    };
    known
        .iter()
        .map(|candidate| (score(candidate), candidate))
        .max_by(|(a, first), (b, second)| a.cmp(b).then_with(|| second.cmp(first)))
        .filter(|(score, _)| *score > 0)
        .map(|(_, candidate)| candidate.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_locale_has_the_same_language_then_the_same_character_set() {
        let known = ["C", "C.UTF-8", "POSIX", "de_AT.utf8", "de_DE", "en_GB.utf8"].map(str::to_owned);
        let near = |name| nearest(name, &known);
        assert_eq!(near("de_CH.UTF-8").as_deref(), Some("de_AT.utf8"));
        assert_eq!(near("de_DE.UTF-8").as_deref(), Some("de_DE"));
        assert_eq!(near("en_US.UTF-8").as_deref(), Some("en_GB.utf8"));
        assert_eq!(near("ja_JP.UTF-8").as_deref(), Some("C.UTF-8"));
        assert_eq!(near("ja_JP.eucJP").as_deref(), Some("C"));
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn the_statement_takes_the_nearest_locale_only_for_the_one_that_is_missing() {
        let properties = Properties {
            encoding: "UTF8".to_owned(),
            collate: Some("xx_YY".to_owned()),
            ctype: Some("C.UTF-8".to_owned()),
            ..Properties::default()
        };
        let unknown = [UnknownLocale { name: "xx_YY".to_owned(), nearest: Some("C".to_owned()) }];
        let hint = without_locale("\"app\"", &properties, &unknown);
        assert!(
            hint.ends_with("CREATE DATABASE \"app\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8';"),
            "{hint}"
        );
    }

    #[test]
    fn spellings_of_a_locale_are_one() {
        assert_eq!(normal("en_US.utf8"), normal("en_US.UTF-8"));
        assert_ne!(normal("de_DE@euro"), normal("de_DE"));
        assert_ne!(normal("de_DE"), normal("de_AT"));
    }
}
