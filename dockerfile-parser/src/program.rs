//! A Dockerfile as a program: global arguments, then stages of typed instructions.

use crate::diagnostic::{Diagnostic, Fault, Phase, Severity};
use crate::instruction::{Instruction, Kind};
use crate::span::{self, LineRange, Span};
use crate::syntax::{self, Node, Syntax, Word};
use crate::typed::{self, Typed};

/// The rule that is off unless asked for.
const EXPERIMENTAL: &str = "InvalidDefinitionDescription";

/// A Dockerfile, made sense of.
#[derive(Debug, Clone)]
pub struct Program {
    /// The tree it came from, source included.
    pub syntax: Syntax,
    /// `ARG`s before the first `FROM`.
    pub global_args: Vec<Instruction>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// Everything found wrong: what the parser found, then what the instructions are.
    pub diagnostics: Vec<Diagnostic>,
}

/// A stage: `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `AS name`, in small letters.
    pub name: Option<String>,
    /// The base: an image, an earlier stage or `scratch`. Not expanded.
    pub base: Word,
    /// `--platform`, not expanded.
    pub platform: Option<Word>,
    /// `FROM` as written.
    pub keyword: String,
    /// The `FROM` line.
    pub original: String,
    /// Place of the `FROM` line.
    pub span: Span,
    /// Lines of the `FROM` line.
    pub lines: LineRange,
    /// Comments above it.
    pub comments: Vec<String>,
    /// What follows.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// The description in a comment above: `# name what it is`.
    pub fn doc(&self) -> Option<&str> {
        let name = self.name.as_deref()?;
        self.comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }
}

impl Program {
    /// All errors, those of the parser first.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> + Clone {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error)
    }

    /// The error that BuildKit would stop at.
    pub fn first_error(&self) -> Option<&Diagnostic> {
        let mut errors = self.errors();
        let first = errors.clone().find(|d| d.phase == Phase::Parse);
        first.or_else(|| errors.next())
    }

    /// Warnings that are on by default and not turned off by a `check` directive.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        let file_wide = self.silenced();
        let on = move |rule: &str| rule != EXPERIMENTAL && !file_wide.covers(rule);
        self.diagnostics.iter().filter(move |d| d.severity == Severity::Warning && d.rule.is_none_or(&on))
    }

    /// What a `check` directive turns off in the whole file.
    pub(crate) fn silenced(&self) -> Silenced {
        self.syntax.check_directive().map(|d| Silenced::from_value(&d.value)).unwrap_or_default()
    }

    /// Whether a `check` directive says `error=true`: warnings fail the build then.
    pub fn warnings_are_errors(&self) -> bool {
        let check = self.syntax.check_directive();
        check.is_some_and(|d| d.value.split(';').any(|part| part.trim().eq_ignore_ascii_case("error=true")))
    }

    /// The lines around a place, ready to print.
    pub fn excerpt(&self, lines: LineRange) -> String {
        span::excerpt(&self.syntax.source, lines)
    }
}

/// Makes sense of a syntax tree.
pub fn analyse(syntax: Syntax) -> Program {
    let mut diagnostics = syntax.diagnostics.clone();
    let mut global_args = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut missed_from = false;
    for node in &syntax.nodes {
        let silenced = Silenced::above(node);
        let before = diagnostics.len();
        lint(node, &mut diagnostics);
        let fresh = diagnostics.split_off(before);
        diagnostics.extend(fresh.into_iter().filter(|d| !d.rule.is_some_and(|rule| silenced.covers(rule))));
        let typed = match typed::typed(node) {
            Ok(typed) => typed,
            Err(fault) => {
                // A misspelt FROM must not bring down everything below it.
                missed_from |= stages.is_empty();
                diagnostics.push(Diagnostic::instruction_error(fault, node.span, node.lines));
                continue;
            }
        };
        match typed {
            Typed::From(from) => stages.push(Stage {
                name: from.name,
                base: from.base,
                platform: from.platform,
                keyword: node.keyword.text.clone(),
                original: node.original.trim().to_owned(),
                span: node.span,
                lines: node.lines,
                comments: node.comments.clone(),
                instructions: Vec::new(),
            }),
            Typed::Kind(kind) => {
                let is_arg = matches!(kind, Kind::Arg(_));
                let instruction = instruction(node, kind);
                match stages.last_mut() {
                    Some(stage) => stage.instructions.push(instruction),
                    None if is_arg => global_args.push(instruction),
                    None if missed_from => {}
                    None => {
                        missed_from = true;
                        let fault = Fault::new("no build stage in current context");
                        let mut error = Diagnostic::instruction_error(fault, node.span, node.lines);
                        error.prefixed = false;
                        error.help = Some("a Dockerfile must start with FROM".into());
                        diagnostics.push(error);
                    }
                }
            }
        }
    }
    Program { syntax, global_args, stages, diagnostics }
}

