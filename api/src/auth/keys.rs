//! The keys that tokens are verified with: one shared secret, or public keys from a JWKS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::token;

/// The least time between two fetches of a JWKS URL, however many unknown `kid`s come.
pub const JWKS_FETCH_PAUSE: Duration = Duration::from_secs(30);
/// The age at which a JWKS URL is fetched again unasked, so that withdrawn keys go.
pub const JWKS_AGE_MAX: Duration = Duration::from_mins(10);
/// How long one fetch may take.
const JWKS_FETCH_MAX: Duration = Duration::from_secs(5);
/// Longest JWKS that is read, in bytes.
const JWKS_BYTES_MAX: usize = 1024 * 1024;
/// The least modulus of an RSA key, in bytes: 2048 bits (RFC 7518, 3.3).
const RSA_MODULUS_BYTES_MIN: usize = 256;

/// Why keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The secret's or the JWKS' file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system has no random bytes")]
    NoRandom,
    /// The secret's file is empty.
    #[error("{}: not a key; remove it to get a new one at the next `serve`", .0.display())]
    NotAKey(PathBuf),
    /// The document is no JWKS or has no key that we take.
    #[error("JWKS: {0}")]
    NotAKeySet(String),
    /// The URL did not answer.
    #[error("JWKS: {0}")]
    Fetch(#[from] reqwest::Error),
}

/// One key and the one way in which it is used.
pub(super) struct VerifyKey {
    kid: Option<String>,
    algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) validation: Validation,
}

/// The keys of one moment.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<VerifyKey>,
    algorithms: Vec<Algorithm>,
}

impl KeySet {
    /// Whether tokens of this algorithm are accepted at all.
    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// The keys that may have signed: those of the algorithm, and of the `kid` where both name one.
    pub(super) fn candidates<'a>(
        &'a self,
        algorithm: Algorithm,
        kid: Option<&'a str>,
    ) -> impl Iterator<Item = &'a VerifyKey> {
        self.keys.iter().filter(move |key| {
            let named = key.kid.as_deref().zip(kid);
            key.algorithm == algorithm && named.is_none_or(|(ours, theirs)| ours == theirs)
        })
    }
}

/// Where keys come from; tokens of both are accepted where both are given.
#[derive(Debug, Clone, Default)]
pub struct KeySources {
    /// An HS256 secret, used byte by byte.
    pub secret: Option<Secret>,
    /// Public keys.
    pub jwks: Option<Jwks>,
}

/// A shared secret, never printed.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The place of a JWK set (RFC 7517).
#[derive(Debug, Clone)]
pub enum Jwks {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A URL, fetched at the start, when an unknown `kid` shows up, and every 10 minutes.
    Url(reqwest::Url),
}

impl Jwks {
    /// An `http(s)` URL, else a path.
    pub fn at(place: &str) -> Self {
        match reqwest::Url::parse(place) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Self::Url(url),
            Ok(_) | Err(_) => Self::File(PathBuf::from(place)),
        }
    }
}

/// What is known of the JWKS' last reading.
#[derive(Default)]
struct Reading {
    modified: Option<SystemTime>,
    fetched: Option<Instant>,
}

/// The keys in use, kept fresh.
pub(super) struct Keys {
    sources: KeySources,
    issuer: String,
    audience: String,
    current: RwLock<Arc<KeySet>>,
    reading: Mutex<Reading>,
}

impl Keys {
    /// Reads all sources. A file must be there; a URL that does not answer is tried again when the
    /// first token comes, so that the server starts while its identity provider is down.
    pub(super) async fn load(
        sources: KeySources,
        issuer: &str,
        audience: &str,
    ) -> Result<Self, KeyError> {
        let keys = Self {
            sources,
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            current: RwLock::default(),
            reading: Mutex::default(),
        };
        // Tokens of the secret are good from the start, whatever becomes of the JWKS.
        keys.replace(None)?;
        if let Some(jwks) = &keys.sources.jwks {
            match keys.read_jwks(jwks, &mut *keys.reading.lock().await).await {
                Err(error @ KeyError::Fetch(_)) => {
                    tracing::warn!(%error, "starting without the JWKS");
                }
                read => read?,
            }
        }
        Ok(keys)
    }

    /// The keys of now.
    pub(super) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the JWKS again because a token names a key that `seen` lacks. Answers whether other
    /// keys are there now. Whoever comes while another reads waits for that reading.
    pub(super) async fn renew(&self, seen: &Arc<KeySet>) -> bool {
        let Some(jwks) = &self.sources.jwks else { return false };
        let mut reading = self.reading.lock().await;
        let renewed_meanwhile = !Arc::ptr_eq(seen, &self.current());
        renewed_meanwhile || self.refresh(jwks, &mut reading, JWKS_FETCH_PAUSE).await
    }

