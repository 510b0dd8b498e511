//! Opening a session: addresses, sockets, encryption, login, and the choice among several hosts.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgstream_proto::auth::{AuthError, Login};
use pgstream_proto::backend::{AuthenticationRequest, Message};
use pgstream_proto::frame::{self, Limits};
use pgstream_proto::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, Identity};
use super::settings::Settings;
use super::stream::Stream;
use super::tls;
use crate::config::{
    Address, ChannelBinding, Config, Host, ProtocolVersion, Secret, Side, SslMode, SslNegotiation,
    TargetSessionAttrs,
};
use crate::error::{Error, ErrorKind, Result, io_reason};

/// One address of one host, with the way to encrypt that is to be tried or was used.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// As the user wrote the host, for messages and for the certificate's name.
    host: String,
    port: u16,
    place: Place,
    password: Option<Secret>,
    encryption: Encryption,
}

#[derive(Debug, Clone)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Never,
    IfOffered,
    Always,
}

impl Endpoint {
    fn with(&self, encryption: Encryption) -> Endpoint {
        Endpoint { encryption, ..self.clone() }
    }

    fn describe(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("socket \"{}\"", path.display()),
            Place::Tcp(address) if self.host == address.ip().to_string() => {
                format!("host \"{}\", port {}", self.host, self.port)
            }
            Place::Tcp(address) => {
                format!("host \"{}\" ({}), port {}", self.host, address.ip(), self.port)
            }
        }
    }
}

/// A connected socket before login.
pub(super) struct Opened {
    pub(super) stream: Stream,
    /// The `tls-server-end-point` channel binding, where the socket is encrypted.
    pub(super) server_end_point: Option<Vec<u8>>,
}

/// Opens a session on the first host that answers and fits `target_session_attrs`.
///
/// # Errors
/// When no host does: one error that lists every attempt. A host that refuses the login ends the search, as in libpq.
pub(super) async fn connect(config: &Config, side: Side, settings: &Settings) -> Result<Connection> {
    let mut failures = Vec::new();
    let passes: &[TargetSessionAttrs] = match config.target_session_attrs {
        TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        ref other => std::slice::from_ref(other),
    };
    for wanted in passes {
        for endpoint in endpoints(config, &mut failures).await {
            match session(config, side, settings, endpoint.clone(), *wanted).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    let fatal =
                        error.notice().is_some_and(|n| matches!(n.sqlstate().class(), "28" | "3D" | "42"));
                    failures.push((endpoint.describe(), error));
                    if fatal {
                        return Err(no_session(config, side, failures));
                    }
                }
            }
        }
    }
    Err(no_session(config, side, failures))
}

/// One error of all failed attempts: the last one leads, the others follow in the detail.
fn no_session(config: &Config, side: Side, mut failures: Vec<(String, Error)>) -> Error {
    let Some((place, error)) = failures.pop() else {
        return Error::connection(format!("could not connect to the {side}: no host is given"));
    };
    let hint = error.hint().map(str::to_owned).or_else(|| hint_for(config, side, &error));
    let kind = match error.sqlstate().map(|s| s.as_str().to_owned()).as_deref() {
        Some(state) if state.starts_with("28") || state.starts_with("3D") => ErrorKind::Usage,
        _ if error.kind() == ErrorKind::Usage => ErrorKind::Usage,
        _ => ErrorKind::Connection,
    };
    let mut result = error.context(format!("could not connect to the {side} at {place}")).with_kind(kind);
    for (place, error) in &failures {
        result = result.with_detail(format!("Before that, {place}: {error}."));
    }
    match hint {
        Some(hint) => result.with_hint(hint),
        None => result,
    }
}

fn hint_for(config: &Config, side: Side, error: &Error) -> Option<String> {
    let state = error.sqlstate().map(|s| s.as_str().to_owned());
    Some(match state.as_deref() {
        Some("28P01") => format!(
            "Check the user name and the password of --{side} (the URI, PGPASSWORD or a password file)."
        ),
        Some("28000") => {
            format!("Check pg_hba.conf of the {side} for user \"{}\" and the sslmode used.", config.user)
        }
        Some("3D000") => format!(
            "Create it with CREATE DATABASE {}, or name another database in --{side}.",
            crate::sql::ident(&config.dbname)
        ),
        Some("53300") => {
            format!("Free connections on the {side}, raise its max_connections, or run with fewer --jobs.")
        }
        Some("57P03") => {
            "Wait until the server accepts connections, then run the same command again.".to_owned()
        }
        Some(_) => return None,
        None if error.kind() == ErrorKind::Connection => {
            format!(
                "Check that the server runs, that host and port of --{side} are right, and that no firewall is between."
            )
        }
        None => return None,
    })
}

