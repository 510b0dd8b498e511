//! Hangs comments and security labels on the items of the objects they belong to.

use super::order::Index;
use super::{Context, Item, Plan, Section};
use crate::schema::note::Label;
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal};

/// Adds comments and security labels to the items' decorations, and what has no item to `not_copied`.
pub fn attach(context: &Context<'_>, plan: &mut Plan) {
    let index = Index::new(context.database, &plan.items);
    let (mut lost, mut inherited) = (Vec::new(), Vec::new());
    if context.options.comments {
        for comment in &context.database.comments {
            let statement = format!("COMMENT ON {} IS {}", comment.subject, literal(&comment.text));
            match index.item(comment.id) {
                _ if is_standard(&comment.subject, &comment.text) => {}
                Some(item) => plan.items[item].decorate.push(statement),
                None if is_left_out(context, comment.id) => {}
                None if comes_with_parent(comment.id) => {
                    let name = &comment.subject;
                    let mut item = Item::new(comment.id, "COMMENT", Section::Privileges, None, name);
                    item.create.push(statement);
                    inherited.push(item);
                }
                None => lost.push(("COMMENT", comment.subject.clone())),
            }
        }
        add_missing_public_comment(context, plan);
    }
    if context.options.security_labels {
        for label in &context.database.security_labels {
            match index.item(label.id) {
                Some(item) => plan.items[item].decorate.push(security_label(&label.subject, &label.label)),
                None if is_left_out(context, label.id) => {}
                None => lost.push(("SECURITY LABEL", label.subject.clone())),
            }
        }
    }
    plan.items.extend(inherited);
    for (kind, name) in lost {
        plan.leave(kind, name, "its object is not copied");
    }
}

/// The statement that gives `subject` a label.
pub(super) fn security_label(subject: &str, label: &Label) -> String {
    format!("SECURITY LABEL FOR {} ON {subject} IS {}", ident(&label.provider), literal(&label.label))
}

/// Constraints, triggers and indexes without an item are a parent table's, which children and partitions get from it: once
/// everything is made they are there to be commented.
fn comes_with_parent(id: ObjectId) -> bool {
    matches!(id.class, Class::Constraint | Class::Trigger | Class::Relation)
}

/// The comment that every new database's `public` has.
fn is_standard(subject: &str, text: &str) -> bool {
    subject == "SCHEMA \"public\"" && text == "standard public schema"
}

/// A `public` whose comment was removed loses it on the target, too.
fn add_missing_public_comment(context: &Context<'_>, plan: &mut Plan) {
    let database = context.database;
    for public in database.schemas.iter().filter(|s| s.builtin) {
        let id = ObjectId::new(Class::Namespace, public.oid);
        if !database.comments.iter().any(|c| c.id == id) {
            let item = plan.items.iter_mut().find(|i| i.id == id && i.kind == "SCHEMA");
            item.into_iter().for_each(|i| i.decorate.push("COMMENT ON SCHEMA \"public\" IS ''".to_owned()));
        }
    }
}

/// The operator asked for the object to be left out, so that nothing needs saying about its comment.
fn is_left_out(context: &Context<'_>, id: ObjectId) -> bool {
    match id.class {
        Class::Policy => !context.options.policies,
        Class::Publication => !context.options.publications,
        Class::Subscription => !context.options.subscriptions,
        _ => false,
    }
}
