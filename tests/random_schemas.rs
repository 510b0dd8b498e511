//! Random schemas: whatever a seed makes of types, tables, views, functions, constraints and loops between them, the copy is the same to pg_dump.
//!
//! `PGSTREAM_SCHEMA_SEEDS=200` runs that many seeds, from `PGSTREAM_SCHEMA_FROM=1` on; `PGSTREAM_SCHEMA_SEED=7` runs that one, and shows
//! its statements.

use crate::harness::{Pgstream, Random, compare, server, variable};

#[test]
fn random_schemas_arrive_as_they_are() {
    let seeds = match (variable("PGSTREAM_SCHEMA_SEED"), variable("PGSTREAM_SCHEMA_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, Some(many)) => {
            let from = variable("PGSTREAM_SCHEMA_FROM").unwrap_or(1);
            from..=from + many - 1
        }
        (None, None) => 3..=4,
    };
    let failures: Vec<String> = seeds.filter_map(|seed| arrives(seed).err()).collect();
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.join("\n"));
}

/// Copies the schema of a seed; the error says what is different.
fn arrives(seed: u64) -> Result<(), String> {
    let (from, to) = PAIRS[(seed % PAIRS.len() as u64) as usize];
    println!("seed {seed}, PostgreSQL {from} to {to}: PGSTREAM_SCHEMA_SEED={seed}");
    let source = server(from).create_database_with("random", "TEMPLATE template0");
    let statements = Schema::new(seed, from).statements();
    if variable("PGSTREAM_SCHEMA_SEED").is_some() {
        println!("{};", statements.join(";\n"));
    }
    // A statement may be refused (a name twice, a loop of inheritance): then the schema is without it.
    source.execute(&format!("\\set ON_ERROR_STOP off\n{}", statements.join(";\n")));
    let target = server(to).create_database_with("arrived", "TEMPLATE template0");
    let failure = |what: &str| Err(format!("seed {seed}, {from} to {to}: {what}"));
    let copied =
        Pgstream::between("migrate", &source, &target).args(["--method", "copy", "--no-roles", "-v"]).run();
    if copied.code != Some(0) {
        return failure(&copied.stderr);
    }
    let differences = compare::schemas(&source, &target);
    if !differences.is_empty() {
        return failure(&differences.join("\n"));
    }
    let verified = Pgstream::between("verify", &source, &target).args(["--schema-only"]).run();
    if verified.code == Some(0) {
        Ok(())
    } else {
        failure(&format!("{}{}", verified.stdout, verified.stderr))
    }
}

/// Majors of source and target, by the rest of the seed.
const PAIRS: [(u32, u32); 8] =
    [(15, 15), (10, 18), (18, 18), (13, 18), (12, 18), (11, 18), (13, 16), (15, 17)];

/// A schema while it is made up.
struct Schema {
    random: Random,
    major: u32,
    statements: Vec<String>,
    /// Types that columns can have.
    types: Vec<String>,
    /// Tables, with the type of each column.
    tables: Vec<Table>,
    /// Relations to select from, with the number of their columns.
    relations: Vec<(String, usize)>,
    /// Functions of one integer that give an integer.
    functions: Vec<String>,
    number: u64,
}

struct Table {
    name: String,
    columns: Vec<String>,
    has_key: bool,
    partitioned: bool,
}

const SCHEMAS: [&str; 4] = ["public", "app", "\"Odd \"\"one\"\"\"", "\"select\""];
const TYPES: [&str; 14] = [
    "integer",
    "bigint",
    "text",
    "varchar(20)",
    "numeric(10,2)",
    "boolean",
    "timestamptz",
    "date",
    "jsonb",
    "uuid",
    "integer[]",
    "interval",
    "bytea",
    "int4range",
];

impl Schema {
    fn new(seed: u64, major: u32) -> Schema {
        Schema {
            random: Random::new(seed),
            major,
            statements: SCHEMAS[1..].iter().map(|name| format!("CREATE SCHEMA {name}")).collect(),
            types: TYPES.iter().map(|&name| name.to_owned()).collect(),
            tables: Vec::new(),
            relations: Vec::new(),
            functions: Vec::new(),
            number: 0,
        }
    }