/// Every address of every host, in the order in which they are to be tried. Names that don't resolve go to `failures`.
async fn endpoints(config: &Config, failures: &mut Vec<(String, Error)>) -> Vec<Endpoint> {
    let first = match config.tls.mode {
        SslMode::Disable | SslMode::Allow => Encryption::Never,
        SslMode::Prefer => Encryption::IfOffered,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Encryption::Always,
    };
    let mut endpoints = Vec::new();
    for host in &config.hosts {
        match places(host, config.connect_timeout).await {
            Ok(places) => endpoints.extend(places.into_iter().map(|(name, place)| Endpoint {
                host: name,
                port: host.port,
                encryption: if matches!(place, Place::Unix(_)) { Encryption::Never } else { first },
                place,
                password: host.password.clone(),
            })),
            Err((name, error)) => failures.push((format!("host \"{name}\""), error)),
        }
    }
    if config.load_balance_hosts {
        let random = RandomState::new();
        endpoints.sort_by_key(|e| random.hash_one((&e.host, e.port, e.describe())));
    }
    endpoints
}

async fn places(host: &Host, limit: Option<Duration>) -> Result<Vec<(String, Place)>, (String, Error)> {
    match &host.address {
        Address::Unix(directory) => {
            let path = host.socket_path().unwrap_or_else(|| directory.clone());
            Ok(vec![(directory.display().to_string(), Place::Unix(path))])
        }
        Address::Tcp { host: name, hostaddr: Some(ip) } => {
            Ok(vec![(name.clone(), Place::Tcp(SocketAddr::new(*ip, host.port)))])
        }
        Address::Tcp { host: name, hostaddr: None } => {
            let look_up = async {
                tokio::net::lookup_host((name.as_str(), host.port)).await.map_err(|e| {
                    Error::connection(format!("could not translate host name \"{name}\" to address: {e}"))
                })
            };
            match within(limit, look_up).await {
                Ok(found) => Ok(found.map(|address| (name.clone(), Place::Tcp(address))).collect()),
                Err(error) => Err((name.clone(), error)),
            }
        }
    }
}

/// Logs in at one address; `allow` and `prefer` have a second try with the other kind of encryption.
async fn session(
    config: &Config,
    side: Side,
    settings: &Settings,
    endpoint: Endpoint,
    wanted: TargetSessionAttrs,
) -> Result<Connection> {
    let tcp = matches!(endpoint.place, Place::Tcp(_));
    let second = match config.tls.mode {
        SslMode::Allow if tcp => Some(endpoint.with(Encryption::Always)),
        SslMode::Prefer if tcp => Some(endpoint.with(Encryption::Never)),
        _ => None,
    };
    let connection =
        match (within(config.connect_timeout, log_in(config, side, settings, endpoint)).await, second) {
            (Ok(connection), _) => Ok(connection),
            // A network that doesn't answer won't answer better in another mode.
            (Err(error), Some(second)) if error.notice().is_some() || error.kind() == ErrorKind::Failed => {
                within(config.connect_timeout, log_in(config, side, settings, second))
                    .await
                    .map_err(|_| error)
            }
            (Err(error), _) => Err(error),
        };
    let mut connection = connection?;
    fits(&mut connection, wanted).await?;
    Ok(connection)
}

async fn fits(connection: &mut Connection, wanted: TargetSessionAttrs) -> Result<()> {
    if wanted == TargetSessionAttrs::Any {
        return Ok(());
    }
    // A walsender knows the simple protocol alone.
    let rows = connection
        .simple("SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')")
        .await?;
    let row = rows.first();
    let standby = row.is_some_and(|r| r.is_true(0));
    let read_only = row.is_some_and(|r| r.text(1) == Some("on"));
    let refusal = match wanted {
        TargetSessionAttrs::ReadWrite if read_only => "session is read-only",
        TargetSessionAttrs::ReadOnly if !read_only => "session is not read-only",
        TargetSessionAttrs::Primary if standby => "server is in hot standby mode",
        TargetSessionAttrs::Standby if !standby => "server is not in hot standby mode",
        _ => return Ok(()),
    };
    Err(Error::connection(refusal))
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = Result<T>>) -> Result<T> {
    match limit {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::connection(format!("timeout expired after {} s", limit.as_secs()))),
        },
    }
}

