//! Template text to nodes.

use serde_json::Value;

use super::TemplateError;
use super::functions::Function;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Literal text.
    Text(String),
    /// `{{pipeline}}`, or `{{$name := pipeline}}` which shows nothing.
    Action { assign: Option<String>, pipe: Pipe },
    /// `{{if}}…{{else}}…{{end}}`.
    If { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{with}}…{{else}}…{{end}}`.
    With { pipe: Pipe, then: Vec<Node>, otherwise: Vec<Node> },
    /// `{{range [$i,] [$e :=]}}…{{else}}…{{end}}`.
    Range { key: Option<String>, value: Option<String>, pipe: Pipe, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each of which gets the result of the one before as its last argument.
pub(super) type Pipe = Vec<Command>;

/// One command of a pipeline.
#[derive(Debug)]
pub(super) enum Command {
    /// A function and its arguments.
    Call(Function, Vec<Operand>),
    /// A value.
    Value(Operand),
}

/// A value in a command.
#[derive(Debug)]
pub(super) enum Operand {
    /// `.`, `.A.B`, and where a mistake in it is said to be, in bytes from the start.
    Field(Vec<String>, usize),
    /// `$`, `$x`, `$x.A`, and where a mistake in it is said to be; the name is without the dollar sign.
    Variable(String, Vec<String>, usize),
    /// A literal.
    Literal(Value),
    /// `(pipeline)`, `(pipeline).A`.
    Nested(Pipe, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Field(Vec<String>, usize),
    Variable(String, Vec<String>, usize),
    Word(String),
    Literal(Value),
    Open,
    Close(Vec<String>),
    Bar,
    Comma,
    Assign,
}

struct Action {
    at: usize,
    tokens: Vec<Token>,
}

enum Piece {
    Text(String),
    Action(Action),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let pieces = split(text)?;
    let mut reader = Reader { pieces: pieces.into_iter(), end: text.chars().count() };
    let (nodes, stop) = reader.block()?;
    match stop {
        Stop::Finished => Ok(nodes),
        Stop::End(at) => Err(error(at, "{{end}} without a beginning")),
        Stop::Else(action) => Err(error(action.at, "{{else}} without {{if}}")),
    }
}

fn error(at: usize, what: impl Into<String>) -> TemplateError {
    TemplateError::Parse { at, what: what.into() }
}

/// Text and actions; trims around `{{-` and `-}}`.
fn split(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(open) = rest.find("{{") {
        let at = text.len() - rest.len() + open;
        let mut literal = &rest[..open];
        let after = &rest[open + 2..];
        let close = find_close(after).ok_or_else(|| error(at, "unclosed action"))?;
        let mut inner = &after[..close];
        if trim {
            literal = literal.trim_start();
        }
        if let Some(stripped) = inner.strip_prefix("- ") {
            literal = literal.trim_end();
            inner = stripped;
        }
        trim = inner.ends_with(" -");
        if trim {
            inner = &inner[..inner.len() - 2];
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.to_owned()));
        }
        if !inner.trim().starts_with("/*") {
            pieces.push(Piece::Action(Action { at, tokens: tokens(inner, at + 2)? }));
        }
        rest = &after[close + 2..];
    }
    let literal = if trim { rest.trim_start() } else { rest };
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.to_owned()));
    }
    Ok(pieces)
}

/// Where `}}` is, outside of quotes.
fn find_close(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[i..].starts_with("}}") => return Some(i),
            None => {}
        }
    }
    None
}

fn tokens(text: &str, offset: usize) -> Result<Vec<Token>, TemplateError> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let at = offset + text.len() - rest.len();
        let (token, used) = match c {
            c if c.is_whitespace() => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '(' => (Token::Open, 1),
            ')' => {
                let (path, used) = path(&rest[1..], at)?;
                (Token::Close(path), 1 + used)
            }
            '|' => (Token::Bar, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Assign, 2),
            '.' => {
                let (path, used) = path(rest, at)?;
                let blame = at + blamed(&path);
                (Token::Field(path, blame), used.max(1))
            }
            '$' => {
                let name = identifier(&rest[1..]);
                let (path, used) = path(&rest[1 + name.len()..], at)?;
                let blame = at + 1 + name.len();
                (Token::Variable(name.to_owned(), path, blame), 1 + name.len() + used)
            }
            '"' | '`' => string(rest, at)?,
            c if c.is_ascii_digit() || c == '-' || c == '+' => number(rest, at)?,
            c if c.is_alphabetic() || c == '_' => {
                let word = identifier(rest);
                let token = match word {
                    "true" => Token::Literal(Value::Bool(true)),
                    "false" => Token::Literal(Value::Bool(false)),
                    "nil" => Token::Literal(Value::Null),
                    _ => Token::Word(word.to_owned()),
                };
                (token, word.len())
            }
            c => return Err(error(at, format!("unexpected {c:?}"))),
        };
        out.push(token);
        rest = &rest[used..];
    }
    Ok(out)
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Where Go says that a mistake in such a path is: at its second name, if it has one.
fn blamed(path: &[String]) -> usize {
    if path.len() > 1 { 1 + path[0].len() } else { 0 }
}

