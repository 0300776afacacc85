//! The user guide is true: every block of it is run.

use std::process::Command;

use berth_tests::cli::bin_dir;
use berth_tests::daemon::Daemon;

/// The fenced `sh` blocks of a Markdown text, each with the line it begins at.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        match &mut open {
            None if line == "```sh" => open = Some((at + 1, String::new())),
            None => {}
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

/// Runs the blocks of one page, in order, against a daemon of their own.
fn every_block_runs(page: &str, at_least: usize) {
    let page = format!("{}/../docs/guide/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&page).expect("the user guide");
    let blocks = blocks(&text);
    assert!(blocks.len() >= at_least, "{page} has {} blocks only", blocks.len());
    let daemon = Daemon::with_busybox();
    let path = format!("{}:{}", bin_dir().display(), std::env::var("PATH").unwrap_or_default());
    let dir = daemon.scratch("guide");
    for (line, block) in blocks {
        let mut shell = Command::new("sh");
        shell.args(["-euc", &block]).current_dir(&dir).env("PATH", &path).env("BERTH_HOST", daemon.host());
        let output = shell.stdin(std::process::Stdio::null()).output().expect("sh");
        assert!(
            output.status.success(),
            "the block at line {line} of {page} fails:\n{block}\n--- stdout\n{}\n--- stderr\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn the_guide() {
    every_block_runs("README.md", 8);
}

#[test]
fn the_chapter_on_compose() {
    every_block_runs("compose.md", 5);
}

#[test]
fn the_chapter_on_networks_and_volumes() {
    every_block_runs("networks-and-volumes.md", 3);
}

#[test]
fn the_chapter_on_the_lab() {
    every_block_runs("lab.md", 3);
}

#[test]
fn the_chapter_on_containers() {
    every_block_runs("containers.md", 3);
}
