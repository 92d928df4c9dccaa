//! Which form a client asks for, by its `Accept` (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, StatusCode, header};

use super::Format;
use crate::problem::Problem;

/// The form among those offered that the client likes best; of equals the first. Errors: 406
/// `not_acceptable`.
pub fn choose(headers: &HeaderMap, offered: &[Format]) -> Result<Format, Problem> {
    let accepts: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|range| !range.trim().is_empty())
        .collect();
    let mut best: Option<(u16, Format)> = None;
    for &format in offered {
        let liked = if accepts.is_empty() { 1000 } else { liking(&accepts, format.media_type()) };
        if liked > 0 && best.is_none_or(|(most, _)| liked > most) {
            best = Some((liked, format));
        }
    }
    best.map(|(_, format)| format).ok_or_else(|| {
        let words: Vec<&str> = offered.iter().map(|format| format.media_type()).collect();
        let detail = format!("this call answers {}", words.join(", "));
        Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail)
    })
}

/// How much the most precise range that fits likes a media type, in thousandths.
fn liking(accepts: &[&str], media_type: &str) -> u16 {
    let family = media_type.split('/').next().unwrap_or_default();
    let mut best = (0, 0);
    for accept in accepts {
        let mut parts = accept.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let precision = match range.strip_suffix("/*") {
            Some("*") => 1,
            Some(wanted) if wanted == family => 2,
            _ if range == media_type => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).unwrap_or("1");
        let quality = quality.parse::<f64>().unwrap_or(1.0).clamp(0.0, 1.0);
        if precision > best.0 {
            best = (precision, (quality * 1000.0) as u16);
        }
    }
    best.1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<Format> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        choose(&headers, &[Format::Json, Format::Ndjson, Format::Csv, Format::CloudEvents]).ok()
    }

    #[test]
    fn the_most_liked_form_that_is_offered_is_chosen() {
        assert_eq!(chosen("*/*"), Some(Format::Json));
        assert_eq!(chosen("text/csv"), Some(Format::Csv));
        assert_eq!(chosen("Text/*;q=0.5, application/x-ndjson"), Some(Format::Ndjson));
        assert_eq!(chosen("application/json;q=0.1, */*;q=0.2"), Some(Format::Ndjson));
        assert_eq!(
            chosen("application/cloudevents-batch+json; charset=utf-8"),
            Some(Format::CloudEvents)
        );
    }

    #[test]
    fn what_is_not_offered_or_not_liked_is_refused() {
        assert_eq!(chosen("image/png"), None);
        assert_eq!(chosen("application/json;q=0, text/html"), None);
    }

    #[test]
    fn who_says_nothing_gets_the_first() {
        let nothing = HeaderMap::new();
        assert_eq!(choose(&nothing, &[Format::Csv, Format::Json]).unwrap(), Format::Csv);
    }
}