    /// Reads a file that has changed, fetches a URL that is older than [`JWKS_AGE_MAX`]. Answers
    /// whether they were read. Keys stay as they are where that fails.
    pub(super) async fn tidy(&self) -> bool {
        let Some(jwks) = &self.sources.jwks else { return false };
        self.refresh(jwks, &mut *self.reading.lock().await, JWKS_AGE_MAX).await
    }

    async fn refresh(&self, jwks: &Jwks, reading: &mut Reading, pause: Duration) -> bool {
        let due = match jwks {
            Jwks::File(path) => modified(path).is_ok_and(|at| reading.modified != at),
            Jwks::Url(_) => reading.fetched.is_none_or(|at| at.elapsed() >= pause),
        };
        if !due {
            return false;
        }
        let read = self.read_jwks(jwks, reading).await;
        if let Err(error) = &read {
            tracing::warn!(%error, "the JWKS could not be read; the known keys stay");
        }
        read.is_ok()
    }

    async fn read_jwks(&self, jwks: &Jwks, reading: &mut Reading) -> Result<(), KeyError> {
        let document = match jwks {
            Jwks::File(path) => {
                let in_file = |source| KeyError::File { path: path.clone(), source };
                reading.modified = modified(path).map_err(in_file)?;
                fs::read(path).map_err(in_file)?
            }
            Jwks::Url(url) => {
                // Set before the try: a provider that is down is not asked more often.
                reading.fetched = Some(Instant::now());
                fetch(url).await?
            }
        };
        self.replace(Some(&document))
    }

    fn replace(&self, jwks: Option<&[u8]>) -> Result<(), KeyError> {
        let mut fresh = KeySet::default();
        if let Some(Secret(secret)) = &self.sources.secret {
            fresh.algorithms.push(Algorithm::HS256);
            let decoding = DecodingKey::from_secret(secret.as_bytes());
            fresh.keys.push(self.key(None, Algorithm::HS256, decoding));
        }
        if self.sources.jwks.is_some() {
            fresh.algorithms.extend([Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256]);
        }
        if let Some(document) = jwks {
            fresh.keys.extend(self.public_keys(document)?);
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }

    fn key(&self, kid: Option<String>, algorithm: Algorithm, decoding: DecodingKey) -> VerifyKey {
        let validation = token::validation(algorithm, &self.issuer, &self.audience);
        VerifyKey { kid, algorithm, decoding, validation }
    }

    /// The usable keys of a JWKS; those of other kinds, sizes and uses are passed over.
    fn public_keys(&self, document: &[u8]) -> Result<Vec<VerifyKey>, KeyError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| KeyError::NotAKeySet(error.to_string()))?;
        let usable = |value| {
            let jwk: Jwk = serde_json::from_value(value).ok()?;
            let algorithm = algorithm_of(&jwk)?;
            let decoding = DecodingKey::from_jwk(&jwk).ok()?;
            Some(self.key(jwk.common.key_id, algorithm, decoding))
        };
        let keys: Vec<VerifyKey> = document.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(KeyError::NotAKeySet("no EdDSA, ES256 or RS256 signing key".to_owned()));
        }
        Ok(keys)
    }
}

/// The one algorithm of a public key; none for keys that we do not take.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            let strong = key.n.len() >= (RSA_MODULUS_BYTES_MIN * 4).div_ceil(3);
            strong.then_some((Algorithm::RS256, KeyAlgorithm::RS256))?
        }
        AlgorithmParameters::EllipticCurve(key) => {
            (key.curve == EllipticCurve::P256).then_some((Algorithm::ES256, KeyAlgorithm::ES256))?
        }
        AlgorithmParameters::OctetKeyPair(key) => (key.curve == EllipticCurve::Ed25519)
            .then_some((Algorithm::EdDSA, KeyAlgorithm::EdDSA))?,
        _ => return None, // Shared secrets have no place in a public set; others are not known.
    };
    jwk.common.key_algorithm.is_none_or(|said| said == named).then_some(algorithm)
}

fn modified(path: &Path) -> io::Result<Option<SystemTime>> {
    fs::metadata(path)?.modified().map(Some)
}

async fn fetch(url: &reqwest::Url) -> Result<Vec<u8>, KeyError> {
    install_tls();
    let client = reqwest::Client::builder().timeout(JWKS_FETCH_MAX).build()?;
    let mut response = client.get(url.clone()).send().await?.error_for_status()?;
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        document.extend_from_slice(&chunk);
        if document.len() > JWKS_BYTES_MAX {
            return Err(KeyError::NotAKeySet("longer than 1 MiB".to_owned()));
        }
    }
    Ok(document)
}

/// Chooses `ring` for TLS, once in a process. To be called before any `reqwest` client is built.
pub fn install_tls() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // An error says that the host process chose already; then its choice stands.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
