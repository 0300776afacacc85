//! Identities: 64 random hex digits, of which 12 are shown.

/// A fresh id. One whose first 12 digits are all decimal is not given out: as a host name it would be a number.
pub(crate) fn random() -> String {
    loop {
        let bytes: [u8; 32] = rand::random();
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !short(&id).bytes().all(|digit| digit.is_ascii_digit()) {
            return id;
        }
    }
}

/// The first 12 digits.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hex_and_differ() {
        let (one, other) = (random(), random());
        assert_eq!(one.len(), 64);
        assert!(one.bytes().all(|digit| digit.is_ascii_hexdigit()));
        assert_ne!(one, other);
        assert_eq!(short(&one).len(), 12);
    }
}
