//! Word expansion: `$x`, `${x:-default}` and their kin, quotes and escape characters.
//!
//! The rules are BuildKit's, with two of its bugs mended: a nested `${a:-b}` does not swallow the text before it when
//! splitting into words, and `$1` in the replacement of `${x//p/r}` is just text.

use std::collections::BTreeSet;
use std::collections::{BTreeMap, HashMap};

use crate::pattern::Pattern;

/// Where values come from.
pub trait Variables {
    /// The value of a variable; none if it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// No variable is set.
#[derive(Debug, Clone, Copy)]
pub struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

impl Variables for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        HashMap::get(self, name).map(String::as_str)
    }
}

/// `NAME=value` lines; the last of a name counts.
impl Variables for [String] {
    fn get(&self, name: &str) -> Option<&str> {
        self.iter().rev().find_map(|entry| {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            (key == name).then_some(value)
        })
    }
}

/// A word does not expand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {message}", crate::golang::quote(.word))]
pub struct ExpandError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub message: String,
}

/// An expanded word and the variables it named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The result.
    pub text: String,
    /// The result split at blanks outside of quotes.
    pub words: Vec<String>,
    /// Variables that were set.
    pub matched: BTreeSet<String>,
    /// Variables that were not.
    pub unmatched: BTreeSet<String>,
}

/// How to expand.
#[derive(Debug, Clone, Copy)]
pub struct Lexer {
    /// The escape character, from the `escape` directive.
    pub escape: char,
    /// Keep quotes.
    pub raw_quotes: bool,
    /// Keep escape characters.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters (bodies of heredocs).
    pub skip_quotes: bool,
    /// Leave variables that are not set as they are.
    pub skip_unset: bool,
}

impl Default for Lexer {
    fn default() -> Self {
        Self { escape: '\\', raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }
}

impl Lexer {
    /// A lexer with this escape character and nothing special.
    pub fn new(escape: char) -> Self {
        Self { escape, ..Self::default() }
    }

    /// Expands `word` to one string.
    ///
    /// # Errors
    /// If quotes or braces do not match, or a `${x:?}` demands it.
    pub fn word(&self, word: &str, variables: &(impl Variables + ?Sized)) -> Result<String, ExpandError> {
        self.expand(word, variables).map(|e| e.text)
    }

    /// Expands `word` and splits the result at blanks outside of quotes.
    ///
    /// # Errors
    /// As [`Lexer::word`].
    pub fn words(
        &self,
        word: &str,
        variables: &(impl Variables + ?Sized),
    ) -> Result<Vec<String>, ExpandError> {
        self.expand(word, variables).map(|e| e.words)
    }

    /// Expands `word` and tells which variables it named.
    ///
    /// # Errors
    /// As [`Lexer::word`].
    pub fn expand(&self, word: &str, variables: &(impl Variables + ?Sized)) -> Result<Expanded, ExpandError> {
        let mut run = Run {
            lexer: *self,
            chars: word.chars().collect(),
            at: 0,
            raw_escapes: self.raw_escapes,
            variables: &|name| variables.get(name).map(str::to_owned),
            matched: BTreeSet::new(),
            unmatched: BTreeSet::new(),
            depth: 0,
        };
        match run.until(None, self.raw_escapes) {
            Ok((text, words)) => Ok(Expanded { text, words, matched: run.matched, unmatched: run.unmatched }),
            Err(message) => Err(ExpandError { word: word.to_owned(), message }),
        }
    }
}

/// Nesting of `${a:-${b:-…}}` beyond this is refused rather than risking the stack.
const MAX_DEPTH: usize = 200;

/// What Go's text scanner returns at the end.
const END: char = '\u{fffd}';

struct Run<'a> {
    lexer: Lexer,
    chars: Vec<char>,
    at: usize,
    raw_escapes: bool,
    variables: &'a dyn Fn(&str) -> Option<String>,
    matched: BTreeSet<String>,
    unmatched: BTreeSet<String>,
    depth: usize,
}

/// Collects words while text goes by.
#[derive(Default)]
struct Words {
    buffer: String,
    words: Vec<String>,
}

