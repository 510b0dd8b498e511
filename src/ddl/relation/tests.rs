//! Small models of relations, and the SQL that they become.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::items;
use crate::ddl::{Context, Item, Options, Plan, Section};
use crate::schema::{Class, Database, Dependency, ObjectId, inherit, partition};

/// Reads `base` with the fields of `changes` in place of its own.
fn model<T: DeserializeOwned>(mut base: Value, changes: Value) -> T {
    if let (Value::Object(base), Value::Object(changes)) = (&mut base, changes) {
        base.extend(changes);
    }
    serde_json::from_value(base).unwrap()
}

fn name(oid: u32) -> Value {
    json!({"oid": oid, "schema": "s", "name": format!("t{oid}")})
}

fn table<T: DeserializeOwned>(oid: u32, changes: Value) -> T {
    let base = json!({
        "oid": oid, "schema": "s", "name": format!("t{oid}"), "kind": "r", "owner": "boss",
        "acl": {"current": null, "default": []}, "persistence": "p", "types": [], "of_type": null,
        "access_method": null, "tablespace": null, "options": [], "toast_options": [], "row_security": false,
        "force_row_security": false, "replica_identity": "d", "has_oids": false, "partition_key": null,
        "partition_bound": null, "parents": [], "columns": [], "server": null, "foreign_options": [],
        "primary_key": [], "pages": 0, "tuples": 0.0, "bytes": 0, "configuration": null
    });
    model(base, changes)
}

fn column(name: &str, changes: Value) -> Value {
    let base = json!({
        "number": 1, "name": name, "type_name": "integer", "type_oid": 23, "collation": null, "not_null": false,
        "constraint": null, "default": null, "identity": null, "is_local": true, "storage": null,
        "compression": null, "statistics": null, "options": [], "foreign_options": [],
        "acl": {"current": null, "default": []}
    });
    model(base, changes)
}

fn view<T: DeserializeOwned>(oid: u32, changes: Value) -> T {
    let base = json!({
        "oid": oid, "schema": "s", "name": format!("t{oid}"), "materialized": false, "owner": "boss",
        "acl": {"current": null, "default": []}, "rule": oid + 1000, "types": [], "definition": " SELECT 1;",
        "options": [], "toast_options": [], "check_option": null, "columns": [], "access_method": null,
        "tablespace": null, "populated": false, "needs_key": false, "bytes": 0
    });
    model(base, changes)
}

fn index<T: DeserializeOwned>(oid: u32, changes: Value) -> T {
    let base = json!({
        "oid": oid, "schema": "s", "name": format!("i{oid}"), "owner": "boss", "table": name(1), "on_view": false,
        "definition": format!("CREATE INDEX i{oid} ON s.t1 USING btree (a)"), "valid": true, "partitioned": false,
        "unique": false, "clustered": false, "replica_identity": false, "constraint": null, "parent": null,
        "tablespace": null, "options": [], "statistics": [], "pages": 1
    });
    model(base, changes)
}

fn constraint<T: DeserializeOwned>(oid: u32, changes: Value) -> T {
    let base = json!({
        "oid": oid, "name": format!("c{oid}"), "kind": "c", "table": name(1), "owner": "boss", "partitioned": false,
        "partition": false, "foreign": false, "definition": "CHECK ((a > 0))", "deferrable": false,
        "deferred": false, "validated": true, "is_local": true, "parent": null, "index": null, "referenced": null,
        "references_partitioned": false
    });
    model(base, changes)
}

fn plan_with(database: &Database, options: &Options, separate: &[ObjectId]) -> Plan {
    let separate = BTreeSet::from_iter(separate.iter().copied());
    let context = Context { database, options, target_version: 180_000, separate: &separate };
    let mut plan = Plan::default();
    items(&context, &mut plan);
    plan
}

fn plan(database: &Database) -> Plan {
    plan_with(database, &Options::default(), &[])
}

fn plan_for(database: &Database, target_version: u32) -> Plan {
    let (options, separate) = (Options::default(), BTreeSet::new());
    let mut plan = Plan::default();
    items(&Context { database, options: &options, target_version, separate: &separate }, &mut plan);
    plan
}

