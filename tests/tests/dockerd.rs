//! `berth` against a real dockerd: the client half, proven on an engine that nobody here wrote.

use berth_tests::cli::Frontend;
use berth_tests::dockerd::Dockerd;
use berth_tests::matrix::{self, Fixture};

/// One dockerd serves all cases: it takes seconds to start, and every case uses names of its own.
#[test]
fn berth_drives_dockerd() {
    let dockerd = Dockerd::start();
    let cli = dockerd.cli(Frontend::Berth);
    cli.import_busybox("busybox");
    let case = |name: &str, run: fn(&Fixture)| {
        eprintln!("case {name}");
        run(&Fixture { cli: cli.clone(), scratch: dockerd.scratch(name) });
        let left = cli.ok(&["ps", "-aq"]);
        for id in left.lines() {
            cli.ok(&["rm", "-fv", id]);
        }
    };
    case("version", matrix::images::version_and_info);
    case("import", matrix::images::import_list_inspect_remove);
    case("save", matrix::images::save_and_load);
    case("streams", matrix::run::foreground_streams_and_exit_codes);
    case("failures", matrix::run::failures_to_start);
    case("stdin", matrix::run::standard_input);
    case("large", matrix::run::large_output);
    case("terminal", matrix::run::terminal);
    case("detached", matrix::run::detached);
    case("ps", matrix::lifecycle::ps);
    case("steps", matrix::lifecycle::create_start_stop_remove);
    case("logs", matrix::lifecycle::logs_follow);
    case("stop-as-configured", matrix::lifecycle::stop_as_configured);
    case("health", matrix::lifecycle::health);
    case("exec", matrix::exec::plain);
    case("exec-stdin", matrix::exec::standard_input);
    case("exec-terminal", matrix::exec::terminal);
    case("build", matrix::build::all_instructions);
    case("build-options", matrix::build::options);
    case("build-failure", matrix::build::failing_step);
    case("volumes", matrix::storage::named_volume);
    case("copy", matrix::storage::copy);
}
