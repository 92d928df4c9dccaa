//! How a connection talks: as `rollcall.v1`, or as the clients of the replaced system know it.

use std::collections::HashSet;

use axum::extract::ws::Utf8Bytes;
use domain::{GroupName, UserId};
use serde::Serialize;

use crate::compat::wire::WireId;
use crate::live::watch::Snapshot;
use crate::shapes::StatusName;

/// How a connection talks.
#[derive(Debug, Clone)]
pub(crate) enum Style {
    /// Of those whom the client watches, all that changes.
    Rollcall,
    /// Of oneself and others by itself, whether they are there.
    Replaced(Replaced),
}

/// What is different for clients of the replaced system: ids go out as numbers where they are
/// such, unknown fields are ignored, and there is no need to `watch`.
#[derive(Debug, Clone)]
pub(crate) struct Replaced {
    /// Of everybody, not of group-mates alone.
    pub(crate) everybody: bool,
    /// In which the connection's session is for as long as it lives.
    pub(crate) group: Option<GroupName>,
}

/// Who is there, as clients of the replaced system are told.
#[derive(Debug, Serialize)]
struct PresenceFrame<'a> {
    /// `status_changed`
    #[serde(rename = "type")]
    kind: &'a str,
    data: PresenceData,
}

/// Whether a user is there.
#[derive(Debug, Serialize)]
struct PresenceData {
    user_id: WireId,
    /// Whatever the status, if it is not `offline`.
    is_online: bool,
}

/// Whom a client believes to be there: it is told only of what differs.
#[derive(Debug, Default)]
pub(super) struct Online(HashSet<UserId>);

impl Online {
    /// The frame that tells of it, if it is news.
    pub(super) fn tell(&mut self, user: &UserId, online: bool) -> Option<Utf8Bytes> {
        let news = if online { self.0.insert(user.clone()) } else { self.0.remove(user) };
        if news { frame(user, online) } else { None }
    }

    /// The frames for those whose statuses are known now. `all`: also who is not there, for a
    /// client that may believe anything.
    pub(super) fn tell_all(&mut self, snapshot: &Snapshot, all: bool) -> Vec<Utf8Bytes> {
        let mut frames = Vec::new();
        for item in &snapshot.0 {
            let online = item.status != StatusName::Offline;
            let news = self.tell(&item.user_id, online);
            let news = news.or_else(|| frame(&item.user_id, online).filter(|_| all));
            frames.extend(news);
        }
        frames
    }

    /// Those who are believed to be there.
    pub(super) fn users(&self) -> Vec<UserId> {
        self.0.iter().cloned().collect()
    }
}

fn frame(user: &UserId, is_online: bool) -> Option<Utf8Bytes> {
    let data = PresenceData { user_id: WireId::from(user.as_str()), is_online };
    let text = serde_json::to_string(&PresenceFrame { kind: "status_changed", data });
    text.ok().map(Utf8Bytes::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told_and_numbers_go_out_as_such() {
        let mut online = Online::default();
        let (ana, five) = ("ana".parse().unwrap(), "5".parse().unwrap());
        assert!(online.tell(&ana, false).is_none());
        let told = online.tell(&five, true).unwrap();
        let expected = r#"{"type":"status_changed","data":{"user_id":5,"is_online":true}}"#;
        assert_eq!(told.as_str(), expected);
        assert!(online.tell(&five, true).is_none());
        assert!(online.tell(&five, false).unwrap().contains("false"));
    }
}
