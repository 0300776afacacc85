//! Names of containers and volumes: what is allowed, and names for those who give none.

use crate::error::{EngineError, Result};

const ADJECTIVES: &[&str] = &[
    "amber", "ample", "brave", "breezy", "bright", "brisk", "calm", "candid", "careful", "cheerful", "clear",
    "clever", "cosy", "curious", "daring", "deft", "eager", "early", "earnest", "fair", "faithful", "fleet",
    "fond", "frank", "gentle", "glad", "golden", "graceful", "hardy", "hearty", "honest", "humble", "jolly",
    "keen", "kind", "lively", "lucid", "merry", "mellow", "mild", "modest", "neat", "nimble", "noble",
    "patient", "placid", "plucky", "polite", "prompt", "proud", "quick", "quiet", "ready", "rosy", "salty",
    "serene", "sharp", "silent", "sincere", "snug", "sober", "steady", "stout", "sunny", "sure", "swift",
    "tidal", "tidy", "tranquil", "trusty", "upbeat", "valiant", "vivid", "warm", "wary", "willing", "windy",
    "wise", "witty", "zesty",
];

/// People of ships, harbours, maps and the sea.
const SURNAMES: &[&str] = &[
    "amundsen",
    "anning",
    "baffin",
    "banks",
    "barents",
    "baret",
    "beaufort",
    "bellingshausen",
    "bering",
    "blackwell",
    "bligh",
    "bougainville",
    "bowditch",
    "brunel",
    "cabot",
    "carson",
    "cartier",
    "cochrane",
    "cook",
    "cousteau",
    "dampier",
    "darwin",
    "davis",
    "drake",
    "earle",
    "eriksson",
    "fitzroy",
    "flinders",
    "franklin",
    "frobisher",
    "gama",
    "gray",
    "hadley",
    "halley",
    "harrison",
    "heyerdahl",
    "hudson",
    "humboldt",
    "jason",
    "keelung",
    "laperouse",
    "magellan",
    "maury",
    "mawson",
    "mclean",
    "mercator",
    "moitessier",
    "nansen",
    "nobile",
    "ortelius",
    "parry",
    "peary",
    "piccard",
    "polo",
    "ptolemy",
    "pytheas",
    "quiros",
    "rasmussen",
    "ross",
    "saussure",
    "scott",
    "seacole",
    "shackleton",
    "slocum",
    "sverdrup",
    "tabei",
    "tasman",
    "tharp",
    "tilman",
    "torres",
    "tupaia",
    "vancouver",
    "vespucci",
    "wegener",
    "weddell",
    "wilkes",
    "zheng",
];

/// A name for a container that was given none: `adjective_surname`, with a digit once those seem used up.
pub(crate) fn random(attempt: u32) -> String {
    let pick = |words: &[&'static str]| words[rand::random_range(0..words.len())];
    let (adjective, surname) = (pick(ADJECTIVES), pick(SURNAMES));
    match attempt {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", rand::random_range(0..10u32.pow(attempt.min(6)))),
    }
}

/// Whether the text is `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Checks a container's name as a user gave it; a leading slash is not part of it.
pub(crate) fn container(given: &str) -> Result<&str> {
    let name = given.strip_prefix('/').unwrap_or(given);
    if is_valid(name) {
        return Ok(name);
    }
    Err(EngineError::invalid(format!(
        "Invalid container name ({given}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Checks a volume's name.
pub(crate) fn volume(name: &str) -> Result<&str> {
    if is_valid(name) {
        return Ok(name);
    }
    let reason = match name.len() {
        1 => "volume name is too short, names should be at least two alphanumeric characters".to_owned(),
        _ => format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" \
             are allowed. If you intended to pass a host directory, use absolute path"
        ),
    };
    Err(EngineError::invalid(format!("create {name}: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generated_name_is_valid() {
        for word in ADJECTIVES.iter().chain(SURNAMES) {
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
        }
        for attempt in 0..8 {
            assert!(container(&random(attempt)).is_ok());
        }
    }

    #[test]
    fn names_are_judged_as_docker_does() {
        assert_eq!(container("/web-1").unwrap(), "web-1");
        let error = container("a").unwrap_err();
        assert_eq!(error.message(), "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        assert!(container("_x").is_err());
        assert!(container("a/b").is_err());
        assert!(
            volume("a/b")
                .unwrap_err()
                .message()
                .starts_with("create a/b: \"a/b\" includes invalid characters")
        );
        assert!(volume("x").is_err());
    }
}