fn item<'a>(plan: &'a Plan, kind: &str, name: &str) -> &'a Item {
    plan.items.iter().find(|item| item.kind == kind && item.name == name).unwrap()
}

#[test]
fn a_table_lists_columns_and_valid_checks_in_create_table() {
    let database = Database {
        tables: vec![table(
            1,
            json!({"persistence": "u", "options": ["fillfactor=70"], "toast_options": ["autovacuum_enabled=off"], "columns": [
                column("a", json!({"default": {"oid": 7, "expression": "1", "generated": null},
                    "constraint": {"oid": 8, "name": "a_is", "says_name": true, "no_inherit": true, "is_local": true}})),
                column("b", json!({"type_name": "text", "collation": "\"x\".\"y\"", "storage": "MAIN", "statistics": 9})),
                column("c", json!({"default": {"oid": 9, "expression": "(a * 2)", "generated": "s"}})),
            ]}),
        )],
        constraints: vec![constraint(20, json!({})), constraint(21, json!({"validated": false}))],
        ..Database::default()
    };
    let plan = plan(&database);
    let made = item(&plan, "TABLE", "t1");
    assert_eq!(
        made.create,
        [
            "CREATE UNLOGGED TABLE \"s\".\"t1\" (\n    \
             \"a\" integer DEFAULT 1 CONSTRAINT \"a_is\" NOT NULL NO INHERIT,\n    \
             \"b\" text COLLATE \"x\".\"y\",\n    \
             \"c\" integer GENERATED ALWAYS AS ((a * 2)) STORED,\n    \
             CONSTRAINT \"c20\" CHECK ((a > 0))\n) \
             WITH (\"fillfactor\"='70', toast.\"autovacuum_enabled\"='off')",
            "ALTER TABLE ONLY \"s\".\"t1\"\n    ALTER COLUMN \"b\" SET STATISTICS 9,\n    \
             ALTER COLUMN \"b\" SET STORAGE MAIN",
        ]
    );
    assert_eq!(made.decorate, ["ALTER TABLE \"s\".\"t1\" OWNER TO \"boss\""]);
    for part in [
        ObjectId::new(Class::ColumnDefault, 7),
        ObjectId::new(Class::Constraint, 8),
        ObjectId::new(Class::Constraint, 20),
    ] {
        assert!(made.provides.contains(&part), "{part:?}");
    }
    assert!(!made.provides.contains(&ObjectId::new(Class::Constraint, 21)));
    let unchecked = item(&plan, "CHECK CONSTRAINT", "t1 c21");
    assert_eq!((unchecked.section, &unchecked.tables[..]), (Section::PostData, &[1][..]));
}

#[test]
fn a_default_and_a_check_in_a_loop_get_statements_of_their_own() {
    let database = Database {
        tables: vec![table(
            1,
            json!({"columns": [column("a", json!({"default": {"oid": 7, "expression": "f()", "generated": null}}))]}),
        )],
        constraints: vec![constraint(20, json!({}))],
        ..Database::default()
    };
    let parts = [ObjectId::new(Class::ColumnDefault, 7), ObjectId::new(Class::Constraint, 20)];
    let plan = plan_with(&database, &Options::default(), &parts);
    let made = item(&plan, "TABLE", "t1");
    assert_eq!(made.create, ["CREATE TABLE \"s\".\"t1\" (\n    \"a\" integer\n)"]);
    assert!(parts.iter().all(|part| !made.provides.contains(part)));
    assert_eq!(
        item(&plan, "DEFAULT", "t1 a").create,
        ["ALTER TABLE ONLY \"s\".\"t1\" ALTER COLUMN \"a\" SET DEFAULT f()"]
    );
    assert_eq!(
        item(&plan, "CHECK CONSTRAINT", "t1 c20").create,
        ["ALTER TABLE \"s\".\"t1\"\n    ADD CONSTRAINT \"c20\" CHECK ((a > 0))"]
    );
}

