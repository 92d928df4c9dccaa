//! The table in which a replaced system keeps who is online: `user, status, last_seen`.
//!
//! The first line names the columns, in any order, among others, separated by commas, semicolons
//! or tabs: `user`, `user_id`, `id` or `username`; `status`, `online_status` or `is_online`;
//! `last_seen`, `last_activity` or `updated_at`. Instants are RFC 3339, or `2026-01-31 08:30:00`
//! with or without an offset (without: UTC), or seconds or milliseconds since 1970.
//!
//! As history a row says one thing: then this user was there, and nobody knows for how long. So it
//! becomes a session of no length, opened and ended (`lost_carrier`) at `last_seen`. Its user is
//! known from then on, `offline` since, with that `last_seen`, until the first login of our own; an
//! `online` row, too, since no client of ours keeps it up.

use chrono::{DateTime, NaiveDateTime, Utc};
use domain::command::{ImportLine, ImportedChange};
use domain::{DeviceKind, Reason, SessionId, Status, Timestamp, UserId};
use uuid::Uuid;

use super::{Item, Rejected};

/// Under which the sessions of rows are named: the same row makes the same name.
const NAMESPACE: Uuid = Uuid::from_u128(0x2d9b_6f0a_4c1e_5b7d_8a35_0e6c_91f4_b728);
const USER: [&str; 4] = ["user", "user_id", "id", "username"];
const IS_ONLINE: &str = "is_online";
const STATUS: [&str; 3] = ["status", "online_status", IS_ONLINE];
const LAST_SEEN: [&str; 3] = ["last_seen", "last_activity", "updated_at"];
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// Which column is which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusCsv {
    delimiter: u8,
    count: usize,
    user: usize,
    status: usize,
    last_seen: Option<usize>,
    /// The status column knows only whether somebody is online.
    pub two_valued: bool,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line, counted from 1.
    pub line: u64,
    /// Whose.
    pub user_id: UserId,
    /// What the other system says.
    pub status: Status,
    /// When it last heard of the user.
    pub last_seen: Option<Timestamp>,
}

impl StatusCsv {
    /// Understands the first line. `last_seen` may be missing where only statuses are compared.
    pub fn of_header(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let found = DELIMITERS.iter().find_map(|delimiter| Self::separated(text, *delimiter));
        found.ok_or_else(|| {
            format!(
                "the first line must name a column {} and one {}",
                USER.join("|"),
                STATUS.join("|")
            )
        })
    }

    fn separated(text: &str, delimiter: u8) -> Option<Self> {
        let names: Vec<String> =
            fields(text, delimiter)?.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        // In the order of the names, not of the columns: `user_id` says more than `id`.
        let column = |wanted: &[&str]| {
            wanted.iter().find_map(|name| names.iter().position(|column| column == name))
        };
        let status = column(&STATUS)?;
        Some(Self {
            delimiter,
            count: names.len(),
            user: column(&USER)?,
            status,
            last_seen: column(&LAST_SEEN),
            two_valued: names[status] == IS_ONLINE,
        })
    }

    /// Understands one line; none for an empty one. A row is one line.
    pub fn row(&self, line: u64, text: &str) -> Result<Option<Row>, Rejected> {
        let rejected = |code, detail: String| Err(Rejected::new(line, code, detail));
        if text.trim().is_empty() {
            return Ok(None);
        }
        let Some(fields) = fields(text, self.delimiter).filter(|f| f.len() == self.count) else {
            let detail = format!("the header has {} columns, this line has not", self.count);
            return rejected("malformed", detail);
        };
        let user_id = match fields[self.user].trim().parse() {
            Ok(user_id) => user_id,
            Err(error) => return rejected("invalid_user_id", format!("{error}")),
        };
        let word = fields[self.status].trim();
        let Some(status) = status(word) else {
            return rejected("invalid_status", format!("{word:?} is no status"));
        };
        let last_seen = self.last_seen.map_or("", |column| fields[column].trim());
        match instant(last_seen) {
            Ok(last_seen) => Ok(Some(Row { line, user_id, status, last_seen })),
            Err(detail) => rejected("invalid_instant", detail),
        }
    }

    /// Understands one line as history.
    pub fn parse(&self, line: u64, text: &str) -> Result<Option<Item>, Rejected> {
        let Some(row) = self.row(line, text)? else { return Ok(None) };
        let Some(at) = row.last_seen else {
            let detail = "nobody says when this user was last seen: there is nothing to take over";
            return Err(Rejected::new(line, "never_seen", detail));
        };
        let name = format!("{}/{}", row.user_id, at.timestamp_micros());
        let session = SessionId::from(Uuid::new_v5(&NAMESPACE, name.as_bytes()));
        let event = |what| ImportLine { what, session, at };
        Ok(Some(Item {
            line,
            user_id: row.user_id,
            what: event(ImportedChange::Opened(DeviceKind::Other)),
            then: Some(event(ImportedChange::Closed(Reason::LostCarrier))),
            device_id: None,
        }))
    }
}

/// The fields of one line.
fn fields(text: &str, delimiter: u8) -> Option<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut record = csv::StringRecord::new();
    reader.read_record(&mut record).ok().filter(|read| *read).map(|_| record)
}

