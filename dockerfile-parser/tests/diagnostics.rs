//! What a user sees when a Dockerfile is wrong.

use berth_dockerfile_parser::{Severity, read};

fn errors(source: &str) -> String {
    let program = read(source);
    let errors = program.diagnostics.iter().filter(|d| d.severity == Severity::Error);
    errors.map(|d| d.render("Dockerfile", source)).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let source = "FROM alpine AS build\nRUN make\nCOYP a b\nENV X\n\nFROM scratch\nCOPY --form=build /a \\\n  /b\nHEALTHCHECK --retries=-1 CMD x\n";
    insta::assert_snapshot!(errors(source), @r"
    error: ENV must have two arguments
    Dockerfile:4:1
    --------------------
       2 |     RUN make
       3 |     COYP a b
       4 | >>> ENV X
       5 |
       6 |     FROM scratch
    --------------------

    error: dockerfile parse error on line 3: unknown instruction: COYP (did you mean COPY?)
    Dockerfile:3:1
    --------------------
       1 |     FROM alpine AS build
       2 |     RUN make
       3 | >>> COYP a b
       4 |     ENV X
       5 |
    --------------------

    error: dockerfile parse error on line 7: unknown flag: --form (did you mean from?)
    Dockerfile:7:6
    --------------------
       5 |
       6 |     FROM scratch
       7 | >>> COPY --form=build /a \
       8 | >>>   /b
       9 |     HEALTHCHECK --retries=-1 CMD x
    --------------------

    error: dockerfile parse error on line 9: --retries cannot be negative (-1)
    Dockerfile:9:13
    --------------------
       7 |     COPY --form=build /a \
       8 |       /b
       9 | >>> HEALTHCHECK --retries=-1 CMD x
    --------------------
    ");
}

#[test]
fn a_misspelt_from_is_one_fault() {
    insta::assert_snapshot!(errors("FORM alpine\nRUN a\nRUN b\n"), @r"
    error: dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)
    Dockerfile:1:1
    --------------------
       1 | >>> FORM alpine
       2 |     RUN a
       3 |     RUN b
    --------------------
    ");
}

#[test]
fn spans_cross_continuations() {
    let source = "FROM a\nCOPY --chown=1 \\\n  # a comment\n  --bogus=2 x y\n";
    let program = read(source);
    let error = program.first_error().unwrap();
    assert_eq!(error.span.of(source), "--bogus=2");
    assert_eq!((error.lines.start, error.lines.end), (2, 4));
}
