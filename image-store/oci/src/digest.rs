//! Content digests (OCI image spec, descriptor.md, "Digests") and the chain ids made of them
//! (config.md, "Layer ChainID").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A digest algorithm that Berth can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256: what every registry uses.
    Sha256,
    /// SHA-384: accepted, as go-digest does.
    Sha384,
    /// SHA-512: registered by the OCI spec.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }
}

/// Why a string is no digest. The wording is go-digest's, which docker's users know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not of the form `algorithm:hex`.
    #[error("invalid checksum digest format")]
    Format,
    /// An algorithm that is not supported.
    #[error("unsupported digest algorithm")]
    Unsupported,
    /// The right algorithm with the wrong number of digits.
    #[error("invalid checksum digest length")]
    Length,
}

/// A validated digest, `sha256:<64 lower-case hex digits>` in its most common form.
///
/// Because it is validated, its hex part is safe as a file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    text: Box<str>,
}

impl Digest {
    /// Parses `algorithm:hex`.
    ///
    /// # Errors
    /// If the algorithm is unknown or the digits are not as many as it has.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, digits) = text.split_once(':').ok_or(DigestError::Format)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha384" => Algorithm::Sha384,
            "sha512" => Algorithm::Sha512,
            _ if is_algorithm_name(name) => return Err(DigestError::Unsupported),
            _ => return Err(DigestError::Format),
        };
        if digits.len() != algorithm.hex_length() {
            return Err(DigestError::Length);
        }
        if !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format);
        }
        Ok(Self { text: text.into() })
    }

    /// The SHA-256 of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest `sha256:<digits>`.
    ///
    /// # Errors
    /// If these are not 64 lower-case hex digits.
    pub fn from_sha256_hex(digits: &str) -> Result<Self, DigestError> {
        Self::parse(&format!("sha256:{digits}"))
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.text.split_once(':') {
            Some(("sha384", _)) => Algorithm::Sha384,
            Some(("sha512", _)) => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        }
    }

    /// The digits after the colon.
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or(&*self.text, |(_, digits)| digits)
    }

    /// The first twelve digits, as `docker images` shows them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The grammar of an algorithm name: lower-case components joined by one of `+._-`.
fn is_algorithm_name(name: &str) -> bool {
    name.split(['+', '.', '_', '-'])
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.text.into()
    }
}

macro_rules! digest_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// Parses `algorithm:hex`.
            ///
            /// # Errors
            /// As [`Digest::parse`].
            pub fn parse(text: &str) -> Result<Self, DigestError> {
                Digest::parse(text).map(Self)
            }

            /// The digest itself.
            pub fn digest(&self) -> &Digest {
                &self.0
            }

            /// The digits after the colon.
            pub fn hex(&self) -> &str {
                self.0.hex()
            }

            /// The whole text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl From<Digest> for $name {
            fn from(digest: Digest) -> Self {
                Self(digest)
            }
        }
    };
}

digest_of! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}
digest_of! {
    /// The digest of a stack of layers.
    ChainId
}

/// The chain ids of a stack of layers, bottom first: one for each layer.
pub fn chain_ids(layers: &[DiffId]) -> Vec<ChainId> {
    let mut chain: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        let next = match chain.last() {
            None => ChainId(layer.0.clone()),
            Some(below) => ChainId(Digest::of(format!("{below} {layer}").as_bytes())),
        };
        chain.push(next);
    }
    chain
}

/// The chain id of a whole stack, bottom first; none for no layers.
pub fn chain_id(layers: &[DiffId]) -> Option<ChainId> {
    chain_ids(layers).pop()
}

/// Computes a digest piece by piece.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => State::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(h) => h.update(bytes),
            State::Sha384(h) => h.update(bytes),
            State::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        let (name, digits) = match self.0 {
            State::Sha256(h) => ("sha256", hex::encode(h.finalize())),
            State::Sha384(h) => ("sha384", hex::encode(h.finalize())),
            State::Sha512(h) => ("sha512", hex::encode(h.finalize())),
        };
        Digest { text: format!("{name}:{digits}").into() }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn computes_and_parses() {
        assert_eq!(Digest::of(b"").as_str(), EMPTY);
        let digest = Digest::parse(EMPTY).unwrap();
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(digest.algorithm(), Algorithm::Sha256);
        let long = Hasher::new(Algorithm::Sha512).finish();
        assert_eq!(Digest::parse(long.as_str()).unwrap(), long);
        assert_eq!(long.algorithm(), Algorithm::Sha512);
    }

    #[test]
    fn refuses_what_is_no_digest() {
        for (text, error) in [
            ("", DigestError::Format),
            ("sha256", DigestError::Format),
            ("sha256:", DigestError::Length),
            ("sha256:abc", DigestError::Length),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::Unsupported),
            ("../x:00", DigestError::Format),
            (&EMPTY.to_uppercase(), DigestError::Format),
            (&EMPTY.replace('e', "/"), DigestError::Format),
            (&EMPTY.replace('e', "E"), DigestError::Format),
        ] {
            assert_eq!(Digest::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn chain_ids_follow_the_spec() {
        let a = DiffId(Digest::of(b"a"));
        let b = DiffId(Digest::of(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0].as_str(), a.as_str());
        assert_eq!(chain[1].0, Digest::of(format!("{a} {b}").as_bytes()));
        assert_eq!(chain_id(&[]), None);
    }
}