#[test]
fn a_child_says_only_what_it_does_not_inherit() {
    let not_null =
        json!({"oid": null, "name": null, "says_name": false, "no_inherit": false, "is_local": true});
    let mut tables = vec![
        table(
            1,
            json!({"columns": [
                column("a", json!({"constraint": not_null, "default": {"oid": 7, "expression": "1", "generated": null}})),
                column("b", json!({"default": {"oid": 8, "expression": "(a)", "generated": "s"}})),
                column("c", json!({})),
            ]}),
        ),
        table(
            2,
            json!({"parents": [name(1)], "columns": [
                column("a", json!({"is_local": false, "constraint": not_null})),
                column("b", json!({"is_local": false, "default": {"oid": 9, "expression": "(a)", "generated": "s"}})),
                column("c", json!({"is_local": false, "constraint": not_null, "default": {"oid": 10, "expression": "5", "generated": null}})),
                column("d", json!({})),
            ]}),
        ),
    ];
    inherit::settle(&mut tables, 170_000);
    let database = Database { tables, ..Database::default() };
    assert!(database.tables[1].columns[1].is_generated(), "a copy must leave the column out");
    let plan = plan(&database);
    assert_eq!(
        item(&plan, "TABLE", "t2").create,
        [
            "CREATE TABLE \"s\".\"t2\" (\n    \"d\" integer,\n    NOT NULL \"c\"\n)\nINHERITS (\"s\".\"t1\")",
            "ALTER TABLE ONLY \"s\".\"t2\"\n    \
             ALTER COLUMN \"a\" DROP DEFAULT,\n    \
             ALTER COLUMN \"c\" SET DEFAULT 5",
        ]
    );
}

#[test]
fn a_partition_is_a_plain_table_that_is_attached() {
    let database = Database {
        tables: vec![
            table(1, json!({"kind": "p", "partition_key": "LIST (a)", "columns": [column("a", json!({}))]})),
            table(
                2,
                json!({"parents": [name(1)], "partition_bound": "FOR VALUES IN (1)",
                    "columns": [column("a", json!({"is_local": false}))]}),
            ),
        ],
        indexes: vec![
            index(11, json!({"partitioned": true, "valid": false})),
            index(12, json!({"table": name(2), "parent": {"oid": 11, "schema": "s", "name": "i11"}})),
            index(13, json!({"valid": false})),
        ],
        ..Database::default()
    };
    let plan = plan(&database);
    assert_eq!(
        item(&plan, "TABLE", "t1").create,
        ["CREATE TABLE \"s\".\"t1\" (\n    \"a\" integer\n)\nPARTITION BY LIST (a)"]
    );
    assert_eq!(item(&plan, "TABLE", "t2").create, ["CREATE TABLE \"s\".\"t2\" (\n    \"a\" integer\n)"]);
    let attached = item(&plan, "TABLE ATTACH", "t2");
    assert_eq!(
        attached.create,
        ["ALTER TABLE ONLY \"s\".\"t1\" ATTACH PARTITION \"s\".\"t2\" FOR VALUES IN (1)"]
    );
    assert!(
        attached.requires.contains(&database.tables[0].id())
            && attached.requires.contains(&database.tables[1].id())
    );
    let attached = item(&plan, "INDEX ATTACH", "i12");
    assert_eq!(attached.create, ["ALTER INDEX \"s\".\"i11\" ATTACH PARTITION \"s\".\"i12\""]);
    let left: Vec<_> = plan.not_copied.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(left, ["\"s\".\"i13\""]);
}

#[test]
fn a_foreign_key_waits_for_every_part_of_the_partitioned_key() {
    let parent = |oid: u32| json!({"oid": oid, "schema": "s", "name": format!("i{oid}")});
    let database = Database {
        tables: vec![table(1, json!({})), table(2, json!({"kind": "p"}))],
        indexes: vec![
            index(11, json!({"table": name(2), "partitioned": true, "constraint": 21})),
            index(12, json!({"partitioned": true, "constraint": 22, "parent": parent(11)})),
            index(13, json!({"constraint": 23, "parent": parent(12)})),
        ],
        constraints: vec![constraint(
            31,
            json!({"kind": "f", "definition": "FOREIGN KEY (a) REFERENCES s.t2(a)", "index": 11, "referenced": name(2)}),
        )],
        ..Database::default()
    };
    let plan = plan(&database);
    let key = item(&plan, "FK CONSTRAINT", "t1 c31");
    assert_eq!(
        key.create,
        ["ALTER TABLE ONLY \"s\".\"t1\"\n    ADD CONSTRAINT \"c31\" FOREIGN KEY (a) REFERENCES s.t2(a)"]
    );
    assert_eq!(key.tables, [1, 2]);
    for oid in [12, 13] {
        assert!(key.requires.contains(&ObjectId::new(Class::Attachment, oid)), "attachment of {oid}");
    }
}

