//! The connection service file (manual: "The Connection Service File"), as libpq's `parseServiceInfo` reads it.
//!
//! In: the parameters of the connection string, which may name a service. Out: the same, with what the service adds
//! and the string doesn't say. Fails when a named file or service doesn't exist, and on a line that can't be read;
//! lines are never repeated, since they may hold a password.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use super::environment::Environment;
use super::parameters::{Keyword, Parameters, is_space};

/// The longest line that libpq reads, without its end, in bytes.
const LINE_LIMIT: usize = 1022;

/// Adds the parameters of the service that `service` or `PGSERVICE` names.
pub(super) fn apply(parameters: &mut Parameters, environment: &Environment) -> Result<()> {
    let service = match parameters.bytes(Keyword::Service).or_else(|| environment.variable("PGSERVICE")) {
        Some(service) => service.to_owned(),
        None => return Ok(()),
    };
    let user_file = match environment.variable("PGSERVICEFILE") {
        Some(path) => Some(PathBuf::from(OsString::from_vec(path.to_vec()))),
        None => environment.home_file(".pg_service.conf").filter(|path| path.exists()),
    };
    if let Some(path) = user_file
        && apply_file(&path, &service, parameters)?
    {
        return Ok(());
    }
    let system_files = environment.system_directories().into_iter().map(|path| path.join("pg_service.conf"));
    if let Some(path) = system_files.into_iter().find(|path| path.exists())
        && apply_file(&path, &service, parameters)?
    {
        return Ok(());
    }
    Err(Error::usage(format!("definition of service \"{}\" not found", String::from_utf8_lossy(&service)))
        .with_hint("Services are defined in ~/.pg_service.conf, or in the file that PGSERVICEFILE names."))
}

/// Reads one file; false when it doesn't define the service.
fn apply_file(path: &Path, service: &[u8], parameters: &mut Parameters) -> Result<bool> {
    let content = fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::usage(format!("service file \"{}\" not found", path.display()))
        }
        _ => Error::usage(format!("could not read service file \"{}\": {error}", path.display())),
    })?;
    let failure = |number: usize, what: &str| {
        Error::usage(format!("{what} in service file \"{}\", line {number}", path.display()))
    };
    let mut in_service = false;
    for (index, line) in content.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        if line.len() > LINE_LIMIT {
            return Err(failure(number, "line too long"));
        }
        let line = trim(line);
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if let Some(header) = line.strip_prefix(b"[") {
            if in_service {
                return Ok(true);
            }
            in_service = header.strip_prefix(service).is_some_and(|rest| rest.starts_with(b"]"));
            continue;
        }
        if !in_service {
            continue;
        }
        if line.starts_with(b"ldap") {
            return Err(failure(number, "LDAP lookup is not supported"));
        }
        let Some(equals) = line.iter().position(|&byte| byte == b'=') else {
            return Err(failure(number, "syntax error"));
        };
        match Keyword::find(&line[..equals]) {
            Some(Keyword::Service) => {
                return Err(failure(number, "nested service specifications not supported"));
            }
            Some(keyword) => parameters.set_default(keyword, &line[equals + 1..]),
            None => return Err(failure(number, "syntax error")),
        }
    }
    Ok(in_service)
}

fn trim(mut line: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = line
        && is_space(*first)
    {
        line = rest;
    }
    while let [rest @ .., last] = line
        && is_space(*last)
    {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, service: &str, given: &[(Keyword, &str)]) -> Result<Parameters> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".pg_service.conf"), content).unwrap();
        let mut parameters = Parameters::new();
        for &(keyword, value) in given {
            parameters.set(keyword, value);
        }
        parameters.set(Keyword::Service, service);
        let environment = Environment::empty().with_home(directory.path());
        apply(&mut parameters, &environment).map(|()| parameters)
    }

    #[test]
    fn a_service_fills_what_the_string_does_not_say() {
        let content = "# comment\n[other]\nhost=x\n\n [mine] \n  host=h\nport=1\nport=2\npassword=a=b c \n[mine]\ndbname=no\n";
        let parameters = read(content, "mine", &[(Keyword::Host, "given")]).unwrap();
        assert_eq!(parameters.bytes(Keyword::Host), Some(&b"given"[..]));
        assert_eq!(parameters.bytes(Keyword::Port), Some(&b"1"[..]));
        assert_eq!(parameters.bytes(Keyword::Password), Some(&b"a=b c"[..]));
        assert_eq!(parameters.bytes(Keyword::Dbname), None);
    }

    #[test]
    fn what_libpq_refuses_is_refused_without_repeating_the_line() {
        let long = format!("[mine]\nhost={}\n", "a".repeat(LINE_LIMIT));
        for (content, reason) in [
            ("[mine]\nsecret\n", "syntax error in service file"),
            ("[mine]\nsecret=1\n", "syntax error in service file"),
            ("[mine]\nhost = secret\n", "syntax error in service file"),
            ("[mine]\nservice=secret\n", "nested service specifications not supported in service file"),
            ("[mine]\nldap://secret\n", "LDAP lookup is not supported in service file"),
            (&long, "line too long in service file"),
        ] {
            let error = read(content, "mine", &[]).unwrap_err().to_string();
            assert!(error.starts_with(reason) && error.ends_with("line 2"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_service_that_is_not_defined_is_an_error() {
        let error = read("[mine2]\nhost=h\n", "mine", &[]).unwrap_err();
        assert_eq!(error.to_string(), "definition of service \"mine\" not found");
        let mut parameters = Parameters::new();
        let environment = Environment::empty()
            .with_variable("PGSERVICE", "mine")
            .with_variable("PGSERVICEFILE", "/nonexistent");
        let error = apply(&mut parameters, &environment).unwrap_err();
        assert_eq!(error.to_string(), "service file \"/nonexistent\" not found");
    }

    #[test]
    fn the_system_file_is_read_when_the_users_does_not_define_the_service() {
        let home = tempfile::tempdir().unwrap();
        let system = tempfile::tempdir().unwrap();
        fs::write(home.path().join(".pg_service.conf"), "[a]\nhost=a\n").unwrap();
        fs::write(system.path().join("pg_service.conf"), "[a]\nhost=no\n[b]\nhost=b").unwrap();
        let system = system.path().to_str().unwrap();
        let environment = Environment::empty().with_home(home.path()).with_variable("PGSYSCONFDIR", system);
        for (service, host) in [("a", "a"), ("b", "b")] {
            let mut parameters = Parameters::new();
            parameters.set(Keyword::Service, service);
            apply(&mut parameters, &environment).unwrap();
            assert_eq!(parameters.bytes(Keyword::Host), Some(host.as_bytes()));
        }
    }
}
