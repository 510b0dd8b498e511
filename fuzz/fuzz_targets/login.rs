//! The login, driven by any server that doesn't know the password. Input: one byte of settings, then a stream of frames. A
//! SASL challenge that begins with `N` gets the client's nonce in its place, since no input could guess it.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use pgstream_proto::auth::{ChannelBinding, Login};
use pgstream_proto::backend::{AuthenticationRequest, Message};
use pgstream_proto::frame::{self, Limits};

const PASSWORD: &[u8] = b"the password that must not leak";

fuzz_target!(|input: &[u8]| {
    let Some((&settings, stream)) = input.split_first() else { return };
    let binding =
        [ChannelBinding::Disable, ChannelBinding::Prefer, ChannelBinding::Require][usize::from(settings % 3)];
    let password = (settings & 0x10 != 0).then_some(PASSWORD);
    let end_point = (settings & 0x20 != 0).then(|| vec![7; 32]);
    let required = ["scram-sha-256", "!password", "none,md5"];
    let required = required.get(usize::from(settings >> 6)).map(|list| list.parse().expect("a valid list"));
    let mut login = Login::new("user", password, binding, end_point).with_require_auth(required);

    let (mut buffer, mut out) = (BytesMut::from(stream), BytesMut::new());
    let mut said_ok_first = None;
    let mut sasl = false;
    while let Ok(Some(frame)) = frame::split(&mut buffer, &Limits::LOGIN) {
        let Ok(Message::Authentication(request)) = Message::parse(frame) else { break };
        sasl |= matches!(request, AuthenticationRequest::Sasl(_));
        said_ok_first.get_or_insert(request == AuthenticationRequest::Ok);
        let request = match request {
            AuthenticationRequest::SaslContinue(body) if body.starts_with(b"N") => {
                let nonce = out.windows(2).position(|pair| pair == b"r=").map(|at| out.split_off(at));
                let challenge = [nonce.as_deref().unwrap_or_default(), &body[1..]].concat();
                AuthenticationRequest::SaslContinue(Bytes::from(challenge))
            }
            request => request,
        };
        if login.on(request, &mut out).is_err() {
            break;
        }
    }
    let in_clear = out.windows(PASSWORD.len()).any(|window| window == PASSWORD);
    assert!(!in_clear || (binding != ChannelBinding::Require && settings >> 6 == 3));
    if login.finish().is_ok() {
        assert!(!sasl, "nobody can sign without the password");
        assert!(binding != ChannelBinding::Require);
        assert!(password.is_some() || said_ok_first == Some(true));
    }
});
