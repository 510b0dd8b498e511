//! Sequences. One behind an identity column is made by ALTER TABLE … ADD GENERATED; an owned one is given to its column once both exist.

use super::relation::name;
use super::{Context, Item, Section};
use crate::schema::sequence::{OwningColumn, Sequence};
use crate::schema::table::Persistence;
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, qualified};

/// All sequences, without those that extensions make.
pub fn items(context: &Context<'_>) -> Vec<Item> {
    let mut items = Vec::new();
    for sequence in context.database.sequences.iter().filter(|s| !s.configuration) {
        match sequence.identity() {
            Some((column, kind)) => items.push(identity(context, sequence, column, kind)),
            None => items.push(plain(context, sequence)),
        }
        items.extend(
            sequence.owned_by.as_ref().filter(|o| o.identity.is_none()).map(|o| owned_by(sequence, o)),
        );
    }
    items
}

fn plain(context: &Context<'_>, sequence: &Sequence) -> Item {
    let subject = qualified(&sequence.schema, &sequence.name);
    let unlogged = if sequence.persistence == Persistence::Unlogged { "UNLOGGED " } else { "" };
    let as_type = match sequence.type_name.as_str() {
        "bigint" => String::new(),
        other => format!("\n    AS {other}"),
    };
    let mut item =
        Item::new(sequence.id(), "SEQUENCE", Section::PreData, Some(&sequence.schema), &sequence.name);
    item.create.push(format!("CREATE {unlogged}SEQUENCE {subject}{as_type}{}", options(sequence)));
    item.owned(context, &format!("SEQUENCE {subject}"), &sequence.owner)
}

fn identity(context: &Context<'_>, sequence: &Sequence, column: &OwningColumn, kind: char) -> Item {
    let subject = qualified(&sequence.schema, &sequence.name);
    let mut item =
        Item::new(sequence.id(), "SEQUENCE", Section::PreData, Some(&sequence.schema), &sequence.name);
    item.owner = Some(sequence.owner.clone());
    item.requires.push(ObjectId::new(Class::Relation, column.table.oid));
    item.create.push(format!(
        "ALTER {}TABLE {} ALTER COLUMN {} ADD GENERATED {} AS IDENTITY (\n    SEQUENCE NAME {subject}{}\n)",
        if column.foreign { "FOREIGN " } else { "" },
        name(&column.table),
        ident(&column.column),
        if kind == 'a' { "ALWAYS" } else { "BY DEFAULT" },
        options(sequence)
    ));
    // Servers before 15 have no unlogged sequences, not even for unlogged tables.
    if sequence.persistence != column.persistence && context.target_version >= 150_000 {
        let logged = if sequence.persistence == Persistence::Unlogged { "UNLOGGED" } else { "LOGGED" };
        item.create.push(format!("ALTER SEQUENCE {subject} SET {logged}"));
    }
    item
}

fn owned_by(sequence: &Sequence, owner: &OwningColumn) -> Item {
    let id = ObjectId::new(Class::Attachment, sequence.oid);
    let mut item =
        Item::new(id, "SEQUENCE OWNED BY", Section::PreData, Some(&sequence.schema), &sequence.name);
    item.owner = Some(sequence.owner.clone());
    item.requires.extend([sequence.id(), ObjectId::new(Class::Relation, owner.table.oid)]);
    item.create.push(format!(
        "ALTER SEQUENCE {} OWNED BY {}.{}",
        qualified(&sequence.schema, &sequence.name),
        name(&owner.table),
        ident(&owner.column)
    ));
    item
}

/// The options that CREATE SEQUENCE and identity columns share, one a line.
fn options(sequence: &Sequence) -> String {
    format!(
        "\n    START WITH {}\n    INCREMENT BY {}\n    MINVALUE {}\n    MAXVALUE {}\n    CACHE {}{}",
        sequence.start,
        sequence.increment,
        sequence.minimum,
        sequence.maximum,
        sequence.cache,
        if sequence.cycle { "\n    CYCLE" } else { "" }
    )
}
