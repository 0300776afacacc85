//! `berth`: the command line.

mod app;
mod autostart;
mod commands;
mod contexts;
mod credentials;
mod exit;
mod flags;
mod output;
mod session;
mod streams;
mod tarball;
mod template;

use std::io::Write;

/// The exit code of a command line that is not understood, as docker has it.
const USAGE: i32 = 125;

fn main() {
    let app = app::App::read().unwrap_or_else(|error| {
        // Asking for help is no mistake. A terminal that has gone needs neither.
        error.print().ok();
        std::process::exit(if error.use_stderr() { USAGE } else { 0 })
    });
    let code = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(app.run());
            // Dropping it would wait for a thread that still reads standard input.
            runtime.shutdown_background();
            match ended {
                Ok(exit) => exit.code(),
                Err(error) => {
                    exit::tell(&error);
                    exit::code_of(&error)
                }
            }
        }
        Err(error) => {
            eprintln!("berth: cannot start: {error}");
            1
        }
    };
    // Nobody is left to be told of an output that has gone away.
    std::io::stdout().flush().ok();
    // Not by returning, for the same reason.
    std::process::exit(i32::from(code));
}
