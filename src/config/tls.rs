//! What is demanded of TLS: `sslmode`, `sslnegotiation`, certificates and versions (manual: "SSL Support" of libpq).
//!
//! In: parameters and the home directory, where `~/.postgresql/` may hold `root.crt`, `root.crl`, `postgresql.crt` and
//! `postgresql.key`. Out: [`Tls`], with every path decided. Files are only looked for here, and the private key's
//! permissions checked; the wire layer reads them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use super::environment::Environment;
use super::parameters::{Keyword, Parameters, invalid_value};

/// The six values of `sslmode`, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Only without TLS.
    Disable,
    /// Without TLS first; with TLS if the server refuses that.
    Allow,
    /// With TLS first; without if the server has none.
    Prefer,
    /// Only with TLS.
    Require,
    /// Only with TLS and a certificate that a trusted root signed.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be for the host's name.
    VerifyFull,
}

const MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

impl SslMode {
    /// The mode as it is written.
    pub fn as_str(self) -> &'static str {
        MODES[self as usize].0
    }
}

/// How TLS is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslNegotiation {
    /// By an SSLRequest, as every version of the server knows it.
    Postgres,
    /// By the TLS handshake itself, with ALPN: servers of version 17 and newer.
    Direct,
}

/// What of the server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verification {
    /// Nothing.
    None,
    /// That a trusted root signed it.
    Chain,
    /// That a trusted root signed it, and that it is for the host's name.
    ChainAndHost,
}

/// The roots that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// Those of the operating system (`sslrootcert=system`).
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// A version of TLS that pgstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Everything about TLS, decided. It concerns TCP hosts only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Whether TLS is used.
    pub mode: SslMode,
    /// How it is started.
    pub negotiation: SslNegotiation,
    /// What is verified. Where a root certificate is at hand, the chain is verified in the weaker modes too, as libpq
    /// does it: so `require` with a `~/.postgresql/root.crt` is `verify-ca`.
    pub verification: Verification,
    /// The trusted roots; present unless nothing is verified.
    pub root_cert: Option<RootCert>,
    /// The PEM files of the certificate and the private key that are shown to a server which asks.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether the connection must fail unless the server asks for the certificate (`sslcertmode=require`).
    pub certificate_required: bool,
    /// PEM files of revocation lists; empty unless the chain is verified.
    pub crl: Vec<PathBuf>,
    /// Whether the host's name is sent in the handshake (Server Name Indication).
    pub sni: bool,
    /// The oldest version to accept.
    pub min_protocol_version: TlsVersion,
    /// The newest version to offer, if limited.
    pub max_protocol_version: Option<TlsVersion>,
}

