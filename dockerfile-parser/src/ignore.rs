//! `.dockerignore`: reading the file, and matching paths the way moby's patternmatcher does.
//!
//! The last matching line wins; a pattern that matches a directory matches everything below it; `!` takes paths back
//! in, also below directories that are left out.

use crate::golang;

/// A file or pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `!` alone.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneExclamationMark,
    /// Not a pattern.
    #[error("syntax error in pattern")]
    BadPattern,
}

/// The patterns of a `.dockerignore` file, cleaned.
pub fn read(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.split('\n')
        .filter(|line| !line.starts_with('#'))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (sign, pattern) = match line.strip_prefix('!') {
                Some(rest) => ("!", rest.trim()),
                None => ("", line),
            };
            if pattern.is_empty() {
                return sign.to_owned();
            }
            let cleaned = golang::clean(pattern);
            let relative =
                if cleaned.len() > 1 { cleaned.strip_prefix('/').unwrap_or(&cleaned) } else { &cleaned };
            format!("{sign}{relative}")
        })
        .collect()
}

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

/// What each pattern made of a directory; matching below it starts from there.
#[derive(Debug, Clone, Default)]
pub struct DirState {
    matched: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    /// None: the expression is no expression. Using it is an error, as upstream.
    form: Option<Form>,
}

impl Matcher {
    /// Compiles patterns (see [`read`]).
    ///
    /// # Errors
    /// If one of them is malformed.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, IgnoreError> {
        let mut compiled = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let cleaned = golang::clean(pattern);
            let (negated, body) = match cleaned.strip_prefix('!') {
                Some("") => return Err(IgnoreError::LoneExclamationMark),
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            crate::glob::matches(body, ".").map_err(|_| IgnoreError::BadPattern)?;
            compiled.push(Pattern { negated, form: compile(body) });
        }
        Ok(Self { patterns: compiled })
    }

    /// Whether any pattern takes paths back in. If none does, nothing below a matching directory needs a look.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|p| p.negated)
    }

    /// Whether there is nothing to match.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` (relative, `/` between parts) is left out.
    ///
    /// # Errors
    /// If a pattern that had to be tried is malformed in a way only found then.
    pub fn matches(&self, path: &str) -> Result<bool, IgnoreError> {
        let mut state = DirState::default();
        let mut matched = false;
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends.filter(|end| *end > 0) {
            (matched, state) = self.step(&path[..end], &state)?;
        }
        Ok(matched)
    }

    /// As [`Matcher::matches`], for a walk: `parent` is what the step for the directory above returned.
    ///
    /// # Errors
    /// As [`Matcher::matches`].
    pub fn step(&self, path: &str, parent: &DirState) -> Result<(bool, DirState), IgnoreError> {
        let chars: Vec<char> = path.chars().collect();
        let mut matched = false;
        let mut state = DirState { matched: vec![false; self.patterns.len()] };
        for (i, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.matched.get(i).copied().unwrap_or(false);
            if !hit {
                let form = pattern.form.as_ref().ok_or(IgnoreError::BadPattern)?;
                hit = form.matches(path, &chars);
            }
            state.matched[i] = hit;
            if hit {
                matched = !pattern.negated;
            }
        }
        Ok((matched, state))
    }
}

/// A compiled pattern. The first three forms are compared as text, as upstream, so that no character in them means
/// anything.
#[derive(Debug, Clone)]
enum Form {
    /// No wildcards.
    Exact(String),
    /// `text**`
    Prefix(String),
    /// `**text`, also `**/text`.
    Suffix(String),
    Tokens(Vec<Token>),
}

