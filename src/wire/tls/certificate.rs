//! What is read from the server's certificate: the hash for channel binding, the hosts it is for, its key.

use std::net::IpAddr;
use std::time::Duration;

use ring::digest;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{AnyRef, ContextSpecific};
use x509_cert::der::{Decode, Encode, TagNumber};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// The `tls-server-end-point` channel binding (RFC 5929, 4.1): the certificate's hash by the hash function of its
/// signature, SHA-256 in place of MD5 and SHA-1. None where the signature has no such function, as with Ed25519.
pub(super) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm;
    let hash = match algorithm.oid.to_string().as_str() {
        // md5WithRSAEncryption, sha1WithRSAEncryption, sha256With…, ecdsa-with-SHA1, ecdsa-with-SHA256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        "1.2.840.113549.1.1.10" => pss_hash(&algorithm)?,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// The hash function of an RSASSA-PSS signature: the first of its parameters (RFC 4055, 3.1).
fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<&'static digest::Algorithm> {
    let parameters = algorithm.parameters.as_ref()?.to_der().ok()?;
    let content = AnyRef::from_der(&parameters).ok()?.value();
    let mut reader = x509_cert::der::SliceReader::new(content).ok()?;
    let hash =
        ContextSpecific::<AlgorithmIdentifierOwned>::decode_explicit(&mut reader, TagNumber::N0).ok()?;
    match hash.map(|hash| hash.value.oid.to_string()).as_deref() {
        // SHA-1 is the default
        None | Some("1.3.14.3.2.26" | "2.16.840.1.101.3.4.2.1") => Some(&digest::SHA256),
        Some("2.16.840.1.101.3.4.2.2") => Some(&digest::SHA384),
        Some("2.16.840.1.101.3.4.2.3") => Some(&digest::SHA512),
        Some(_) => None,
    }
}

/// The certificate's SubjectPublicKeyInfo, in DER.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Certificate::from_der(certificate).ok()?.tbs_certificate.subject_public_key_info.to_der().ok()
}

/// Whether the certificate is for `host`, by libpq's rules (`pgtls_verify_peer_name_matches_certificate_guts`): the
/// alternative names count, and the common name where none of them is of the host's kind.
///
/// # Errors
/// The names that the certificate is for.
pub(super) fn verify_host(certificate: &CertificateDer<'_>, host: &str) -> Result<(), Vec<String>> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Err(Vec::new()) };
    let address: Option<IpAddr> = host.parse().ok();
    let mut presented = Vec::new();
    let mut same_kind = false;
    let alternatives = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
    for name in alternatives.into_iter().flat_map(|(_, names)| names.0) {
        match name {
            GeneralName::DnsName(name) => {
                same_kind |= address.is_none();
                if name_matches(name.as_str(), host) {
                    return Ok(());
                }
                presented.push(name.to_string());
            }
            GeneralName::IpAddress(octets) => {
                same_kind |= address.is_some();
                let Some(named) = ip_address(octets.as_bytes()) else { continue };
                if address == Some(named) {
                    return Ok(());
                }
                presented.push(named.to_string());
            }
            _ => {}
        }
    }
    if !same_kind && let Some(name) = common_name(&certificate) {
        if name_matches(&name, host) {
            return Ok(());
        }
        presented.push(name);
    }
    Err(presented)
}

/// Case doesn't matter; `*.` stands for exactly one label at the start.
fn name_matches(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => !label.is_empty() && domain.eq_ignore_ascii_case(rest),
        _ => false,
    }
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let names = certificate.tbs_certificate.subject.0.iter().flat_map(|name| name.0.iter());
    let name = names.into_iter().find(|attribute| attribute.oid.to_string() == "2.5.4.3")?;
    Some(String::from_utf8_lossy(name.value.value()).into_owned())
}

/// Whether a certificate that webpki doesn't take is trusted all the same: one of the roots itself, or a certificate of
/// version 1, which has no extensions, that a root signed.
pub(super) fn is_trusted_directly(
    certificate: &CertificateDer<'_>,
    roots: &[CertificateDer<'_>],
    algorithms: &[&'static dyn SignatureVerificationAlgorithm],
    now: UnixTime,
) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else { return false };
    if !is_valid_at(&parsed, now) {
        return false;
    }
    if roots.iter().any(|root| root.as_ref() == certificate.as_ref()) {
        return true;
    }
    let Ok(signed) = parsed.tbs_certificate.to_der() else { return false };
    let Some(algorithm) = content(&parsed.signature_algorithm) else { return false };
    parsed.tbs_certificate.version == Version::V1
        && roots.iter().any(|root| {
            let may_sign = Certificate::from_der(root).is_ok_and(|issuer| {
                issuer.tbs_certificate.subject == parsed.tbs_certificate.issuer
                    && is_valid_at(&issuer, now)
                    && is_authority(&issuer)
            });
            let algorithms = algorithms.iter().filter(|known| known.signature_alg_id().as_ref() == algorithm);
            may_sign && verify_signature(root, algorithms, &signed, parsed.signature.raw_bytes())
        })
}

fn is_valid_at(certificate: &Certificate, now: UnixTime) -> bool {
    let validity = &certificate.tbs_certificate.validity;
    let now = Duration::from_secs(now.as_secs());
    validity.not_before.to_unix_duration() <= now && now <= validity.not_after.to_unix_duration()
}

/// Whether a root may sign others: it says so, or is of a version that can't say.
fn is_authority(certificate: &Certificate) -> bool {
    match certificate.tbs_certificate.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) => constraints.ca,
        Ok(None) => certificate.tbs_certificate.version == Version::V1,
        Err(_) => false,
    }
}

/// Whether the signature over `message` is by the certificate's key and one of the algorithms.
pub(super) fn verify_signature<'a>(
    certificate: &CertificateDer<'_>,
    algorithms: impl Iterator<Item = &'a &'static dyn SignatureVerificationAlgorithm>,
    message: &[u8],
    signature: &[u8],
) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let key = &certificate.tbs_certificate.subject_public_key_info;
    let (Some(kind), Some(bits)) = (content(&key.algorithm), key.subject_public_key.as_bytes()) else {
        return false;
    };
    algorithms
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind)
        .any(|algorithm| algorithm.verify_signature(bits, message, signature).is_ok())
}

/// An AlgorithmIdentifier's DER without the header, which is how webpki's algorithms name theirs.
fn content(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    AnyRef::from_der(&der).ok().map(|any| any.value().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, host, expected) in [
            ("db.example.com", "db.example.com", true),
            ("DB.example.com", "db.EXAMPLE.com", true),
            ("db.example.com", "example.com", false),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("*", "localhost", false),
            ("127.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(name_matches(pattern, host), expected, "{pattern} {host}");
        }
    }
}
