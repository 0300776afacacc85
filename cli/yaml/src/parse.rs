//! From text to trees: events of saphyr-parser, then anchors, merge keys and the tags `!reset` and `!override`.

use std::{borrow::Cow, collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, SpannedEventReceiver};

use super::{Map, Mark, Node, Path, Value, scalar};
use crate::Fault;

/// Values one file may have after its aliases are written out.
const MAX_NODES: usize = 1 << 20;

/// One YAML document.
#[derive(Debug)]
pub struct Document {
    /// Its tree.
    pub root: Node,
    /// What `!reset` and `!override` take away from the files before.
    pub resets: Vec<Path>,
}

/// The documents of one file; `file` is its number among the [`Sources`](crate::Sources).
///
/// # Errors
/// The first place that is no YAML, or means nothing as such.
pub fn parse(text: &str, file: u16) -> Result<Vec<Document>, Fault> {
    let mut text = Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text));
    let builder = loop {
        let mut builder = Builder { file, ..Builder::default() };
        let Err(error) = Parser::new_from_str(&text).load(&mut builder, true) else { break builder };
        match indent_closing_bracket(&text, error.marker().line()) {
            Some(indented) => text = Cow::Owned(indented),
            None => {
                let mark = mark(file, error.marker().line(), error.marker().col());
                return Err(Fault::new(mark, &Path::root(), format!("this is not YAML: {}", error.info())));
            }
        }
    };
    if let Some(fault) = builder.fault {
        return Err(fault);
    }
    builder.documents.iter().map(|raw| Resolver::default().document(raw)).collect()
}

/// A bracket that closes at the indentation of its key is no YAML to the letter, but libyaml and go-yaml take it, and
/// people write it. Gives the text with the bracket of a refused line moved to the right, once per line.
fn indent_closing_bracket(text: &str, line: usize) -> Option<String> {
    const MOVED: &str = "                                ";
    let mut lines: Vec<Cow<'_, str>> = text.split('\n').map(Cow::Borrowed).collect();
    let refused = lines.get_mut(line.checked_sub(1)?)?;
    if !refused.trim_start().starts_with([']', '}']) || refused.starts_with(MOVED) {
        return None;
    }
    *refused = Cow::Owned(format!("{MOVED}{refused}"));
    Some(lines.join("\n"))
}

fn mark(file: u16, line: usize, column: usize) -> Mark {
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark { file, line: small(line), column: small(column).saturating_add(1) }
}

/// A node as it stands in the text.
#[derive(Debug, Clone)]
struct Raw {
    content: Content,
    mark: Mark,
    tag: Option<String>,
    /// Nodes in it, itself included.
    size: usize,
}

#[derive(Debug, Clone)]
enum Content {
    Scalar { text: String, plain: bool },
    List(Vec<Rc<Raw>>),
    Map(Vec<(Rc<Raw>, Rc<Raw>)>),
}

/// Collects events.
#[derive(Debug, Default)]
struct Builder {
    file: u16,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Raw>>,
    documents: Vec<Rc<Raw>>,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Open {
    anchor: usize,
    tag: Option<String>,
    mark: Mark,
    items: Vec<Rc<Raw>>,
}

impl<'input> SpannedEventReceiver<'input> for Builder {
    fn on_event(&mut self, event: Event<'input>, span: Span) {
        let mark = mark(self.file, span.start.line(), span.start.col());
        let name = |tag: Option<std::borrow::Cow<'_, saphyr_parser::Tag>>| {
            tag.map(|tag| format!("{}{}", tag.handle, tag.suffix))
        };
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let content = Content::Scalar { text: text.into_owned(), plain };
                self.add(Raw { content, mark, tag: name(tag), size: 1 }, anchor);
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                self.open.push(Open { anchor, tag: name(tag), mark, items: Vec::new() });
            }
            Event::SequenceEnd => self.close(Content::List),
            Event::MappingEnd => self.close(|items| {
                let mut items = items.into_iter();
                let mut pairs = Vec::new();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Content::Map(pairs)
            }),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.put(node),
                None => {
                    let message = "an alias within the node it stands for: that has no end";
                    self.fault.get_or_insert_with(|| Fault::new(mark, &Path::root(), message));
                    let content = Content::Scalar { text: String::new(), plain: true };
                    self.put(Rc::new(Raw { content, mark, tag: None, size: 1 }));
                }
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }
}

