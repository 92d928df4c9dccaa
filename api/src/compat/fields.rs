//! Lenient bodies: JSON or a form, whatever the type says; unknown fields are ignored.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde_json::{Map, Value};

use crate::extract::{parse_object, read_body};
use crate::limits::BODY_BYTES_MAX;
use crate::problem::Problem;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The fields of a body of at most [`BODY_BYTES_MAX`]; none at all of an empty one.
#[derive(Debug, Clone, Default)]
pub struct Fields(Map<String, Value>);

/// A field that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<T> {
    /// `null`; in a form: empty, or the word `null`.
    Null,
    /// A value.
    Value(T),
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("multipart/")) {
            let detail = "send application/json or application/x-www-form-urlencoded";
            return Err(Problem::unsupported_media_type(detail));
        }
        Self::parse(&read_body(body, BODY_BYTES_MAX).await?)
    }
}

impl Fields {
    fn parse(bytes: &Bytes) -> Result<Self, Problem> {
        // Some editors and languages put a byte order mark in front of what they send.
        let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii_start();
        match text.first() {
            None => Ok(Self::default()),
            // Many a client leaves the form's type on a JSON body; no form begins so.
            Some(b'{' | b'[' | b'"') => parse_object(text).map(Self),
            Some(_) => Self::of_form(text),
        }
    }

    /// A name that comes twice, or as `name[]`, is a list.
    fn of_form(form: &[u8]) -> Result<Self, Problem> {
        let mut fields: Map<String, Value> = Map::new();
        for (name, value) in form_urlencoded::parse(form.trim_ascii_end()) {
            if name.contains('\0') || value.contains('\0') {
                let detail = "text must not contain the character NUL";
                return Err(Problem::rule("nul_character", detail));
            }
            let (name, listed) =
                name.strip_suffix("[]").map_or((&*name, false), |name| (name, true));
            let value = Value::String(value.into_owned());
            match fields.get_mut(name) {
                Some(Value::Array(values)) => values.push(value),
                Some(earlier) => *earlier = Value::Array(vec![earlier.take(), value]),
                None if listed => {
                    fields.insert(name.to_owned(), Value::Array(vec![value]));
                }
                None => {
                    fields.insert(name.to_owned(), value);
                }
            }
        }
        Ok(Self(fields))
    }

    fn wrong(name: &str, expected: &str) -> Problem {
        Problem::bad_request("invalid_field", format!("{name}: {expected} is expected"))
    }

    /// A field that must be there: text, or a whole number as text.
    pub fn required(&self, name: &str) -> Result<String, Problem> {
        match self.text(name)? {
            Some(Given::Value(text)) => Ok(text),
            Some(Given::Null) | None => {
                Err(Problem::bad_request("missing_field", format!("{name} is missing")))
            }
        }
    }

    /// Text, or a whole number as text.
    pub fn text(&self, name: &str) -> Result<Option<Given<String>>, Problem> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        plain(value).map(Some).ok_or_else(|| Self::wrong(name, "text or a whole number"))
    }

    /// One text or a list of texts; none where it is not there, null or empty.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let wrong = || Self::wrong(name, "text or a list of texts");
        let values = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            match plain(value).ok_or_else(wrong)? {
                Given::Value(text) => texts.push(text),
                Given::Null if values.len() == 1 => return Ok(None),
                Given::Null => return Err(wrong()),
            }
        }
        Ok(Some(texts))
    }

    /// Whether a field is a list.
    pub fn is_list(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(Value::is_array)
    }

    /// Yes or no, in JSON or in a form's words; none where it is not there or null.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        let wrong = || Self::wrong(name, "true or false");
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => match plain(value).ok_or_else(wrong)? {
                Given::Null => Ok(None),
                Given::Value(word) => match word.to_ascii_lowercase().as_str() {
                    "true" | "1" | "on" | "yes" => Ok(Some(true)),
                    "false" | "0" | "off" | "no" => Ok(Some(false)),
                    _ => Err(wrong()),
                },
            },
        }
    }
}

fn plain(value: &Value) -> Option<Given<String>> {
    match value {
        Value::Null => Some(Given::Null),
        Value::String(text) => match text.trim() {
            "" | "null" => Some(Given::Null),
            text => Some(Given::Value(text.to_owned())),
        },
        // A fraction, or too large to have come in whole.
        Value::Number(number) if number.is_f64() => None,
        Value::Number(number) => Some(Given::Value(number.to_string())),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(text: &'static str) -> Fields {
        Fields::parse(&Bytes::from(text)).unwrap()
    }

    #[test]
    fn json_and_forms_say_the_same() {
        for body in [
            r#"{"user_id": 5, "name": "a b", "on": true, "gone": null, "of": ["x", "y"]}"#,
            concat!(
                "\u{feff}",
                r#"{"user_id":5,"name":"a b","on":true,"gone":null,"of":["x","y"]}"#
            ),
            "user_id=5&name=a+b&on=1&gone=&of=x&of=y",
            "user_id=5&name=a%20b&on=true&gone=null&of[]=x&of%5B%5D=y\n",
        ] {
            let fields = of(body);
            assert_eq!(fields.required("user_id").unwrap(), "5");
            assert_eq!(fields.required("name").unwrap(), "a b");
            assert_eq!(fields.flag("on").unwrap(), Some(true));
            assert_eq!(fields.text("gone").unwrap(), Some(Given::Null));
            assert_eq!(fields.texts("of").unwrap().unwrap(), ["x", "y"]);
            assert!(fields.is_list("of") && !fields.is_list("name"));
            assert_eq!(fields.text("other").unwrap(), None);
            assert_eq!(
                (fields.texts("gone").unwrap(), fields.flag("other").unwrap()),
                (None, None)
            );
        }
        assert_eq!(of("").text("a").unwrap(), None);
        assert_eq!(of("of[]=x").texts("of").unwrap().unwrap(), ["x"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let fields = of(r#"{"a": 1.5, "b": {}, "c": [[]], "d": "perhaps", "e": ""}"#);
        assert_eq!(fields.required("a").unwrap_err().code(), "invalid_field");
        assert_eq!(fields.text("b").unwrap_err().code(), "invalid_field");
        assert_eq!(fields.texts("c").unwrap_err().code(), "invalid_field");
        assert_eq!(fields.flag("d").unwrap_err().code(), "invalid_field");
        assert_eq!(fields.required("e").unwrap_err().code(), "missing_field");
        for (body, code) in [
            (&b"{\"a\":"[..], "malformed_json"),
            (b"[1]", "invalid_field"),
            (b"a=%00", "nul_character"),
            (b"{\"a\": \"\\u0000\"}", "nul_character"),
        ] {
            assert_eq!(Fields::parse(&Bytes::from(body)).unwrap_err().code(), code);
        }
    }
}
