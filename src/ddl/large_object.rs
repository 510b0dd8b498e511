//! Owner, comment, security labels and privileges of a large object that is there already.

use super::Options;
use super::note::security_label;
use super::privileges::{self, Privileges};
use crate::schema::large_object::LargeObject;
use crate::sql::{ident, literal};

/// The statements that give the object what it has on the source. A new object belongs to `creator`.
pub fn statements(object: &LargeObject, options: &Options, creator: &str) -> Vec<String> {
    let name = format!("LARGE OBJECT {}", object.oid);
    let mut statements = Vec::new();
    if options.owners && object.owner != creator {
        statements.push(format!("ALTER {name} OWNER TO {}", ident(&object.owner)));
    }
    if let Some(comment) = object.comment.as_deref().filter(|_| options.comments) {
        statements.push(format!("COMMENT ON {name} IS {}", literal(comment)));
    }
    if options.security_labels {
        statements.extend(object.labels.iter().map(|label| security_label(&name, label)));
    }
    if options.privileges {
        // Every server has the same two privileges of large objects.
        let privileges = Privileges::of_large_objects();
        statements.extend(privileges::statements(&privileges, &name, "", &object.owner, &object.acl));
    }
    statements
}
