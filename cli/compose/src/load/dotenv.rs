//! Files of variables: `.env`, `env_file`, `label_file`.
//!
//! `NAME=value` or `NAME: value`, with an optional `export`; a bare `NAME` takes its value from outside. Values in
//! double quotes know escapes and variables, bare values variables, values in single quotes neither.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    LoadError,
    template::{self, Lookup},
};

/// Reads a file into `variables`. `outside` has precedence over what the file itself said before.
pub(crate) fn read(
    path: &Path,
    variables: &mut BTreeMap<String, String>,
    outside: &dyn Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    let text = text_of(path)?;
    parse(&text, variables, outside).map_err(|(line, message)| LoadError::EnvFile {
        path: path.to_owned(),
        line,
        message,
    })
}

/// Reads a file whose values are taken as they stand, quotes and dollars included.
pub(crate) fn read_raw(
    path: &Path,
    variables: &mut BTreeMap<String, String>,
    outside: &dyn Fn(&str) -> Option<String>,
) -> Result<(), LoadError> {
    for line in text_of(path)?.lines() {
        let line = line.trim_start();
        match line.split_once('=') {
            _ if line.is_empty() || line.starts_with('#') => {}
            Some((name, value)) => drop(variables.insert(name.to_owned(), value.to_owned())),
            None => {
                variables.extend(outside(line.trim_end()).map(|value| (line.trim_end().to_owned(), value)))
            }
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String, LoadError> {
    let bytes = fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

type Wrong = (usize, String);

fn parse(
    text: &str,
    variables: &mut BTreeMap<String, String>,
    outside: &dyn Fn(&str) -> Option<String>,
) -> Result<(), Wrong> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut parser = Parser { rest: &text, line: 1 };
    while parser.next_statement() {
        let (name, bare) = parser.name()?;
        if bare {
            if let Some(value) = outside(&name) {
                variables.insert(name, value);
            }
            continue;
        }
        let value = parser.value(&|name| outside(name).or_else(|| variables.get(name).cloned()))?;
        variables.insert(name, value);
    }
    Ok(())
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

impl Parser<'_> {
    /// Goes to the next thing that is neither blank nor a comment.
    fn next_statement(&mut self) -> bool {
        loop {
            let start = self.rest.find(|char: char| !char.is_whitespace()).unwrap_or(self.rest.len());
            self.skip(start);
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.skip(end);
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    fn wrong<T>(&self, message: impl Into<String>) -> Result<T, Wrong> {
        Err((self.line, message.into()))
    }

    /// The name, and whether it stands alone on its line.
    fn name(&mut self) -> Result<(String, bool), Wrong> {
        if let Some(rest) = self.rest.strip_prefix("export")
            && rest.starts_with([' ', '\t'])
        {
            self.rest = rest.trim_start_matches([' ', '\t']);
        }
        let line = self.rest.lines().next().unwrap_or_default().to_owned();
        for (at, char) in self.rest.char_indices() {
            match char {
                '=' | ':' | '\n' => {
                    let name = self.rest[..at].trim_end().to_owned();
                    if name.contains(' ') {
                        return self.wrong(format!("key cannot contain a space: {name:?}"));
                    }
                    self.skip(at + 1);
                    self.rest = self.rest.trim_start_matches([' ', '\t']);
                    return Ok((name, char == '\n'));
                }
                '_' | '.' | '-' | '[' | ']' => {}
                char if char.is_alphanumeric() || (char.is_whitespace() && char != '\n') => {}
                char => {
                    return self.wrong(format!(
                        "unexpected character {:?} in variable name {line:?}",
                        char.to_string()
                    ));
                }
            }
        }
        let name = self.rest.trim_end().to_owned();
        self.rest = "";
        if name.contains(' ') {
            return self.wrong(format!("key cannot contain a space: {name:?}"));
        }
        Ok((name, true))
    }

    fn value(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, Wrong> {
        let line = self.line;
        let expand = |text: &str| {
            template::substitute(text, &mut Lookup { value: lookup, unset: &mut |_| {} })
                .map_err(|error| (line, error.to_string()))
        };
        match self.rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let text = self.quoted(quote)?;
                if quote == '\'' { Ok(text) } else { expand(&unescape(&text)) }
            }
            _ => {
                let end = self.rest.find('\n').unwrap_or(self.rest.len());
                let value = &self.rest[..end];
                let value = value.split(" #").next().unwrap_or_default().trim_end();
                let value = expand(value)?;
                self.skip((end + 1).min(self.rest.len()));
                Ok(value)
            }
        }
    }

    /// What stands between the quotes; only escaped quotes are resolved.
    fn quoted(&mut self, quote: char) -> Result<String, Wrong> {
        let mut text = String::new();
        let mut escaped = false;
        for (at, char) in self.rest.char_indices().skip(1) {
            if char == quote && !escaped {
                self.skip(at + 1);
                return Ok(text);
            }
            if char == '\\' && !escaped {
                escaped = true;
                continue;
            }
            if std::mem::take(&mut escaped) && char != quote {
                text.push('\\');
            }
            text.push(char);
        }
        let line = self.rest.lines().next().unwrap_or_default();
        self.wrong(format!("unterminated quoted value {line}"))
    }
}

/// The escapes of double quotes: `\n`, `\t`, `\\`, `\0101`, …; `\$` is `$$`, which stays a dollar.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        let Some(next) = chars.peek().copied() else {
            out.push('\\');
            break;
        };
        let plain = match next {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'c' => {
                // Not an escape of Go, so that it stays as it is.
                out.push('\\');
                continue;
            }
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '"' => '"',
            '\\' => '\\',
            '$' => {
                chars.next();
                out.push_str("$$");
                continue;
            }
            '0' => {
                chars.next();
                let mut digits = String::new();
                while digits.len() < 3 && chars.peek().is_some_and(char::is_ascii_digit) {
                    digits.extend(chars.next());
                }
                let code = (digits.len() == 3).then(|| u32::from_str_radix(&digits, 8).ok()).flatten();
                match code.and_then(char::from_u32) {
                    Some(char) => out.push(char),
                    None => out.push_str(&format!("\\0{digits}")),
                }
                continue;
            }
            _ => {
                out.push('\\');
                continue;
            }
        };
        chars.next();
        out.push(plain);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Result<Vec<(String, String)>, Wrong> {
        let mut variables = BTreeMap::new();
        let outside = |name: &str| (name == "OUT").then(|| "side".to_owned());
        parse(text, &mut variables, &outside)?;
        Ok(variables.into_iter().collect())
    }

    #[test]
    fn forms() {
        for (text, value) in [
            ("A=b", "b"),
            ("export A=b", "b"),
            ("A: b", "b"),
            ("A=b # c", "b"),
            ("A=b#c", "b#c"),
            ("A=", ""),
            ("A=\"b # c\" # d", "b # c"),
            ("A='$OUT \\n'", "$OUT \\n"),
            ("A=\"$OUT\\n\"", "side\n"),
            ("A=\"a\nb\"", "a\nb"),
            ("A=$OUT", "side"),
            ("A=${NO:-d}", "d"),
            ("A=\"\\$OUT\"", "$OUT"),
            ("A='it\\'s'", "it's"),
            ("A=\"\\0101\"", "A"),
            ("\u{feff}A=b\r\n", "b"),
        ] {
            assert_eq!(pairs(text).unwrap(), [("A".to_owned(), value.to_owned())], "{text:?}");
        }
        assert_eq!(pairs("OUT\nNOWHERE\n# x\n\n").unwrap(), [("OUT".to_owned(), "side".to_owned())]);
        assert_eq!(pairs("A=1\nB=${A}2").unwrap()[1].1, "12");
    }

    #[test]
    fn what_cannot_be() {
        assert_eq!(pairs("A=1\nB!=2").unwrap_err().0, 2);
        assert_eq!(pairs("A='x").unwrap_err().1, "unterminated quoted value 'x");
        assert!(pairs("A B=1").unwrap_err().1.contains("space"));
        assert_eq!(pairs("A=1\n\nB=${").unwrap_err().0, 3);
    }
}
