//! Dockerfile text to syntax tree, typed instructions and diagnostics with spans. Pure: no I/O.
//!
//! The stages are kept apart, each usable alone:
//!
//! 1. [`syntax::parse`]: text to a list of [`syntax::Node`]s: keyword, flags, arguments, heredocs, each with its
//!    [`Span`]. Never fails: what is wrong is listed as [`Diagnostic`]s beside what could be read.
//! 2. [`program::analyse`]: nodes to stages of typed [`instruction::Instruction`]s.
//! 3. [`expand`]: words with `$variables`, quotes and modifiers to plain text.
//! 4. [`ignore`]: `.dockerignore` files, and [`glob`]: the patterns of `COPY` sources.
//!
//! ```
//! let program = berth_dockerfile_parser::read("FORM alpine\nRUN echo hi\n");
//! let first = program.first_error().unwrap();
//! assert_eq!(first.message, "unknown instruction: FORM");
//! assert_eq!(first.help.as_deref(), Some("did you mean FROM?"));
//! assert_eq!(first.lines.start, 1);
//! ```
//!
//! Two programs in `examples/` show what it is good for: `format` rewrites a Dockerfile without losing a byte that means
//! something, `outline` lists stages, what they are made of, and everything that is wrong.

pub mod chmod;
pub mod device;
pub mod diagnostic;
mod directive;
pub mod duration;
pub mod expand;
mod flags;
pub mod giturl;
pub mod glob;
mod golang;
pub mod heredoc;
pub mod ignore;
pub mod instruction;
mod json;
mod lines;
pub mod lint;
pub mod mount;
mod pattern;
mod port;
pub mod program;
pub mod span;
mod suggest;
pub mod syntax;
mod typed;
mod words;

pub use diagnostic::{Diagnostic, Phase, Severity};
pub use directive::Directive;
pub use golang::quote as go_quote;
pub use port::{Port, PortError, expose_ports};
pub use program::{Program, Stage};
pub use span::{LineRange, Span};

/// The examples in the README compile and hold.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Reads a whole Dockerfile: [`syntax::parse`], then [`program::analyse`].
pub fn read(source: &str) -> Program {
    program::analyse(syntax::parse(source))
}
