//! What a migration says of itself: log files, events, metrics, bars; and what is made of the command line's definition.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Database, Options, Pgstream, Screen, http, json_schema, server};

fn filled(major: u32, rows: u32) -> Database<'static> {
    let source = server(major).create_database("source");
    source.execute(&format!(
        "CREATE TABLE numbers (id integer PRIMARY KEY, text text); CREATE TABLE no_key (a integer);
         INSERT INTO numbers SELECT i, repeat('row ' || i, 20) FROM generate_series(1, {rows}) i"
    ));
    source
}

#[test]
fn a_log_file_holds_every_message_with_its_time_and_the_migrations_id() {
    let (source, target) = (filled(15, 10), server(17).create_database("target"));
    let folder = tempfile::tempdir().expect("a folder");
    let log = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    // The holder makes it wait, so that it says something.
    let holder = source.hold("BEGIN; LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE;");
    let (text, json) = (log("text"), log("json"));
    let run = |file: &str, format: &str| {
        Pgstream::between("migrate", &source, &target)
            .args([
                "--method",
                "auto",
                "--log-file",
                file,
                "--log-format",
                format,
                "--migration-id",
                "move-7",
            ])
            .args(["--lock-wait-timeout", "300ms"])
            .run()
    };
    let said = run(&text, "text").expect_code(1).stderr;
    assert!(said.lines().all(|line| line.starts_with("pgstream[move-7]: ")), "{said}");
    run(&json, "json").expect_code(1);
    drop(holder);
    run(&text, "text").expect_code(0);
    let lines = fs::read_to_string(&text).expect("the file is there");
    for line in lines.lines() {
        assert!(line.starts_with("20") && line.contains("Z [move-7] "), "{line}");
    }
    assert!(lines.contains("error: ") && lines.contains("hint: "), "{lines}");
    assert!(lines.contains("the source can't be followed"), "{lines}");
    assert!(!lines.contains('\u{1b}'));
    let events = fs::read_to_string(&json).expect("the file is there");
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).expect("each line is an object")).collect();
    events.iter().for_each(|event| json_schema::assert_fits("event", event));
    assert!(events.iter().all(|event| event["migration_id"] == "move-7" && event["time"].is_string()));
    let error = events.iter().find(|event| event["level"] == "error").expect("an error was logged");
    assert!(error["hint"].is_string(), "{error}");

    Pgstream::between("check", &source, &target)
        .args(["--log-file", "/nonexistent/log"])
        .run()
        .expect_code(2)
        .expect_words(&["could not open log file \"/nonexistent/log\": no such file"]);
    let said =
        Pgstream::new("status").args(["--target", "host=127.0.0.1 port=9", "--log-format", "json"]).run();
    let event: Value = serde_json::from_str(said.stderr.lines().next().expect("a line")).expect("an object");
    assert_eq!(event["level"], "error");
}

#[test]
fn metrics_are_served_while_a_stream_is_followed() {
    let (source, target) = (filled(16, 1000), server(18).create_database("target"));
    let port = http::free_port();
    let address = format!("127.0.0.1:{port}");
    let running = Pgstream::between("migrate", &source, &target)
        .args(["--replica-identity", "full", "--metrics-listen", &address, "--migration-id", "m1"])
        .spawn();
    let begun = Instant::now();
    let database = target.name().to_owned();
    let wanted = [
        format!("pgstream_rows_done{{database=\"{database}\"}} 1000"),
        format!("pgstream_transactions_total{{database=\"{database}\"}} 1"),
        format!("pgstream_slot_active{{database=\"{database}\"}} 1"),
        format!("pgstream_lag_bytes{{database=\"{database}\"}} "),
        "migration_id=\"m1\"".to_owned(),
    ];
    let mut written = false;
    loop {
        let page = http::get(port, "/metrics").map(|answer| answer.body).unwrap_or_default();
        if wanted.iter().all(|line| page.contains(line)) {
            break;
        }
        if page.contains("pgstream_lsn") && !written {
            source.execute("INSERT INTO numbers VALUES (0, 'later')");
            written = true;
        }
        assert!(begun.elapsed() < Duration::from_secs(100), "{page}");
        std::thread::sleep(Duration::from_millis(300));
    }
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
}