impl Form {
    fn matches(&self, path: &str, chars: &[char]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(text) => path.starts_with(text.as_str()),
            Self::Suffix(text) => path.ends_with(text.as_str()) || text.strip_prefix('/') == Some(path),
            Self::Tokens(tokens) => match_tokens(tokens, chars),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`
    NotSlash,
    /// `*`
    Star,
    /// `**/`: upstream's `(.*/)?`. Always followed by `Directories`, which it may skip.
    MaybeDirectories,
    /// Inside of it: only a slash leads on.
    Directories,
    /// Trailing `**`
    Everything,
    /// `^` is not escaped upstream: among wildcards it only holds at the start.
    Start,
    /// `\b` and `\B`, which upstream's regular expressions know.
    WordBoundary(bool),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// None if upstream's regular expression for it does not compile.
fn compile(pattern: &str) -> Option<Form> {
    let chars: Vec<char> = pattern.chars().collect();
    let mut tokens = Vec::new();
    // What the pattern is as far as it was read: upstream's detection, step by step.
    let mut form = Form::Exact(pattern.to_owned());
    let mut at = 0;
    while at < chars.len() {
        let first = at == 0;
        let c = chars[at];
        at += 1;
        match c {
            '*' if chars.get(at) == Some(&'*') => {
                at += 1;
                at += usize::from(chars.get(at) == Some(&'/'));
                if at < chars.len() {
                    tokens.extend([Token::MaybeDirectories, Token::Directories]);
                    form = Form::Tokens(Vec::new());
                } else if matches!(form, Form::Exact(_)) {
                    form = Form::Prefix(pattern[..pattern.len() - 2].to_owned());
                } else {
                    tokens.push(Token::Everything);
                    form = Form::Tokens(Vec::new());
                }
                if first {
                    form = Form::Suffix(pattern[2..].to_owned());
                }
                continue;
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::NotSlash),
            '\\' => {
                // A lone one at the end is refused as a pattern before.
                tokens.push(escaped(*chars.get(at)?)?);
                at += 1;
            }
            '[' => {
                let (class, next) = class(&chars, at)?;
                tokens.push(class);
                at = next;
            }
            c => {
                tokens.push(if c == '^' { Token::Start } else { Token::Literal(c) });
                if c != ']' {
                    continue;
                }
            }
        }
        form = Form::Tokens(Vec::new());
    }
    Some(match form {
        Form::Tokens(_) => Form::Tokens(tokens),
        form => form,
    })
}

/// What `\c` is in Go's regular expressions: letters and digits have meanings of their own there.
fn escaped(c: char) -> Option<Token> {
    let class = |negated, ranges: &[(char, char)]| Some(Token::Class { negated, ranges: ranges.to_vec() });
    const WORD: [(char, char); 4] = [('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];
    const SPACE: [(char, char); 4] = [('\t', '\n'), ('\x0c', '\r'), (' ', ' '), (' ', ' ')];
    match c {
        'a' => Some(Token::Literal('\x07')),
        'f' => Some(Token::Literal('\x0c')),
        'n' => Some(Token::Literal('\n')),
        'r' => Some(Token::Literal('\r')),
        't' => Some(Token::Literal('\t')),
        'v' => Some(Token::Literal('\x0b')),
        'd' => class(false, &[('0', '9')]),
        'D' => class(true, &[('0', '9')]),
        'w' => class(false, &WORD),
        'W' => class(true, &WORD),
        's' => class(false, &SPACE),
        'S' => class(true, &SPACE),
        'b' => Some(Token::WordBoundary(true)),
        'B' => Some(Token::WordBoundary(false)),
        c if c.is_alphanumeric() => None,
        c => Some(Token::Literal(c)),
    }
}

/// `[…]`, after the bracket.
fn class(chars: &[char], mut at: usize) -> Option<(Token, usize)> {
    let negated = chars.get(at) == Some(&'^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    let mut first = true;
    loop {
        let c = *chars.get(at)?;
        if c == ']' && !first {
            return Some((Token::Class { negated, ranges }, at + 1));
        }
        first = false;
        let one = |at: usize| -> Option<(char, usize)> {
            match *chars.get(at)? {
                '\\' => match escaped(*chars.get(at + 1)?)? {
                    Token::Literal(c) => Some((c, at + 2)),
                    _ => None,
                },
                c => Some((c, at + 1)),
            }
        };
        let (low, next) = one(at)?;
        at = next;
        let mut high = low;
        if chars.get(at) == Some(&'-') && chars.get(at + 1).is_some_and(|c| *c != ']') {
            (high, at) = one(at + 1)?;
        }
        if high < low {
            return None;
        }
        ranges.push((low, high));
    }
}

/// Whether the whole of `text` matches. All alternatives are followed at once, so that no pattern takes exponential
/// time.
fn match_tokens(tokens: &[Token], text: &[char]) -> bool {
    let mut states = vec![false; tokens.len() + 1];
    states[0] = true;
    for at in 0..=text.len() {
        for (i, token) in tokens.iter().enumerate() {
            if states[i] {
                match token {
                    Token::Star | Token::Everything => states[i + 1] = true,
                    Token::Start if at == 0 => states[i + 1] = true,
                    Token::WordBoundary(wanted) if is_boundary(text, at) == *wanted => states[i + 1] = true,
                    Token::MaybeDirectories => (states[i + 1], states[i + 2]) = (true, true),
                    _ => {}
                }
            }
        }
        let Some(&c) = text.get(at) else { break };
        let mut next = vec![false; states.len()];
        for (i, token) in tokens.iter().enumerate().filter(|(i, _)| states[*i]) {
            match token {
                Token::Literal(l) => next[i + 1] |= *l == c,
                Token::NotSlash => next[i + 1] |= c != '/',
                Token::Star => next[i] |= c != '/',
                Token::Everything => next[i] |= c != '\n',
                Token::Class { negated, ranges } => {
                    next[i + 1] |= ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated;
                }
                Token::Directories => {
                    next[i] |= c != '\n';
                    next[i + 1] |= c == '/';
                }
                Token::Start | Token::WordBoundary(_) | Token::MaybeDirectories => {}
            }
        }
        states = next;
    }
    states[tokens.len()]
}

/// Whether exactly one side of a position is a word's character, in the ASCII sense.
fn is_boundary(text: &[char], at: usize) -> bool {
    let word = |c: Option<&char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_');
    word(at.checked_sub(1).and_then(|i| text.get(i))) != word(text.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(file: &str, path: &str) -> bool {
        Matcher::new(read(file)).unwrap().matches(path).unwrap()
    }

    #[test]
    fn last_match_wins() {
        assert!(left_out("a\n", "a/b/c"));
        assert!(!left_out("a\n!a/b", "a/b/c"));
        assert!(left_out("a\n!a/b\n*/b/c", "a/b/c"));
        assert!(!left_out("# a\n .\n", "a"));
    }

    #[test]
    fn double_stars() {
        for (pattern, path, want) in [
            ("**/foo", "foo", true),
            ("**/foo", "a/b/foo", true),
            ("**/foo", "a/bfoo", false),
            ("**foo", "a/bfoo", true),
            ("abc/**", "abc", false),
            ("abc/**", "abc/d/e", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("**", "a/b", true),
            ("*.md", "a/b.md", false),
            ("**/*.md", "a/b.md", true),
        ] {
            assert_eq!(left_out(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn faults() {
        assert_eq!(Matcher::new(["!"]).unwrap_err(), IgnoreError::LoneExclamationMark);
        assert_eq!(Matcher::new(["[a"]).unwrap_err(), IgnoreError::BadPattern);
    }
}
