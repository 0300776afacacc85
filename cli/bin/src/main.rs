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

/// What clap has to say of a command line ends the program: asking for help, which docker takes a group without a command
/// for as well, is no mistake; what docker misses (a command, an argument) is 1, what it does not understand is 125.
fn said(error: &clap::Error) -> ! {
    use clap::error::ErrorKind;
    let code = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A terminal that has gone needs no help.
            writeln!(std::io::stdout(), "{}", error.render()).ok();
            std::process::exit(0)
        }
        ErrorKind::MissingSubcommand | ErrorKind::InvalidSubcommand | ErrorKind::MissingRequiredArgument => 1,
        _ if error.use_stderr() => 125,
        _ => 0,
    };
    error.print().ok();
    std::process::exit(code)
}

fn main() {
    let app = app::App::read().unwrap_or_else(|error| said(&error));
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
