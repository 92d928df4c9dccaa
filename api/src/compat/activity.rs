//! Requests as signs of life, for clients that know neither sessions nor heartbeats.
//!
//! A session belongs to a token and a device. Its name follows from both and a generation, so that
//! two requests at once, on one node or on two, open one session, and a node that has forgotten or
//! was restarted finds it again. When a session is over, the next request of the token opens the
//! next generation; after a logout there is none, as the token is revoked.

use std::time::Instant as Taken;

use chrono::TimeDelta;
use domain::command::Open;
use domain::{Command, DeviceKind, Reason, SessionId, UserNo};
use projections::history::{self, SessionFound};
use projections::realm::{Consistency, Seen};
use projections::{Asked, Executed};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, Role};
use crate::presence::{done, heartbeat};
use crate::problem::Problem;

/// Between two heartbeats of one session for activity of requests, at most; never more than a
/// quarter of what they keep up.
const BEAT_EVERY: TimeDelta = TimeDelta::seconds(15);
/// Sessions of one token and device after each other.
const GENERATIONS_MAX: u32 = 1 << 20;
/// Longest name of a token's bearer that is kept, in characters.
const USERNAME_LENGTH_MAX: usize = 256;
/// How often one request looks again where others were faster.
const LOOKS_MAX: usize = 8;
/// All names of sessions made here are version 5 UUIDs in this namespace.
const NAMESPACE: Uuid = Uuid::from_u128(0x5c0e_1f6a_9b7d_4c43_8f52_d1a7_36e8_40b9);

/// What a token's session runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device<'a> {
    /// The system that it talks to: a session of one is none of another.
    pub(crate) system: &'static str,
    /// What it is.
    pub(crate) kind: DeviceKind,
    /// Its own name; none: the token's one device.
    pub(crate) id: Option<&'a str>,
    /// Whether the person did something whenever it calls.
    pub(crate) interaction_driven: bool,
}

/// All sessions of one token and device.
struct Line<'a> {
    app: &'a App,
    caller: &'a Caller,
    device: &'a Device<'a>,
    user: UserNo,
    key: Uuid,
}

/// How one of them stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Live, and heard of so lately that nothing need be written.
    Fresh,
    /// Live, as far as is known, and due for a sign of life.
    Due,
    /// Over.
    Ended,
    /// Never opened.
    Unused,
}

/// A name that follows from words.
pub(crate) fn name_of(words: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, words.join("\0").as_bytes())
}

/// Notes that the caller did something: opens the token's session where none is live, else appends
/// a heartbeat where one is due. Errors: 403 for those who have no presence; 401 for a token that
/// was revoked meanwhile; 422 where the user has too many sessions.
pub(crate) async fn note(app: &App, caller: &Caller, device: &Device<'_>) -> Result<(), Problem> {
    let taken = Taken::now();
    let line = Line::of(app, caller, device).await?;
    if let Some(generation) = app.compat.sessions.generation(line.key)
        && line.in_memory(line.session(generation), Consistency::Usual).await?
            == Some(Standing::Fresh)
    {
        return Ok(());
    }
    let _alone = app.compat.sessions.alone(line.key).await;
    for _ in 0..LOOKS_MAX {
        let (generation, standing) = line.latest().await?;
        let session = line.session(generation);
        let noted = match standing {
            Standing::Fresh => true,
            Standing::Due => line.beat(session, taken).await?,
            Standing::Unused => line.open(session, taken).await?,
            Standing::Ended => false,
        };
        app.compat.sessions.remember(line.key, generation);
        if noted {
            return Ok(());
        }
    }
    Err(Problem::unavailable("overtaken", "others keep changing this session; try again"))
}

/// Ends the token's session, if it is live.
pub(crate) async fn end(app: &App, caller: &Caller, device: &Device<'_>) -> Result<(), Problem> {
    let taken = Taken::now();
    let line = Line::of(app, caller, device).await?;
    let (generation, standing) = line.latest().await?;
    match standing {
        Standing::Fresh | Standing::Due => line.close(line.session(generation), taken).await,
        Standing::Ended | Standing::Unused => Ok(()),
    }
}

impl<'a> Line<'a> {
    async fn of(app: &'a App, caller: &'a Caller, device: &'a Device<'a>) -> Result<Self, Problem> {
        caller.require(&[Role::User, Role::Service, Role::Admin])?;
        let user = app.actor(caller).await?;
        // A device without a name is none with an empty one.
        let (named, id) = device.id.map_or(("token", ""), |id| ("device", id));
        let token = caller.token_key.as_str();
        let key = name_of(&[device.system, caller.user_id.as_str(), token, named, id]);
        Ok(Self { app, caller, device, user, key })
    }

    fn session(&self, generation: u32) -> SessionId {
        Uuid::new_v5(&self.key, &generation.to_be_bytes())
    }

