//! Text to nodes: one per instruction, with flags, arguments and heredocs, before anything is known about what they
//! mean.

use crate::diagnostic::{Diagnostic, Severity};
use crate::directive::{Directive, DirectiveReader};
use crate::heredoc::{self, Heredoc};
use crate::json::{self, JsonArray};
use crate::lines::{self, LogicalLine, PhysicalLines};
use crate::span::{LineRange, Span};
use crate::words::{self, Piece};

pub use crate::words::Word;

/// The syntax tree of a Dockerfile, with everything that was found wrong on the way.
#[derive(Debug, Clone)]
pub struct Syntax {
    /// The text itself; all spans point into it.
    pub source: String,
    /// The escape character: `\`, or what the `escape` directive says.
    pub escape: char,
    /// Directives at the top.
    pub directives: Vec<Directive>,
    /// The instructions that could be read, in order.
    pub nodes: Vec<Node>,
    /// Errors and warnings, in order of their place.
    pub diagnostics: Vec<Diagnostic>,
}

/// One instruction as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The keyword, in the case it was written in.
    pub keyword: Word,
    /// `--flags`, quotes taken off.
    pub flags: Vec<Word>,
    /// What follows.
    pub args: Arguments,
    /// Whether the arguments were a JSON array.
    pub json: bool,
    /// Heredocs whose bodies follow the instruction.
    pub heredocs: Vec<Heredoc>,
    /// The instruction with continuations joined and comments cut.
    pub original: String,
    /// Its place, heredoc bodies included.
    pub span: Span,
    /// Its lines, heredoc bodies included.
    pub lines: LineRange,
    /// Comments directly above it, without the `#`.
    pub comments: Vec<String>,
}

/// Arguments by the way they are split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// A list of words. For shell forms: one word, the whole text.
    Words(Vec<Word>),
    /// `name=value` pairs of `ENV` and `LABEL`.
    Pairs(Vec<Pair>),
    /// The instruction inside an `ONBUILD`.
    Trigger(Box<Node>),
}

/// A `name=value` pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name, not expanded.
    pub key: String,
    /// The value, not expanded.
    pub value: String,
    /// Written as `NAME value`, the old form.
    pub legacy: bool,
    /// Place of the pair.
    pub span: Span,
}

impl Node {
    /// The keyword in capitals.
    pub fn name(&self) -> String {
        self.keyword.text.to_uppercase()
    }

    /// The word list, empty if the arguments are something else.
    pub(crate) fn words(&self) -> &[Word] {
        match &self.args {
            Arguments::Words(words) => words,
            _ => &[],
        }
    }

    fn takes_heredocs(&self) -> bool {
        let node = match &self.args {
            Arguments::Trigger(node) => node,
            _ => self,
        };
        !node.json && ["ADD", "COPY", "RUN"].contains(&node.name().as_str())
    }
}

/// Parses a Dockerfile. Whatever is wrong stands in [`Syntax::diagnostics`]; the rest is parsed nevertheless.
pub fn parse(source: &str) -> Syntax {
    let mut reader = Reader {
        lines: PhysicalLines::new(source),
        escape: '\\',
        directive_reader: DirectiveReader::default(),
        comments: Vec::new(),
        directives: Vec::new(),
        nodes: Vec::new(),
        diagnostics: Vec::new(),
    };
    while reader.instruction() {}
    let count = reader.lines.count;
    let end = Span::new(reader.lines.offset(), reader.lines.offset());
    let mut diagnostics = reader.diagnostics;
    let failed = diagnostics.iter().any(|d| d.severity == Severity::Error);
    if reader.nodes.is_empty() && !failed {
        let text = "file with no instructions";
        diagnostics.push(Diagnostic::parse_error(text, Span::new(0, 0), LineRange::new(count, count)));
    } else if reader.lines.too_long {
        let text = "dockerfile line greater than max allowed size of 65535";
        diagnostics.push(Diagnostic::parse_error(text, end, LineRange::new(count, count)));
    }
    Syntax {
        source: source.to_owned(),
        escape: reader.escape,
        directives: reader.directives,
        nodes: reader.nodes,
        diagnostics,
    }
}

