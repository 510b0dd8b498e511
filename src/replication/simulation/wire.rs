//! The server's end of a session: the frontend's messages in, the backend's messages out.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::pgoutput::frame;

/// A session's pipe, and what waits to be sent.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pipe: DuplexStream,
    pub(super) inbound: BytesMut,
    pub(super) out: BytesMut,
}

/// A message of the client.
#[derive(Debug)]
pub(super) enum Message {
    Query(String),
    Parse { name: String, sql: String },
    Bind { statement: String, parameters: Vec<Parameter> },
    Execute,
    Close(String),
    Flush,
    Sync,
    CopyData(Bytes),
    CopyDone,
    Terminate,
}

/// A parameter of Bind.
#[derive(Debug, Clone)]
pub(super) enum Parameter {
    Text(Option<String>),
    /// Eight bytes in binary form.
    Number(i64),
    /// An array of texts or integers, in its binary form.
    Array(Vec<Option<String>>),
}

fn string(body: &mut Bytes) -> String {
    let end = body.iter().position(|&byte| byte == 0).expect("strings end in a zero byte");
    let text = String::from_utf8(body.split_to(end).to_vec()).expect("the client's strings are UTF-8");
    body.advance(1);
    text
}

fn value(body: &mut Bytes) -> Option<Bytes> {
    let len = body.get_i32();
    (len >= 0).then(|| body.split_to(len as usize))
}

fn text(bytes: Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("values are UTF-8")
}

fn array(mut bytes: Bytes) -> Vec<Option<String>> {
    assert_eq!((bytes.get_i32(), bytes.get_i32()), (1, 1), "an array of one dimension");
    let (element, len) = (bytes.get_i32(), bytes.get_i32());
    bytes.get_i32();
    let read = |mut bytes: Bytes| match element {
        25 => text(bytes),
        23 => bytes.get_i32().to_string(),
        other => panic!("an array of {other}"),
    };
    (0..len).map(|_| value(&mut bytes).map(read)).collect()
}

fn bind(mut body: Bytes) -> Message {
    string(&mut body);
    let statement = string(&mut body);
    let formats: Vec<i16> = (0..body.get_i16()).map(|_| body.get_i16()).collect();
    let binary = formats == [1];
    let parameters = (0..body.get_i16()).map(|_| match value(&mut body) {
        Some(bytes) if binary => match bytes[..].try_into() {
            Ok(number) => Parameter::Number(i64::from_be_bytes(number)),
            Err(_) => Parameter::Array(array(bytes)),
        },
        bytes => Parameter::Text(bytes.map(text)),
    });
    Message::Bind { statement, parameters: parameters.collect() }
}

impl Peer {
    pub(super) fn new(pipe: DuplexStream) -> Peer {
        Peer { pipe, inbound: BytesMut::new(), out: BytesMut::new() }
    }

    /// Cuts a whole message off what has arrived.
    pub(super) fn arrived(&mut self) -> Option<Message> {
        let (&tag, rest) = self.inbound.split_first()?;
        let len = rest.first_chunk().map(|len| u32::from_be_bytes(*len) as usize)?;
        if rest.len() < len {
            return None;
        }
        let mut body = self.inbound.split_to(1 + len).freeze();
        body.advance(5);
        Some(match tag {
            b'Q' => Message::Query(string(&mut body)),
            b'P' => Message::Parse { name: string(&mut body), sql: string(&mut body) },
            b'B' => bind(body),
            b'E' => Message::Execute,
            b'C' => {
                body.advance(1);
                Message::Close(string(&mut body))
            }
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'd' => Message::CopyData(body),
            b'c' => Message::CopyDone,
            b'X' => Message::Terminate,
            other => panic!("a model server does not know messages of type {}", other.escape_ascii()),
        })
    }

    /// The next message; `None` when the client is gone. What is queued is sent before.
    pub(super) async fn message(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.arrived() {
                return Some(message);
            }
            // A client that is gone is noticed by reading: what it sent before counts.
            let _ = self.send().await;
            if self.pipe.read_buf(&mut self.inbound).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Sends what is queued, taking in what the client sends meanwhile.
    async fn send(&mut self) -> std::io::Result<()> {
        let (mut reader, mut writer) = tokio::io::split(&mut self.pipe);
        while !self.out.is_empty() {
            tokio::select! {
                biased;
                written = writer.write_buf(&mut self.out) => match written {
                    Ok(_) => {}
                    Err(error) => {
                        self.out.clear();
                        return Err(error);
                    }
                },
                read = reader.read_buf(&mut self.inbound) => if read? == 0 {
                    return Ok(());
                },
            }
        }
        Ok(())
    }

    /// Takes the startup packet and lets the client in, as process `id`; `None` when it is gone.
    pub(super) async fn let_in(&mut self, version: u32, id: usize) -> Option<()> {
        while self.inbound.len() < 4
            || self.inbound.len() < u32::from_be_bytes(*self.inbound.first_chunk()?) as usize
        {
            if self.pipe.read_buf(&mut self.inbound).await.ok()? == 0 {
                return None;
            }
        }
        let len = self.inbound.get_u32() as usize;
        self.inbound.advance(len - 4);
        self.frame(b'R', |out| out.put_u32(0));
        self.frame(b'S', |out| {
            out.put_slice(format!("server_version\0{}.{}\0", version / 10_000, version % 10_000).as_bytes());
        });
        self.frame(b'S', |out| out.put_slice(b"server_encoding\0UTF8\0"));
        self.frame(b'K', |out| out.put_u64((id as u64) << 32));
        self.ready(b'I');
        Some(())
    }

    /// Queues a message.
    pub(super) fn frame(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) {
        frame(&mut self.out, tag, body);
    }

    pub(super) fn ready(&mut self, status: u8) {
        self.frame(b'Z', |out| out.put_u8(status));
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.frame(b'C', |out| {
            out.put_slice(tag.as_bytes());
            out.put_u8(0);
        });
    }

    pub(super) fn row(&mut self, values: &[Option<&str>]) {
        self.frame(b'D', |out| {
            out.put_i16(values.len() as i16);
            for value in values {
                out.put_i32(value.map_or(-1, |text| text.len() as i32));
                out.put_slice(value.unwrap_or_default().as_bytes());
            }
        });
    }

    pub(super) fn error(&mut self, sqlstate: &str, message: &str) {
        self.frame(b'E', |out| {
            out.put_slice(format!("SERROR\0VERROR\0C{sqlstate}\0M{message}\0\0").as_bytes());
        });
    }
}