/// Connects the socket and encrypts it as the endpoint says. What a server sends that `gathers` is read now and then, see [`narrow`].
pub(super) async fn open(config: &Config, endpoint: &Endpoint, gathers: bool) -> Result<Opened> {
    let refused = |e: std::io::Error| Error::connection(io_reason(&e));
    let mut tcp = match &endpoint.place {
        Place::Unix(path) => {
            #[cfg(test)]
            if let Some(connected) = super::simulated::connect(path) {
                let stream = Stream::Simulated(connected.map_err(refused)?);
                return Ok(Opened { stream, server_end_point: None });
            }
            let socket = unix_socket(path).await.map_err(refused)?;
            if let Some(peer) = &config.required_peer {
                let uid = socket.peer_cred().map_err(refused)?.uid();
                if uid != peer.uid {
                    return Err(Error::usage(format!(
                        "requirepeer specifies \"{}\", but the server's process runs as user ID {uid}",
                        peer.user
                    )));
                }
            }
            return Ok(Opened { stream: Stream::Unix(socket.into()), server_end_point: None });
        }
        Place::Tcp(address) => {
            let begun = Instant::now();
            let tcp = TcpStream::connect(address).await.map_err(refused)?;
            // One round trip, in which no process of the server has a part.
            if gathers && begun.elapsed() <= NEAR {
                narrow(&tcp).map_err(refused)?;
            }
            tcp
        }
    };
    tune(&tcp, config).map_err(refused)?;
    let direct = config.tls.negotiation == SslNegotiation::Direct;
    let encrypted = match endpoint.encryption {
        Encryption::Never => false,
        Encryption::Always if direct => true,
        Encryption::Always | Encryption::IfOffered => {
            let offered = ask_for_tls(&mut tcp).await?;
            if !offered && endpoint.encryption == Encryption::Always {
                return Err(Error::failed("server does not support SSL, but SSL was required").with_hint(
                    "Use sslmode=prefer or disable, or turn ssl on in the server's postgresql.conf.",
                ));
            }
            offered
        }
    };
    if !encrypted {
        return Ok(Opened { stream: Stream::Tcp(tcp.into()), server_end_point: None });
    }
    let tls::Negotiated { stream, server_end_point } =
        tls::handshake(tcp, &config.tls, &endpoint.host, direct).await?;
    Ok(Opened { stream: Stream::Tls(Box::new(stream)), server_end_point })
}

/// A path that starts with `@` is a name in Linux's abstract namespace.
async fn unix_socket(path: &Path) -> std::io::Result<UnixStream> {
    use std::os::unix::ffi::OsStrExt;

    let Some(name) = path.as_os_str().as_bytes().strip_prefix(b"@") else {
        return UnixStream::connect(path).await;
    };
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixStream as BlockingStream};
        let socket = BlockingStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = name;
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

/// Keepalives where the connection string doesn't say: the system's own would let a run wait two hours for a host that is gone. Probes after 30
/// seconds of silence, three of them 10 seconds apart, notice it within a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// `tcp_user_timeout` stays off unless asked for: it would also end a COPY into a table that another session keeps locked for long.
fn tune(tcp: &TcpStream, config: &Config) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalives = &config.keepalives;
    if keepalives.enabled {
        let keepalive = TcpKeepalive::new()
            .with_time(keepalives.idle.unwrap_or(KEEPALIVE_IDLE))
            .with_interval(keepalives.interval.unwrap_or(KEEPALIVE_INTERVAL))
            .with_retries(keepalives.count.unwrap_or(KEEPALIVE_COUNT));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(config.tcp_user_timeout)?;
    Ok(())
}

/// A server is near when a connection to it is there within this time.
const NEAR: Duration = Duration::from_millis(1);

/// What a near server may have sent and we have not read, in bytes.
const NEAR_WINDOW: usize = 64 << 10;

/// Keeps the receive window small. A walsender sends each message by itself, which costs it ten times less where the window is closed and the message joins
/// those which wait; so the stream is read now and then ([`Settings::replication`]), and between these times the window has to close soon. Left
/// to itself, it grows until it never does. A far server needs it wide, as what fits into it is all that one round trip brings.
fn narrow(tcp: &TcpStream) -> std::io::Result<()> {
    SockRef::from(tcp).set_recv_buffer_size(NEAR_WINDOW)
}

/// Sends SSLRequest and reads the one byte of the answer, and no byte more: what follows belongs to the encrypted
/// stream, and anything sent before it could have been slipped in by a third party (CVE-2021-23222).
async fn ask_for_tls(tcp: &mut TcpStream) -> Result<bool> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let lost = |e: std::io::Error| Error::connection(format!("could not negotiate SSL: {e}"));
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(lost)?;
    match tcp.read_u8().await.map_err(lost)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // A server too old or too busy answers with an error, in clear and unauthenticated: it isn't shown.
        _ => Err(Error::connection("received invalid response to SSL negotiation")),
    }
}