struct Reader<'a> {
    lines: PhysicalLines<'a>,
    escape: char,
    directive_reader: DirectiveReader,
    comments: Vec<String>,
    directives: Vec<Directive>,
    nodes: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    /// Reads lines up to the end of one instruction; false at the end of the file.
    fn instruction(&mut self) -> bool {
        let before = self.lines.count;
        let Some(line) = self.lines.next() else { return false };
        let trimmed = lines::trim_newline(line.text);
        let text = trimmed.trim_start();
        let offset = line.start + (trimmed.len() - text.len());
        let span = Span::new(offset, offset + text.len());
        if lines::is_comment(line.text) {
            // The first byte is cut as BuildKit cuts it, even if that is a blank before the `#`.
            let comment = line.text.chars().next().map_or("", |c| &line.text[c.len_utf8()..]).trim();
            if comment.is_empty() {
                self.comments.clear();
            } else {
                self.comments.push(comment.to_owned());
            }
        }
        match self.directive_reader.read(text, "#") {
            Ok(Some((name, value))) => {
                self.comments.pop();
                self.directive(name, value, span, before);
                return true;
            }
            Ok(None) => {}
            Err(message) => {
                self.comments.clear();
                let lines = LineRange::new(before, before);
                self.diagnostics.push(Diagnostic::parse_error(message, span, lines));
                return true;
            }
        }
        if text.starts_with('#') {
            return true;
        }
        let (text, goes_on) = lines::cut_continuation(text, self.escape);
        if !goes_on && text.is_empty() {
            return true;
        }
        let start_line = self.lines.count;
        let mut logical = LogicalLine::default();
        logical.push(text, offset);
        let end = if goes_on { self.continuation(&mut logical) } else { offset + text.len() };
        self.finish(&logical, start_line, Span::new(offset, end));
        true
    }

    fn directive(&mut self, name: &'static str, value: String, span: Span, before: usize) {
        if name == "escape" {
            if value != "\\" && value != "`" {
                let message = format!("invalid escape token '{value}' does not match ` or \\");
                self.diagnostics.push(Diagnostic::parse_error(message, span, LineRange::new(before, before)));
                return;
            }
            self.escape = if value == "`" { '`' } else { '\\' };
        }
        let lines = LineRange::new(before + 1, before + 1);
        self.directives.push(Directive { name, value, span, lines });
    }

    /// Appends continuation lines; returns where the instruction ends.
    fn continuation(&mut self, logical: &mut LogicalLine) -> usize {
        let mut end = self.lines.offset();
        let mut empty_line = None;
        for line in self.lines.by_ref() {
            end = line.start + line.text.len();
            if lines::is_comment(line.text) {
                continue;
            }
            let text = lines::trim_newline(line.text);
            if text.trim_start().is_empty() {
                empty_line = Some(Span::new(line.start, line.start));
                continue;
            }
            let (text, goes_on) = lines::cut_continuation(text, self.escape);
            logical.push(text, line.start);
            if !goes_on {
                end = line.start + text.len();
                break;
            }
        }
        if let Some(span) = empty_line {
            let message = format!("Empty continuation line found in: {}", logical.text);
            let lines = LineRange::new(self.lines.count, self.lines.count);
            let mut warning = Diagnostic::lint("NoEmptyContinuation", message, span, lines);
            warning.phase = crate::diagnostic::Phase::Parse;
            self.diagnostics.push(warning);
        }
        end
    }

    fn finish(&mut self, logical: &LogicalLine, start_line: usize, span: Span) {
        let comments = std::mem::take(&mut self.comments);
        let lines = LineRange::new(start_line, self.lines.count);
        let mut node = match node_from_line(logical, self.escape, 0) {
            Ok(node) => node,
            Err((message, place)) => {
                self.diagnostics.push(Diagnostic::parse_error(message, place, lines));
                return;
            }
        };
        node.comments = comments;
        node.span = span;
        if node.takes_heredocs() && logical.text.contains("<<") {
            for mut doc in heredoc::in_line(&logical.text) {
                if self.heredoc_body(&mut doc) {
                    node.span.end = doc.span.end;
                    node.heredocs.push(doc);
                } else {
                    let lines = LineRange::new(start_line, self.lines.count);
                    self.diagnostics.push(Diagnostic::parse_error("unterminated heredoc", span, lines));
                    return;
                }
            }
        }
        node.lines = LineRange::new(start_line, self.lines.count);
        self.nodes.push(node);
    }

    fn heredoc_body(&mut self, doc: &mut Heredoc) -> bool {
        doc.span = Span::new(self.lines.offset(), self.lines.offset());
        for line in self.lines.by_ref() {
            if doc.ends_with(line.text) {
                return true;
            }
            doc.body.push_str(line.text);
            doc.span.end = line.start + line.text.len();
        }
        false
    }
}

/// `ONBUILD ONBUILD …` is an error anyway; beyond this it is not unfolded.
const MAX_TRIGGER_DEPTH: usize = 4;

