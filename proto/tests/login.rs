//! The login state machine against a SCRAM server written here from RFC 5802, and against servers that cheat.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use pgstream_proto::auth::{AuthError, ChannelBinding, Login, Method, RequireAuth};
use pgstream_proto::backend::AuthenticationRequest as Request;
use sha2::{Digest, Sha256};

const PASSWORD: &[u8] = b"pencil";
const END_POINT: &[u8] = b"hash of the certificate";
const BOTH: [&str; 2] = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];

fn login(channel_binding: ChannelBinding, end_point: bool) -> Login {
    Login::new("user", Some(PASSWORD), channel_binding, end_point.then(|| END_POINT.to_vec()))
}

fn sasl(mechanisms: &[&str]) -> Request {
    Request::Sasl(mechanisms.iter().map(|&mechanism| mechanism.to_owned()).collect())
}

/// What the client said: mechanism, gs2 header and nonce.
fn client_first(out: &BytesMut) -> (String, String, String) {
    let mut body = out[5..].splitn(2, |&byte| byte == 0);
    let mechanism = String::from_utf8(body.next().unwrap().to_vec()).unwrap();
    let message = String::from_utf8(body.next().unwrap()[4..].to_vec()).unwrap();
    let (header, bare) = message.split_at(message.find("n=,r=").unwrap());
    (mechanism, header.to_owned(), bare["n=,r=".len()..].to_owned())
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn xor(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    std::array::from_fn(|index| a[index] ^ b[index])
}

fn salted_password(salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut previous = hmac(PASSWORD, &[salt, &[0, 0, 0, 1]].concat());
    let mut result = previous;
    for _ in 1..iterations {
        previous = hmac(PASSWORD, &previous);
        result = xor(result, previous);
    }
    result
}

/// Runs the exchange up to AuthenticationSASLFinal, checking the client's proof and binding as a server does. `sign` may change
/// the server's signature. Returns the gs2 header that the client used.
fn exchange(login: &mut Login, mechanisms: &[&str], sign: impl Fn(&mut [u8])) -> Result<String, AuthError> {
    let mut out = BytesMut::new();
    login.on(sasl(mechanisms), &mut out)?;
    let (mechanism, header, nonce) = client_first(&out);
    assert_eq!(mechanism.ends_with("-PLUS"), header.starts_with("p="), "{mechanism} with {header}");
    let (salt, iterations) = (b"salt and pepper", 64);
    let server_first = format!("r={nonce}server,s={},i={iterations}", STANDARD.encode(salt));

    out.clear();
    login.on(Request::SaslContinue(Bytes::from(server_first.clone())), &mut out)?;
    let client_final = std::str::from_utf8(&out[5..]).unwrap();
    let (without_proof, proof) = client_final.split_once(",p=").unwrap();
    let binding = if header.starts_with("p=") { END_POINT } else { b"" };
    let bound = STANDARD.encode([header.as_bytes(), binding].concat());
    assert_eq!(without_proof, format!("c={bound},r={nonce}server"));

    let salted = salted_password(salt, iterations);
    let client_key = hmac(&salted, b"Client Key");
    let auth_message = format!("n=,r={nonce},{server_first},{without_proof}");
    let expected = xor(client_key, hmac(&Sha256::digest(client_key), auth_message.as_bytes()));
    assert_eq!(STANDARD.decode(proof).unwrap(), expected, "the client's proof");

    let mut signature = hmac(&hmac(&salted, b"Server Key"), auth_message.as_bytes());
    sign(&mut signature);
    let outcome = format!("v={}", STANDARD.encode(signature));
    login.on(Request::SaslFinal(Bytes::from(outcome)), &mut out)?;
    Ok(header)
}

fn honest(_: &mut [u8]) {}

#[test]
fn scram_binds_the_channel_when_both_sides_can() {
    for (mode, end_point, mechanisms, header) in [
        (ChannelBinding::Prefer, true, &BOTH[..], "p=tls-server-end-point,,"),
        (ChannelBinding::Require, true, &BOTH[..], "p=tls-server-end-point,,"),
        (ChannelBinding::Prefer, true, &BOTH[1..], "y,,"),
        (ChannelBinding::Prefer, false, &BOTH[1..], "n,,"),
        (ChannelBinding::Prefer, false, &BOTH[..], "n,,"),
        (ChannelBinding::Disable, true, &BOTH[..], "n,,"),
    ] {
        let mut login = login(mode, end_point);
        assert_eq!(exchange(&mut login, mechanisms, honest).unwrap(), header);
        login.on(Request::Ok, &mut BytesMut::new()).unwrap();
        login.finish().unwrap();
    }
}

#[test]
fn a_required_channel_binding_is_never_let_go() {
    let mut out = BytesMut::new();
    for (end_point, request) in [
        (true, Request::Ok),
        (true, Request::CleartextPassword),
        (true, Request::Md5Password { salt: [0; 4] }),
        (true, sasl(&BOTH[1..])),
        (false, sasl(&BOTH)),
    ] {
        let error = login(ChannelBinding::Require, end_point).on(request.clone(), &mut out).unwrap_err();
        assert!(matches!(error, AuthError::ChannelBinding(_)), "{request:?}: {error}");
        assert!(out.is_empty(), "nothing may be sent for {request:?}");
    }
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let mut login = login(ChannelBinding::Prefer, false);
    let error = exchange(&mut login, &BOTH[1..], |signature| signature[0] ^= 1).unwrap_err();
    assert!(matches!(error, AuthError::Scram(_)), "{error}");
    assert!(login.on(Request::Ok, &mut BytesMut::new()).is_err());
    assert!(login.finish().is_err());
}

#[test]
fn authentication_ok_cannot_skip_the_servers_signature() {
    let mut out = BytesMut::new();
    let mut before_challenge = login(ChannelBinding::Prefer, false);
    before_challenge.on(sasl(&BOTH), &mut out).unwrap();
    let error = before_challenge.on(Request::Ok, &mut out).unwrap_err();
    assert_eq!(
        error.to_string(),
        "protocol violation during authentication: got AuthenticationOk, expected AuthenticationSASLContinue"
    );

    let mut before_final = login(ChannelBinding::Prefer, false);
    out.clear();
    before_final.on(sasl(&BOTH), &mut out).unwrap();
    let nonce = client_first(&out).2;
    let challenge = format!("r={nonce}x,s={},i=1", STANDARD.encode("salt"));
    before_final.on(Request::SaslContinue(Bytes::from(challenge)), &mut out).unwrap();
    assert!(before_final.on(Request::Ok, &mut out).is_err());
}

#[test]
fn a_session_cannot_begin_before_authentication_ok() {
    assert!(login(ChannelBinding::Prefer, false).finish().is_err());
    let mut login = login(ChannelBinding::Prefer, false);
    exchange(&mut login, &BOTH, honest).unwrap();
    assert!(login.finish().is_err());
}

#[test]
fn challenges_that_cheat_are_refused() {
    for challenge in [
        "r=another,s=c2FsdA==,i=4096",
        "r={nonce},s=c2FsdA==,i=4294967295",
        "r={nonce},s=c2FsdA==,i=100001",
        "r={nonce},s=c2FsdA==,i=",
        "r={nonce},s=c2FsdA==,i=0",
        "r={nonce},s=!,i=1",
        "m=ext,r={nonce},s=c2FsdA==,i=1",
        "",
    ] {
        let mut login = login(ChannelBinding::Prefer, false);
        let mut out = BytesMut::new();
        login.on(sasl(&BOTH), &mut out).unwrap();
        let challenge = challenge.replace("{nonce}", &client_first(&out).2);
        out.clear();
        let error = login.on(Request::SaslContinue(Bytes::from(challenge.clone())), &mut out).unwrap_err();
        assert!(
            matches!(error, AuthError::Scram(_) | AuthError::Iterations(100_001..)),
            "{challenge}: {error}"
        );
        assert!(out.is_empty());
    }
}

#[test]
fn the_servers_own_scram_error_is_shown() {
    let mut login = login(ChannelBinding::Prefer, false);
    let mut out = BytesMut::new();
    login.on(sasl(&BOTH), &mut out).unwrap();
    let challenge = format!("r={}x,s=c2FsdA==,i=1", client_first(&out).2);
    login.on(Request::SaslContinue(Bytes::from(challenge)), &mut out).unwrap();
    let error = login.on(Request::SaslFinal(Bytes::from_static(b"e=invalid-proof")), &mut out).unwrap_err();
    assert!(error.to_string().contains("invalid-proof"), "{error}");
}

#[test]
fn passwords_are_sent_as_the_server_asks() {
    let mut out = BytesMut::new();
    let mut cleartext = login(ChannelBinding::Prefer, true);
    cleartext.on(Request::CleartextPassword, &mut out).unwrap();
    assert_eq!(&out[..], b"p\0\0\0\x0bpencil\0");
    assert!(cleartext.on(Request::CleartextPassword, &mut out).is_err(), "asked twice");

    // The known answer of postgres-protocol's own test.
    out.clear();
    let mut md5 = Login::new("md5_user", Some(b"password"), ChannelBinding::Prefer, None);
    md5.on(Request::Md5Password { salt: [0x2a, 0x3d, 0x8f, 0xe0] }, &mut out).unwrap();
    assert_eq!(&out[5..], b"md562af4dd09bbb41884907a838a3233294\0");
    md5.on(Request::Ok, &mut out).unwrap();
    md5.finish().unwrap();
}

#[test]
fn a_missing_or_empty_password_is_reported_as_such() {
    for password in [None, Some(&b""[..])] {
        for request in [Request::CleartextPassword, Request::Md5Password { salt: [0; 4] }, sasl(&BOTH)] {
            let mut login = Login::new("user", password, ChannelBinding::Prefer, None);
            assert_eq!(login.on(request, &mut BytesMut::new()), Err(AuthError::NoPassword));
        }
        let mut trust = Login::new("user", password, ChannelBinding::Prefer, None);
        trust.on(Request::Ok, &mut BytesMut::new()).unwrap();
        trust.finish().unwrap();
    }
}

#[test]
fn methods_that_are_not_supported_are_named() {
    for (request, name) in [
        (Request::Gss, "GSSAPI"),
        (Request::Sspi, "SSPI"),
        (Request::KerberosV5, "Kerberos V5"),
        (Request::ScmCredential, "SCM credential"),
        (Request::Other(77), "method 77"),
        (sasl(&["OAUTHBEARER"]), "SASL (OAUTHBEARER)"),
    ] {
        let error = login(ChannelBinding::Prefer, false).on(request, &mut BytesMut::new()).unwrap_err();
        let expected = format!("server asks for {name} authentication, which is not supported");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn require_auth_is_checked_before_anything_is_sent() {
    for (list, request, method) in [
        ("scram-sha-256", Request::CleartextPassword, Method::Password),
        ("!password", Request::CleartextPassword, Method::Password),
        ("scram-sha-256,password", Request::Md5Password { salt: [0; 4] }, Method::Md5),
        ("password,md5", sasl(&BOTH), Method::ScramSha256),
        ("scram-sha-256", Request::Ok, Method::None),
        ("!none", Request::Ok, Method::None),
    ] {
        let mut login = login(ChannelBinding::Prefer, false).with_require_auth(Some(list.parse().unwrap()));
        let mut out = BytesMut::new();
        assert_eq!(login.on(request, &mut out), Err(AuthError::NotAllowed(method)), "{list}");
        assert!(out.is_empty());
    }
    let mut login =
        login(ChannelBinding::Prefer, false).with_require_auth(Some("!password,!md5".parse().unwrap()));
    exchange(&mut login, &BOTH, honest).unwrap();
}

#[test]
fn require_auth_is_refused_in_libpqs_words() {
    for (list, words) in [
        ("bogus", "invalid require_auth value: \"bogus\""),
        ("md5,", "invalid require_auth value: \"\""),
        ("md5,md5", "require_auth method \"md5\" is specified more than once"),
        ("md5,!none", "negative require_auth method \"!none\" cannot be mixed with non-negative methods"),
        ("!md5,none", "require_auth method \"none\" cannot be mixed with negative methods"),
    ] {
        assert_eq!(list.parse::<RequireAuth>().unwrap_err().to_string(), words);
    }
}

#[test]
fn debug_output_shows_no_password() {
    assert!(!format!("{:?}", login(ChannelBinding::Prefer, false)).contains("pencil"));
}
