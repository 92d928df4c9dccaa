//! As much of HTTP/1.1 as a load generator needs: requests made once, answers of known length.
//!
//! Hand-written because it shares two cores with what it measures: a client library costs several
//! times what the server's own HTTP does, and would be measured along with it.

use std::ops::Range;

/// What has arrived so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not yet all of it.
    Partial,
    /// An answer, whole: its status and where its body stands.
    Whole(u16, Range<usize>),
    /// Nothing that this reads.
    Garbled,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// The HTTP status; other protocols map theirs to it.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: &'a [u8],
}

/// One request, whole, with the slots in which a load generator varies it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    slots: Vec<usize>,
}

/// What stands for a slot in the text of a request.
const SLOT: &str = "{}";

impl Request {
    /// From a method and path, a token and a body. Each `{}` in path and body becomes a slot of
    /// `width` bytes.
    pub(crate) fn new(call: &str, token: &str, body: &str, width: usize) -> Self {
        let body_slots = body.matches(SLOT).count();
        let length = body.len() + body_slots * width - body_slots * SLOT.len();
        let mut head =
            format!("{call} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n");
        if !body.is_empty() {
            head.push_str("content-type: application/json\r\n");
        }
        // A call without a body says so, too, unless its method never has one.
        if !call.starts_with("GET ") {
            head.push_str("content-length: ");
            head.push_str(&length.to_string());
            head.push_str("\r\n");
        }
        Self::raw(&format!("{head}\r\n{body}"), width)
    }

    /// The text as it is, of whatever protocol, with `{}` for slots of `width` bytes.
    pub(crate) fn raw(text: &str, width: usize) -> Self {
        let mut bytes = Vec::with_capacity(text.len());
        let mut slots = Vec::new();
        for (index, part) in text.split(SLOT).enumerate() {
            if index > 0 {
                slots.push(bytes.len());
                bytes.resize(bytes.len() + width, b'0');
            }
            bytes.extend_from_slice(part.as_bytes());
        }
        Self { bytes, slots }
    }

    /// How many slots it has.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Puts `value` in a slot. It is as wide as the slot.
    pub(crate) fn fill(&mut self, slot: usize, value: &[u8]) {
        let at = self.slots[slot];
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// Writes `value` so that it begins `from_end` bytes before the end.
    pub(crate) fn fill_end(&mut self, from_end: usize, value: &[u8]) {
        let at = self.bytes.len() - from_end;
        self.bytes[at..at + value.len()].copy_from_slice(value);
    }

    /// What is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads one answer. Chunked ones are garbled: none of what is measured sends any.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let Some(head_end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Parsed::Partial;
    };
    let (head, body) = (&bytes[..head_end], head_end + 4);
    let Some(status) = head.get(9..12).and_then(number) else { return Parsed::Garbled };
    let Some(length) = header(head, b"content-length").and_then(number) else {
        return Parsed::Garbled;
    };
    if bytes.len() < body + length {
        return Parsed::Partial;
    }
    Parsed::Whole(status as u16, body..body + length)
}

fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let value = line.get(name.len() + 1..)?;
        let named = line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()] == b':';
        named.then(|| value.trim_ascii())
    })
}

/// A number in decimal digits.
pub(crate) fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_once_its_body_is() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx: y\r\n\r\nbody";
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Partial, "{end}");
        }
        assert_eq!(parse(bytes), Parsed::Whole(200, 44..48));
    }

    #[test]
    fn slots_count_towards_the_length_of_the_body() {
        let mut request = Request::new("POST /a/{}", "t", r#"["{}"]"#, 3);
        assert_eq!(request.slots(), 2);
        request.fill(0, b"abc");
        request.fill(1, b"def");
        let text = String::from_utf8_lossy(request.bytes());
        assert!(text.starts_with("POST /a/abc HTTP/1.1\r\n"), "{text}");
        assert!(text.ends_with("content-length: 7\r\n\r\n[\"def\"]"), "{text}");
    }
}