impl Builder {
    fn close(&mut self, make: impl FnOnce(Vec<Rc<Raw>>) -> Content) {
        let Some(open) = self.open.pop() else { return };
        let size = open.items.iter().fold(1, |sum: usize, item| sum.saturating_add(item.size));
        if size > MAX_NODES {
            let message = format!("more than {MAX_NODES} values once the aliases are written out");
            self.fault.get_or_insert_with(|| Fault::new(open.mark, &Path::root(), message));
            return self.add(
                Raw { content: Content::List(Vec::new()), mark: open.mark, tag: None, size: 1 },
                open.anchor,
            );
        }
        let raw = Raw { content: make(open.items), mark: open.mark, tag: open.tag, size };
        self.add(raw, open.anchor);
    }

    fn add(&mut self, raw: Raw, anchor: usize) {
        let raw = Rc::new(raw);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&raw));
        }
        self.put(raw);
    }

    fn put(&mut self, raw: Rc<Raw>) {
        match self.open.last_mut() {
            Some(open) => open.items.push(raw),
            None => self.documents.push(raw),
        }
    }
}

/// Turns raw nodes into values.
#[derive(Debug, Default)]
struct Resolver {
    resets: Vec<Path>,
}

impl Resolver {
    fn document(mut self, raw: &Raw) -> Result<Document, Fault> {
        let root = self.node(raw, &Path::root())?.unwrap_or_default();
        Ok(Document { root, resets: self.resets })
    }