/// `.A.B`: its names and how many bytes they took. A lone dot takes none.
fn path(text: &str, at: usize) -> Result<(Vec<String>, usize), TemplateError> {
    let mut names = Vec::new();
    let mut used = 0;
    while let Some(rest) = text[used..].strip_prefix('.') {
        let name = identifier(rest);
        if name.is_empty() {
            if names.is_empty() {
                break;
            }
            return Err(error(at + used, "a field name must follow the dot"));
        }
        names.push(name.to_owned());
        used += 1 + name.len();
    }
    Ok((names, used))
}

fn string(text: &str, at: usize) -> Result<(Token, usize), TemplateError> {
    if let Some(raw) = text.strip_prefix('`') {
        let end = raw.find('`').ok_or_else(|| error(at, "unterminated raw string"))?;
        return Ok((Token::Literal(Value::String(raw[..end].to_owned())), end + 2));
    }
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Ok((Token::Literal(Value::String(out)), i + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, c @ ('"' | '\\' | '\''))) => out.push(c),
                _ => return Err(error(at + i, "unknown escape in a string")),
            },
            c => out.push(c),
        }
    }
    Err(error(at, "unterminated string"))
}

fn number(text: &str, at: usize) -> Result<(Token, usize), TemplateError> {
    let end = text[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |i| i + 1);
    let digits = text[..end].trim_start_matches('+');
    let value = serde_json::from_str(digits).map_err(|_| error(at, format!("bad number {digits:?}")))?;
    Ok((Token::Literal(value), end))
}

/// Why a block of nodes came to its end.
enum Stop {
    Finished,
    End(usize),
    Else(Action),
}

struct Reader {
    pieces: std::vec::IntoIter<Piece>,
    end: usize,
}

impl Reader {
    fn block(&mut self) -> Result<(Vec<Node>, Stop), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            match action.tokens.first() {
                Some(Token::Word(word)) if word == "end" => return Ok((nodes, Stop::End(action.at))),
                Some(Token::Word(word)) if word == "else" => return Ok((nodes, Stop::Else(action))),
                _ => nodes.push(self.action(action)?),
            }
        }
        Ok((nodes, Stop::Finished))
    }

    fn action(&mut self, action: Action) -> Result<Node, TemplateError> {
        let Action { at, tokens } = action;
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "if" => {
                let pipe = pipe(&tokens[1..], at)?;
                let (then, otherwise) = self.branches(at)?;
                Ok(Node::If { pipe, then, otherwise })
            }
            "with" => {
                let pipe = pipe(&tokens[1..], at)?;
                let (then, otherwise) = self.branches(at)?;
                Ok(Node::With { pipe, then, otherwise })
            }
            "range" => {
                let (key, value, rest) = range_variables(&tokens[1..]);
                let pipe = pipe(rest, at)?;
                let (body, otherwise) = self.branches(at)?;
                Ok(Node::Range { key, value, pipe, body, otherwise })
            }
            _ => match tokens.as_slice() {
                [Token::Variable(name, path, _), Token::Assign, rest @ ..] if path.is_empty() => {
                    Ok(Node::Action { assign: Some(name.clone()), pipe: pipe(rest, at)? })
                }
                tokens => Ok(Node::Action { assign: None, pipe: pipe(tokens, at)? }),
            },
        }
    }

    /// What follows `if`, `with` and `range`, to its `{{end}}`.
    fn branches(&mut self, at: usize) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        let (then, stop) = self.block()?;
        match stop {
            Stop::End(_) => Ok((then, Vec::new())),
            Stop::Finished => {
                Err(error(self.end, format!("no {{{{end}}}} for the action at character {at}")))
            }
            Stop::Else(action) if action.tokens.len() > 1 => {
                let nested = Action { at: action.at, tokens: action.tokens[1..].to_vec() };
                Ok((then, vec![self.action(nested)?]))
            }
            Stop::Else(action) => match self.block()? {
                (otherwise, Stop::End(_)) => Ok((then, otherwise)),
                _ => Err(error(action.at, "no {{end}} for this {{else}}")),
            },
        }
    }
}