/// Decides everything about TLS. Files matter only when `tcp` says that a host is reached by TCP.
pub(super) fn resolve(
    parameters: &Parameters,
    environment: &Environment,
    tcp: bool,
    warnings: &mut Vec<String>,
) -> Result<Tls> {
    let system_roots = parameters.bytes(Keyword::Sslrootcert) == Some(b"system");
    let default = if system_roots { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = parameters.choice(Keyword::Sslmode, default, &MODES)?;
    let negotiation = parameters.choice(
        Keyword::Sslnegotiation,
        SslNegotiation::Postgres,
        &[("postgres", SslNegotiation::Postgres), ("direct", SslNegotiation::Direct)],
    )?;
    if negotiation == SslNegotiation::Direct && mode < SslMode::Require {
        return Err(Error::usage(format!(
            "weak sslmode \"{}\" may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \"verify-full\")",
            mode.as_str()
        )));
    }
    if system_roots && mode != SslMode::VerifyFull {
        return Err(Error::usage(format!(
            "weak sslmode \"{}\" may not be used with sslrootcert=system (use \"verify-full\")",
            mode.as_str()
        )));
    }
    let (min_protocol_version, max_protocol_version) = versions(parameters)?;
    let certificate_mode = parameters.choice(
        Keyword::Sslcertmode,
        CertificateMode::Allow,
        &[
            ("disable", CertificateMode::Disable),
            ("allow", CertificateMode::Allow),
            ("require", CertificateMode::Require),
        ],
    )?;
    if parameters.filled(Keyword::Sslkeylogfile).is_some() {
        return Err(Error::usage("connection option \"sslkeylogfile\" is not supported")
            .with_detail("pgstream does not write the keys of its connections to a file."));
    }

    let mut tls = Tls {
        mode,
        negotiation,
        verification: Verification::None,
        root_cert: None,
        certificate: None,
        certificate_required: certificate_mode == CertificateMode::Require,
        crl: Vec::new(),
        sni: parameters.bytes(Keyword::Sslsni).is_none_or(|value| value.starts_with(b"1")),
        min_protocol_version,
        max_protocol_version,
    };
    if tcp && mode != SslMode::Disable {
        tls.root_cert = root_cert(parameters, environment, mode, warnings)?;
        tls.verification = match (&tls.root_cert, mode) {
            (None, _) => Verification::None,
            (Some(_), SslMode::VerifyFull) => Verification::ChainAndHost,
            (Some(_), _) => Verification::Chain,
        };
        if tls.root_cert.is_some() {
            tls.crl = crl(parameters, environment, warnings)?;
        }
        if certificate_mode != CertificateMode::Disable {
            tls.certificate = certificate(parameters, environment, mode, warnings)?;
        }
    }
    Ok(tls)
}

#[derive(Clone, Copy, PartialEq)]
enum CertificateMode {
    Disable,
    Allow,
    Require,
}

fn root_cert(
    parameters: &Parameters,
    environment: &Environment,
    mode: SslMode,
    warnings: &mut Vec<String>,
) -> Result<Option<RootCert>> {
    let given = parameters.path(Keyword::Sslrootcert);
    if given.as_deref() == Some(Path::new("system")) {
        return Ok(Some(RootCert::System));
    }
    let path = given.clone().or_else(|| environment.home_file(".postgresql/root.crt"));
    match path {
        Some(path) if path.exists() => Ok(Some(RootCert::File(path))),
        Some(path) if mode >= SslMode::VerifyCa => {
            Err(Error::usage(format!("root certificate file \"{}\" does not exist", path.display()))
                .with_hint(
                    "Provide the file, use the system's trusted roots with sslrootcert=system, \
                 or change sslmode to disable server certificate verification.",
                ))
        }
        None if mode >= SslMode::VerifyCa => Err(Error::usage(
            "could not find the home directory to locate the root certificate file",
        )
        .with_hint(
            "Provide the file with sslrootcert, use the system's trusted roots with sslrootcert=system, \
                 or change sslmode to disable server certificate verification.",
        )),
        _ => {
            if let Some(path) = given {
                warnings.push(format!(
                    "root certificate file \"{}\" does not exist: the server's certificate is not verified",
                    path.display()
                ));
            }
            Ok(None)
        }
    }
}

/// The revocation lists: `sslcrl` and the files of `sslcrldir`, or the default file. As in libpq, a list that isn't
/// there is no error; a warning tells that a named one isn't used.
fn crl(
    parameters: &Parameters,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>> {
    let file = parameters.path(Keyword::Sslcrl);
    let directory = parameters.path(Keyword::Sslcrldir);
    if file.is_none() && directory.is_none() {
        return Ok(environment
            .home_file(".postgresql/root.crl")
            .filter(|path| path.exists())
            .into_iter()
            .collect());
    }
    let mut lists = Vec::new();
    if let Some(path) = file {
        if path.exists() {
            lists.push(path);
        } else {
            warnings.push(format!("certificate revocation list \"{}\" does not exist", path.display()));
        }
    }
    if let Some(path) = directory {
        let entries =
            fs::read_dir(&path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(|error| {
                Error::usage(format!("could not read directory \"{}\" of sslcrldir: {error}", path.display()))
            })?;
        lists.extend(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()));
        lists.sort();
    }
    Ok(lists)
}

/// The client's certificate and key.
fn certificate(
    parameters: &Parameters,
    environment: &Environment,
    mode: SslMode,
    warnings: &mut Vec<String>,
) -> Result<Option<(PathBuf, PathBuf)>> {
    let given = parameters.path(Keyword::Sslcert);
    let default = || environment.home_file(".postgresql/postgresql.crt");
    let Some(certificate) = given.clone().or_else(default) else { return Ok(None) };
    if !certificate.exists() {
        // libpq goes on without one: the server may not ask
        if given.is_some() {
            warnings.push(format!("certificate file \"{}\" does not exist", certificate.display()));
        }
        return Ok(None);
    }
    let key =
        parameters.path(Keyword::Sslkey).or_else(|| environment.home_file(".postgresql/postgresql.key"));
    match check_key(key) {
        Ok(key) => Ok(Some((certificate, key))),
        Err(reason) if mode >= SslMode::Require => Err(Error::usage(reason)),
        // libpq would silently go on without TLS, which is worse than without a certificate
        Err(reason) => {
            warnings.push(format!("{reason}; the client certificate is not used"));
            Ok(None)
        }
    }
}

/// The key's path, if the file is there and nobody else may read it; else why it can't be used.
fn check_key(key: Option<PathBuf>) -> std::result::Result<PathBuf, String> {
    let Some(key) = key else { return Err("certificate present, but no private key file given".to_owned()) };
    let shown = key.display();
    let Ok(metadata) = fs::metadata(&key) else {
        return Err(format!("certificate present, but not private key file \"{shown}\""));
    };
    if !metadata.is_file() {
        return Err(format!("private key file \"{shown}\" is not a regular file"));
    }
    // a key of root may be readable by a group, which is how system-wide keys are shared with services
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.permissions().mode() & forbidden != 0 {
        return Err(format!(
            "private key file \"{shown}\" has group or world access; file must have permissions u=rw (0600) or less if \
             owned by the current user, or permissions u=rw,g=r (0640) or less if owned by root"
        ));
    }
    Ok(key)
}

/// The range of TLS versions, which start at 1.2 here.
fn versions(parameters: &Parameters) -> Result<(TlsVersion, Option<TlsVersion>)> {
    const VERSIONS: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    let version = |keyword: Keyword| -> Result<Option<usize>> {
        let Some(text) = parameters.filled_text(keyword)? else { return Ok(None) };
        match VERSIONS.iter().position(|version| version.eq_ignore_ascii_case(text)) {
            Some(index) => Ok(Some(index)),
            None => Err(invalid_value(keyword, text, VERSIONS)),
        }
    };
    let min = version(Keyword::SslMinProtocolVersion)?;
    let max = version(Keyword::SslMaxProtocolVersion)?;
    if max.is_some_and(|max| max < min.unwrap_or(2).max(2)) {
        let error = Error::usage("invalid SSL protocol version range");
        return Err(match max {
            Some(index) if index < 2 => error.with_detail("pgstream supports TLSv1.2 and TLSv1.3."),
            _ => error,
        });
    }
    let supported = |index: usize| if index == 3 { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
    Ok((min.map_or(TlsVersion::V1_2, supported), max.map(supported)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves `key=value` pairs for TCP, with `files` (and modes) in `~/.postgresql/`.
    fn resolved(text: &str, files: &[(&str, u32)]) -> (Result<Tls>, Vec<String>, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".postgresql")).unwrap();
        for (name, mode) in files {
            let path = home.path().join(".postgresql").join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        let parameters = super::super::conninfo::parse(text).unwrap();
        let mut warnings = Vec::new();
        let tls = resolve(&parameters, &Environment::empty().with_home(home.path()), true, &mut warnings);
        (tls, warnings, home)
    }

    #[test]
    fn a_root_certificate_at_hand_is_used_in_every_mode() {
        use Verification::{Chain, ChainAndHost, None};
        for (mode, without, with) in [
            ("disable", Some(None), None),
            ("allow", Some(None), Chain),
            ("prefer", Some(None), Chain),
            ("require", Some(None), Chain),
            ("verify-ca", Option::None, Chain),
            ("verify-full", Option::None, ChainAndHost),
        ] {
            let text = format!("sslmode={mode}");
            assert_eq!(resolved(&text, &[]).0.ok().map(|tls| tls.verification), without, "{mode}");
            assert_eq!(resolved(&text, &[("root.crt", 0o644)]).0.unwrap().verification, with, "{mode}");
        }
    }

    #[test]
    fn the_systems_roots_go_with_verify_full_only() {
        let tls = resolved("sslrootcert=system", &[]).0.unwrap();
        assert_eq!((tls.mode, tls.root_cert), (SslMode::VerifyFull, Some(RootCert::System)));
        assert!(resolved("sslrootcert=system sslmode=verify-full", &[]).0.is_ok());
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let error = resolved(&format!("sslrootcert=system sslmode={mode}"), &[]).0.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "weak sslmode \"{mode}\" may not be used with sslrootcert=system (use \"verify-full\")"
                )
            );
        }
    }

    #[test]
    fn direct_negotiation_needs_require() {
        for mode in ["disable", "allow", "prefer"] {
            let error = resolved(&format!("sslnegotiation=direct sslmode={mode}"), &[]).0.unwrap_err();
            assert!(error.to_string().starts_with(&format!("weak sslmode \"{mode}\" may not be used with")));
        }
        assert!(resolved("sslnegotiation=direct", &[]).0.is_err());
        let tls = resolved("sslnegotiation=direct sslmode=require", &[]).0.unwrap();
        assert_eq!(tls.negotiation, SslNegotiation::Direct);
    }

    #[test]
    fn the_private_key_must_be_there_and_private() {
        let crt = ("postgresql.crt", 0o644);
        let message = |key: &[(&str, u32)]| {
            resolved("sslmode=require", &[&[crt], key].concat()).0.err().map(|error| error.to_string())
        };
        assert!(message(&[]).unwrap().starts_with("certificate present, but not private key file"));
        assert!(message(&[("postgresql.key", 0o644)]).unwrap().contains("has group or world access"));
        assert_eq!(message(&[("postgresql.key", 0o600)]), None);

        let (tls, warnings, home) = resolved("sslmode=prefer", &[crt, ("postgresql.key", 0o644)]);
        assert_eq!((tls.unwrap().certificate, warnings.len()), (None, 1));
        drop(home);
        let (tls, _, home) = resolved("", &[crt, ("postgresql.key", 0o600)]);
        let folder = home.path().join(".postgresql");
        let expected = (folder.join("postgresql.crt"), folder.join("postgresql.key"));
        assert_eq!(tls.unwrap().certificate, Some(expected));
        let (tls, ..) = resolved("sslcertmode=disable", &[crt, ("postgresql.key", 0o600)]);
        assert_eq!(tls.unwrap().certificate, None);
    }

    #[test]
    fn a_named_file_that_is_missing_is_warned_of() {
        let (tls, warnings, _) =
            resolved("sslmode=require sslrootcert=/nonexistent/r sslcert=/nonexistent/c", &[]);
        assert_eq!(tls.unwrap().verification, Verification::None);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn versions_are_a_range_that_starts_at_1_2() {
        use TlsVersion::{V1_2, V1_3};
        for (text, expected) in [
            ("", Some((V1_2, None))),
            ("ssl_min_protocol_version=''", Some((V1_2, None))),
            ("ssl_min_protocol_version=TLSv1", Some((V1_2, None))),
            ("ssl_min_protocol_version=tlsv1.3", Some((V1_3, None))),
            ("ssl_max_protocol_version=TLSv1.2", Some((V1_2, Some(V1_2)))),
            ("ssl_min_protocol_version=TLSv1.1 ssl_max_protocol_version=TLSv1.3", Some((V1_2, Some(V1_3)))),
            ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", None),
            ("ssl_max_protocol_version=TLSv1.1", None),
            ("ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1", None),
            ("ssl_min_protocol_version=SSLv3", None),
        ] {
            let range =
                resolved(text, &[]).0.ok().map(|tls| (tls.min_protocol_version, tls.max_protocol_version));
            assert_eq!(range, expected, "{text}");
        }
    }
}
