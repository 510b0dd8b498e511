//! TLS by rustls, with libpq's rules of what is verified.
//!
//! In: a connected socket and the resolved [`Tls`]. Out: the encrypted stream, and the hash of the server's certificate
//! that a login can be bound to. Fails when a file can't be read, the handshake fails, or the server's certificate is
//! not what the mode asks for. Such failures have the kind `Failed`, so that `sslmode=prefer` can go on without TLS as
//! it does in libpq; a file that is no certificate or key is a usage error in every mode.

mod certificate;
mod verifier;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, SignatureScheme, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::socket::Socket;
use crate::config::{RootCert, Tls, TlsVersion, Verification};
use crate::error::{Error, Result};
use verifier::Verifier;

/// The name of the protocol in ALPN, which servers of version 17 and newer know.
const ALPN: &[u8] = b"postgresql";

/// An encrypted socket.
pub(super) struct Negotiated {
    pub(super) stream: TlsStream<Socket<TcpStream>>,
    /// The hash of the server's certificate that a login can be bound to (RFC 5929).
    pub(super) server_end_point: Option<Vec<u8>>,
}

/// Encrypts `tcp`. `host` is the name as the user wrote it; `direct` tells that the handshake is the first that the
/// server hears.
pub(super) async fn handshake(tcp: TcpStream, tls: &Tls, host: &str, direct: bool) -> Result<Negotiated> {
    let identity = Arc::new(Identity::read(tls)?);
    let config = client_config(tls, host, Arc::clone(&identity))?;
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        // a name that can't be sent; the verifier compares the text
        Err(_) => {
            let peer = tcp
                .peer_addr()
                .map_err(|error| Error::connection(format!("could not use socket: {error}")))?;
            ServerName::IpAddress(peer.ip().into())
        }
    };
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, Socket::from(tcp)).await.map_err(|error| {
            match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => refusal(error, tls, host),
                None => Error::failed(format!("SSL handshake failed: {}", error.to_string().to_lowercase())),
            }
        })?;
    let (_, session) = stream.get_ref();
    if direct && session.alpn_protocol() != Some(ALPN) {
        return Err(Error::failed(
            "direct SSL connection was established without ALPN protocol negotiation extension",
        ));
    }
    if tls.certificate_required && !identity.sent.load(Ordering::Relaxed) {
        return Err(Error::failed("server accepted connection without a valid SSL certificate").with_detail(
            "With sslcertmode=require, the server must ask for a client certificate and one must be there.",
        ));
    }
    let server_end_point =
        session.peer_certificates().and_then(|chain| chain.first()).and_then(certificate::server_end_point);
    Ok(Negotiated { stream, server_end_point })
}

