//! Who is asking: bearer tokens, roles, revocations.
//!
//! A token is verified once and its caller is then found by the token's SHA-256, so that a request
//! costs one hash and one look into a map. Expiry and revocation are checked each time.
//!
//! Absent here: sessions of browsers, cookies, passwords. A token comes in `Authorization` and
//! nowhere else; the one exception calls [`Auth::authenticate`] itself (`compat`'s WebSocket).

mod cache;
mod ends;
mod extractor;
mod keys;
mod revocation;
mod roles;
mod secret;
mod token;

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Deref;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Utc};
use domain::UserId;

use crate::limits::RateLimits;
use crate::problem::Problem;
use cache::CallerCache;
use keys::Keys;
use token::TokenError;

pub use ends::TokenEnd;
pub use keys::{JWKS_AGE_MAX, JWKS_FETCH_PAUSE, Jwks, KeyError, KeySources, Secret, install_tls};
pub use revocation::Revocations;
pub use roles::{Role, RoleSet, UnknownRole};
pub use secret::{SECRET_FILE, load_or_make_secret, load_secret};
pub use token::{LEEWAY, TOKEN_BYTES_MAX, TokenSigner};

/// What `iss` and `aud` must be unless configured.
pub const ISSUER_DEFAULT: &str = "rollcall";

/// Verified tokens that are remembered: some 50 MB when full.
const CACHED_CALLERS_MAX: usize = 131_072;

/// How often [`Auth::tidy`] wants to be called.
pub const TIDY_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// What a verified token says of its bearer.
#[derive(Debug)]
pub struct Identity {
    /// The token's `sub`.
    pub user_id: UserId,
    /// The token's `roles`, as far as they are known ones.
    pub roles: RoleSet,
    /// The token's `preferred_username`.
    pub username: Option<String>,
    /// The token's `groups`.
    pub groups: Vec<String>,
    /// What the token is revoked by: its `jti`, else its SHA-256 in hex.
    pub token_key: String,
    /// The token's `exp`.
    pub expires_at: DateTime<Utc>,
    /// A keyed hash of `user_id`, for the rate limit.
    pub(crate) subject_hash: u64,
}

/// Who makes this request. Cheap to clone; reads like its [`Identity`].
#[derive(Debug, Clone)]
pub struct Caller(Arc<Identity>);

impl Deref for Caller {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0
    }
}

impl Caller {
    /// Whether the token has this role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.has(role)
    }

    /// Whether the token has one of these roles.
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.has(*role))
    }

    /// Whether this is the user's own token.
    pub fn is(&self, user: &UserId) -> bool {
        self.user_id == *user
    }

    /// 403 `forbidden` unless the token has one of these roles.
    pub fn require(&self, roles: &[Role]) -> Result<(), Problem> {
        if self.has_any(roles) { Ok(()) } else { Err(forbidden(roles)) }
    }

    /// 403 `forbidden` unless it is the user's own token or has one of these roles.
    pub fn require_self_or(&self, user: &UserId, roles: &[Role]) -> Result<(), Problem> {
        if self.is(user) { Ok(()) } else { self.require(roles) }
    }

    /// The instant after which a revocation of this token may be forgotten.
    pub fn refused_anyway_after(&self) -> DateTime<Utc> {
        self.expires_at.checked_add_signed(LEEWAY_DELTA).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }
}

const LEEWAY_DELTA: chrono::TimeDelta = chrono::TimeDelta::seconds(LEEWAY.as_secs() as i64);

#[cold]
fn forbidden(roles: &[Role]) -> Problem {
    let words: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
    Problem::forbidden(format!("this needs one of the roles {}", words.join(", ")))
}

/// What tokens must say and be signed with.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Where the keys are.
    pub keys: KeySources,
    /// The only `iss` that is accepted.
    pub issuer: String,
    /// The `aud` that must be among a token's.
    pub audience: String,
}

