//! The session lines that PAM writes into a Linux host's authentication log.
//!
//! `Jun 15 04:06:18 combo su(pam_unix)[21416]: session opened for user cyrus by (uid=0)`, and the
//! newer `sshd[811]: pam_unix(sshd:session): session closed for user ana`. A session is a process
//! and a user, from its opening. Such lines have no year and no time zone: the year is given, goes
//! up when the months start again, and times are taken as UTC. Newer hosts write instants as
//! RFC 3339 has them, `2024-03-01T12:00:00.123456+01:00`: those say it all. Other lines are passed
//! over.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, NaiveDateTime};
use domain::command::{ImportLine, ImportedChange};
use domain::{DeviceKind, Reason, SessionId, Timestamp};
use uuid::Uuid;

use super::{Item, Rejected};

/// Under which the names of PAM sessions are made: the same line makes the same name.
const NAMESPACE: Uuid = Uuid::from_u128(0x8f5c_31d0_0c55_5d0e_9b6a_52a1_7e02_94d3);

/// Reads one log from its first line on.
#[derive(Debug)]
pub struct PamLog {
    year: i32,
    month: u32,
    open: HashMap<(String, String, String), SessionId>,
}

impl PamLog {
    /// A log whose first line is of that year.
    pub fn new(year: i32) -> Self {
        Self { year, month: 0, open: HashMap::new() }
    }

    /// Understands one line; none for lines about something else.
    pub fn parse(&mut self, number: u64, text: &str) -> Result<Option<Item>, Rejected> {
        let Some(line) = SessionLine::of(text) else { return Ok(None) };
        let at = self.instant(line.time).ok_or_else(|| {
            Rejected::new(number, "malformed", format!("{:?} is no time", line.time))
        })?;
        let user_id = line.user.parse().map_err(|error| {
            Rejected::new(number, "invalid_user_id", format!("{:?}: {error}", line.user))
        })?;
        let key = (line.host.to_owned(), line.process.to_owned(), line.user.to_owned());
        let (session, what) = if line.opened {
            let name = format!("{}/{}/{}/{}", line.host, line.process, line.user, at.timestamp());
            let session = Uuid::new_v5(&NAMESPACE, name.as_bytes());
            self.open.insert(key, session);
            (session, ImportedChange::Opened(DeviceKind::Other))
        } else {
            let session = self.open.remove(&key).ok_or_else(|| {
                let detail = "no opening of this session stands before it";
                Rejected::new(number, "not_open", detail)
            })?;
            (session, ImportedChange::Closed(Reason::UserRequest))
        };
        let what = ImportLine { what, session, at };
        let device_id = Some(line.host.to_owned());
        Ok(Some(Item { line: number, user_id, what, then: None, device_id }))
    }

    fn instant(&mut self, time: &str) -> Option<Timestamp> {
        if is_rfc3339(time) {
            let at = DateTime::parse_from_rfc3339(time).ok()?;
            // The log's clock ticks in microseconds.
            return DateTime::from_timestamp_micros(at.timestamp_micros());
        }
        // 2000 was a leap year: 29 February is read whatever the year.
        let format = "%Y %b %e %H:%M:%S";
        let month = NaiveDateTime::parse_from_str(&format!("2000 {time}"), format).ok()?.month();
        if month < self.month {
            self.year += 1;
        }
        self.month = month;
        let time = NaiveDateTime::parse_from_str(&format!("{} {time}", self.year), format).ok()?;
        Some(DateTime::from_naive_utc_and_offset(time, chrono::Utc))
    }
}

/// The other form begins with the name of a month.
fn is_rfc3339(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

/// A line about a session, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct SessionLine<'a> {
    time: &'a str,
    host: &'a str,
    process: &'a str,
    opened: bool,
    user: &'a str,
}