#[test]
fn storage_parameters_of_a_key_stand_before_deferrable() {
    let database = Database {
        tables: vec![table(1, json!({}))],
        indexes: vec![index(
            11,
            json!({"constraint": 21, "options": ["fillfactor=50"], "replica_identity": true, "tablespace": "fast"}),
        )],
        constraints: vec![constraint(
            21,
            json!({"kind": "u", "definition": "UNIQUE (a) DEFERRABLE INITIALLY DEFERRED", "deferrable": true, "deferred": true}),
        )],
        ..Database::default()
    };
    let added = "ALTER TABLE ONLY \"s\".\"t1\"\n    \
         ADD CONSTRAINT \"c21\" UNIQUE (a) WITH (\"fillfactor\"='50') DEFERRABLE INITIALLY DEFERRED";
    let identity = "ALTER TABLE ONLY \"s\".\"t1\" REPLICA IDENTITY USING INDEX \"i11\"";
    let kept = plan(&database);
    assert_eq!(
        item(&kept, "CONSTRAINT", "t1 c21").create,
        ["SET default_tablespace = \"fast\"", added, "SET default_tablespace = ''", identity]
    );
    let options = Options { tablespaces: false, ..Options::default() };
    let dropped = plan_with(&database, &options, &[]);
    assert_eq!(item(&dropped, "CONSTRAINT", "t1 c21").create, [added, identity]);
}

#[test]
fn a_view_in_a_loop_is_made_with_its_columns_first() {
    let database = Database {
        views: vec![view(
            1,
            json!({"options": ["security_barrier=true"], "check_option": "LOCAL",
                "columns": [column("a", json!({"type_name": "text", "collation": "\"x\".\"y\""}))]}),
        )],
        ..Database::default()
    };
    let whole = "\"s\".\"t1\" WITH (\"security_barrier\"='true') AS\n SELECT 1\n  WITH LOCAL CHECK OPTION";
    let rule = ObjectId::new(Class::Rule, 1001);
    let together = plan(&database);
    assert_eq!(item(&together, "VIEW", "t1").create, [format!("CREATE VIEW {whole}")]);
    assert!(item(&together, "VIEW", "t1").provides.contains(&rule));
    let apart = plan_with(&database, &Options::default(), &[rule]);
    assert_eq!(
        item(&apart, "VIEW", "t1").create,
        ["CREATE VIEW \"s\".\"t1\" AS\nSELECT\n    NULL::text COLLATE \"x\".\"y\" AS \"a\""]
    );
    assert_eq!(item(&apart, "RULE", "t1 _RETURN").create, [format!("CREATE OR REPLACE VIEW {whole}")]);
    assert_eq!(item(&apart, "RULE", "t1 _RETURN").id, rule);
}

#[test]
fn materialized_views_are_refreshed_in_the_order_of_reading() {
    let reads = |view: u32, relation: u32| Dependency {
        object: ObjectId::new(Class::Rule, view + 1000),
        referenced: ObjectId::new(Class::Relation, relation),
        kind: 'n',
    };
    let populated = json!({"materialized": true, "populated": true});
    let database = Database {
        views: vec![
            view(1, populated.clone()),
            view(2, json!({})),
            view(3, populated.clone()),
            view(4, json!({"materialized": true})),
            view(5, populated),
        ],
        dependencies: vec![reads(1, 2), reads(2, 3), reads(5, 4)],
        ..Database::default()
    };
    let plan = plan(&database);
    let first = item(&plan, "MATERIALIZED VIEW DATA", "t1");
    assert_eq!(
        (first.section, &first.create[..]),
        (Section::Last, &["REFRESH MATERIALIZED VIEW \"s\".\"t1\"".to_owned()][..])
    );
    assert!(first.requires.contains(&ObjectId::new(Class::Contents, 3)));
    assert!(!plan.items.iter().any(|i| i.id.class == Class::Contents && [4, 5].contains(&i.id.oid)));
    assert_eq!(plan.not_copied[0].name, "\"s\".\"t5\"");
}

