//! The dashboard over HTTP: one page with its style and script, and the object that it shows.
//!
//! In: connections of browsers, which are not trusted. Out: four answers to GET and HEAD, refusals to everything else; nothing can be changed.
//! What may fail: a connection, which is then closed.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Shared;
use crate::wire::Listener;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Connections that are served at the same time; more wait.
const CONNECTIONS: usize = 32;
/// How long a browser may take for a request, and stay without one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Headers of every answer. The page may load what is here and nothing else, run no script that came with data, and be framed by nobody.
const HEADERS: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Serves until it is dropped, and every connection with it.
pub(super) async fn serve(listener: Listener, address: SocketAddr, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "the dashboard could not take a connection");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let shared = shared.clone();
        connections.spawn(async move {
            let _permit = permit;
            let service = service_fn(|request| {
                let answer = answer(&request, address, &shared);
                async { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection to the dashboard broke");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, address: SocketAddr, shared: &Shared) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if !is_meant(host, address) {
        return refusal(StatusCode::MISDIRECTED_REQUEST, "this name is not the dashboard's\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = refusal(StatusCode::METHOD_NOT_ALLOWED, "the dashboard only shows\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/" => response(StatusCode::OK, "text/html; charset=utf-8", PAGE),
        "/page.css" => response(StatusCode::OK, "text/css; charset=utf-8", STYLE),
        "/page.js" => response(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
        "/data.json" => response(StatusCode::OK, "application/json", shared.object().to_string()),
        _ => refusal(StatusCode::NOT_FOUND, "nothing is here\n"),
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Whether a request is for us. A page of somebody else's may give its own name our loopback address ("DNS rebinding"), and would then be
/// allowed to read the answer; what only this host can reach has only this host's names. Who listens elsewhere has chosen to be seen.
fn is_meant(host: Option<&str>, address: SocketAddr) -> bool {
    if !address.ip().is_loopback() {
        return true;
    }
    let Some(host) = host else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_answered_on_a_loopback_address() {
        let here: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        for host in ["127.0.0.1:8080", "localhost", "LOCALHOST:9", "[::1]:8080", "127.1.2.3"] {
            assert!(is_meant(Some(host), here), "{host}");
        }
        for host in ["evil.example:8080", "evil.example", "192.0.2.1", "localhost.evil.example", "", ":80"] {
            assert!(!is_meant(Some(host), here), "{host}");
        }
        assert!(!is_meant(None, here));
        assert!(is_meant(Some("db.example.com"), "0.0.0.0:8080".parse().unwrap()));
    }

    #[test]
    fn the_page_refers_to_nothing_outside() {
        for text in [PAGE, STYLE, SCRIPT] {
            // The name of SVG's elements is a name, and nobody fetches it.
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("://"), "{text}");
        }
        // Data is put there as text, never as markup.
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!SCRIPT.contains(way), "{way}");
        }
    }
}