impl<'a> SessionLine<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (time, rest) = if is_rfc3339(text) {
            text.split_once(' ')?
        } else {
            (text.get(..15)?, text.get(16..)?)
        };
        let (host, rest) = rest.split_once(' ')?;
        let (program, message) = rest.split_once(": ")?;
        if !program.contains("pam_unix") && !message.starts_with("pam_unix(") {
            return None;
        }
        let process = program.split_once('[').map_or(program, |(_, process)| process);
        let process = process.trim_end_matches(']');
        let message = message.split_once("): ").map_or(message, |(_, message)| message);
        let (opened, user) = match message.strip_prefix("session opened for user ") {
            Some(user) => (true, user),
            None => (false, message.strip_prefix("session closed for user ")?),
        };
        // `ana`, `ana by (uid=0)`, `ana(uid=1000) by (uid=0)`
        let user = user.split([' ', '(']).next()?;
        Some(Self { time, host, process, opened, user })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const OPENED: &str =
        "Jun 15 04:06:18 combo su(pam_unix)[21416]: session opened for user cyrus by (uid=0)";
    const CLOSED: &str = "Jun 15 04:06:19 combo su(pam_unix)[21416]: session closed for user cyrus";

    #[test]
    fn an_opening_and_its_closing_are_one_session() {
        let mut log = PamLog::new(2005);
        let opened = log.parse(1, OPENED).unwrap().unwrap();
        let closed = log.parse(2, CLOSED).unwrap().unwrap();
        assert_eq!(opened.what.session, closed.what.session);
        assert_eq!(opened.user_id.as_str(), "cyrus");
        assert_eq!(opened.what.at.to_rfc3339(), "2005-06-15T04:06:18+00:00");
    }

    #[test]
    fn the_same_line_makes_the_same_name() {
        let session = |mut log: PamLog| log.parse(1, OPENED).unwrap().unwrap().what.session;
        assert_eq!(session(PamLog::new(2005)), session(PamLog::new(2005)));
    }

    #[test]
    fn the_newer_format_is_understood() {
        let line = "Feb  3 10:00:00 h sshd[811]: pam_unix(sshd:session): \
                    session opened for user ana(uid=1000) by (uid=0)";
        let item = PamLog::new(2024).parse(1, line).unwrap().unwrap();
        assert_eq!(item.user_id.as_str(), "ana");
        assert_eq!(item.what.at.to_rfc3339(), "2024-02-03T10:00:00+00:00");
    }

    #[test]
    fn an_instant_with_its_year_and_offset_is_taken_as_it_is() {
        let mut log = PamLog::new(1999);
        let mut at = |time: &str, what: &str| {
            let line = format!(
                "{time} h sshd[1]: pam_unix(sshd:session): session {what} for user ana by (uid=0)"
            );
            log.parse(1, &line).map(|item| item.unwrap().what)
        };
        let opened = at("2024-03-01T12:00:00.123456+01:00", "opened").unwrap();
        assert_eq!(opened.at.to_rfc3339(), "2024-03-01T11:00:00.123456+00:00");
        let closed = at("2024-02-29T23:59:59Z", "closed").unwrap();
        assert_eq!(closed.at.to_rfc3339(), "2024-02-29T23:59:59+00:00");
        assert_eq!(opened.session, closed.session);
        assert_eq!(at("2024-13-01T12:00:00Z", "opened").unwrap_err().code, "malformed");
    }

    #[test]
    fn the_year_goes_up_when_the_months_start_again() {
        let mut log = PamLog::new(2005);
        log.parse(1, &OPENED.replace("Jun 15", "Dec 31")).unwrap();
        let item = log.parse(2, &OPENED.replace("Jun 15", "Jan  1")).unwrap().unwrap();
        assert_eq!(item.what.at.to_rfc3339(), "2006-01-01T04:06:18+00:00");
    }

    #[test]
    fn other_lines_are_passed_over_and_a_closing_alone_is_refused() {
        let mut log = PamLog::new(2005);
        assert_eq!(
            log.parse(1, "Jun 15 02:04:59 combo sshd(pam_unix)[20882]: check pass"),
            Ok(None)
        );
        assert_eq!(log.parse(2, ""), Ok(None));
        assert_eq!(log.parse(3, CLOSED).unwrap_err().code, "not_open");
    }
}