fn client_config(tls: &Tls, host: &str, identity: Arc<Identity>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(tls, host, &provider)?;
    let versions: Vec<&'static SupportedProtocolVersion> =
        [(TlsVersion::V1_2, &rustls::version::TLS12), (TlsVersion::V1_3, &rustls::version::TLS13)]
            .into_iter()
            .filter(|(version, _)| *version >= tls.min_protocol_version)
            .filter(|(version, _)| tls.max_protocol_version.is_none_or(|max| *version <= max))
            .map(|(_, version)| version)
            .collect();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| Error::usage(format!("could not set SSL protocol versions: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(identity);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = tls.sni;
    // each connection lives long: a ticket would only cost memory
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn verifier(tls: &Tls, host: &str, provider: &CryptoProvider) -> Result<Verifier> {
    let algorithms = provider.signature_verification_algorithms;
    let roots: Vec<CertificateDer<'static>> = match &tls.root_cert {
        _ if tls.verification == Verification::None => return Ok(Verifier::trusting(algorithms)),
        None => {
            return Err(Error::usage("no root certificate is known to verify the server's certificate with"));
        }
        Some(RootCert::System) => rustls_native_certs::load_native_certs().certs,
        Some(RootCert::File(path)) => pem("root certificate file", path)?,
    };
    let mut lists: Vec<CertificateRevocationListDer<'static>> = Vec::new();
    for path in &tls.crl {
        lists.extend(pem("certificate revocation list", path)?);
    }
    let host = (tls.verification == Verification::ChainAndHost).then(|| host.to_owned());
    Verifier::new(roots, lists, host, algorithms).map_err(|reason| {
        let roots = match &tls.root_cert {
            Some(RootCert::File(path)) => format!("root certificate file \"{}\"", path.display()),
            _ => "the system's trusted roots".to_owned(),
        };
        Error::usage(format!("could not use {roots}: {reason}"))
    })
}

/// All items of one kind in a PEM file; none is an error.
fn pem<T: PemObject>(what: &str, path: &Path) -> Result<Vec<T>> {
    let failure =
        |reason: String| Error::usage(format!("could not read {what} \"{}\": {reason}", path.display()));
    let content = fs::read(path).map_err(|error| failure(error.to_string()))?;
    let items: Vec<T> =
        T::pem_slice_iter(&content).collect::<Result<_, _>>().map_err(|error| failure(error.to_string()))?;
    if items.is_empty() { Err(failure("there is none in the file".to_owned())) } else { Ok(items) }
}

/// The client's certificate and key, shown to a server that asks.
#[derive(Debug)]
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    sent: AtomicBool,
}

impl Identity {
    fn read(tls: &Tls) -> Result<Identity> {
        let key = match &tls.certificate {
            None => None,
            Some((certificate, key)) => {
                let chain: Vec<CertificateDer<'static>> = pem("certificate file", certificate)?;
                let signer = ring::default_provider().key_provider.load_private_key(private_key(key)?);
                let signer = signer.map_err(|error| {
                    Error::usage(format!("could not use private key file \"{}\": {error}", key.display()))
                })?;
                // rustls compares them too, but only for certificates of X.509 version 3
                if certificate::public_key(&chain[0]).as_deref() != signer.public_key().as_deref() {
                    return Err(Error::usage(format!(
                        "certificate \"{}\" does not match private key file \"{}\"",
                        certificate.display(),
                        key.display()
                    )));
                }
                Some(Arc::new(CertifiedKey::new(chain, signer)))
            }
        };
        Ok(Identity { key, sent: AtomicBool::new(false) })
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.sent.store(self.key.is_some(), Ordering::Relaxed);
        self.key.clone()
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// Reads a private key, PEM or DER.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let failure = |reason: String| {
        Error::usage(format!("could not read private key file \"{}\": {reason}", path.display()))
    };
    let content = fs::read(path).map_err(|error| failure(error.to_string()))?;
    if let Ok(key) = PrivateKeyDer::from_pem_slice(&content) {
        return Ok(key);
    }
    let encrypted = [&b"ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| content.windows(mark.len()).any(|window| window == *mark)) {
        return Err(failure("encrypted keys are not supported".to_owned())
            .with_hint("Decrypt it with openssl pkey -in FILE -out FILE, and keep the result private."));
    }
    PrivateKeyDer::try_from(content).map_err(|reason| failure(reason.to_owned()))
}

/// The handshake's failure in libpq's terms.
fn refusal(error: &rustls::Error, tls: &Tls, host: &str) -> Error {
    let rustls::Error::InvalidCertificate(problem) = error else {
        return Error::failed(format!("SSL handshake failed: {error}"));
    };
    let reason = match problem {
        CertificateError::NotValidForNameContext { presented, .. } => {
            return Error::failed(format!("server certificate does not match host name \"{host}\""))
                .with_detail(match presented.as_slice() {
                    [] => "The certificate names no host.".to_owned(),
                    names => format!("The certificate is for \"{}\".", names.join("\", \"")),
                })
                .with_hint("Connect by a name that is in the certificate, or use sslmode=verify-ca.");
        }
        CertificateError::UnknownIssuer => "it is not signed by a trusted root".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::Revoked => "it is revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => "no revocation list covers it".to_owned(),
        other => other.to_string(),
    };
    let trusted = match &tls.root_cert {
        Some(RootCert::File(path)) => format!("Trusted are the roots in \"{}\".", path.display()),
        Some(RootCert::System) => "Trusted are the roots of the operating system.".to_owned(),
        None => return Error::failed(format!("could not verify the server's certificate: {reason}")),
    };
    Error::failed(format!("could not verify the server's certificate: {reason}")).with_detail(trusted)
}
