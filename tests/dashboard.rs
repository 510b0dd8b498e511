//! The page that shows a migration at work, asked for over HTTP; `tests/dashboard.py` looks at it with a browser.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

use crate::harness::http::{self, free_port, get, request};
use crate::harness::{Cluster, Options, Pgstream, Running, server};

/// A name that would be a script, were it put into the page as it is.
const SCRIPT: &str = "<script>alert('x')</script>&<img src=x onerror=alert(1)>";

/// The object that the page shows, once it is as wanted.
#[track_caller]
fn until(port: u16, running: &mut Running, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let data = get(port, "/data.json").map(|answer| answer.body);
        let data: Option<Value> = data.and_then(|body| serde_json::from_str(&body).ok());
        if let Some(data) = data.as_ref().filter(|data| wanted(data)) {
            return data.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{data:#?}");
        assert!(!running.ended(), "it ended: {data:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_page_shows_a_migration_at_work_and_nothing_else() {
    let (source, target) = (server(16).create_database("source"), server(18).create_database("target"));
    source.execute(&format!(
        "CREATE TABLE numbers (id integer PRIMARY KEY, text text);
         INSERT INTO numbers SELECT i, repeat('row ' || i, 20) FROM generate_series(1, 5000) i;
         CREATE TABLE \"{SCRIPT}\" (a integer PRIMARY KEY)"
    ));
    let port = free_port();
    // These servers let everybody in; the password is there to be looked for.
    let with_password = |uri: String| uri.replace("//postgres@", "//postgres:c0rrect-horse@");
    let mut running = Pgstream::new("migrate")
        .args(["--source", &with_password(source.uri()), "--target", &with_password(target.uri())])
        .args(["--method", "replication", "--dashboard", &port.to_string(), "--migration-id", "move-7"])
        .spawn();
    let in_step = |data: &Value| data["databases"][0]["state"]["status"] == "syncing";
    until(port, &mut running, in_step);
    source.execute("INSERT INTO numbers SELECT i FROM generate_series(10001, 10100) i");
    let data = until(port, &mut running, |data| {
        let sampled = data["history"]["changes"].as_array().and_then(|changes| changes.last());
        in_step(data) && sampled == Some(&json!(100)) && data["databases"][0]["lag_bytes"] == 0
    });
    assert_eq!(data["migration_id"], "move-7");
    let database = &data["databases"][0];
    assert_eq!(
        (&database["name"], &database["rows_done"]),
        (&json!(target.name()), &json!(5000)),
        "{data:#}"
    );
    assert_eq!(database["state"]["slot"]["active"], true, "{data:#}");
    assert_eq!(database["state"]["slot"]["wal_status"], "reserved", "{data:#}");
    let tables = database["state"]["relations"].as_array().expect("a list");
    let names: Vec<_> = tables.iter().map(|table| table["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["numbers", SCRIPT], "the largest first");
    let history = &data["history"];
    let column = |name: &str| history[name].as_array().expect("a column").clone();
    assert!(column("at").len() > 1 && column("at").len() == column("lag_bytes").len(), "{history}");
    assert!(column("bytes").last().is_some_and(|bytes| bytes.as_u64() > Some(100_000)), "{history}");
    let log = data["log"].as_array().expect("a list");
    assert!(log.iter().any(|one| one["message"].as_str().is_some_and(|m| m.contains("the dashboard is at"))));
    assert!(!data.to_string().contains("c0rrect-horse"));

    let page = get(port, "/").expect("it is served");
    assert_eq!(page.status, 200);
    assert!(page.headers.contains("content-type: text/html; charset=utf-8"), "{}", page.headers);
    assert!(page.headers.contains("content-security-policy: default-src 'none'"), "{}", page.headers);
    assert!(page.body.contains("<title>pgstream</title>") && !page.body.contains("://"), "{}", page.body);
    for part in page.body.split(['"', '=']).filter(|text| text.starts_with("page.")) {
        assert_eq!(get(port, &format!("/{part}")).map(|answer| answer.status), Some(200), "{part}");
    }
    let here = format!("localhost:{port}");
    let status = |method, path, host: &str| request(port, method, path, host).map(|answer| answer.status);
    assert_eq!(status("GET", "/", &here), Some(200));
    assert_eq!(status("GET", "/data.json", "evil.example"), Some(421));
    assert_eq!(status("GET", "/../etc/passwd", &here), Some(404));
    for method in ["POST", "PUT", "DELETE"] {
        let refused = request(port, method, "/", &here).expect("it answers");
        assert_eq!(refused.status, 405);
        assert!(refused.headers.contains("allow: GET, HEAD"), "{}", refused.headers);
    }
    assert_eq!(request(port, "HEAD", "/", &here).map(|answer| answer.body), Some(String::new()));

    Pgstream::between("cutover", &source, &target)
        .args(["--dashboard", &free_port().to_string()])
        .run()
        .expect_code(0)
        .expect_words(&["the dashboard is at http://127.0.0.1:"]);
    running.wait().expect_code(0);
    assert!(get(port, "/").is_none());
}

#[test]
fn the_page_of_a_whole_server_shows_each_database_and_how_it_ended() {
    let (source, target) = (Cluster::start(15, &Options::default()), Cluster::start(17, &Options::default()));
    source.postgres().execute("CREATE DATABASE followed; CREATE DATABASE taken");
    source.database("followed").execute("CREATE TABLE t (a integer PRIMARY KEY)");
    source.database("taken").execute("CREATE TABLE t (a integer PRIMARY KEY)");
    target.postgres().execute("CREATE DATABASE taken");
    target.database("taken").execute("CREATE TABLE t (b text)");
    let port = free_port();
    let mut running = Pgstream::new("migrate")
        .args(["--source", &source.uri("postgres"), "--target", &target.uri("postgres"), "--all-databases"])
        .args(["--exclude-database", "postgres", "--dashboard", &format!("127.0.0.1:{port}")])
        .spawn();
    let data = until(port, &mut running, |data| {
        let databases = data["databases"].as_array().expect("a list");
        databases.iter().any(|one| one["state"]["status"] == "syncing")
            && databases.iter().any(|one| one["ended"] == true)
    });
    let databases = data["databases"].as_array().expect("a list");
    let of = |name: &str| databases.iter().find(|one| one["name"] == name).expect("it is listed");
    assert!(of("taken")["error"].as_str().is_some_and(|error| error.contains("exists already")), "{data:#}");
    assert_eq!((&of("followed")["ended"], &of("followed")["error"]), (&json!(false), &Value::Null));
    running.signal("INT");
    running.wait().expect_code(4);
}

#[test]
fn where_it_can_not_be_served_is_said_and_where_others_see_it_is_warned_of() {
    let (source, target) = (server(15).create_database("source"), server(17).create_database("target"));
    let migrate = |address: &str| {
        Pgstream::between("migrate", &source, &target).args(["--method", "copy", "--dashboard", address])
    };
    migrate("0.0.0.0:0").run().expect_code(0).expect_words(&[
        "the dashboard is at http://0.0.0.0:",
        "warning: whoever reaches this host can look at the dashboard",
    ]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let refused = migrate(&address).run().expect_code(2);
    refused.expect_words(&[&format!("could not serve the dashboard at {address}: address")]);
    migrate("here:80").run().expect_code(2).expect_words(&["neither a port nor an IP address"]);
    assert!(http::get(free_port(), "/").is_none());
}
