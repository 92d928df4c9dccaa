//! The forms in which rows are answered and exported: JSON, NDJSON, CSV, Parquet, `CloudEvents`.
//!
//! - [`table`]: rows of columns; [`csv`], [`parquet`]: files of them
//! - [`events`]: files of events; [`cloudevents`]: events as `CloudEvents` 1.0
//! - [`accept`]: which form a client asks for

pub mod accept;
pub mod cloudevents;
pub mod csv;
pub mod events;
pub mod parquet;
pub mod table;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// A JSON object a line.
    Ndjson,
    /// RFC 4180, with a line of column names.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// A batch of `CloudEvents` 1.0.
    CloudEvents,
    /// A picture.
    Svg,
}

impl Format {
    /// What `Content-Type` says.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::CloudEvents => "application/cloudevents-batch+json",
            Self::Svg => "image/svg+xml",
        }
    }

    /// The media type that a client asks for.
    pub fn media_type(self) -> &'static str {
        self.content_type().split(';').next().unwrap_or_default()
    }

    /// What a file's name ends with.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Json | Self::CloudEvents => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Svg => "svg",
        }
    }

    /// An answer in this form, which nobody may keep; `name` is the file's, where it is saved.
    pub fn answer(self, name: &str, bytes: Vec<u8>) -> Response {
        let mut response = Response::new(Body::from(bytes));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Csv | Self::Parquet) {
            let file = format!("attachment; filename=\"{name}.{}\"", self.extension());
            if let Ok(file) = HeaderValue::from_str(&file) {
                headers.insert(header::CONTENT_DISPOSITION, file);
            }
        }
        if self == Self::Svg {
            // Opened by itself a picture is a page: it needs nothing, so it gets nothing.
            let nothing = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
            headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
        }
        response
    }
}
