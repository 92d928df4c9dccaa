//! Mail over one connection: what comes for its user, and what the user sends.

use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use domain::{GroupName, UserId, UserNo};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use projections::Error;
use projections::mailman::{Delivery, Inbox};
use projections::messages::{self, Draft, To};
use tokio::time::sleep;
use uuid::Uuid;

use super::wire::Wire;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::live::messages::{MessageBody, post, text, title};
use crate::problem::Problem;
use crate::viewer::names_group;

/// Between two attempts while the database cannot be read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Messages that are sent with one write.
pub(super) const AT_ONCE: usize = 32;

/// One connection's share of its user's mail.
pub(super) struct Mail {
    /// Goes on where it was whatever else happens: what is read from the database is read once.
    reading: BoxFuture<'static, (Inbox, Delivery)>,
    /// Listens to groups while the other one is read.
    ears: Inbox,
    user: UserNo,
    /// Messages passed on that the client has not acknowledged: so many frames it has to its
    /// credit.
    owed: usize,
}

/// What a client sends.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) to: Option<UserId>,
    pub(super) group: Option<GroupName>,
    pub(super) body: String,
}

impl Mail {
    /// Begins with what waits. Groups that the token names are listened to.
    pub(super) fn of(app: &App, caller: &Caller, user: UserNo) -> Self {
        let mut ears = app.mail.subscribe(user);
        for group in caller.groups.iter().filter_map(|name| name.parse().ok()) {
            if !ears.listen_to(&group) {
                break;
            }
        }
        Self { reading: read(app.mail.subscribe(user), user).boxed(), ears, user, owed: 0 }
    }

    /// The next message. Nothing is lost if the call is given up.
    pub(super) async fn next(&mut self) -> Delivery {
        let (inbox, delivery) = (&mut self.reading).await;
        self.reading = read(inbox, self.user).boxed();
        if delivery.receiver.is_some() {
            self.owed = self.owed.saturating_add(1);
        }
        delivery
    }

    /// Whether an `ack` answers something that was passed on: then it is not one frame too many,
    /// however much waited.
    pub(super) fn is_owed(&mut self) -> bool {
        let owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        owed
    }

    /// From now on this connection has what is sent to the group. Who belongs to it says a
    /// service, or the token: 403 `not_a_member`.
    pub(super) async fn join(
        &mut self,
        app: &App,
        caller: &Caller,
        group: &GroupName,
    ) -> Result<(), Problem> {
        if !app.belongs(caller, group).await? {
            return Err(Problem::not_a_member());
        }
        self.listen_to(group)
    }

    /// The same for a group that the connection is in.
    pub(super) fn listen_to(&mut self, group: &GroupName) -> Result<(), Problem> {
        if self.ears.listen_to(group) {
            return Ok(());
        }
        let detail = "this connection listens to as many groups as it may";
        Err(Problem::rule("too_many_groups", detail))
    }

    /// Ends that. What is kept for a member still comes.
    pub(super) fn leave(&mut self, group: &GroupName) {
        self.ears.leave(group);
    }

    /// Sends to one user who may be seen, or to a group of the caller's.
    pub(super) async fn send(
        &mut self,
        app: &App,
        caller: &Caller,
        sent: Sent,
    ) -> Result<Uuid, Problem> {
        let body = text("body", sent.body)?;
        let to = match (sent.to, sent.group) {
            (Some(to), None) => {
                let user = app.known_user(&to).await?;
                let invisible = app.realm.roster().is_invisible(user);
                if !app.viewer(caller).await?.knows(user, invisible) {
                    return Err(Problem::user_not_found());
                }
                To::Person(user)
            }
            (None, Some(group)) => {
                let free = caller.has(Role::Service) || names_group(caller, &group);
                if !free && !app.belongs(caller, &group).await? {
                    return Err(Problem::not_a_member());
                }
                To::Group(group)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(Problem::rule("invalid_receiver", "either to or group"));
            }
        };
        let draft = Draft { to, sender: Some(self.user), title: None, body };
        Ok(post(app, draft).await?.id)
    }

    /// Sends to everybody who is live.
    pub(super) async fn broadcast(
        &mut self,
        app: &App,
        caller: &Caller,
        headline: Option<String>,
        body: String,
    ) -> Result<Uuid, Problem> {
        caller.require(&[Role::Admin, Role::Service])?;
        let (title, body) = (title(headline)?, text("body", body)?);
        let draft = Draft { to: To::Everybody, sender: Some(self.user), title, body };
        Ok(post(app, draft).await?.id)
    }

    /// The user has this message, whichever of its sessions says so.
    pub(super) async fn acknowledge(&mut self, app: &App, id: Uuid) -> Result<(), Problem> {
        messages::acknowledge(app.realm.pool(), self.user, &[id]).await?;
        Ok(())
    }
}

async fn read(mut inbox: Inbox, user: UserNo) -> (Inbox, Delivery) {
    loop {
        match inbox.next().await {
            Ok(delivery) => return (inbox, delivery),
            // The connection is told by other means.
            Err(Error::ShuttingDown) => std::future::pending().await,
            Err(error) => {
                tracing::warn!(user_no = %user, %error, "reading what waits for a user");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}

/// A message as a frame.
pub(super) fn frame(wire: &Wire, delivery: &Delivery) -> Option<Utf8Bytes> {
    wire.written(&MessageBody::from(delivery.message.as_ref().clone()))
}
