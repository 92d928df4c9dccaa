//! Ids as the replaced systems write them: numbers where they are numbers.

use serde::Serialize;
use utoipa::ToSchema;

/// An id: a JSON number where the text is one as JSON writes it, without leading zero. Above
/// 64 bits it stays text, since no reader would keep all its digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(untagged)]
pub enum WireId {
    /// All digits.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl From<&str> for WireId {
    fn from(text: &str) -> Self {
        match text.parse() {
            // `parse` also takes `+5` and `05`.
            Ok(number) if u64::to_string(&number) == text => Self::Number(number),
            Ok(_) | Err(_) => Self::Text(text.to_owned()),
        }
    }
}

/// JSON with the ids in it as [`WireId`] writes them. What is looked for, a quote, a colon and a
/// quote, cannot stand inside of a JSON text, where every quote has a backslash before it.
pub(crate) fn with_numbers(json: &str) -> String {
    const BETWEEN: &str = "\":\"";
    let mut written = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find(BETWEEN) {
        let (key, value) = (&rest[..at], &rest[at + BETWEEN.len()..]);
        let id = value.split('"').next().unwrap_or_default();
        written.push_str(key);
        let named = key.ends_with("\"user_id") || key.ends_with("\"from");
        if named && matches!(WireId::from(id), WireId::Number(_)) {
            written.push_str("\":");
            written.push_str(id);
            rest = value.get(id.len() + 1..).unwrap_or_default();
        } else {
            written.push_str(BETWEEN);
            rest = value;
        }
    }
    written.push_str(rest);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_json_become_numbers_and_texts_stay_as_they_are() {
        let text = serde_json::json!([{ "user_id": "5", "body": "\"user_id\":\"6\"" },
            { "from": "7", "user_id": "ana" }, { "from": "07" }]);
        let expected = serde_json::json!([{ "user_id": 5, "body": "\"user_id\":\"6\"" },
            { "from": 7, "user_id": "ana" }, { "from": "07" }]);
        assert_eq!(with_numbers(&text.to_string()), expected.to_string());
    }

    #[test]
    fn what_is_a_number_without_leading_zero_goes_out_as_one() {
        for (text, json) in [
            ("5", "5"),
            ("0", "0"),
            ("007", r#""007""#),
            ("+5", r#""+5""#),
            ("-5", r#""-5""#),
            ("5.0", r#""5.0""#),
            ("18446744073709551615", "18446744073709551615"),
            ("18446744073709551616", r#""18446744073709551616""#),
            ("ana", r#""ana""#),
        ] {
            assert_eq!(serde_json::to_string(&WireId::from(text)).ok().as_deref(), Some(json));
        }
    }

    #[test]
    fn numbers_are_in_their_own_order_and_before_texts() {
        let mut ids = ["b", "10", "9", "a"].map(WireId::from);
        ids.sort();
        assert_eq!(ids, ["9", "10", "a", "b"].map(WireId::from));
    }
}
