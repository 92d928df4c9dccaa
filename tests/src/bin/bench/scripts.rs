//! What the connections of each work ask.

use std::sync::Arc;

use uuid::Uuid;

use crate::http::{Answer, Parsed, Request, number};
use crate::load::Script;

/// Bytes of a UUID in text.
pub(crate) const UUID_WIDTH: usize = 36;
/// A step through a list that meets everything once before it meets anything twice: a prime that
/// divides no number of sessions or users that is used here.
const STRIDE: usize = 7_919;

/// Names of one width, one after the other.
#[derive(Debug)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    width: usize,
}

impl Names {
    /// `count` of them, as `name` makes them.
    pub(crate) fn make(count: usize, name: impl Fn(usize) -> String) -> Arc<Self> {
        let names: Vec<String> = (0..count).map(name).collect();
        let width = names.first().map_or(0, String::len);
        Arc::new(Self { bytes: names.concat().into_bytes(), width })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.width.max(1)
    }

    /// The width of each, in bytes.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// One of them.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        &self.bytes[index * self.width..(index + 1) * self.width]
    }

    /// Every `step`th of them, from one on.
    fn every(&self, step: usize, first: usize) -> Arc<Self> {
        let own = (first..self.len()).step_by(step).flat_map(|index| self.get(index));
        Arc::new(Self { bytes: own.copied().collect(), width: self.width })
    }

    /// All of them, as texts.
    pub(crate) fn texts(&self) -> Vec<String> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        self.bytes.chunks(self.width.max(1)).map(text).collect()
    }
}

/// One request, with a name chosen at random in its slot, if it has one.
pub(crate) struct One {
    request: Request,
    names: Arc<Names>,
    random: fastrand::Rng,
}

impl One {
    /// One for each connection.
    pub(crate) fn each(connections: usize, request: &Request, names: &Arc<Names>) -> Vec<Self> {
        let one = |_| Self {
            request: request.clone(),
            names: Arc::clone(names),
            random: fastrand::Rng::new(),
        };
        (0..connections).map(one).collect()
    }
}

impl One {
    /// One for each connection, that asks about names of its own: no two at a time about one.
    pub(crate) fn each_of_its_own(
        connections: usize,
        request: &Request,
        names: &Names,
    ) -> Vec<Self> {
        let shares = connections.min(names.len()).max(1);
        let own = |share: usize| names.every(shares, share);
        (0..shares).flat_map(|share| Self::each(1, request, &own(share))).collect()
    }
}

impl Script for One {
    fn next(&mut self) -> &[u8] {
        for slot in 0..self.request.slots() {
            let name = self.random.usize(..self.names.len());
            self.request.fill(slot, self.names.get(name));
        }
        self.request.bytes()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        (answer.status == 200).then_some(1)
    }
}

/// How the answer to many at once says how many it acknowledges.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    /// By its `accepted`.
    Accepted,
    /// By as many statuses as were asked for.
    Statuses,
}

/// One request about many different names. Each connection has names of its own, as two requests
/// about one session at the same time would wait for each other.
pub(crate) struct Many {
    request: Request,
    names: Arc<Names>,
    random: fastrand::Rng,
    share: usize,
    shares: usize,
    count: Count,
}

impl Many {
    /// One for each connection.
    pub(crate) fn each(
        connections: usize,
        request: &Request,
        names: &Arc<Names>,
        count: Count,
    ) -> Vec<Self> {
        let shares = connections.min(names.len() / request.slots().max(1)).max(1);
        let one = |index| Self {
            request: request.clone(),
            names: Arc::clone(names),
            random: fastrand::Rng::new(),
            share: index % shares,
            shares,
            count,
        };
        (0..connections).map(one).collect()
    }
}

impl Script for Many {
    fn next(&mut self) -> &[u8] {
        let own = self.names.len() / self.shares;
        let start = self.random.usize(..own);
        for slot in 0..self.request.slots() {
            let index = (start + slot * STRIDE) % own * self.shares + self.share;
            self.request.fill(slot, self.names.get(index));
        }
        self.request.bytes()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        let slots = self.request.slots() as u64;
        match self.count {
            Count::Accepted => {
                let rest = answer.body.strip_prefix(b"{\"accepted\":")?;
                let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
                Some(number(&rest[..digits])? as u64).filter(|_| answer.status == 200)
            }
            Count::Statuses => {
                // Every status is at least so long: cheaper than counting them each time.
                let all = answer.body.len() as u64 > slots * 100;
                (answer.status == 200 && all).then_some(slots)
            }
        }
    }
}

/// Login, logout, login, logout: of users who belong to this connection alone.
pub(crate) struct Churn {
    login: Request,
    logout: Request,
    users: Vec<Vec<u8>>,
    turn: usize,
    turns_max: usize,
    open: bool,
}

impl Churn {
    /// One for each connection, until the time is over.
    pub(crate) fn each(connections: usize, token: &str, users: &Arc<Names>) -> Vec<Self> {
        Self::until(usize::MAX, connections, token, users)
    }

