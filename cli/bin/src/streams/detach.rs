//! The keys that leave a container running: `ctrl-p,ctrl-q` unless told otherwise.

/// The bytes of a `--detach-keys` value. The engine has judged the text before us, so that unknown words are
/// passed over here.
pub(crate) fn keys(text: Option<&str>) -> Vec<u8> {
    let text = text.filter(|text| !text.is_empty()).unwrap_or("ctrl-p,ctrl-q");
    text.split(',').filter_map(key).collect()
}

fn key(text: &str) -> Option<u8> {
    if let &[byte] = text.as_bytes() {
        return Some(byte);
    }
    match text.strip_prefix("ctrl-")?.as_bytes() {
        &[letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        b"@" => Some(0),
        b"[" => Some(27),
        b"\\" => Some(28),
        b"]" => Some(29),
        b"^" => Some(30),
        b"_" => Some(31),
        _ => None,
    }
}

/// Watches what is typed for the keys.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: Vec<u8>,
    matched: usize,
}

impl Watch {
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Whether the keys are complete with these bytes. The engine sees them too and keeps them from the container.
    pub(crate) fn sees(&mut self, typed: &[u8]) -> bool {
        for byte in typed {
            self.matched = match self.keys.get(self.matched) {
                Some(key) if key == byte => self.matched + 1,
                _ => usize::from(self.keys.first() == Some(byte)),
            };
            if !self.keys.is_empty() && self.matched == self.keys.len() {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        assert_eq!(keys(None), [16, 17]);
        assert_eq!(keys(Some("ctrl-a,x,ctrl-[")), [1, b'x', 27]);
        let mut watch = Watch::new(keys(None));
        assert!(!watch.sees(&[16]) && !watch.sees(b"x") && !watch.sees(&[17, 16]));
        assert!(watch.sees(&[17]));
        assert!(!Watch::new(Vec::new()).sees(b"anything"));
    }
}