async fn log_in(config: &Config, side: Side, settings: &Settings, endpoint: Endpoint) -> Result<Connection> {
    let gathers = settings.is_replication();
    let Opened { mut stream, server_end_point } = open(config, &endpoint, gathers).await?;
    let broken = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::connection("server closed the connection unexpectedly"),
        _ => Error::connection(io_reason(&e)),
    };
    let mut outbound = BytesMut::new();
    let mut inbound = BytesMut::new();
    let mut parameters = vec![("user", config.user.as_str()), ("database", config.dbname.as_str())];
    parameters.push(("application_name", config.application_name.as_deref().unwrap_or("pgstream")));
    if let Some(options) = &config.options {
        parameters.push(("options", options));
    }
    let session = settings.parameters(side, config);
    parameters.extend(session.iter().map(|(name, value)| (*name, value.as_ref())));
    // 3.0 unless the operator insists on 3.2, as libpq has it: some poolers refuse to negotiate.
    let version = match config.protocol_versions.0 {
        ProtocolVersion::V3_0 => frontend::VERSION_3_0,
        ProtocolVersion::V3_2 => frontend::VERSION_3_2,
    };
    frontend::startup(parameters, version, &mut outbound)
        .map_err(|e| Error::usage(format!("invalid connection parameter: {e}")))?;

    let channel_binding = match (config.channel_binding, &stream) {
        (wanted, Stream::Tls(_)) => wanted,
        // Without encryption there is no channel to bind to.
        (ChannelBinding::Prefer, _) => ChannelBinding::Disable,
        (wanted, _) => wanted,
    };
    let password = endpoint.password.as_ref().map(Secret::expose);
    let login = Login::new(&config.user, password, channel_binding, server_end_point);
    let mut login = Some(login.with_require_auth(config.require_auth));
    let mut identity = Identity::default();
    loop {
        stream.drain(&mut outbound, &mut inbound).await.map_err(broken)?;
        let frame = loop {
            match frame::split(&mut inbound, &Limits::LOGIN).map_err(|e| Error::connection(e.to_string()))? {
                Some(frame) => break frame,
                None => stream.fill(&mut inbound).await.map_err(broken)?,
            }
        };
        let message = Message::parse(frame).map_err(|e| Error::connection(e.to_string()))?;
        match (message, &mut login) {
            (Message::Authentication(request), Some(state)) => {
                let done = matches!(request, AuthenticationRequest::Ok);
                state.on(request, &mut outbound).map_err(|e| login_refused(side, &e))?;
                if let Some(state) = login.take_if(|_| done) {
                    state.finish().map_err(|e| Error::usage(e.to_string()))?;
                }
            }
            (Message::ErrorResponse(notice), _) => return Err(Error::server(notice)),
            (Message::NoticeResponse(notice), _) => tracing::debug!(%side, "{}", notice.message()),
            (Message::NegotiateProtocolVersion { .. }, Some(_)) if version == frontend::VERSION_3_0 => {}
            (Message::NegotiateProtocolVersion { .. }, Some(_)) => {
                return Err(Error::usage("server does not speak protocol version 3.2"));
            }
            (Message::ParameterStatus { name, value }, None) => identity.set_parameter(name, value),
            (Message::BackendKeyData { pid, key }, None) => identity.set_key(pid, key),
            (Message::ReadyForQuery(_), None) => break,
            (other, _) => {
                return Err(Error::connection(format!("unexpected {} message during login", other.name())));
            }
        }
    }
    let mut connection = Connection::new(stream, inbound, side, config.clone(), endpoint, identity);
    let version = connection.version();
    if version < 100_000 {
        return Err(Error::usage(format!(
            "the {side} runs PostgreSQL {}, and the oldest supported is 10",
            connection.parameter("server_version").unwrap_or("of an unknown version")
        )));
    }
    let versioned = settings.versioned(version, side, config).into_iter();
    let versioned: Vec<_> =
        versioned.map(|(name, value)| format!("SET {name} = {}", crate::sql::literal(&value))).collect();
    connection.set(&versioned).await?;
    Ok(connection)
}

fn login_refused(side: Side, error: &AuthError) -> Error {
    let refused = Error::usage(error.to_string());
    match error {
        AuthError::NoPassword => refused.with_hint(format!(
            "Give it in a password file (~/.pgpass, PGPASSFILE), by PGPASSWORD or by --{side}-password-file."
        )),
        AuthError::Iterations(_) => refused.with_hint(format!(
            "On the {side}: SET scram_iterations = 4096; and set the role's password anew, which is stored with the number."
        )),
        _ => refused,
    }
}

impl Endpoint {
    /// Where the session is, for messages: `host "h", port 5432`.
    pub(super) fn description(&self) -> String {
        self.describe()
    }
}