/// Verifies tokens. One for a server, shared by all requests.
pub struct Auth {
    keys: Keys,
    callers: CallerCache,
    revocations: Arc<Revocations>,
    limits: RateLimits,
    subject_hasher: RandomState,
}

impl Auth {
    /// Loads the keys. Errors: a JWKS file that cannot be read or has no usable key.
    pub async fn new(settings: AuthSettings, limits: RateLimits) -> Result<Self, KeyError> {
        Ok(Self {
            keys: Keys::load(settings.keys, &settings.issuer, &settings.audience).await?,
            callers: CallerCache::new(CACHED_CALLERS_MAX),
            revocations: Arc::default(),
            limits,
            subject_hasher: RandomState::new(),
        })
    }

    /// The revoked tokens, to be filled from where they are stored.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The rate limit per subject.
    pub fn limits(&self) -> &RateLimits {
        &self.limits
    }

    /// Who sent these headers; takes one request out of the caller's rate limit.
    ///
    /// Errors: 401 `unauthenticated`, `invalid_token`, `token_expired`, `token_revoked`; 429.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let caller = self.authenticate(bearer(headers)?, Utc::now()).await?;
        self.limits.check(&caller)?;
        Ok(caller)
    }

    /// Whose token this is, as of `now`. Errors: 401.
    pub async fn authenticate(&self, token: &str, now: DateTime<Utc>) -> Result<Caller, Problem> {
        let hash = token::hash_of(token);
        let caller = match self.callers.get(&hash) {
            Some(caller) => caller,
            None => self.learn(token, hash, now).await?,
        };
        self.still_good(&caller, now)?;
        Ok(caller)
    }

    fn still_good(&self, caller: &Caller, now: DateTime<Utc>) -> Result<(), Problem> {
        if caller.refused_anyway_after() < now {
            return Err(Problem::token_expired());
        }
        if self.revocations.contains(&caller.token_key) {
            return Err(Problem::token_revoked());
        }
        Ok(())
    }

    fn subject_hash(&self, user: &UserId) -> u64 {
        self.subject_hasher.hash_one(user.as_str())
    }

    #[cold]
    async fn learn(
        &self,
        token: &str,
        hash: token::TokenHash,
        now: DateTime<Utc>,
    ) -> Result<Caller, Problem> {
        let mut keys = self.keys.current();
        let mut verified = token::verify(token, &keys, now);
        if matches!(verified, Err(TokenError::UnknownKey)) && self.keys.renew(&keys).await {
            self.callers.clear();
            keys = self.keys.current();
            verified = token::verify(token, &keys, now);
        }
        let claims = verified.map_err(|error| match error {
            TokenError::Expired => Problem::token_expired(),
            TokenError::Invalid(detail) => Problem::invalid_token(detail),
            TokenError::UnknownKey => Problem::invalid_token("the token's key is not known here"),
        })?;
        let caller = Caller(Arc::new(Identity {
            subject_hash: self.subject_hash(&claims.user_id),
            user_id: claims.user_id,
            roles: claims.roles,
            username: claims.username,
            groups: claims.groups,
            token_key: claims.jti.unwrap_or_else(|| token::hex(&hash)),
            expires_at: claims.expires_at,
        }));
        self.callers.insert(hash, caller.clone());
        Ok(caller)
    }

    /// Reads changed keys, forgets revocations and rate limits that no longer matter. One step;
    /// to be called every [`TIDY_EVERY`].
    pub async fn tidy(&self, now: DateTime<Utc>) {
        if self.keys.tidy().await {
            // A key may have been withdrawn: whom it vouched for must be verified again.
            self.callers.clear();
        }
        self.revocations.forget_expired(now);
        self.limits.tidy();
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The token of `Authorization: Bearer <token>`; the scheme's case does not matter (RFC 9110,
/// 11.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(Problem::unauthenticated)?;
    if values.next().is_some() {
        return Err(Problem::invalid_token("more than one Authorization header"));
    }
    let text = value.to_str().map_err(|_| Problem::invalid_token("this is not a token"))?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Problem::unauthenticated());
    }
    Ok(token)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
