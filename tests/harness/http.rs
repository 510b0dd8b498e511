//! Asking the program's own endpoints, as a browser or a scraper does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// As they came, with lower-case names.
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// A port of this host that nobody listens at now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port()
}

/// `GET path` at a port of this host; `None` while nobody serves it.
pub(crate) fn get(port: u16, path: &str) -> Option<Answer> {
    request(port, "GET", path, &format!("127.0.0.1:{port}"))
}

/// A request by another method, or for another host's name.
pub(crate) fn request(port: u16, method: &str, path: &str, host: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (first, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = first.split(' ').nth(1)?.parse().ok()?;
    let headers = headers.lines().map(|line| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}\n", name.to_lowercase()),
        None => line.to_owned(),
    });
    Some(Answer { status, headers: headers.collect(), body: body.to_owned() })
}
