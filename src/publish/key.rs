//! ed25519 keys: made on first use, kept in one file that only its owner can read, never shown and never logged.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bytes;

/// How a public key begins as text.
const PREFIX: &str = "ed25519:";

/// Whose signature it is: 32 bytes; as text `ed25519:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

/// 64 bytes of ed25519.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// A key that signs. Its bytes leave this module only into its own file.
pub struct SecretKey(SigningKey);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("could not {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is no key: expected 64 hex digits", path.display())]
    Malformed { path: PathBuf },
    #[error("others can read the key {} (mode {mode:o}): chmod 600 it, and make a new one if they did", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("this system gives no random bytes: {0}")]
    Random(String),
    #[error("`{0}` is no public key: expected ed25519: and 64 hex digits")]
    Public(String),
}

impl SecretKey {
    /// The key in this file; made now if there is none. Of two processes that make it at once one wins, for both.
    pub fn open_or_make(path: &Path) -> Result<SecretKey, KeyError> {
        if !path.exists() {
            make(path)?;
        }
        SecretKey::open(path)
    }

    fn open(path: &Path) -> Result<SecretKey, KeyError> {
        let io = |action| move |source| KeyError::Io { action, path: path.to_owned(), source };
        let file = fs::File::open(path).map_err(io("open the key"))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let mode = file.metadata().map_err(io("look at the key"))?.mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyError::Exposed { path: path.to_owned(), mode });
            }
        }
        let mut text = String::new();
        file.take(128).read_to_string(&mut text).map_err(io("read the key"))?;
        let seed = bytes::unhex(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    /// A key that is in no file.
    pub fn random() -> Result<SecretKey, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| KeyError::Random(e.to_string()))?;
        Ok(SecretKey(SigningKey::from_bytes(&seed)))
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

/// Written whole under another name, readable by the owner only, then renamed.
fn make(path: &Path) -> Result<(), KeyError> {
    let io = |action| move |source| KeyError::Io { action, path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(io("make the folder of"))?;
    let key = SecretKey::random()?;
    // Created with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io("make"))?;
    writeln!(file, "{}", pipe_store::hex(key.0.as_bytes())).map_err(io("write"))?;
    file.as_file().sync_all().map_err(io("write"))?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(io("write")(e.error)),
    }
}

impl fmt::Debug for SecretKey {
    /// Shows the public half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.public())
    }
}

impl PublicKey {
    /// Did this key sign these bytes? Strict: weak keys and second forms of a signature are refused.
    pub fn signed(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", pipe_store::hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix(PREFIX).and_then(bytes::unhex);
        digits.map(PublicKey).ok_or_else(|| KeyError::Public(text.to_owned()))
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match s.is_human_readable() {
            true => s.collect_str(self),
            false => bytes::serialize(&self.0, s),
        }
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match d.is_human_readable() {
            true => String::deserialize(d)?.parse().map_err(serde::de::Error::custom),
            false => bytes::deserialize(d).map(PublicKey),
        }
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", pipe_store::hex(&self.0))
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        bytes::serialize(&self.0, s)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        bytes::deserialize(d).map(Signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/ed25519");
        let first = SecretKey::open_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::open_or_make(&path).unwrap().public(), first.public());
        let secret = fs::read_to_string(&path).unwrap();
        assert!(!format!("{first:?}").contains(secret.trim()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SecretKey::open_or_make(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let key = SecretKey::open_or_make(&path).unwrap();
        let public = "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(key.public().to_string(), public);
        assert_eq!(public.parse::<PublicKey>().unwrap(), key.public());
        let signature = key.sign(&[0x72]);
        assert_eq!(
            pipe_store::hex(&signature.0),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(key.public().signed(&[0x72], &signature));
        assert!(!key.public().signed(&[0x73], &signature));
    }
}