    fn statements(mut self) -> Vec<String> {
        let steps = 40 + self.random.below(60);
        for _ in 0..steps {
            match self.random.below(32) {
                0 | 1 => self.a_type(),
                2 => self.a_domain(),
                3..=5 => self.a_function(),
                6..=11 => self.a_table(),
                12 => self.a_partitioned_table(),
                13 => self.a_child(),
                14..=16 => self.a_view(),
                17 => self.a_materialized_view(),
                18..=20 => self.an_index(),
                21 | 22 => self.a_foreign_key(),
                23 => self.a_trigger(),
                24 => self.a_rule_or_policy(),
                25 => self.a_loop(),
                26 => self.an_alteration(),
                27 => self.a_sequence(),
                28 => self.privileges(),
                29 => self.an_operator_or_aggregate(),
                _ => self.a_comment(),
            }
        }
        self.statements
    }

    fn add(&mut self, statement: String) {
        self.statements.push(statement);
    }

    fn name(&mut self, prefix: &str) -> String {
        self.number += 1;
        let schema = SCHEMAS[self.random.below(SCHEMAS.len() as u64) as usize];
        match self.random.below(6) {
            0 => format!("{schema}.\"{prefix} {}'s\"", self.number),
            1 => format!("{schema}.\"{}_{}\"", prefix.to_uppercase(), self.number),
            _ => format!("{schema}.{prefix}_{}", self.number),
        }
    }