/// Parses the text of an `ONBUILD` trigger. Spans and lines are those of the text itself.
///
/// # Errors
/// What is wrong with it.
pub fn trigger(text: &str) -> Result<Instruction, Diagnostic> {
    let syntax = syntax::parse(text);
    if let Some(error) = syntax.diagnostics.into_iter().find(|d| d.severity == Severity::Error) {
        return Err(error);
    }
    let whole = Span::new(0, text.len());
    let fail = |what: &str| Err(Diagnostic::instruction_error(Fault::new(what), whole, LineRange::new(1, 1)));
    let [node] = syntax.nodes.as_slice() else { return fail("an ONBUILD trigger is one instruction") };
    match typed::typed(node) {
        Ok(Typed::Kind(kind)) => Ok(instruction(node, kind)),
        Ok(Typed::From(_)) => fail("FROM isn't allowed as an ONBUILD trigger"),
        Err(fault) => Err(Diagnostic::instruction_error(fault, node.span, node.lines)),
    }
}

fn instruction(node: &Node, kind: Kind) -> Instruction {
    Instruction {
        keyword: node.keyword.text.clone(),
        original: node.original.trim().to_owned(),
        span: node.span,
        lines: node.lines,
        comments: node.comments.clone(),
        kind,
    }
}

/// Rules that a `check` directive, or a `# check=` comment above an instruction, turns off.
#[derive(Debug, Clone, Default)]
pub(crate) struct Silenced {
    rules: Vec<String>,
}

impl Silenced {
    /// `skip=A,B;error=true`
    fn from_value(value: &str) -> Self {
        let skip = value.split(';').find_map(|part| part.trim().strip_prefix("skip="));
        Self { rules: skip.unwrap_or("").split(',').map(|rule| rule.trim().to_owned()).collect() }
    }

    fn above(node: &Node) -> Self {
        Self::in_comments(&node.comments)
    }

    pub(crate) fn in_comments(comments: &[String]) -> Self {
        let check = comments.iter().find_map(|comment| comment.strip_prefix("check="));
        check.map(|value| Self::from_value(value.split(' ').next().unwrap_or(""))).unwrap_or_default()
    }

    pub(crate) fn covers(&self, rule: &str) -> bool {
        self.rules.iter().any(|skipped| skipped == rule || (skipped == "all" && rule != EXPERIMENTAL))
    }
}

/// The lint rules that look at one instruction alone.
fn lint(node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    let mut warn = |rule, message| diagnostics.push(Diagnostic::lint(rule, message, node.span, node.lines));
    match node.name().as_str() {
        "MAINTAINER" => warn(
            "MaintainerDeprecated",
            "Maintainer instruction is deprecated in favor of using label".into(),
        ),
        "FROM" => {
            let [_, keyword, name] = node.words() else { return };
            if name.text != name.text.to_lowercase() {
                warn("StageNameCasing", format!("Stage name '{}' should be lowercase", name.text));
            }
            let from = &node.keyword.text;
            let (lower, upper) = (from.to_lowercase(), from.to_uppercase());
            let agrees = if *from == lower {
                keyword.text == keyword.text.to_lowercase()
            } else if *from == upper {
                keyword.text == keyword.text.to_uppercase()
            } else {
                true
            };
            if !agrees {
                let message = format!("'{}' and '{from}' keywords' casing do not match", keyword.text);
                warn("FromAsCasing", message);
            }
            if typed::typed(node).is_ok() {
                describe(node, "FROM", &[name.text.to_lowercase()], &mut warn);
            }
        }
        "ARG" => {
            if let Ok(Typed::Kind(Kind::Arg(pairs))) = typed::typed(node) {
                let keys: Vec<String> = pairs.into_iter().map(|pair| pair.key).collect();
                describe(node, "ARG", &keys, &mut warn);
            }
        }
        _ => {}
    }
}

fn describe(node: &Node, what: &str, keys: &[String], warn: &mut impl FnMut(&'static str, String)) {
    let Some(comment) = node.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or("");
    if keys.iter().any(|key| key == first) {
        return;
    }
    let example = match keys {
        [only] => only.as_str(),
        _ => "<arg_key>",
    };
    let message = format!("Comment for {what} should follow the format: `# {example} <description>`");
    warn(EXPERIMENTAL, message);
}
