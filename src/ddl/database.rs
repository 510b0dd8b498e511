//! The database's own properties, and default privileges.

use super::note::security_label;
use super::privileges::{self, Privileges, Subject};
use super::setting::set_clause;
use super::{Context, Item, Options, Plan, Section};
use crate::schema::database::Properties;
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal};

/// The items of the database itself (where the options name the target database) and of default privileges.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    if let Some(name) = &context.options.database {
        add_database(context, plan, name);
    }
    if context.options.privileges {
        add_default_privileges(context, plan);
    }
}

/// The statement that creates a database with the properties that it must be created with; the others come at the end of a migration, as
/// items. A locale of a provider that the target's major doesn't have is left out.
pub fn create(properties: &Properties, name: &str, options: &Options, target_version: u32) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {}",
        ident(name),
        literal(&properties.encoding)
    );
    let mut clause = |word: &str, value: &Option<String>| {
        if let Some(value) = value {
            sql.push_str(&format!(" {word} {}", literal(value)));
        }
    };
    clause("LC_COLLATE", &properties.collate);
    clause("LC_CTYPE", &properties.ctype);
    match properties.locale_provider.as_str() {
        "i" if target_version >= 150_000 => {
            clause("LOCALE_PROVIDER", &Some("icu".to_owned()));
            clause("ICU_LOCALE", &properties.locale);
            if target_version >= 160_000 {
                clause("ICU_RULES", &properties.icu_rules);
            }
        }
        "b" if target_version >= 170_000 => {
            clause("LOCALE_PROVIDER", &Some("builtin".to_owned()));
            clause("BUILTIN_LOCALE", &properties.locale);
        }
        _ if target_version >= 150_000 => clause("LOCALE_PROVIDER", &Some("libc".to_owned())),
        _ => {}
    }
    if let Some(tablespace) = options.tablespace(&properties.tablespace).filter(|name| *name != "pg_default")
    {
        sql.push_str(&format!(" TABLESPACE {}", ident(tablespace)));
    }
    sql
}

fn add_database(context: &Context<'_>, plan: &mut Plan, name: &str) {
    let properties = &context.database.properties;
    let id = ObjectId::new(Class::Database, properties.oid);
    let database = ident(name);
    let mut item = Item::new(id, "DATABASE PROPERTIES", Section::Last, None, name);
    item.owner = Some(properties.owner.clone());
    if context.options.owners {
        item.decorate.push(format!("ALTER DATABASE {database} OWNER TO {}", ident(&properties.owner)));
    }
    if properties.connection_limit != -1 {
        item.decorate
            .push(format!("ALTER DATABASE {database} CONNECTION LIMIT {}", properties.connection_limit));
    }
    if properties.template {
        item.decorate.push(format!("ALTER DATABASE {database} IS_TEMPLATE true"));
    }
    if let Some(comment) = properties.comment.as_deref().filter(|_| context.options.comments) {
        item.decorate.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
    }
    if context.options.security_labels {
        let subject = format!("DATABASE {database}");
        item.decorate.extend(properties.labels.iter().map(|label| security_label(&subject, label)));
    }
    for setting in properties.settings.iter().filter_map(|s| set_clause(s, context.target_version)) {
        item.decorate.push(format!("ALTER DATABASE {database} {setting}"));
    }
    for role in &properties.role_settings {
        for setting in role.settings.iter().filter_map(|s| set_clause(s, context.target_version)) {
            item.decorate.push(format!("ALTER ROLE {} IN DATABASE {database} {setting}", ident(&role.role)));
        }
    }
    plan.items.push(item);
    let subject =
        Subject { id, kind: "DATABASE", schema: None, name, identity: &database, owner: &properties.owner };
    privileges::add(context, plan, subject, None, &properties.acl);
}

fn add_default_privileges(context: &Context<'_>, plan: &mut Plan) {
    for default in &context.database.default_privileges {
        let kind = match default.kind {
            'r' => "TABLES",
            'S' => "SEQUENCES",
            'f' => "FUNCTIONS",
            'T' => "TYPES",
            'n' => "SCHEMAS",
            'L' => "LARGE OBJECTS",
            other => {
                let name = format!("FOR ROLE {}", default.role);
                plan.leave("DEFAULT ACL", name, format!("its kind of object, \"{other}\", is not known"));
                continue;
            }
        };
        let mut prefix = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} ", ident(&default.role));
        if let Some(schema) = &default.schema {
            prefix.push_str(&format!("IN SCHEMA {} ", ident(schema)));
        }
        let id = ObjectId::new(Class::DefaultAcl, default.oid);
        let tag = format!("DEFAULT PRIVILEGES FOR {kind} {}", default.role);
        let mut item = Item::new(id, "DEFAULT ACL", Section::Privileges, default.schema.as_deref(), tag);
        item.owner = Some(default.role.clone());
        item.requires = default.schema.as_deref().and_then(|s| context.schema_id(s)).into_iter().collect();
        let privileges = Privileges::of(context, kind, None);
        item.create = privileges::statements(&privileges, kind, &prefix, &default.role, &default.acl);
        if !item.create.is_empty() {
            plan.items.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_created_with_the_locale_of_its_provider() {
        let text = |text: &str| Some(text.to_owned());
        let libc = Properties {
            encoding: "UTF8".to_owned(),
            locale_provider: "c".to_owned(),
            collate: text("C"),
            ctype: text("de_DE"),
            tablespace: "fast".to_owned(),
            ..Properties::default()
        };
        let start =
            "CREATE DATABASE \"a\"\"b\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'de_DE'";
        let left_out = Options { tablespaces: false, ..Options::default() };
        assert_eq!(
            create(&libc, "a\"b", &Options::default(), 140_000),
            format!("{start} TABLESPACE \"fast\"")
        );
        assert_eq!(create(&libc, "a\"b", &left_out, 150_000), format!("{start} LOCALE_PROVIDER 'libc'"));
        let icu = Properties {
            locale_provider: "i".to_owned(),
            locale: text("de-u-co-phonebk"),
            icu_rules: text("&a < g"),
            ..libc.clone()
        };
        assert_eq!(
            create(&icu, "a\"b", &left_out, 180_000),
            format!("{start} LOCALE_PROVIDER 'icu' ICU_LOCALE 'de-u-co-phonebk' ICU_RULES '&a < g'")
        );
        let builtin = Properties { locale_provider: "b".to_owned(), locale: text("C.UTF-8"), ..libc };
        assert_eq!(
            create(&builtin, "a\"b", &left_out, 180_000),
            format!("{start} LOCALE_PROVIDER 'builtin' BUILTIN_LOCALE 'C.UTF-8'")
        );
    }
}