    /// The first generation that is not over, and how it stands.
    async fn latest(&self) -> Result<(u32, Standing), Problem> {
        let known = self.app.compat.sessions.generation(self.key).unwrap_or(0);
        let standing = self.standing(known).await?;
        if standing != Standing::Ended {
            return Ok((known, standing));
        }
        // Those before are over, those after unused: gallop, then halve.
        let (mut over, mut step) = (known, 1);
        let mut found = loop {
            let next = over + step;
            if next > GENERATIONS_MAX {
                return Err(Problem::internal("a token with too many sessions"));
            }
            match self.standing(next).await? {
                Standing::Ended => (over, step) = (next, step * 2),
                standing => break (next, standing),
            }
        };
        while found.0 - over > 1 {
            let middle = over.midpoint(found.0);
            match self.standing(middle).await? {
                Standing::Ended => over = middle,
                standing => found = (middle, standing),
            }
        }
        Ok(found)
    }

    async fn standing(&self, generation: u32) -> Result<Standing, Problem> {
        let session = self.session(generation);
        match self.in_memory(session, Consistency::Usual).await? {
            Some(Standing::Due) => {
                // Other nodes' heartbeats are not in memory.
                let standing = self.in_memory(session, Consistency::Strong).await?;
                return Ok(standing.unwrap_or(Standing::Ended));
            }
            Some(standing) => return Ok(standing),
            None => {}
        }
        Ok(match history::session(self.app.realm.pool(), session).await? {
            // Another node's, or past its lease and not yet recorded so: the log will say.
            Some(SessionFound::Live(user)) if user == self.user => Standing::Due,
            Some(SessionFound::Live(_) | SessionFound::Ended(_)) => Standing::Ended,
            None => Standing::Unused,
        })
    }

    /// How a live session stands; none where it is not live.
    async fn in_memory(
        &self,
        session: SessionId,
        consistency: Consistency,
    ) -> Result<Option<Standing>, Problem> {
        let now = self.app.realm.now();
        let look = |seen: Seen<'_>| {
            let live = seen.state.session(session)?;
            let fresh = live.active && now - live.last_seen < beat_every(live);
            Some(if fresh { Standing::Fresh } else { Standing::Due })
        };
        let found = self.app.realm.look(&[self.user], consistency, look).await?;
        Ok(found.into_iter().flatten().flatten().next())
    }

    /// False: it is over.
    async fn beat(&self, session: SessionId, taken: Taken) -> Result<bool, Problem> {
        match heartbeat::beat(self.app, self.caller, self.user, session, 0, taken).await {
            Ok(_) => Ok(true),
            Err(problem) if problem.code() == "session_closed" => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// False: that name was used meanwhile, and is over.
    ///
    /// A token revoked by another node a moment ago opens nothing. The logout revokes before it
    /// looks for sessions to end, and this looks after it has opened: one of the two finds it.
    async fn open(&self, session: SessionId, taken: Taken) -> Result<bool, Problem> {
        self.refuse_revoked().await?;
        let command = Command::Open(Open {
            session,
            kind: self.device.kind,
            idle_ms: 0,
            interaction_driven: self.device.interaction_driven,
        });
        let asked =
            Asked { actor: Some(self.user), taken, detail: self.detail(), ..Asked::by(None) };
        match self.app.realm.execute(self.user, &command, asked).await? {
            Executed::SessionEnded => return Ok(false),
            executed => done(executed)?,
        };
        if let Err(problem) = self.refuse_revoked().await {
            self.close(session, Taken::now()).await?;
            return Err(problem);
        }
        Ok(true)
    }

    async fn refuse_revoked(&self) -> Result<(), Problem> {
        let pool = self.app.realm.pool();
        let revoked = projections::revocation::contains(pool, &self.caller.token_key).await?;
        if revoked { Err(Problem::token_revoked()) } else { Ok(()) }
    }

    async fn close(&self, session: SessionId, taken: Taken) -> Result<(), Problem> {
        let command = Command::Close { session, reason: Reason::UserRequest };
        let asked = Asked { actor: Some(self.user), taken, ..Asked::by(None) };
        done(self.app.realm.execute(self.user, &command, asked).await?)?;
        Ok(())
    }

    /// What is kept of the login, apart from the log.
    fn detail(&self) -> Option<Value> {
        let short = |name: &&str| name.chars().count() <= USERNAME_LENGTH_MAX;
        let username = self.caller.username.as_deref().filter(short);
        let known = [("device_id", self.device.id), ("username", username)];
        let known =
            known.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?.into())));
        let detail: Map<String, Value> = known.collect();
        (!detail.is_empty()).then_some(detail.into())
    }
}

fn beat_every(live: &domain::Session) -> TimeDelta {
    let kept_ms = live.away_after_ms.unwrap_or(live.lease_ms).min(live.lease_ms);
    BEAT_EVERY.min(TimeDelta::milliseconds(i64::from(kept_ms / 4)))
}
