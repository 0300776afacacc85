//! Variables in text: `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, `${VAR:+other}`; `$$` is a dollar.

use std::collections::BTreeMap;

/// Why a text could not be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("invalid interpolation format: {0:?}")]
    Invalid(String),
    #[error("required variable {variable} is missing a value{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Required { variable: String, reason: String },
}

/// A variable found in a text, for `config --variables`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variable {
    /// What an unset variable becomes.
    pub default: String,
    /// What a set variable becomes.
    pub presence: String,
    /// Whether it must be set.
    pub required: bool,
}

/// Where values come from, and who hears of variables that have none.
pub(crate) struct Lookup<'a> {
    pub(crate) value: &'a dyn Fn(&str) -> Option<String>,
    pub(crate) unset: &'a mut dyn FnMut(&str),
}

/// Fills in the variables of `text`.
pub(crate) fn substitute(text: &str, lookup: &mut Lookup<'_>) -> Result<String, TemplateError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        match rest.chars().next() {
            Some('$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some('{') => {
                let close = closing_brace(rest).ok_or_else(|| TemplateError::Invalid(text.to_owned()))?;
                out.push_str(&braced(&rest[1..close], text, lookup)?);
                rest = &rest[close + 1..];
            }
            Some(first) if is_name_start(first) => {
                let end = name_end(rest);
                out.push_str(&plain(&rest[..end], lookup));
                rest = &rest[end..];
            }
            // A dollar that begins nothing is a dollar.
            _ => out.push('$'),
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn plain(name: &str, lookup: &mut Lookup<'_>) -> String {
    (lookup.value)(name).unwrap_or_else(|| {
        (lookup.unset)(name);
        String::new()
    })
}

fn braced(inner: &str, whole: &str, lookup: &mut Lookup<'_>) -> Result<String, TemplateError> {
    let (name, operator, word) = split(inner).ok_or_else(|| TemplateError::Invalid(whole.to_owned()))?;
    if operator.is_empty() {
        return Ok(plain(name, lookup));
    }
    let value = (lookup.value)(name);
    let there = match &value {
        Some(value) => !operator.starts_with(':') || !value.is_empty(),
        None => false,
    };
    match (operator.trim_start_matches(':'), there) {
        ("-" | "?", true) => Ok(value.unwrap_or_default()),
        ("-", false) | ("+", true) => substitute(word, lookup),
        ("+", false) => Ok(value.unwrap_or_default()),
        _ => {
            let reason = substitute(word, lookup)?;
            Err(TemplateError::Required { variable: name.to_owned(), reason })
        }
    }
}

/// `NAME`, operator (may be empty) and word of what stands between the braces.
fn split(inner: &str) -> Option<(&str, &str, &str)> {
    if !inner.starts_with(is_name_start) {
        return None;
    }
    let (name, rest) = inner.split_at(name_end(inner));
    if rest.is_empty() {
        return Some((name, "", ""));
    }
    let operator = [":-", ":?", ":+", "-", "?", "+"].into_iter().find(|op| rest.starts_with(op))?;
    Some((name, operator, &rest[operator.len()..]))
}

/// The brace that closes the one `text` begins with.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

fn is_name_start(char: char) -> bool {
    char.is_ascii_alphabetic() || char == '_'
}

fn name_end(text: &str) -> usize {
    text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len())
}

/// Collects the variables of `text`.
pub(crate) fn variables(text: &str, found: &mut BTreeMap<String, Variable>) {
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        rest = &rest[dollar + 1..];
        match rest.chars().next() {
            Some('$') => rest = &rest[1..],
            Some('{') => {
                let Some(close) = closing_brace(rest) else { return };
                if let Some((name, operator, word)) = split(&rest[1..close]) {
                    let mut variable = Variable::default();
                    match operator.trim_start_matches(':') {
                        "-" => word.clone_into(&mut variable.default),
                        "+" => word.clone_into(&mut variable.presence),
                        "?" => variable.required = true,
                        _ => {}
                    }
                    found.insert(name.to_owned(), variable);
                    variables(word, found);
                }
                rest = &rest[close + 1..];
            }
            Some(first) if is_name_start(first) => {
                let end = name_end(rest);
                found.insert(rest[..end].to_owned(), Variable::default());
                rest = &rest[end..];
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, TemplateError> {
        let value = |name: &str| match name {
            "FOO" => Some("first".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(text, &mut Lookup { value: &value, unset: &mut |_| {} })
    }

    #[test]
    fn every_operator() {
        for (text, filled) in [
            ("$FOO ${FOO}", "first first"),
            ("$$FOO $${FOO}", "$FOO ${FOO}"),
            ("${MISSING:-d}|${MISSING-d}|${EMPTY:-d}|${EMPTY-d}", "d|d|d|"),
            ("${FOO:+a}|${FOO+a}|${EMPTY:+a}|${EMPTY+a}|${MISSING+a}", "a|a||a|"),
            ("${FOO:?e}${FOO?e}${EMPTY?e}", "firstfirst"),
            ("${A:-${B:-${FOO}}}", "first"),
            ("${A:-{x}}", "{x}"),
            ("${A:-a-b:-c?d}", "a-b:-c?d"),
            ("$MISSING.", "."),
            ("5$ $5 a$", "5$ $5 a$"),
            ("${A:-http://x:80/?q=1}", "http://x:80/?q=1"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(filled), "{text}");
        }
    }

    #[test]
    fn what_cannot_be() {
        for text in ["${", "${}", "${ FOO}", "${FOO", "${FOO!x}", "${1A}"] {
            assert_eq!(fill(text), Err(TemplateError::Invalid(text.to_owned())), "{text}");
        }
        assert_eq!(
            fill("${MISSING:?set $FOO}").unwrap_err().to_string(),
            "required variable MISSING is missing a value: set first"
        );
        assert_eq!(fill("${EMPTY:?}").unwrap_err().to_string(), "required variable EMPTY is missing a value");
    }

    #[test]
    fn variables_are_found() {
        let mut found = BTreeMap::new();
        variables("$A ${B:-x${C?}} $$D ${E:+y}", &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["A", "B", "C", "E"]);
        assert!(found["C"].required);
        assert_eq!(found["E"].presence, "y");
    }
}
