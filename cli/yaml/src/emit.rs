//! From a tree back to text, in the style of go-yaml v3 with an indent of two: what `docker compose config` prints.

use serde_json::Value as Json;

use super::{Value, scalar};

const INDENT: usize = 2;

/// The document as YAML text.
#[must_use]
pub fn emit(tree: &Json) -> String {
    let mut out = String::new();
    match tree {
        Json::Object(map) if !map.is_empty() => mapping(&mut out, map, 0, false),
        Json::Array(list) if !list.is_empty() => sequence(&mut out, list, 0),
        other => {
            inline(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn mapping(out: &mut String, map: &serde_json::Map<String, Json>, indent: usize, mut in_item: bool) {
    for (key, value) in map {
        if !std::mem::take(&mut in_item) {
            pad(out, indent);
        }
        key_text(out, key);
        out.push(':');
        entry(out, value, indent);
    }
}

/// What stands behind a key's colon.
fn entry(out: &mut String, value: &Json, indent: usize) {
    match value {
        Json::Object(map) if !map.is_empty() => {
            out.push('\n');
            mapping(out, map, indent + INDENT, false);
        }
        Json::Array(list) if !list.is_empty() => {
            out.push('\n');
            sequence(out, list, indent + INDENT);
        }
        other => {
            out.push(' ');
            inline(out, other, indent + INDENT);
            out.push('\n');
        }
    }
}

fn sequence(out: &mut String, list: &[Json], indent: usize) {
    for item in list {
        pad(out, indent);
        out.push_str("- ");
        match item {
            Json::Object(map) if !map.is_empty() => mapping(out, map, indent + INDENT, true),
            Json::Array(inner) if !inner.is_empty() => {
                // go-yaml begins an inner list on the same line.
                let mut text = String::new();
                sequence(&mut text, inner, indent + INDENT);
                out.push_str(text.trim_start());
            }
            other => {
                inline(out, other, indent + INDENT);
                out.push('\n');
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(out: &mut String, value: &Json, indent: usize) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Json::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => out.push_str(&scalar::format_float(float)),
            _ => out.push_str(&number.to_string()),
        },
        Json::String(text) => string(out, text, indent),
        Json::Array(_) => out.push_str("[]"),
        Json::Object(_) => out.push_str("{}"),
    }
}

fn key_text(out: &mut String, key: &str) {
    match style(key) {
        Style::Plain => out.push_str(key),
        Style::Single => single_quoted(out, key),
        Style::Double | Style::Literal => double_quoted(out, key),
    }
}

fn string(out: &mut String, text: &str, indent: usize) {
    match style(text) {
        Style::Plain => out.push_str(text),
        Style::Single => single_quoted(out, text),
        Style::Double => double_quoted(out, text),
        Style::Literal => literal(out, text, indent),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    Single,
    Double,
    Literal,
}

fn style(text: &str) -> Style {
    let seen = Analysis::of(text);
    if text.contains('\n') {
        return if seen.literal_allowed { Style::Literal } else { Style::Double };
    }
    if !matches!(scalar::resolve(text), Value::Text(_))
        || is_old_bool(text)
        || is_base_60(text)
        || is_date(text)
        || text == "<<"
    {
        return Style::Double;
    }
    match (seen.plain_allowed, seen.single_allowed) {
        (true, _) => Style::Plain,
        (false, true) => Style::Single,
        (false, false) => Style::Double,
    }
}

/// Booleans of YAML 1.1, which older parsers still take for such.
fn is_old_bool(text: &str) -> bool {
    const WORDS: &[&str] =
        &["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No", "NO", "off", "Off", "OFF"];
    WORDS.contains(&text)
}

/// Numbers to base 60 of YAML 1.1: `22:22`.
fn is_base_60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    if !first.starts_with(|c: char| c.is_ascii_digit())
        || !first.bytes().all(|b| b.is_ascii_digit() || b == b'_')
    {
        return false;
    }
    let rest: Vec<&str> = parts.collect();
    let sixty = |part: &str| match part.as_bytes() {
        [last] => last.is_ascii_digit(),
        [first, last] => (b'0'..=b'5').contains(first) && last.is_ascii_digit(),
        _ => false,
    };
    match rest.split_last() {
        None => false,
        Some((last, middle)) => {
            let last = match last.split_once('.') {
                Some((whole, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_') => whole,
                _ => last,
            };
            sixty(last) && middle.iter().all(|part| sixty(part))
        }
    }
}

/// `2001-12-14`, maybe with a time: a timestamp to go-yaml.
fn is_date(text: &str) -> bool {
    let date = text.split(['T', 't', ' ']).next().unwrap_or_default();
    let parts: Vec<&str> = date.split('-').collect();
    matches!(parts.as_slice(), [year, month, day]
        if year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len())
            && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit())))
}

/// Which styles can carry a text.
#[derive(Debug)]
struct Analysis {
    plain_allowed: bool,
    single_allowed: bool,
    literal_allowed: bool,
}

impl Analysis {
    fn of(text: &str) -> Self {
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut tab, mut space_break, mut break_space) = (false, false, false, false);
        let mut before = None;
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let blank_next = chars.peek().is_none_or(|next| matches!(next, ' ' | '\t' | '\n' | '\r'));
            indicators |= match (before, char) {
                (
                    None,
                    '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                    | '`',
                ) => true,
                (None, '?' | ':' | '-') | (Some(_), ':') => blank_next,
                (Some(before), '#') => matches!(before, ' ' | '\t' | '\n'),
                _ => false,
            };
            match char {
                '\t' => tab = true,
                '\n' => {}
                _ if !is_printable(char) => special = true,
                _ => {}
            }
            match (before, char) {
                (Some(' '), '\n') => space_break = true,
                (Some('\n'), ' ') => break_space = true,
                _ => {}
            }
            before = Some(char);
        }
        let edge = |char: Option<char>| matches!(char, Some(' ' | '\n'));
        let edges = edge(text.chars().next()) || edge(text.chars().next_back());
        let bad = space_break || special;
        Self {
            plain_allowed: !text.is_empty() && !indicators && !edges && !bad && !tab && !text.contains('\n'),
            single_allowed: !bad && !tab && !break_space,
            literal_allowed: !bad && !text.ends_with(' '),
        }
    }
}

fn is_printable(char: char) -> bool {
    matches!(char, ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

fn single_quoted(out: &mut String, text: &str) {
    out.push('\'');
    out.push_str(&text.replace('\'', "''"));
    out.push('\'');
}

fn double_quoted(out: &mut String, text: &str) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\u{1b}' => out.push_str("\\e"),
            char if is_printable(char) => out.push(char),
            char if u32::from(char) <= 0xff => out.push_str(&format!("\\x{:02X}", u32::from(char))),
            char if u32::from(char) <= 0xffff => out.push_str(&format!("\\u{:04X}", u32::from(char))),
            char => out.push_str(&format!("\\U{:08X}", u32::from(char))),
        }
    }
    out.push('"');
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) {
        out.push_str(&INDENT.to_string());
    }
    let body = text.strip_suffix('\n');
    match body {
        None => out.push('-'),
        Some(body) if body.ends_with('\n') || body.is_empty() => out.push('+'),
        Some(_) => {}
    }
    for line in body.unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_style_is_go_yamls() {
        let tree = json!({
            "name": "x", "n": 1, "s": "1", "f": 0.5, "b": "yes", "e": "", "l": [], "m": {}, "z": null,
            "p": "22:22", "q": "80:80", "c": "a: b", "h": "a #b", "d": "2024-01-02", "t": "a\tb", "star": "*",
            "text": "one\n  two\n", "last": "one\ntwo", "list": [{"a": 1, "b": [1, 2]}, "x"], "dash": "-a",
        });
        insta::assert_snapshot!(emit(&tree), @r#"
        name: x
        "n": 1
        s: "1"
        f: 0.5
        b: "yes"
        e: ""
        l: []
        m: {}
        z: null
        p: "22:22"
        q: 80:80
        c: 'a: b'
        h: 'a #b'
        d: "2024-01-02"
        t: "a\tb"
        star: '*'
        text: |
          one
            two
        last: |-
          one
          two
        list:
          - a: 1
            b:
              - 1
              - 2
          - x
        dash: -a
        "#);
    }

    proptest! {
        /// Whatever the text, what is read back is what was written.
        #[test]
        fn texts_survive(text in "[ -~\\n\\té☃:#'\"]{0,40}", key in "[ -~]{1,20}") {
            let tree = json!({"a": {key: [text.clone(), {"inner": text}]}});
            let back = crate::parse(&emit(&tree), 0).map_err(|fault| TestCaseError::fail(fault.message))?;
            prop_assert_eq!(serde_json::Value::from(&back[0].root), tree);
        }
    }
}