    /// A name that lives in its table's schema.
    fn part(&mut self, prefix: &str) -> String {
        self.number += 1;
        if self.chance(5) {
            format!("\"{prefix} {}\"", self.number)
        } else {
            format!("{prefix}_{}", self.number)
        }
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    fn one_of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.random.below(list.len() as u64) as usize]
    }

    fn any_type(&mut self) -> String {
        let at = self.random.below(self.types.len() as u64) as usize;
        self.types[at].clone()
    }

    fn a_type(&mut self) {
        let name = self.name("type");
        match self.random.below(3) {
            0 => self.add(format!("CREATE TYPE {name} AS ENUM ('a', 'it''s', 'Ü')")),
            1 => {
                let (first, second) = (self.any_type(), self.any_type());
                self.add(format!("CREATE TYPE {name} AS (first {first}, \"Second\" {second})"));
            }
            _ => self.add(format!("CREATE TYPE {name} AS RANGE (SUBTYPE = timestamp)")),
        }
        self.types.push(name);
    }

    fn a_domain(&mut self) {
        let name = self.name("domain");
        let check = match self.some_function() {
            Some(function) if self.chance(2) => format!("{function}(VALUE) > 0"),
            _ => "VALUE <> 7".to_owned(),
        };
        let null = if self.chance(4) { " NOT NULL" } else { "" };
        let default = if self.chance(3) { " DEFAULT 5" } else { "" };
        self.add(format!(
            "CREATE DOMAIN {name} AS integer{default}{null} CONSTRAINT \"good {0}\" CHECK ({check})",
            self.number
        ));
        self.types.push(name);
    }

    fn some_function(&mut self) -> Option<String> {
        let many = self.functions.len() as u64;
        (many > 0).then(|| self.functions[self.random.below(many) as usize].clone())
    }

    fn a_function(&mut self) {
        let name = self.name("function");
        let volatility =
            self.one_of(&["IMMUTABLE", "STABLE", "VOLATILE", "IMMUTABLE STRICT PARALLEL SAFE COST 12"]);
        let called = self.some_function().map_or("$1".to_owned(), |f| format!("{f}($1)"));
        let default = if self.chance(3) { " DEFAULT 3" } else { "" };
        match self.random.below(4) {
            0 if self.major >= 14 => {
                self.add(format!("CREATE FUNCTION {name}(n integer{default}) RETURNS integer LANGUAGE sql {volatility} RETURN {called} + 1"));
            }
            0 | 1 => self.add(format!(
                "CREATE FUNCTION {name}(n integer{default}) RETURNS integer LANGUAGE sql {volatility} AS 'SELECT {called} + 1'"
            )),
            2 => {
                let argument = self.any_type();
                self.add(format!(
                    "CREATE FUNCTION {name}(a {argument}, OUT b text, INOUT c integer) LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, public AS $f$ BEGIN b := 'it''s'; END $f$"
                ));
                return;
            }
            _ => self.add(format!(
                "CREATE FUNCTION {name}(n integer{default}) RETURNS integer LANGUAGE plpgsql {volatility} AS $f$ BEGIN RETURN n; END $f$"
            )),
        }
        self.functions.push(name);
    }

    fn columns(&mut self) -> (Vec<String>, Vec<String>) {
        let many = 1 + self.random.below(5);
        let mut definitions = Vec::new();
        let mut types = Vec::new();
        for n in 0..many {
            let data_type = self.any_type();
            let mut column = format!("c{n} {data_type}");
            if data_type == "integer" {
                match self.random.below(8) {
                    0 => {
                        column += &self
                            .some_function()
                            .map_or(" DEFAULT 4".to_owned(), |f| format!(" DEFAULT {f}(4)"))
                    }
                    1 => column = format!("c{n} serial"),
                    2 => column += " GENERATED BY DEFAULT AS IDENTITY",
                    3 if self.major >= 12 => column += " GENERATED ALWAYS AS (1 + 2) STORED",
                    4 => column += &format!(" CONSTRAINT \"chk {}\" CHECK (c{n} > 0)", self.number),
                    _ => {}
                }
            } else if data_type == "text" {
                column += self.one_of(&["", " COLLATE \"C\"", " DEFAULT 'it''s'", " DEFAULT current_user"]);
            }
            if self.chance(5) {
                column += " NOT NULL";
            }
            definitions.push(column);
            types.push(data_type);
        }
        (definitions, types)
    }

    fn a_table(&mut self) {
        let name = self.name("table");
        let (mut definitions, columns) = self.columns();
        let has_key = self.chance(2);
        if has_key {
            definitions.push("id bigint PRIMARY KEY".to_owned());
        }
        let unlogged = if self.chance(8) { "UNLOGGED " } else { "" };
        let options = self.one_of(&["", "", " WITH (fillfactor = 70, autovacuum_enabled = off)"]);
        self.add(format!("CREATE {unlogged}TABLE {name} ({}){options}", definitions.join(", ")));
        self.relations.push((name.clone(), columns.len()));
        self.tables.push(Table { name, columns, has_key, partitioned: false });
    }

    fn a_partitioned_table(&mut self) {
        let name = self.name("parted");
        let method =
            self.one_of(if self.major >= 11 { &["LIST", "RANGE", "HASH"] } else { &["LIST", "RANGE"] });
        self.add(format!(
            "CREATE TABLE {name} (c0 integer NOT NULL, c1 text DEFAULT 'x') PARTITION BY {method} (c0)"
        ));
        for n in 0..self.random.below(4) {
            let part = self.name("part");
            let bound = match method {
                "LIST" => format!("IN ({n})"),
                "RANGE" => format!("FROM ({}) TO ({})", n * 10, n * 10 + 10),
                _ => format!("WITH (MODULUS 4, REMAINDER {n})"),
            };
            if self.chance(2) {
                self.add(format!("CREATE TABLE {part} PARTITION OF {name} FOR VALUES {bound}"));
            } else {
                self.add(format!(
                    "CREATE TABLE {part} (c1 text, gone integer, c0 integer NOT NULL CHECK (c0 > -5))"
                ));
                self.add(format!("ALTER TABLE {part} DROP COLUMN gone"));
                self.add(format!("ALTER TABLE {name} ATTACH PARTITION {part} FOR VALUES {bound}"));
            }
        }
        if self.major >= 11 && self.chance(2) {
            self.add(format!("ALTER TABLE {name} ADD PRIMARY KEY (c0)"));
        }
        self.relations.push((name.clone(), 2));
        let columns = vec!["integer".to_owned(), "text".to_owned()];
        self.tables.push(Table { name, columns, has_key: false, partitioned: true });
    }

    fn a_table_at(&mut self) -> Option<usize> {
        let many = self.tables.len() as u64;
        (many > 0).then(|| self.random.below(many) as usize)
    }

    fn a_child(&mut self) {
        let Some(at) = self.a_table_at() else { return };
        let name = self.name("child");
        let parent = self.tables[at].name.clone();
        let own = self.one_of(&["", "own integer", "c0 integer", "CHECK (c0 IS NOT NULL)"]);
        self.add(format!("CREATE TABLE {name} ({own}) INHERITS ({parent})"));
        if self.chance(3) {
            self.add(format!("ALTER TABLE ONLY {name} ALTER c0 DROP DEFAULT"));
        }
    }

    fn a_relation(&mut self) -> Option<(String, usize)> {
        let many = self.relations.len() as u64;
        (many > 0).then(|| self.relations[self.random.below(many) as usize].clone())
    }

    fn a_query(&mut self) -> Option<(String, usize)> {
        let (first, columns) = self.a_relation()?;
        let listed: Vec<String> = (0..columns).map(|n| format!("a.c{n}")).collect();
        let listed = listed.join(", ");
        let query = match self.random.below(4) {
            0 => {
                let (second, _) = self.a_relation()?;
                format!("SELECT {listed} FROM {first} a LEFT JOIN {second} b ON a.c0::text = b.c0::text")
            }
            1 => format!(
                "SELECT {listed} FROM {first} a WHERE EXISTS (SELECT FROM {first} b WHERE b.c0::text > 'a')"
            ),
            2 => format!(
                "WITH w AS (SELECT * FROM {first}) SELECT {listed} FROM w a ORDER BY a.c0::text LIMIT 5"
            ),
            _ => format!("SELECT {listed} FROM {first} a UNION ALL SELECT {listed} FROM {first} a"),
        };
        Some((query, columns))
    }

    fn a_view(&mut self) {
        let Some((query, columns)) = self.a_query() else { return };
        let name = self.name("view");
        let with = self.one_of(&["", "", " WITH (security_barrier = true)"]);
        self.add(format!("CREATE VIEW {name}{with} AS {query}"));
        self.relations.push((name, columns));
    }

    fn a_materialized_view(&mut self) {
        let Some((query, columns)) = self.a_query() else { return };
        let name = self.name("matview");
        let data = self.one_of(&["", " WITH NO DATA"]);
        self.add(format!("CREATE MATERIALIZED VIEW {name} AS {query}{data}"));
        if self.chance(2) {
            let index = self.part("mvi");
            // Until 14 even the cast of an interval counts as immutable; newer servers refuse it.
            let expression = if self.major >= 14 { "c0::text" } else { "c0 IS NULL" };
            self.add(format!("CREATE INDEX {index} ON {name} (({expression}))"));
        }
        if data.is_empty() {
            self.relations.push((name, columns));
        }
    }

    fn an_index(&mut self) {
        let Some(at) = self.a_table_at() else { return };
        let (name, part) = (self.tables[at].name.clone(), self.part("index"));
        let how = match self.random.below(7) {
            0 => "USING hash (c0)".to_owned(),
            1 => "((c0 IS NULL)) WHERE c0 IS NOT NULL".to_owned(),
            2 => self.some_function().map_or("(c0)".to_owned(), |f| format!("({f}(1), c0)")),
            3 => "(c0 DESC NULLS LAST) WITH (fillfactor = 50)".to_owned(),
            4 => "USING brin (c0)".to_owned(),
            5 if self.major >= 11 => "(c0) INCLUDE (c1)".to_owned(),
            _ => "(c0)".to_owned(),
        };
        self.add(format!("CREATE INDEX {part} ON {name} {how}"));
        if self.chance(4) {
            self.add(format!("CREATE STATISTICS {name}_stat ON c0, c1 FROM {name}"));
        }
    }

    fn a_foreign_key(&mut self) {
        let keys: Vec<String> = self.tables.iter().filter(|t| t.has_key).map(|t| t.name.clone()).collect();
        let (Some(at), false) = (self.a_table_at(), keys.is_empty()) else { return };
        let referenced = keys[self.random.below(keys.len() as u64) as usize].clone();
        let (name, constraint) = (self.tables[at].name.clone(), self.part("fk"));
        let column = self.part("ref");
        let how = self.one_of(&["", " ON DELETE CASCADE", " DEFERRABLE INITIALLY DEFERRED", " NOT VALID"]);
        self.add(format!("ALTER TABLE {name} ADD {column} bigint"));
        self.add(format!("ALTER TABLE {name} ADD CONSTRAINT {constraint} FOREIGN KEY ({column}) REFERENCES {referenced}{how}"));
    }

    fn a_trigger(&mut self) {
        let Some(at) = self.a_table_at() else { return };
        let (table, function, trigger) =
            (self.tables[at].name.clone(), self.name("tf"), self.part("trigger"));
        self.add(format!(
            "CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$"
        ));
        let when = self.one_of(&["AFTER INSERT", "AFTER UPDATE OR DELETE", "AFTER UPDATE OF c0"]);
        let level = self.one_of(&["STATEMENT", "ROW"]);
        self.add(format!("CREATE TRIGGER {trigger} {when} ON {table} FOR EACH {level} EXECUTE PROCEDURE {function}('a', 'it''s')"));
        if self.chance(3) {
            let state = self.one_of(&["DISABLE", "ENABLE ALWAYS", "ENABLE REPLICA"]);
            self.add(format!("ALTER TABLE {table} {state} TRIGGER {trigger}"));
        }
    }

    fn a_rule_or_policy(&mut self) {
        let Some(at) = self.a_table_at() else { return };
        let (table, part) = (self.tables[at].name.clone(), self.part("rule"));
        if self.chance(2) {
            self.add(format!(
                "CREATE RULE {part} AS ON DELETE TO {table} WHERE OLD.c0 IS NULL DO ALSO NOTIFY gone"
            ));
        } else {
            self.add(format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
            let check = self.some_function().map_or("true".to_owned(), |f| format!("{f}(1) > 0"));
            self.add(format!("CREATE POLICY {part} ON {table} FOR UPDATE TO PUBLIC USING (c0 IS NOT NULL) WITH CHECK ({check})"));
        }
    }

    /// Things that need each other.
    fn a_loop(&mut self) {
        let (a, b) = (self.name("loop"), self.name("pool"));
        match self.random.below(5) {
            0 => {
                self.add(format!("CREATE TABLE {a} (id integer PRIMARY KEY, other integer)"));
                self.add(format!("CREATE TABLE {b} (id integer PRIMARY KEY, other integer REFERENCES {a})"));
                self.add(format!("ALTER TABLE {a} ADD FOREIGN KEY (other) REFERENCES {b}"));
            }
            1 => {
                self.add(format!("CREATE TABLE {a} (c0 integer)"));
                self.add(format!(
                    "CREATE FUNCTION {b}({a}) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1'"
                ));
                self.add(format!("ALTER TABLE {a} ADD CHECK ({b}({a}.*) > 0)"));
            }
            2 => {
                self.add(format!("CREATE VIEW {a} AS SELECT 1 AS c0, 'x'::text AS c1"));
                self.add(format!("CREATE VIEW {b} AS SELECT * FROM {a}"));
                self.add(format!("CREATE OR REPLACE VIEW {a} AS SELECT c0, c1 FROM {b} WHERE c0 > 0"));
            }
            3 if self.major >= 14 => {
                self.add(format!("CREATE FUNCTION {a}(integer) RETURNS integer LANGUAGE sql RETURN $1"));
                self.add(format!("CREATE FUNCTION {b}(integer) RETURNS integer LANGUAGE sql RETURN {a}($1)"));
                self.add(format!(
                    "CREATE OR REPLACE FUNCTION {a}(integer) RETURNS integer LANGUAGE sql RETURN {b}($1)"
                ));
            }
            _ => {
                self.add(format!("CREATE TABLE {a} (id integer PRIMARY KEY, v text)"));
                self.add(format!("CREATE VIEW {b} AS SELECT id, v FROM {a} GROUP BY id"));
                let on = self.name("upon");
                self.add(format!("CREATE MATERIALIZED VIEW {on} AS SELECT id AS c0 FROM {b}"));
            }
        }
    }

    fn an_alteration(&mut self) {
        let Some(at) = self.a_table_at() else { return };
        let table = self.tables[at].name.clone();
        let column = self.random.below(self.tables[at].columns.len() as u64);
        let partitioned = self.tables[at].partitioned;
        let statement = match self.random.below(8) {
            0 => format!("ALTER TABLE {table} ALTER c{column} SET STATISTICS 300"),
            1 => format!("ALTER TABLE {table} ALTER c{column} SET STORAGE EXTERNAL"),
            2 => format!("ALTER TABLE {table} ALTER c{column} SET (n_distinct = -0.5)"),
            3 if !partitioned => format!("ALTER TABLE {table} REPLICA IDENTITY FULL"),
            4 if self.major >= 14 => format!("ALTER TABLE {table} ALTER c{column} SET COMPRESSION pglz"),
            5 => format!("ALTER TABLE {table} ADD dropped integer; ALTER TABLE {table} DROP dropped"),
            6 => format!("ALTER TABLE {table} ADD late text DEFAULT 'late'"),
            _ => format!(
                "ALTER TABLE {table} ADD CONSTRAINT {} CHECK (c{column} IS NOT NULL) NOT VALID",
                self.part("later")
            ),
        };
        self.add(statement);
    }

    fn a_sequence(&mut self) {
        let name = self.name("sequence");
        let how = self.one_of(&["", " AS smallint CYCLE", " INCREMENT -3 MINVALUE -100 CACHE 5", " START 7"]);
        self.add(format!("CREATE SEQUENCE {name}{how}"));
    }

    fn privileges(&mut self) {
        let Some((relation, _)) = self.a_relation() else { return };
        let schema = self.one_of(&SCHEMAS);
        let statement = match self.random.below(6) {
            0 => format!("GRANT SELECT, INSERT ON {relation} TO PUBLIC"),
            1 => format!("GRANT SELECT (c0), UPDATE (c0) ON {relation} TO pg_monitor WITH GRANT OPTION"),
            2 => format!("REVOKE DELETE ON {relation} FROM CURRENT_USER"),
            3 => format!(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT EXECUTE ON FUNCTIONS TO pg_monitor"
            ),
            4 => format!("GRANT USAGE ON SCHEMA {schema} TO pg_monitor"),
            _ => match self.some_function() {
                Some(function) => format!("REVOKE ALL ON FUNCTION {function}(integer) FROM PUBLIC"),
                None => return,
            },
        };
        self.add(statement);
    }

    fn an_operator_or_aggregate(&mut self) {
        let name = self.name("sum");
        if self.chance(2) {
            self.add(format!(
                "CREATE AGGREGATE {name}(integer) (SFUNC = int4_sum, STYPE = bigint, INITCOND = '0')"
            ));
        } else {
            let schema = self.one_of(&SCHEMAS);
            self.add(format!("CREATE OPERATOR {schema}.<#{}> (LEFTARG = integer, RIGHTARG = text, PROCEDURE = pg_catalog.repeat)", "#".repeat(self.number as usize % 5)));
        }
    }

    fn a_comment(&mut self) {
        let text = self.one_of(&["'it''s'", "'two\nlines; -- here'", "E'tab\\tand \\\\'"]);
        let on = match self.random.below(4) {
            0 => self.some_function().map(|f| format!("FUNCTION {f}(integer)")),
            1 => self.a_table_at().map(|at| format!("COLUMN {}.c0", self.tables[at].name)),
            2 => self.a_table_at().map(|at| format!("TABLE {}", self.tables[at].name)),
            _ => Some(format!("SCHEMA {}", self.one_of(&SCHEMAS))),
        };
        if let Some(on) = on {
            self.add(format!("COMMENT ON {on} IS {text}"));
        }
    }
}