impl Words {
    fn add_char(&mut self, c: char) {
        if !c.is_whitespace() {
            self.buffer.push(c);
        } else if !self.buffer.is_empty() {
            self.words.push(std::mem::take(&mut self.buffer));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.buffer.is_empty() {
            self.words.push(self.buffer);
        }
        self.words
    }
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), String> {
        if self.depth >= MAX_DEPTH {
            return Err("substitutions are nested too deeply".into());
        }
        self.depth += 1;
        let saved = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = saved;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), String> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok((result, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    result.push_str(&value);
                    value.chars().for_each(|c| words.add_char(c));
                }
                '\'' | '"' if !self.lexer.skip_quotes => {
                    let value = if c == '"' { self.double_quote()? } else { self.single_quote()? };
                    result.push_str(&value);
                    words.buffer.push_str(&value);
                }
                '<' => {
                    let value = self.possible_heredoc();
                    result.push_str(&value);
                    words.buffer.push_str(&value);
                }
                _ if c == self.lexer.escape => {
                    self.at += 1;
                    if self.raw_escapes {
                        result.push(c);
                        words.buffer.push(c);
                    }
                    let Some(next) = self.next() else { break };
                    words.buffer.push(next);
                    result.push(next);
                }
                _ => {
                    self.at += 1;
                    words.add_char(c);
                    result.push(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok((result, words.finish())),
        }
    }

    /// Everything up to the next `'` as it is.
    fn single_quote(&mut self) -> Result<String, String> {
        let mut result = String::new();
        self.at += 1;
        if self.lexer.raw_quotes {
            result.push('\'');
        }
        loop {
            match self.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
                Some('\'') => {
                    if self.lexer.raw_quotes {
                        result.push('\'');
                    }
                    return Ok(result);
                }
                Some(c) => result.push(c),
            }
        }
    }

    /// Variables are expanded; the escape character counts only before `"`, `$` and itself.
    fn double_quote(&mut self) -> Result<String, String> {
        let mut result = String::new();
        self.at += 1;
        if self.lexer.raw_quotes {
            result.push('"');
        }
        loop {
            match self.peek() {
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
                Some('"') => {
                    self.at += 1;
                    if self.lexer.raw_quotes {
                        result.push('"');
                    }
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(c) if c == self.lexer.escape => {
                    self.at += 1;
                    if self.raw_escapes {
                        result.push(c);
                    }
                    match self.peek() {
                        None => {}
                        Some(next) if next == '"' || next == '$' || next == c => {
                            self.at += 1;
                            result.push(next);
                        }
                        Some(_) => result.push(c),
                    }
                }
                Some(c) => {
                    self.at += 1;
                    result.push(c);
                }
            }
        }
    }

    /// `<<` keeps the blanks after it, so that `<< EOF` stays one word.
    fn possible_heredoc(&mut self) -> String {
        self.at += 1;
        if self.peek() != Some('<') {
            return "<".into();
        }
        self.at += 1;
        let mut result = String::from("<<");
        while let Some(c @ ('\t' | '\r' | ' ')) = self.peek() {
            self.at += 1;
            result.push(c);
        }
        result
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.lookup(&name) {
                None if self.lexer.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.at += 1;
        match self.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.lookup(&name) {
                None if self.lexer.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.next().unwrap_or(END);
                if matches!(modifier, '#' | '%') {
                    return Err(format!("unsupported modifier (:{modifier}) in substitution"));
                }
                self.modified(&name, true, modifier)
            }
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, false, modifier),
            Some('/') => self.replaced(&name),
            other => Err(format!("unsupported modifier ({}) in substitution", other.unwrap_or(END))),
        }
    }