    /// One for each connection, that lets each of its users in and out once.
    pub(crate) fn once(connections: usize, token: &str, users: &Arc<Names>) -> Vec<Self> {
        let mut all = Self::until(0, connections, token, users);
        for one in &mut all {
            one.turns_max = one.users.len();
        }
        all
    }

    fn until(turns_max: usize, connections: usize, token: &str, users: &Arc<Names>) -> Vec<Self> {
        let body = r#"{"user_id":"{}","session_id":"________-____-____-____-____________"}"#;
        // Slots are of one width; a user's name is not as wide as a session's: it is written in.
        let width = users.width();
        let mut owned: Vec<Vec<Vec<u8>>> = vec![Vec::new(); connections];
        for index in 0..users.len() {
            owned[index % connections].push(users.get(index).to_vec());
        }
        let login = Request::new("POST /v1/sessions", token, body, width);
        let logout = Request::new("DELETE /v1/sessions/{}", token, "", UUID_WIDTH);
        let one = |users| Self {
            login: login.clone(),
            logout: logout.clone(),
            users,
            turn: 0,
            turns_max,
            open: false,
        };
        owned.into_iter().filter(|users| !users.is_empty()).map(one).collect()
    }
}

impl Script for Churn {
    fn next(&mut self) -> &[u8] {
        self.open = !self.open;
        if !self.open {
            return self.logout.bytes();
        }
        let mut text = Uuid::encode_buffer();
        let session = Uuid::now_v7().hyphenated().encode_lower(&mut text).as_bytes();
        self.login.fill(0, &self.users[self.turn % self.users.len()]);
        self.turn += 1;
        self.login.fill_end(UUID_WIDTH + 2, session);
        self.logout.fill(0, session);
        self.login.bytes()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        let expected = if self.open { 201 } else { 200 };
        (answer.status == expected).then_some(1)
    }

    fn is_done(&self) -> bool {
        self.turn >= self.turns_max && !self.open
    }

    /// Who was let in is seen out, or it would stay for the length of a lease.
    fn may_end(&self) -> bool {
        !self.open
    }
}

/// Logs users in, one session each, once.
pub(crate) struct Login {
    request: Request,
    users: Arc<Names>,
    sessions: Arc<Names>,
    next: usize,
    step: usize,
}

impl Login {
    /// One for each connection; together they log everybody in.
    pub(crate) fn each(
        connections: usize,
        token: &str,
        users: &Arc<Names>,
        sessions: &Arc<Names>,
    ) -> Vec<Self> {
        let body = r#"{"user_id":"{}","session_id":"________-____-____-____-____________"}"#;
        let request = Request::new("POST /v1/sessions", token, body, users.width());
        let one = |next| Self {
            request: request.clone(),
            users: Arc::clone(users),
            sessions: Arc::clone(sessions),
            next,
            step: connections,
        };
        (0..connections.min(users.len())).map(one).collect()
    }
}

impl Script for Login {
    fn next(&mut self) -> &[u8] {
        self.request.fill(0, self.users.get(self.next));
        self.request.fill_end(UUID_WIDTH + 2, self.sessions.get(self.next));
        self.next += self.step;
        self.request.bytes()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        (answer.status == 201).then_some(1)
    }

    fn is_done(&self) -> bool {
        self.next >= self.users.len()
    }
}

/// `SETEX` of a session's last sign of life: what presence in Redis comes down to.
pub(crate) struct Setex(One);

impl Setex {
    /// One for each connection.
    pub(crate) fn each(connections: usize, sessions: &Arc<Names>) -> Vec<Self> {
        let text = "*4\r\n$5\r\nSETEX\r\n$36\r\n{}\r\n$3\r\n120\r\n$13\r\n1790000000000\r\n";
        let request = Request::raw(text, UUID_WIDTH);
        One::each(connections, &request, sessions).into_iter().map(Self).collect()
    }
}

impl Script for Setex {
    fn next(&mut self) -> &[u8] {
        self.0.next()
    }

    fn acknowledged(&mut self, answer: Answer<'_>) -> Option<u64> {
        self.0.acknowledged(answer)
    }

    fn parse(bytes: &[u8]) -> Parsed {
        match bytes {
            b"+OK\r\n" => Parsed::Whole(200, 0..0),
            [b'-', .., b'\r', b'\n'] => Parsed::Whole(500, 0..bytes.len()),
            [b'+' | b'-', ..] | [] => Parsed::Partial,
            _ => Parsed::Garbled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_share_the_names_and_none_is_two_ones() {
        let names = Names::make(7, |number| format!("{number}"));
        let request = Request::raw("{}", 1);
        let all = One::each_of_its_own(3, &request, &names);
        let mut own: Vec<String> = all.iter().flat_map(|one| one.names.texts()).collect();
        own.sort();
        assert_eq!((all.len(), own), (3, names.texts()));
        assert_eq!(One::each_of_its_own(9, &request, &names).len(), 7);
    }
}
