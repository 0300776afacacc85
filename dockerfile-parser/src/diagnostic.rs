//! Findings: errors and warnings with their place and, where one can be guessed, a suggestion.

use std::fmt;

use crate::span::{self, LineRange, Span};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be built.
    Error,
    /// The file builds, but perhaps not as meant.
    Warning,
}

/// Which part of the parser found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the text.
    Parse,
    /// Making sense of an instruction.
    Instruction,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Found by which part.
    pub phase: Phase,
    /// Lint rule, for warnings (`NoEmptyContinuation`).
    pub rule: Option<&'static str>,
    /// What is wrong, in BuildKit's words where it has words for it.
    pub message: String,
    /// A suggestion (`did you mean FROM?`).
    pub help: Option<String>,
    /// The exact place.
    pub span: Span,
    /// The lines as BuildKit reports them. They differ from the span's lines for whole-file errors (`file with no
    /// instructions`: the last line) and for directives, which it counts from 0.
    pub lines: LineRange,
    /// Whether BuildKit puts `dockerfile parse error on line N:` before the message.
    pub prefixed: bool,
}

impl Diagnostic {
    pub(crate) fn parse_error(message: impl Into<String>, span: Span, lines: LineRange) -> Self {
        Self {
            severity: Severity::Error,
            phase: Phase::Parse,
            rule: None,
            message: message.into(),
            help: None,
            span,
            lines,
            prefixed: false,
        }
    }

    pub(crate) fn instruction_error(fault: Fault, span: Span, lines: LineRange) -> Self {
        Self {
            severity: Severity::Error,
            phase: Phase::Instruction,
            rule: None,
            message: fault.message,
            help: fault.help,
            span: fault.span.unwrap_or(span),
            lines,
            prefixed: true,
        }
    }

    pub(crate) fn lint(rule: &'static str, message: String, span: Span, lines: LineRange) -> Self {
        Self {
            severity: Severity::Warning,
            phase: Phase::Instruction,
            rule: Some(rule),
            message,
            help: None,
            span,
            lines,
            prefixed: false,
        }
    }

    /// Message as BuildKit words it, location prefix included; the suggestion is not.
    pub fn full_message(&self) -> String {
        if self.prefixed {
            format!("dockerfile parse error on line {}: {}", self.lines.start, self.message)
        } else {
            self.message.clone()
        }
    }

    /// Message, suggestion, `file:line:column` and the lines around the place.
    pub fn render(&self, file: &str, source: &str) -> String {
        let (line, column) = span::position(source, self.span.start);
        let lines = LineRange::new(line, self.lines.end.max(line));
        let what = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        format!("{what}: {self}\n{file}:{line}:{column}\n{}", span::excerpt(source, lines))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rule) = self.rule {
            write!(f, "{rule}: ")?;
        }
        f.write_str(&self.full_message())?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// What is wrong with an instruction, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// A suggestion.
    pub help: Option<String>,
    /// Where exactly, if it is only a part of the instruction.
    pub span: Option<Span>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, span: None }
    }

    pub(crate) fn with_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    pub(crate) fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}