    /// `${name-word}` and its kin, after the modifier.
    fn modified(&mut self, name: &str, null_is_unset: bool, modifier: char) -> Result<String, String> {
        let trims = matches!(modifier, '#' | '%');
        let word = self.operand('}', trims, "syntax error: missing '}'")?;
        let value = self.lookup(name);
        if self.lexer.skip_unset && value.is_none() {
            let colon = if null_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let usable = value.clone().filter(|v| !(null_is_unset && v.is_empty()));
        match modifier {
            '-' => Ok(usable.unwrap_or(word)),
            '+' => Ok(usable.map(|_| word).unwrap_or_default()),
            '?' => usable.ok_or_else(|| match (word.is_empty(), &value) {
                (false, _) => format!("{name}: {word}"),
                (true, None) => format!("{name}: is not allowed to be unset"),
                (true, Some(_)) => format!("{name}: is not allowed to be empty"),
            }),
            '#' | '%' => {
                let longest = word.starts_with(modifier);
                let source = if longest { &word[1..] } else { &word[..] };
                let pattern = Pattern::compile(source)
                    .map_err(|e| format!("invalid pattern ({source}) in substitution: {e}"))?;
                let value = value.unwrap_or_default();
                Ok(if modifier == '#' {
                    pattern.trim_prefix(&value, longest)
                } else {
                    pattern.trim_suffix(&value, longest)
                })
            }
            _ => {
                let colon = if null_is_unset { ":" } else { "" };
                Err(format!("unsupported modifier ({colon}{modifier}) in substitution"))
            }
        }
    }

    /// `${name/pattern/replacement}`, after the first `/`.
    fn replaced(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        let pattern = self.operand('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.operand('}', true, "syntax error: missing '}'")?;
        let value = self.lookup(name);
        if self.lexer.skip_unset && value.is_none() {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let compiled = Pattern::compile(&pattern)
            .map_err(|e| format!("invalid pattern ({pattern}) in substitution: {e}"))?;
        Ok(compiled.replace(&value.unwrap_or_default(), &replacement, all))
    }

    /// Text up to `stop`; an error at the end of the input is the given one, any other is kept.
    fn operand(&mut self, stop: char, raw_escapes: bool, at_end: &str) -> Result<String, String> {
        match self.until(Some(stop), raw_escapes) {
            Ok((word, _)) => Ok(word),
            Err(_) if self.peek().is_none() => Err(at_end.to_owned()),
            Err(e) => Err(e),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if name.is_empty() && crate::golang::is_digit(c) {
                while let Some(c) = self.peek().filter(|c| crate::golang::is_digit(*c)) {
                    self.at += 1;
                    name.push(c);
                }
                return name;
            }
            if name.is_empty() && matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
                self.at += 1;
                return c.to_string();
            }
            if !c.is_alphabetic() && !crate::golang::is_digit(c) && c != '_' {
                break;
            }
            self.at += 1;
            name.push(c);
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = (self.variables)(name);
        let names = if value.is_some() { &mut self.matched } else { &mut self.unmatched };
        names.insert(name.to_owned());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(word: &str) -> Result<String, String> {
        let env: BTreeMap<String, String> = [("A", "1"), ("B", "two words"), ("E", ""), ("P", "/usr/lib")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        Lexer::default().word(word, &env).map_err(|e| e.message)
    }

    #[test]
    fn modifiers() {
        for (word, want) in [
            ("$A${A}", "11"),
            ("${U:-x$A}", "x1"),
            ("${E:-d}|${E-d}", "d|"),
            ("${A:+y}${E:+y}${E+y}", "yy"),
            ("${P##*/}|${P%/*}", "lib|/usr"),
            ("${P//\\//_}", "_usr_lib"),
            ("'$A' \"$A\" \\$A", "$A 1 $A"),
            ("$", "$"),
            ("a\\", "a"),
        ] {
            assert_eq!(expand(word).as_deref(), Ok(want), "{word}");
        }
    }

    #[test]
    fn faults() {
        for (word, want) in [
            ("${", "syntax error: missing '}'"),
            ("${}", "syntax error: bad substitution"),
            ("${U:?gone}", "U: gone"),
            ("${E:?}", "E: is not allowed to be empty"),
            ("'a", "unexpected end of statement while looking for matching single-quote"),
            ("${A:=1}", "unsupported modifier (:=) in substitution"),
        ] {
            assert_eq!(expand(word), Err(want.to_owned()), "{word}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(expand(&"${A:+".repeat(100_000)).is_err());
    }
}
