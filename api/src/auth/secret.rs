//! The HS256 secret that lives in the data dir.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::keys::{KeyError, Secret};
use super::token::hex;

/// The file in the data dir that holds the secret: 64 hex digits, used as they stand, so that any
/// JWT library can sign with the file's one line.
pub const SECRET_FILE: &str = "token.key";

/// The secret of this data dir, made now where there is none: for `serve`.
///
/// The file appears whole or not at all, so that two servers starting at once agree.
pub fn load_or_make_secret(data_dir: &Path) -> Result<Secret, KeyError> {
    let path = data_dir.join(SECRET_FILE);
    if !path.exists() {
        let draft = data_dir.join(format!("{SECRET_FILE}.{}", uuid::Uuid::now_v7()));
        let in_file = |source| KeyError::File { path: path.clone(), source };
        let secret = random_hex()?;
        fs::create_dir_all(data_dir).map_err(in_file)?;
        let made = write_private(&draft, &secret).and_then(|()| fs::hard_link(&draft, &path));
        let _ = fs::remove_file(&draft);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(in_file(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    load_secret(data_dir)
}

/// The secret of this data dir: for `token`.
pub fn load_secret(data_dir: &Path) -> Result<Secret, KeyError> {
    let path = data_dir.join(SECRET_FILE);
    let in_file = |source| KeyError::File { path: path.clone(), source };
    let mode = fs::metadata(&path).map_err(in_file)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others may read the token key; chmod it to 0600");
    }
    let secret = fs::read_to_string(&path).map_err(in_file)?.trim().to_owned();
    if secret.is_empty() { Err(KeyError::NotAKey(path)) } else { Ok(Secret(secret)) }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn random_hex() -> Result<String, KeyError> {
    let mut bytes = [0_u8; 32];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    struct Dir(std::path::PathBuf);

    impl Dir {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("rollcall-{}", uuid::Uuid::now_v7())))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_secret_is_made_once_and_only_its_owner_may_read_it() {
        let dir = Dir::new();
        assert!(load_secret(&dir.0).is_err(), "`token` makes no key");
        let Secret(made) = load_or_make_secret(&dir.0).unwrap();
        assert!(made.len() == 64 && made.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(load_or_make_secret(&dir.0).unwrap().0, made);
        assert_eq!(load_secret(&dir.0).unwrap().0, made);
        let permissions = fs::metadata(dir.0.join(SECRET_FILE)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn two_servers_that_start_at_once_share_one_secret() {
        let dir = Dir::new();
        let made: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| load_or_make_secret(&dir.0).unwrap().0)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|secret| *secret == made[0]));
    }
}
