//! Platforms (OCI image spec, image-index.md) and how one is chosen from an index.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Descriptor;

/// An operating system and processor, normalised to Go's names (`linux`, `amd64`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, as `GOARCH`.
    #[serde(default)]
    pub architecture: String,
    /// The operating system, as `GOOS`.
    #[serde(default)]
    pub os: String,
    /// The version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    #[serde(rename = "os.features", default, skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// The variant of the processor, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A string that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is an invalid platform: {why}; expected os[/architecture[/variant]], such as linux/arm64/v8"
)]
pub struct PlatformError {
    text: String,
    why: &'static str,
}

impl Platform {
    /// A platform of which only these are known, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normal_architecture(architecture, variant.unwrap_or_default());
        Self {
            os: normal_os(os),
            architecture,
            variant: (!variant.is_empty()).then_some(variant),
            ..Self::default()
        }
    }

    /// The platform that this program was compiled for.
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// Parses `os[/architecture[/variant]]`; one word may be either an OS or an architecture.
    ///
    /// # Errors
    /// If it has no such form.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let fail = |why| PlatformError { text: text.to_owned(), why };
        let parts: Vec<&str> = text.split('/').collect();
        let sound = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-()".contains(&b))
        };
        if !parts.iter().all(sound) {
            return Err(fail("a component is empty or has characters that are not allowed"));
        }
        match parts[..] {
            [word] if is_os(&normal_os(word)) => Ok(Self { os: normal_os(word), ..Self::host() }),
            [word] if is_architecture(&normal_architecture(word, "").0) => Ok(Self::new("linux", word, None)),
            [_] => Err(fail("unknown operating system or architecture")),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(fail("too many components")),
        }
    }

    /// The same platform with its names normalised.
    pub fn normalized(&self) -> Self {
        Self {
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            ..Self::new(&self.os, &self.architecture, self.variant.as_deref())
        }
    }

    /// How well an image for `offered` runs where `self` is wanted: 0 is exact, larger is worse.
    pub fn fit(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.normalized(), offered.normalized());
        if wanted.os != offered.os {
            return None;
        }
        if wanted.architecture != offered.architecture {
            // A 64-bit ARM processor also runs 32-bit images, as containerd's matcher has it.
            let compatible = wanted.architecture == "arm64" && offered.architecture == "arm";
            return compatible.then(|| 100 + 8_u32.saturating_sub(variant_number(&offered)));
        }
        let (have, needs) = (variant_number(&wanted), variant_number(&offered));
        (needs <= have).then(|| have - needs)
    }

    /// Whether an image for `offered` runs where `self` is wanted.
    pub fn matches(&self, offered: &Self) -> bool {
        self.fit(offered).is_some()
    }

    /// The best manifest of an index for this platform; attestations are passed over, and of equals the
    /// first wins. A manifest without a platform is taken only if nothing else fits.
    pub fn choose<'a>(&self, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let images = || manifests.iter().filter(|m| !m.is_attestation());
        let fitting = images().filter_map(|m| Some((self.fit(m.platform.as_ref()?)?, m)));
        fitting
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, m)| m)
            .or_else(|| images().find(|m| m.platform.is_none()))
    }
}

fn variant_number(platform: &Platform) -> u32 {
    let text = platform.variant.as_deref().unwrap_or_default();
    let number = text.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
    match platform.architecture.as_str() {
        "arm" => number.unwrap_or(7),
        "arm64" => number.unwrap_or(8),
        "amd64" => number.unwrap_or(1),
        _ => number.unwrap_or(0),
    }
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// containerd's `normalizeArch`.
fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (name, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0" | "") => ("arm64", ""),
        ("aarch64" | "arm64", v) => ("arm64", v),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64", v) => ("ppc64", v),
        ("powerpc64le" | "ppc64el", v) => ("ppc64le", v),
        (other, v) => (other, v),
    };
    (name.to_owned(), variant.to_owned())
}

fn is_os(word: &str) -> bool {
    matches!(
        word,
        "linux" | "windows" | "darwin" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "aix" | "android"
    )
}

fn is_architecture(word: &str) -> bool {
    matches!(
        word,
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "loong64"
            | "mips"
            | "mipsle"
            | "mips64"
            | "mips64le"
            | "ppc64"
            | "ppc64le"
            | "riscv64"
            | "s390x"
            | "wasm"
    )
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, media_type};

    fn offer(platform: &str) -> Descriptor {
        let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(platform.as_bytes()), 1);
        let [os, arch, variant] = [0, 1, 2].map(|i| platform.split('/').nth(i).unwrap_or_default());
        descriptor.platform = Some(Platform {
            os: os.into(),
            architecture: arch.into(),
            variant: (!variant.is_empty()).then(|| variant.into()),
            ..Platform::default()
        });
        descriptor
    }

    fn chosen(wanted: &str, offers: &[&str]) -> Option<usize> {
        let offers: Vec<_> = offers.iter().map(|o| offer(o)).collect();
        let best = Platform::parse(wanted).unwrap();
        let best = best.choose(&offers)?;
        offers.iter().position(|o| o == best)
    }

    #[test]
    fn parses_and_normalises() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/ARM/v6", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), normal, "{text}");
        }
        for text in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/am d64"] {
            assert!(Platform::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn chooses_the_best_of_an_index() {
        assert_eq!(chosen("linux/amd64", &["linux/arm64", "linux/amd64"]), Some(1));
        assert_eq!(chosen("linux/amd64", &["windows/amd64", "unknown/unknown"]), None);
        assert_eq!(chosen("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm64"]), Some(1));
        assert_eq!(chosen("linux/arm/v6", &["linux/arm/v7"]), None);
        assert_eq!(chosen("linux/arm64", &["linux/arm/v6", "linux/arm/v7"]), Some(1));
        assert_eq!(chosen("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"]), Some(1));
        assert_eq!(chosen("linux/amd64/v3", &["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"]), Some(1));
    }
}