fn status(word: &str) -> Option<Status> {
    match word.to_ascii_lowercase().as_str() {
        "online" | "active" | "available" | "true" | "t" | "1" | "yes" | "y" => {
            Some(Status::Online)
        }
        "away" | "idle" => Some(Status::Away),
        "busy" => Some(Status::Busy),
        "dnd" | "do_not_disturb" => Some(Status::Dnd),
        "offline" | "inactive" | "false" | "f" | "0" | "no" | "n" => Some(Status::Offline),
        _ => None,
    }
}

fn instant(text: &str) -> Result<Option<Timestamp>, String> {
    let null = text.is_empty() || text.eq_ignore_ascii_case("null") || text == "\\N";
    if null || text.starts_with("0000-00-00") {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is no instant since 1970");
    let at = text.parse::<f64>().map_or_else(|_| written(text), counted).ok_or_else(wrong)?;
    // The log's clock ticks in microseconds.
    let at = DateTime::from_timestamp_micros(at.timestamp_micros()).ok_or_else(wrong)?;
    let first = domain::import::EARLIEST;
    if at > first { Ok(Some(at)) } else { Err(wrong()) }
}

/// Seconds since 1970; or, where that would be past the year 5138, milliseconds.
fn counted(number: f64) -> Option<Timestamp> {
    const SECONDS_MAX: f64 = 1e11;
    let micros = if number < SECONDS_MAX { number * 1e6 } else { number * 1e3 };
    (micros.is_finite() && micros < 1e17)
        .then(|| DateTime::from_timestamp_micros(micros.round() as i64))
        .flatten()
}

fn written(text: &str) -> Option<Timestamp> {
    const WITH_OFFSET: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"];
    const AS_UTC: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let utc = text.strip_suffix(['Z', 'z']).or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
    let naive = AS_UTC.iter().find_map(|form| NaiveDateTime::parse_from_str(utc, form).ok());
    naive.map(|at| at.and_utc()).or_else(|| {
        let parsed = WITH_OFFSET.iter().find_map(|form| DateTime::parse_from_str(text, form).ok());
        parsed.map(|at| at.with_timezone(&Utc))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_in_any_order_with_any_separator() {
        let table = StatusCsv::of_header("id,Name,Last_Activity,online_status").unwrap();
        let row = table.row(2, "7,\"Ana, the first\",2026-01-31 08:30:00,busy").unwrap().unwrap();
        assert_eq!((row.user_id.as_str(), row.status), ("7", Status::Busy));
        assert!(!table.two_valued);
        let table = StatusCsv::of_header("\u{feff}user_id;id;is_online").unwrap();
        let row = table.row(2, "ana;7;1").unwrap().unwrap();
        assert_eq!(
            (row.user_id.as_str(), row.status, row.last_seen),
            ("ana", Status::Online, None)
        );
        assert!(table.two_valued);
        assert!(StatusCsv::of_header("ana,online").is_err());
    }

    #[test]
    fn instants_are_understood_as_the_replaced_systems_write_them() {
        let read = |text: &str| instant(text).unwrap().map(|at| at.to_rfc3339());
        let expected = Some("2026-01-31T08:30:00+00:00".to_owned());
        for text in [
            "2026-01-31T08:30:00Z",
            "2026-01-31T09:30:00+01:00",
            "2026-01-31 08:30:00",
            "2026-01-31 08:30:00.000",
            "2026-01-31 09:30:00+01",
            "2026-01-31 08:30:00 UTC",
            "1769848200",
            "1769848200000",
            "1769848200.0",
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for none in ["", "NULL", "\\N", "0000-00-00 00:00:00"] {
            assert_eq!(read(none), None);
        }
        for wrong in ["yesterday", "-5", "NaN", "1e300", "2026-13-01 00:00:00", "0"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_wrong_line_names_what_is_wrong() {
        let table = StatusCsv::of_header("user,status,last_seen").unwrap();
        let code = |text: &str| table.parse(2, text).unwrap_err().code;
        assert_eq!(code("ana,online"), "malformed");
        assert_eq!(code("\"ana,online,2026-01-31T08:30:00Z"), "malformed");
        assert_eq!(code("a b,online,2026-01-31T08:30:00Z"), "invalid_user_id");
        assert_eq!(code("ana,here,2026-01-31T08:30:00Z"), "invalid_status");
        assert_eq!(code("ana,online,soon"), "invalid_instant");
        assert_eq!(code("ana,offline,"), "never_seen");
        assert_eq!(table.parse(2, ""), Ok(None));
    }

    #[test]
    fn a_row_is_a_session_of_no_length_and_always_the_same() {
        let table = StatusCsv::of_header("user,status,last_seen").unwrap();
        let item = |text: &str| table.parse(2, text).unwrap().unwrap();
        let online = item("ana,online,1769848200");
        assert_eq!(online.then.as_ref().unwrap().at, online.what.at);
        let again = item("ana,offline,2026-01-31T08:30:00Z");
        assert_eq!(online.what.session, again.what.session);
    }
}