#[test]
fn an_owned_sequence_is_made_before_its_table_and_given_to_it_after() {
    let sequence = |oid: u32, identity: Value| {
        json!({
            "oid": oid, "schema": "s", "name": format!("q{oid}"), "owner": "boss", "acl": {"current": null, "default": []},
            "persistence": "p", "type_name": "integer", "start": 1, "increment": 1, "minimum": 1, "maximum": 2147483647,
            "cache": 1, "cycle": false, "configuration": false,
            "owned_by": {"table": name(1), "column": "a", "persistence": "p", "identity": identity, "foreign": false}
        })
    };
    let database = Database {
        tables: vec![table(1, json!({}))],
        sequences: vec![
            serde_json::from_value(sequence(2, Value::Null)).unwrap(),
            serde_json::from_value(sequence(3, json!("d"))).unwrap(),
        ],
        ..Database::default()
    };
    let plan = plan(&database);
    let options =
        "\n    START WITH 1\n    INCREMENT BY 1\n    MINVALUE 1\n    MAXVALUE 2147483647\n    CACHE 1";
    let owned = item(&plan, "SEQUENCE", "q2");
    assert_eq!(owned.create, [format!("CREATE SEQUENCE \"s\".\"q2\"\n    AS integer{options}")]);
    assert!(owned.requires.is_empty());
    assert_eq!(
        item(&plan, "SEQUENCE OWNED BY", "q2").create,
        ["ALTER SEQUENCE \"s\".\"q2\" OWNED BY \"s\".\"t1\".\"a\""]
    );
    let identity = item(&plan, "SEQUENCE", "q3");
    assert_eq!(
        identity.create,
        [format!(
            "ALTER TABLE \"s\".\"t1\" ALTER COLUMN \"a\" ADD GENERATED BY DEFAULT AS IDENTITY (\n    SEQUENCE NAME \"s\".\"q3\"{options}\n)"
        )]
    );
    assert_eq!(identity.requires, [ObjectId::new(Class::Relation, 1)]);
    assert!(identity.decorate.is_empty(), "an identity's sequence goes with its table's owner");
}

#[test]
fn a_child_with_its_columns_in_another_order_is_joined_to_its_parent() {
    let not_null =
        json!({"oid": null, "name": null, "says_name": false, "no_inherit": false, "is_local": true});
    let mut tables = vec![
        table(
            1,
            json!({"columns": [
                column("a", json!({})),
                column("late", json!({"not_null": true, "constraint": not_null})),
            ]}),
        ),
        table(
            2,
            json!({"parents": [name(1)], "columns": [
                column("own", json!({"default": {"oid": 7, "expression": "1", "generated": null}})),
                column("a", json!({})),
                column("late", json!({"is_local": false, "not_null": true, "constraint": not_null})),
                column("last", json!({})),
            ]}),
        ),
        table(
            3,
            json!({"parents": [name(1)], "columns": [column("z", json!({})), column("a", json!({})), column("late", json!({"constraint": not_null}))]}),
        ),
    ];
    inherit::settle(&mut tables, 170_000);
    let checks = vec![
        constraint(20, json!({"table": name(2)})),
        constraint(21, json!({"table": name(2), "is_local": false})),
    ];
    let database = Database { tables, constraints: checks, ..Database::default() };
    let with_helper = item(&plan(&database), "TABLE", "t2").create.clone();
    let (table, helper) = ("\"s\".\"t2\"", "\"s\".\"pgstream_parent_of_t2\"");
    assert_eq!(
        with_helper,
        [
            format!("CREATE TABLE {table} (\n    \"own\" integer DEFAULT 1,\n    \"a\" integer\n)"),
            format!("CREATE TABLE {helper} ()"),
            format!("ALTER TABLE {table} INHERIT {helper}"),
            format!(
                "ALTER TABLE {helper} ADD COLUMN \"late\" integer CONSTRAINT \"t1_late_not_null\" NOT NULL"
            ),
            format!("ALTER TABLE {table} ADD COLUMN \"last\" integer"),
            format!("ALTER TABLE {helper} ADD COLUMN \"own\" integer"),
            format!("ALTER TABLE {helper} ADD COLUMN \"a\" integer"),
            format!("ALTER TABLE {helper} ADD COLUMN \"last\" integer"),
            format!("ALTER TABLE {table} ADD CONSTRAINT \"c20\" CHECK ((a > 0))"),
            format!("ALTER TABLE {helper} ADD CONSTRAINT \"c21\" CHECK ((a > 0))"),
            format!("ALTER TABLE {table} INHERIT \"s\".\"t1\""),
            format!("ALTER TABLE {table} NO INHERIT {helper}"),
            format!("DROP TABLE {helper}"),
        ]
    );
    // Before 18 a child has its constraint itself: nothing is only inherited, so nothing needs the helper.
    let plan = plan_for(&database, 170_000);
    assert_eq!(
        item(&plan, "TABLE", "t3").create,
        [
            "CREATE TABLE \"s\".\"t3\" (\n    \"z\" integer,\n    \"a\" integer,\n    \"late\" integer NOT NULL\n)",
            "ALTER TABLE \"s\".\"t3\" INHERIT \"s\".\"t1\"",
        ]
    );
}