    /// The value; `None` if a `!reset` takes it away.
    fn node(&mut self, raw: &Raw, path: &Path) -> Result<Option<Node>, Fault> {
        match raw.tag.as_deref() {
            Some("!reset") => {
                self.resets.push(path.clone());
                return Ok(None);
            }
            Some("!override") => self.resets.push(path.clone()),
            _ => {}
        }
        let value = match &raw.content {
            Content::Scalar { text, plain } => Self::scalar(text, *plain, raw.tag.as_deref()),
            Content::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    list.extend(self.node(item, &path.join(index.to_string()))?);
                }
                Value::List(list)
            }
            Content::Map(pairs) => Value::Map(self.map(pairs, path)?),
        };
        Ok(Some(Node { value, mark: raw.mark }))
    }

    fn scalar(text: &str, plain: bool, tag: Option<&str>) -> Value {
        match tag {
            Some("tag:yaml.org,2002:str" | "!") => Value::Text(text.to_owned()),
            Some(tag) if tag.starts_with("tag:yaml.org,2002:") => scalar::resolve(text),
            _ if plain => scalar::resolve(text),
            _ => Value::Text(text.to_owned()),
        }
    }

    fn map(&mut self, pairs: &[(Rc<Raw>, Rc<Raw>)], path: &Path) -> Result<Map, Fault> {
        let mut map = Map::with_capacity(pairs.len());
        let mut written: HashMap<&str, Mark> = HashMap::new();
        let mut merged = Vec::new();
        for (key, raw) in pairs {
            let name = Self::key(key, path)?;
            if let Some(first) = written.insert(name, key.mark) {
                let message =
                    format!("{name:?} is here for the second time; the first is in line {}", first.line);
                return Err(Fault::new(key.mark, path, message));
            }
            if name == "<<" && matches!(&key.content, Content::Scalar { plain: true, .. }) {
                merged.push(raw);
            } else if let Some(node) = self.node(raw, &path.join(name))? {
                map.insert(name.to_owned(), Node { mark: key.mark, ..node });
            }
        }
        for raw in merged {
            self.merge(raw, &mut map, path)?;
        }
        Ok(map)
    }

    /// `<<`: what is not there yet comes from the mapping, or the mappings in their order.
    fn merge(&mut self, raw: &Raw, map: &mut Map, path: &Path) -> Result<(), Fault> {
        match &raw.content {
            Content::Map(pairs) => {
                for (key, node) in self.map(pairs, path)? {
                    map.entry(key).or_insert(node);
                }
                Ok(())
            }
            Content::List(items) => items.iter().try_for_each(|item| self.merge(item, map, path)),
            Content::Scalar { .. } => {
                Err(Fault::new(raw.mark, path, "what `<<` merges must be a mapping or a list of mappings"))
            }
        }
    }

    fn key<'a>(key: &'a Raw, path: &Path) -> Result<&'a str, Fault> {
        let fault =
            |what: &str| Fault::new(key.mark, path, format!("a key must be a string, this is {what}"));
        match &key.content {
            Content::Scalar { text, plain } => match Self::scalar(text, *plain, key.tag.as_deref()) {
                Value::Text(_) => Ok(text),
                other => Err(fault(other.kind()).hint(format!("write it in quotes: \"{text}\""))),
            },
            Content::List(_) => Err(fault("a list")),
            Content::Map(_) => Err(fault("a mapping")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Document {
        parse(text, 0).unwrap().remove(0)
    }

    fn json(text: &str) -> String {
        serde_json::Value::from(&one(text).root).to_string()
    }

    #[test]
    fn anchors_and_merge_keys() {
        let text = "x: &a {k: 1, l: 2}\ny: &b {l: 3, m: 4}\nz: {<<: [*a, *b], k: 5}\nw: *a\n";
        assert_eq!(
            json(text),
            r#"{"x":{"k":1,"l":2},"y":{"l":3,"m":4},"z":{"k":5,"l":2,"m":4},"w":{"k":1,"l":2}}"#
        );
    }

    #[test]
    fn resets_are_recorded_and_taken_away() {
        let document = one("a:\n  b: !reset null\n  c: !override [1]\n  d: 2\n");
        assert_eq!(serde_json::Value::from(&document.root).to_string(), r#"{"a":{"c":[1],"d":2}}"#);
        assert_eq!(document.resets, [Path::from("a.b"), Path::from("a.c")]);
    }

    #[test]
    fn places_are_those_of_keys() {
        let document = one("a:\n  bb: [1, 2]\n");
        let node = document.root.at(&Path::from("a.bb")).unwrap();
        assert_eq!((node.mark.line, node.mark.column), (2, 3));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let wrong = |text: &str| {
            let fault = parse(text, 0).unwrap_err();
            (fault.mark.line, fault.message)
        };
        assert_eq!(wrong("a: 1\na: 2\n").0, 2);
        assert_eq!(wrong("a: &x [*x]\n").0, 1);
        assert_eq!(wrong("a:\n  1: b\n").0, 2);
        assert!(wrong("a: [\n").1.starts_with("this is not YAML"));
        let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..9 {
            let inner = vec![format!("*a{}", level - 1); 10].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(wrong(&bomb).1.contains("aliases"));
    }

    #[test]
    fn brackets_may_close_at_the_key() {
        assert_eq!(
            json("a:\n  b: [\n    1,\n  ]\n  c: {\n    d: 2\n  }\n"),
            r#"{"a":{"b":[1],"c":{"d":2}}}"#
        );
        assert!(parse("a:\n  ]\n", 0).is_err());
    }

    #[test]
    fn scalars_in_quotes_are_text() {
        assert_eq!(
            json("a: \"1\"\nb: 1\nc: !!str 1\nd: '~'\ne:\n"),
            r#"{"a":"1","b":1,"c":"1","d":"~","e":null}"#
        );
    }
}
