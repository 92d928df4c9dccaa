//! How many live feeds one user and one address may have on this node.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::UserId;

use crate::auth::{Caller, Role};
use crate::problem::Problem;

/// What those are asked to wait who find no place.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// Who has how many.
#[derive(Debug)]
pub struct Places {
    per_user_max: usize,
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    users: HashMap<UserId, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// One place, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    user: Option<UserId>,
    address: Option<IpAddr>,
}

impl Places {
    /// All free.
    pub fn new(per_user_max: usize, per_address_max: usize) -> Self {
        Self { per_user_max, per_address_max, taken: Mutex::default() }
    }

    /// Takes one. Errors: 429 `too_many_connections`.
    pub fn take(self: &Arc<Self>, caller: &Caller, peer: IpAddr) -> Result<Place, Problem> {
        let user = (!caller.has(Role::Service)).then(|| caller.user_id.clone());
        self.take_for(user, network(peer))
    }

    fn take_for(
        self: &Arc<Self>,
        user: Option<UserId>,
        address: Option<IpAddr>,
    ) -> Result<Place, Problem> {
        let mut taken = self.lock();
        let of_user = user.as_ref().and_then(|user| taken.users.get(user));
        let of_address = address.as_ref().and_then(|address| taken.addresses.get(address));
        if of_user.is_some_and(|count| *count >= self.per_user_max) {
            return Err(full("this user has too many live feeds open"));
        }
        if of_address.is_some_and(|count| *count >= self.per_address_max) {
            return Err(full("there are too many live feeds from this address"));
        }
        if let Some(user) = &user {
            *taken.users.entry(user.clone()).or_default() += 1;
        }
        if let Some(address) = address {
            *taken.addresses.entry(address).or_default() += 1;
        }
        drop(taken);
        Ok(Place { places: Arc::clone(self), user, address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(detail: &'static str) -> Problem {
    let status = axum::http::StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "too_many_connections", detail).retry_after(FULL_RETRY)
}

/// What counts as one address; none: this machine, behind whose proxy everybody may be.
fn network(peer: IpAddr) -> Option<IpAddr> {
    match peer.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(IpAddr::V4(address)),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Some(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
        }
    }
}

fn give_back<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(user) = &self.user {
            give_back(&mut taken.users, user);
        }
        if let Some(address) = &self.address {
            give_back(&mut taken.addresses, address);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_an_address_have_so_many_places_and_get_them_back() {
        let places = Arc::new(Places::new(2, 3));
        let take = |user: &str, peer: &str| {
            places.take_for(Some(user.parse().unwrap()), network(peer.parse().unwrap()))
        };
        let one = take("ana", "192.0.2.1").unwrap();
        let _two = take("ana", "::ffff:192.0.2.1").unwrap();
        assert_eq!(take("ana", "192.0.2.2").unwrap_err().code(), "too_many_connections");
        let _three = take("bob", "192.0.2.1").unwrap();
        assert_eq!(take("eve", "192.0.2.1").unwrap_err().code(), "too_many_connections");
        drop(one);
        let _four = take("ana", "192.0.2.1").unwrap();
    }

    #[test]
    fn ipv6_counts_by_network_and_this_machine_not_at_all() {
        let network = |peer: &str| network(peer.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!((network("127.0.0.1"), network("::1")), (None, None));
    }
}
