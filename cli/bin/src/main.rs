//! `berth`: the command line.

mod app;
mod autostart;
mod commands;
mod credentials;
mod exit;
mod flags;
mod output;
mod session;
mod streams;
mod tarball;
mod template;

use std::io::Write;

use clap::Parser;

fn main() {
    let app = app::App::parse();
    let code = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => match runtime.block_on(app.run()) {
            Ok(exit) => exit.code(),
            Err(error) => {
                exit::tell(&error);
                exit::code_of(&error)
            }
        },
        Err(error) => {
            eprintln!("berth: cannot start: {error}");
            1
        }
    };
    // Nobody is left to be told of an output that has gone away.
    std::io::stdout().flush().ok();
    // Not by returning: a thread that still waits for standard input would hold the process.
    std::process::exit(i32::from(code));
}
