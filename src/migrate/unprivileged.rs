//! What a target role without superuser may not make, judged before anything is touched.
//!
//! In: the source's definition, its plan, and what the target is. Out: the items concerned, each with the reason; pure. PostgreSQL's own rules are
//! taken (the manual's pages of the CREATE commands). A provider of managed servers may allow more to its administrators: where the role is a
//! member of a provider's role, what providers are known to open up is tried.

use std::collections::{BTreeMap, HashMap};

use crate::catalog::facts::Server;
use crate::ddl::role::is_provided_name;
use crate::ddl::{Item, Plan};
use crate::schema::data_type::Definition;
use crate::schema::publication::Publication;
use crate::schema::{Class, Database};

const SUPERUSER: &str = "may be created by a superuser only";

/// The items of the plan that the target's role may not make, with the reasons.
pub(super) fn items(database: &Database, plan: &Plan, target: &Server) -> BTreeMap<usize, String> {
    if target.superuser {
        return BTreeMap::new();
    }
    let judge = Judge::new(database, target);
    let reasons = plan.items.iter().enumerate();
    reasons.filter_map(|(place, item)| Some((place, judge.reason(item)?))).collect()
}

struct Judge<'a> {
    database: &'a Database,
    target: &'a Server,
    managed: bool,
    functions: HashMap<u32, &'a crate::schema::function::Function>,
}

impl<'a> Judge<'a> {
    fn new(database: &'a Database, target: &'a Server) -> Judge<'a> {
        let managed = target
            .roles
            .iter()
            .any(|role| role.member && !role.name.starts_with("pg_") && is_provided_name(&role.name));
        let functions = database.functions.iter().map(|function| (function.oid, function)).collect();
        Judge { database, target, managed, functions }
    }

    fn reason(&self, item: &Item) -> Option<String> {
        let reason = match item.kind {
            "EXTENSION" => self.extension(item)?,
            "FUNCTION" | "PROCEDURE" => self.function(item)?,
            "AGGREGATE" => self.aggregate(item)?,
            "TYPE" => self.data_type(item)?,
            "CAST" => self.cast(item)?,
            "ACCESS METHOD"
            | "OPERATOR CLASS"
            | "OPERATOR FAMILY"
            | "TEXT SEARCH PARSER"
            | "TEXT SEARCH TEMPLATE"
            | "PROCEDURAL LANGUAGE" => SUPERUSER.to_owned(),
            "FOREIGN DATA WRAPPER" | "EVENT TRIGGER" if !self.managed => SUPERUSER.to_owned(),
            "PUBLICATION" => self.publication(item)?,
            "SUBSCRIPTION" => self.subscription()?,
            "DEFAULT ACL" => self.default_privileges(item)?,
            _ => return None,
        };
        Some(reason)
    }

    fn extension(&self, item: &Item) -> Option<String> {
        let available = self.target.extensions.iter().find(|extension| extension.name == item.name)?;
        let asks = available.superuser && available.installed.is_none() && !item.create.is_empty();
        (asks && !self.managed).then(|| SUPERUSER.to_owned())
    }

    fn function(&self, item: &Item) -> Option<String> {
        let function = self.functions.get(&item.id.oid)?;
        if !function.trusted {
            return Some(format!("is written in {}, which only a superuser may use", function.language));
        }
        if function.leakproof {
            return Some("is LEAKPROOF, which only a superuser may say".to_owned());
        }
        function.support.then(|| "has a support function, which only a superuser may give".to_owned())
    }

    fn aggregate(&self, item: &Item) -> Option<String> {
        let aggregate = self.database.aggregates.iter().find(|aggregate| aggregate.oid == item.id.oid)?;
        let internal = [Some(&aggregate.state_type), aggregate.moving_state_type.as_ref()];
        let internal = internal.iter().flatten().any(|state| state.trim_matches('"') == "internal");
        internal.then(|| "has a state of type internal, which only a superuser may use".to_owned())
    }

    fn data_type(&self, item: &Item) -> Option<String> {
        let data_type = self.database.types.iter().find(|data_type| data_type.oid == item.id.oid)?;
        matches!(data_type.definition, Definition::Base(_))
            .then(|| "is a base type, which only a superuser may create".to_owned())
    }

    fn cast(&self, item: &Item) -> Option<String> {
        let cast = self.database.casts.iter().find(|cast| cast.oid == item.id.oid)?;
        (cast.method == 'b').then(|| "needs no function, which only a superuser may say".to_owned())
    }

    fn publication(&self, item: &Item) -> Option<String> {
        let of = |publication: &&Publication| {
            item.id.class == Class::Publication && publication.oid == item.id.oid
        };
        let publication = self.database.publications.iter().find(of)?;
        let wide = publication.all_tables || !publication.schemas.is_empty();
        (wide && !self.managed).then(|| {
            "publishes all tables, of the database or of schemas, which only a superuser may do".to_owned()
        })
    }

    fn subscription(&self) -> Option<String> {
        let may = self.target.roles.iter().any(|role| role.member && role.name == "pg_create_subscription");
        (!may && !self.managed)
            .then(|| "may be created by a superuser or a member of pg_create_subscription only".to_owned())
    }

    fn default_privileges(&self, item: &Item) -> Option<String> {
        let of = |default: &&crate::schema::database::DefaultPrivileges| default.oid == item.id.oid;
        let role = &self.database.default_privileges.iter().find(of)?.role;
        let known = self.target.roles.iter().find(|known| known.name == *role)?;
        (!known.member && known.name != self.target.user)
            .then(|| format!("is role \"{role}\"'s to say, which the target's role is no member of"))
    }
}