/// `$i, $e :=` or `$e :=` at the head of a range.
fn range_variables(tokens: &[Token]) -> (Option<String>, Option<String>, &[Token]) {
    match tokens {
        [Token::Variable(key, ..), Token::Comma, Token::Variable(value, ..), Token::Assign, rest @ ..] => {
            (Some(key.clone()), Some(value.clone()), rest)
        }
        [Token::Variable(value, ..), Token::Assign, rest @ ..] => (None, Some(value.clone()), rest),
        rest => (None, None, rest),
    }
}

fn pipe(tokens: &[Token], at: usize) -> Result<Pipe, TemplateError> {
    let mut position = 0;
    let pipe = pipe_until(tokens, &mut position, at, 0)?;
    if position < tokens.len() {
        return Err(error(at, "unexpected closing parenthesis"));
    }
    Ok(pipe)
}

/// How deep parentheses may nest: a template is a person's one-liner.
const MAX_DEPTH: usize = 50;

fn pipe_until(
    tokens: &[Token],
    position: &mut usize,
    at: usize,
    depth: usize,
) -> Result<Pipe, TemplateError> {
    if depth > MAX_DEPTH {
        return Err(error(at, "parentheses nest too deep"));
    }
    let mut pipe = Pipe::new();
    loop {
        let function = match tokens.get(*position) {
            Some(Token::Word(word)) => {
                *position += 1;
                let function = Function::named(word);
                Some(function.ok_or_else(|| error(at, format!("function {word:?} not defined")))?)
            }
            _ => None,
        };
        let mut operands = Vec::new();
        while let Some(operand) = operand(tokens, position, at, depth)? {
            operands.push(operand);
        }
        pipe.push(match (function, operands.len()) {
            (Some(function), _) => Command::Call(function, operands),
            (None, 1) => Command::Value(operands.remove(0)),
            (None, 0) => return Err(error(at, "missing value for command")),
            (None, 2) => match labelled(&mut operands[0]) {
                true => Command::Call(Function::Label, operands),
                false => return Err(error(at, "a value cannot be given arguments")),
            },
            (None, _) => return Err(error(at, "a value cannot be given arguments")),
        });
        if tokens.get(*position) != Some(&Token::Bar) {
            return Ok(pipe);
        }
        *position += 1;
    }
}

fn operand(
    tokens: &[Token],
    position: &mut usize,
    at: usize,
    depth: usize,
) -> Result<Option<Operand>, TemplateError> {
    let operand = match tokens.get(*position) {
        Some(Token::Field(path, at)) => Operand::Field(path.clone(), *at),
        Some(Token::Variable(name, path, at)) => Operand::Variable(name.clone(), path.clone(), *at),
        Some(Token::Literal(value)) => Operand::Literal(value.clone()),
        Some(Token::Open) => {
            *position += 1;
            let inner = pipe_until(tokens, position, at, depth + 1)?;
            let Some(Token::Close(path)) = tokens.get(*position) else {
                return Err(error(at, "unclosed parenthesis"));
            };
            Operand::Nested(inner, path.clone())
        }
        None | Some(Token::Bar | Token::Close(_)) => return Ok(None),
        Some(other) => return Err(error(at, format!("unexpected {other:?}"))),
    };
    *position += 1;
    Ok(Some(operand))
}

/// The first names of all fields that `nodes` show.
/// Docker's rows have a method `.Label`: here it is a function of their field `Labels`.
fn labelled(operand: &mut Operand) -> bool {
    let Operand::Field(path, _) = operand else { return false };
    let Some(last) = path.last_mut().filter(|name| *name == "Label") else { return false };
    last.push('s');
    true
}

pub(super) fn collect_fields(nodes: &[Node], into: &mut Vec<String>) {
    collect(nodes, &|path| path.last(), into);
}

/// The names that begin a field's path.
pub(super) fn collect_roots(nodes: &[Node], into: &mut Vec<String>) {
    collect(nodes, &|path| path.first(), into);
}

/// Which name of a field's path is wanted.
type Which = dyn Fn(&[String]) -> Option<&String>;

fn collect(nodes: &[Node], which: &Which, into: &mut Vec<String>) {
    for node in nodes {
        let (Node::Action { pipe, .. }
        | Node::If { pipe, .. }
        | Node::With { pipe, .. }
        | Node::Range { pipe, .. }) = node
        else {
            continue;
        };
        collect_from_pipe(pipe, which, into);
    }
}

fn collect_from_pipe(pipe: &Pipe, which: &Which, into: &mut Vec<String>) {
    for command in pipe {
        let operands = match command {
            Command::Call(_, operands) => operands.as_slice(),
            Command::Value(operand) => std::slice::from_ref(operand),
        };
        for operand in operands {
            match operand {
                Operand::Field(path, _) => into.extend(which(path).cloned()),
                Operand::Nested(pipe, _) => collect_from_pipe(pipe, which, into),
                Operand::Variable(..) | Operand::Literal(_) => {}
            }
        }
    }
}
