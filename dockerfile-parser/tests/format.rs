//! The formatter among the examples: what it writes means the same, and it leaves alone what it wrote.

use berth_dockerfile_parser::syntax::{self, Node};
use proptest::prelude::*;

#[path = "../examples/format.rs"]
#[allow(dead_code, reason = "its main function is not called here")]
mod example;

/// What a node says, without where it stands.
fn meaning(nodes: &[Node]) -> Vec<(String, Vec<String>, String, Vec<String>)> {
    let texts = |node: &Node| node.flags.iter().map(|flag| flag.text.clone()).collect();
    let bodies = |node: &Node| node.heredocs.iter().map(|doc| doc.body.clone()).collect();
    let arguments = |node: &Node| {
        let (_, rest) = node.original.trim_start().split_once(char::is_whitespace).unwrap_or_default();
        rest.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    nodes.iter().map(|node| (node.name(), texts(node), arguments(node), bodies(node))).collect()
}

#[track_caller]
fn holds(source: &str) {
    let Ok(formatted) = example::format(source) else { return };
    assert_eq!(
        meaning(&syntax::parse(&formatted).nodes),
        meaning(&syntax::parse(source).nodes),
        "{formatted:?}"
    );
    assert_eq!(example::format(&formatted).as_ref(), Ok(&formatted));
}

#[test]
fn a_file_is_formatted() {
    let source = "# syntax=docker/dockerfile:1\n\n\n\nfrom   alpine  AS x  \n  # why\nrun  --mount=type=cache,target=/c   \\\n \
                  # inside\n  --network=none   make   all\nCOPY <<EOF  /f\n  as it is  \nEOF\n\n";
    let formatted = example::format(source).unwrap();
    assert_eq!(
        formatted,
        "# syntax=docker/dockerfile:1\n\nFROM alpine  AS x\n# why\nRUN --mount=type=cache,target=/c   \\\n \
         # inside\n  --network=none make   all\nCOPY <<EOF  /f\n  as it is  \nEOF\n"
    );
    holds(source);
    assert!(example::format("# escape=x\nFROM a\n").unwrap_err().contains("invalid escape token"));
}

proptest! {
    #[test]
    fn formatting_changes_no_meaning(
        pieces in proptest::collection::vec(
            prop_oneof![
                Just("from a"), Just("Run"), Just(" --mount=type=cache,target=/x "), Just("\\\n"), Just("\n"), Just("\n\n\n"),
                Just("# c\n"), Just("  "), Just("copy <<E /x\n b \nE\n"), Just("run echo 'a  b'\n"), Just("env A=b  C=d\n"),
                Just("\t"), Just("cmd [\"a\"]\n"), Just("onbuild run x\n"), Just("\r\n"),
            ],
            0..16,
        )
    ) {
        holds(&pieces.concat());
    }
}