#[test]
fn exclusion_constraints_of_partitions_are_made_with_their_parents() {
    let parent = |oid: u32| json!({"oid": oid, "schema": "s", "name": format!("i{oid}")});
    let exclusion = |oid: u32, table: u32, parent: Value| {
        constraint(
            oid,
            json!({"kind": "x", "table": name(table), "parent": parent, "definition": "EXCLUDE USING btree (a WITH =)"}),
        )
    };
    let database = Database {
        tables: vec![table(1, json!({"kind": "p"})), table(2, json!({}))],
        indexes: vec![
            index(11, json!({"partitioned": true, "constraint": 21})),
            index(12, json!({"table": name(2), "constraint": 22, "parent": parent(11)})),
        ],
        constraints: vec![exclusion(21, 1, Value::Null), exclusion(22, 2, json!(21))],
        ..Database::default()
    };
    let plan = plan(&database);
    let made = item(&plan, "CONSTRAINT", "t1 c21");
    assert_eq!(
        made.create[0],
        "ALTER TABLE \"s\".\"t1\"\n    ADD CONSTRAINT \"c21\" EXCLUDE USING btree (a WITH =)"
    );
    assert!(made.create[1].contains("RENAME CONSTRAINT %I TO \"c22\""), "{}", made.create[1]);
    for id in [database.indexes[1].id(), database.constraints[1].id()] {
        assert!(made.provides.contains(&id), "{id:?}");
    }
    assert_eq!(plan.items.iter().filter(|item| item.section == Section::PostData).count(), 1);
}

#[test]
fn a_chosen_name_that_two_tables_would_get_is_said() {
    let constraint =
        json!({"oid": 8, "name": "x_not_null", "says_name": false, "no_inherit": false, "is_local": true});
    let mut tables = vec![
        table(1, json!({"columns": [column("a", json!({"constraint": constraint}))]})),
        table(2, json!({})),
    ];
    inherit::settle(&mut tables, 180_000);
    assert_eq!(tables[0].columns[0].constraint.as_ref().unwrap().said_name(), None);
    tables.push(table(3, json!({"columns": [column("a", json!({"constraint": constraint}))]})));
    inherit::settle(&mut tables, 180_000);
    for place in [0, 2] {
        let constraint = tables[place].columns[0].constraint.as_ref().unwrap();
        assert_eq!(constraint.said_name(), Some("x_not_null"));
    }
}

#[test]
fn partitions_of_each_other_are_no_endless_tree() {
    // Only a server that lies says so.
    let partition =
        |oid, parent| table(oid, json!({"parents": [name(parent)], "partition_bound": "DEFAULT"}));
    let tables = [partition(1, 2), partition(2, 3), partition(3, 2), partition(4, 4)];
    let leaves = partition::leaves(&tables);
    assert!(leaves.values().all(|below| below.len() <= tables.len()), "{leaves:?}");
    let database = Database { tables: tables.into(), ..Database::default() };
    assert!(partition::loaded_through_root(&database, "UTF8").is_empty());
}
