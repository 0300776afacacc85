//! Whatever the input, nothing panics, and spans point into the source.

use std::collections::BTreeMap;

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::syntax::Arguments;
use berth_dockerfile_parser::{chmod, duration, expose_ports, glob, ignore, mount, program, read};
use proptest::prelude::*;

/// Text made of what Dockerfiles are made of, so that the deep branches are reached.
fn dockerfile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "FROM",
        "RUN",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "ONBUILD",
        "HEALTHCHECK",
        "SHELL",
        "LABEL",
        "EXPOSE",
        "CMD",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\\",
        "\\\n",
        "\\ \n",
        "`",
        "#",
        "# escape=`\n",
        "# syntax=x\n",
        "# check=skip=all\n",
        "<<EOF",
        "<<-'E O'",
        "EOF",
        "--from=x",
        "--mount=type=bind,from=",
        "--chown=\"a b\"",
        "--",
        "[",
        "]",
        "\"",
        "'",
        "[\"a\",\"b\"]",
        "[1]",
        "$x",
        "${x:-y}",
        "${",
        "}",
        "=",
        "a=b",
        "é",
        "\u{a0}",
        "\u{feff}",
        "\0",
        "AS",
        "CMD",
        "scratch",
        ",",
        "/",
        "*",
        "\u{2003}",
    ]);
    prop_oneof![prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat()), any::<String>(),]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_panics(source in dockerfile()) {
        let program = read(&source);
        for finding in &program.diagnostics {
            finding.render("Dockerfile", &source);
            prop_assert!(finding.span.end <= source.len() && finding.span.start <= finding.span.end);
        }
        for node in &program.syntax.nodes {
            prop_assert!(node.span.end <= source.len());
            prop_assert_eq!(node.keyword.span.of(&source).is_empty(), node.keyword.text.is_empty());
            if let Arguments::Words(words) = &node.args {
                for word in words {
                    prop_assert!(word.span.end <= source.len());
                }
            }
        }
        program::trigger(&source).ok();
    }

    #[test]
    fn words_never_panic(word in dockerfile(), value in any::<String>()) {
        let env: BTreeMap<String, String> = [("x".to_owned(), value)].into();
        for escape in ['\\', '`'] {
            Lexer::new(escape).expand(&word, &env).ok();
        }
    }

    #[test]
    fn small_parsers_never_panic(text in any::<String>(), name in any::<String>()) {
        chmod::Mode::parse(&text).map(|mode| mode.apply(0o644, false)).ok();
        duration::parse(&text).ok();
        expose_ports(&text).ok();
        glob::matches(&text, &name).ok();
        mount::parse(&text, |v| Ok(v.to_owned())).ok();
        if let Ok(matcher) = ignore::Matcher::new(ignore::read(&text)) {
            matcher.matches(&name).ok();
        }
    }

    #[test]
    fn a_walk_and_a_single_look_agree(patterns in prop::collection::vec("!?[ab*/?]{1,6}", 1..5), path in "[ab]/[ab]/[ab]") {
        let Ok(matcher) = ignore::Matcher::new(&patterns) else { return Ok(()) };
        let mut state = ignore::DirState::default();
        let mut matched = false;
        for end in [1, 3, 5] {
            (matched, state) = matcher.step(&path[..end], &state).unwrap();
        }
        prop_assert_eq!(matcher.matches(&path).unwrap(), matched);
    }
}
