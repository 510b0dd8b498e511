//! Whether the server's certificate is trusted, and whether the server holds its key.
//!
//! The chain is verified by webpki. Two kinds of certificate that webpki refuses and OpenSSL takes are common on
//! PostgreSQL servers, and are verified here: a self-signed one that is its own root, and one of X.509 version 1 that a
//! root signed directly. The server's signature in the handshake is always verified: channel binding relies on it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate;

/// Verifies as much as the mode asks for.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Option<Trust>,
}

#[derive(Debug)]
struct Trust {
    roots: Vec<CertificateDer<'static>>,
    chain: Arc<WebPkiServerVerifier>,
    /// Revocation lists are consulted by webpki only, so what it can't read is not taken when there are any.
    revocation: bool,
    /// The name that the certificate must be for.
    host: Option<String>,
}

impl Verifier {
    /// Takes every certificate.
    pub(super) fn trusting(algorithms: WebPkiSupportedAlgorithms) -> Verifier {
        Verifier { algorithms, trust: None }
    }

    /// Takes a certificate that one of `roots` signed, that no list revokes, and that is for `host` if there is one.
    ///
    /// # Errors
    /// The reason why the roots or the lists can't be used.
    pub(super) fn new(
        roots: Vec<CertificateDer<'static>>,
        lists: Vec<CertificateRevocationListDer<'static>>,
        host: Option<String>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Verifier, String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let revocation = !lists.is_empty();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .with_crls(lists)
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Verifier { algorithms, trust: Some(Trust { roots, chain, revocation, host }) })
    }

    /// Verifies a signature with the key of a certificate that webpki can't read.
    fn verify_with_raw_key(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
        tried: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
        let algorithms = known.map(|(_, algorithms)| *algorithms).unwrap_or_default();
        if certificate::verify_signature(cert, algorithms.iter().take(tried), message, signature.signature())
        {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        match trust.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(_) => {}
            // webpki looks at names last, and has other rules for them
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(_)
                if !trust.revocation
                    && certificate::is_trusted_directly(
                        end_entity,
                        &trust.roots,
                        self.algorithms.all,
                        now,
                    ) => {}
            Err(error) => return Err(error),
        }
        if let Some(host) = &trust.host {
            certificate::verify_host(end_entity, host).map_err(|presented| {
                let expected = server_name.to_owned();
                Error::from(CertificateError::NotValidForNameContext { expected, presented })
            })?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls12_signature(message, cert, signature, &self.algorithms) {
            Err(Error::InvalidCertificate(problem)) if problem != CertificateError::BadSignature => {
                self.verify_with_raw_key(message, cert, signature, usize::MAX)
            }
            result => result,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, cert, signature, &self.algorithms) {
            // in TLS 1.3 a scheme names one algorithm, the first
            Err(Error::InvalidCertificate(problem)) if problem != CertificateError::BadSignature => {
                self.verify_with_raw_key(message, cert, signature, 1)
            }
            result => result,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
