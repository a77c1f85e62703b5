//! A minimal HTTP/1.1 server: one request in, one answer out (RFC 9112).

use crate::protocol::HTTP_BODY;

/// An answer under construction.
pub struct Answer {
    bytes: [u8; 256],
    len: usize,
}

impl Answer {
    /// An empty answer.
    pub fn new() -> Self {
        Self { bytes: [0; 256], len: 0 }
    }

    /// The answer to a request.
    pub fn to(&mut self, request: &[u8]) -> &[u8] {
        let (status, body) = respond(request);
        self.push(b"HTTP/1.1 ");
        self.push(status.as_bytes());
        self.push(b"\r\nContent-Type: text/plain\r\nContent-Length: ");
        self.push_number(body.len());
        self.push(b"\r\nConnection: keep-alive\r\n\r\n");
        self.push(body.as_bytes());
        &self.bytes[..self.len]
    }

    fn push(&mut self, bytes: &[u8]) {
        let free = &mut self.bytes[self.len..];
        let n = bytes.len().min(free.len());
        free[..n].copy_from_slice(&bytes[..n]);
        self.len += n;
    }

    fn push_number(&mut self, number: usize) {
        if number >= 10 {
            self.push_number(number / 10);
        }
        self.push(&[b'0' + (number % 10) as u8]);
    }
}

/// Status line and body for a request.
fn respond(request: &[u8]) -> (&'static str, &'static str) {
    let complete = request.windows(4).any(|four| four == b"\r\n\r\n");
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or(b"");
    let mut words = line.split(|&byte| byte == b' ');
    match (complete, words.next(), words.next(), words.next()) {
        (true, Some(b"GET"), Some(b"/"), Some(b"HTTP/1.1")) => ("200 OK", HTTP_BODY),
        (true, Some(b"GET"), Some(_), Some(b"HTTP/1.1")) => ("404 Not Found", "not found\n"),
        (true, Some(_), Some(_), Some(b"HTTP/1.1")) => ("405 Method Not Allowed", "only GET\n"),
        _ => ("400 Bad Request", "bad request\n"),
    }
}