/// A table with the longest of names, and an index that takes its time on the target alone.
const SLOW: &str = "
    CREATE FUNCTION slowly(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS
      $$BEGIN IF current_database() LIKE 'target%' THEN PERFORM pg_sleep(0.02); END IF; RETURN $1; END$$;
    CREATE TABLE a_table_with_a_name_of_sixty_three_bytes_which_is_the_most_of_it (id integer PRIMARY KEY);
    INSERT INTO a_table_with_a_name_of_sixty_three_bytes_which_is_the_most_of_it SELECT generate_series(1, 400);
    CREATE INDEX ON a_table_with_a_name_of_sixty_three_bytes_which_is_the_most_of_it (slowly(id));";

/// Everything that a command writes to a terminal of so many columns.
fn on_a_terminal(columns: usize, (source, target): (&str, &str), command: &str) -> String {
    let command = format!(
        "stty cols {columns} rows 24; exec {} {command} --source '{source}' --target '{target}'",
        env!("CARGO_BIN_EXE_pgstream"),
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script of util-linux runs");
    let drawn = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{drawn}");
    drawn
}

#[test]
fn bars_fit_the_terminal_and_elsewhere_lines_come_every_few_seconds_without_control_bytes() {
    let source = filled(15, 60_000);
    source.execute(SLOW);
    let targets = [(); 3].map(|()| server(17).create_database("target"));
    let (drawn, finished) = std::thread::scope(|scope| {
        let source = &source;
        let drawn = [(80, &targets[0]), (160, &targets[1])].map(|(columns, target)| {
            let between =
                move || on_a_terminal(columns, (&source.uri(), &target.uri()), "migrate --method copy");
            (columns, scope.spawn(between))
        });
        let command = Pgstream::between("migrate", source, &targets[2]).args(["--method", "copy"]);
        let finished = command.run().expect_code(0);
        (drawn.map(|(columns, thread)| (columns, thread.join().expect("it is drawn"))), finished)
    });
    for (columns, drawn) in drawn {
        let screen = Screen::show(columns, &drawn);
        assert_eq!(screen.wrapped, Vec::<String>::new(), "{columns} columns: {drawn:?}");
        // Nothing is cleared but the rows that are drawn anew at once.
        assert_eq!(screen.strange, Vec::<String>::new(), "{columns} columns: {drawn:?}");
        // What was drawn is gone at the end; had a row taken two lines, some of it would be left.
        let left = screen.text();
        assert!(left.len() == 1 && left[0].starts_with("done: database"), "{left:#?}");
        for word in ["copying rows", "rows  [", "items [", "index on public.a_table_with"] {
            assert!(drawn.contains(word), "{columns} columns: {word}: {drawn:?}");
        }
    }
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert!(lines.len() >= 2 && lines.iter().all(|line| line.starts_with("pgstream: ")), "{lines:#?}");
}

#[test]
fn what_is_drawn_of_a_whole_server_and_of_a_stream_fits_the_terminal_too() {
    let (source, target) = (Cluster::start(16, &Options::default()), Cluster::start(17, &Options::default()));
    for (name, rows) in
        [("short", 100), ("a_database_with_a_name_that_is_long_enough_to_fill_half_a_row", 50_000)]
    {
        source.postgres().execute(&format!("CREATE DATABASE {name}"));
        source.database(name).execute(&format!(
            "CREATE TABLE a_table_with_a_name_of_sixty_three_bytes_which_is_the_most_of_it (id integer PRIMARY KEY, v text);
             INSERT INTO a_table_with_a_name_of_sixty_three_bytes_which_is_the_most_of_it SELECT i, repeat('v', 100) FROM generate_series(1, {rows}) i"
        ));
    }
    let between = (source.uri("postgres"), target.uri("postgres"));
    for columns in [80, 160] {
        for command in [
            "migrate --all-databases --exclude-database postgres --stop-when-caught-up",
            "verify --all-databases --exclude-database postgres",
            "cleanup --yes --all-databases",
        ] {
            let drawn = on_a_terminal(columns, (&between.0, &between.1), command);
            let screen = Screen::show(columns, &drawn);
            // Messages may be longer than a row; what is drawn again and again may not.
            let wrapped: Vec<_> = screen.wrapped.iter().filter(|row| !is_message(row)).collect();
            assert!(wrapped.is_empty(), "{columns} columns, {command}: {wrapped:#?}");
            assert_eq!(screen.strange, Vec::<String>::new(), "{columns} columns, {command}: {drawn:?}");
            let left = screen.text();
            let bars = left.iter().filter(|row| row.contains("  [") || row.contains("copying rows"));
            assert_eq!(bars.count(), 0, "{columns} columns, {command}: {left:#?}");
        }
        for name in ["short", "a_database_with_a_name_that_is_long_enough_to_fill_half_a_row"] {
            target.postgres().execute(&format!("DROP DATABASE {name}"));
        }
    }
}

fn is_message(row: &str) -> bool {
    row.contains("done: ")
        || ["pgstream: ", "removed ", "database ", "equal "].iter().any(|word| row.starts_with(word))
}

#[test]
fn the_schema_of_what_is_printed_is_published_for_each_command() {
    // What the commands print in all other tests is held against it.
    for command in ["check", "migrate", "worker", "cutover", "status", "verify", "schema", "cleanup", "event"]
    {
        let printed = Pgstream::new("generate").args(["json-schema", command]).run().expect_code(0);
        let printed: Value = serde_json::from_str(&printed.stdout).expect("it is JSON");
        assert_eq!(printed["$defs"], json_schema::document()["$defs"]);
        let wanted = format!("#/$defs/{command}");
        let roots: Vec<_> =
            printed["anyOf"].as_array().expect("a list").iter().map(|one| &one["$ref"]).collect();
        assert_eq!(roots.contains(&&Value::from("#/$defs/error")), command != "event", "{roots:?}");
        assert!(roots.contains(&&Value::from(wanted)), "{roots:?}");
    }
    let fits = json_schema::fits;
    let good = serde_json::json!({ "removed": [], "left": [{ "dbname": "a", "side": "source", "kind": "b", "name": "c" }] });
    assert_eq!(fits("cleanup", &good), Ok(()));
    for (key, wrong) in [("side", Value::from("elsewhere")), ("kind", Value::Null), ("more", Value::from(1))]
    {
        let mut value = good.clone();
        value["left"][0][key] = wrong;
        assert!(fits("cleanup", &value).is_err(), "{value}");
    }
    assert!(fits("cleanup", &serde_json::json!({ "removed": [] })).is_err());

    let (source, target) = (filled(15, 10), server(17).create_database("target"));
    let between = |command| Pgstream::between(command, &source, &target).args(["--json"]);
    between("schema").run().expect_code(0);
    between("migrate").args(["--method", "copy"]).run().expect_code(0);
    between("cleanup").args(["--yes"]).run().expect_code(0);
}

#[test]
fn manual_pages_completions_and_the_dashboard_come_from_the_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8");
    Pgstream::new("generate").args(["man", path]).run().expect_code(0);
    let page = |name: &str| fs::read_to_string(Path::new(path).join(name)).expect("the page is there");
    assert!(page("pgstream.1").contains("pgstream\\-migrate"), "{}", page("pgstream.1"));
    assert!(page("pgstream-migrate.1").contains("\\-\\-exclude\\-database"));
    let bash = Pgstream::new("generate").args(["completions", "bash"]).run().expect_code(0);
    assert!(bash.stdout.contains("--exclude-database") && bash.stdout.contains("complete -F _pgstream"));
    let dashboard = Pgstream::new("generate").args(["dashboard"]).run().expect_code(0);
    let dashboard: Value = serde_json::from_str(&dashboard.stdout).expect("it is JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 5));
}