fn node_from_line(line: &LogicalLine, escape: char, depth: usize) -> Result<Node, (String, Span)> {
    let text = line.text.as_str();
    let lead = text.len() - text.trim_start().len();
    let trimmed = text.trim();
    let (keyword, rest, rest_at) = match words::split_once_blank(trimmed) {
        Some((keyword, rest, at)) => (keyword, rest, lead + at),
        None => (trimmed, "", lead + trimmed.len()),
    };
    let (flags, cut) = words::flags(rest, escape, rest_at);
    let args_at = rest_at + cut + (rest[cut..].len() - rest[cut..].trim_start().len());
    let args = rest[cut..].trim();
    let word = |piece: Piece| Word { span: line.span(piece.start, piece.end), text: piece.text };
    let whole = line.span(lead, lead + trimmed.len());
    let mut split = Splitter { line, escape, offset: args_at, json: false };
    let arguments = match keyword.to_uppercase().as_str() {
        "ENV" | "LABEL" => Arguments::Pairs(
            split.pairs(args, &keyword.to_uppercase()).map_err(|(m, span)| (m, span.unwrap_or(whole)))?,
        ),
        "ARG" => Arguments::Words(words::quoted(args, escape, args_at).into_iter().map(word).collect()),
        "FROM" | "EXPOSE" if args.is_empty() => Arguments::Words(Vec::new()),
        "FROM" | "EXPOSE" => {
            Arguments::Words(words::by_blanks(args, args_at).into_iter().map(word).collect())
        }
        "ADD" | "COPY" | "VOLUME" => Arguments::Words(split.json_or_list(args).map_err(|m| (m, whole))?),
        "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" => {
            Arguments::Words(split.json_or_string(args, args_at).map_err(|m| (m, whole))?)
        }
        "HEALTHCHECK" => Arguments::Words(split.health(args).map_err(|m| (m, whole))?),
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" => Arguments::Words(split.string(args, args_at)),
        "ONBUILD" if !args.is_empty() && depth < MAX_TRIGGER_DEPTH => {
            let inner = line.tail(args_at);
            let mut inner = inner;
            inner.text.truncate(args.len());
            Arguments::Trigger(Box::new(node_from_line(&inner, escape, depth + 1)?))
        }
        _ => Arguments::Words(Vec::new()),
    };
    let json = split.json;
    Ok(Node {
        keyword: Word { text: keyword.to_owned(), span: line.span(lead, lead + keyword.len()) },
        flags: flags.into_iter().map(word).collect(),
        args: arguments,
        json,
        heredocs: Vec::new(),
        original: text.to_owned(),
        span: whole,
        lines: LineRange::default(),
        comments: Vec::new(),
    })
}

/// The ways in which arguments are split.
struct Splitter<'a> {
    line: &'a LogicalLine,
    escape: char,
    offset: usize,
    json: bool,
}

impl Splitter<'_> {
    fn string(&self, text: &str, offset: usize) -> Vec<Word> {
        if text.is_empty() {
            return Vec::new();
        }
        vec![Word { text: text.to_owned(), span: self.line.span(offset, offset + text.len()) }]
    }

    fn json_array(&mut self, text: &str, offset: usize) -> Result<Option<Vec<Word>>, String> {
        match json::array(text) {
            JsonArray::Strings(strings) => {
                self.json = true;
                let word =
                    |(text, start, end)| Word { text, span: self.line.span(offset + start, offset + end) };
                Ok(Some(strings.into_iter().map(word).collect()))
            }
            JsonArray::OtherValues => {
                Err("when using JSON array syntax, arrays must be comprised of strings only".into())
            }
            JsonArray::NotJson => Ok(None),
        }
    }

    fn json_or_string(&mut self, text: &str, offset: usize) -> Result<Vec<Word>, String> {
        Ok(self.json_array(text, offset)?.unwrap_or_else(|| self.string(text, offset)))
    }

    fn json_or_list(&mut self, text: &str) -> Result<Vec<Word>, String> {
        if let Some(words) = self.json_array(text, self.offset)? {
            return Ok(words);
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let word = |piece: Piece| Word { span: self.line.span(piece.start, piece.end), text: piece.text };
        Ok(words::by_blanks(text, self.offset).into_iter().map(word).collect())
    }

    /// A type word, then a JSON array or text.
    fn health(&mut self, text: &str) -> Result<Vec<Word>, String> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let is_space = |c: char| matches!(c, '\t'..='\r' | ' ');
        let end = text.find(is_space).unwrap_or(text.len());
        let rest = text[end..].trim_start_matches(is_space);
        let mut words = self.string(&text[..end], self.offset);
        let json = self.json_or_string(rest, self.offset + (text.len() - rest.len()))?;
        words.extend(json);
        Ok(words)
    }

    fn pairs(&self, text: &str, keyword: &str) -> Result<Vec<Pair>, (String, Option<Span>)> {
        let words = words::quoted(text, self.escape, self.offset);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        if !first.text.contains('=') {
            let Some((key, value, _)) = words::split_once_blank(text) else {
                return Err((format!("{keyword} must have two arguments"), None));
            };
            let span = self.line.span(self.offset, self.offset + text.len());
            return Ok(vec![Pair { key: key.to_owned(), value: value.to_owned(), legacy: true, span }]);
        }
        words
            .iter()
            .map(|word| {
                let span = self.line.span(word.start, word.end);
                let Some((key, value)) = word.text.split_once('=') else {
                    let quoted = crate::golang::quote(&word.text);
                    let what =
                        format!("Syntax error - can't find = in {quoted}. Must be of the form: name=value");
                    return Err((what, Some(span)));
                };
                Ok(Pair { key: key.to_owned(), value: value.to_owned(), legacy: false, span })
            })
            .collect()
    }
}

impl Syntax {
    /// The `syntax` directive as front end selection finds it: also as `// syntax=` and below a `#!` line. The
    /// reference is its value up to the first blank.
    pub fn syntax_directive(&self) -> Option<Directive> {
        crate::directive::detect("syntax", &self.source)
    }

    /// The `check` directive.
    pub fn check_directive(&self) -> Option<Directive> {
        crate::directive::detect("check", &self.source)
    }
}
