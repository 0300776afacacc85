//! Modes for `--chmod`: octal, or symbolic as chmod(1) has it (`u=rwX,go=rX`).

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic (u=rwX,go=rX)"
)]
pub struct BadMode {
    /// The text.
    pub text: String,
}

/// A parsed mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The twelve bits themselves.
    Octal(u32),
    /// Changes to apply one after the other.
    Symbolic(Vec<Change>),
}

/// One `who op permissions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    who: u32,
    op: char,
    bits: u32,
    conditional_execute: bool,
    /// Copies the bits of `u`, `g` or `o`.
    copy_from: Option<char>,
}

/// What `a` stands for, and what `=` without a class clears.
const ALL: u32 = 0o6777;

impl Mode {
    /// Parses `text`.
    ///
    /// # Errors
    /// If it is neither octal (at most 07777) nor symbolic.
    pub fn parse(text: &str) -> Result<Self, BadMode> {
        let bad = || BadMode { text: text.to_owned() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(bits) if bits <= 0o7777 => Ok(Self::Octal(bits)),
                _ => Err(bad()),
            };
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let ops = clause.find(['+', '-', '=']).ok_or_else(bad)?;
            let mut who =
                clause[..ops].chars().try_fold(0, |bits, c| Some(bits | class(c)?)).ok_or_else(bad)?;
            let mut rest = clause[ops..].chars().peekable();
            while let Some(op) = rest.next() {
                let mut change = Change { who, op, bits: 0, conditional_execute: false, copy_from: None };
                while let Some(c) = rest.next_if(|c| !matches!(c, '+' | '-' | '=')) {
                    change.permission(c).ok_or_else(bad)?;
                }
                // `t` makes itself a class, for the operations after it as well.
                who = change.who;
                changes.push(change);
            }
        }
        Ok(Self::Symbolic(changes))
    }

    /// The mode (twelve bits) of a file or directory that had `old`.
    pub fn apply(&self, old: u32, is_dir: bool) -> u32 {
        match self {
            Self::Octal(bits) => *bits,
            Self::Symbolic(changes) => changes.iter().fold(old, |mode, change| change.apply(mode, is_dir)),
        }
    }
}

fn class(c: char) -> Option<u32> {
    match c {
        'u' => Some(0o4700),
        'g' => Some(0o2070),
        'o' => Some(0o007),
        'a' => Some(ALL),
        _ => None,
    }
}

impl Change {
    fn permission(&mut self, c: char) -> Option<()> {
        match c {
            'r' => self.bits |= 0o444,
            'w' => self.bits |= 0o222,
            'x' => self.bits |= 0o111,
            'X' => self.conditional_execute = true,
            // `o` alone has neither: silently, as in BSD.
            's' | 't' if self.who != 0 && self.who & !0o7 == 0 => {}
            's' => self.bits |= 0o6000,
            't' => {
                self.bits |= 0o1000;
                self.who |= 0o1000;
            }
            'u' | 'g' | 'o' if self.copy_from.is_none() => self.copy_from = Some(c),
            _ => return None,
        }
        Some(())
    }

    fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional_execute && (is_dir || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(from) = self.copy_from {
            let shift = match from {
                'u' => 6,
                'g' => 3,
                _ => 0,
            };
            bits |= ((mode >> shift) & 7) * 0o111;
        }
        let reach = if self.who == 0 { !0 } else { self.who };
        let cleared = match (self.who, self.copy_from) {
            (0, None) => ALL,
            (0, Some(_)) => 0o777,
            (who, None) => who,
            (who, Some(_)) => who & 0o777,
        };
        match self.op {
            '+' => mode | (bits & reach),
            '-' => mode & !(bits & reach),
            _ => (mode & !cleared) | (bits & reach),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;

    #[test]
    fn modes() {
        for (text, old, dir, want) in [
            ("755", 0o600, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o750, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("u+r-w=x", 0o644, false, 0o144),
        ] {
            assert_eq!(Mode::parse(text).unwrap().apply(old, dir), want, "{text}");
        }
        for text in ["", "8", "u", "x", "u+q", "u+x,", "77777"] {
            assert!(Mode::parse(text).is_err(), "{text}");
        }
    }
}
