//! Reading and making tokens: JWTs (RFC 7519) of exactly the configured algorithms.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::UserId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation, decode_header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::keys::KeySet;
use super::roles::{Role, RoleSet};

/// How far clocks may differ: for `exp`, `nbf` and `iat`.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// Longest token that is looked at, in bytes. Hashing and verifying cost by length.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Longest `jti` that serves as a token's key; a token with a stranger one goes by its hash.
const JTI_LENGTH_MAX: usize = 128;

/// SHA-256 of a token: it finds the cached caller, so that the token itself is not kept.
pub(super) type TokenHash = [u8; 32];

pub(super) fn hash_of(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenError {
    /// Not a JWT, a wrong signature, a claim that is missing or not ours.
    Invalid(&'static str),
    /// `exp` has passed by more than [`LEEWAY`].
    Expired,
    /// No key of this algorithm has the token's `kid`: fresh keys may have it.
    UnknownKey,
}

/// What a verified token says.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) user_id: UserId,
    pub(super) roles: RoleSet,
    pub(super) username: Option<String>,
    pub(super) groups: Vec<String>,
    /// A usable `jti`.
    pub(super) jti: Option<String>,
    pub(super) expires_at: DateTime<Utc>,
}

/// What every token must say, beyond its signature.
pub(super) fn validation(algorithm: Algorithm, issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["exp", "sub", "iss", "aud"]);
    validation.validate_nbf = true;
    validation.leeway = LEEWAY.as_secs();
    validation
}

/// The claims as issuers write them. Numbers may have fractions (RFC 7519, `NumericDate`).
#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    exp: f64,
    iat: Option<f64>,
    jti: Option<String>,
    roles: Option<OneOrMany>,
    preferred_username: Option<String>,
    groups: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word],
            Self::Many(words) => words,
        }
    }
}

/// Verifies `token` with the key that its header names. Only that key's own algorithm counts: a
/// header cannot choose another way to use a key.
pub(super) fn verify(token: &str, keys: &KeySet, now: DateTime<Utc>) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid("the token is too long"));
    }
    let header = decode_header(token).map_err(|_| TokenError::Invalid("this is not a token"))?;
    if header.crit.is_some() {
        return Err(TokenError::Invalid("the token has critical extensions")); // RFC 7515, 4.1.11
    }
    if !keys.takes(header.alg) {
        return Err(TokenError::Invalid("the token's algorithm is not accepted here"));
    }
    let mut refused = TokenError::UnknownKey;
    for key in keys.candidates(header.alg, header.kid.as_deref()) {
        match jsonwebtoken::decode::<RawClaims>(token, &key.decoding, &key.validation) {
            Ok(data) => return read(data.claims, now),
            Err(error) => refused = reason_of(&error),
        }
    }
    Err(refused)
}

fn reason_of(error: &jsonwebtoken::errors::Error) -> TokenError {
    use jsonwebtoken::errors::ErrorKind as Kind;
    TokenError::Invalid(match error.kind() {
        Kind::ExpiredSignature => return TokenError::Expired,
        Kind::ImmatureSignature => "the token's `nbf` lies ahead",
        Kind::InvalidIssuer => "the token's `iss` is not accepted here",
        Kind::InvalidAudience => "the token's `aud` is not accepted here",
        Kind::MissingRequiredClaim(_) => "the token lacks one of exp, sub, iss, aud",
        Kind::InvalidSignature => "the token's signature is wrong",
        _ => "this is not a valid token", // Another crate's enum, and non-exhaustive.
    })
}

fn read(raw: RawClaims, now: DateTime<Utc>) -> Result<Claims, TokenError> {
    let latest_iat = (now + LEEWAY).timestamp_millis() as f64 / 1000.0;
    if raw.iat.is_some_and(|iat| iat > latest_iat) {
        return Err(TokenError::Invalid("the token's `iat` lies ahead"));
    }
    let user_id =
        raw.sub.parse().map_err(|_| TokenError::Invalid("the token's `sub` is no user_id"))?;
    let roles = raw.roles.map(OneOrMany::into_vec).unwrap_or_default();
    let usable = |jti: &String| {
        (1..=JTI_LENGTH_MAX).contains(&jti.len()) && jti.bytes().all(|b| b.is_ascii_graphic())
    };
    Ok(Claims {
        user_id,
        roles: RoleSet::from_words(roles.iter().map(String::as_str)),
        username: raw.preferred_username.filter(|name| !name.contains('\0')),
        groups: raw.groups.map(OneOrMany::into_vec).unwrap_or_default(),
        jti: raw.jti.filter(usable),
        expires_at: instant(raw.exp),
    })
}

/// Seconds since 1970 as an instant; what lies beyond the calendar is its end.
fn instant(seconds: f64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis((seconds * 1000.0) as i64).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Makes tokens with the shared secret: for `rollcall token` and tests.
pub struct TokenSigner {
    key: EncodingKey,
    issuer: String,
    audience: String,
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    roles: Vec<&'static str>,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

impl TokenSigner {
    /// Signs with HS256 and `secret`, in the name of `issuer`, for `audience`.
    pub fn new(secret: &str, issuer: &str, audience: &str) -> Self {
        Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        }
    }

    /// A token for `subject` with `roles`, valid from now for `ttl`, with a fresh `jti`.
    pub fn mint(
        &self,
        subject: &UserId,
        roles: impl IntoIterator<Item = Role>,
        ttl: Duration,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let now = Utc::now().timestamp();
        let claims = MintedClaims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: subject.as_str(),
            roles: roles.into_iter().map(Role::as_str).collect(),
            iat: now,
            exp: now.saturating_add_unsigned(ttl.as_secs()),
            jti: Uuid::now_v7(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
    }
}

impl std::fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
